//! What the manager needs of consensus, so that its tests can run on less.

use futures_util::future::BoxFuture;
use swarm_core::{Outcome, State, Tx};
use thiserror::Error;
use tokio::sync::watch;

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its log index.
    pub index: u64,
    /// What became of each transaction, in their order.
    pub outcomes: Vec<Outcome>,
}

/// Why nothing is known to be committed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProposeError {
    /// Another manager leads.
    #[error("this manager does not lead the swarm")]
    NotLeader {
        /// `host:port` of the leader, if there is one.
        leader: Option<String>,
    },
    /// It may have been committed, or not.
    #[error("it is not known whether the change was committed: no answer in time from most managers")]
    Unknown,
    /// More than an entry can hold.
    #[error("the change is too large for the log")]
    TooLarge,
    /// This manager is stopping.
    #[error("this manager is stopping")]
    Stopped,
}

/// What this manager is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It does not.
    Follower {
        /// `host:port` of the leader, if there is one.
        leader: Option<String>,
    },
}

/// Is told of every change of the state, in order, on the apply path: it must be quick and must not block.
pub trait Observer: Send + Sync + 'static {
    /// An entry was applied; this is the state after it.
    fn applied(&self, state: &State, events: &[swarm_core::Event]);
    /// The state was replaced by a snapshot.
    fn restored(&self, state: &State);
}

/// The replicated state.
pub trait Raft: Send + Sync + 'static {
    /// Commits one entry and applies it.
    fn propose(&self, txs: Vec<Tx>) -> BoxFuture<'_, Result<Committed, ProposeError>>;
    /// The state with everything in it that was acknowledged before the call.
    fn read_barrier(&self) -> BoxFuture<'_, Result<State, ProposeError>>;
    /// What this manager is, and every change of that.
    fn role(&self) -> watch::Receiver<Role>;
}
