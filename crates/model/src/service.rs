//! Services: what users ask for, and the record that the cluster keeps of it.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    ContainerSpec, DesiredState, Extra, GenericResource, JobStatus, Labels, NetworkAddr, Platform, Redacted, ServiceId,
    ServiceMode, Timestamp, UpdateConfig, UpdateState, UpdateStatus,
};

/// Docker's `ServiceSpec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceSpec {
    /// Name, unique in the cluster without regard to case.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Labels of the service (not of its containers).
    pub labels: Labels,
    /// What each task runs.
    pub task_template: TaskSpec,
    /// How many tasks there are.
    pub mode: ServiceMode,
    /// Policy of rolling updates; absent means the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// Policy of rollbacks; absent means the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Published ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpec>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ServiceSpec {
    /// The published ports, host mode and ingress mode alike.
    pub fn ports(&self) -> &[PortConfig] {
        self.endpoint_spec.as_ref().map_or(&[], |e| &e.ports)
    }

    /// The most tasks of a service on one node, 0 for any number; says nothing of a global one (swarm-behaviour §11).
    pub fn max_replicas_per_node(&self) -> u64 {
        let placement = self.task_template.placement.as_ref().filter(|_| !self.mode.is_global());
        placement.map_or(0, |placement| placement.max_replicas)
    }

    /// The number of replicas, if the mode has one.
    pub fn replicas(&self) -> Option<u64> {
        match &self.mode {
            ServiceMode::Replicated { replicas } => Some(*replicas),
            ServiceMode::ReplicatedJob(job) => Some(job.total()),
            ServiceMode::Global | ServiceMode::GlobalJob => None,
        }
    }
}

/// Docker's `TaskSpec`: the template of a service's tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskSpec {
    /// The container.
    pub container_spec: ContainerSpec,
    /// Limits and reservations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What happens when a task ends; absent means the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Which nodes may run the tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Networks that the tasks join.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachment>,
    /// Where the container's output goes; absent means the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
    /// A counter: a change of it replaces all tasks, and nothing else.
    pub force_update: u64,
    /// `container`, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl TaskSpec {
    /// The restart policy with its defaults filled in.
    pub fn restart(&self) -> RestartPolicy {
        self.restart_policy.clone().unwrap_or_default()
    }

    /// The same with every default written out (swarm-behaviour §1.5), as `insertDefaults` shows it.
    #[must_use]
    pub fn with_defaults(&self) -> Self {
        let mut task = self.clone();
        let container = &mut task.container_spec;
        container.stop_grace_period_ns.get_or_insert(ContainerSpec::STOP_GRACE_PERIOD_DEFAULT_NS);
        container.dns_config.get_or_insert_default();
        let resources = task.resources.get_or_insert_default();
        resources.limits.get_or_insert_default();
        resources.reservations.get_or_insert_default();
        task.restart_policy.get_or_insert_default().delay_ns.get_or_insert(RestartPolicy::DELAY_DEFAULT_NS);
        task.placement.get_or_insert_default();
        task
    }

    /// What the scheduler sets aside for a task.
    pub fn reservations(&self) -> ResourceReservations {
        self.resources.as_ref().and_then(|r| r.reservations.clone()).unwrap_or_default()
    }
}

/// Limits that the engine enforces, and reservations that the scheduler counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resources {
    /// Enforced on the container; no influence on placement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceLimits>,
    /// Set aside on the node; no influence on the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<ResourceReservations>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Limits of a container; 0 is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceLimits {
    /// Billionths of a CPU.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: i64,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: i64,
    /// Processes.
    #[serde(skip_serializing_if = "is_zero")]
    pub pids: i64,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Resources set aside for a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceReservations {
    /// Billionths of a CPU.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: i64,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: i64,
    /// Counted resources such as GPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// When a task that ended is replaced, and after how long (swarm-behaviour §3.5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// Which ends count.
    pub condition: RestartCondition,
    /// Nanoseconds between the end of a task and the start of its replacement; absent means 5 s.
    #[serde(rename = "Delay", skip_serializing_if = "Option::is_none")]
    pub delay_ns: Option<i64>,
    /// Restarts allowed per slot and spec version; 0 is unlimited.
    pub max_attempts: u64,
    /// Nanoseconds over which restarts are counted; 0, or none, counts all.
    #[serde(rename = "Window", skip_serializing_if = "Option::is_none")]
    pub window_ns: Option<i64>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl RestartPolicy {
    /// Delay when none is given (swarm-behaviour §1.5).
    pub const DELAY_DEFAULT_NS: i64 = 5_000_000_000;

    /// The delay with its default.
    pub fn delay_or_default_ns(&self) -> i64 {
        self.delay_ns.unwrap_or(Self::DELAY_DEFAULT_NS)
    }

    /// The window; 0 counts all restarts.
    pub fn window_or_default_ns(&self) -> i64 {
        self.window_ns.unwrap_or(0)
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { condition: RestartCondition::Any, delay_ns: None, max_attempts: 0, window_ns: None, extra: Extra::new() }
    }
}

/// Which ends of a task lead to a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never restart.
    None,
    /// Restart unless the task completed with exit code 0.
    OnFailure,
    /// Always restart.
    #[default]
    #[serde(alias = "")]
    Any,
}

/// Which nodes may run a service's tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Placement {
    /// Constraints in the grammar of swarm-behaviour §5.6, all of which must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Spread over the values of a label, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<PlacementPreference>,
    /// Tasks of this service on one node; 0 is unlimited.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub max_replicas: u64,
    /// Platforms that the image runs on; empty means any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

/// A placement preference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlacementPreference {
    /// Spread evenly over the values of a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadOver>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The label to spread over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SpreadOver {
    /// `node.labels.KEY` or `engine.labels.KEY`.
    pub spread_descriptor: String,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A network that tasks join.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachment {
    /// Name or id of the network.
    pub target: String,
    /// Names of the service in that network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Options for the network driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Where a container's output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogDriver {
    /// Driver name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Driver options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Published ports and their mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSpec {
    /// How clients inside the cluster find the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<EndpointMode>,
    /// Published ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How clients inside the cluster find a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// One virtual address.
    #[default]
    #[serde(alias = "")]
    Vip,
    /// The addresses of all tasks.
    Dnsrr,
}

/// A published port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortConfig {
    /// A name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Transport protocol.
    pub protocol: PortProtocol,
    /// Port inside the container.
    pub target_port: u16,
    /// Port outside; 0 lets the cluster (ingress) or the engine (host) choose.
    #[serde(skip_serializing_if = "is_zero_u16")]
    pub published_port: u16,
    /// Where the port is open.
    pub publish_mode: PublishMode,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

fn is_zero_u16(n: &u16) -> bool {
    *n == 0
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    #[default]
    #[serde(alias = "")]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl PortProtocol {
    /// `tcp`, `udp`, `sctp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port that each node of the cluster opens for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Transport protocol.
    pub protocol: PortProtocol,
    /// The port that nodes open.
    pub published: u16,
    /// The port in the container.
    pub target: u16,
}

/// The address that the tasks of a service see connections to its published ports come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IngressSource {
    /// The client's own, where that is possible; else as [`IngressSource::Node`].
    #[default]
    Client,
    /// An address of the task's node.
    Node,
    /// An address of the task's node; a header of the PROXY protocol, version 2, names the client before the first byte (TCP).
    Proxy,
    /// As [`IngressSource::Proxy`], with a header of version 1, which is a line of text.
    #[serde(rename = "proxy-v1")]
    ProxyV1,
}

impl IngressSource {
    /// `client`, `node`, `proxy`, `proxy-v1`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Node => "node",
            Self::Proxy => "proxy",
            Self::ProxyV1 => "proxy-v1",
        }
    }

    /// Whether a header names the client.
    pub fn has_header(self) -> bool {
        matches!(self, Self::Proxy | Self::ProxyV1)
    }
}

impl PublishedPort {
    /// Whether a spec asks for this port: it names the number, or leaves it to the cluster.
    pub fn is_asked_for(&self, port: &PortConfig) -> bool {
        port.publish_mode == PublishMode::Ingress
            && (port.protocol, port.target_port) == (self.protocol, self.target)
            && (port.published_port == 0 || port.published_port == self.published)
    }
}

/// Where a published port is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node (routing mesh).
    #[default]
    #[serde(alias = "")]
    Ingress,
    /// On the node of the task.
    Host,
}

/// A service as the cluster keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Id.
    pub id: ServiceId,
    /// Log index of the last change that the API's `?version=` guards.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The spec in force.
    pub spec: Arc<ServiceSpec>,
    /// A number that changes each time that the spec is set, also when a rollback brings the same spec again. A decision made
    /// for another stamp does not hold. Stamps are only compared. Version 0.1.0 counted them, and called them generations.
    #[serde(default, rename = "generation")]
    pub stamp: u64,
    /// Number of the spec version that new tasks get; see [`SpecVersion`].
    pub spec_version: u64,
    /// The spec before the last update that changed it: what a rollback goes back to.
    pub previous: Option<PreviousSpec>,
    /// Whether the last update said the same as the spec in force. Clients are then shown that spec as the previous one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// The rolling update or rollback that is under way, or the last one.
    pub update: Option<UpdateStatus>,
    /// Number of the revision in force.
    #[serde(default)]
    pub revision: u64,
    /// The last revisions of the spec, the oldest first; see [`Service::record_revision`].
    #[serde(default)]
    pub history: Vec<crate::Revision>,
    /// How often it ran, if it is a job.
    #[serde(default)]
    pub job: Option<JobStatus>,
    /// Whether the user asked for its tasks to be spread anew; they have not been since.
    #[serde(default)]
    pub rebalance: bool,
    /// The ports that all nodes open for it, with the numbers that the cluster chose.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub ports: Arc<[PublishedPort]>,
    /// Its virtual addresses in the networks of the cluster, in the order of the spec.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub virtual_addrs: Arc<[NetworkAddr]>,
}

impl Service {
    /// What is wanted of its tasks in the end: to run, or to run to their end.
    pub fn goal(&self) -> DesiredState {
        if self.job.is_some() { DesiredState::Complete } else { DesiredState::Running }
    }

    /// The present execution of a job; none for other services.
    pub fn iteration(&self) -> Option<u64> {
        self.job.as_ref().map(|job| job.iteration)
    }

    /// Whether a rollback is under way.
    pub fn rolls_back(&self) -> bool {
        self.update.as_ref().is_some_and(|update| update.state == UpdateState::RollbackStarted)
    }
}

/// The spec before an update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreviousSpec {
    /// What it was.
    pub spec: Arc<ServiceSpec>,
    /// Its spec version.
    pub spec_version: u64,
    /// Number of its revision.
    #[serde(default)]
    pub revision: u64,
}

/// One version of a service's spec, kept while a task or a revision of the service refers to it.
/// A version changes only with what makes tasks dirty (task template, endpoint); scaling keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpecVersion {
    /// The service.
    pub service: ServiceId,
    /// Log index of the entry that brought this version.
    pub version: u64,
    /// The spec as it was then. Its replica count may be out of date.
    pub spec: Arc<ServiceSpec>,
    /// Registry credentials (`X-Registry-Auth`, base64) for pulling the image.
    pub registry_auth: Option<Redacted>,
}

#[cfg(test)]
mod tests;
