//! The object model: what a cluster consists of, and nothing about how it behaves.
//!
//! * What users write ([`ServiceSpec`], [`NodeSpec`], [`ClusterSpec`]) keeps Docker's own JSON shape, unknown
//!   fields included, so that the API, the log and memory share one definition and a read-modify-write by an
//!   unmodified `docker` CLI gives back every field that it was shown.
//! * What the cluster observes and decides ([`Task`], [`Node`], [`Service`], [`Cluster`]) are enums and structs of
//!   our own, written in named MessagePack.
//!
//! Not here: time, randomness, I/O, policy. Leniency towards clients is in `swarm-docker-api`.

mod attachment;
mod author;
mod canonical;
mod cluster;
mod config;
mod constraint;
mod container;
mod duration;
mod engine;
mod error;
mod extra;
mod id;
mod job;
mod known;
mod mode;
pub mod mutant;
mod network;
mod node;
mod object;
mod object_file;
mod privileges;
mod redacted;
mod revision;
mod secret;
mod service;
mod settings;
mod task;
mod time;
mod units;
mod update;
mod validate;
mod warning;

pub use attachment::Attachment;
pub use author::{Author, NodeName, Principal};
pub use canonical::{Alike, CanonicalSpec, CanonicalTasks};
pub use cluster::{
    CaConfig, Cluster, ClusterSpec, DispatcherConfig, EncryptionConfig, JoinTokens, OrchestrationConfig,
    OverlaySettings, RaftConfig, RootCa, RootRotation, TaskDefaults,
};
pub use config::{CONFIG_BYTES_LIMIT, ConfigContent};
pub use constraint::{Constraint, ConstraintKey, Operator};
pub use container::{
    BindOptions, ContainerSpec, DnsConfig, HealthConfig, Mount, MountType, TmpfsOptions, Ulimit, VolumeDriver,
    VolumeOptions,
};
pub use duration::{format_duration, parse_duration};
pub use engine::EngineNeed;
pub use error::Invalid;
pub use extra::{Extra, says_nothing};
pub use id::{ClusterId, Id, IdParseError, NodeId, ObjectId, ServiceId, TaskId};
pub use job::{JobStatus, ReplicatedJob};
pub use known::{Unfit, check_fields};
pub use mode::ServiceMode;
pub use network::{
    INGRESS_NETWORK, NETWORK_ID_LABEL, NETWORK_NAME_LABEL, NetworkAddr, NetworkContent, NetworkSubnet, OVERLAY_DRIVER,
    PREDEFINED_NETWORKS, bits, validate_network,
};
pub use node::{
    Availability, DataAddress, EngineDescription, EnginePlugin, GenericResource, Node, NodeCertificate,
    NodeDescription, NodeResources, NodeRole, NodeSpec, NodeState, NodeStatus, Platform,
};
pub use object::{
    NamedObject, OBJECT_NAME_LEN_MAX, ObjectContent, ObjectKey, ObjectKind, ObjectReference, REFERENCES, ReferenceList,
    Templating, validate_object,
};
pub use object_file::{OBJECT_FILE_MODE_DEFAULT, ObjectFile};
pub use privileges::{MemorySwap, security_options};
pub use redacted::Redacted;
pub use revision::{REVISIONS_MAX, Restored, Revision};
pub use secret::{SECRET_BYTES_LIMIT, SecretBytes, SecretContent};
pub use service::{
    EndpointMode, EndpointSpec, IngressSource, LogDriver, NetworkAttachment, Placement, PlacementPreference,
    PortConfig, PortProtocol, PreviousSpec, PublishMode, PublishedPort, ResourceLimits, ResourceReservations,
    Resources, RestartCondition, RestartPolicy, Service, ServiceSpec, SpecVersion, SpreadOver, TaskSpec,
};
pub use settings::{
    DRAIN_TIMEOUT_DEFAULT_NS, Ingress, IngressChoice, MaxUnavailable, PlacementStrategy, SETTINGS_PREFIX, Settings,
    check_node_settings, drains_by_policy,
};
pub use task::{Cause, ContainerStatus, DesiredState, PortStatus, Task, TaskState, TaskStatus};
pub use time::Timestamp;
pub use units::{format_bytes, format_cpus};
pub use update::{FailureAction, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus};
pub use validate::{
    LABELS_BYTES_MAX, MEMORY_BYTES_MIN, NAME_LEN_MAX, NANO_CPUS_MIN, REPLICAS_MAX, SPEC_BYTES_MAX, service_warnings,
    validate_cluster_spec, validate_node_spec, validate_overlay, validate_service_spec,
};
pub use warning::{NodeWarning, WarnedPort, WarningCause};

/// Key–value labels; ordered, so that two equal sets are written alike.
pub type Labels = std::collections::BTreeMap<String, String>;
