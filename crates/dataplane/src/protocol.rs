//! The messages between swarmd and its data plane, over a Unix socket that the data plane listens on
//! (`swarm_wire::channel`).
//!
//! The data plane greets with [`FromData::Hello`]. swarmd then says everything that it knows: its configuration, its
//! identity, its own tasks, and the table, if the data plane does not have it yet. After that it says what changes. When a
//! new connection of swarmd comes, the old one is closed. What swarmd said holds until it says otherwise, also while it is
//! away.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use swarm_model::{NodeId, NodeWarning, ObjectId, Redacted, TaskId};
pub use swarm_names::{ContainerNames, ContainerNetwork, VirtualAddrs};
pub use swarm_wire::endpoints::{EndpointStats, ServiceStats};
use swarm_wire::{
    endpoints::{TableUpdate, TableVersion},
    networks::{NetworkRecord, NetworkUpdate},
};

/// Version of these messages. Fields and messages may be added without a new one.
pub const DATA_PROTOCOL: u16 = 1;

/// A message of swarmd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToData {
    /// The first message; again when it changes.
    Configure(Configuration),
    /// The node's certificate and key, for links to other nodes; again when they are renewed.
    Identity(Identity),
    /// The tasks of this node that can be connected to: all of them, at the beginning.
    LocalTasks(Vec<LocalTask>),
    /// A task of this node can be connected to.
    PutLocal(LocalTask),
    /// A task of this node has ended.
    RemoveLocal(TaskId),
    /// Changes of the endpoint table.
    Table(TableUpdate),
    /// The node takes part in a network: its containers can ask for the names there. Members of the network that are known stay.
    PutNetwork(NetworkRecord),
    /// The node has left a network.
    RemoveNetwork(ObjectId),
    /// Changes of the members of a network, as managers tell them. Names are answered once the first update is complete.
    Members(NetworkUpdate),
    /// A container of this node may ask for names.
    PutContainer(ContainerNames),
    /// A container of this node, by the engine's id, asks no more.
    RemoveContainer(String),
    /// All is said of networks: other networks and containers than these are gone.
    KeepNames {
        /// The networks.
        networks: Vec<ObjectId>,
        /// The containers.
        containers: Vec<String>,
    },
    /// Says how things are: answered by [`FromData::Stats`].
    Stats,
    /// Connect to the data port of each of these nodes, and tell which answer: [`FromData::Probed`].
    Probe {
        /// Number of the question; the answer has it as well.
        number: u64,
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Ends the process: the node left its cluster.
    Stop,
}

/// How a data plane listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The node.
    pub node: NodeId,
    /// The addresses that published ports listen on.
    pub ingress: Vec<IngressAddr>,
    /// The address for links of other nodes.
    pub data_addr: SocketAddr,
    /// The socket of `swarmd net`, which opens the sockets of resolvers in containers; none where networks cannot be.
    #[serde(default)]
    pub net_socket: Option<PathBuf>,
}

/// An address that published ports listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressAddr {
    /// The address; `0.0.0.0` and `::` stand for all of their family.
    pub addr: IpAddr,
    /// Whether a port that is taken there is no warning: another node of the host may have it.
    pub is_optional: bool,
}

/// The identity of a node, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: Redacted,
    /// The root certificates to trust.
    pub trusted: String,
}

/// A task of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTask {
    /// The task.
    pub task: TaskId,
    /// The address of its container, as this node reaches it.
    pub addr: IpAddr,
}

/// A message of a data plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromData {
    /// The first message.
    Hello {
        /// [`DATA_PROTOCOL`].
        protocol: u16,
        /// Version of the program, for people.
        program: String,
        /// The table that it has.
        table: Option<TableVersion>,
    },
    /// The table is this one from now on: no connection that comes from now on goes by an earlier one.
    Applied(TableVersion),
    /// The update was refused; the table is as before. A full table is needed.
    Refused {
        /// Why.
        reason: String,
    },
    /// A task of this node that gets no new connections has none left. Said once for each; again after [`FromData::InUse`],
    /// and to each new connection of swarmd.
    Drained(TaskId),
    /// A task that was said to be drained may have connections again: it serves now, or a node that had not applied the table
    /// yet sent one.
    InUse(TaskId),
    /// The warnings of this node: all of them; said whenever they change.
    Warnings(Vec<NodeWarning>),
    /// Answer to [`ToData::Stats`].
    Stats(Stats),
    /// Answer to [`ToData::Probe`].
    Probed {
        /// The number of the question.
        number: u64,
        /// The nodes that do not answer, each with the reason.
        failed: Vec<(NodeId, String)>,
    },
}

/// Counters since the process began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Of each endpoint of this node, and of each other one that this node's data plane sent connections to.
    pub endpoints: Vec<EndpointStats>,
    /// Of each service that has or refused connections at this node.
    #[serde(default)]
    pub services: Vec<ServiceStats>,
    /// Of the addresses that tasks of this node saw.
    #[serde(default)]
    pub sources: SourceStats,
    /// Of the frames of encrypted networks.
    #[serde(default)]
    pub switch: SwitchStats,
}

/// Frames of encrypted networks that were dropped, by reason. Only `dropped` counts frames of this node's own containers; the
/// others count frames that other nodes sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchStats {
    /// The sender's Ethernet address is the one of a container of a third node, or of this node.
    pub forged: u64,
    /// Nobody in the network has the sender's Ethernet address.
    pub unknown: u64,
    /// This node takes no part in the network.
    pub foreign: u64,
    /// The receiver is no container of this node.
    pub stray: u64,
    /// The bytes are no Ethernet frame.
    pub malformed: u64,
    /// The kernel did not take the frame, or the device of the network is not there.
    pub refused: u64,
    /// The frame was not sent: the queue of the link was full, or there was no link to the node.
    pub dropped: u64,
}

/// Connections to tasks of this node whose services want to see the client's own address (flows, for UDP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStats {
    /// The task saw it.
    pub client: u64,
    /// The task saw an address of this host: the client's is, or claims to be, one that is not used (of this host, of its
    /// containers, of no single host).
    pub unfit: u64,
    /// The same: the client has an IPv4 address and the task an IPv6 one, or the other way round.
    pub other_family: u64,
    /// The same: the task's answers to clients were not seen to come back to this host.
    pub untested: u64,
}
