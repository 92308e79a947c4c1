//! Leaving, being removed, coming back.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, service},
    daemon::Daemon,
    wait::{Rng, pass, until},
};

/// Kills while a daemon comes into a cluster or goes out of it.
const ROUNDS: u64 = 8;
/// Longest time from a request to the kill; each takes about as long.
const JOIN_MS_MAX: u64 = 100;
const LEAVE_MS_MAX: u64 = 25;
const INIT_MS_MAX: u64 = 300;

fn web(replicas: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("web".to_owned(), replicas)])
}

#[test]
fn a_worker_leaves_is_removed_and_comes_back_as_a_new_node() {
    let cluster = Cluster::start("simulated", 3);
    cluster.create(&service("web", 6));
    cluster.wait_settled(&web(6));
    let worker = &cluster.nodes[2];
    let old = worker.id();

    let message = cluster.manager().refused(400, "DELETE", &format!("/nodes/{old}"), None);
    assert!(message.contains("is not down"), "{message}");
    worker.call("POST", "/swarm/leave", None).expect("a worker may leave");
    assert_eq!(worker.swarm_info()["LocalNodeState"], "inactive");
    assert!(worker.refused(503, "POST", "/swarm/leave", None).contains("not part of a swarm"));
    assert!(worker.refused(503, "GET", "/nodes", None).contains("not a swarm manager"));

    // It is down, and its tasks run elsewhere.
    cluster.wait_state(worker, "down");
    cluster.wait_running_beside(worker, 6);
    cluster.manager().call("DELETE", &format!("/nodes/{old}"), None).expect("a node that left can be removed");
    assert!(cluster.manager().refused(404, "GET", &format!("/nodes/{old}"), None).contains(&old));
    cluster.wait_settled(&web(6));

    worker.call("POST", "/swarm/join", Some(&cluster.join_request(&cluster.token("Worker")))).expect("join");
    cluster.wait_ready();
    assert_ne!(worker.id(), old);
    cluster.scale_surely("web", 9);
    let tasks = cluster.wait_settled(&web(9));
    assert!(tasks.iter().any(|task| task.node == worker.id()), "the new node gets tasks: {tasks:?}");
}

#[test]
fn a_removed_node_is_locked_out_until_it_joins_anew() {
    let mut cluster = Cluster::start("simulated", 2);
    cluster.create(&service("web", 2));
    cluster.wait_settled(&web(2));
    let mut worker = cluster.nodes.pop().expect("a worker");
    let old = worker.id();
    cluster.manager().call("DELETE", &format!("/nodes/{old}?force=1"), None).expect("removed");
    let is_locked_out = |worker: &Daemon| {
        until("the node says that it was removed", || {
            let swarm = worker.swarm_info();
            let error = swarm["Error"].as_str().unwrap_or_default();
            let is_so =
                swarm["LocalNodeState"] == "error" && error.contains("removed") && error.contains("swarm leave");
            if is_so { Ok(()) } else { Err(swarm.to_string()) }
        });
        let refused = worker.refused(503, "POST", "/swarm/join", Some(&json!({})));
        assert!(refused.contains("already part of a swarm"), "{refused}");
    };
    is_locked_out(&worker);
    let tasks = cluster.wait_settled(&web(2));
    assert!(tasks.iter().all(|task| task.node != old), "{tasks:?}");

    // Its certificate is still there and still worth nothing.
    worker.kill();
    worker.start();
    is_locked_out(&worker);
    assert_eq!(cluster.states().expect("states").len(), 1);

    worker.call("POST", "/swarm/leave", None).expect("it may forget the cluster");
    worker.call("POST", "/swarm/join", Some(&cluster.join_request(&cluster.token("Worker")))).expect("join");
    cluster.wait_state(&worker, "ready");
    assert_ne!(worker.id(), old);
}

#[test]
fn the_last_manager_leaves_by_force_only() {
    let mut cluster = Cluster::start("simulated", 2);
    cluster.create(&service("web", 2));
    let (manager, worker) = (&cluster.nodes[0], &cluster.nodes[1]);
    let old = manager.get("/swarm")["ID"].clone();
    let message = manager.refused(503, "POST", "/swarm/leave", None);
    assert!(message.contains("last manager") && message.contains("--force"), "{message}");
    assert_eq!(manager.get("/swarm")["ID"], old);
    cluster.wait_settled(&web(2));

    manager.call("POST", "/swarm/leave?force=1", None).expect("by force");
    assert_eq!(manager.swarm_info()["LocalNodeState"], "inactive");
    assert!(manager.refused(503, "GET", "/services", None).contains("not a swarm manager"));
    // Nobody is left to hear the worker's good-bye.
    worker.call("POST", "/swarm/leave", None).expect("a worker may leave");
    assert_eq!(worker.swarm_info()["LocalNodeState"], "inactive");

    // Nothing of the old cluster is left, also after a restart.
    let manager = &mut cluster.nodes[0];
    assert!(manager.stop().success());
    manager.start();
    assert_eq!(manager.swarm_info()["LocalNodeState"], "inactive");
    manager.call("POST", "/swarm/init", Some(&json!({}))).expect("a new cluster");
    assert_ne!(manager.get("/swarm")["ID"], old);
    assert_eq!(manager.get("/services"), json!([]));
}

/// Sends a request, kills the daemon some time later and starts it again. Returns whether it is a member then.
fn killed_half_way(daemon: &mut Daemon, after: Duration, target: &str, body: Option<&Value>) -> bool {
    std::thread::scope(|scope| {
        // Whether there is an answer is a matter of chance.
        scope.spawn(|| drop(daemon.send("POST", target, body)));
        pass(after);
        daemon.signal(Signal::KILL);
    });
    daemon.kill();
    daemon.start();
    match daemon.swarm_info()["LocalNodeState"].as_str() {
        Some("inactive") => false,
        Some("active" | "pending") => true,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_daemon_that_is_killed_half_way_is_in_or_out() {
    let cluster = Cluster::start("simulated", 1);
    let mut daemon = cluster.new_daemon();
    let join = cluster.join_request(&cluster.token("Worker"));
    let mut rng = Rng::new(400);
    let mut seen = BTreeMap::new();
    for _ in 0..ROUNDS {
        let joined = killed_half_way(&mut daemon, rng.time_below(JOIN_MS_MAX), "/swarm/join", Some(&join));
        if !joined {
            daemon.call("POST", "/swarm/join", Some(&join)).expect("it can join");
        }
        let id = daemon.id();
        until("the manager has it", || match cluster.manager().call("GET", &format!("/nodes/{id}"), None)? {
            node if node["Status"]["State"] == "ready" => Ok(()),
            node => Err(node.to_string()),
        });
        let stays = killed_half_way(&mut daemon, rng.time_below(LEAVE_MS_MAX), "/swarm/leave", None);
        if stays {
            daemon.call("POST", "/swarm/leave", None).expect("it can leave");
        }
        let created = killed_half_way(&mut daemon, rng.time_below(INIT_MS_MAX), "/swarm/init", Some(&json!({})));
        if !created {
            daemon.call("POST", "/swarm/init", Some(&json!({}))).expect("it can make a cluster");
        }
        until("it leads a cluster of its own", || {
            let nodes = daemon.call("GET", "/nodes", None)?;
            let states: Vec<_> = nodes.as_array().into_iter().flatten().map(|n| n["Status"]["State"].clone()).collect();
            if states == ["ready"] { Ok(()) } else { Err(format!("{states:?}")) }
        });
        daemon.call("POST", "/swarm/leave?force=1", None).expect("it can leave");
        for (what, so) in [("joined", joined), ("stays", stays), ("created", created)] {
            *seen.entry((what, so)).or_insert(0) += 1;
        }
    }
    eprintln!("what the kills left: {seen:?}");
}
