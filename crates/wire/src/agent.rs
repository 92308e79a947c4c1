//! The messages between an agent and the leader's dispatcher, over one framed mTLS stream (ALPN `swarm-agent/1`).
//!
//! The agent opens the stream and says [`ToManager::Hello`]; the dispatcher answers [`ToAgent::Welcome`], or
//! [`ToAgent::Refused`] and closes. From then on assignments come down and statuses go up until either side closes.
//! Whose stream it is follows from the peer's certificate, never from a message.

mod attachments;
mod before_changes;
mod changes;
mod questions;
mod shared;

use std::io;

use serde::{Deserialize, Serialize};
use swarm_model::{NodeDescription, NodeId, NodeRole, TaskId, TaskStatus, Timestamp};

use crate::{
    endpoints::{TableUpdate, TableVersion},
    networks::NetworkUpdate,
};

pub use self::{
    attachments::{
        ATTACHMENTS_MAX, AttachmentAnswers, AttachmentRefusal, GrantedAttachment, WantedAttachment, WantedAttachments,
    },
    before_changes::Assignments,
    changes::{AssignedObject, AssignedSpec, AssignedTask, Changeset, Held, Item, ItemChange, ItemKey, digest},
    questions::{Answer, Question, REACH_NODES_MAX, Traffic},
    shared::Shared,
};

/// Version of these messages that all programs speak, said in [`Hello`]. Fields may be added without a new one.
pub const AGENT_PROTOCOL: u16 = 1;

/// Newest version that this program speaks. From 2 on, a node is told [`Changeset`]s.
pub const AGENT_PROTOCOL_NEWEST: u16 = 2;

/// Task reports in one message; more go into the next one.
pub const STATUS_BATCH_MAX: usize = 1024;

/// Tasks and removals in one message to an agent; more follow in further messages.
pub const ASSIGNMENT_BATCH_MAX: usize = 1024;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToManager {
    /// The first message of a session.
    Hello(Box<Hello>),
    /// "I am alive"; sent every `heartbeat_period_ms`, answered by [`ToAgent::HeartbeatAck`].
    Heartbeat,
    /// The node changed (resources, labels, engine).
    Describe(Box<NodeReport>),
    /// How tasks are. Answered by [`ToAgent::StatusAck`] once it is committed; until then the agent keeps it.
    Status {
        /// Number of this batch within the session.
        batch: u64,
        /// Newest status of each task; at most [`STATUS_BATCH_MAX`].
        reports: Vec<TaskReport>,
    },
    /// The node leaves the cluster: it is down from now on.
    Leaving,
    /// The endpoint table that the node's data plane goes by; none asks for the whole table.
    Table(Option<TableVersion>),
    /// Answer to [`ToAgent::Ask`].
    Answer {
        /// The number that the question came with.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// The containers of the node that are no tasks, in networks of the cluster. Not said to a manager that does not take it
    /// ([`Welcome::takes_attachments`]).
    Attachments(WantedAttachments),
    /// First and only message of a stream opened for logs; [`LogMessage`]s follow.
    Logs {
        /// The subscription, from [`ToAgent::StartLogs`].
        subscription: u64,
    },
}

/// First message of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`AGENT_PROTOCOL`].
    pub protocol: u16,
    /// Version of the program, for people.
    pub program: String,
    /// The node.
    pub node: NodeReport,
    /// What the agent already has; none asks for everything.
    pub resume: Option<Resume>,
    /// A random number of the agent's run, which tells it from those of other machines with its node's id. An agent of
    /// version 0.1.0 says none.
    #[serde(default)]
    pub run: Option<u64>,
    /// Newest version of these messages that the agent speaks; [`AGENT_PROTOCOL`] if it says none.
    #[serde(default)]
    pub newest: Option<u16>,
    /// The endpoint table that the agent holds. Not there in an agent without a data plane, which is sent none.
    #[serde(default)]
    pub table: Option<HeldTable>,
    /// Whether the agent takes [`ToAgent::Network`].
    #[serde(default)]
    pub takes_networks: bool,
    /// Whether the agent takes [`ToAgent::Ask`].
    #[serde(default)]
    pub takes_questions: bool,
}

/// An endpoint table that an agent holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldTable {
    /// The table; none before the first.
    pub version: Option<TableVersion>,
}

impl Hello {
    /// Whether the agent takes [`Changeset`]s.
    pub fn takes_changes(&self) -> bool {
        self.newest.is_some_and(|newest| newest >= 2)
    }
}

/// What a node is like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Host, resources, engine.
    pub description: NodeDescription,
    /// Whether the container engine answers.
    pub engine_reachable: bool,
}

/// The items that an agent holds from an earlier session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Revision of the last complete set or difference.
    pub revision: u64,
    /// [`digest`] of the tasks that it holds, for managers of version 0.1.0.
    pub digest: u64,
    /// [`digest`] of all that it holds. An agent of version 0.1.0 says none: it holds nothing but tasks and their specs.
    #[serde(default)]
    pub all: Option<u64>,
}

/// Status of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub task: TaskId,
    /// Its status.
    pub status: TaskStatus,
}

/// What a dispatcher says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// The session is open; and again when what it says has changed.
    Welcome(Welcome),
    /// The session is not: why, and whether trying again makes sense.
    Refused {
        /// For the agent's log.
        reason: String,
        /// Where the leader is, if this manager is not it and knows.
        leader: Option<String>,
        /// Whether the node was removed from the cluster, for good.
        removed: bool,
    },
    /// Answer to a heartbeat.
    HeartbeatAck,
    /// The tasks that the node is to run, for an agent of version 0.1.0.
    Assignments(Assignments),
    /// A batch of statuses is committed.
    StatusAck {
        /// The number that the batch came with.
        batch: u64,
    },
    /// Open a stream for logs ([`ToManager::Logs`]) and send these.
    StartLogs(LogRequest),
    /// Changes of the items that the node is to have.
    Changes(Changeset),
    /// Changes of the endpoint table, for an agent with a data plane.
    Table(TableUpdate),
    /// Changes of the records of a network in which the node has tasks. A session begins with all records of each.
    Network(NetworkUpdate),
    /// Answer this ([`ToManager::Answer`]).
    Ask {
        /// Number of the question, unique in this session.
        number: u64,
        /// The question.
        question: Question,
    },
    /// The answer to [`ToManager::Attachments`].
    Attachments(AttachmentAnswers),
}

impl ToAgent {
    /// Changes of the items that a node is to have, in the form that its agent takes ([`Hello::takes_changes`]).
    ///
    /// # Errors
    /// A spec cannot be read.
    pub fn changes(changeset: Changeset, takes_changes: bool) -> io::Result<Self> {
        if takes_changes { Ok(Self::Changes(changeset)) } else { Assignments::of(changeset).map(Self::Assignments) }
    }
}

/// Opens a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Milliseconds between two heartbeats.
    pub heartbeat_period_ms: u64,
    /// `host:port` of all managers, for when this one is gone.
    pub managers: Vec<String>,
    /// The role that the node is to have: with another one than its certificate has, it asks for a new certificate.
    #[serde(default)]
    pub role: Option<NodeRole>,
    /// Whose certificates count.
    #[serde(default)]
    pub authority: Option<Authority>,
    /// Whether the manager takes [`ToManager::Attachments`].
    #[serde(default)]
    pub takes_attachments: bool,
}

/// Whose certificates count in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Key identifier of the root CA that the node's certificate is to come from: with one of another it asks for a new
    /// one.
    pub issuer: String,
    /// The root certificates to trust, PEM.
    pub trusted: String,
}

/// Logs that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Number of the subscription, unique on its manager.
    pub subscription: u64,
    /// Tasks of this node.
    pub tasks: Vec<TaskId>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on when the end is reached.
    pub follow: bool,
    /// Not older than this; zero for all.
    pub since: Timestamp,
    /// Only so many lines of each task from the end.
    pub tail: Option<u64>,
}

/// What an agent sends on a stream opened for logs. When it has nothing more to send it closes the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogMessage {
    /// A line, with its line end if it had one.
    Line {
        /// Whose.
        task: TaskId,
        /// On which node.
        node: NodeId,
        /// Whether it comes from standard error.
        stderr: bool,
        /// When it was written.
        at: Timestamp,
        /// The bytes.
        data: Vec<u8>,
    },
    /// The logs of a task cannot be read, or only in part.
    Incomplete {
        /// Whose.
        task: TaskId,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
