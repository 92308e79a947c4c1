//! What Raft is told at its start.

use std::{path::PathBuf, sync::Arc};

use openraft::{Config, SnapshotPolicy};

use crate::{Dialer, Error, SealKey};

/// Entries that stay in the log behind a snapshot, so that a follower that was away for a moment needs no snapshot.
pub const LOG_KEEP_ENTRIES: u64 = 500;

/// What a manager needs to take part in Raft.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of log and snapshot, e.g. `<state dir>/raft`.
    pub dir: PathBuf,
    /// Raft id of this manager: never used before by another manager of the cluster, nor by this one with another log.
    pub raft_id: u64,
    /// `host:port` under which other managers reach this one.
    pub addr: String,
    /// Seals everything in the folder.
    pub key: SealKey,
    /// Entries between two snapshots as long as the cluster has no setting for it; at least one.
    pub snapshot_interval: u64,
    /// Heartbeats and elections.
    pub timers: Timers,
    /// The newest feature level that this program knows ([`ENTRY_VERSION`](swarm_core::ENTRY_VERSION)).
    pub feature_level: u16,
    /// A random number, another one at each start: tells two machines with a copy of one folder apart.
    pub run: u64,
    /// The way to other managers.
    pub dialer: Arc<dyn Dialer>,
}

/// Raft's timers. A follower campaigns after the longest election timeout plus a random one between the two: with the
/// defaults 0.6 to 0.9 s after the last heartbeat (design §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Between two heartbeats.
    pub heartbeat_ms: u64,
    /// The shortest election timeout.
    pub election_min_ms: u64,
    /// The longest election timeout.
    pub election_max_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { heartbeat_ms: 75, election_min_ms: 300, election_max_ms: 450 }
    }
}

/// openraft's options.
pub(crate) fn config(options: &Options) -> Result<Config, Error> {
    if options.snapshot_interval == 0 {
        return Err(Error::Options("the snapshot interval must be at least 1 entry".into()));
    }
    let Timers { heartbeat_ms, election_min_ms, election_max_ms } = options.timers;
    let config = Config {
        cluster_name: "swarm".into(),
        heartbeat_interval: heartbeat_ms,
        election_timeout_min: election_min_ms,
        election_timeout_max: election_max_ms,
        // `compact` asks for them.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: LOG_KEEP_ENTRIES,
        // A follower that is further behind than the log reaches needs a snapshot anyway.
        replication_lag_threshold: options.snapshot_interval.saturating_add(2 * LOG_KEEP_ENTRIES),
        enable_pre_vote: Some(true),
        // Not before a leader was asked: see `vouch`.
        enable_elect: false,
        // A leader that restarts is elected anew: its first entry then commits everything that it had in its log.
        enable_leader_restore: Some(false),
        // A leader that nobody answers falls silent for a while, so that others can elect one that they hear.
        quorum_loss_probe_interval: Some(election_max_ms.saturating_mul(4)),
        // Between attempts to reach a manager that is gone: it is to catch up soon after it came back.
        backoff: "100ms 200ms ...500ms".into(),
        ..Config::default()
    };
    config.validate().map_err(|_| {
        Error::Options(format!(
            "heartbeats every {heartbeat_ms} ms and elections after {election_min_ms} to {election_max_ms} ms do not go \
             together: each of these has to be larger than the one before"
        ))
    })
}
