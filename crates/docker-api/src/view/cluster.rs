//! The cluster: what `GET /swarm` shows, and how a cluster is made and joined.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{Cluster, ClusterSpec, OverlaySettings, Redacted};

use super::{Time, Version, is_default};

/// The cluster without its secrets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterInfo {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// What an update must name.
    pub version: Version,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// Settings.
    pub spec: Arc<ClusterSpec>,
    /// Its certificate authority.
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    /// Whether the certificate authority is being replaced.
    pub root_rotation_in_progress: bool,
    /// Networks from which overlay networks get their addresses.
    pub default_addr_pool: Option<Vec<String>>,
    /// Prefix length of an overlay network.
    pub subnet_size: u32,
    /// UDP port of overlay networks.
    pub data_path_port: u32,
    /// Whether an overlay network that does not say so itself is encrypted. A field that Docker does not have.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypt_networks: bool,
}

impl ClusterInfo {
    /// Shows a cluster.
    pub fn new(cluster: &Cluster, tls_info: TlsInfo) -> Self {
        Self {
            id: cluster.id.to_string(),
            version: Version { index: cluster.version },
            created_at: cluster.created_at.into(),
            updated_at: cluster.updated_at.into(),
            spec: cluster.spec.clone(),
            tls_info,
            root_rotation_in_progress: cluster.root_rotation.is_some(),
            default_addr_pool: Some(cluster.overlay.addr_pools.clone()).filter(|pools| !pools.is_empty()),
            subnet_size: cluster.overlay.subnet_size_or_default(),
            data_path_port: cluster.overlay.data_path_port_or_default(),
            encrypt_networks: cluster.overlay.encrypt_networks,
        }
    }
}

/// Response of `GET /swarm`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmView {
    /// The cluster.
    #[serde(flatten)]
    pub info: ClusterInfo,
    /// The secrets that let nodes join.
    pub join_tokens: JoinTokensView,
}

impl SwarmView {
    /// Shows a cluster with its tokens.
    pub fn new(cluster: &Cluster, tls_info: TlsInfo) -> Self {
        let tokens = &cluster.join_tokens;
        Self {
            info: ClusterInfo::new(cluster, tls_info),
            join_tokens: JoinTokensView { worker: tokens.worker.clone(), manager: tokens.manager.clone() },
        }
    }
}

/// Join tokens in full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinTokensView {
    /// Lets a node join as a worker.
    pub worker: Redacted,
    /// Lets a node join as a manager.
    pub manager: Redacted,
}

/// A certificate authority, as Docker's clients compare it between cluster and nodes (docker-api §0.29).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TlsInfo {
    /// Its certificate, PEM.
    #[serde(skip_serializing_if = "is_default")]
    pub trust_root: String,
    /// Subject of the issuer, DER in base64.
    #[serde(skip_serializing_if = "is_default")]
    pub cert_issuer_subject: String,
    /// Public key of the issuer, DER in base64.
    #[serde(skip_serializing_if = "is_default")]
    pub cert_issuer_public_key: String,
}

/// Response of `GET /swarm/unlockkey`, and body of `POST /swarm/unlock`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UnlockKeyView {
    /// The key; empty while autolock is off.
    pub unlock_key: Redacted,
}

/// Body of `POST /swarm/init`. Zero values mean the server's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InitRequest {
    /// `host:port` or interface to listen on.
    pub listen_addr: String,
    /// `host`, `host:port` or interface that other nodes reach this one by.
    pub advertise_addr: String,
    /// Address of overlay traffic.
    pub data_path_addr: String,
    /// UDP port of overlay traffic.
    pub data_path_port: u32,
    /// Make a new cluster of one manager from the state of this one.
    pub force_new_cluster: bool,
    /// Settings.
    pub spec: ClusterSpec,
    /// Whether managers need a key from a person after a restart.
    pub auto_lock_managers: bool,
    /// `active`, `pause`, `drain`; empty means active.
    pub availability: String,
    /// Networks from which overlay networks get their addresses; none for Docker's own. An empty list is shown as none, and
    /// means the same.
    pub default_addr_pool: Option<Vec<String>>,
    /// Prefix length of an overlay network.
    pub subnet_size: u32,
    /// Whether an overlay network that does not say so itself is encrypted. A field that Docker does not have.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypt_networks: bool,
}

impl InitRequest {
    /// The settings of overlay networks.
    pub fn overlay(&self) -> OverlaySettings {
        OverlaySettings {
            addr_pools: self
                .default_addr_pool
                .clone()
                .unwrap_or_else(|| vec![OverlaySettings::ADDR_POOL_DEFAULT.to_owned()]),
            subnet_size: self.subnet_size,
            data_path_port: self.data_path_port,
            encrypt_networks: self.encrypt_networks,
        }
    }
}

/// Body of `POST /swarm/join`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinRequest {
    /// `host:port` or interface to listen on.
    pub listen_addr: String,
    /// `host`, `host:port` or interface that other nodes reach this one by.
    pub advertise_addr: String,
    /// Address of overlay traffic.
    pub data_path_addr: String,
    /// `host:port` of managers.
    pub remote_addrs: Vec<String>,
    /// `SWMTKN-1-…`; decides the role.
    pub join_token: Redacted,
    /// `active`, `pause`, `drain`; empty means active.
    pub availability: String,
}
