//! The state machine stops rather than diverge.

use std::sync::Arc;

use futures_util::stream;
use openraft::{EntryPayload, storage::RaftStateMachine};
use swarm_core::{ENTRY_VERSION, Entry, Event, State};
use swarm_model::Timestamp;

use super::{Watcher, admit, key};
use crate::{
    Observer,
    disk::memory::MemoryDisk,
    machine::Machine,
    seal::Seal,
    snapshot::Snapshots,
    types::{Command, LeaderId, LogEntry, LogId},
    writer::Fault,
};

fn machine(observer: Arc<dyn Observer>) -> (Machine, Fault) {
    let fault = Fault::default();
    let snapshots = Snapshots::new(Arc::new(MemoryDisk::default()), Seal::new(&key(), [1; 16]));
    (Machine::open(snapshots, ENTRY_VERSION, observer, fault.clone()).unwrap(), fault)
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
        fn applied(&self, _: &State, _: &[Event]) {
            panic!("dropped it");
        }
        fn restored(&self, _: &State) {}
    }
    let (mut machine, _) = machine(Arc::new(Clumsy));
    let error = apply(&mut machine, 1, ENTRY_VERSION).await.unwrap_err();
    assert!(error.contains("dropped it"), "{error}");
}
