//! How fast tasks find their nodes. `cargo xtask bench scheduler` runs this and reads what it prints: one JSON object
//! a line. Services without tasks are put before the leader's `decide`; once the time of the decision alone is taken,
//! once with the plan applied, as every manager does it.
#![expect(clippy::print_stdout, reason = "a program whose output is its figures")]

use std::{sync::Arc, time::Instant};

use swarm_core::{Dirty, ENTRY_TXS_MAX, ENTRY_VERSION, Entry, Op, Plan, State, Tx, apply, decide};
use swarm_model::{
    Availability, Cluster, ClusterId, ClusterSpec, Id, JoinTokens, NodeDescription, NodeId, NodeRole, NodeState,
    NodeStatus, ResourceReservations, Resources, RootCa, Secret, ServiceId, ServiceMode, ServiceSpec, Timestamp,
};

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);
/// Runs of each shape; the middle one counts.
const RUNS: usize = 5;

/// Nodes, tasks, tasks of one service.
type Shape = (usize, usize, usize);

const SHAPES: [Shape; 7] = [
    (1_000, 1_000, 1_000),
    (1_000, 10_000, 10_000),
    (1_000, 100_000, 100_000),
    (100_000, 1_000, 1_000),
    // The same in many small services, each of which is placed by itself.
    (1_000, 10_000, 10),
    (1_000, 100_000, 100),
    (100_000, 1_000, 10),
];

fn main() {
    // `cargo test --all-targets` starts this program too, without the word that `cargo bench` adds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    for shape in SHAPES {
        let (nodes, tasks, _) = shape;
        if !quick || nodes.max(tasks) <= 10_000 {
            measure(shape, if quick { 1 } else { RUNS });
        }
    }
}

fn measure((nodes, tasks, replicas): Shape, runs: usize) {
    let state = world(nodes, tasks / replicas, replicas);
    let (mut alone, mut applied) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let start = Instant::now();
        let plan = decide(&state, &Dirty::everything(), NOW, 1);
        alone.push(start.elapsed().as_secs_f64());
        let next = follow(&state, plan);
        applied.push(start.elapsed().as_secs_f64());
        let placed = next.tasks().filter(|task| task.node.is_some()).count();
        assert_eq!(placed, tasks, "every task finds a node");
    }
    for (what, mut secs) in [("decide", alone), ("decide+apply", applied)] {
        secs.sort_by(f64::total_cmp);
        let rate = tasks as f64 / secs[secs.len() / 2];
        println!(
            "{{\"name\":\"scheduler.{what}\",\"value\":{rate:.0},\"unit\":\"tasks/s\",\
             \"params\":{{\"nodes\":{nodes},\"tasks\":{tasks},\"replicas\":{replicas}}}}}"
        );
    }
}

/// Applies a plan as the log would bring it.
fn follow(state: &State, plan: Plan) -> State {
    assert!(plan.refused.is_empty(), "a plan that its own clone refused: {:?}", plan.refused.first());
    let mut next = state.clone();
    for txs in plan.txs.chunks(ENTRY_TXS_MAX) {
        commit(&mut next, txs.to_vec());
    }
    next
}

fn commit(state: &mut State, txs: Vec<Tx>) {
    let index = state.revision() + 1;
    let (outcomes, _) = apply(state, index, &Entry { v: ENTRY_VERSION, at: NOW, txs });
    assert!(outcomes.iter().all(Result::is_ok), "a change fell: {outcomes:?}");
}

/// Ready nodes, and services that were just created.
fn world(nodes: usize, services: usize, replicas: usize) -> State {
    let mut state = State::default();
    let cluster = Cluster {
        id: ClusterId(1),
        version: 0,
        created_at: NOW,
        updated_at: NOW,
        spec: Arc::new(ClusterSpec::default()),
        root_ca: Arc::new(RootCa { cert_pem: String::new(), key_pem: Secret::default() }),
        join_tokens: Arc::new(JoinTokens { worker: Secret::default(), manager: Secret::default() }),
        removed_nodes: Default::default(),
    };
    commit(&mut state, vec![Tx::new(vec![Op::CreateCluster(Arc::new(cluster))])]);
    for number in 0..nodes {
        let node = NodeId::make(NOW, number as u128);
        let mut description = NodeDescription { hostname: format!("node-{number}"), ..NodeDescription::default() };
        description.platform.os = "linux".into();
        description.platform.architecture = "x86_64".into();
        description.resources.nano_cpus = 64_000_000_000;
        description.resources.memory_bytes = 256 << 30;
        let admit = Op::AdmitNode {
            node,
            role: NodeRole::Worker,
            cert_expires_at: NOW,
            manager_addr: None,
            availability: Availability::Active,
        };
        let status = NodeStatus { state: NodeState::Ready, engine_reachable: true, ..NodeStatus::default() };
        let report = Op::ReportNode { node, status, description: Some(description.into()) };
        commit(&mut state, vec![Tx::new(vec![admit]), Tx::new(vec![report])]);
    }
    for number in 0..services {
        let mut spec = ServiceSpec { name: format!("service-{number}"), ..ServiceSpec::default() };
        spec.mode = ServiceMode::Replicated { replicas: replicas as u64 };
        spec.task_template.container_spec.image = "hello:1".into();
        let reservations =
            ResourceReservations { nano_cpus: 100_000_000, memory_bytes: 64 << 20, ..Default::default() };
        spec.task_template.resources = Some(Resources { reservations: Some(reservations), ..Resources::default() });
        let service = ServiceId::make(NOW, number as u128);
        let create = Op::CreateService { service, spec: Arc::new(spec), registry_auth: None };
        commit(&mut state, vec![Tx::new(vec![create])]);
    }
    state
}
