//! Nodes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{Node, NodeCertificate, NodeDescription, NodeSpec, NodeStatus, NodeWarning};

use super::{Time, TlsInfo, Version, is_default};

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeView {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// What an update must name.
    pub version: Version,
    /// When it joined.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// What the operator set.
    pub spec: Arc<NodeSpec>,
    /// What its agent reported.
    pub description: NodeDescriptionView,
    /// Observed state.
    pub status: NodeStatusView,
    /// Absent on workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager_status: Option<ManagerStatusView>,
    /// Ours: until when a drain goes by the policies of services. Absent where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<Time>,
    /// Ours: what does not work on the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<NodeWarning>,
}

impl NodeView {
    /// Shows a node. `tls_info` is the authority that issued its certificate.
    pub fn new(node: &Node, tls_info: TlsInfo, manager_status: Option<ManagerStatusView>) -> Self {
        let mut description = node.description.clone().unwrap_or_default();
        // Said by `tls_info`, in Docker's words.
        let described = Arc::make_mut(&mut description);
        described.certificate = NodeCertificate::default();
        described.data_address = None;
        described.engine_id.clear();
        let warnings = std::mem::take(&mut described.warnings);
        Self {
            id: node.id.to_string(),
            version: Version { index: node.version },
            created_at: node.created_at.into(),
            updated_at: node.updated_at.into(),
            spec: node.spec.clone(),
            description: NodeDescriptionView { description, tls_info },
            status: NodeStatusView::new(&node.status),
            manager_status,
            drain_deadline: node.drain_deadline.map(Into::into),
            warnings,
        }
    }

    /// Whether it is a manager that leads.
    pub fn is_leader(&self) -> bool {
        self.manager_status.as_ref().is_some_and(|m| m.leader)
    }
}

/// What an agent reported, and the authority that its certificate comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDescriptionView {
    /// Host, resources, engine.
    #[serde(flatten)]
    pub description: Arc<NodeDescription>,
    /// The authority.
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
}

/// Observed state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeStatusView {
    /// `unknown`, `down`, `ready`, `disconnected`.
    pub state: String,
    /// Why, for people.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    /// The address that its agent comes from.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
}

impl NodeStatusView {
    /// Shows a status. Docker has no word for a node whose engine does not answer: the message says it.
    pub fn new(status: &NodeStatus) -> Self {
        let message = match status.message.as_str() {
            "" if !status.engine_reachable && status.state == swarm_model::NodeState::Ready => "engine unreachable",
            message => message,
        };
        Self { state: status.state.as_str().into(), message: message.into(), addr: status.addr.clone() }
    }
}

/// A node in its role as a manager.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManagerStatusView {
    /// Whether it leads.
    #[serde(skip_serializing_if = "is_default")]
    pub leader: bool,
    /// `reachable`, `unreachable`, `unknown`.
    #[serde(skip_serializing_if = "is_default")]
    pub reachability: String,
    /// `host:port` that other nodes reach it by.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
}
