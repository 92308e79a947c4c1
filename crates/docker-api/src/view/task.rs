//! Tasks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{GenericResource, Labels, PortConfig, PublishMode, Task, TaskSpec, TaskState, TaskStatus};

use super::{NetworkAttachmentView, Time, Version, is_default};

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskView {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Log index of the last change.
    pub version: Version,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// Always empty: labels belong to services and containers.
    pub labels: Labels,
    /// What it runs; the container spec is always there (docker-api §0.15).
    pub spec: Arc<TaskSpec>,
    /// Its service.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Its place in the service, from 1, in a job from 0; absent for tasks of global services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u64>,
    /// Its node; absent until it has one.
    #[serde(rename = "NodeID", skip_serializing_if = "is_default")]
    pub node_id: String,
    /// What is observed of it.
    pub status: TaskStatusView,
    /// What is wanted of it.
    pub desired_state: String,
    /// The networks of the swarm in which it has addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks_attachments: Vec<NetworkAttachmentView>,
    /// What it got of its node's generic resources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
    /// Which execution of a job it belongs to; absent for other services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<Version>,
}

impl TaskView {
    /// Shows a task. `spec` is the task template of its spec version, see [`TaskView::spec_of`], and `networks` is where it
    /// has addresses.
    pub fn new(task: &Task, spec: Arc<TaskSpec>, networks: Vec<NetworkAttachmentView>) -> Self {
        Self {
            id: task.id.to_string(),
            version: Version { index: task.version },
            created_at: task.created_at.into(),
            updated_at: task.updated_at.into(),
            labels: Labels::new(),
            spec,
            service_id: task.service.to_string(),
            slot: task.number().map(u64::from),
            node_id: task.node.map(|n| n.to_string()).unwrap_or_default(),
            status: TaskStatusView::new(&task.status),
            desired_state: task.desired.as_str().into(),
            networks_attachments: networks,
            generic_resources: task.generic_resources.to_vec(),
            job_iteration: task.iteration.map(|index| Version { index }),
        }
    }

    /// A service's task template as its tasks show it: without the runtime, which only services name.
    pub fn spec_of(template: &TaskSpec) -> TaskSpec {
        TaskSpec { runtime: String::new(), ..template.clone() }
    }
}

/// Observed status of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskStatusView {
    /// When its agent saw it.
    pub timestamp: Time,
    /// How far it is, for example `running`.
    pub state: String,
    /// What goes with the state.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    /// What went wrong; for a pending task, why no node fits.
    #[serde(skip_serializing_if = "is_default")]
    pub err: String,
    /// The container, once there is one; an empty one for a task that was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatusView>,
    /// Host-mode ports that are open.
    pub port_status: PortStatusView,
}

impl TaskStatusView {
    /// Shows a status.
    pub fn new(status: &TaskStatus) -> Self {
        let ports = status.ports.iter().map(|port| PortConfig {
            protocol: port.protocol,
            target_port: port.target_port,
            published_port: port.published_port,
            publish_mode: PublishMode::Host,
            ..PortConfig::default()
        });
        Self {
            timestamp: status.at.into(),
            state: status.state.as_str().into(),
            message: status.message().into(),
            err: status.err.as_deref().unwrap_or_default().into(),
            container_status: match &status.container {
                Some(c) => Some(ContainerStatusView {
                    container_id: c.id.clone(),
                    pid: c.pid,
                    exit_code: c.exit_code.unwrap_or(0),
                }),
                // Docker's agents say so of a task that they could not begin with.
                None => (status.state == TaskState::Rejected).then(ContainerStatusView::default),
            },
            port_status: PortStatusView { ports: ports.collect() },
        }
    }
}

/// The container behind a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerStatusView {
    /// Id of the container.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Process id on its node; 0 when it does not run.
    #[serde(rename = "PID")]
    pub pid: i64,
    /// Exit code; 0 while it runs.
    pub exit_code: i64,
}

/// Ports that are really open on a task's node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortStatusView {
    /// One by one. Docker's engine lists each twice, for IPv4 and IPv6; this program once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
}

#[cfg(test)]
mod tests {
    use swarm_model::Timestamp;

    use super::*;

    #[test]
    fn a_rejected_task_has_an_empty_container() {
        let shown = |state| TaskStatusView::new(&TaskStatus::new(state, Timestamp::ZERO)).container_status;
        assert_eq!(shown(TaskState::Rejected), Some(ContainerStatusView::default()));
        assert_eq!(shown(TaskState::Pending), None);
    }
}
