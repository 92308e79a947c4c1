//! The life of a service on real containers, as the tutorials tell it: created, scaled, moved off its nodes, updated,
//! rolled back; and a service on every node.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Task, service, time},
    daemon::Daemon,
    engine::{CleanUp, Engine},
    wait::until,
};

const DELAY_NS: i64 = 1_000_000_000;
const MONITOR_NS: i64 = 500_000_000;

/// Containers without a network: nobody calls them, and they start in half the time.
fn without_network(mut spec: Value) -> Value {
    spec["TaskTemplate"]["Networks"] = json!([{ "Target": "none" }]);
    spec
}

fn image(spec: &mut Value, image: &str) {
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
}

fn settled(cluster: &Cluster, services: &[(&str, u64)]) -> Vec<Task> {
    cluster.wait_settled(&services.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
}

/// How many of these tasks a node has.
fn count(tasks: &[Task], daemon: &Daemon) -> usize {
    let id = daemon.id();
    tasks.iter().filter(|task| task.node == id).count()
}

fn ids(tasks: &[Task]) -> BTreeMap<u64, String> {
    tasks.iter().map(|task| (task.slot, task.id.clone())).collect()
}

/// Waits for an update or a rollback to be over.
fn wait_update(cluster: &Cluster, state: &str) {
    until(&format!("the update is {state}"), || match cluster.service("web")? {
        service if service["UpdateStatus"]["State"] == state => Ok(()),
        service => Err(service["UpdateStatus"].to_string()),
    });
}

/// Checks that tasks were replaced two at a time, and each two only after the delay.
fn check_waves(cluster: &Cluster, mut tasks: Vec<Task>) {
    let started = time(&cluster.service("web").expect("web")["UpdateStatus"]["StartedAt"]);
    tasks.sort_by_key(|task| task.created);
    assert!(tasks.iter().all(|task| task.created >= started), "each task is new: {tasks:#?}");
    for three in tasks.windows(3) {
        let first_runs = three[0].since.min(three[1].since);
        assert!(three[2].created >= first_runs.plus_ns(DELAY_NS), "the third came too early: {three:#?}");
    }
    for two in tasks.chunks_exact(2) {
        assert!(two[1].created.since_ns(two[0].created) < DELAY_NS, "the second came too late: {two:#?}");
    }
}

#[test]
fn the_life_of_a_service() {
    let Some(engine) = Engine::of_this_machine() else { return };
    let mut clean_up = CleanUp::new(&engine);
    let mut cluster = Cluster::start(&engine.address(), 4);
    clean_up.note(&cluster);

    let mut web = without_network(service("web", 4));
    for (config, action) in [("UpdateConfig", "rollback"), ("RollbackConfig", "continue")] {
        web[config] = json!({
            "Parallelism": 2, "Delay": DELAY_NS, "Monitor": MONITOR_NS, "MaxFailureRatio": 0.2, "FailureAction": action,
        });
    }
    cluster.create(&web);
    let first = settled(&cluster, &[("web", 4)]);
    assert!(cluster.nodes.iter().all(|node| count(&first, node) == 1), "one on each node: {first:#?}");

    cluster.scale_surely("web", 6);
    settled(&cluster, &[("web", 6)]);
    cluster.scale_surely("web", 3);
    let three = settled(&cluster, &[("web", 3)]);
    let is_kept = |task: &Task| first.iter().any(|t| t.id == task.id);
    assert!(three.iter().filter(|t| t.slot <= 4).all(is_kept), "scaling replaces nothing: {first:#?} {three:#?}");
    assert!(cluster.service("web").expect("web")["UpdateStatus"].is_null(), "scaling is no update");

    // A paused node keeps what it has, and gets nothing.
    cluster.set_availability(&cluster.nodes[1], "pause");
    let before = count(&three, &cluster.nodes[1]);
    cluster.scale_surely("web", 6);
    let six = settled(&cluster, &[("web", 6)]);
    assert_eq!(count(&six, &cluster.nodes[1]), before, "{six:#?}");

    // Drained nodes, the manager among them, lose all: each task moves, and keeps its name.
    for daemon in &cluster.nodes[..2] {
        cluster.set_availability(daemon, "drain");
    }
    let drained: Vec<_> = cluster.nodes[..2].iter().map(Daemon::id).collect();
    until("the drained nodes have no task", || {
        let left: Vec<_> = cluster.tasks()?.into_iter().filter(|t| t.runs() && drained.contains(&t.node)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let six = settled(&cluster, &[("web", 6)]);
    assert!(cluster.nodes[2..].iter().all(|node| count(&six, node) == 3), "{six:#?}");
    assert_eq!(ids(&six).into_keys().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    for node in &drained {
        let left: Vec<_> = engine.containers(node).expect("containers").into_iter().filter(|c| c.runs).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    // A container that is stopped by hand is replaced.
    let victim = &six[0];
    engine.stop(&victim.container);
    until("the task of the stopped container has ended", || {
        let tasks = cluster.tasks()?;
        match tasks.iter().find(|task| task.id == victim.id) {
            Some(task) if !task.runs() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let healed = settled(&cluster, &[("web", 6)]);
    let replaced: Vec<_> = ids(&healed).into_iter().filter(|(slot, id)| ids(&six)[slot] != *id).collect();
    assert_eq!(replaced.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [victim.slot]);

    // An update, two at a time, and back by hand: names stay, tasks are new.
    cluster.update("web", |spec| image(spec, "hello:2"));
    wait_update(&cluster, "completed");
    let updated = settled(&cluster, &[("web", 6)]);
    assert!(updated.iter().all(|task| task.image == "hello:2"), "{updated:#?}");
    check_waves(&cluster, updated.clone());
    cluster.roll_back("web");
    wait_update(&cluster, "rollback_completed");
    let back = settled(&cluster, &[("web", 6)]);
    assert!(back.iter().all(|task| task.image == "hello:1"), "{back:#?}");
    assert!(ids(&back).keys().eq(ids(&updated).keys()));
    let every_id: BTreeSet<_> = [&healed, &updated, &back].into_iter().flatten().map(|task| &task.id).collect();
    assert_eq!(every_id.len(), 18, "tasks are never used again");
    check_waves(&cluster, back.clone());

    // An image that fails at its start rolls itself back, and touches no more than the first two tasks.
    cluster.update("web", |spec| image(spec, "hello:broken"));
    wait_update(&cluster, "rollback_completed");
    let mended = settled(&cluster, &[("web", 6)]);
    assert!(mended.iter().all(|task| task.image == "hello:1"), "{mended:#?}");
    let kept = mended.iter().filter(|task| back.iter().any(|t| t.id == task.id)).count();
    assert!(kept >= 4, "{kept} tasks are as they were");

    // A service on every node: those that come back get their task, as does a new one.
    let mut agent = without_network(service("agent", 1));
    agent["Mode"] = json!({ "Global": {} });
    cluster.create(&agent);
    settled(&cluster, &[("web", 6), ("agent", 2)]);
    for daemon in &cluster.nodes[..2] {
        cluster.set_availability(daemon, "active");
    }
    settled(&cluster, &[("web", 6), ("agent", 4)]);

    let gone = cluster.nodes.pop().expect("a worker");
    let old = gone.id();
    gone.call("POST", "/swarm/leave", None).expect("a worker may leave");
    cluster.wait_state(&gone, "down");
    let left = engine.containers(&old).expect("containers");
    assert!(left.is_empty(), "a node that left has no containers: {left:?}");
    cluster.wait_running_beside(&gone, 9);
    cluster.manager().call("DELETE", &format!("/nodes/{old}"), None).expect("a node that left can be removed");
    assert!(!cluster.states().expect("states").contains_key(&gone.name));
    settled(&cluster, &[("web", 6), ("agent", 3)]);

    let newcomer = cluster.new_daemon();
    let request = cluster.join_request(&cluster.token("Worker"));
    newcomer.call("POST", "/swarm/join", Some(&request)).expect("join");
    cluster.nodes.push(newcomer);
    clean_up.note(&cluster);
    cluster.wait_ready();
    let tasks = settled(&cluster, &[("web", 6), ("agent", 4)]);
    assert!(cluster.nodes.iter().all(|node| tasks.iter().any(|t| t.slot == 0 && t.node == node.id())), "{tasks:#?}");
    engine.wait_agrees(&cluster, &[("web", 6), ("agent", 4)]);
}
