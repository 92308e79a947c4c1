//! The manager is killed at random moments while clients write.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use rustix::process::Signal;

use crate::{
    cluster::{Cluster, Written, scale, service, write},
    daemon::Daemon,
    wait::{Rng, pass, until},
};

const ROUNDS: u64 = 15;
/// Clients that write at once, so that a kill meets writes at all their stages.
const CLIENTS: u64 = 4;
/// Most writes of a client between two kills: a fast machine must not pile up work for a slow end.
const WRITES_MAX: usize = 12;
/// Longest time from the first acknowledged write to the kill.
const KILL_MS_MAX: u64 = 250;
/// Longest time from a start to a kill while starting.
const START_KILL_MS_MAX: u64 = 60;

/// A client, and what it knows of its services: the number of replicas, or none for one that was removed. There are
/// several possibilities where an answer is missing.
pub struct Client {
    number: u64,
    rng: Rng,
    created: u64,
    known: BTreeMap<String, Vec<Option<u64>>>,
}

impl Client {
    pub fn new(number: u64) -> Self {
        Self { number, rng: Rng::new(number), created: 0, known: BTreeMap::new() }
    }

    /// Writes until there is no answer, or enough is written. Counts what is acknowledged.
    pub fn write(&mut self, manager: &Daemon, acknowledged: &AtomicU64) {
        for _ in 0..WRITES_MAX {
            let live: Vec<_> = self.known.iter().filter_map(|(name, is)| is[0].is_some().then_some(name)).collect();
            let choice = self.rng.below(10);
            let replicas = self.rng.below(4);
            let (name, wanted, written) = if live.is_empty() || choice < 4 {
                self.created += 1;
                let name = format!("c{}-s{}", self.number, self.created);
                let spec = service(&name, replicas);
                (name, Some(replicas), write(manager, "POST", "/services/create", Some(&spec)))
            } else {
                let name = live[self.rng.below(live.len() as u64) as usize].clone();
                if choice < 8 {
                    let written = scale(manager, &name, replicas);
                    (name, Some(replicas), written)
                } else {
                    let written = write(manager, "DELETE", &format!("/services/{name}"), None);
                    (name, None, written)
                }
            };
            match written {
                Written::Yes => {
                    self.known.insert(name, vec![wanted]);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Written::Unknown => {
                    self.known.entry(name).or_insert_with(|| vec![None]).push(wanted);
                    return;
                }
                Written::No(why) => panic!("{name}: {why}"),
            }
        }
    }

    /// Compares with what there is, and learns what became of the write without an answer.
    pub fn compare(&mut self, services: &BTreeMap<String, u64>) {
        for (name, possible) in &mut self.known {
            let is = services.get(name).copied();
            assert!(possible.contains(&is), "{name} has {is:?} replicas; acknowledged was one of {possible:?}");
            *possible = vec![is];
        }
        let prefix = format!("c{}-", self.number);
        let unknown = services.keys().find(|name| name.starts_with(&prefix) && !self.known.contains_key(*name));
        assert_eq!(unknown, None, "nobody asked for it");
    }
}

/// Names and replicas of all services.
pub fn services(manager: &Daemon) -> Result<BTreeMap<String, u64>, String> {
    let list = manager.call("GET", "/services", None)?;
    let replicas = |spec: &serde_json::Value| spec["Mode"]["Replicated"]["Replicas"].as_u64().expect("a number");
    let name = |spec: &serde_json::Value| spec["Name"].as_str().expect("a name").to_owned();
    Ok(list.as_array().ok_or("no list")?.iter().map(|s| (name(&s["Spec"]), replicas(&s["Spec"]))).collect())
}

#[test]
fn acknowledged_writes_outlive_the_kills_of_a_manager() {
    let mut cluster = Cluster::start("simulated", 2);
    let mut rng = Rng::new(100);
    let mut clients: Vec<_> = (1..=CLIENTS).map(Client::new).collect();
    for round in 0..ROUNDS {
        let manager = cluster.manager();
        let acknowledged = AtomicU64::new(0);
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| client.write(manager, &acknowledged));
            }
            let begun = || (acknowledged.load(Ordering::Relaxed) > 0).then_some(()).ok_or("none yet".to_owned());
            until("a write is acknowledged", begun);
            pass(rng.time_below(KILL_MS_MAX));
            manager.signal(Signal::KILL);
        });
        let manager = &mut cluster.nodes[0];
        manager.kill();
        if round % 3 == 2 {
            manager.spawn();
            pass(rng.time_below(START_KILL_MS_MAX));
            manager.kill();
        }
        manager.start();
        let there = until("the services can be listed", || services(manager));
        for client in &mut clients {
            client.compare(&there);
        }
    }
    let there = services(cluster.manager()).expect("a list");
    let acknowledged = clients.iter().flat_map(|c| c.known.values()).filter(|is| is[0].is_some()).count();
    assert_eq!(there.len(), acknowledged);
    cluster.wait_ready();
    cluster.wait_settled(&there);
}
