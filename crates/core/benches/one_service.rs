//! One service of many tasks in the core alone, on sixty nodes: how long the pieces of its plans take, and all of them
//! together. It is made, all of it is updated at once, and it is scaled down to one. `cargo xtask bench million` runs this
//! as well and reads what it prints: one JSON object a line. Times are seconds of one processor.

mod world;

use std::sync::Arc;

use swarm_core::{Op, Tx};
use swarm_model::{
    DesiredState, NodeId, ServiceId, ServiceMode, ServiceSpec, Task, TaskId, TaskState, TaskStatus, UpdateConfig,
};

use world::{World, cpu_seconds, print};

const NODES: usize = 60;

fn main() {
    // `cargo test --all-targets` starts this program too, without the word that `cargo bench` adds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    for replicas in [100_000, 200_000, 1_000_000].into_iter().take(if quick { 1 } else { 3 }) {
        measure(replicas);
    }
}

fn measure(replicas: u64) {
    let mut world = World::new();
    let nodes: Vec<NodeId> = (0..NODES).map(|number| world.add_node(number, 2_000_000, &[])).collect();
    world.decide_all(|_| {});
    let service = world.add_service(1, replicas, 1, &[]);
    plan(&mut world, "create", replicas);
    assert_eq!(world.state.tasks_of_service(service).count() as u64, replicas);
    report(&mut world, &nodes, TaskState::Running);
    plan(&mut world, "run", replicas);
    change(&mut world, service, |spec| {
        spec.task_template.force_update += 1;
        spec.update_config = Some(UpdateConfig { parallelism: 0, ..UpdateConfig::when_absent() });
    });
    plan(&mut world, "update", replicas);
    report(&mut world, &nodes, TaskState::Ready);
    plan(&mut world, "update's second half", replicas);
    report(&mut world, &nodes, TaskState::Shutdown);
    plan(&mut world, "update's third half", replicas);
    report(&mut world, &nodes, TaskState::Running);
    plan(&mut world, "update's end", replicas);
    change(&mut world, service, |spec| spec.mode = ServiceMode::Replicated { replicas: 1 });
    plan(&mut world, "scale down", replicas);
    let live = world.state.tasks_of_service(service).filter(|task| task.desired.is_live()).count();
    assert_eq!(live, 1, "one is left");
    report(&mut world, &nodes, TaskState::Shutdown);
    plan(&mut world, "forget", replicas);
}

fn plan(world: &mut World, what: &str, replicas: u64) {
    let start = cpu_seconds();
    let pieces = world.decide_all(|_| {});
    let applied = cpu_seconds() - start;
    let (longest, all) = (pieces.iter().copied().fold(0.0, f64::max), pieces.iter().sum::<f64>());
    let params = format!("\"tasks\":{replicas},\"what\":\"{what}\",\"pieces\":{}", pieces.len());
    print("one_service.longest piece", longest * 1000.0, "ms", &params);
    print("one_service.decide", all, "s", &params);
    print("one_service.decide+apply", applied, "s", &params);
}

fn change(world: &mut World, service: ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
    let mut spec = ServiceSpec::clone(&world.state.service(service).expect("it was made").spec);
    change(&mut spec);
    world.commit(vec![Tx::new(vec![Op::UpdateService {
        service,
        spec: Arc::new(spec),
        registry_auth: None,
        alike: None,
    }])]);
}

/// Every agent says that its tasks got so far as they are to.
fn report(world: &mut World, nodes: &[NodeId], state: TaskState) {
    let status = TaskStatus::new(state, world.now);
    let wanted = |task: &&Arc<Task>| {
        let is_due = match task.desired {
            DesiredState::Ready => state == TaskState::Ready,
            DesiredState::Running => state == TaskState::Running,
            _ => state == TaskState::Shutdown,
        };
        is_due && task.status.state < state
    };
    let report = |node: &NodeId| {
        let reports: Vec<(TaskId, TaskStatus)> =
            world.state.tasks_of_node(*node).filter(wanted).map(|task| (task.id, status.clone())).collect();
        (!reports.is_empty()).then(|| Tx::new(vec![Op::ReportTasks { node: *node, reports }]))
    };
    let txs = nodes.iter().filter_map(report).collect();
    world.commit_all(txs);
}
