//! A cluster in which users, agents and nodes do as they please, and time jumps. Each plan that is applied is checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use swarm_core::{Context, Dirty, ENTRY_VERSION, Entry, Op, Outcome, Place, Plan, State, Tx, apply, decide, forecast};
use swarm_model::{
    Availability, Cause, DesiredState, FailureAction, Id, NodeDescription, NodeId, NodeRole, NodeState, NodeStatus,
    ReplicatedJob, Service, ServiceId, ServiceMode, ServiceSpec, Settings, Task, TaskState, TaskStatus, Timestamp,
    UpdateConfig, UpdateOrder, UpdateState,
};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create {
        replicas: Option<u64>,
        job: bool,
        cpu: i64,
        port: bool,
        attempts: u64,
        update: Option<UpdateConfig>,
        max_unavailable: Option<u64>,
        rebalance: bool,
    },
    /// Spread anew, once.
    Rebalance {
        service: usize,
    },
    /// A new spec: a rolling update.
    Update {
        service: usize,
    },
    RollBack {
        service: usize,
    },
    Scale {
        service: usize,
        replicas: u64,
    },
    Remove {
        service: usize,
    },
    Node {
        node: usize,
        state: NodeState,
    },
    Availability {
        node: usize,
        availability: Availability,
        by_policy: bool,
    },
    RemoveNode {
        node: usize,
    },
    Report {
        task: usize,
        state: TaskState,
    },
    Advance {
        seconds: i64,
    },
    /// All agents do as they are told.
    Agents,
    Decide,
    /// A piece of so many changes, whatever is left.
    DecidePiece {
        changes_max: usize,
    },
    /// Such pieces until nothing is left.
    DecidePieces {
        changes_max: usize,
    },
    /// A plan that never reaches the log.
    DecideAndLose,
    /// A plan that is applied a second time.
    DecideTwice,
    /// A plan that comes some steps later, when another one may have been applied.
    DecideLate,
}

fn update_config() -> impl Strategy<Value = UpdateConfig> {
    let action = prop_oneof![Just(FailureAction::Pause), Just(FailureAction::Continue), Just(FailureAction::Rollback)];
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    (0..4_u64, 0..20_i64, action, order, 0..3_u8).prop_map(|(parallelism, delay, failure_action, order, ratio)| {
        let max_failure_ratio = f32::from(ratio) / 4.0;
        let delay_ns = delay * 1_000_000_000;
        UpdateConfig { parallelism, delay_ns, failure_action, max_failure_ratio, order, ..UpdateConfig::default() }
    })
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let node_state = prop_oneof![Just(NodeState::Ready), Just(NodeState::Down), Just(NodeState::Unknown)];
    let availability =
        prop_oneof![3 => Just(Availability::Active), 1 => Just(Availability::Pause), 1 => Just(Availability::Drain)];
    prop_oneof![
        1 => (
            prop::option::weighted(0.8, 0..6_u64), prop::bool::weighted(0.3), 0..3_i64, any::<bool>(), 0..3_u64,
            prop::option::weighted(0.8, update_config()), prop::option::weighted(0.4, 1..4_u64),
            any::<bool>(),
        ).prop_map(|(replicas, job, cpu, port, attempts, update, max_unavailable, rebalance)| {
            Step::Create { replicas, job, cpu, port, attempts, update, max_unavailable, rebalance }
        }),
        1 => any::<usize>().prop_map(|service| Step::Rebalance { service }),
        2 => any::<usize>().prop_map(|service| Step::Update { service }),
        1 => any::<usize>().prop_map(|service| Step::RollBack { service }),
        2 => (any::<usize>(), 0..8_u64).prop_map(|(service, replicas)| Step::Scale { service, replicas }),
        1 => any::<usize>().prop_map(|service| Step::Remove { service }),
        2 => (any::<usize>(), node_state).prop_map(|(node, state)| Step::Node { node, state }),
        2 => (any::<usize>(), availability, any::<bool>()).prop_map(|(node, availability, by_policy)| {
            Step::Availability { node, availability, by_policy }
        }),
        1 => any::<usize>().prop_map(|node| Step::RemoveNode { node }),
        12 => (any::<usize>(), 0..TaskState::ALL.len())
            .prop_map(|(task, state)| Step::Report { task, state: TaskState::ALL[state] }),
        3 => (0..90_i64).prop_map(|seconds| Step::Advance { seconds }),
        6 => Just(Step::Agents),
        6 => Just(Step::Decide),
        2 => (1..5_usize).prop_map(|changes_max| Step::DecidePiece { changes_max }),
        2 => (1..5_usize).prop_map(|changes_max| Step::DecidePieces { changes_max }),
        1 => Just(Step::DecideAndLose),
        1 => Just(Step::DecideTwice),
        4 => Just(Step::DecideLate),
    ]
}

/// More pieces than all that there may be to do.
/// A drain by policy goes on for some steps.
const DRAIN_TIMEOUT_NS: i64 = 60_000_000_000;
const PIECES_MAX: usize = 3000;

/// Tasks of a job at the same time.
const JOB_CONCURRENT: u64 = 2;

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    pub(crate) dirty: Dirty,
    pub(crate) deadlines: BTreeMap<ServiceId, Timestamp>,
    pub(crate) seed: u64,
    pub(crate) made: u128,
}

/// Whether the drain of its node takes a task away whatever the policies say.
fn is_driven_out(state: &State, task: &Task, now: Timestamp) -> bool {
    let node = task.node.and_then(|id| state.node(id)).filter(|node| node.status.state != NodeState::Down);
    node.and_then(|node| node.emptied_from()).is_some_and(|from| from <= now)
}

impl World {
    pub(crate) fn new(nodes: u128) -> Self {
        let mut world = Self {
            state: State::default(),
            now: Timestamp::from_millis(1_000_000),
            dirty: Dirty::default(),
            deadlines: BTreeMap::new(),
            seed: 7,
            made: 0,
        };
        world.commit(vec![Tx::new(vec![Op::RaiseFeatureLevel { level: ENTRY_VERSION }])]);
        for number in 0..nodes {
            let node = NodeId::make(world.now, number);
            let mut description = NodeDescription::default();
            description.resources.nano_cpus = 4_000_000_000;
            let (role, cert_expires_at, availability) = (NodeRole::Worker, world.now, Availability::Active);
            let admit = Op::AdmitNode { node, role, cert_expires_at, manager_addr: None, availability };
            let report =
                Op::ReportNode { node, status: status(NodeState::Ready), description: Some(Arc::new(description)) };
            world.commit(vec![Tx::new(vec![admit, report])]);
        }
        world
    }

    pub(crate) fn commit(&mut self, txs: Vec<Tx>) -> Vec<Outcome> {
        let before = self.state.clone();
        let index = self.state.revision() + 1;
        let (outcomes, events) = apply(&mut self.state, index, &Entry { v: ENTRY_VERSION, at: self.now, txs });
        events.iter().for_each(|event| self.dirty.mark(event));
        self.check_monotone(&before);
        outcomes
    }

    /// Observed and desired states only go up, and a task keeps its node.
    fn check_monotone(&self, before: &State) {
        for task in before.tasks() {
            if let Some(after) = self.state.task(task.id) {
                assert!(after.desired >= task.desired && after.status.state >= task.status.state);
                assert!(task.node.is_none() || task.node == after.node);
            }
        }
    }

    /// A piece of a plan. What is left of what was dirty is dirty again.
    pub(crate) fn decide(&mut self) -> Plan {
        self.decide_at_most(Context::at(self.now, 0).changes_max)
    }

    /// The same with a piece of so many changes.
    pub(crate) fn decide_at_most(&mut self, changes_max: usize) -> Plan {
        let due = self.deadlines.iter().filter(|(_, at)| **at <= self.now).map(|(service, _)| *service);
        self.dirty.services.extend(due);
        self.seed += 1;
        let context = Context { changes_max, ..Context::at(self.now, self.seed) };
        let dirty = std::mem::take(&mut self.dirty);
        let plan = decide(&self.state, &dirty, &context);
        self.dirty = plan.unfinished.clone();
        let is_idle = plan.txs.is_empty() && plan.unfinished == dirty;
        assert!(!is_idle || dirty.is_empty(), "no piece goes by without anything done: {dirty:?}");
        assert_eq!(plan.refused, [], "a plan that its own clone refuses");
        plan.renew(&mut self.deadlines);
        plan
    }

    /// Applies a plan. What falls makes its services dirty again, as the leader does.
    pub(crate) fn apply_plan(&mut self, plan: Plan) {
        if self.commit(plan.txs).iter().any(Result::is_err) {
            self.dirty.all = true;
        }
        self.check_safety();
    }

    /// Applies a plan that nothing came before: it keeps to the policy of each service.
    pub(crate) fn apply_fresh(&mut self, plan: Plan) {
        let before = self.state.clone();
        let ops: Vec<Op> = plan.txs.iter().flat_map(|tx| tx.ops.clone()).collect();
        let is_last = plan.unfinished.is_empty();
        self.apply_plan(plan);
        // Every entry takes some time: what is due by now is none of the plan's.
        if is_last && self.deadlines.values().all(|at| at.since_ns(self.state.time()) > 1_000) {
            let again = decide(&self.state, &self.dirty, &Context::at(self.now, self.seed + 1_000_000));
            let txs = again.txs.iter().filter(|tx| !tx.ops.iter().all(follows_from_room)).collect::<Vec<_>>();
            assert!(txs.is_empty(), "deciding again right after {ops:?}: {txs:?}");
        }
        for op in &ops {
            let places: Vec<&Place> = match op {
                Op::CreateTasks { tasks, .. } => tasks.iter().map(|task| &task.place).collect(),
                Op::PlaceTask { place, .. } => vec![place],
                _ => Vec::new(),
            };
            for node in
                places.into_iter().filter_map(|p| if let Place::On(node) = p { before.node(*node) } else { None })
            {
                assert_eq!((node.status.state, node.spec.availability), (NodeState::Ready, Availability::Active));
            }
        }
        for service in self.state.services().filter(|service| service.spec.replicas().is_some()) {
            self.check_taken_away(&before, service, &ops);
            self.check_parallelism(&before, service, &ops);
        }
    }

    /// A plan never takes more away than `swarmd.max-unavailable` says, unless the user wants fewer.
    fn check_taken_away(&self, before: &State, service: &Service, ops: &[Op]) {
        let Some(limit) = Settings::of(&service.spec.labels).max_unavailable else { return };
        let shrinks = |op: &Op| {
            let Op::SetDesired { desired: DesiredState::Remove, tasks } = op else { return false };
            tasks.iter().any(|task| self.state.task(*task).is_some_and(|task| task.service == service.id))
        };
        if ops.iter().any(shrinks) {
            return;
        }
        let is_ready = |state: &State, task: &Task| {
            task.node.and_then(|id| state.node(id)).is_some_and(|node| node.status.state == NodeState::Ready)
        };
        let available = |state: &State| {
            let serves = |task: &&Arc<Task>| {
                let is_up = task.status.state == TaskState::Running && is_ready(state, task);
                // A drain without policy is not held up.
                task.desired.is_live() && is_up && !is_driven_out(state, task, self.now)
            };
            state.tasks_of_service(service.id).filter(serves).map(|t| t.slot).collect::<BTreeSet<u32>>().len() as u64
        };
        // What ended or was lost, and is not started again, is not waited for. The last task of a place says so: one
        // that it took over from may still have to stop.
        let mut places: BTreeMap<u32, Vec<&Arc<Task>>> = BTreeMap::new();
        for task in self.state.tasks_of_service(service.id) {
            places.entry(task.slot).or_default().push(task);
        }
        let is_over = |tasks: &&Vec<&Arc<Task>>| {
            let last = tasks.iter().max_by_key(|task| task.id).expect("each place has a task");
            let has_ended = last.status.state.is_terminal() || !is_ready(&self.state, last);
            has_ended && tasks.iter().all(|task| !task.desired.is_live())
        };
        let over = places.values().filter(is_over).count() as u64;
        let wanted = service.spec.replicas().expect("only such services are asked").saturating_sub(over);
        let (before, after) = (available(before), available(&self.state));
        let least = before.min(wanted.saturating_sub(limit.of(wanted)));
        assert!(after >= least, "{after} of {wanted} are left, of {before}: {ops:?}");
    }

    /// A plan that begins places leaves no more of them under way than the policy allows.
    fn check_parallelism(&self, before: &State, service: &Service, ops: &[Op]) {
        let update = service.update.as_ref();
        let config = if service.rolls_back() { &service.spec.rollback_config } else { &service.spec.update_config };
        let parallelism = config.as_ref().map_or(1, |config| config.parallelism);
        let all_at_once = parallelism == 0 || service.spec.update_config.is_none();
        let began = |task: &Task| match task.cause {
            Cause::Move => true,
            Cause::Update => update.is_some_and(|update| task.created_at >= update.started_at),
            _ => false,
        };
        // What comes instead of a new task whose node is drained or lost begins nothing, whatever made that.
        let is_begun = |slot| {
            let made = |task: &Task| task.cause == Cause::Update && began(task);
            let comes = |task: &Task| task.desired.is_live() && task.reached_at.is_none();
            let mut tasks = before.tasks_of_slot(service.id, slot);
            tasks.any(|task| task.spec_version == service.spec_version && (made(task) || comes(task)))
        };
        // A drain without policy waits for no turn.
        let is_free = |slot| before.tasks_of_slot(service.id, slot).any(|task| is_driven_out(before, task, self.now));
        let begins = |op: &Op| match op {
            Op::CreateTasks { service: id, cause: Cause::Update | Cause::Move, tasks, .. } => {
                *id == service.id && tasks.iter().any(|task| !is_begun(task.slot) && !is_free(task.slot))
            }
            _ => false,
        };
        if all_at_once || !ops.iter().any(begins) || update.is_some_and(|update| update.state.is_paused()) {
            return;
        }
        let under_way = self.state.tasks_of_service(service.id).filter(|task| {
            let fresh = task.reached_at.is_none() && task.spec_version == service.spec_version;
            // A place that has no node, or had none before, takes nobody's turn.
            let waits = |state: &State| {
                let others = || state.tasks_of_slot(service.id, task.slot);
                let mut live = others().filter(|other| other.desired.is_live());
                live.all(|other| other.status.state == TaskState::Pending)
                    && !others().any(|other| other.holds_resources())
            };
            let counts = !waits(&self.state) && !waits(before) && !is_free(task.slot);
            task.desired.is_live() && fresh && began(task) && counts
        });
        // A drain of its node may take what is under way on, in the same place.
        let under_way = under_way.map(|task| task.slot).collect::<BTreeSet<u32>>().len() as u64;
        assert!(under_way <= parallelism, "{under_way} under way, {parallelism} may be: {ops:?}");
    }

    /// One live task a place, two while one takes over, and stop-first never two that are to run; no node holds more
    /// than it has, and no port twice.
    fn check_safety(&self) {
        for service in self.state.services() {
            let global = service.spec.mode.is_global();
            let mut live: BTreeMap<_, Vec<DesiredState>> = BTreeMap::new();
            for task in self.state.tasks_of_service(service.id).filter(|task| task.desired.is_live()) {
                live.entry((task.slot, task.node.filter(|_| global))).or_default().push(task.desired);
            }
            let starts_first = service.spec.update_config.as_ref().is_some_and(|c| c.order == UpdateOrder::StartFirst);
            for desired in live.values() {
                assert!(desired.len() <= 2, "more than an old and a new task in one place: {live:?}");
                let runs = desired.iter().filter(|desired| **desired == DesiredState::Running).count();
                assert!(starts_first || runs <= 1, "stop-first, but two run: {live:?}");
            }
            assert!(service.history.len() <= swarm_model::REVISIONS_MAX);
            let in_force = service.history.iter().find(|revision| revision.number == service.revision);
            assert_eq!(
                in_force.map(|revision| &revision.spec),
                Some(&service.spec),
                "the history has what is in force"
            );
            for revision in &service.history {
                let kept = self.state.spec(service.id, revision.spec_version).is_some();
                assert!(kept, "a revision that cannot be gone back to");
            }
            if let Some(update) = &service.update {
                assert!(update.state != UpdateState::Completed || update.completed_at.is_some());
            }
        }
        for node in self.state.nodes() {
            let load = self.state.load(node.id);
            assert!(load.nano_cpus <= 4_000_000_000, "node over its capacity");
            assert!(load.ports().all(|(_, _, count)| count == 1), "a port held twice");
        }
    }

    pub(crate) fn run(&mut self, step: &Step) {
        let services: Vec<ServiceId> = self.state.services().map(|s| s.id).collect();
        let nodes: Vec<NodeId> = self.state.nodes().map(|n| n.id).collect();
        let pick = |list: usize, number: usize| (list > 0).then(|| number % list.max(1));
        let op = match step {
            Step::Create { replicas, job, cpu, port, attempts, update, max_unavailable, rebalance } => {
                self.made += 1;
                let mut spec = spec(self.made, replicas.unwrap_or(0), *cpu, *port, *attempts);
                let changed = Arc::make_mut(&mut spec);
                changed.update_config = update.clone().filter(|_| !job);
                let label =
                    max_unavailable.filter(|_| !job).map(|n| ("swarmd.max-unavailable".to_owned(), n.to_string()));
                changed.labels.extend(label);
                if replicas.is_some() && !job && *rebalance {
                    changed.labels.insert("swarmd.rebalance".to_owned(), "true".to_owned());
                }
                match (replicas, job) {
                    (Some(_), false) => {}
                    (None, false) => changed.mode = ServiceMode::Global,
                    (None, true) => changed.mode = ServiceMode::GlobalJob,
                    (Some(_), true) => {
                        let (max_concurrent, total_completions) = (Some(JOB_CONCURRENT), *replicas);
                        changed.mode = ServiceMode::ReplicatedJob(ReplicatedJob { max_concurrent, total_completions });
                    }
                }
                Some(Op::CreateService { service: ServiceId::make(self.now, self.made), spec, registry_auth: None })
            }
            Step::Scale { service, replicas } => pick(services.len(), *service).map(|n| {
                let old = self.state.service(services[n]).expect("listed");
                let mut spec = (*old.spec).clone();
                match &mut spec.mode {
                    ServiceMode::Replicated { replicas: old } => *old = *replicas,
                    ServiceMode::ReplicatedJob(job) => job.total_completions = Some(*replicas),
                    ServiceMode::Global | ServiceMode::GlobalJob => {}
                }
                Op::update_service(&self.state, old, spec.into(), None)
            }),
            Step::Update { service } => pick(services.len(), *service).map(|n| {
                let old = self.state.service(services[n]).expect("listed");
                let mut spec = (*old.spec).clone();
                spec.task_template.force_update += 1;
                Op::update_service(&self.state, old, spec.into(), None)
            }),
            Step::RollBack { service } => pick(services.len(), *service).map(|n| Op::RollBack {
                service: services[n],
                keep_previous: true,
                message: "manually requested rollback".into(),
                to: None,
            }),
            Step::Rebalance { service } => {
                pick(services.len(), *service).map(|n| Op::SetRebalance { service: services[n], asked: true })
            }
            Step::Remove { service } => {
                pick(services.len(), *service).map(|n| Op::RemoveService { service: services[n] })
            }
            Step::Node { node, state } => pick(nodes.len(), *node).map(|n| Op::ReportNode {
                node: nodes[n],
                status: status(*state),
                description: None,
            }),
            Step::Availability { node, availability, by_policy } => pick(nodes.len(), *node).map(|n| {
                let mut spec = (*self.state.node(nodes[n]).expect("listed").spec).clone();
                spec.availability = *availability;
                let by_policy = *by_policy && *availability == Availability::Drain;
                let drain_deadline = by_policy.then(|| self.now.plus_ns(DRAIN_TIMEOUT_NS));
                Op::UpdateNode { node: nodes[n], spec: spec.into(), drain_deadline }
            }),
            Step::RemoveNode { node } => {
                pick(nodes.len(), *node).map(|n| Op::RemoveNode { node: nodes[n], force: false })
            }
            Step::Report { task, state } => {
                let tasks: Vec<(NodeId, &Arc<Task>)> =
                    self.state.tasks().filter_map(|task| Some((task.node?, task))).collect();
                pick(tasks.len(), *task).map(|n| {
                    let (node, task) = tasks[n];
                    // No agent starts what is only to be prepared.
                    let starts = matches!(state, TaskState::Starting | TaskState::Running);
                    let waits = starts && task.desired == DesiredState::Ready;
                    let state = if waits { TaskState::Ready } else { *state };
                    Op::ReportTasks { node, reports: vec![(task.id, TaskStatus::new(state, self.now))] }
                })
            }
            Step::Advance { seconds } => {
                self.now = self.now.plus_ns(seconds * 1_000_000_000);
                None
            }
            Step::Agents => {
                self.obey();
                None
            }
            Step::Decide => {
                let plan = self.decide();
                self.apply_fresh(plan);
                None
            }
            Step::DecidePiece { changes_max } => {
                let plan = self.decide_at_most(*changes_max);
                self.apply_fresh(plan);
                None
            }
            Step::DecidePieces { changes_max } => 'pieces: {
                for _ in 0..PIECES_MAX {
                    let plan = self.decide_at_most(*changes_max);
                    let is_last = plan.unfinished.is_empty();
                    self.apply_fresh(plan);
                    if is_last {
                        break 'pieces None;
                    }
                }
                panic!("{PIECES_MAX} pieces of {changes_max} changes, and something is left");
            }
            Step::DecideAndLose => {
                self.decide();
                self.dirty = Dirty::everything();
                None
            }
            Step::DecideTwice => {
                let plan = self.decide();
                self.apply_fresh(plan.clone());
                self.apply_plan(plan);
                None
            }
            Step::DecideLate => None,
        };
        if let Some(op) = op {
            self.check_forecast(&op);
            self.commit(vec![Tx::new(vec![op])]);
        }
    }

    /// What a change would lead to can be told in any state, and it comes to an end.
    fn check_forecast(&self, op: &Op) {
        let tx = Tx::new(vec![op.clone()]);
        if let Ok(forecast) = forecast(&self.state, &tx, self.now) {
            assert!(!forecast.cut, "a forecast that does not end: {op:?}");
            let named = |task: &&Arc<Task>| forecast.end.task(task.id).is_some();
            assert!(forecast.waiting.iter().all(|task| named(&task)), "what waits is there in the end");
        }
    }

    /// The agents of all nodes that answer do as they are told.
    pub(crate) fn obey(&mut self) {
        let mut txs = Vec::new();
        let answers = |node: NodeId| self.state.node(node).is_some_and(|node| node.status.state == NodeState::Ready);
        for task in self.state.tasks().filter(|task| task.holds_resources() && task.node.is_some_and(answers)) {
            let state = match task.desired {
                DesiredState::Ready => TaskState::Ready,
                DesiredState::Running => TaskState::Running,
                DesiredState::Complete => TaskState::Complete,
                DesiredState::Shutdown | DesiredState::Remove => TaskState::Shutdown,
            };
            let node = task.node.expect("it holds resources of a node");
            let reports = vec![(task.id, TaskStatus::new(state, self.now))];
            txs.push(Tx::new(vec![Op::ReportTasks { node, reports }]));
        }
        self.commit(txs);
    }

    /// Faults stop: all nodes answer and take tasks, agents do as they are told.
    pub(crate) fn recover(&mut self) {
        let nodes: Vec<NodeId> = self.state.nodes().map(|n| n.id).collect();
        for node in nodes {
            self.commit(vec![Tx::new(vec![
                Op::UpdateNode { node, spec: Arc::default(), drain_deadline: None },
                Op::ReportNode { node, status: status(NodeState::Ready), description: None },
            ])]);
        }
        for _ in 0..200 {
            self.now = self.now.plus_ns(5_000_000_000);
            let plan = self.decide();
            self.apply_fresh(plan);
            self.obey();
        }
    }
}

/// Says why a task waits, or that a service is as even as it can be: what others took since may have changed that.
fn follows_from_room(op: &Op) -> bool {
    matches!(op, Op::PlaceTask { place: Place::Pending(_) | Place::PendingOn(..), .. } | Op::SetRebalance { .. })
}

fn status(state: NodeState) -> NodeStatus {
    NodeStatus { state, engine_reachable: true, ..NodeStatus::default() }
}

/// A replicated service.
pub(crate) fn spec(number: u128, replicas: u64, cpu: i64, port: bool, attempts: u64) -> Arc<ServiceSpec> {
    let mut spec = ServiceSpec { name: format!("s{number}"), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas };
    let reserved = serde_json::json!({"Reservations": {"NanoCPUs": cpu * 1_000_000_000}});
    spec.task_template.resources = serde_json::from_value(reserved).expect("valid");
    spec.task_template.restart_policy =
        serde_json::from_value(serde_json::json!({"MaxAttempts": attempts})).expect("valid");
    if port {
        let ports = serde_json::json!({"Ports": [{"TargetPort": 80, "PublishedPort": 80, "PublishMode": "host"}]});
        spec.endpoint_spec = serde_json::from_value(ports).expect("valid");
    }
    spec.into()
}
