//! Why a service or task is as it is (`GET /swarmd/services/{id}/why`, `GET /swarmd/tasks/{id}/why`).

use serde::{Deserialize, Serialize};

use super::{ServiceWarningView, Time, UpdateStatusView, is_default};

/// Why a service, or one of its tasks, is as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WhyView {
    /// Id of the service.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Its name.
    pub service: String,
    /// The answer in a sentence.
    pub summary: String,
    /// The last update or rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatusView>,
    /// The task that was asked for, or those of the service that are not as they should be.
    pub tasks: Vec<TaskWhyView>,
    /// How many more such tasks there are.
    #[serde(skip_serializing_if = "is_default")]
    pub more_tasks: u64,
    /// If a task waits for a node: what keeps nodes from taking it.
    pub rejections: Vec<RejectionView>,
    /// What would help, the most promising first.
    pub fixes: Vec<String>,
    /// Warnings of nodes that concern the published ports of the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<ServiceWarningView>,
    /// How many more such warnings there are.
    #[serde(skip_serializing_if = "is_default")]
    pub more_warnings: u64,
}

/// How a task is, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskWhyView {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// `service.slot`, or `service.node` of a global service.
    pub name: String,
    /// Id of its node; absent while it has none.
    #[serde(rename = "NodeID", skip_serializing_if = "is_default")]
    pub node_id: String,
    /// Name of its node.
    #[serde(skip_serializing_if = "is_default")]
    pub node: String,
    /// What is wanted of it.
    pub desired_state: String,
    /// How far it is.
    pub state: String,
    /// Since when.
    pub since: Time,
    /// The answer in a sentence.
    pub summary: String,
    /// The last tasks in its place that failed, the newest first.
    pub failures: Vec<FailureView>,
    /// What the restart policy does.
    pub restart: RestartView,
}

/// How a task failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FailureView {
    /// Id of the task.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name of the node.
    pub node: String,
    /// `failed` or `rejected`.
    pub state: String,
    /// When.
    pub at: Time,
    /// Exit code, if a container ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What was said.
    pub reason: String,
}

/// What the restart policy does with a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartView {
    /// Restarts that count against the limit.
    pub restarts: u64,
    /// The limit; 0 for none.
    pub max_attempts: u64,
    /// Nanoseconds until the next start, if it waits.
    #[serde(rename = "Wait", skip_serializing_if = "Option::is_none")]
    pub wait_ns: Option<i64>,
    /// Whether there will be no restart.
    pub given_up: bool,
}

/// A requirement, and the nodes that do not meet it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RejectionView {
    /// `ready`, `resources`, `constraint`, `platform`, `plugin`, `host-port`, `max-replicas` or `other`.
    pub filter: String,
    /// What is asked for.
    pub asked: String,
    /// The nodes.
    pub nodes: Vec<NodeRejectionView>,
    /// How many more nodes.
    #[serde(skip_serializing_if = "is_default")]
    pub more_nodes: u64,
}

/// Why one node does not meet a requirement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeRejectionView {
    /// Id of the node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Its name.
    pub node: String,
    /// What it has instead.
    pub found: String,
}
