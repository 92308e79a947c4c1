//! Tests of the whole crate, and what they share.

mod backup;
mod cluster;
mod conformance;
mod damage;
mod decoding;
mod gather;
mod group_commit;
mod level;
mod life;
mod machine;
mod power_cut;
mod random_damage;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use swarm_core::{ENTRY_VERSION, Event, Op, State, Tx};
use swarm_model::{Availability, NodeId, NodeRole, Timestamp};
use tokio::time::timeout;

use crate::{Consensus, Observer, Options, Role, SealKey, Timers, Unconnected};

/// Long enough for any machine; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn key() -> SealKey {
    SealKey::from_bytes([7; 32])
}

static RUNS: AtomicU64 = AtomicU64::new(1);

fn options(dir: &Path) -> Options {
    Options {
        dir: dir.join("raft"),
        raft_id: 1,
        addr: "127.0.0.1:2377".into(),
        key: key(),
        snapshot_interval: 100_000,
        timers: Timers::default(),
        feature_level: ENTRY_VERSION,
        // Each start has another one.
        run: RUNS.fetch_add(1, Ordering::Relaxed),
        dialer: Arc::new(Unconnected),
    }
}

/// A change that can be seen in the state: a node with this number.
fn admit(number: u128) -> Vec<Tx> {
    admit_at(number, None)
}

/// So many entries: proposals made at the same time would share them.
async fn write_entries(consensus: &Consensus, count: u64) {
    for number in 0..count {
        consensus.propose(admit(number.into())).await.unwrap();
    }
}

/// A change with a little more than so many bytes.
fn large(bytes: usize) -> Vec<Tx> {
    admit_at(1, Some("x".repeat(bytes)))
}

fn admit_at(number: u128, manager_addr: Option<String>) -> Vec<Tx> {
    vec![Tx::new(vec![Op::AdmitNode {
        node: NodeId(number),
        role: NodeRole::Worker,
        cert_expires_at: Timestamp::ZERO,
        manager_addr,
        availability: Availability::Active,
    }])]
}

/// Remembers what it was told.
#[derive(Debug, Default)]
struct Watcher(Mutex<Seen>);

#[derive(Clone, Debug, Default)]
struct Seen {
    restored: Vec<u64>,
    applied: Vec<u64>,
    events: Vec<Event>,
}

impl Watcher {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    fn seen(&self) -> Seen {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Watcher {
    fn applied(&self, state: &Arc<State>, events: &[Event]) {
        let mut seen = self.0.lock().unwrap();
        seen.applied.push(state.revision());
        seen.events.extend_from_slice(events);
    }

    fn restored(&self, state: &Arc<State>) {
        self.0.lock().unwrap().restored.push(state.revision());
    }
}

async fn create(dir: &Path) -> Consensus {
    Consensus::create(options(dir), Watcher::new()).await.unwrap()
}

async fn open(dir: &Path) -> Consensus {
    Consensus::open(options(dir), Watcher::new()).await.unwrap()
}

async fn refused(dir: &Path) -> String {
    match Consensus::open(options(dir), Watcher::new()).await {
        Ok(_) => panic!("the log was opened"),
        Err(error) => error.to_string(),
    }
}

async fn wait_for_role(consensus: &Consensus, wanted: impl FnMut(&Role) -> bool) -> Role {
    let mut role = consensus.role();
    let role = timeout(PATIENCE, role.wait_for(wanted)).await.expect("the role comes").expect("the role is watched");
    role.clone()
}

async fn wait_until(mut condition: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the condition comes true");
}
