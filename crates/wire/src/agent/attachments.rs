//! Attachments, as nodes ask for them: the containers of a node that are no tasks, in networks of the cluster.
//!
//! A node says all that it wants each time. The managers make, change and remove attachments until the state has exactly
//! these, and answer.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use swarm_model::{ObjectId, TaskId};

/// Most attachments of one node. A node names all its attachments with each change.
pub const ATTACHMENTS_MAX: usize = 1024;

/// All attachments that a node wants. Each message takes the place of the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedAttachments {
    /// Number of the message within the session, for its answer.
    pub number: u64,
    /// The attachments; at most [`ATTACHMENTS_MAX`].
    pub wanted: Vec<WantedAttachment>,
}

/// An attachment that a node wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedAttachment {
    /// Id, which the node draws. An attachment of the node that has the same addresses counts as this one: after a restart
    /// a node knows the addresses of its containers, and no ids.
    pub id: TaskId,
    /// The id or the name of the network.
    pub network: String,
    /// The addresses that it is to have; those of the network's other address families are chosen.
    pub addrs: Vec<IpAddr>,
    /// The names of its container.
    pub names: Vec<String>,
    /// Whether its container runs.
    pub is_running: bool,
}

/// The answer to [`WantedAttachments`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentAnswers {
    /// The number of the message.
    pub number: u64,
    /// For each attachment that was asked for, the grant or the refusal.
    pub answers: Vec<(TaskId, Result<GrantedAttachment, AttachmentRefusal>)>,
}

/// An attachment that the state has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedAttachment {
    /// The network.
    pub network: ObjectId,
    /// Its addresses: one of each address family of the network.
    pub addrs: Vec<IpAddr>,
}

/// Why a node does not get an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachmentRefusal {
    /// The cluster has no such network.
    NoNetwork,
    /// The network takes tasks only.
    NotAttachable,
    /// Another node with the same engine has the container.
    OtherNode,
    /// For another reason, for people.
    Other(String),
}
