//! Tasks: one-way state machines, each one attempt to run one container.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{GenericResource, NetworkAddr, NodeId, PortProtocol, ServiceId, TaskId, Timestamp};

/// Observed state of a task, written by its agent. It only goes up (swarm-behaviour §2.1, §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Waits for a node, or for room on the one that it is meant for. No agent has it.
    Pending,
    /// Has a node.
    Assigned,
    /// The agent has it.
    Accepted,
    /// The agent pulls the image and creates the container.
    Preparing,
    /// The container exists and may be started.
    Ready,
    /// Started; waits to be healthy.
    Starting,
    /// Runs, and is healthy if there is a health check.
    Running,
    /// Ended by itself with exit code 0.
    Complete,
    /// Stopped because it was asked to.
    Shutdown,
    /// Ended by itself with an error, at or after the start.
    Failed,
    /// Could not be started, or its node no longer fits.
    Rejected,
    /// Its node is gone; what became of it is unknown.
    Orphaned,
}

impl TaskState {
    /// All states, lowest first.
    pub const ALL: [Self; 12] = [
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Orphaned,
    ];

    /// Whether nothing more will happen.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }

    /// The name that Docker's API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Orphaned => "orphaned",
        }
    }

    /// The message that goes with a state when there is nothing special to say (docker-api §6).
    pub const fn default_message(self) -> &'static str {
        match self {
            Self::Pending => "pending task scheduling",
            Self::Assigned => "scheduler assigned task to node",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "prepared",
            Self::Starting => "starting",
            Self::Running => "started",
            Self::Complete => "finished",
            Self::Shutdown => "shutdown",
            Self::Failed => "started",
            Self::Rejected => "preparing",
            Self::Orphaned => "node is gone",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the orchestrators want of a task. It only goes up (swarm-behaviour §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// Prepare, then wait.
    Ready,
    /// Run.
    Running,
    /// Run to the end (jobs).
    Complete,
    /// Stop; keep the record as history.
    Shutdown,
    /// Stop; then delete the record.
    Remove,
}

impl DesiredState {
    /// Whether the task is meant to live.
    pub fn is_live(self) -> bool {
        self < Self::Shutdown
    }

    /// The name that Docker's API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for DesiredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The container behind a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Id of the container; empty if there was none.
    pub id: String,
    /// Process id on its node; 0 when it does not run.
    pub pid: i64,
    /// Exit code once it has ended.
    pub exit_code: Option<i64>,
}

/// A port that is really open on the task's node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Transport protocol.
    pub protocol: PortProtocol,
    /// Port inside the container.
    pub target_port: u16,
    /// Port on the node.
    pub published_port: u16,
}

/// Observed status of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// How far it is.
    pub state: TaskState,
    /// When the agent saw it (the agent's clock).
    pub at: Timestamp,
    /// What goes with the state when it is not [`TaskState::default_message`].
    pub message: Option<Arc<str>>,
    /// What went wrong, for people; for a pending task, why no node fits.
    pub err: Option<Arc<str>>,
    /// The container, once there is one.
    pub container: Option<Arc<ContainerStatus>>,
    /// Host-mode ports that are open.
    pub ports: Arc<[PortStatus]>,
}

impl TaskStatus {
    /// A status with nothing but a state.
    pub fn new(state: TaskState, at: Timestamp) -> Self {
        Self { state, at, message: None, err: None, container: None, ports: Arc::default() }
    }

    /// The message to show.
    pub fn message(&self) -> &str {
        self.message.as_deref().unwrap_or(self.state.default_message())
    }
}

/// Why a task was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Its slot had no task.
    Fill,
    /// The one before it ended, or lost its node.
    Restart,
    /// A rolling update or rollback replaced the one before it; only these count for the failure ratio
    /// (swarm-behaviour §4.5).
    Update,
    /// The one before it is to leave its node, which is drained, or has more tasks than another.
    Move,
}

/// A task as the cluster keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Id.
    pub id: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// The [`SpecVersion`](crate::SpecVersion) that it runs.
    pub spec_version: u64,
    /// Its place in the service, from 1; 0 for a task of a global service, whose place is its node.
    /// People and clients see [`Task::number`].
    pub slot: u32,
    /// Which execution of a job it belongs to; none for other services.
    #[serde(default)]
    pub iteration: Option<u64>,
    /// Its node; none while it is pending, unless it is a task of a global service. Set once.
    pub node: Option<NodeId>,
    /// Why it was made.
    pub cause: Cause,
    /// What is wanted of it.
    pub desired: DesiredState,
    /// What is observed of it.
    pub status: TaskStatus,
    /// When the manager stored `status` (the cluster's clock); restart delays and windows count from here.
    pub status_applied_at: Timestamp,
    /// When it first ran or ended, whichever came first (the cluster's clock): an update waits and watches from here.
    pub reached_at: Option<Timestamp>,
    /// Log index of the last change.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// For a task with desired state ready: when its restart delay ends and it may run.
    pub start_at: Option<Timestamp>,
    /// What it got of its node's generic resources (swarm-behaviour §5.7).
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub generic_resources: Arc<[GenericResource]>,
    /// Restarts in a row that led to it: what `swarmd.restart.backoff` counts.
    #[serde(default)]
    pub restarts: u32,
    /// Its addresses in the networks of the cluster, in the order of the spec; given with its node.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub addrs: Arc<[NetworkAddr]>,
}

impl Task {
    /// The number of its slot as people and clients see it; none for a task of a global service. The slots of services
    /// count from 1, those of jobs from 0 (swarm-behaviour §1.6; the docker CLI counts the tasks of a job so).
    pub fn number(&self) -> Option<u32> {
        self.slot.checked_sub(u32::from(self.iteration.is_some())).filter(|_| self.slot > 0)
    }

    /// Whether it is a job's task that has completed as it was meant to: it stays as it is, and counts.
    pub fn is_done(&self) -> bool {
        self.desired == DesiredState::Complete && self.status.state == TaskState::Complete
    }

    /// Whether it is meant to live and has not ended.
    pub fn is_live(&self) -> bool {
        self.desired.is_live() && !self.status.state.is_terminal()
    }

    /// Whether it holds its node's resources and ports: it was assigned and has not ended
    /// (swarm-behaviour §5.1; stopping tasks still hold them).
    pub fn holds_resources(&self) -> bool {
        (TaskState::Assigned..=TaskState::Running).contains(&self.status.state)
    }
}
