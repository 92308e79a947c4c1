//! When a snapshot is taken: after so many entries as the cluster's own settings say, which can change while the manager
//! runs, or after so many bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use openraft::{Raft, async_runtime::watch::WatchReceiver};
use swarm_core::State;
use tokio::time::sleep;

use crate::{disk::Disk, machine::Machine, rt, types::Types};

/// Between two looks, at least: a write need not wake this.
const PAUSE: Duration = Duration::from_millis(50);

/// Bytes of entries that are worth a snapshot: a second's work for a manager that starts and applies them again. Where
/// the last snapshot is larger, so much as [`SNAPSHOT_SHARE`] of it, for what a snapshot costs.
const LOG_BYTES_MIN: u64 = 64 << 20;
/// Bytes of the log for one of the snapshot that is written again.
const SNAPSHOT_SHARE: u64 = 2;

/// Asks for a snapshot whenever so many entries, or so many bytes, were applied since the last one, until Raft ends.
/// `interval` counts until there is a cluster that has a setting, `bytes` those that were applied since the start.
pub(crate) async fn compact(
    raft: Raft<Types, Machine>,
    published: Arc<ArcSwap<State>>,
    interval: u64,
    bytes: Arc<AtomicU64>,
    disk: Arc<dyn Disk>,
) {
    let mut metrics = raft.metrics();
    let (mut asked_at, mut asked_at_bytes) = (0, 0);
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
        let bytes = bytes.load(Ordering::Relaxed);
        // One that failed, of a full disk for instance, is tried again after as much more.
        let many = applied.saturating_sub(taken.max(asked_at)) >= interval.max(1);
        if many || is_large(bytes - asked_at_bytes, &disk).await {
            (asked_at, asked_at_bytes) = (applied, bytes);
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

/// Whether so many bytes of entries are worth a snapshot.
async fn is_large(bytes: u64, disk: &Arc<dyn Disk>) -> bool {
    if bytes < LOG_BYTES_MIN {
        return false;
    }
    let disk = Arc::clone(disk);
    let usage = rt::blocking(move || disk.usage()).await.unwrap_or_default();
    bytes >= SNAPSHOT_SHARE * usage.snapshot.map_or(0, |(bytes, _)| bytes)
}
