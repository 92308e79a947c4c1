//! When a snapshot is taken: the cluster's own settings say it, and they can change while the manager runs.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use openraft::{Raft, async_runtime::watch::WatchReceiver};
use swarm_core::State;
use tokio::time::sleep;

use crate::{machine::Machine, types::Types};

/// Between two looks, at least: a write need not wake this.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks for a snapshot whenever so many entries were applied since the last one, until Raft ends.
/// `interval` counts until there is a cluster that has a setting.
pub(crate) async fn compact(raft: Raft<Types, Machine>, published: Arc<ArcSwap<State>>, interval: u64) {
    let mut metrics = raft.metrics();
    let mut asked_at = 0;
    loop {
        // The guard would keep Raft waiting: the values are taken and the guard let go.
        let (applied, taken, running) = {
            let metrics = metrics.borrow_watched();
            let index = |id: Option<openraft::type_config::alias::LogIdOf<Types>>| id.map_or(0, |id| id.index);
            (index(metrics.last_applied), index(metrics.snapshot), metrics.running_state.is_ok())
        };
        if !running {
            return;
        }
        let interval = published.load().cluster().map_or(interval, |cluster| cluster.spec.raft.snapshot_interval);
        // One that failed, of a full disk for instance, is tried again after as many entries more.
        if applied.saturating_sub(taken.max(asked_at)) >= interval.max(1) {
            asked_at = applied;
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
        // Writes come by the thousand; what is too late by so much is a small part of a snapshot's interval.
        sleep(PAUSE).await;
    }
}
