//! Proposals that come together.

use futures_util::future::join_all;
use swarm_core::{Guard, Refusal};

use super::*;
use crate::Committed;

/// Each is told what became of its own transactions, whatever went into the log with them.
#[tokio::test]
async fn proposals_at_the_same_time_share_entries() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = Consensus::create(options(dir.path()), Arc::new(Watcher::default())).await.unwrap();
    let count = 300;
    let proposals = (1..=count).map(|number| {
        let mut txs = admit(number);
        if number % 3 == 0 {
            txs = txs.into_iter().map(|tx| tx.guard(Guard::Node { node: NodeId(9_999), version: 1 })).collect();
        }
        consensus.propose(txs)
    });
    let committed: Vec<Committed> = join_all(proposals).await.into_iter().map(Result::unwrap).collect();
    let state = consensus.state();
    for (number, Committed { outcomes, index }) in (1..).zip(&committed) {
        let node = state.node(NodeId(number));
        match outcomes.as_slice() {
            [Ok(())] => assert_eq!(node.map(|node| node.version), Some(*index)),
            [Err(Refusal::NotFound { .. })] => assert!(number % 3 == 0 && node.is_none()),
            other => panic!("{number}: {other:?}"),
        }
    }
    let mut entries: Vec<u64> = committed.iter().map(|committed| committed.index).collect();
    entries.dedup();
    assert!(entries.len() < 10, "{} entries for {count} proposals", entries.len());
    consensus.shutdown().await;
}
