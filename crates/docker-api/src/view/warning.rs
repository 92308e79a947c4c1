//! Warnings of nodes, as they concern a service.

use serde::{Deserialize, Serialize};
use swarm_model::NodeWarning;

/// A warning of a node that concerns a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceWarningView {
    /// Id of the node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Host name of the node.
    pub node: String,
    /// The warning.
    #[serde(flatten)]
    pub warning: NodeWarning,
}
