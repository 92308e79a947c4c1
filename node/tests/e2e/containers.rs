//! Real containers on a real Docker Engine, while daemons and engines are killed, or hang.

use rustix::process::Signal;
use serde_json::json;

use crate::{
    cluster::{Cluster, Task, service},
    engine::{CleanUp, Engine, PrivateEngine},
    wait::{Rng, pass, until},
};

/// Kills of a manager and of a worker, one after the other.
const ROUNDS: u64 = 6;
/// Longest time from an order to the kill: the containers are half-way then.
const KILL_MS_MAX: u64 = 1200;
/// Longest time that a killed daemon is away; less than the 6 s after which it is given up.
const AWAY_MS_MAX: u64 = 800;

#[test]
fn containers_are_neither_doubled_nor_orphaned_when_daemons_are_killed() {
    let Some(engine) = Engine::of_this_machine() else { return };
    let mut clean_up = CleanUp::new(&engine);
    let mut cluster = Cluster::start(&engine.address(), 3);
    clean_up.note(&cluster);
    let mut rng = Rng::new(200);
    cluster.create(&service("web", 3));
    for round in 0..ROUNDS {
        cluster.scale_surely("web", if round % 2 == 0 { 9 } else { 3 });
        pass(rng.time_below(KILL_MS_MAX));
        let victim = &mut cluster.nodes[if round % 2 == 0 { 0 } else { 1 + rng.below(2) as usize }];
        victim.kill();
        pass(rng.time_below(AWAY_MS_MAX));
        victim.start();
    }
    cluster.scale_surely("web", 6);
    cluster.wait_ready();
    let before = engine.wait_agrees(&cluster, &[("web", 6)]);

    // All of them at once, and one has lost what it knew of its tasks: each daemon adopts its containers, and starts
    // none again.
    for daemon in &mut cluster.nodes {
        daemon.kill();
    }
    std::fs::remove_dir_all(cluster.nodes[1].state_dir().join("agent")).expect("an agent's folder");
    for daemon in &mut cluster.nodes {
        daemon.start();
    }
    cluster.wait_ready();
    assert_eq!(engine.wait_agrees(&cluster, &[("web", 6)]), before);

    // Stopped in order, it does the same.
    assert!(cluster.nodes[1].stop().success());
    cluster.nodes[1].start();
    cluster.wait_ready();
    assert_eq!(engine.wait_agrees(&cluster, &[("web", 6)]), before);

    // What happens while a daemon is away: a container ends, a service is removed. It finds out.
    cluster.create(&service("short", 3));
    let before = engine.wait_agrees(&cluster, &[("web", 6), ("short", 3)]);
    let id = cluster.nodes[1].id();
    cluster.nodes[1].kill();
    let here = engine.containers(&id).expect("containers");
    let web = cluster.tasks_with(&json!({ "service": ["web"] })).expect("tasks");
    let victim = here.iter().find(|c| c.runs && web.iter().any(|t| t.id == c.task)).expect("a container of web");
    engine.kill(&victim.id);
    cluster.manager().call("DELETE", "/services/short", None).expect("it is removed");
    cluster.nodes[1].start();
    cluster.wait_ready();
    let after = engine.wait_agrees(&cluster, &[("web", 6)]);
    let kept = before.iter().filter(|running| after.get(running.0) == Some(running.1)).count();
    assert_eq!(kept, 5, "all but the killed one run on: {before:?}, {after:?}");

    // A node that is away for so long that its tasks start elsewhere stops them when it is back.
    cluster.nodes[2].kill();
    cluster.wait_state(&cluster.nodes[2], "down");
    cluster.wait_running_beside(&cluster.nodes[2], 6);
    cluster.nodes[2].start();
    cluster.wait_ready();
    engine.wait_agrees(&cluster, &[("web", 6)]);

    // An image that nobody has: the service is there, and its task says what is wrong.
    let mut spec = service("nothing", 1);
    // Nothing listens on port 1: the answer is the same on any machine.
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("127.0.0.1:1/nothing:1");
    cluster.create(&spec);
    until("the task is rejected", || {
        let tasks = cluster.tasks_with(&json!({ "service": ["nothing"] }))?;
        let is_so = |t: &&Task| t.state == "rejected" && t.err.contains("No such image: 127.0.0.1:1/nothing:1");
        tasks.iter().find(is_so).map(drop).ok_or_else(|| format!("{tasks:?}"))
    });
    cluster.manager().call("DELETE", "/services/nothing", None).expect("it is removed");
    cluster.manager().call("DELETE", "/services/web", None).expect("it is removed");
    engine.wait_agrees(&cluster, &[]);
    for daemon in &cluster.nodes {
        let left = || match engine.containers(&daemon.id()) {
            Ok(left) if left.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        };
        until("all containers are gone", left);
    }
}

#[test]
fn containers_are_as_wanted_after_the_engine_was_killed_or_hung() {
    let Some(mut private) = PrivateEngine::start() else { return };
    let mut cluster = Cluster::start(&private.engine.address(), 2);
    let mut rng = Rng::new(300);
    cluster.create(&service("web", 4));

    // Killed while containers are being started, and again while they are being stopped.
    for replicas in [4, 2] {
        cluster.scale_surely("web", replicas);
        pass(rng.time_below(KILL_MS_MAX));
        private.kill();
        private.start_dockerd();
    }
    // Together with the daemons.
    cluster.scale_surely("web", 5);
    pass(rng.time_below(KILL_MS_MAX));
    private.kill();
    for daemon in &mut cluster.nodes {
        daemon.kill();
        daemon.start();
    }
    private.start_dockerd();
    cluster.wait_ready();
    cluster.scale_surely("web", 4);
    let before = private.engine.wait_agrees(&cluster, &[("web", 4)]);

    // Hung: the nodes say so, get no new tasks, and lose none.
    private.signal(Signal::STOP);
    until("the nodes notice", || {
        let nodes = cluster.manager().call("GET", "/nodes", None)?;
        let messages: Vec<_> = nodes.as_array().into_iter().flatten().map(|n| n["Status"]["Message"].clone()).collect();
        if messages == ["engine unreachable", "engine unreachable"] { Ok(()) } else { Err(format!("{messages:?}")) }
    });
    cluster.scale_surely("web", 6);
    until("new tasks wait for an engine", || {
        let tasks = cluster.tasks()?;
        let waiting = tasks.iter().filter(|t| t.state == "pending" && t.node.is_empty()).count();
        if waiting == 2 { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    private.signal(Signal::CONT);
    let after = private.engine.wait_agrees(&cluster, &[("web", 6)]);
    assert!(before.iter().all(|running| after.contains_key(running.0)), "{before:?} became {after:?}");
    cluster.manager().call("DELETE", "/services/web", None).expect("it is removed");
    private.engine.wait_agrees(&cluster, &[]);
}
