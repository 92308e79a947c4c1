//! What `GET /info` and `GET /version` answer. Most of it is the local engine's and passes through.

use serde::{Deserialize, Serialize};
use swarm_model::Extra;

use super::{ClusterInfo, is_default};

/// Response of `GET /info`. What this program does not look at is kept as the engine said it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InfoView {
    /// Id of the engine.
    #[serde(rename = "ID")]
    pub id: String,
    /// Host name.
    pub name: String,
    /// Version of the engine.
    pub server_version: String,
    /// For example `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// Name of the operating system.
    pub operating_system: String,
    /// Version of the kernel.
    pub kernel_version: String,
    /// For example `x86_64`.
    pub architecture: String,
    /// Number of CPUs.
    #[serde(rename = "NCPU")]
    pub ncpu: i64,
    /// Bytes of memory.
    pub mem_total: i64,
    /// The node's part in a cluster.
    pub swarm: SwarmInfo,
    /// Problems that the user should know; null when there are none.
    pub warnings: Option<Vec<String>>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A node's part in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmInfo {
    /// Its id; empty outside a cluster.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// The address that other nodes reach it by.
    pub node_addr: String,
    /// `inactive`, `pending`, `active`, `error`, `locked`.
    pub local_node_state: String,
    /// Whether it is a manager.
    pub control_available: bool,
    /// Why it is in state `error` or `pending`.
    pub error: String,
    /// The managers that it knows; null outside a cluster.
    pub remote_managers: Option<Vec<PeerView>>,
    /// Number of nodes; managers know it.
    #[serde(skip_serializing_if = "is_default")]
    pub nodes: u64,
    /// Number of managers; managers know it.
    #[serde(skip_serializing_if = "is_default")]
    pub managers: u64,
    /// The cluster; managers know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
}

/// A manager that a node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeerView {
    /// Its id.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// `host:port`.
    pub addr: String,
}

/// Response of `GET /version`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VersionView {
    /// Name of the product.
    pub platform: PlatformView,
    /// Parts, one by one.
    pub components: Vec<ComponentView>,
    /// Version of the server.
    pub version: String,
    /// Newest API version that it speaks.
    pub api_version: String,
    /// Oldest API version that it speaks.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// Commit that it was built from.
    pub git_commit: String,
    /// Version of Go, for an engine.
    pub go_version: String,
    /// For example `linux`.
    pub os: String,
    /// For example `amd64`.
    pub arch: String,
    /// Version of the kernel.
    pub kernel_version: String,
    /// When it was built, RFC 3339.
    pub build_time: String,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Name of a product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlatformView {
    /// Its name.
    pub name: String,
}

/// A part of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ComponentView {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// More, as text.
    pub details: std::collections::BTreeMap<String, String>,
}
