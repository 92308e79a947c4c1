//! A leader whose process died: its connections break at once, and whoever notices need not wait for the rest of the
//! time after which a silent leader is given up.
//!
//! It is a hint and no more. The campaign begins with a pre-vote, which nobody grants before the leader's lease, the
//! longest election timeout since its last word, is over: a leader that only lost a connection stays.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, sleep};

use crate::Consensus;

/// Managers try in turns of this length: long enough for the votes of one election, also on a busy machine, or the next
/// one would disturb it; short beside the lease.
const TURN: Duration = Duration::from_millis(40);
/// Leases after which openraft's own timers have done their part.
const LEASES_MAX: u32 = 5;

impl Consensus {
    /// Campaigns as soon as the others would grant it, unless there is another leader by then. Returns when there is
    /// nothing more to do.
    pub(crate) async fn replace_lost(&self, leader: u64) {
        let raft = self.raft();
        let lease = Duration::from_millis(raft.config().election_timeout_max);
        let leads = || raft.metrics().borrow_watched().current_leader == Some(leader);
        // A leader has several connections; one loop is enough.
        let Ok(_only) = self.campaign().try_lock() else { return };
        if leader == self.raft_id() || !leads() {
            return;
        }
        let addr = self.leader().map(|(_, addr)| addr).unwrap_or_default();
        tracing::info!(addr, "the leader's connection broke");
        // Managers notice at the same moment.
        let rivals: Vec<u64> = raft.voter_ids().filter(|id| *id != leader).collect();
        let Some(place) = rivals.iter().position(|id| *id == self.raft_id()) else { return };
        let end = Instant::now() + lease * LEASES_MAX;
        sleep(TURN * place as u32).await;
        while leads() && Instant::now() < end {
            // Nothing happens while the lease holds here.
            if raft.trigger().elect(true).await.is_err() {
                return;
            }
            sleep(TURN * rivals.len() as u32).await;
        }
    }
}
