//! The life of a log: founded, used, closed, opened again.

use std::{os::unix::fs::PermissionsExt, sync::Arc};

use swarm_core::{ENTRY_TXS_MAX, Event, Tx};
use swarm_model::NodeId;
use swarm_wire::UnlockKey;

use super::{Watcher, admit, create, key, large, open, options, wait_for_role, wait_until, write_entries};
use crate::{
    Consensus, ENTRY_BYTES_MAX, KeyFile, LOG_KEEP_ENTRIES, Member, Options, ProposeError, Role, SealKey, Timers,
};

fn numbers(consensus: &Consensus) -> Vec<u128> {
    consensus.state().nodes().map(|node| node.id.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_serves_the_last_acknowledged_state() {
    let folder = tempfile::tempdir().unwrap();
    let consensus = create(folder.path()).await;
    let mut term = 0;
    let mut last = 0;
    for round in 0..3 {
        last = consensus_round(folder.path(), round, (round == 0).then(|| consensus.clone()), &mut term, last).await;
    }
}

async fn consensus_round(
    folder: &std::path::Path,
    round: u128,
    consensus: Option<Consensus>,
    term: &mut u64,
    last: u64,
) -> u64 {
    let consensus = match consensus {
        Some(consensus) => consensus,
        None => open(folder).await,
    };
    let state = consensus.read_barrier().await.unwrap();
    assert_eq!(state.revision(), last);
    assert_eq!(numbers(&consensus), (0..round * 10).collect::<Vec<_>>());
    let Role::Leader { term: now } = wait_for_role(&consensus, |role| matches!(role, Role::Leader { .. })).await else {
        unreachable!()
    };
    assert!(now > *term, "a restarted leader is elected anew");
    *term = now;
    let mut last = 0;
    for number in round * 10..(round + 1) * 10 {
        let committed = consensus.propose(admit(number)).await.unwrap();
        assert_eq!(committed.outcomes, [Ok(())]);
        assert_eq!(consensus.state().revision(), committed.index, "a write is visible when it returns");
        last = committed.index;
    }
    consensus.shutdown().await;
    let reason = |role: &Role| matches!(role, Role::Stopped { reason } if reason.contains("shut down"));
    wait_for_role(&consensus, reason).await;
    assert!(matches!(consensus.propose(admit(0)).await, Err(ProposeError::Stopped(_))));
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_takes_the_place_of_the_log() {
    const ENTRIES: u64 = 2 * LOG_KEEP_ENTRIES;
    let folder = tempfile::tempdir().unwrap();
    let consensus = create(folder.path()).await;
    write_entries(&consensus, ENTRIES).await;
    consensus.snapshot().await.unwrap();
    let snapshot = consensus.status().snapshot_index.unwrap();
    assert_eq!(Some(snapshot), consensus.status().applied_index);
    wait_until(|| consensus.status().purged_index == Some(snapshot - LOG_KEEP_ENTRIES)).await;
    consensus.propose(admit(ENTRIES.into())).await.unwrap();
    let state = consensus.state();
    consensus.shutdown().await;

    let watcher = Watcher::new();
    let consensus = Consensus::open(options(folder.path()), watcher.clone()).await.unwrap();
    assert_eq!(watcher.seen().restored, [snapshot]);
    let read = consensus.read_barrier().await.unwrap();
    assert_eq!(read.revision(), state.revision());
    assert_eq!(read.time(), state.time());
    assert_eq!(numbers(&consensus), (0..=u128::from(ENTRIES)).collect::<Vec<_>>());
    assert_eq!(consensus.status().snapshot_index, Some(snapshot));
    assert_eq!(consensus.status().purged_index, Some(snapshot - LOG_KEEP_ENTRIES));
    assert_eq!(watcher.seen().applied, [state.revision()], "only what the snapshot does not have is applied again");
    // A second snapshot of the same state finds nothing to do; the folder keeps one.
    consensus.snapshot().await.unwrap();
    consensus.snapshot().await.unwrap();
    wait_until(|| !folder.path().join("raft/snapshot.new").exists()).await;
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_taken_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { snapshot_interval: 50, ..options(folder.path()) };
    let consensus = Consensus::create(options, Watcher::new()).await.unwrap();
    for number in 0..60 {
        consensus.propose(admit(number)).await.unwrap();
    }
    wait_until(|| consensus.status().snapshot_index.is_some()).await;
    consensus.shutdown().await;
    let consensus = open(folder.path()).await;
    consensus.read_barrier().await.unwrap();
    assert_eq!(numbers(&consensus), (0..60).collect::<Vec<_>>());
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_large_entries_are_worth_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let consensus = create(folder.path()).await;
    for _ in 0..17 {
        consensus.propose(large(ENTRY_BYTES_MAX - 1000)).await.unwrap();
    }
    wait_until(|| consensus.status().snapshot_index.is_some()).await;
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_observer_sees_every_entry_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let watcher = Watcher::new();
    let consensus = Consensus::create(options(folder.path()), watcher.clone()).await.unwrap();
    let proposals: Vec<_> = (0..50)
        .map(|number| {
            let consensus = consensus.clone();
            tokio::spawn(async move { consensus.propose(admit(number)).await.unwrap().index })
        })
        .collect();
    let mut indexes = Vec::new();
    for proposal in proposals {
        indexes.push(proposal.await.unwrap());
    }
    indexes.sort_unstable();
    indexes.dedup();
    let seen = watcher.seen();
    assert_eq!(seen.restored, [0]);
    assert_eq!(seen.applied, indexes);
    let mut nodes: Vec<_> = seen.events;
    nodes.retain(|event| matches!(event, Event::Node(_)));
    nodes.sort_unstable();
    assert_eq!(nodes, (0..50).map(|number| Event::Node(NodeId(number))).collect::<Vec<_>>());
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_it_happens() {
    let folder = tempfile::tempdir().unwrap();
    let consensus = create(folder.path()).await;
    let error = consensus.propose(large(ENTRY_BYTES_MAX)).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooLarge { limit: ENTRY_BYTES_MAX, .. }), "{error}");
    let error = consensus.propose(vec![Tx::default(); ENTRY_TXS_MAX + 1]).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooMany { limit: ENTRY_TXS_MAX, .. }), "{error}");
    assert_eq!(consensus.read_barrier().await.unwrap().revision(), 0);
    // The largest ones that are possible, more of them than stay in memory.
    for _ in 0..6 {
        consensus.propose(large(ENTRY_BYTES_MAX - 1024)).await.unwrap();
    }
    consensus.shutdown().await;
    let consensus = open(folder.path()).await;
    assert_eq!(consensus.read_barrier().await.unwrap().nodes().count(), 1);
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_the_managers() {
    let folder = tempfile::tempdir().unwrap();
    let consensus = create(folder.path()).await;
    consensus.read_barrier().await.unwrap();
    let status = consensus.status();
    let member = Member {
        raft_id: 1,
        addr: "127.0.0.1:2377".into(),
        voter: true,
        matched_index: status.last_log_index,
        matched_leader: None,
        last_contact_ms: Some(0),
    };
    assert_eq!(status.members, [member]);
    assert!(status.leads() && status.term >= 1 && status.last_log_index >= Some(1));
    consensus.shutdown().await;
}

#[tokio::test]
async fn senseless_options_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let timers = Timers { heartbeat_ms: 500, ..Timers::default() };
    for options in
        [Options { snapshot_interval: 0, ..options(folder.path()) }, Options { timers, ..options(folder.path()) }]
    {
        let dir = options.dir.clone();
        assert!(Consensus::create(options, Watcher::new()).await.is_err());
        assert!(!dir.exists(), "nothing is left behind");
    }
}

#[test]
fn the_key_file_is_made_once_and_only_for_us() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raft.key");
    let made = SealKey::load_or_create(&path).unwrap();
    let loaded = SealKey::load_or_create(&path).unwrap();
    assert_eq!(made.bytes(), loaded.bytes());
    assert_ne!(made.bytes(), key().bytes());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "no temporary file is left");
    assert_eq!(format!("{made:?}"), "SealKey(hidden)");

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(SealKey::load_or_create(&path).unwrap().bytes(), made.bytes());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for (bytes, word) in [(vec![0; 31], "shorter"), (vec![0; 33], "longer")] {
        std::fs::write(&path, bytes).unwrap();
        let error = SealKey::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("raft.key") && error.contains(word), "{error}");
    }
}

#[test]
fn a_wrapped_key_opens_with_the_key_that_wrapped_it_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raft.key");
    assert!(SealKey::read(&path).unwrap().is_none());
    let made = SealKey::load_or_create(&path).unwrap();
    let unlock: Vec<_> = (0..2).map(|_| UnlockKey::generate().unwrap()).collect();
    for (now, before) in [(0, 1), (1, 0)] {
        made.write(&path, Some(&unlock[now])).unwrap();
        let Some(KeyFile::Wrapped(wrapped)) = SealKey::read(&path).unwrap() else { panic!("it is wrapped") };
        assert_eq!(wrapped.open(&unlock[now]).unwrap().bytes(), made.bytes());
        assert!(wrapped.open(&unlock[before]).is_none());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let error = SealKey::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("swarm unlock"), "{error}");
    }
    made.write(&path, None).unwrap();
    assert_eq!(SealKey::load_or_create(&path).unwrap().bytes(), made.bytes());
}

#[test]
fn threads_that_race_for_the_key_get_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = Arc::new(folder.path().join("raft.key"));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let path = Arc::clone(&path);
            std::thread::spawn(move || *SealKey::load_or_create(&path).unwrap().bytes())
        })
        .collect();
    let keys: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]));
}
