//! The shapes of requests and responses. A server writes them and `swarmctl` reads them.
//!
//! Reading is lenient: what is absent is its default, what is unknown is ignored, ids and states are plain text, so
//! that a client also understands a server that knows more states, or longer ids, than this program.

mod cluster;
mod config;
mod endpoints;
mod history;
mod managers;
mod network;
mod node;
mod object;
mod plan;
mod reach;
mod secret;
mod service;
mod system;
mod task;
mod time;
mod warning;
mod why;

pub use cluster::{ClusterInfo, InitRequest, JoinRequest, JoinTokensView, SwarmView, TlsInfo, UnlockKeyView};
pub use config::{ConfigRequest, ConfigSpecView};
pub use endpoints::{EndpointStatsView, EndpointsView, RefusedView, SilentNodeView, TaskEndpointView};
pub use history::RevisionView;
pub use managers::{ManagerView, ManagersView};
pub use network::{
    AttachedNetworkView, ConfigReference, CreateNetworkResponse, IpamConfigView, IpamOptionsView, IpamRangeView,
    IpamView, NETWORK_FILTERS, NetworkAttachmentView, NetworkContainerView, NetworkPeerView, NetworkRequest,
    NetworkServiceView, NetworkSpecView, NetworkTaskView, NetworkView, PruneNetworksResponse, SWARM_SCOPE,
    VXLAN_OPTION,
};
pub use node::{ManagerStatusView, NodeDescriptionView, NodeStatusView, NodeView};
pub use object::{CreateObjectResponse, DriverView, ObjectSpecView, ObjectView};
pub use plan::{PlanRequest, PlanView, RolledBackView, StayingView, StepView, WaitingView, WaveView};
pub use reach::{ReachView, UnreachedView};
pub use secret::{SecretRequest, SecretSpecView};
pub use service::{
    CreateServiceResponse, EndpointView, JobStatusView, ServiceStatus, ServiceView, UpdateServiceResponse,
    UpdateStatusView, VirtualIp,
};
pub use system::{ComponentView, InfoView, PeerView, PlatformView, SwarmInfo, VersionView};
pub use task::{ContainerStatusView, PortStatusView, TaskStatusView, TaskView};
pub use time::Time;
pub use warning::ServiceWarningView;
pub use why::{FailureView, NodeRejectionView, RejectionView, RestartView, TaskWhyView, WhyView};

use serde::{Deserialize, Serialize};

/// Version of an object: what an update must name in `?version=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// Log index of the last change; absent when zero.
    #[serde(skip_serializing_if = "is_default")]
    pub index: u64,
}

/// Body of every error response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorMessage {
    /// What was wrong, for people.
    pub message: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
