//! The endpoints of a service (`GET /swarmd/services/{id}/endpoints`), which Docker's API has no word for.

use serde::{Deserialize, Serialize};

/// A task of a service with published ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskEndpointView {
    /// The task, as people call it: `web.1`.
    pub name: String,
    /// Its id.
    #[serde(rename = "TaskID")]
    pub task_id: String,
    /// Id of its node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Host name of its node.
    pub node: String,
    /// `starting`, `in`, `draining` or `out`.
    pub state: String,
    /// Why it is `out`; empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
