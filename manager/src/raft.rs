//! What the manager needs of consensus, so that its tests can run on less.

use std::time::Duration;

use futures_util::future::BoxFuture;
use swarm_consensus::{Committed, Consensus, ProposeError, Role};
use swarm_core::{State, Tx};
use tokio::sync::watch;

/// The replicated state. Its changes come through an [`swarm_consensus::Observer`], before the proposals and reads
/// that depend on them return.
pub trait Raft: Send + Sync + 'static {
    /// Commits one entry and applies it.
    fn propose(&self, txs: Vec<Tx>) -> BoxFuture<'_, Result<Committed, ProposeError>>;
    /// As [`Raft::propose`], by whichever manager leads. What only a leader may say goes the other way.
    fn write(&self, txs: Vec<Tx>) -> BoxFuture<'_, Result<Committed, ProposeError>>;
    /// The state with everything in it that was acknowledged before the call.
    fn read_barrier(&self) -> BoxFuture<'_, Result<State, ProposeError>>;
    /// What this manager is, and every change of that.
    fn role(&self) -> watch::Receiver<Role>;
    /// Waits until all that is in this manager's log now is applied, as long as it leads.
    fn settled(&self) -> BoxFuture<'_, ()>;
    /// How long ago this manager last knew that somebody leads; none if it never did.
    fn leader_contact(&self) -> Option<Duration>;
}

impl Raft for Consensus {
    fn propose(&self, txs: Vec<Tx>) -> BoxFuture<'_, Result<Committed, ProposeError>> {
        Box::pin(self.propose(txs))
    }

    fn write(&self, txs: Vec<Tx>) -> BoxFuture<'_, Result<Committed, ProposeError>> {
        Box::pin(self.write(txs))
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<State, ProposeError>> {
        Box::pin(self.read_barrier())
    }

    fn role(&self) -> watch::Receiver<Role> {
        self.role()
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.settled())
    }

    fn leader_contact(&self) -> Option<Duration> {
        self.leader_contact()
    }
}

/// `host:port` of the leader, if another manager is known to lead.
pub(crate) fn leader_addr(role: &Role) -> Option<String> {
    match role {
        Role::Follower { leader } => leader.clone(),
        Role::Leader { .. } | Role::Stopped { .. } => None,
    }
}
