//! Warnings of nodes: things that do not work there, by cause.

use serde::{Deserialize, Serialize};

use crate::{NodeId, PortProtocol};

/// Something that does not work on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeWarning {
    /// The cause, for programs.
    pub cause: WarningCause,
    /// The thing that does not work, and the reason, for people.
    pub text: String,
}

/// The cause of a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarningCause {
    /// A published port is not open: another program has it.
    PortTaken(WarnedPort),
    /// A published port is not open: it is below 1024, and the data plane has no right to such ports.
    PortRight(WarnedPort),
    /// A published port is not open for another reason.
    PortFailed(WarnedPort),
    /// The port for connections of other nodes is not open: tasks of this node are reached from this node alone.
    DataPort,
    /// Connections are refused: the data plane is at its limit of open files.
    Descriptors,
    /// The data plane of this other node does not answer: its tasks are not reached from this node.
    Peer(NodeId),
    /// The certificate of the node is of no use for connections to other nodes.
    Identity,
    /// Tasks do not see the own addresses of clients.
    ClientAddress,
    /// A network between containers.
    Network,
}

/// A published port that is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WarnedPort {
    /// The transport protocol.
    pub protocol: PortProtocol,
    /// The number that clients connect to.
    pub published: u16,
}

impl WarningCause {
    /// The published port that is not open, if it is about one.
    pub const fn port(&self) -> Option<WarnedPort> {
        match self {
            Self::PortTaken(port) | Self::PortRight(port) | Self::PortFailed(port) => Some(*port),
            _ => None,
        }
    }
}
