//! The counters of a data plane.

use serde::{Deserialize, Serialize};
use swarm_model::{IngressSource, ServiceId, TaskId};

/// Counters of a service, of the connections that came in at this node (flows, for UDP). The counters begin anew
/// when the service is published anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// The service.
    pub service: ServiceId,
    /// Connections now, with those that wait for a task.
    pub connections: u64,
    /// Connections that were refused by `swarmd.ingress.connections-max`.
    pub over_connections: u64,
    /// Connections that were refused by `swarmd.ingress.rate-max`.
    pub over_rate: u64,
    /// Connections of `swarmd.ingress.accept-proxy` that were refused: no header of the PROXY protocol could be read.
    pub bad_headers: u64,
}

/// Counters of an endpoint, of the connections that came in at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStats {
    /// The task.
    pub task: TaskId,
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
    /// The address that a task of this node sees now: that of a client (if the client's is fit for that), one of the node, or
    /// one of the node with a header. None for a task of another node, whose data plane knows it.
    #[serde(default)]
    pub source: Option<IngressSource>,
}
