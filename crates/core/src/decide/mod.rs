//! `decide`: what to do about what changed.
//!
//! Reconcilers, one per kind of service, look at one service at a time and at the state alone. They work on a clone,
//! through the same `apply`, so that later ones see earlier choices. Nothing here waits: what has to happen later is
//! a deadline of the plan, and what must outlive a leader is a field of an object.

mod budget;
mod enforce;
mod fill;
mod global;
mod job;
mod reap;
mod rebalance;
mod replicated;
mod restart;
mod rolling;
mod schedule;
mod slots;
mod update;
mod why;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use restart::Start;
use schedule::Fleet;
use slots::{Slots, Stranded};
use swarm_model::{DesiredState, Id, NodeId, Service, ServiceId, ServiceMode, Task, TaskId, TaskState, Timestamp};

pub use why::{Failure, NodeRejection, Rejection, Restart, TaskWhy, Why, why_service, why_task, why_waiting};
pub(crate) use why::{Planned, Stay, Staying, why_rolled_back, why_staying, why_without_node};

use crate::{
    Event, Guard, Op, Outcome, Refusal, State, Tx,
    apply::{apply_tx, charge},
};

/// How often a decision looks at a service again because of what it decided itself. What is left then is looked at when
/// the plan has been applied.
const PASSES_MAX: usize = 8;

/// Tasks changed by one transaction: some 80 KB, far below what an entry holds.
const TASKS_BATCH_MAX: usize = 4096;

/// What a decision is to look at. Events only mark keys; reconcilers read the state alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Everything: what a new leader starts with.
    pub all: bool,
    /// These services.
    pub services: BTreeSet<ServiceId>,
    /// These nodes: all services that have tasks there.
    pub nodes: BTreeSet<NodeId>,
    /// These nodes have more room: all services that have tasks waiting for some, or may be more even now.
    pub room: BTreeSet<NodeId>,
    /// Since when there is this leader, for the decision alone: what agents saw before, they may not have told yet.
    pub led_since: Timestamp,
}

impl Dirty {
    /// What a new leader starts with.
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Marks what an event touches.
    pub fn mark(&mut self, event: &Event) {
        match *event {
            Event::Cluster => self.all = true,
            Event::Node(node) => drop(self.nodes.insert(node)),
            Event::Task { reported: Some((from, to)), .. } if are_alike(from, to) => {}
            Event::Service(service) | Event::Task { service, .. } => drop(self.services.insert(service)),
            Event::Room(node) => drop(self.room.insert(node)),
        }
    }
}

/// Whether a task that was reported in one of these states after the other gives nothing to decide: on its way to run it
/// matters when its container is there, and when it runs. All else that agents report of such a task is for people.
fn are_alike(from: TaskState, to: TaskState) -> bool {
    let stage = |state| match state {
        TaskState::Assigned | TaskState::Accepted | TaskState::Preparing => Some(0),
        TaskState::Ready | TaskState::Starting => Some(1),
        TaskState::Running => Some(2),
        _ => None,
    };
    stage(from).is_some() && stage(from) == stage(to)
}

/// What `decide` proposes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Transactions in order; later ones may rest on earlier ones.
    pub txs: Vec<Tx>,
    /// When to look at a service again although nothing has changed (a delay ends).
    /// Replaces what an earlier plan said of the services it looked at.
    pub deadlines: BTreeMap<ServiceId, Timestamp>,
    /// All services that this plan looked at.
    pub services: BTreeSet<ServiceId>,
    /// Transactions that a reconciler made and `apply` refused on the clone: defects of this program, to be logged.
    pub refused: Vec<(Tx, Refusal)>,
}

/// Looks at what is dirty and proposes changes. `now` is the leader's clock, `seed` makes ids.
/// Deciding again right after the plan was applied gives an empty plan, but for the words why a task waits and the end
/// of a rebalance: what was placed after a service was looked at may have taken the room that it hoped for.
pub fn decide(state: &State, dirty: &Dirty, now: Timestamp, seed: u64) -> Plan {
    let mut planner = Planner::new(state, now, seed);
    planner.led_since = dirty.led_since;
    let nodes: Vec<NodeId> =
        if dirty.all { state.nodes.keys().copied().collect() } else { dirty.nodes.iter().copied().collect() };
    for node in &nodes {
        enforce::node(&mut planner, *node);
    }
    let mut services = dirty.services.clone();
    if dirty.all {
        services.extend(state.services.keys());
        services.extend(state.services_with_tasks());
    } else {
        services.extend(nodes.iter().flat_map(|node| state.tasks_of_node(*node)).map(|task| task.service));
        if !nodes.is_empty() {
            // A node that comes, goes or changes concerns every service that is to be on all of them, or even.
            let concerned = |s: &&Arc<Service>| s.spec.mode.is_global() || rebalance::is_wanted(s);
            services.extend(state.services().filter(concerned).map(|s| s.id));
        }
        services.extend(concerned_by_room(state, &dirty.room));
    }
    for _ in 0..PASSES_MAX {
        for id in &services {
            settle(&mut planner, *id);
        }
        planner.plan.services.append(&mut services);
        // What one service gives up another one may have waited for.
        services.extend(concerned_by_room(&planner.state, &std::mem::take(&mut planner.room)));
    }
    planner.plan
}

/// Looks at one service until there is nothing more to do now: what is taken away may leave places to forget, an update
/// that ends may let a task be restarted, one that has begun its last place may let the service be spread anew.
fn settle(planner: &mut Planner, id: ServiceId) {
    for _ in 0..PASSES_MAX {
        let known = planner.plan.txs.len();
        let Some(service) = planner.state.service(id).cloned() else {
            return reap::removed_service(planner, id);
        };
        if is_untouched(&planner.state, &service) {
            // There is nothing to stop, to update or to forget.
            return replicated::fill_new(planner, &service);
        }
        // Then no update, no limit and no wish to be even is there for which something could follow.
        let is_mostly_settled = planner.slots(&service).settled > 0;
        reconcile(planner, &service);
        let mut ops = planner.plan.txs[known..].iter().flat_map(|tx| &tx.ops).peekable();
        // To place the last task that waited may be the end of a rebalance.
        let is_last_step = |op: &Op| !service.rebalance && is_last_step(op);
        if is_mostly_settled || ops.peek().is_none() || ops.all(is_last_step) {
            return;
        }
    }
}

/// Whether nothing of a look can follow from what one did: these are the last that a look does.
fn is_last_step(op: &Op) -> bool {
    match op {
        Op::SetDesired { desired, .. } => desired.is_live(),
        Op::PlaceTask { .. } | Op::DeleteTasks { .. } => true,
        _ => false,
    }
}

/// Whether a replicated service was just made.
fn is_untouched(state: &State, service: &Service) -> bool {
    matches!(service.spec.mode, ServiceMode::Replicated { .. })
        && service.update.is_none()
        && !service.rebalance
        && state.highest_slot(service.id).is_none()
}

/// The services that may want something of nodes which have more room than before.
fn concerned_by_room(state: &State, room: &BTreeSet<NodeId>) -> Vec<ServiceId> {
    if room.is_empty() {
        return Vec::new();
    }
    let gains = |s: &&Arc<Service>| rebalance::is_wanted(s) && rebalance::gains(state, s, room);
    state.services_with_pending().chain(state.services().filter(gains).map(|s| s.id)).collect()
}

/// Whether a task runs what its service wants now, as far as an update would care (swarm-behaviour §4.1). Clients wait
/// for such tasks. A task of a removed service is none.
pub fn is_up_to_date(state: &State, task: &Task) -> bool {
    state.service(task.service).is_some_and(|service| !slots::is_dirty(state, service, task))
}

/// Looks at one service: what is too many goes, an update takes a step, what is missing comes, what is prepared runs.
fn reconcile(planner: &mut Planner, service: &Arc<Service>) {
    reap::orphans(planner, service);
    let service = match service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            replicated::scale_down(planner, service, replicas);
            let (generation, service) = (service.generation, rolling::advance(planner, service));
            if service.generation != generation {
                // It was rolled back, to fewer places perhaps: the next look begins anew with that.
                return;
            }
            replicated::fill(planner, &service, service.spec.replicas().unwrap_or(replicas));
            service
        }
        ServiceMode::Global => {
            global::retire(planner, service);
            let (generation, service) = (service.generation, rolling::advance(planner, service));
            if service.generation != generation {
                return;
            }
            global::fill(planner, &service);
            service
        }
        ServiceMode::ReplicatedJob(ref numbers) => {
            job::retire(planner, service);
            job::fill(planner, service, numbers);
            service.clone()
        }
        ServiceMode::GlobalJob => {
            job::retire(planner, service);
            global::retire(planner, service);
            global::fill(planner, service);
            service.clone()
        }
    };
    promote(planner, &service);
    reap::history(planner, &service);
}

/// Lets prepared tasks run whose time has come.
fn promote(planner: &mut Planner, service: &Service) {
    let mut due = Vec::new();
    // With what each takes over from: that is lost, and told to stop in this plan perhaps. If it is back when the plan is
    // applied, it may be kept.
    let mut due_after = Vec::new();
    let order = rolling::order(service);
    for slot in planner.slots(service).shown.values() {
        for task in slot.0.iter().filter(|t| t.desired == DesiredState::Ready && !t.status.state.is_terminal()) {
            match restart::start(&planner.state, slot, task, order, planner.now) {
                Start::Now => {
                    let stops = |other: &&Arc<Task>| !other.desired.is_live() && !other.status.state.is_terminal();
                    let stopped: Vec<TaskId> = slot.0.iter().filter(stops).map(|other| other.id).collect();
                    if stopped.is_empty() {
                        due.push(task.id);
                    } else {
                        due_after.push((task.id, stopped));
                    }
                }
                Start::At(at) => planner.wake(service.id, at),
                Start::WhenAlone => {}
            }
        }
    }
    planner.push_each(Some(service), &due, |tasks| Op::SetDesired { desired: service.goal(), tasks });
    for batch in due_after.chunks(TASKS_BATCH_MAX) {
        let tasks = batch.iter().map(|(task, _)| *task).collect();
        let stopped = batch.iter().flat_map(|(_, stopped)| stopped).copied().collect();
        let tx = Tx::new(vec![Op::SetDesired { desired: service.goal(), tasks }]);
        planner.push_for(service, tx.guard(Guard::Stopped { tasks: stopped }));
    }
}

/// A plan in the making, on a clone of the state.
struct Planner {
    /// The state with the plan so far applied.
    state: State,
    now: Timestamp,
    led_since: Timestamp,
    plan: Plan,
    random: u64,
    /// The nodes in the scheduler's order, once it was asked for; follows `state`.
    fleet: Option<Fleet>,
    /// What is on nodes that take no tasks, once that was asked for; nodes do not change while a decision is made.
    stranded: Option<Stranded>,
    /// What there is to look at of the service that was asked for last, if nothing has changed since.
    slots: Option<(ServiceId, Rc<Slots>)>,
    /// What the last transaction touched.
    events: Vec<Event>,
    /// Nodes that have more room since services were looked at for that.
    room: BTreeSet<NodeId>,
    /// When the newest task was made.
    task_at: Timestamp,
}

impl Planner {
    fn new(state: &State, now: Timestamp, seed: u64) -> Self {
        let mut state = state.clone();
        // Later than all that was made before: ids sort by age, also when the clock stands still.
        state.time = state.time.plus_ns(1).max(now);
        let newest = state.newest_task().map_or(Timestamp::ZERO, Id::made_at);
        Self {
            now: state.time,
            task_at: newest.max(state.time),
            led_since: Timestamp::ZERO,
            state,
            plan: Plan::default(),
            random: seed,
            fleet: None,
            stranded: None,
            slots: None,
            events: Vec::new(),
            room: BTreeSet::new(),
        }
    }

    /// What there is to look at of a service.
    fn slots(&mut self, service: &Service) -> Rc<Slots> {
        if let Some((_, slots)) = self.slots.as_ref().filter(|(id, _)| *id == service.id) {
            return slots.clone();
        }
        let state = &self.state;
        let stranded = self.stranded.get_or_insert_with(|| Stranded::new(state));
        let slots = Rc::new(Slots::new(state, service, stranded));
        self.slots = Some((service.id, slots.clone()));
        slots
    }

    /// Adds a transaction.
    fn push(&mut self, tx: Tx) {
        self.push_as(tx, apply_tx);
    }

    /// Adds a transaction that makes the first tasks of a service. Nothing that comes later in this decision asks for
    /// them, but for what they hold of their nodes, so they are not made here.
    fn push_first(&mut self, service: &Service, tx: Tx) {
        let tx = tx.guard(Guard::wanted(service));
        self.push_as(tx, |state, tx, events| {
            tx.ops.iter().try_for_each(|op| match op {
                Op::CreateTasks { tasks, .. } => charge(state, service, tasks, events),
                _ => Ok(()),
            })
        });
    }

    fn push_as(&mut self, tx: Tx, apply: impl FnOnce(&mut State, &Tx, &mut Vec<Event>) -> Outcome) {
        self.events.clear();
        self.slots = None;
        match apply(&mut self.state, &tx, &mut self.events) {
            Ok(()) => {
                self.plan.txs.push(tx);
                self.room
                    .extend(self.events.iter().filter_map(|e| if let Event::Room(id) = e { Some(*id) } else { None }));
                if let Some(fleet) = &mut self.fleet {
                    fleet.touch_all(&self.state, &self.events);
                }
            }
            Err(refusal) => {
                debug_assert!(false, "a reconciler made a transaction that does not apply: {refusal}: {tx:?}");
                self.plan.refused.push((tx, refusal));
            }
        }
    }

    /// Adds a transaction that rests on what the service wants of its tasks. If the user, or an earlier transaction that
    /// fell, makes it want something else, it falls as well.
    fn push_for(&mut self, service: &Service, tx: Tx) {
        self.push(tx.guard(Guard::wanted(service)));
    }

    /// The same change of many tasks, in transactions that fit an entry. `service` is given if the change rests on what
    /// it wants.
    fn push_each(&mut self, service: Option<&Service>, tasks: &[TaskId], change: impl Fn(Vec<TaskId>) -> Op) {
        for batch in tasks.chunks(TASKS_BATCH_MAX) {
            let tx = Tx::new(vec![change(batch.to_vec())]);
            match service {
                Some(service) => self.push_for(service, tx),
                None => self.push(tx),
            }
        }
    }

    /// Looks at the service again at that time, or earlier.
    fn wake(&mut self, service: ServiceId, at: Timestamp) {
        let deadline = self.plan.deadlines.entry(service).or_insert(at);
        *deadline = at.min(*deadline);
    }

    /// An id that sorts behind all others: where ids are in order, tables grow at their end.
    fn task_id(&mut self) -> TaskId {
        // SplitMix64: one step of a counter, then a mix.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        self.task_at = self.task_at.plus_ns(1);
        TaskId::make(self.task_at, u128::from(z))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_decision_may_look_at_makes_a_service_dirty() {
        use TaskState::{Accepted, Assigned, Complete, Failed, Preparing, Ready, Running, Starting};
        let marks = |reported| {
            let mut dirty = Dirty::default();
            dirty.mark(&Event::Task { task: TaskId(1), service: ServiceId(2), node: Some(NodeId(3)), reported });
            !dirty.is_empty()
        };
        assert!(marks(None));
        for (from, to, matters) in [
            (Assigned, Preparing, false),
            (Accepted, Preparing, false),
            (Preparing, Ready, true),
            (Ready, Starting, false),
            (Starting, Running, true),
            (Running, Running, false),
            (Running, Failed, true),
            (Failed, Failed, true),
            (Preparing, Complete, true),
        ] {
            assert_eq!(marks(Some((from, to))), matters, "{from} to {to}");
        }
    }
}
