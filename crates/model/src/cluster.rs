//! The cluster: its settings, its certificate authority, its tokens.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, Extra, Labels, LogDriver, NodeId, Redacted, Timestamp};

/// Docker's `swarm.Spec`. Absent and zero values mean the defaults of swarm-behaviour §1.3, which
/// [`ClusterSpec::fill_defaults`] writes in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterSpec {
    /// Always `default`.
    pub name: String,
    /// Labels of the cluster.
    pub labels: Labels,
    /// Task history.
    pub orchestration: OrchestrationConfig,
    /// Raft.
    pub raft: RaftConfig,
    /// Heartbeats.
    pub dispatcher: DispatcherConfig,
    /// Certificates.
    #[serde(rename = "CAConfig")]
    pub ca_config: CaConfig,
    /// Defaults of tasks.
    pub task_defaults: TaskDefaults,
    /// Autolock.
    pub encryption_config: EncryptionConfig,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ClusterSpec {
    /// Ended tasks kept per slot, with the live one.
    pub const TASK_HISTORY_DEFAULT: i64 = 5;
    /// Validity of node certificates: 90 days.
    pub const NODE_CERT_EXPIRY_DEFAULT_NS: i64 = 7_776_000_000_000_000;
    /// Time between two heartbeats: 2 s (Swarm: 5 s).
    pub const HEARTBEAT_PERIOD_DEFAULT_NS: i64 = 2_000_000_000;
    /// Log entries between two snapshots.
    pub const SNAPSHOT_INTERVAL_DEFAULT: u64 = 10_000;

    /// Replaces absent and zero values by the defaults.
    pub fn fill_defaults(&mut self) {
        fn or<T: Default + PartialEq>(value: &mut T, default: T) {
            if *value == T::default() {
                *value = default;
            }
        }
        or(&mut self.name, "default".to_owned());
        self.orchestration.task_history_retention_limit.get_or_insert(Self::TASK_HISTORY_DEFAULT);
        or(&mut self.raft.snapshot_interval, Self::SNAPSHOT_INTERVAL_DEFAULT);
        or(&mut self.raft.log_entries_for_slow_followers, 500);
        or(&mut self.raft.election_tick, 10);
        or(&mut self.raft.heartbeat_tick, 1);
        or(&mut self.dispatcher.heartbeat_period_ns, Self::HEARTBEAT_PERIOD_DEFAULT_NS);
        or(&mut self.ca_config.node_cert_expiry_ns, Self::NODE_CERT_EXPIRY_DEFAULT_NS);
    }

    /// Ended tasks kept per slot, with the live one; negative keeps all.
    pub fn task_history(&self) -> i64 {
        self.orchestration.task_history_retention_limit.unwrap_or(Self::TASK_HISTORY_DEFAULT)
    }
}

/// Settings of the orchestrators.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct OrchestrationConfig {
    /// Tasks kept per slot, the live one included; negative keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<i64>,
}

/// Settings of Raft.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RaftConfig {
    /// Log entries between two snapshots.
    pub snapshot_interval: u64,
    /// Older snapshots that are kept.
    #[serde(default)]
    pub keep_old_snapshots: u64,
    /// Log entries kept behind a snapshot.
    pub log_entries_for_slow_followers: u64,
    /// Shown for Docker's clients; our timers are fixed (design §5).
    pub election_tick: i64,
    /// Shown for Docker's clients; our timers are fixed (design §5).
    pub heartbeat_tick: i64,
}

/// Settings of the dispatcher.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DispatcherConfig {
    /// Nanoseconds between two heartbeats of an agent.
    #[serde(rename = "HeartbeatPeriod")]
    pub heartbeat_period_ns: i64,
}

/// Settings of the certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CaConfig {
    /// Nanoseconds that a node certificate is valid.
    #[serde(rename = "NodeCertExpiry")]
    pub node_cert_expiry_ns: i64,
    /// A higher number than before asks for another root CA.
    #[serde(skip_serializing_if = "is_zero")]
    pub force_rotate: u64,
    /// The certificate, PEM, of an authority of the operator's own that is to replace the present one. It is never kept
    /// here, nor is its key.
    #[serde(rename = "SigningCACert", skip_serializing)]
    pub signing_ca_cert: String,
    /// Its private key, PEM.
    #[serde(rename = "SigningCAKey", skip_serializing)]
    pub signing_ca_key: Redacted,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

// serde passes a reference.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Defaults of tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskDefaults {
    /// Used when a service names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
}

/// Autolock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EncryptionConfig {
    /// Whether managers need a key from a person after a restart.
    pub auto_lock_managers: bool,
}

/// The cluster as it is kept. There is one, from `swarm init` on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Id; the organisation (O) of every node certificate.
    pub id: ClusterId,
    /// Log index of the last change that the API's `?version=` guards.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Settings, defaults filled in.
    pub spec: Arc<ClusterSpec>,
    /// The certificate authority.
    pub root_ca: Arc<RootCa>,
    /// The change to another authority, while it is under way (swarm-behaviour §9.3).
    #[serde(default)]
    pub root_rotation: Option<Arc<RootRotation>>,
    /// Key identifiers of the authorities that were replaced: what they signed never counts again.
    #[serde(default)]
    pub former_roots: BTreeSet<String>,
    /// The secrets that let nodes join.
    pub join_tokens: Arc<JoinTokens>,
    /// Removed nodes, locked out until their certificates have expired (swarm-behaviour §1.3).
    pub removed_nodes: BTreeMap<NodeId, Timestamp>,
    /// Autolock's key, `SWMKEY-1-…`, while autolock is on.
    #[serde(default)]
    pub unlock_key: Option<Redacted>,
    /// The settings of overlay networks, chosen when the cluster is made.
    #[serde(default)]
    pub overlay: OverlaySettings,
}

/// The settings of overlay networks, as the user gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlaySettings {
    /// Networks in CIDR form that overlay networks get their addresses from; none means the default.
    pub addr_pools: Vec<String>,
    /// Prefix length of an overlay network; 0 means the default.
    pub subnet_size: u32,
    /// UDP port of overlay traffic; 0 means the default.
    pub data_path_port: u32,
    /// Whether networks are encrypted that do not say it themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypt_networks: bool,
}

impl OverlaySettings {
    /// The network that addresses come from when none is given.
    pub const ADDR_POOL_DEFAULT: &str = "10.0.0.0/8";
    /// The prefix length when none is given.
    pub const SUBNET_SIZE_DEFAULT: u32 = 24;
    /// The port when none is given.
    pub const DATA_PATH_PORT_DEFAULT: u32 = 4789;

    /// The networks that overlay networks get their addresses from, with the default. What is no network is left out.
    pub fn pools(&self) -> Vec<Ipv4Net> {
        let given = self.addr_pools.iter().map(String::as_str);
        let default = Some(Self::ADDR_POOL_DEFAULT).filter(|_| self.addr_pools.is_empty());
        given.chain(default).filter_map(|pool| pool.parse::<Ipv4Net>().ok()).map(|pool| pool.trunc()).collect()
    }

    /// The prefix length with its default.
    pub fn subnet_size_or_default(&self) -> u32 {
        if self.subnet_size == 0 { Self::SUBNET_SIZE_DEFAULT } else { self.subnet_size }
    }

    /// The port with its default.
    pub fn data_path_port_or_default(&self) -> u32 {
        if self.data_path_port == 0 { Self::DATA_PATH_PORT_DEFAULT } else { self.data_path_port }
    }

    /// Whether something was chosen that takes effect with overlay networks only. Clients always send a prefix length.
    pub fn says_something(&self) -> bool {
        let port = self.data_path_port_or_default();
        self.addr_pools.iter().any(|pool| pool != Self::ADDR_POOL_DEFAULT)
            || self.subnet_size_or_default() != Self::SUBNET_SIZE_DEFAULT
            || port != Self::DATA_PATH_PORT_DEFAULT
            || self.encrypt_networks
    }
}

impl Cluster {
    /// The authority that signs certificates now.
    pub fn issuing_root(&self) -> &RootCa {
        self.root_rotation.as_ref().map_or(&*self.root_ca, |rotation| &rotation.root)
    }

    /// All root certificates that nodes are to trust now, PEM.
    pub fn trusted_pem(&self) -> String {
        let new = self.root_rotation.as_ref().map_or("", |rotation| &rotation.root.cert_pem);
        [&self.root_ca.cert_pem, new].concat()
    }

    /// Whether certificates count that come from the authority with this key. An authority of a log from before there
    /// was more than one is not told apart.
    pub fn trusts(&self, key_id: &str) -> bool {
        self.root_ca.key_id.is_empty() || key_id == self.root_ca.key_id || key_id == self.issuing_root().key_id
    }
}

/// The cluster's own certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCa {
    /// Certificate, PEM.
    pub cert_pem: String,
    /// Private key, PEM.
    pub key_pem: Redacted,
    /// Key identifier of the certificate, hexadecimal: certificates name their issuer by it.
    #[serde(default)]
    pub key_id: String,
}

/// The change to another certificate authority. Certificates come from the new one and bring what the old one says of
/// it along, until all nodes have one; then the old one is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRotation {
    /// The new authority.
    pub root: RootCa,
    /// Its key, signed by the old authority, PEM: who only knows the old one trusts the new one by it.
    pub cross_signed_pem: String,
}

/// Join tokens in full, `SWMTKN-1-<digest>-<secret>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokens {
    /// Lets a node join as a worker.
    pub worker: Redacted,
    /// Lets a node join as a manager.
    pub manager: Redacted,
}
