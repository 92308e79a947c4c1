//! Power cuts: all managers killed at once, and a manager killed while it writes a snapshot. What was acknowledged is
//! there afterwards. `SWARM_TEST_KILLS` says how often, for a longer run.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    crash::{Client, services},
    managers::{Written, create, names, start, wait_managers},
    wait::{Rng, pass, until},
};

/// Kills of a run that is told nothing.
const KILLS_DEFAULT: u64 = 4;
/// Entries between two snapshots: one is written nearly always.
const SNAPSHOT_INTERVAL: u64 = 3;
/// Longest time from the first acknowledged write to the kill.
const KILL_MS_MAX: u64 = 150;
/// Clients that write at once.
const CLIENTS: u64 = 3;
/// Longest time from the moment that a snapshot is begun to the kill: about what writing a small one takes.
const SNAPSHOT_MS_MAX: u64 = 3;

fn kills() -> u64 {
    match std::env::var("SWARM_TEST_KILLS") {
        Ok(text) => text.parse().expect("SWARM_TEST_KILLS is a number"),
        Err(_) => KILLS_DEFAULT,
    }
}

/// Lets the managers take snapshots all the time.
fn take_snapshots_often(cluster: &Cluster) {
    until("the swarm takes snapshots often", || {
        let mut swarm = cluster.manager().call("GET", "/swarm", None)?;
        swarm["Spec"]["Raft"]["SnapshotInterval"] = json!(SNAPSHOT_INTERVAL);
        let target = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
        cluster.manager().call("POST", &target, Some(&swarm["Spec"])).map(drop)
    });
}

#[test]
fn all_managers_are_killed_at_once() {
    let mut cluster = start(3, 0);
    take_snapshots_often(&cluster);
    let all: Vec<String> = cluster.nodes.iter().map(|daemon| daemon.name.clone()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    wait_managers(&cluster, &all);
    let mut rng = Rng::new(300);
    let (acknowledged, unknown) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
    for round in 0..kills() {
        let (over, before) = (AtomicBool::new(false), acknowledged.lock().unwrap().len());
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (cluster, over) = (&cluster, &over);
                let (acknowledged, unknown) = (&acknowledged, &unknown);
                scope.spawn(move || {
                    for number in 0.. {
                        let name = format!("r{round}-c{client}-{number}");
                        match create(&cluster.nodes[client as usize], &name) {
                            Written::Yes => drop(acknowledged.lock().unwrap().insert(name)),
                            Written::Unknown => drop(unknown.lock().unwrap().insert(name)),
                            Written::No => {}
                        }
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            until("a write is acknowledged", || match acknowledged.lock().unwrap().len() {
                count if count > before => Ok(()),
                count => Err(count.to_string()),
            });
            pass(rng.time_below(KILL_MS_MAX));
            over.store(true, Ordering::Relaxed);
            for daemon in &cluster.nodes {
                daemon.signal(Signal::KILL);
            }
        });
        cluster.nodes.iter_mut().for_each(|daemon| daemon.kill());
        cluster.nodes.iter_mut().for_each(|daemon| daemon.spawn());
        wait_managers(&cluster, &all);
        let (acknowledged, unknown) = (acknowledged.lock().unwrap(), unknown.lock().unwrap());
        for (at, name) in all.iter().enumerate() {
            let there = until("the services can be listed", || names(&cluster, at));
            let lost: Vec<_> = acknowledged.difference(&there).collect();
            assert!(lost.is_empty(), "round {round}: acknowledged and not at {name}: {lost:?}");
            let known = |name: &&String| acknowledged.contains(*name) || unknown.contains(*name);
            let unasked: Vec<_> = there.iter().filter(|name| !known(name)).collect();
            assert!(unasked.is_empty(), "round {round}: nobody asked for {unasked:?}");
        }
    }
}

#[test]
fn a_manager_is_killed_while_it_writes_a_snapshot() {
    let mut cluster = Cluster::start("simulated", 1);
    take_snapshots_often(&cluster);
    let mut rng = Rng::new(301);
    let mut clients: Vec<_> = (1..=CLIENTS).map(Client::new).collect();
    let (rounds, mut halves) = (kills(), 0);
    for _ in 0..rounds {
        let manager = cluster.manager();
        let unfinished = manager.state_dir().join("manager/raft/snapshot.new");
        let acknowledged = AtomicU64::new(0);
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| client.write(manager, &acknowledged));
            }
            until("a write is acknowledged", || match acknowledged.load(Ordering::Relaxed) {
                0 => Err("none yet".to_owned()),
                _ => Ok(()),
            });
            // There for a moment only; who looks too rarely misses it, and kills at a random moment.
            for _ in 0..100_000 {
                if unfinished.exists() {
                    break;
                }
            }
            pass(rng.time_below(SNAPSHOT_MS_MAX));
            manager.signal(Signal::KILL);
        });
        halves += u64::from(unfinished.exists());
        let manager = &mut cluster.nodes[0];
        manager.kill();
        manager.start();
        let there = until("the services can be listed", || services(manager));
        for client in &mut clients {
            client.compare(&there);
        }
    }
    let status: Value = cluster.manager().get("/swarmd/managers");
    assert!(status["SnapshotIndex"].as_u64().is_some_and(|index| index > 0), "{status}");
    eprintln!("{halves} of {rounds} kills left half a snapshot");
}
