//! The manager is killed at random moments of rolling updates and rollbacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
};

use serde_json::{Value, json};
use swarm_model::Timestamp;

use crate::{
    cluster::{Cluster, Task, service, time},
    wait::{Rng, pass, until},
};

/// Kills of the manager, all while an update or a rollback is under way.
const KILLS: u64 = 50;
/// Longest time from a start of the manager to its next kill.
const KILL_MS_MAX: u64 = 1000;
const REPLICAS: u64 = 8;
const PARALLELISM: usize = 2;
const DELAY_NS: i64 = 1_000_000_000;
const MONITOR_NS: i64 = 500_000_000;
/// An update is watched for so long after its last task runs: the delay, being longer than the monitor period, and
/// a second (swarm-behaviour §4.4).
const WATCH_NS: i64 = DELAY_NS + 1_000_000_000;

/// One update of the service, from an order to its end.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// To the other image.
    Update,
    /// Back again, by hand.
    RollBack,
    /// To an image that fails: it rolls back by itself.
    Broken,
    /// To the other image, and half-way back by hand.
    RollBackHalfWay,
}

/// What was seen of an update or of a rollback: each restart of the manager must show the same.
#[derive(Default)]
struct Seen {
    /// When the update and the rollback began.
    started: BTreeMap<bool, Timestamp>,
    /// Whether each place has to have a running task all the while.
    serves: bool,
    /// The container of each task, and its node. It never changes.
    containers: BTreeMap<String, (String, String)>,
}

impl Seen {
    /// Compares the service and its tasks with what was seen before. Returns whether the update is over.
    fn look(&mut self, service: &Value, tasks: &[Task]) -> Option<String> {
        for task in tasks.iter().filter(|task| !task.container.is_empty()) {
            let place = (task.node.clone(), task.container.clone());
            let known = self.containers.entry(task.id.clone()).or_insert_with(|| place.clone());
            assert_eq!(*known, place, "a second container of task {}", task.id);
        }
        let running: BTreeSet<_> = tasks.iter().filter(|t| t.state == "running").map(|t| t.slot).collect();
        assert!(!self.serves || running.len() as u64 == REPLICAS, "places without a running task: {tasks:#?}");
        let status = &service["UpdateStatus"];
        let state = status["State"].as_str()?;
        let started = time(&status["StartedAt"]);
        let known = *self.started.entry(state.starts_with("rollback")).or_insert(started);
        assert_eq!(known, started, "the update began anew: {status}");
        assert!(!state.contains("paused"), "{status}");
        state.ends_with("completed").then(|| state.to_owned())
    }

    /// No two tasks ever had the same container.
    fn check_containers(&self) {
        let distinct: BTreeSet<_> = self.containers.values().collect();
        assert_eq!(distinct.len(), self.containers.len(), "a container of two tasks: {:?}", self.containers);
    }
}

/// A change was never made in more places at once than the policy allows: a place counts from the creation of its task
/// to the end of the delay after that task ran.
fn check_pace(made: &[&Task]) {
    let mut made = made.to_vec();
    made.sort_by_key(|task| (task.created, task.since));
    for (index, task) in made.iter().enumerate() {
        let busy: Vec<_> = made[..index].iter().filter(|t| t.since.plus_ns(DELAY_NS) > task.created).collect();
        assert!(busy.len() < PARALLELISM, "{task:#?} came too early after {busy:#?}");
    }
}

fn other(image: &str) -> &'static str {
    if image == "hello:1" { "hello:2" } else { "hello:1" }
}

#[test]
fn updates_go_on_where_they_were_when_the_manager_is_killed() {
    let mut cluster = Cluster::start("simulated", 4);
    // What a simulated engine runs ends with its daemon, which is not what this is about.
    cluster.set_availability(cluster.manager(), "drain");
    let mut spec = service("web", REPLICAS);
    let policy = json!({ "Parallelism": PARALLELISM, "Delay": DELAY_NS, "Monitor": MONITOR_NS });
    spec["RollbackConfig"] = policy.clone();
    spec["UpdateConfig"] = policy;
    spec["UpdateConfig"]["FailureAction"] = json!("rollback");
    cluster.create(&spec);
    let replicas = BTreeMap::from([("web".to_owned(), REPLICAS)]);
    cluster.wait_settled(&replicas);

    let mut rng = Rng::new(500);
    let mut kills = 0;
    let mut image = "hello:1";
    let steps = [Step::Update, Step::RollBack, Step::Broken, Step::RollBackHalfWay];
    for (number, step) in (1..).zip(iter::repeat(steps).flatten()) {
        let order = ["stop-first", "start-first"][rng.below(2) as usize];
        let update_to = |image: &str| {
            cluster.update("web", |spec| {
                spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
                spec["UpdateConfig"]["Order"] = json!(order);
                spec["RollbackConfig"]["Order"] = json!(order);
            });
        };
        let before: BTreeSet<_> = cluster.tasks().expect("tasks").into_iter().map(|task| task.id).collect();
        match step {
            Step::Update | Step::RollBackHalfWay => update_to(other(image)),
            Step::RollBack => cluster.roll_back("web"),
            Step::Broken => update_to("hello:broken"),
        }
        let mut roll_back = matches!(step, Step::RollBackHalfWay);
        let serves = matches!(step, Step::Update) && order == "start-first";
        let mut seen = Seen { serves, ..Seen::default() };
        // Each step gets its share: what is killed all the time never has the ten quiet seconds after which a manager
        // calls an update done.
        let kills_max = KILLS.min(kills + KILLS.div_ceil(steps.len() as u64));
        let state = until(&format!("{step:?} comes to its end"), || {
            let service = cluster.service("web")?;
            let is_over = seen.look(&service, &cluster.tasks()?);
            if let (Some(state), false) = (is_over, roll_back) {
                return Ok(state);
            }
            if kills < kills_max {
                pass(rng.time_below(KILL_MS_MAX));
                let manager = &mut cluster.nodes[0];
                manager.kill();
                manager.start();
                kills += 1;
            }
            if std::mem::take(&mut roll_back) {
                cluster.roll_back("web");
            }
            Err(format!("{kills} kills, {}", service["UpdateStatus"]))
        });
        let (expected, ends) = match step {
            Step::Update => (other(image), "completed"),
            Step::RollBack => (other(image), "rollback_completed"),
            Step::Broken | Step::RollBackHalfWay => (image, "rollback_completed"),
        };
        image = expected;
        assert_eq!(state, ends, "{step:?}");

        // None is lost, stuck or there twice.
        let running = cluster.wait_settled(&replicas);
        assert!(running.iter().all(|task| task.image == image), "{step:?}: {running:#?}");
        assert_eq!(running.iter().map(|t| t.slot).collect::<BTreeSet<_>>(), (1..=REPLICAS).collect());
        seen.look(&cluster.service("web").expect("the service"), &running);
        seen.check_containers();

        let status = cluster.service("web").expect("the service")["UpdateStatus"].clone();
        let (started, completed) = (time(&status["StartedAt"]), time(&status["CompletedAt"]));
        let made: Vec<_> = running.iter().filter(|task| !before.contains(&task.id)).collect();
        let made: Vec<_> = made.into_iter().filter(|task| task.created >= started).collect();
        check_pace(&made);
        if matches!(step, Step::Update | Step::RollBack) {
            assert_eq!(made.len() as u64, REPLICAS, "each task was replaced once: {running:#?}");
            let last = made.iter().map(|task| task.since).max().expect("a task");
            assert!(completed >= last.plus_ns(WATCH_NS), "{status}, and the last task ran at {last:?}");
        }
        if kills == KILLS && number >= steps.len() {
            eprintln!("{kills} kills during {number} updates");
            break;
        }
    }
    assert!(!cluster.manager().log().contains("node is down"), "a node was lost");
}
