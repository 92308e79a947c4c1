//! A plan that was made before another one was applied does not break what both of them kept to.

use std::sync::Arc;

use swarm_core::{ENTRY_VERSION, Entry, NewTask, Op, Place, State, Tx, apply};
use swarm_model::{
    Availability, Cause, DesiredState, NodeId, NodeRole, Placement, ServiceId, ServiceMode, ServiceSpec, TaskId,
    Timestamp,
};

const SERVICE: ServiceId = ServiceId(1);
const NODE: NodeId = NodeId(1);

fn create(state: &State, id: u128, slot: u32, beside: Option<TaskId>, place: Place) -> Tx {
    Tx::new(vec![Op::CreateTasks {
        service: SERVICE,
        spec_version: state.service(SERVICE).expect("it was made").spec_version,
        desired: DesiredState::Running,
        cause: Cause::Fill,
        beside,
        start_at: None,
        restarts: 0,
        tasks: vec![NewTask { id: TaskId(id), slot, place }],
    }])
}

#[test]
fn a_node_gets_no_more_tasks_of_a_service_than_that_allows() {
    let mut state = State::default();
    let commit = |state: &mut State, txs: Vec<Tx>| -> Vec<String> {
        let entry = Entry { v: ENTRY_VERSION, at: Timestamp::from_millis(1), txs };
        let (index, text) = (state.revision() + 1, |outcome: Result<(), _>| outcome.err().map(|e| format!("{e}")));
        apply(state, index, &entry).0.into_iter().map(|outcome| text(outcome).unwrap_or_default()).collect()
    };
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas: 3 };
    spec.task_template.placement = Some(Placement { max_replicas: 1, ..Placement::default() });
    let admit = Op::AdmitNode {
        node: NODE,
        role: NodeRole::Worker,
        cert_expires_at: Timestamp::from_millis(2),
        manager_addr: None,
        availability: Availability::Active,
    };
    let service = Op::CreateService { service: SERVICE, spec: Arc::new(spec), registry_auth: None };
    assert_eq!(commit(&mut state, vec![Tx::new(vec![admit, service])]), [""]);
    let waiting = Place::Pending("no suitable node".into());
    let first = vec![create(&state, 1, 1, None, Place::On(NODE)), create(&state, 2, 2, None, waiting)];
    assert_eq!(commit(&mut state, first), ["", ""]);

    let late = vec![
        create(&state, 3, 3, None, Place::On(NODE)),
        Tx::new(vec![Op::PlaceTask { task: TaskId(2), place: Place::On(NODE) }]),
        // What takes over from a task comes beside it, and counts with it.
        create(&state, 4, 1, Some(TaskId(1)), Place::On(NODE)),
    ];
    let outcomes = commit(&mut state, late);
    assert!(outcomes[0].contains("has 1 tasks of service") && outcomes[0].contains("1 are allowed"), "{outcomes:?}");
    assert!(outcomes[1].contains("1 are allowed"), "{outcomes:?}");
    assert_eq!(outcomes[2], "");

    // What is told to stop makes room at once.
    let stop = Tx::new(vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![TaskId(1), TaskId(4)] }]);
    let place = Tx::new(vec![Op::PlaceTask { task: TaskId(2), place: Place::On(NODE) }]);
    assert_eq!(commit(&mut state, vec![stop, place]), ["", ""]);
}
