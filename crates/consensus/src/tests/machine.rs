//! The state machine stops rather than diverge.

use std::sync::{Arc, atomic::Ordering};

use futures_util::stream;
use openraft::{
    EntryPayload,
    storage::{RaftSnapshotBuilder, RaftStateMachine},
};
use swarm_core::{ENTRY_VERSION, Entry, Event, State};
use swarm_model::Timestamp;

use super::{Watcher, admit, key};
use crate::{
    Observer,
    disk::memory::MemoryDisk,
    history::{History, Past},
    machine::Machine,
    seal::Seal,
    snapshot::{Content, Snapshots},
    types::{Command, LeaderId, LogEntry, LogId, SnapshotMeta},
    writer::Fault,
};

fn machine(observer: Arc<dyn Observer>) -> (Machine, Fault) {
    machine_on(Arc::default(), observer)
}

fn machine_on(disk: Arc<MemoryDisk>, observer: Arc<dyn Observer>) -> (Machine, Fault) {
    let fault = Fault::default();
    let snapshots = Snapshots::new(disk, Seal::new(&key(), [1; 16]), ENTRY_VERSION);
    (Machine::open(snapshots, 1, ENTRY_VERSION, History::default(), observer, fault.clone()).unwrap(), fault)
}

async fn apply(machine: &mut Machine, index: u64, v: u16) -> Result<(), String> {
    let command = Command::encode(Entry { v, at: Timestamp(5), txs: admit(index.into()) }).unwrap();
    let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
    let entry = LogEntry { log_id, payload: EntryPayload::Normal(command) };
    machine.apply(stream::iter([Ok((entry, None))])).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_entry_of_another_version_stops_it() {
    let (mut machine, fault) = machine(Watcher::new());
    apply(&mut machine, 1, ENTRY_VERSION).await.unwrap();
    let error = apply(&mut machine, 2, ENTRY_VERSION + 1).await.unwrap_err();
    assert!(error.contains("log entry 2") && error.contains("upgrade"), "{error}");
    assert_eq!(fault.get(), Some(error));
    assert_eq!(machine.published().load().revision(), 1);
    assert_eq!(machine.applied().unwrap().index, 1);
}

#[tokio::test]
async fn a_broken_invariant_stops_it() {
    let watcher = Watcher::new();
    let (mut machine, fault) = machine(watcher.clone());
    apply(&mut machine, 2, ENTRY_VERSION).await.unwrap();
    let error = apply(&mut machine, 2, ENTRY_VERSION).await.unwrap_err();
    assert!(error.contains("log entry 2") && error.contains("an invariant is broken"), "{error}");
    assert_eq!(fault.get(), Some(error));
    assert_eq!(watcher.seen().applied, [2], "nothing of it is published");
}

#[tokio::test]
async fn a_panic_of_the_observer_stops_it() {
    struct Clumsy;
    impl Observer for Clumsy {
        fn applied(&self, _: &Arc<State>, _: &[Event]) {
            panic!("dropped it");
        }
        fn restored(&self, _: &Arc<State>) {}
    }
    let (mut machine, _) = machine(Arc::new(Clumsy));
    let error = apply(&mut machine, 1, ENTRY_VERSION).await.unwrap_err();
    assert!(error.contains("dropped it"), "{error}");
}

#[tokio::test]
async fn a_full_disk_puts_its_own_snapshots_off() {
    let disk = Arc::new(MemoryDisk::default());
    let (mut machine, fault) = machine_on(Arc::clone(&disk), Watcher::new());
    let mut covered = Vec::new();
    for (index, full) in [(1, true), (2, false), (3, true), (4, false)] {
        apply(&mut machine, index, ENTRY_VERSION).await.unwrap();
        disk.full.store(full, Ordering::Relaxed);
        let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        covered.push(snapshot.meta.last_log_id.map(|last| last.index));
    }
    assert_eq!(covered, [None, Some(2), Some(2), Some(4)], "what a snapshot says it covers, the disk has");
    assert_eq!(fault.get(), None);
}

#[tokio::test]
async fn a_full_disk_stops_it_when_the_leader_sends_a_snapshot() {
    let disk = Arc::new(MemoryDisk::default());
    disk.full.store(true, Ordering::Relaxed);
    let watcher = Watcher::new();
    let (mut machine, fault) = machine_on(Arc::clone(&disk), watcher.clone());
    let (mut leader, _) = self::machine(Watcher::new());
    apply(&mut leader, 7, ENTRY_VERSION).await.unwrap();
    let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let sent = || {
        let objects: Vec<_> = leader.published().load().export().collect();
        Content { past: Past::default(), objects: Box::new(objects.into_iter().map(Ok)), store: None }
    };
    let meta: SnapshotMeta = snapshot.meta;
    let error = machine.install_snapshot(&meta, sent()).await.unwrap_err().to_string();
    assert!(error.contains("the leader's snapshot cannot be stored") && error.contains("make room"), "{error}");
    assert_eq!(fault.get(), Some(error));
    assert_eq!((machine.applied(), watcher.seen().restored), (None, vec![0]), "it has nothing of it");
    disk.full.store(false, Ordering::Relaxed);
    let (mut again, fault) = machine_on(disk, watcher.clone());
    again.install_snapshot(&meta, sent()).await.unwrap();
    assert_eq!((again.applied().unwrap().index, fault.get()), (7, None));
    assert_eq!(watcher.seen().restored, [0, 0, 7]);
}
