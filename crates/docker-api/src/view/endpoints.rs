//! The endpoints of a service (`GET /swarmd/services/{id}/endpoints`), which Docker's API has no word for.

use serde::{Deserialize, Serialize};
use swarm_model::IngressSource;

use super::is_default;

/// The endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointsView {
    /// The tasks of the service that have a node and have not ended.
    pub endpoints: Vec<TaskEndpointView>,
    /// Connections that were refused, summed over the nodes that answered. With `stats=1` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedView>,
    /// The nodes that were asked and did not answer: of their tasks the source is not known, and their counters are in no sum.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<SilentNodeView>,
}

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
    /// The address that the task sees connections come from; none if it gets none, or its node did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IngressSource>,
    /// Its counters, summed over the nodes that answered. With `stats=1` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<EndpointStatsView>,
}

/// The connections to an endpoint (flows, for UDP) since the data planes of the nodes began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointStatsView {
    /// Connections now.
    pub connections: u64,
    /// Connections so far.
    pub connections_total: u64,
    /// Bytes to the task.
    pub bytes_in: u64,
    /// Bytes from the task.
    pub bytes_out: u64,
    /// Connections that it did not take, or that failed.
    pub errors: u64,
}

/// Connections to the published ports of a service that were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RefusedView {
    /// By `swarmd.ingress.connections-max`.
    #[serde(skip_serializing_if = "is_default")]
    pub over_connections: u64,
    /// By `swarmd.ingress.rate-max`.
    #[serde(skip_serializing_if = "is_default")]
    pub over_rate: u64,
    /// By `swarmd.ingress.accept-proxy`: no header of the PROXY protocol could be read.
    #[serde(skip_serializing_if = "is_default")]
    pub bad_headers: u64,
}

/// A node that was asked and did not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SilentNodeView {
    /// Id of the node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Host name of the node.
    pub node: String,
    /// Why there is no answer, for people.
    pub reason: String,
}
