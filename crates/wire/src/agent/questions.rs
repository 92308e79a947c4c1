//! The questions that the leader asks an agent over its session, each on behalf of somebody who waits for the answer.

use serde::{Deserialize, Serialize};
use swarm_model::{NodeId, ServiceId};

use crate::endpoints::{EndpointStats, ServiceStats};

/// Nodes in a [`Question::Reach`]: a probe costs both sides a handshake.
pub const REACH_NODES_MAX: usize = 64;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// The counters of a service. Answered by [`Answer::Traffic`].
    Traffic(ServiceId),
    /// Whether the data ports of these nodes, at most [`REACH_NODES_MAX`], answer the node. Answered by
    /// [`Answer::Unreached`].
    Reach(Vec<NodeId>),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The counters of a service.
    Traffic(Traffic),
    /// The nodes whose data ports do not answer, each with the reason.
    Unreached(Vec<(NodeId, String)>),
    /// The node cannot answer; the reason, for people.
    Unable(String),
}

/// The connections to a service that came in at a node, as its data plane counted them since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Of each endpoint of this node, and of each other one that got connections from this node.
    pub endpoints: Vec<EndpointStats>,
    /// Of the service; none if it had no connections.
    pub service: Option<ServiceStats>,
}
