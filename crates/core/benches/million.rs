//! A million tasks in the core alone: a thousand services on ten thousand nodes, from their creation until all run,
//! through `decide` and `apply` with agents that do as they are told; then the loss of a node, and rest. `cargo xtask
//! bench million` runs this and reads what it prints: one JSON object a line. Times are seconds of one processor.

mod world;

use std::{collections::BTreeMap, fs, sync::Arc};

use swarm_core::{Context, Dirty, Op, Tx, decide};
use swarm_model::{DesiredState, NodeId, NodeState, NodeStatus, Task, TaskId, TaskState, TaskStatus, Timestamp};

use world::{World, cpu_seconds, print, ready};

/// What agents report of a task on its way, one report each: what comes between is overtaken before it is sent.
const REPORTED: [TaskState; 3] = [TaskState::Preparing, TaskState::Starting, TaskState::Running];
/// Seconds of the cluster's clock between two flushes of the agents.
const FLUSH_NS: i64 = 1_000_000_000;
/// For so long nothing may happen once all is settled.
const REST_S: i64 = 60;

fn main() {
    // `cargo test --all-targets` starts this program too, without the word that `cargo bench` adds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (nodes, services, replicas) = if quick { (1_000, 100, 1_000) } else { (10_000, 1_000, 1_000) };
    let params = format!("\"nodes\":{nodes},\"services\":{services},\"tasks\":{}", services * replicas);
    let mut world = World::new();
    let nodes: Vec<NodeId> = (0..nodes).map(|number| world.add_node(number, 1_000, &[])).collect();
    world.dirty = Dirty::default();
    let before_bytes = resident_bytes();

    let start = cpu_seconds();
    for number in 0..services {
        world.add_service(number as usize, replicas, 1, &[]);
    }
    let mut cluster = Cluster { world, deadlines: BTreeMap::new() };
    cluster.decide();
    for state in REPORTED {
        cluster.report(&nodes, state);
        cluster.decide();
    }
    print("million.all_running", cpu_seconds() - start, "s", &params);
    let running = cluster.world.state.tasks().filter(|task| task.status.state == TaskState::Running).count();
    assert_eq!(running as u64, services * replicas, "all tasks run");
    print("million.memory", (resident_bytes() - before_bytes) / f64::from(1 << 20), "MiB", &params);

    let decisions = cluster.world.decisions;
    cluster.rest();
    print("million.decisions_at_rest", (cluster.world.decisions - decisions) as f64, "decisions", &params);

    let mut secs: Vec<f64> = nodes.iter().take(20).map(|node| cluster.lose(*node)).collect();
    secs.sort_by(f64::total_cmp);
    print("million.lost_node", secs[secs.len() / 2] * 1000.0, "ms", &params);
}

/// A leader's loop around the core.
struct Cluster {
    world: World,
    deadlines: BTreeMap<swarm_model::ServiceId, Timestamp>,
}

impl Cluster {
    /// Decides and applies until there is nothing left to look at.
    fn decide(&mut self) {
        loop {
            let due = self.deadlines.iter().filter(|(_, at)| **at <= self.world.now).map(|(service, _)| *service);
            self.world.dirty.services.extend(due);
            if self.world.dirty.is_empty() {
                return;
            }
            let deadlines = &mut self.deadlines;
            self.world.decide_all(|plan| plan.renew(deadlines));
        }
    }

    /// Every agent says that its tasks got so far.
    fn report(&mut self, nodes: &[NodeId], state: TaskState) {
        self.world.now = self.world.now.plus_ns(FLUSH_NS);
        let status = TaskStatus::new(state, self.world.now);
        let wanted = |task: &&Arc<Task>| task.desired == DesiredState::Running && task.status.state < state;
        let report = |node: &NodeId| {
            let tasks = self.world.state.tasks_of_node(*node).filter(wanted);
            let reports: Vec<(TaskId, TaskStatus)> = tasks.map(|task| (task.id, status.clone())).collect();
            (!reports.is_empty()).then(|| Tx::new(vec![Op::ReportTasks { node: *node, reports }]))
        };
        let txs = nodes.iter().filter_map(report).collect();
        self.world.commit_all(txs);
    }

    /// Time passes and nothing happens.
    fn rest(&mut self) {
        for _ in 0..REST_S {
            self.world.now = self.world.now.plus_ns(FLUSH_NS);
            self.decide();
        }
    }

    /// Seconds to decide where the tasks of a node that is gone start anew.
    fn lose(&mut self, node: NodeId) -> f64 {
        self.world.now = self.world.now.plus_ns(FLUSH_NS);
        let status = NodeStatus { state: NodeState::Down, ..ready() };
        self.world.commit(vec![Tx::new(vec![Op::ReportNode { node, status, description: None }])]);
        let lost = self.world.state.tasks_of_node(node).filter(|task| task.is_live()).count();
        let start = cpu_seconds();
        let plan = decide(&self.world.state, &self.world.dirty, &Context::at(self.world.now, 0));
        let seconds = cpu_seconds() - start;
        let replaced = plan.txs.iter().flat_map(|tx| &tx.ops).filter(|op| matches!(op, Op::CreateTasks { .. })).count();
        assert_eq!(replaced, lost, "each task of the node is replaced");
        self.decide();
        seconds
    }
}

/// Memory of this process.
fn resident_bytes() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux has this file");
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096.0
}
