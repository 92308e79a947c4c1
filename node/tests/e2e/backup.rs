//! All managers are lost, and the swarm comes back from a backup.

use std::{collections::BTreeMap, fs};

use serde_json::json;
use swarm_docker_api::write_passphrase;
use swarm_model::Redacted;

use crate::{
    cluster::{Cluster, service},
    daemon::Daemon,
    http::{self, Answer},
    wait::until,
};

const PASSPHRASE: &str = "a passphrase for tests";

fn send(at: &Daemon, target: &str, passphrase: &str, body: &[u8]) -> Answer {
    let header = format!("X-Swarmd-Passphrase: {}\r\n", write_passphrase(&Redacted::new(passphrase)));
    http::send_with(&at.socket(), "POST", target, &header, body).expect("an answer")
}

fn backup(at: &Daemon) -> Vec<u8> {
    let answer = send(at, "/swarmd/backup", PASSPHRASE, &[]);
    assert!(answer.is_ok(), "{}", answer.message());
    answer.body
}

#[test]
fn a_swarm_comes_back_from_its_backup() {
    let mut cluster = Cluster::start("simulated", 2);
    let mut spec = service("web", 4);
    spec["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.role == worker"] });
    cluster.create(&spec);
    let web = BTreeMap::from([("web".to_owned(), 4)]);
    let containers = |cluster: &Cluster| {
        let mut ids: Vec<_> = cluster.wait_settled(&web).into_iter().map(|task| (task.id, task.container)).collect();
        ids.sort();
        ids
    };
    let before = containers(&cluster);
    let swarm = cluster.manager().get("/swarm");
    let old = cluster.manager().id();
    let bytes = backup(cluster.manager());
    cluster.create(&service("late", 0));
    let worker_token = cluster.token("Worker");

    cluster.nodes[0].kill();
    let new = cluster.replacement(&cluster.nodes[0]);
    let answer = send(&new, "/swarmd/restore", PASSPHRASE, &bytes);
    assert!(answer.is_ok(), "{}", answer.message());
    cluster.nodes[0] = new;
    let id = cluster.manager().id();
    assert_eq!((answer.json(), id == old), (json!(id), false));
    let restored = cluster.manager().get("/swarm");
    for field in ["ID", "JoinTokens", "TLSInfo", "Spec", "CreatedAt"] {
        assert_eq!(restored[field], swarm[field], "{field}");
    }
    // The worker finds it where its manager was, and nothing of it is touched.
    cluster.wait_ready();
    assert_eq!(containers(&cluster), before);
    let nodes = cluster.manager().get("/nodes");
    let ids: Vec<_> = nodes.as_array().expect("a list").iter().map(|node| node["ID"].as_str().unwrap()).collect();
    assert!(ids.len() == 2 && ids.contains(&id.as_str()), "the manager from before is gone: {ids:?}");
    assert!(cluster.manager().refused(404, "GET", "/services/late", None).contains("late not found"));

    // It is a swarm like any other: it takes nodes in, changes, and starts again.
    let joiner = cluster.new_daemon();
    let request = cluster.join_request(&worker_token);
    joiner.call("POST", "/swarm/join", Some(&request)).expect("the old token counts");
    cluster.nodes.push(joiner);
    let manager = cluster.new_daemon();
    let request = cluster.join_request(&cluster.token("Manager"));
    manager.call("POST", "/swarm/join", Some(&request)).expect("a second manager");
    cluster.nodes.push(manager);
    cluster.wait_ready();
    cluster.scale_surely("web", 5);
    assert!(cluster.nodes[0].stop().success());
    cluster.nodes[0].start();
    cluster.wait_ready();
    cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 5)]));
}

#[test]
fn what_is_no_whole_backup_is_refused_and_changes_nothing() {
    let cluster = Cluster::start("simulated", 1);
    let bytes = backup(cluster.manager());
    let short = send(cluster.manager(), "/swarmd/backup", "too short", &[]);
    assert!(short.status == 400 && short.message().contains("at least 12"), "{}", short.message());
    let inside = send(cluster.manager(), "/swarmd/restore", PASSPHRASE, &bytes);
    assert!(inside.status == 503 && inside.message().contains("already part of a swarm"), "{}", inside.message());

    let node = cluster.new_daemon();
    let files = || {
        let names = fs::read_dir(node.state_dir()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let before = files();
    let mut altered = bytes.clone();
    altered[bytes.len() / 2] ^= 1;
    for (what, passphrase, body) in [
        ("passphrase is wrong", "another passphrase", bytes.as_slice()),
        ("cut short", PASSPHRASE, &bytes[..bytes.len() - 10]),
        ("cut short", PASSPHRASE, &[]),
        ("is damaged", PASSPHRASE, &altered),
        ("no backup of a swarm", PASSPHRASE, b"PK\x03\x04 an archive of something else"),
    ] {
        let answer = send(&node, "/swarmd/restore", passphrase, body);
        assert!(answer.status == 400 && answer.message().contains(what), "{what}: {}", answer.message());
        assert_eq!(node.swarm_info()["LocalNodeState"], "inactive");
        assert_eq!(files(), before);
    }
    let answer = http::send_with(&node.socket(), "POST", "/swarmd/restore", "", &bytes).expect("an answer");
    assert!(answer.status == 400 && answer.message().contains("passphrase"), "{}", answer.message());
    // After all of that it can still be restored.
    let answer = send(&node, "/swarmd/restore", PASSPHRASE, &bytes);
    assert!(answer.is_ok(), "{}", answer.message());
    until("it is a manager", || match node.swarm_info() {
        info if info["ControlAvailable"] == true => Ok(()),
        info => Err(info.to_string()),
    });
}
