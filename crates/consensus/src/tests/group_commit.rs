//! Proposals share transactions, and a failed one is the end.

use std::{
    io::{self, Read},
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use super::{PATIENCE, Watcher, admit, key, large, options, wait_for_role, wait_until};
use crate::{
    Consensus, ENTRY_BYTES_MAX, IN_FLIGHT_BYTES_MAX, ProposeError, Role,
    disk::{Change, Disk, FileWriter, Name, RowVisitor, WITNESS_SLOTS, memory::MemoryDisk},
    gather::ENTRIES_UNDER_WAY_MAX,
    load::first_values,
    message::{Answer, Appended, Hello, RAFT_PROTOCOL, Request},
    options::config,
    types::{Command, LeaderId, LogEntry, LogId, Vote},
};
use openraft::{EntryPayload, raft::AppendEntriesRequest};
use swarm_core::{ENTRY_VERSION, Entry};
use swarm_model::Timestamp;
use swarm_wire::channel;
use tokio::{io::duplex, task::JoinSet, time::timeout};

/// A disk whose commits are counted, can be held up, and can fail.
#[derive(Default)]
struct Gate {
    disk: MemoryDisk,
    state: Mutex<GateState>,
    opened: Condvar,
}

#[derive(Default)]
struct GateState {
    commits: usize,
    rows: usize,
    closed: bool,
    waiting: bool,
    broken: bool,
    broken_snapshots: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap()
    }

    /// Transactions and rows so far.
    fn written(&self) -> (usize, usize) {
        let state = self.state();
        (state.commits, state.rows)
    }
}

impl Disk for Gate {
    fn log_file(&self) -> String {
        "gated log".into()
    }
    fn witness_file(&self) -> String {
        "gated witness".into()
    }
    fn witness(&self) -> io::Result<Option<[Vec<u8>; WITNESS_SLOTS]>> {
        self.disk.witness()
    }
    fn write_witness(&self, slot: usize, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_witness(slot, bytes)
    }
    fn snapshot_file(&self) -> String {
        "gated snapshot".into()
    }
    fn value(&self, name: Name) -> io::Result<Option<Vec<u8>>> {
        self.disk.value(name)
    }
    fn rows(&self, range: Range<u64>, visit: &mut RowVisitor<'_>) -> io::Result<()> {
        self.disk.rows(range, visit)
    }
    fn commit(&self, changes: &[Change]) -> io::Result<()> {
        let mut state = self.state();
        while state.closed {
            state.waiting = true;
            state = self.opened.wait(state).unwrap();
        }
        state.waiting = false;
        if state.broken {
            return Err(io::Error::other("no space left on the test's disk"));
        }
        state.commits += 1;
        state.rows += changes.iter().filter(|change| matches!(change, Change::Row { .. })).count();
        self.disk.commit(changes)
    }
    fn write_snapshot(&self, write: &mut FileWriter<'_>) -> io::Result<()> {
        if self.state().broken_snapshots {
            return Err(io::Error::other("no space left on the test's disk"));
        }
        self.disk.write_snapshot(write)
    }
    fn read_snapshot(&self) -> io::Result<Option<Box<dyn Read + Send>>> {
        self.disk.read_snapshot()
    }
    fn close(&self) {}
}

async fn start() -> (Arc<Gate>, Consensus) {
    let gate = Arc::new(Gate::default());
    gate.disk.commit(&first_values(&key(), 1, true).unwrap()).unwrap();
    let options = options("/nowhere".as_ref());
    let config = config(&options).unwrap();
    let consensus = Consensus::start(options, config, gate.clone(), Watcher::new()).await.unwrap();
    wait_for_role(&consensus, |role| matches!(role, Role::Leader { .. })).await;
    (gate, consensus)
}

/// While the first entries are held up on the way to the disk, all others wait for one.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_proposals_share_entries_and_transactions() {
    const PROPOSALS: u64 = 64;
    let (gate, consensus) = start().await;
    let before = gate.written();
    gate.state().closed = true;
    let last = consensus.status().last_log_index.unwrap();
    let mut proposals: JoinSet<u64> = JoinSet::new();
    let mut propose = |number: u64| {
        let consensus = consensus.clone();
        proposals.spawn(async move { consensus.propose(admit(number.into())).await.unwrap().index });
    };
    for number in 0..ENTRIES_UNDER_WAY_MAX as u64 {
        propose(number);
        // In the log, not durable: the first transaction is held up.
        wait_until(|| consensus.status().last_log_index == Some(last + number + 1) && gate.state().waiting).await;
    }
    (ENTRIES_UNDER_WAY_MAX as u64..PROPOSALS).for_each(propose);
    wait_until(|| consensus.gathering().len() == PROPOSALS as usize - ENTRIES_UNDER_WAY_MAX).await;
    assert_eq!(consensus.state().nodes().count(), 0, "nothing is applied before it is durable");
    gate.state().closed = false;
    gate.opened.notify_all();
    let mut indexes = timeout(PATIENCE, proposals.join_all()).await.unwrap();
    indexes.sort_unstable();
    indexes.dedup();
    let entries = ENTRIES_UNDER_WAY_MAX as u64 + 1;
    assert_eq!(indexes, (last + 1..=last + entries).collect::<Vec<_>>());
    assert_eq!(consensus.state().nodes().count() as u64, PROPOSALS);
    let after = gate.written();
    assert_eq!(after.1 - before.1, entries as usize);
    assert!(after.0 - before.0 <= entries as usize, "{} transactions for {entries} entries", after.0 - before.0);
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_proposals_wait_for_their_turn() {
    const FIT: usize = IN_FLIGHT_BYTES_MAX / ENTRY_BYTES_MAX;
    const WAITING: usize = FIT - ENTRIES_UNDER_WAY_MAX;
    let (gate, consensus) = start().await;
    gate.state().closed = true;
    let last = consensus.status().last_log_index.unwrap();
    let proposals: Vec<_> = (0..FIT + 4)
        .map(|_| {
            let consensus = consensus.clone();
            tokio::spawn(async move { consensus.propose(large(ENTRY_BYTES_MAX - 1000)).await.unwrap() })
        })
        .collect();
    wait_until(|| consensus.gathering().len() == WAITING && gate.state().waiting).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        assert_eq!(consensus.gathering().len(), WAITING, "the others take no memory yet");
    }
    assert_eq!(consensus.status().last_log_index, Some(last + ENTRIES_UNDER_WAY_MAX as u64));
    gate.state().closed = false;
    gate.opened.notify_all();
    for proposal in proposals {
        timeout(PATIENCE, proposal).await.unwrap().unwrap();
    }
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commit_hint_costs_no_transaction() {
    let (gate, consensus) = start().await;
    let before = gate.state().commits;
    for number in 0..20 {
        consensus.propose(admit(number)).await.unwrap();
    }
    assert_eq!(gate.state().commits - before, 20);
    assert!(gate.disk.value(Name::Committed).unwrap().is_some());
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transaction_stops_the_manager() {
    let (gate, consensus) = start().await;
    consensus.propose(admit(1)).await.unwrap();
    gate.state().broken = true;
    let error = consensus.propose(admit(2)).await.unwrap_err();
    let ProposeError::Stopped(reason) = &error else { panic!("{error}") };
    assert!(reason.contains("gated log") && reason.contains("no space left"), "{reason}");
    let Role::Stopped { reason } = wait_for_role(&consensus, |role| matches!(role, Role::Stopped { .. })).await else {
        unreachable!()
    };
    assert!(reason.contains("no space left"), "{reason}");
    // The disk has room again, but what it holds is unknown: nothing more is written, nothing was applied.
    let commits = gate.state().commits;
    gate.state().broken = false;
    assert!(matches!(consensus.propose(admit(3)).await, Err(ProposeError::Stopped(_))));
    assert!(matches!(consensus.read_barrier().await, Err(ProposeError::Stopped(_))));
    assert_eq!(gate.state().commits, commits);
    assert_eq!(consensus.state().nodes().count(), 1);
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_snapshot_does_not_stop_the_manager() {
    let (gate, consensus) = start().await;
    consensus.propose(admit(1)).await.unwrap();
    gate.state().broken_snapshots = true;
    let error = consensus.snapshot().await.unwrap_err().to_string();
    assert!(error.contains("gated snapshot") && error.contains("no space left"), "{error}");
    consensus.propose(admit(2)).await.unwrap();
    gate.state().broken_snapshots = false;
    consensus.snapshot().await.unwrap();
    assert_eq!(consensus.status().snapshot_index, consensus.status().applied_index);
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_takes_entries_while_earlier_ones_are_written() {
    const REQUESTS: u64 = 4;
    let gate = Arc::new(Gate::default());
    gate.disk.commit(&first_values(&key(), 1, false).unwrap()).unwrap();
    let options = options("/nowhere".as_ref());
    let config = config(&options).unwrap();
    let follower = Consensus::start(options, config, gate.clone(), Watcher::new()).await.unwrap();

    let (here, there) = duplex(1 << 16);
    let served = follower.clone();
    tokio::spawn(async move { served.serve(Box::new(there), "here", Arc::new(|| Ok(()))).await });
    let (mut sender, mut receiver) = channel::<_, Request, Answer>(here);
    sender.send(&Request::Hello(Hello { protocol: RAFT_PROTOCOL, to: 1, by: None, from: None })).await.unwrap();
    let leader_id = LeaderId { term: 5, node_id: 2 };
    let request = |index: u64| {
        let command = Command::encode(Entry { v: ENTRY_VERSION, at: Timestamp(1), txs: admit(index.into()) }).unwrap();
        let entry = LogEntry { log_id: LogId { leader_id, index }, payload: EntryPayload::Normal(command) };
        let prev_log_id = index.checked_sub(1).map(|index| LogId { leader_id, index });
        let vote = Vote { leader_id, committed: true };
        Request::append(&AppendEntriesRequest { vote, prev_log_id, entries: vec![entry], leader_commit: None }).unwrap()
    };
    // The vote has to be on the disk before any entry.
    sender.send_to(1, &request(0)).await.unwrap();
    assert!(matches!(receiver.recv_from().await.unwrap(), Some((1, Answer::Appended(_)))));

    gate.state().closed = true;
    for index in 1..=REQUESTS {
        sender.send_to(index as u32 + 1, &request(index)).await.unwrap();
    }
    wait_until(|| follower.status().last_log_index == Some(REQUESTS)).await;
    gate.state().closed = false;
    gate.opened.notify_all();
    // Answered in their order.
    for index in 1..=REQUESTS {
        let (correlation, answer) = receiver.recv_from().await.unwrap().unwrap();
        assert_eq!((u64::from(correlation), answer), (index + 1, Answer::Appended(Appended::All)));
    }
    follower.shutdown().await;
}
