//! Nodes: what operators set, what agents report, and the record that the cluster keeps.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Extra, Labels, NodeId, NodeWarning, Timestamp};

/// Docker's `NodeSpec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeSpec {
    /// A name for people; usually empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Labels that constraints and preferences can use.
    pub labels: Labels,
    /// The role that the operator wants.
    pub role: NodeRole,
    /// Whether the node takes tasks.
    pub availability: Availability,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Role of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Runs tasks.
    #[default]
    Worker,
    /// Runs tasks and takes part in Raft.
    Manager,
}

impl NodeRole {
    /// `worker` or `manager`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a node takes tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Takes new tasks and keeps those that it has.
    #[default]
    Active,
    /// Keeps its tasks, takes no new ones.
    Pause,
    /// Takes none and gives up those that it has.
    Drain,
}

impl Availability {
    /// `active`, `pause`, `drain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

/// What an agent says of its node. Docker's shape, since it is shown as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// Processor and operating system.
    pub platform: Platform,
    /// What tasks can reserve.
    pub resources: NodeResources,
    /// The container engine.
    pub engine: EngineDescription,
    /// Its certificate.
    #[serde(skip_serializing_if = "NodeCertificate::is_unknown")]
    pub certificate: NodeCertificate,
    /// The address at which its data plane takes connections of other nodes; none if it has no data plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_address: Option<DataAddress>,
    /// The engine's own id. Nodes with one engine share its networks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub engine_id: String,
    /// The warnings of the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<NodeWarning>,
}

/// The address at which the data plane of a node takes connections of other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DataAddress {
    /// The address; none for the one that the node's agent comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<IpAddr>,
    /// The TCP port.
    pub port: u16,
}

/// The certificate that a node has, and whom it trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeCertificate {
    /// Key identifier of its issuer ([`RootCa::key_id`](crate::RootCa::key_id)).
    pub issuer: String,
    /// SHA-256 in base36 of the root certificates that it trusts, PEM.
    pub trusted: String,
}

impl NodeCertificate {
    /// Whether nobody said anything.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// Processor architecture and operating system. Empty matches any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Platform {
    /// For example `x86_64` or `amd64`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// For example `linux`.
    #[serde(rename = "OS", skip_serializing_if = "String::is_empty")]
    pub os: String,
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeResources {
    /// Billionths of a CPU.
    #[serde(rename = "NanoCPUs")]
    pub nano_cpus: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Counted resources such as GPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
}

/// A counted resource. In JSON `{"DiscreteResourceSpec": {…}}` or `{"NamedResourceSpec": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GenericResource {
    /// So many of a kind.
    #[serde(rename = "DiscreteResourceSpec")]
    Discrete {
        /// Kind, for example `SSD`.
        #[serde(rename = "Kind")]
        kind: String,
        /// How many.
        #[serde(rename = "Value")]
        value: i64,
    },
    /// One named piece of a kind.
    #[serde(rename = "NamedResourceSpec")]
    Named {
        /// Kind, for example `GPU`.
        #[serde(rename = "Kind")]
        kind: String,
        /// Its name.
        #[serde(rename = "Value")]
        value: String,
    },
}

/// The container engine of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineDescription {
    /// Version of the engine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub engine_version: String,
    /// Labels of the engine (`engine.labels.KEY` in constraints).
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Log, network and volume drivers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<EnginePlugin>,
}

/// A driver of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EnginePlugin {
    /// `Log`, `Network`, `Volume`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Name of the driver.
    pub name: String,
}

/// Whether a node answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not heard of since the leader started. Its tasks are left alone.
    #[default]
    Unknown,
    /// Three heartbeats missed, or it left. Its tasks are replaced.
    Down,
    /// Heartbeats arrive.
    Ready,
    /// Its manager stopped; it is looking for another one.
    Disconnected,
}

impl NodeState {
    /// `unknown`, `down`, `ready`, `disconnected`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Ready => "ready",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Observed state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Whether it answers.
    pub state: NodeState,
    /// Why, for people; empty when all is well.
    pub message: String,
    /// The address that its agent comes from, without a port.
    pub addr: String,
    /// Whether the node's own container engine answers its agent. Without it the node gets no new tasks.
    pub engine_reachable: bool,
}

/// A node as the cluster keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Id.
    pub id: NodeId,
    /// Log index of the last change that the API's `?version=` guards.
    pub version: u64,
    /// When it joined.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// What the operator set.
    pub spec: Arc<NodeSpec>,
    /// The role that its certificate has, or is to have: of a manager that is demoted once it is out of Raft.
    pub role: NodeRole,
    /// What its agent reported; none before its first session.
    pub description: Option<Arc<NodeDescription>>,
    /// Observed state.
    pub status: NodeStatus,
    /// Since when it is in that state (the cluster's clock).
    pub state_since: Timestamp,
    /// `host:port` of its manager, if it is one.
    pub manager_addr: Option<String>,
    /// Its id in Raft while it is a manager. Never that of another manager, nor one that it had in an earlier time as
    /// a manager: it begins with an empty log each time.
    #[serde(default)]
    pub raft_id: Option<u64>,
    /// Log index of the last change that can make a placement wrong: availability, state, labels, capacity.
    pub epoch: u64,
    /// When its last issued certificate expires.
    pub cert_expires_at: Timestamp,
    /// While it is drained by policy: from when on the policies no longer count. None: the drain goes by no policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<Timestamp>,
}

impl Node {
    /// From when on all tasks of a node that is drained are to leave it, whatever the policies of their services say. None
    /// of a node that is not drained.
    pub fn emptied_from(&self) -> Option<Timestamp> {
        (self.spec.availability == Availability::Drain).then(|| self.drain_deadline.unwrap_or_default())
    }

    /// The role that its next certificate has, where it shows one of this role. A manager stays one until it is out of
    /// Raft, whatever is wanted. Then its Raft id is used up: it becomes a worker, also if it is to be a manager again.
    pub fn next_role(&self, shown: NodeRole) -> NodeRole {
        match (self.role, shown) {
            (NodeRole::Manager, _) => NodeRole::Manager,
            (NodeRole::Worker, NodeRole::Manager) => NodeRole::Worker,
            (NodeRole::Worker, NodeRole::Worker) => self.spec.role,
        }
    }

    /// Key identifier of the issuer of the certificate that it has, as far as it said; else empty.
    pub fn cert_issuer(&self) -> &str {
        self.description.as_ref().map_or("", |description| &description.certificate.issuer)
    }

    /// The Raft id of the node that founds a cluster: the random half of its id.
    pub const fn founder_raft_id(id: NodeId) -> u64 {
        id.0 as u64
    }

    /// The host name, or nothing before the first session.
    pub fn hostname(&self) -> &str {
        self.description.as_ref().map_or("", |d| &d.hostname)
    }
}
