//! Autolock: locked after a restart, unlocked by a person, rotated, killed half way.

use std::thread;

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, service},
    daemon::Daemon,
    managers::start,
    wait::{Rng, until},
};

/// Kills while autolock is switched and its key rotated.
const ROUNDS: u64 = 12;
/// Longest time from a request to the kill: each takes about as long.
const KILL_MS_MAX: u64 = 60;

/// Switches autolock, or rotates its key.
fn set(at: &Daemon, on: bool, rotate: bool) -> Result<(), String> {
    let mut swarm = at.call("GET", "/swarm", None)?;
    swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"] = json!(on);
    let target = format!(
        "/swarm/update?version={}&rotateWorkerToken=false&rotateManagerToken=false&rotateManagerUnlockKey={rotate}",
        swarm["Version"]["Index"]
    );
    at.call("POST", &target, Some(&swarm["Spec"])).map(drop)
}

/// The key. Asked a second time, a manager answers when its own keys are wrapped with it.
fn key(at: &Daemon) -> String {
    at.get("/swarm/unlockkey");
    at.get("/swarm/unlockkey")["UnlockKey"].as_str().expect("a key").to_owned()
}

fn body(key: &str) -> Value {
    json!({ "UnlockKey": key })
}

/// Whether a daemon waits for its key.
fn is_locked(daemon: &Daemon) -> bool {
    let state = daemon.swarm_info()["LocalNodeState"].clone();
    assert!(state == "locked" || state == "active" || state == "pending", "{state}");
    state == "locked"
}

fn unlock(daemon: &Daemon, key: &str) {
    daemon.call("POST", "/swarm/unlock", Some(&body(key))).expect("the key opens it");
}

fn restart(daemon: &mut Daemon) {
    daemon.kill();
    daemon.start();
}

fn wait_answers(daemon: &Daemon) -> Value {
    until("the manager answers", || daemon.call("GET", "/services", None))
}

#[test]
fn a_locked_manager_waits_for_its_key() {
    let mut cluster = Cluster::start("simulated", 1);
    cluster.create(&service("web", 1));
    let manager = &mut cluster.nodes[0];
    assert_eq!(key(manager), "");
    assert!(manager.refused(409, "POST", "/swarm/unlock", Some(&body("x"))).contains("not locked"));
    set(manager, true, false).expect("autolock is switched on");
    let first = key(manager);
    let id = manager.id();
    restart(manager);

    assert!(is_locked(manager));
    assert_eq!(manager.id(), id);
    for (method, target) in [("GET", "/services"), ("GET", "/nodes"), ("GET", "/swarm")] {
        let message = manager.refused(503, method, target, None);
        assert!(message.contains("needs to be unlocked"), "{target}: {message}");
    }
    assert!(manager.refused(503, "POST", "/swarm/init", Some(&json!({}))).contains("needs to be unlocked"));
    assert!(manager.refused(503, "POST", "/swarm/leave", None).contains("--force"));
    assert!(manager.refused(400, "POST", "/swarm/unlock", Some(&body("SWMKEY-1-short"))).contains("SWMKEY-1-<43"));
    let wrong = format!("SWMKEY-1-{}", "A".repeat(43));
    assert!(manager.refused(401, "POST", "/swarm/unlock", Some(&body(&wrong))).contains("invalid key"));
    // Nothing on the disk helps: neither the key of the log nor that of the node is there as it is.
    let files = ["manager/raft.key", "certificates/swarm-node.key"].map(|f| manager.state_dir().join(f));
    for file in &files {
        let bytes = std::fs::read(file).expect("a key file");
        assert!(bytes.len() != 32 && !String::from_utf8_lossy(&bytes).contains("PRIVATE"), "{}", file.display());
    }
    unlock(manager, &first);
    assert_eq!(wait_answers(manager)[0]["Spec"]["Name"], "web");
    assert_eq!(key(manager), first);

    set(manager, true, true).expect("the key is rotated");
    let second = key(manager);
    assert_ne!(second, first);
    restart(manager);
    assert!(manager.refused(401, "POST", "/swarm/unlock", Some(&body(&first))).contains("invalid key"));
    unlock(manager, &second);
    wait_answers(manager);
    set(manager, false, false).expect("autolock is switched off");
    assert_eq!(key(manager), "");
    restart(manager);
    assert!(!is_locked(manager));
    wait_answers(manager);
    assert!(![&first, &second].iter().any(|key| manager.log().contains(key.as_str())), "no key is in the log");

    // Who has lost the key can take the machine out of the swarm.
    set(manager, true, false).expect("autolock is switched on");
    key(manager);
    restart(manager);
    manager.call("POST", "/swarm/leave?force=1", None).expect("by force");
    assert_eq!(manager.swarm_info()["LocalNodeState"], "inactive");
    manager.call("POST", "/swarm/init", Some(&json!({ "AutoLockManagers": true }))).expect("a new cluster");
    let third = key(manager);
    restart(manager);
    assert!(is_locked(manager));
    unlock(manager, &third);
    wait_answers(manager);
}

#[test]
fn a_manager_that_missed_a_rotation_opens_with_the_key_it_knew_and_follows() {
    let mut cluster = start(3, 1);
    set(cluster.manager(), true, false).expect("autolock is switched on");
    let first = key(cluster.manager());
    // Asked there, each manager has wrapped its own keys before it answers.
    assert!(cluster.nodes[..3].iter().all(|manager| key(manager) == first));
    cluster.nodes[2].kill();
    until("the key is rotated", || set(&cluster.nodes[0], true, true));
    let second = key(&cluster.nodes[1]);
    cluster.nodes[2].start();
    assert!(cluster.nodes[2].refused(401, "POST", "/swarm/unlock", Some(&body(&second))).contains("invalid key"));
    unlock(&cluster.nodes[2], &first);
    until("it knows the new key", || match cluster.nodes[2].call("GET", "/swarm/unlockkey", None)? {
        view if view["UnlockKey"] == json!(second) => Ok(()),
        view => Err(format!("{}", view["UnlockKey"] == json!(first))),
    });
    assert_eq!(key(&cluster.nodes[2]), second);
    restart(&mut cluster.nodes[2]);
    assert!(cluster.nodes[2].refused(401, "POST", "/swarm/unlock", Some(&body(&first))).contains("invalid key"));
    unlock(&cluster.nodes[2], &second);
    wait_answers(&cluster.nodes[2]);
    // A worker is none of autolock's business.
    restart(&mut cluster.nodes[3]);
    assert!(!is_locked(&cluster.nodes[3]));
    cluster.wait_ready();
}

#[test]
fn whenever_it_is_killed_its_keys_open() {
    let mut cluster = Cluster::start("simulated", 1);
    let mut rng = Rng::new(500);
    let mut keys = Vec::new();
    let mut locked = 0;
    for round in 0..ROUNDS {
        let manager = &mut cluster.nodes[0];
        // On, another key, off.
        let (on, rotate) = [(true, false), (true, true), (false, false)][round as usize % 3];
        thread::scope(|scope| {
            let daemon = &*manager;
            let changer = scope.spawn(move || {
                // Whether these succeed is a matter of chance.
                let _ = set(daemon, on, rotate && !key_or_none(daemon).is_empty());
                key_or_none(daemon)
            });
            crate::wait::pass(rng.time_below(KILL_MS_MAX));
            daemon.signal(rustix::process::Signal::KILL);
            keys.extend(changer.join().ok().filter(|key| !key.is_empty()));
        });
        restart(manager);
        if is_locked(manager) {
            locked += 1;
            let opens = |key: &String| manager.call("POST", "/swarm/unlock", Some(&body(key))).is_ok();
            assert!(keys.iter().rev().any(opens), "round {round}: no key that anybody was told opens it");
        }
        wait_answers(manager);
        keys.push(key(manager));
    }
    eprintln!("locked after {locked} of {ROUNDS} kills");
}

/// The key, as far as there is an answer.
fn key_or_none(at: &Daemon) -> String {
    let view = at.call("GET", "/swarm/unlockkey", None).unwrap_or_default();
    view["UnlockKey"].as_str().unwrap_or_default().to_owned()
}
