//! How fast tasks find their nodes. `cargo xtask bench scheduler` runs this and reads what it prints: one JSON object
//! a line. At least a thousand services of mixed size were just created, on nodes that are full to a random share;
//! once the time of the decisions alone is taken, once with each piece applied, as every manager does it, in seconds of
//! one processor. The shapes are those of SwarmKit's own benchmark; `--only=1000x10000c` takes one of them, here the one
//! with constraints.

mod world;

use swarm_core::{NewTask, Op, Place, Plan, Tx};
use swarm_model::{Cause, DesiredState, Id, NodeId, TaskId};

use world::{World, cpu_seconds, print};

/// Services that are created.
const SERVICES: usize = 1_000;
/// What one task reserves, at most, in units; at least one.
const UNITS_MAX: u64 = 3;
/// Zones that nodes are in, and that constraints name.
const ZONES: u64 = 4;
/// Transactions of one entry while the nodes are filled.
const FILL_BATCH: usize = 256;

/// Random numbers that are the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    /// A number below `below`.
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }
}

struct Shape {
    nodes: usize,
    tasks: usize,
    constraints: bool,
    /// The middle one counts.
    runs: usize,
}

impl Shape {
    /// What `--only=` calls it.
    fn name(&self) -> String {
        format!("{}x{}{}", self.nodes, self.tasks, if self.constraints { "c" } else { "" })
    }
}

const fn shape(nodes: usize, tasks: usize, constraints: bool, runs: usize) -> Shape {
    Shape { nodes, tasks, constraints, runs }
}

const SHAPES: [Shape; 8] = [
    shape(1_000, 1_000, false, 401),
    shape(1_000, 10_000, false, 101),
    shape(1_000, 100_000, false, 15),
    shape(100_000, 1_000, false, 401),
    shape(100_000, 100_000, false, 15),
    shape(100_000, 1_000_000, false, 5),
    shape(1_000, 10_000, true, 101),
    shape(5_000, 100_000, true, 15),
];

fn main() {
    // `cargo test --all-targets` starts this program too, without the word that `cargo bench` adds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let mut logs = (0.0, 0.0);
    let only = std::env::args().find_map(|argument| argument.strip_prefix("--only=").map(str::to_owned));
    let is_wanted = |shape: &&Shape| only.as_ref().is_none_or(|name| *name == shape.name());
    let shapes: Vec<&Shape> =
        SHAPES.iter().filter(|s| !quick || s.nodes.max(s.tasks) <= 10_000).filter(is_wanted).collect();
    for shape in &shapes {
        let (alone, applied) = measure(shape);
        logs = (logs.0 + alone.ln(), logs.1 + applied.ln());
    }
    let mean = |sum: f64| (sum / shapes.len() as f64).exp().round();
    let params = format!("\"shapes\":{}", shapes.len());
    print("scheduler.decide geometric mean", mean(logs.0), "tasks/s", &params);
    print("scheduler.decide+apply geometric mean", mean(logs.1), "tasks/s", &params);
}

/// Tasks a second, of the decision alone and with apply.
fn measure(shape: &Shape) -> (f64, f64) {
    let world = build(shape);
    let (mut alone, mut applied) = (Vec::new(), Vec::new());
    for _ in 0..shape.runs {
        let mut next = world.clone();
        let start = cpu_seconds();
        let mut found = 0;
        let pieces = next.decide_all(|plan| found += placed(plan));
        applied.push(cpu_seconds() - start);
        alone.push(pieces.iter().sum());
        assert_eq!(found, shape.tasks, "every task finds a node");
    }
    let rate = |mut secs: Vec<f64>| {
        secs.sort_by(f64::total_cmp);
        shape.tasks as f64 / secs[secs.len() / 2]
    };
    let (alone, applied) = (rate(alone), rate(applied));
    let params = format!("\"nodes\":{},\"tasks\":{},\"constraints\":{}", shape.nodes, shape.tasks, shape.constraints);
    print("scheduler.decide", alone.round(), "tasks/s", &params);
    print("scheduler.decide+apply", applied.round(), "tasks/s", &params);
    (alone, applied)
}

/// The tasks that get a node.
fn placed(plan: &Plan) -> usize {
    let new = |op: &Op| match op {
        Op::CreateTasks { tasks, .. } => tasks.iter().filter(|task| matches!(task.place, Place::On(_))).count(),
        _ => 0,
    };
    plan.txs.iter().flat_map(|tx| &tx.ops).map(new).sum()
}

/// Nodes of which each is full to a random share, half of them all in all, and services that were just created.
fn build(shape: &Shape) -> World {
    let (mut world, mut random) = (World::new(), Random(42));
    let units = |tasks: f64| (tasks * (1 + UNITS_MAX) as f64 / 2.0).ceil() as i64;
    // The free half is one and a half times what will be asked.
    let capacity = units((1.5 * shape.tasks as f64 / shape.nodes as f64).max(4.0)) * 2;
    let mut nodes = Vec::new();
    for number in 0..shape.nodes {
        let zone = format!("z{}", random.below(ZONES));
        nodes.push((world.add_node(number, capacity, &[("zone", zone)]), capacity));
    }
    fill(&mut world, &mut random, nodes);
    world.dirty = Default::default();
    let sizes = sizes(&mut random, shape.tasks);
    for (number, size) in sizes.into_iter().enumerate() {
        let units = 1 + random.below(UNITS_MAX) as i64;
        let zone = random.below(ZONES);
        let constraints = match number % 2 {
            _ if !shape.constraints => vec![],
            0 => vec![format!("node.labels.zone==z{zone}")],
            _ => vec![format!("node.labels.zone!=z{zone}"), "node.platform.os==linux".to_owned()],
        };
        world.add_service(number, size, units, &constraints);
    }
    world
}

/// Tasks that are there already, of a service for each size of reservation.
fn fill(world: &mut World, random: &mut Random, nodes: Vec<(NodeId, i64)>) {
    let services: Vec<_> =
        (1..=UNITS_MAX).map(|units| world.add_service(1_000_000 + units as usize, 0, units as i64, &[])).collect();
    let mut batches: Vec<Vec<NewTask>> = vec![Vec::new(); services.len()];
    let mut made = 0;
    for (node, capacity) in nodes {
        let mut left = random.below(capacity as u64 + 1) as i64;
        while left > 0 {
            let kind = random.below(UNITS_MAX).min(left as u64 - 1) as usize;
            left -= kind as i64 + 1;
            made += 1;
            let id = TaskId::make(world.now, made);
            batches[kind].push(NewTask { id, slot: made as u32, place: Place::On(node), addrs: Default::default() });
        }
    }
    for (service, tasks) in services.into_iter().zip(batches) {
        let spec_version = world.state.service(service).expect("made above").spec_version;
        for batch in tasks.chunks(FILL_BATCH) {
            world.commit(vec![Tx::new(vec![Op::CreateTasks {
                service,
                spec_version,
                desired: DesiredState::Running,
                cause: Cause::Fill,
                beside: None,
                restarts: 0,
                start_at: None,
                tasks: batch.to_vec(),
            }])]);
        }
    }
}

/// The sizes of the services: each has one task, the rest falls more often on some than on others.
fn sizes(random: &mut Random, tasks: usize) -> Vec<u64> {
    let mut sizes = vec![1; SERVICES];
    for _ in SERVICES..tasks {
        let most = random.below(SERVICES as u64) + 1;
        let service = random.below(most) as usize;
        sizes[service] += 1;
    }
    sizes
}
