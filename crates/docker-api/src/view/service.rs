//! Services.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{EndpointSpec, JobStatus, PortConfig, Service, ServiceSpec, UpdateStatus};

use super::{Time, Version, is_default};

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceView {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// What an update must name.
    pub version: Version,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// The spec in force.
    pub spec: Arc<ServiceSpec>,
    /// The spec before the last update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<Arc<ServiceSpec>>,
    /// How it is reached.
    pub endpoint: EndpointView,
    /// The last rolling update; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatusView>,
    /// Numbers of tasks; only when the list was asked for with `status=true` (docker-api §0.12, §0.13).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_status: Option<ServiceStatus>,
    /// Present for jobs only: clients tell jobs by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatusView>,
}

impl ServiceView {
    /// Shows a service; `status` is what [`ServiceView::service_status`] says, and `virtual_ips` where it has addresses.
    pub fn new(service: &Service, status: Option<ServiceStatus>, virtual_ips: Vec<VirtualIp>) -> Self {
        Self {
            id: service.id.to_string(),
            version: Version { index: service.version },
            created_at: service.created_at.into(),
            updated_at: service.updated_at.into(),
            spec: service.spec.clone(),
            previous_spec: match &service.previous {
                _ if service.repeated => Some(service.spec.clone()),
                previous => previous.as_ref().map(|previous| previous.spec.clone()),
            },
            endpoint: EndpointView {
                spec: service.spec.endpoint_spec.clone().unwrap_or_default(),
                ports: open_ports(service),
                virtual_ips,
            },
            update_status: service.update.as_ref().map(UpdateStatusView::new),
            service_status: status,
            job_status: service.job.as_ref().map(JobStatusView::new),
        }
    }
}

/// The ports of the spec, with the numbers that the cluster chose.
fn open_ports(service: &Service) -> Vec<PortConfig> {
    let open = |port: &PortConfig| {
        let chosen = service.ports.iter().find(|chosen| chosen.is_asked_for(port));
        let published_port = chosen.map_or(port.published_port, |chosen| chosen.published);
        PortConfig { published_port, ..port.clone() }
    };
    service.spec.ports().iter().map(open).collect()
}

/// How a service is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointView {
    /// What the user asked for.
    pub spec: EndpointSpec,
    /// Published ports, chosen ones filled in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// Its addresses in overlay networks.
    #[serde(rename = "VirtualIPs", skip_serializing_if = "Vec::is_empty")]
    pub virtual_ips: Vec<VirtualIp>,
}

/// Address of a service in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VirtualIp {
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Address with prefix length.
    pub addr: String,
}

/// State of a rolling update or a rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateStatusView {
    /// `updating`, `paused`, `completed`, `rollback_started`, `rollback_paused`, `rollback_completed`.
    pub state: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// For people.
    pub message: String,
}

impl UpdateStatusView {
    /// Shows an update.
    pub fn new(update: &UpdateStatus) -> Self {
        Self {
            state: update.state.as_str().into(),
            started_at: Some(update.started_at.into()),
            completed_at: update.completed_at.map(Time::from),
            message: update.message.to_string(),
        }
    }
}

/// Numbers of tasks of a service (swarm-behaviour §11.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceStatus {
    /// Tasks that run, those that are being stopped included.
    pub running_tasks: u64,
    /// Tasks that there should be.
    pub desired_tasks: u64,
    /// Tasks of a job that have completed.
    pub completed_tasks: u64,
}

/// Progress of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobStatusView {
    /// Number of its current execution.
    pub job_iteration: Version,
    /// When it began.
    pub last_execution: Time,
}

impl JobStatusView {
    fn new(job: &JobStatus) -> Self {
        Self { job_iteration: Version { index: job.iteration }, last_execution: job.last_execution.into() }
    }
}

/// Response of `POST /services/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateServiceResponse {
    /// Id of the new service.
    #[serde(rename = "ID", skip_serializing_if = "is_default")]
    pub id: String,
    /// What the user should know; null when there is nothing.
    pub warnings: Option<Vec<String>>,
}

/// Response of `POST /services/{id}/update`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateServiceResponse {
    /// What the user should know; null when there is nothing.
    pub warnings: Option<Vec<String>>,
}
