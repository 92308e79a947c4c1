//! What the agent asks of a container engine.
//!
//! Two implementations: [`DockerExecutor`](crate::DockerExecutor) and [`SimulatedExecutor`](crate::SimulatedExecutor).
//! Every call bounds its own time and its own share of the engine; a call that gives up says
//! [`EngineError::Unreachable`], which never counts against a task.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use swarm_model::{EngineDescription, NodeId, NodeResources, ObjectId, Platform, PortStatus, TaskId, Timestamp};
use swarm_wire::agent::{AssignedObject, AssignedSpec, AssignedTask};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// Why a call to the engine failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EngineError {
    /// The engine answered and trying again would not help.
    #[error("{0}")]
    Fatal(String),
    /// The engine created a container and cannot start it: its program is missing, for example.
    #[error("{reason}")]
    NotStarted {
        /// Why.
        reason: String,
        /// The exit code that stands for it: 127 for a program that is missing, 126 for one that cannot be run.
        exit_code: i64,
    },
    /// The engine answered, and may answer otherwise later.
    #[error("{0}")]
    Temporary(String),
    /// The engine did not answer; what became of the call is unknown.
    #[error("the container engine does not answer: {0}")]
    Unreachable(String),
    /// The caller did not want it any more.
    #[error("cancelled")]
    Cancelled,
}

/// The node, as containers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Id; the label that marks the containers of this node.
    pub id: NodeId,
    /// Host name, for templates.
    pub hostname: String,
    /// Processor and operating system, for templates; empty until the engine has said them.
    pub platform: Platform,
    /// The address on which host-mode ports are open; none means all of the host's addresses.
    pub bind_addr: Option<IpAddr>,
}

/// All that is needed to make or find the container of a task.
#[derive(Clone, Debug)]
pub struct ContainerRequest {
    /// The node.
    pub node: Arc<NodeIdentity>,
    /// The task.
    pub task: AssignedTask,
    /// What to run.
    pub spec: Arc<AssignedSpec>,
    /// The objects that the spec names, as the node has them.
    pub objects: Arc<[Arc<AssignedObject>]>,
}

impl ContainerRequest {
    /// The slot, or the node's id for a task of a global service (swarm-behaviour §7.5).
    pub fn slot(&self) -> String {
        self.task.slot.map_or_else(|| self.node.id.to_string(), |slot| slot.to_string())
    }

    /// `<service>.<slot>.<task id>`, the name of the task and of its container (swarm-behaviour §7.4).
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.spec.service_name, self.slot(), self.task.id)
    }
}

/// Health of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// There is no health check.
    #[default]
    None,
    /// Not known yet.
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many checks in a row failed.
    Unhealthy,
}

/// A container that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Id of the container.
    pub id: String,
    /// When this run of the container began, by the engine's clock; zero if not known. Another time is another run.
    pub started_at: Timestamp,
    /// Process id on the host; 0 if not known.
    pub pid: i64,
    /// Its health.
    pub health: Health,
    /// Open host-mode ports.
    pub ports: Vec<PortStatus>,
    /// The address at which its node reaches it, if it has one.
    pub addr: Option<IpAddr>,
    /// The file of its network namespace, as the engine says it.
    pub sandbox: Option<PathBuf>,
}

/// A container that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exited {
    /// Id of the container.
    pub id: String,
    /// When the run that ended had begun; as in [`Running`].
    pub started_at: Timestamp,
    /// Exit code.
    pub exit_code: i64,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// What the engine has to say about it; usually empty.
    pub error: String,
}

/// What is known of a task's container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Observed {
    /// Nothing: the agent or the engine was restarted, or a call has an unknown outcome.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// It is there and was never started.
    Created {
        /// Id of the container.
        id: String,
    },
    /// It runs.
    Running(Running),
    /// It ended.
    Exited(Exited),
}

impl Observed {
    /// When the present run of the container began, or the last one; zero if not known, or if it never ran.
    pub fn started_at(&self) -> Timestamp {
        match self {
            Self::Unknown | Self::Absent | Self::Created { .. } => Timestamp::ZERO,
            Self::Running(r) => r.started_at,
            Self::Exited(e) => e.started_at,
        }
    }

    /// Id of the container, if there is one.
    pub fn container_id(&self) -> Option<&str> {
        match self {
            Self::Unknown | Self::Absent => None,
            Self::Created { id } => Some(id),
            Self::Running(r) => Some(&r.id),
            Self::Exited(e) => Some(&e.id),
        }
    }
}

/// A container of this node, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its task; none if that label is missing or no id.
    pub task: Option<TaskId>,
    /// Its state. When it was started may be missing; of a running container the process id and the ports, of an exited
    /// one the exit code.
    pub state: Observed,
}

/// The engine's part of a network of the cluster: a bridge network of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnginePart {
    /// The engine's id of the part.
    pub id: String,
    /// The engine's name of the part, mostly the name of the network.
    pub name: String,
    /// Whether the engine takes a hardware address for each network. An older engine makes it from the address.
    pub takes_mac: bool,
}

/// A container that is no task, in networks of the cluster. It is created, runs, or is about to be started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedContainer {
    /// Id of the container.
    pub id: String,
    /// The networks; at least one.
    pub networks: Vec<AttachedNetwork>,
    /// Whether it runs.
    pub is_running: bool,
    /// Process id on the host; 0 if it does not run.
    pub pid: i64,
    /// The file of its network namespace, if it runs.
    pub sandbox: Option<PathBuf>,
    /// The resolvers that it was made with.
    pub nameservers: Vec<IpAddr>,
}

/// A network that a container is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedNetwork {
    /// The network.
    pub network: ObjectId,
    /// The addresses of the container there; at least one.
    pub addrs: Vec<IpAddr>,
    /// The names of the container there: its own comes first.
    pub names: Vec<String>,
}

/// An event of the engine about the container of a task, or about the networks of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// The container of this task has ended.
    Ended(TaskId),
    /// It ended, changed its health or is gone.
    Changed(TaskId),
    /// It was started, by us or by somebody else.
    Started(TaskId),
    /// Somebody had it restarted: a [`ContainerEvent::Started`] came before.
    Restarted(TaskId),
    /// A container of this engine's id, of a task or not, was connected to a network or disconnected. Without an id: a network,
    /// or a container that is no task, was removed or renamed.
    NetworkChanged(Option<String>),
}

/// What the engine says of itself and of its host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineReport {
    /// Processor and operating system.
    pub platform: Platform,
    /// Processors and memory of the host.
    pub resources: NodeResources,
    /// Version, labels, drivers.
    pub engine: EngineDescription,
    /// The id of the engine.
    pub engine_id: String,
}

/// Which log lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSelection {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on when the end is reached, until the container ends.
    pub follow: bool,
    /// Not older than this; zero for all.
    pub since: Timestamp,
    /// Only so many lines from the end.
    pub tail: Option<u64>,
}

/// A line of a container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whether it comes from standard error.
    pub stderr: bool,
    /// When it was written.
    pub at: Timestamp,
    /// The bytes, with the line end if there was one.
    pub data: Bytes,
}

/// A container engine. Methods that name a container by id leave it to the caller that it is one of this node's.
pub trait Executor: Send + Sync + 'static {
    /// Whether the engine answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), EngineError>>;

    /// What the engine is like.
    fn describe(&self) -> BoxFuture<'_, Result<EngineReport, EngineError>>;

    /// All containers that carry the node's label, running or not.
    fn list(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<Listed>, EngineError>>;

    /// What happens to the containers of tasks, from `since` on. The stream ends when it breaks; what happened meanwhile
    /// must then be found out by listing.
    fn events(&self, node: NodeId, since: Timestamp) -> BoxStream<'static, ContainerEvent>;

    /// Finds the container of a task by its name. A container of that name that is not this task's is "absent".
    fn inspect(&self, request: ContainerRequest) -> BoxFuture<'_, Result<Observed, EngineError>>;

    /// Gets the image and creates the container, or finds the one that is already there.
    /// `cancel` ends the wait for the image.
    fn prepare(
        &self,
        request: ContainerRequest,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Observed, EngineError>>;

    /// Starts a container; one that was started before is fine.
    fn start(&self, id: String) -> BoxFuture<'_, Result<Observed, EngineError>>;

    /// Asks a container to stop and kills it after so many seconds; one that does not run is fine.
    fn stop(&self, id: String, grace_secs: u32) -> BoxFuture<'_, Result<Observed, EngineError>>;

    /// Stops a container and removes it with its anonymous volumes; one that is gone is fine.
    fn remove(&self, id: String, grace_secs: u32) -> BoxFuture<'_, Result<(), EngineError>>;

    /// Puts the files of a task, made of its secrets and configs, where its container finds them. Those that are there stay
    /// as they are. [`Executor::prepare`] does the same by itself.
    fn put_files(&self, request: ContainerRequest) -> BoxFuture<'_, Result<(), EngineError>> {
        let _ = request;
        Box::pin(async { Ok(()) })
    }

    /// Removes the files of a task of a node.
    fn drop_files(&self, node: NodeId, task: TaskId) -> BoxFuture<'_, ()> {
        let _ = (node, task);
        Box::pin(async {})
    }

    /// Removes the files of all tasks of a node but these, which an earlier run left.
    fn keep_files(&self, node: NodeId, tasks: Vec<TaskId>) -> BoxFuture<'_, ()> {
        let _ = (node, tasks);
        Box::pin(async {})
    }

    /// Removes the engine's parts of all networks but these, unless a container is in them: another node with the same engine
    /// may have some.
    fn keep_networks(&self, networks: Vec<ObjectId>) -> BoxFuture<'_, Result<(), EngineError>> {
        let _ = networks;
        Box::pin(async { Ok(()) })
    }

    /// The engine's part of a network, which is made if it is not there.
    fn provide_network(&self, network: Arc<AssignedObject>) -> BoxFuture<'_, Result<EnginePart, EngineError>> {
        let reason = format!("this engine has no networks across nodes: network {} cannot be provided", network.name);
        Box::pin(async { Err(EngineError::Fatal(reason)) })
    }

    /// The containers in networks of the cluster that are no tasks. Those that have ended are in none.
    fn attached(&self) -> BoxFuture<'_, Result<Vec<AttachedContainer>, EngineError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Takes a container out of a network of the cluster; one that is in none is fine.
    fn detach(&self, network: ObjectId, container: String) -> BoxFuture<'_, Result<(), EngineError>> {
        let _ = (network, container);
        Box::pin(async { Ok(()) })
    }

    /// Output of a container.
    fn logs(&self, id: String, selection: LogSelection) -> BoxStream<'static, Result<LogLine, EngineError>>;
}
