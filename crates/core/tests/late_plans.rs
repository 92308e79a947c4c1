//! A plan that was made before another one was applied does not break what both of them kept to.

use std::sync::Arc;

use swarm_core::{Context, Dirty, ENTRY_VERSION, Entry, Guard, NewTask, Op, Place, Plan, State, Tx, apply, decide};
use swarm_model::{
    Availability, Cause, DesiredState, FailureAction, NodeId, NodeRole, NodeState, NodeStatus, Placement,
    RestartCondition, RestartPolicy, ServiceId, ServiceMode, ServiceSpec, TaskId, TaskState, TaskStatus, Timestamp,
    UpdateConfig, UpdateOrder,
};

const SERVICE: ServiceId = ServiceId(1);
const NODE: NodeId = NodeId(1);
const OTHER_NODE: NodeId = NodeId(2);

fn create(state: &State, id: u128, slot: u32, beside: Option<TaskId>, place: Place) -> Tx {
    Tx::new(vec![Op::CreateTasks {
        service: SERVICE,
        spec_version: state.service(SERVICE).expect("it was made").spec_version,
        desired: DesiredState::Running,
        cause: Cause::Fill,
        beside,
        start_at: None,
        restarts: 0,
        tasks: vec![NewTask { id: TaskId(id), slot, place, addrs: Default::default() }],
    }])
}

/// Commits an entry: what became of each transaction, nothing if it stood.
fn commit(state: &mut State, txs: Vec<Tx>) -> Vec<String> {
    let entry = Entry { v: ENTRY_VERSION, at: Timestamp::from_millis(1), txs };
    let (index, text) = (state.revision() + 1, |outcome: Result<(), _>| outcome.err().map(|e| format!("{e}")));
    apply(state, index, &entry).0.into_iter().map(|outcome| text(outcome).unwrap_or_default()).collect()
}

fn admit() -> Op {
    Op::AdmitNode {
        node: NODE,
        role: NodeRole::Worker,
        cert_expires_at: Timestamp::from_millis(2),
        manager_addr: None,
        availability: Availability::Active,
    }
}

/// The user sets the spec.
fn update(spec: &ServiceSpec) -> Tx {
    Tx::new(vec![Op::UpdateService {
        service: SERVICE,
        spec: Arc::new(spec.clone()),
        registry_auth: None,
        alike: None,
    }])
}

fn report(tasks: impl IntoIterator<Item = u128>, state: TaskState) -> Tx {
    let status = TaskStatus::new(state, Timestamp::from_millis(1));
    let reports = tasks.into_iter().map(|task| (TaskId(task), status.clone())).collect();
    Tx::new(vec![Op::ReportTasks { node: NODE, reports }])
}

/// A service whose three tasks run.
fn with_three_running(spec: &ServiceSpec) -> State {
    let mut state = State::default();
    let service = Op::CreateService { service: SERVICE, spec: Arc::new(spec.clone()), registry_auth: None };
    let ready = NodeStatus { state: NodeState::Ready, engine_reachable: true, ..NodeStatus::default() };
    let come = Op::ReportNode { node: NODE, status: ready, description: Some(Arc::default()) };
    assert_eq!(commit(&mut state, vec![Tx::new(vec![admit(), come, service])]), [""]);
    let first = (1..=3).map(|n| create(&state, u128::from(n), n, None, Place::On(NODE))).collect();
    commit(&mut state, first);
    commit(&mut state, vec![report(1..=3, TaskState::Running)]);
    state
}

#[test]
fn a_node_gets_no_more_tasks_of_a_service_than_that_allows() {
    let mut state = State::default();
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas: 3 };
    spec.task_template.placement = Some(Placement { max_replicas: 1, ..Placement::default() });
    let service = Op::CreateService { service: SERVICE, spec: Arc::new(spec), registry_auth: None };
    assert_eq!(commit(&mut state, vec![Tx::new(vec![admit(), service])]), [""]);
    let waiting = Place::Pending("no suitable node".into());
    let first = vec![create(&state, 1, 1, None, Place::On(NODE)), create(&state, 2, 2, None, waiting)];
    assert_eq!(commit(&mut state, first), ["", ""]);

    let late = vec![
        create(&state, 3, 3, None, Place::On(NODE)),
        Tx::new(vec![Op::PlaceTask { task: TaskId(2), place: Place::On(NODE), addrs: Default::default() }]),
        // What takes over from a task comes beside it, and counts with it.
        create(&state, 4, 1, Some(TaskId(1)), Place::On(NODE)),
    ];
    let outcomes = commit(&mut state, late);
    assert!(outcomes[0].contains("has 1 tasks of service") && outcomes[0].contains("1 are allowed"), "{outcomes:?}");
    assert!(outcomes[1].contains("1 are allowed"), "{outcomes:?}");
    assert_eq!(outcomes[2], "");

    // What is told to stop makes room at once.
    let stop = Tx::new(vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![TaskId(1), TaskId(4)] }]);
    let place = Tx::new(vec![Op::PlaceTask { task: TaskId(2), place: Place::On(NODE), addrs: Default::default() }]);
    assert_eq!(commit(&mut state, vec![stop, place]), ["", ""]);
}

/// Three tasks of which one may be away, updated start-first.
fn start_first() -> ServiceSpec {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas: 3 };
    spec.labels.insert("swarmd.max-unavailable".into(), "1".into());
    spec.update_config = Some(UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::when_absent() });
    spec
}

/// Three tasks that run, and an update whose new task of the first place is as far as this; that task, and the plan that
/// stops the old one.
fn with_update_at(mut spec: ServiceSpec, reached: TaskState) -> (State, TaskId, Plan) {
    let mut state = with_three_running(&spec);
    spec.task_template.force_update = 1;
    commit(&mut state, vec![update(&spec)]);
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time(), 1));
    assert!(commit(&mut state, plan.txs).iter().all(String::is_empty));
    let new = state.tasks_of_slot(SERVICE, 1).last().expect("it was made").id;
    commit(&mut state, vec![report([new.0], reached)]);
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time(), 2));
    let stop = Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![TaskId(1)] };
    assert!(plan.txs.iter().any(|tx| tx.ops == [stop.clone()]), "{plan:?}");
    (state, new, plan)
}

#[test]
fn what_fails_after_a_plan_was_made_is_not_joined_by_what_the_plan_stops() {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas: 3 };
    spec.labels.insert("swarmd.max-unavailable".into(), "1".into());
    spec.task_template.restart_policy = Some(RestartPolicy { condition: RestartCondition::Any, ..Default::default() });
    // The old one may stop, if no other is away.
    let (mut state, _, plan) = with_update_at(spec, TaskState::Ready);

    let mut late = state.clone();
    commit(&mut late, vec![report([3], TaskState::Failed)]);
    let outcomes = commit(&mut late, plan.txs.clone());
    assert!(outcomes.iter().any(|text| text.contains("would run at 1 places, not at 2")), "{outcomes:?}");
    assert!(late.task(TaskId(1)).is_some_and(|task| task.desired == DesiredState::Running));
    assert!(commit(&mut state, plan.txs).iter().all(String::is_empty));
    assert!(state.task(TaskId(1)).is_some_and(|task| task.desired == DesiredState::Shutdown));
}

#[test]
fn what_fails_in_the_place_of_what_a_plan_stops_is_missed_as_well() {
    let spec = start_first();
    // The old one is to go.
    let (mut state, new, plan) = with_update_at(spec, TaskState::Running);

    // Both it and another one fail before that: then the old one is all that its place has.
    let mut late = state.clone();
    commit(&mut late, vec![report([new.0, 3], TaskState::Failed)]);
    let outcomes = commit(&mut late, plan.txs.clone());
    assert!(outcomes.iter().any(|text| text.contains("would run at 1 places, not at 2")), "{outcomes:?}");
    assert!(commit(&mut state, plan.txs).iter().all(String::is_empty));
}

#[test]
fn what_comes_back_elsewhere_does_not_make_up_for_the_place_of_what_a_plan_stops() {
    let spec = start_first();
    let (mut state, new, _) = with_update_at(spec, TaskState::Running);
    // The two others fail. The old one may go all the same, once the new one in its place has run for a while.
    commit(&mut state, vec![report([2, 3], TaskState::Failed)]);
    let mut again = create(&state, 20, 2, None, Place::On(NODE));
    again.ops.insert(0, Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![TaskId(2)] });
    assert_eq!(commit(&mut state, vec![again]), [""]);
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time().plus_ns(10_000_000_000), 3));
    assert!(commit(&mut state.clone(), plan.txs.clone()).iter().all(String::is_empty));

    commit(&mut state, vec![report([new.0], TaskState::Failed), report([20], TaskState::Running)]);
    let outcomes = commit(&mut state, plan.txs);
    assert!(outcomes.iter().any(|text| text.contains("would run at 1 places, not at 2")), "{outcomes:?}");
    assert!(state.task(TaskId(1)).is_some_and(|task| task.desired == DesiredState::Running));
}

/// Another node, on which the task of this place runs.
fn with_one_elsewhere(state: &mut State, slot: u32) {
    let mut admit = admit();
    if let Op::AdmitNode { node, .. } = &mut admit {
        *node = OTHER_NODE;
    }
    let mut moved = create(state, 30, slot, None, Place::On(OTHER_NODE));
    moved.ops.insert(0, Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![TaskId(slot.into())] });
    let status = TaskStatus::new(TaskState::Running, Timestamp::from_millis(1));
    let runs = Tx::new(vec![Op::ReportTasks { node: OTHER_NODE, reports: vec![(TaskId(30), status)] }]);
    let stopped = report([slot.into()], TaskState::Shutdown);
    let outcomes = commit(state, vec![Tx::new(vec![admit]), other_is(NodeState::Ready), moved, runs, stopped]);
    assert!(outcomes.iter().all(String::is_empty), "{outcomes:?}");
}

fn other_is(node_state: NodeState) -> Tx {
    let status = NodeStatus { state: node_state, engine_reachable: true, ..NodeStatus::default() };
    Tx::new(vec![Op::ReportNode { node: OTHER_NODE, status, description: Some(Arc::default()) }])
}

#[test]
fn what_a_plan_took_for_lost_is_not_counted_on_if_it_comes_back() {
    let spec = start_first();
    let (mut state, new, _) = with_update_at(spec, TaskState::Running);
    // The third one runs on a node of its own, which is lost.
    with_one_elsewhere(&mut state, 3);
    commit(&mut state, vec![other_is(NodeState::Down)]);
    // So it is replaced, and the old one of the first place goes, for the new one runs.
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time().plus_ns(10_000_000_000), 3));
    assert!(commit(&mut state.clone(), plan.txs.clone()).iter().all(String::is_empty), "{plan:?}");

    // The new one fails, and the third one is back: either that or the old one may go.
    commit(&mut state, vec![report([new.0], TaskState::Failed), other_is(NodeState::Ready)]);
    let outcomes = commit(&mut state, plan.txs);
    assert!(outcomes.iter().any(|text| text.contains("would run at 1 places, not at 2")), "{outcomes:?}");
    let goes_on = |id: u128| state.task(TaskId(id)).is_some_and(|task| task.desired == DesiredState::Running);
    assert_eq!([1, 2, 30].map(goes_on), [false, true, true]);
}

#[test]
fn what_takes_over_does_not_run_if_what_it_takes_over_from_is_kept() {
    let mut spec = start_first();
    spec.update_config = None;
    let mut state = with_three_running(&spec);
    // The first one runs on a node of its own, which is lost when an update comes.
    with_one_elsewhere(&mut state, 1);
    spec.task_template.force_update = 1;
    commit(&mut state, vec![other_is(NodeState::Down), update(&spec)]);
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time(), 1));
    assert!(commit(&mut state.clone(), plan.txs.clone()).iter().all(String::is_empty), "{plan:?}");
    let runs = |op: &Op| matches!(op, Op::SetDesired { desired: DesiredState::Running, .. });
    assert!(plan.txs.iter().flat_map(|tx| &tx.ops).any(runs), "its successor is to run at once: {plan:?}");

    // It is back, and needed.
    commit(&mut state, vec![report([2], TaskState::Failed), other_is(NodeState::Ready)]);
    let outcomes = commit(&mut state, plan.txs);
    assert!(outcomes.iter().any(|text| text.contains("would run at 1 places, not at 2")), "{outcomes:?}");
    let first = state.tasks_of_slot(SERVICE, 1).filter(|task| task.desired == DesiredState::Running);
    assert_eq!(first.map(|task| task.id).collect::<Vec<_>>(), [TaskId(30)], "stop-first, only one is to run");
}

#[test]
fn what_runs_only_after_a_plan_was_made_that_stops_it_may_be_needed_by_then() {
    let mut spec = start_first();
    spec.update_config = None;
    let mut state = with_three_running(&spec);
    // The third one is on its way to run again.
    let mut again = create(&state, 30, 3, None, Place::On(NODE));
    again.ops.insert(0, Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![TaskId(3)] });
    commit(&mut state, vec![report([3], TaskState::Failed), again, report([30], TaskState::Starting)]);
    spec.task_template.force_update = 1;
    commit(&mut state, vec![update(&spec)]);
    // What does not run is replaced first.
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time(), 1));
    let stop = Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![TaskId(30)] };
    assert!(plan.txs.iter().any(|tx| tx.ops.contains(&stop)), "{plan:?}");
    assert!(commit(&mut state.clone(), plan.txs.clone()).iter().all(String::is_empty));

    commit(&mut state, vec![report([30], TaskState::Running), report([2], TaskState::Failed)]);
    let outcomes = commit(&mut state, plan.txs);
    assert!(outcomes.iter().any(|text| text.contains("would run at 1 places, not at 2")), "{outcomes:?}");
    assert!(state.task(TaskId(30)).is_some_and(|task| task.desired == DesiredState::Running));
}

#[test]
fn what_fails_is_missed_by_the_other_one_of_its_place_which_a_plan_stops() {
    let mut spec = start_first();
    let (mut state, new, _) = with_update_at(spec.clone(), TaskState::Running);
    // Another update comes: of the two that run in the first place one goes at once, the other is kept for the third.
    spec.task_template.force_update = 2;
    commit(&mut state, vec![update(&spec)]);
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time(), 3));
    let stops = Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![new] };
    assert!(plan.txs.iter().any(|tx| tx.ops.contains(&stops)), "{plan:?}");

    let mut late = state.clone();
    commit(&mut late, vec![report([1, 3], TaskState::Failed)]);
    let outcomes = commit(&mut late, plan.txs.clone());
    assert!(outcomes.iter().any(|text| text.contains("would run at 1 places, not at 2")), "{outcomes:?}");
    assert!(late.task(new).is_some_and(|task| task.desired == DesiredState::Running));
    assert!(commit(&mut state, plan.txs).iter().all(String::is_empty));
}

#[test]
fn what_a_plan_decides_after_a_rollback_falls_with_it() {
    let mut spec = start_first();
    let policy = spec.update_config.as_mut().expect("it has one");
    policy.failure_action = FailureAction::Rollback;
    let mut state = with_three_running(&spec);
    spec.task_template.force_update = 1;
    commit(&mut state, vec![update(&spec)]);
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time(), 1));
    commit(&mut state, plan.txs);
    let new = state.tasks_of_slot(SERVICE, 1).last().expect("it was made").id;
    commit(&mut state, vec![report([new.0], TaskState::Failed)]);
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time(), 2));
    let is_rollback = |tx: &Tx| matches!(tx.ops[..], [Op::RollBack { .. }]);
    let rollback = plan.txs.iter().position(is_rollback).expect("the update failed");
    assert!(plan.txs.len() > rollback + 1, "{plan:?}");
    let by = plan.txs[rollback].by.as_ref().expect("no user asks for it");
    assert_eq!(by.to_string(), "the update policy");

    // The user sets the spec, as often as the plan does.
    spec.mode = ServiceMode::Replicated { replicas: 4 };
    commit(&mut state, vec![update(&spec)]);
    let outcomes = commit(&mut state, plan.txs);
    assert!(outcomes.iter().all(|text| text.contains("was updated")), "{outcomes:?}");
}

#[test]
fn a_stamp_is_the_number_that_was_drawn_and_is_only_compared() {
    let spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    let create = || Op::CreateService { service: SERVICE, spec: Arc::new(spec.clone()), registry_auth: None };
    let stamp = |state: &State| state.service(SERVICE).expect("it is there").stamp;
    let mut other = spec.clone();
    other.labels.insert("a".into(), "b".into());

    // Managers of version 0.1.0 count, and so does everybody as long as there is one.
    let mut state = State::default();
    let tx = Tx::new(vec![create()]).stamped(&state, 77);
    assert_eq!((tx.stamp, tx.feature_level()), (None, 1));
    commit(&mut state, vec![tx]);
    assert_eq!(stamp(&state), 1);
    let tx = update(&other).stamped(&state, 78);
    commit(&mut state, vec![tx]);
    assert_eq!(stamp(&state), 2);

    commit(&mut state, vec![Tx::new(vec![Op::RaiseFeatureLevel { level: ENTRY_VERSION }])]);
    let planned = Guard::wanted(state.service(SERVICE).expect("it is there"));
    let tx = update(&spec).stamped(&state, 5);
    assert_eq!((tx.stamp, tx.feature_level()), (Some(5), 2));
    commit(&mut state, vec![tx]);
    assert_eq!(stamp(&state), 5);
    let label = || Op::SetRebalance { service: SERVICE, asked: true };
    let found = commit(&mut state, vec![Tx::new(vec![label()]).guard(planned)]);
    assert!(found[0].contains("was updated"), "{found:?}");
    // The largest number is one like any other.
    for (drawn, then) in [(Some(u64::MAX), u64::MAX), (None, 0)] {
        let spec = if drawn.is_some() { &other } else { &spec };
        let tx = update(spec);
        let tx = drawn.map_or(tx.clone(), |drawn| tx.stamped(&state, drawn));
        commit(&mut state, vec![tx]);
        assert_eq!(stamp(&state), then);
    }
    // A transaction that sets no spec gets no stamp.
    assert_eq!(Tx::new(vec![label()]).stamped(&state, 9).stamp, None);
}

#[test]
fn a_plan_made_before_a_change_of_policies_alone_does_not_hold_after_it() {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas: 3 };
    let mut state = with_three_running(&spec);
    spec.task_template.force_update = 1;
    commit(&mut state, vec![update(&spec)]);
    let begun = decide(&state, &Dirty::everything(), &Context::at(state.time(), 1));
    assert!(begun.txs.iter().flat_map(|tx| &tx.ops).any(|op| matches!(op, Op::SetUpdate { .. })), "{begun:?}");

    // The tasks are wanted as before, and by how many at a time is not.
    spec.update_config = Some(UpdateConfig { parallelism: 2, ..UpdateConfig::default() });
    let wanted = state.service(SERVICE).map(|service| service.spec_version);
    commit(&mut state, vec![update(&spec)]);
    assert_eq!(state.service(SERVICE).map(|service| service.spec_version), wanted);
    let before = state.clone();
    let outcomes = commit(&mut state, begun.txs);
    assert!(outcomes.iter().all(|text| text.contains("was updated")), "{outcomes:?}");
    assert_eq!(state.service(SERVICE), before.service(SERVICE));

    // Back to a spec that it had is a change as well.
    let plan = decide(&state, &Dirty::everything(), &Context::at(state.time(), 2));
    let back = |to| {
        vec![Tx::new(vec![Op::RollBack {
            service: SERVICE,
            keep_previous: true,
            message: "manually requested rollback".into(),
            to,
        }])]
    };
    let revision = state.service(SERVICE).map(|service| service.revision);
    assert_eq!(commit(&mut state, back(Some(1))), [""]);
    assert_eq!(commit(&mut state, back(revision)), [""]);
    let outcomes = commit(&mut state, plan.txs);
    assert!(outcomes.iter().all(|text| text.contains("was updated")), "{outcomes:?}");
}

/// Managers of 0.1.0 drain by policy only: a leader of this version does the same while one of them may lead next.
#[test]
fn a_drain_goes_by_policy_until_all_managers_know_another_way() {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas: 3 };
    spec.update_config = Some(UpdateConfig::when_absent());
    let mut state = with_three_running(&spec);
    let drained = swarm_model::NodeSpec { availability: Availability::Drain, ..Default::default() };
    let drain = Op::update_node(&state, NODE, drained.into(), Some(Timestamp::from_millis(9)));
    assert!(matches!(drain, Op::UpdateNode { drain_deadline: None, .. }), "no older manager knows a deadline");
    assert_eq!(commit(&mut state, vec![Tx::new(vec![drain])]), [""]);
    let stopped = |state: &State| {
        let plan = decide(state, &Dirty::everything(), &Context::at(Timestamp::from_millis(20), 1));
        let ops = plan.txs.iter().flat_map(|tx| &tx.ops);
        ops.filter(|op| matches!(op, Op::SetDesired { desired: DesiredState::Shutdown, .. })).count()
    };
    assert_eq!(stopped(&state), 0, "there is no room elsewhere");
    let raise = Tx::new(vec![Op::RaiseFeatureLevel { level: ENTRY_VERSION }]);
    assert_eq!(commit(&mut state, vec![raise]), [""]);
    assert!(stopped(&state) > 0, "the node is emptied");
}
