//! A backup comes back whole, or not at all.

use std::sync::OnceLock;

use proptest::prelude::*;
use swarm_core::{ENTRY_VERSION, Entry, Op, State, Tx};
use swarm_model::{Cluster, ClusterId, ClusterSpec, JoinTokens, Redacted, RootCa, Timestamp};

use super::{Watcher, admit, create, open, options, refused};
use crate::{
    Backup, BackupError, Consensus, Error, REVISION_GAP,
    types::{LeaderId, LogId},
};

fn passphrase() -> Redacted {
    Redacted::new("correct horse battery staple")
}

fn cluster() -> Tx {
    Tx::new(vec![Op::CreateCluster(
        Cluster {
            id: ClusterId(9),
            version: 0,
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            spec: ClusterSpec::default().into(),
            root_ca: RootCa {
                cert_pem: "root".into(),
                key_pem: Redacted::new("the key of the root"),
                key_id: "0c".into(),
            }
            .into(),
            join_tokens: JoinTokens { worker: Redacted::new("w"), manager: Redacted::new("m") }.into(),
            removed_nodes: Default::default(),
            former_roots: Default::default(),
            unlock_key: None,
            overlay: Default::default(),
            root_rotation: None,
        }
        .into(),
    )])
}

fn last() -> LogId {
    LogId { leader_id: LeaderId { term: 2, node_id: 1 }, index: 5 }
}

fn written(backup: &Backup) -> Vec<u8> {
    let mut bytes = Vec::new();
    backup.write(&mut bytes, &passphrase()).unwrap();
    bytes
}

/// A backup of one cluster with a node, made once: its key is costly.
fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let mut state = State::default();
        let txs = vec![cluster(), admit(1).remove(0)];
        swarm_core::apply(&mut state, 5, &Entry { v: ENTRY_VERSION, at: Timestamp(7), txs });
        written(&Backup { last: last(), state })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_comes_back_from_its_backup() {
    let old = tempfile::tempdir().unwrap();
    let consensus = create(old.path()).await;
    consensus.propose(vec![cluster()]).await.unwrap();
    consensus.propose(admit(1)).await.unwrap();
    let backup = consensus.backup().await.unwrap();
    let term = consensus.status().term;
    consensus.propose(admit(2)).await.unwrap();
    consensus.shutdown().await;
    let bytes = written(&backup);
    for part in [&b"the key of the root"[..], b"root"] {
        assert!(!bytes.windows(part.len()).any(|window| window == part), "nothing can be read in it");
    }

    let read = Backup::read(&bytes[..], &passphrase()).unwrap();
    assert_eq!(read.state().export().collect::<Vec<_>>(), backup.state().export().collect::<Vec<_>>());
    let next = read.successor(admit(3)).unwrap();
    assert!(next.state().revision() >= backup.state().revision() + REVISION_GAP);

    let new = tempfile::tempdir().unwrap();
    let restored = Consensus::restore(options(new.path()), next.clone(), Watcher::new()).await.unwrap();
    let state = restored.read_barrier().await.unwrap();
    assert_eq!(state.nodes().map(|node| node.id.0).collect::<Vec<_>>(), [1, 3], "what came after the backup is gone");
    assert_eq!(state.cluster().unwrap().root_ca.key_pem.expose(), "the key of the root");
    let status = restored.status();
    assert!(status.term > term + 1000, "no manager of the old swarm has a later term");
    assert_eq!(status.members.iter().map(|member| member.raft_id).collect::<Vec<_>>(), [1]);
    let written = restored.propose(admit(4)).await.unwrap();
    assert!(written.index > next.state().revision());
    restored.shutdown().await;

    // It is a log like any other.
    let again = open(new.path()).await;
    assert_eq!(again.read_barrier().await.unwrap().nodes().count(), 3);
    again.snapshot().await.unwrap();
    again.shutdown().await;
    open(new.path()).await.shutdown().await;
    let refusal = Consensus::restore(options(new.path()), next, Watcher::new()).await.err().unwrap();
    assert!(matches!(refusal, Error::Exists { .. }), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_restore_is_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let backup = Backup::read(sample(), &passphrase()).unwrap();
    Consensus::restore(options(folder.path()), backup, Watcher::new()).await.unwrap().shutdown().await;
    std::fs::remove_file(folder.path().join("raft/snapshot")).unwrap();
    assert!(refused(folder.path()).await.contains("raft/snapshot is missing"));
}

#[test]
fn what_is_no_whole_backup_is_refused_by_name() {
    let read = |bytes: &[u8]| Backup::read(bytes, &passphrase()).err().map(|error| error.to_string());
    let refusal = |bytes: &[u8]| read(bytes).expect("it is refused");
    assert_eq!(read(sample()), None);
    assert!(refusal(b"PK\x03\x04 something else").contains("no backup of a swarm"));
    assert!(refusal(b"swrback2 of a later time").contains("newer swarmd"));
    assert!(refusal(&sample()[..sample().len() - 1]).contains("cut short"));
    let other = Backup::read(sample(), &Redacted::new("correct horse battery stapler")).unwrap_err();
    assert!(matches!(other, BackupError::Passphrase), "{other}");
    let mut longer = sample().to_vec();
    longer.push(0);
    assert!(refusal(&longer).contains("damaged"));

    let empty = written(&Backup { last: last(), state: State::default() });
    assert!(refusal(&empty).contains("holds no swarm"));
}

proptest! {
    // Each case makes a key of a passphrase, which is costly on purpose.
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn a_backup_with_any_change_is_refused(at: prop::sample::Index, bit in 0..8_u8, cut: bool) {
        let at = at.index(sample().len());
        let mut bytes = sample().to_vec();
        bytes[at] ^= 1 << bit;
        if cut {
            bytes.truncate(at);
        }
        prop_assert!(Backup::read(&bytes[..], &passphrase()).is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), start: bool) {
        let bytes = if start { [&sample()[..24], &bytes].concat() } else { bytes };
        prop_assert!(Backup::read(&bytes[..], &passphrase()).is_err());
    }
}
