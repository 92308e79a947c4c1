//! A large plan comes in pieces, between which other keys have their turn.

use std::{collections::BTreeSet, sync::Arc};

use swarm_core::{
    Context, Dirty, ENTRY_VERSION, Entry, Op, PIECE_CHANGES_MAX, Plan, State, Tx, apply, decide, forecast,
};
use swarm_model::{
    Availability, DesiredState, NodeId, NodeRole, NodeState, NodeStatus, ServiceId, ServiceMode, ServiceSpec,
    TaskState, TaskStatus, Timestamp, UpdateConfig,
};

/// More than three pieces.
const MANY: u64 = 3 * PIECE_CHANGES_MAX as u64 + 5;
const BIG: ServiceId = ServiceId(2);

/// A cluster of three nodes, and what is dirty in it.
struct World {
    state: State,
    dirty: Dirty,
    changes_max: usize,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::default(), dirty: Dirty::default(), changes_max: PIECE_CHANGES_MAX };
        world.commit(vec![Tx::new(vec![Op::RaiseFeatureLevel { level: ENTRY_VERSION }])]);
        for node in (1..=3).map(NodeId) {
            let admit = Op::AdmitNode {
                node,
                role: NodeRole::Worker,
                cert_expires_at: Timestamp::from_millis(2),
                manager_addr: None,
                availability: Availability::Active,
            };
            let status = NodeStatus { state: NodeState::Ready, engine_reachable: true, ..NodeStatus::default() };
            world
                .commit(vec![Tx::new(vec![admit, Op::ReportNode { node, status, description: Some(Arc::default()) }])]);
        }
        world
    }

    fn commit(&mut self, txs: Vec<Tx>) {
        let entry = Entry { v: ENTRY_VERSION, at: Timestamp::from_millis(1), txs };
        let index = self.state.revision() + 1;
        let (outcomes, events) = apply(&mut self.state, index, &entry);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        events.iter().for_each(|event| self.dirty.mark(event));
    }

    fn create(&mut self, service: ServiceId, replicas: u64) {
        self.commit(vec![Tx::new(vec![create(service, replicas)])]);
    }

    fn set(&mut self, change: impl FnOnce(&mut ServiceSpec)) {
        let mut spec = ServiceSpec::clone(&self.state.service(BIG).expect("it was made").spec);
        change(&mut spec);
        self.commit(vec![Tx::new(vec![Op::UpdateService {
            service: BIG,
            spec: spec.into(),
            registry_auth: None,
            alike: None,
        }])]);
    }

    /// Decides a piece and applies it. What is left is dirty.
    fn piece(&mut self) -> Plan {
        let dirty = std::mem::take(&mut self.dirty);
        let changes_max = self.changes_max;
        let context = Context { changes_max, ..Context::at(Timestamp::from_millis(1), self.state.revision()) };
        let plan = decide(&self.state, &dirty, &context);
        assert!(plan.refused.is_empty(), "{:?}", plan.refused.first());
        // The last transaction is not cut in two.
        assert!(changes(&plan) < PIECE_CHANGES_MAX + 256, "{} changes in a piece", changes(&plan));
        self.dirty = plan.unfinished.clone();
        self.commit(plan.txs.clone());
        plan
    }

    /// Pieces until nothing is left; how many.
    fn pieces(&mut self) -> usize {
        let mut pieces = 1;
        while !self.piece().unfinished.is_empty() {
            pieces += 1;
            assert!(pieces < 1000, "the pieces do not end");
        }
        let again = self.piece();
        assert_eq!((again.txs, again.unfinished.is_empty()), (vec![], true), "nothing comes after the last piece");
        pieces
    }

    /// All agents say that their tasks are as they are to be.
    fn obey(&mut self) {
        let mut txs = Vec::new();
        for task in self.state.tasks().filter(|task| task.holds_resources()) {
            let state = match task.desired {
                DesiredState::Ready => TaskState::Ready,
                desired if desired.is_live() => TaskState::Running,
                _ => TaskState::Shutdown,
            };
            let reports = vec![(task.id, TaskStatus::new(state, Timestamp::from_millis(1)))];
            txs.push(Tx::new(vec![Op::ReportTasks { node: task.node.expect("it has resources"), reports }]));
        }
        self.commit(txs);
    }

    fn live(&self, service: ServiceId) -> usize {
        self.state.tasks_of_service(service).filter(|task| task.desired.is_live()).count()
    }
}

fn create(service: ServiceId, replicas: u64) -> Op {
    let mut spec = ServiceSpec { name: format!("s{service}"), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas };
    Op::CreateService { service, spec: spec.into(), registry_auth: None }
}

fn changes(plan: &Plan) -> usize {
    let of = |op: &Op| match op {
        Op::CreateTasks { tasks, .. } => tasks.len(),
        Op::SetDesired { tasks, .. } | Op::EndTasks { tasks, .. } | Op::DeleteTasks { tasks } => tasks.len(),
        _ => 1,
    };
    plan.txs.iter().flat_map(|tx| &tx.ops).map(of).sum()
}

#[test]
fn others_have_their_turn_between_the_pieces_of_a_large_service() {
    for other in [ServiceId(1), ServiceId(3)] {
        let mut world = World::new();
        world.create(BIG, MANY);
        assert_eq!(world.piece().unfinished.services, [BIG].into());
        assert_eq!(world.live(BIG), PIECE_CHANGES_MAX);
        world.create(other, 2);
        let plan = world.piece();
        assert_eq!(plan.services, [BIG, other].into(), "both are looked at");
        assert_eq!(world.live(other), 2, "what came later waits for one piece only");
        assert_eq!(world.live(BIG), 2 * PIECE_CHANGES_MAX - 2);
        world.pieces();
        assert_eq!(world.live(BIG) as u64, MANY);
        let on = |node: u128| world.state.load(NodeId(node)).active;
        let all = BTreeSet::from([on(1), on(2), on(3)]);
        assert!(all.last() <= all.first().map(|least| least + 1).as_ref(), "spread as one plan would: {all:?}");
        let slots: BTreeSet<u32> = world.state.tasks_of_service(BIG).map(|task| task.slot).collect();
        assert_eq!((slots.len() as u64, slots.last().copied()), (MANY, u32::try_from(MANY).ok()));
    }
}

#[test]
fn a_large_service_comes_changes_and_goes_in_pieces() {
    let mut world = World::new();
    world.create(BIG, MANY);
    assert_eq!(world.pieces(), 8, "four that make tasks, and four that look at what is there");
    world.obey();
    world.pieces();
    assert_eq!(world.live(BIG) as u64, MANY);

    world.set(|spec| {
        spec.task_template.force_update = 1;
        spec.update_config = Some(UpdateConfig { parallelism: 0, ..UpdateConfig::when_absent() });
    });
    assert!(world.pieces() >= 4);
    for _ in 0..4 {
        world.obey();
        world.pieces();
    }
    let version = world.state.service(BIG).expect("it is there").spec_version;
    let live = || world.state.tasks_of_service(BIG).filter(|task| task.desired.is_live());
    assert!(live().all(|task| task.spec_version == version && task.status.state == TaskState::Running));
    assert_eq!(live().count() as u64, MANY);

    world.set(|spec| spec.mode = ServiceMode::Replicated { replicas: 1 });
    assert!(world.pieces() >= 3);
    assert_eq!(world.live(BIG), 1);
    world.set(|spec| spec.mode = ServiceMode::Replicated { replicas: MANY });
    world.pieces();
    world.obey();
    world.pieces();
    world.commit(vec![Tx::new(vec![Op::RemoveService { service: BIG }])]);
    assert_eq!(world.live(BIG) as u64, MANY, "the entry that removes it does not touch its tasks");
    assert!(world.pieces() >= 4);
    assert_eq!(world.live(BIG), 0);
    world.obey();
    assert!(world.pieces() >= 4);
    assert_eq!(world.state.tasks().count(), 0, "nothing is left of it");
}

#[test]
fn a_report_of_a_task_is_a_look_at_its_place_alone() {
    let mut world = World::new();
    world.create(BIG, 3);
    world.pieces();
    world.obey();
    world.pieces();
    let task = world.state.tasks_of_service(BIG).nth(1).expect("there are three").clone();
    let reports = vec![(task.id, TaskStatus::new(TaskState::Failed, Timestamp::from_millis(1)))];
    world.commit(vec![Tx::new(vec![Op::ReportTasks { node: task.node.expect("it ran there"), reports }])]);
    assert!(world.dirty.services.is_empty());
    assert_eq!(world.dirty.places, [(BIG, [task.slot].into())].into());
    let plan = world.piece();
    assert_eq!((plan.services, plan.parts), ([BIG].into(), [BIG].into()));
    let live: Vec<u32> = world.state.tasks_of_service(BIG).filter(|t| t.desired.is_live()).map(|t| t.slot).collect();
    assert_eq!(live, [1, 2, 3], "another task comes in the place of the one that failed");
}

#[test]
fn a_place_with_more_tasks_than_a_piece_takes_goes_in_several() {
    let mut world = World::new();
    world.create(BIG, 1);
    world.pieces();
    world.obey();
    world.set(|spec| spec.task_template.force_update = 1);
    // The old task is to stop, and the new one waits for that.
    world.pieces();
    assert_eq!(world.state.tasks_of_service(BIG).count(), 2);

    world.changes_max = 1;
    world.set(|spec| spec.mode = ServiceMode::Replicated { replicas: 0 });
    world.pieces();
    assert!(world.state.tasks().all(|task| task.desired == DesiredState::Remove));
}

#[test]
fn a_forecast_tells_all_pieces_as_one() {
    let world = World::new();
    let told = forecast(&world.state, &Tx::new(vec![create(BIG, MANY)]), Timestamp::from_millis(1)).expect("valid");
    assert_eq!(told.waves.iter().map(|wave| wave.steps.len() as u64).collect::<Vec<_>>(), [MANY]);
}
