//! Keeps what the state says of a node equal to what its session says.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use swarm_core::State;
use swarm_model::{Node, NodeDescription, NodeId, NodeState, NodeStatus};
use tokio::sync::Notify;

use super::Term;
use crate::feed::lock;

/// What a session says of its node. It is compared with the state after every change, so that it does not matter in
/// which order reports of this and of earlier sessions are committed.
pub(super) struct Presence {
    node: NodeId,
    wanted: Mutex<(NodeStatus, Arc<NodeDescription>)>,
    flight: Arc<Flight>,
}

/// What has to be committed so that the state says of a node what its session says; none if it does already.
pub fn news(
    node: &Node,
    status: &NodeStatus,
    description: &Arc<NodeDescription>,
) -> Option<(NodeStatus, Option<Arc<NodeDescription>>)> {
    let changed = Some(description).filter(|description| node.description.as_ref() != Some(description)).cloned();
    (node.status != *status || changed.is_some()).then(|| (status.clone(), changed))
}

/// A report under way.
#[derive(Default)]
struct Flight {
    flying: AtomicBool,
    failed: AtomicBool,
    landed: Notify,
}

impl Presence {
    pub(super) fn new(node: NodeId, addr: String, engine_reachable: bool, description: NodeDescription) -> Self {
        let status = NodeStatus { state: NodeState::Ready, message: String::new(), addr, engine_reachable };
        Self { node, wanted: Mutex::new((status, Arc::new(description))), flight: Arc::default() }
    }

    /// The agent described its node anew.
    pub(super) fn describe(&self, engine_reachable: bool, description: NodeDescription) {
        let mut wanted = lock(&self.wanted);
        wanted.0.engine_reachable = engine_reachable;
        wanted.1 = Arc::new(description);
    }

    /// What people are to know of the node while its session stands; empty for nothing.
    pub(super) fn note(&self, message: String) {
        lock(&self.wanted).0.message = message;
    }

    /// The agent said that its node leaves.
    pub(super) fn leave(&self, message: &str) {
        let mut wanted = lock(&self.wanted);
        wanted.0.state = NodeState::Down;
        message.clone_into(&mut wanted.0.message);
    }

    /// Reports what differs from the state, if no report is under way. Says whether nothing differs.
    pub(super) fn sync(&self, state: &State, term: &Term) -> bool {
        let Some(node) = state.node(self.node) else { return false };
        let wanted = lock(&self.wanted);
        let Some((status, description)) = news(node, &wanted.0, &wanted.1) else { return true };
        drop(wanted);
        if !self.flight.flying.swap(true, Ordering::AcqRel) {
            let flight = self.flight.clone();
            let waiter = Box::new(move |stood: bool| {
                flight.failed.store(!stood, Ordering::Release);
                flight.flying.store(false, Ordering::Release);
                flight.landed.notify_one();
            });
            term.report(|reports| reports.node(self.node, status, description, Some(waiter)));
        }
        false
    }

    /// Waits until the report under way came to its end, and says whether it was committed. Cancel-safe.
    pub(super) async fn landed(&self) -> bool {
        self.flight.landed.notified().await;
        !self.flight.failed.load(Ordering::Acquire)
    }
}
