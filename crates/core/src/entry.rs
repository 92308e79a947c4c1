//! The commands: what a log entry can say.
//!
//! An entry carries many small transactions. Each rests on narrow facts ([`Guard`]) and stands or falls as a whole;
//! one that falls leaves no trace but its [`Refusal`]. Entries live across upgrades: they are written as named
//! MessagePack, fields may be added with a default, variants only behind a new [`ENTRY_VERSION`], which the swarm uses
//! once all its managers know it.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use swarm_model::{
    Alike, Attachment, Author, Availability, Cause, Cluster, ClusterSpec, DesiredState, JoinTokens, Labels,
    NetworkAddr, NodeDescription, NodeId, NodeRole, NodeSpec, NodeStatus, ObjectContent, ObjectId, ObjectKey,
    PublishedPort, Redacted, RootRotation, Service, ServiceId, ServiceSpec, TaskId, TaskStatus, Timestamp,
    UpdateStatus,
};
use thiserror::Error;

use crate::State;

/// The feature level of this program: the newest version of commands that it applies, and writes as soon as all managers
/// do ([`State::feature_level`](crate::State::feature_level)).
pub const ENTRY_VERSION: u16 = 2;

/// The level of a swarm of which nothing else is said.
pub const FEATURE_LEVEL_MIN: u16 = 1;

/// From this feature level on, an update of a service says which parts of the spec are as before.
pub(crate) const ALIKE_LEVEL: u16 = 2;

/// From this feature level on, the proposer draws the stamp of a spec that it sets.
const STAMPS_LEVEL: u16 = 2;

/// From this feature level on, the drain of a node has a deadline, or goes by no policy. Below it each drain goes by policy,
/// for ever, as managers of 0.1.0 take it.
pub const DRAIN_DEADLINES_LEVEL: u16 = 2;

/// From this feature level on, the state says who asked for a revision of a service. Below it nobody is kept, as managers of
/// 0.1.0 keep nobody.
pub(crate) const AUTHORS_LEVEL: u16 = 2;

/// From this feature level on, there are named objects.
const OBJECTS_LEVEL: u16 = 2;

/// From this feature level on, services have ports that all nodes open.
const PORTS_LEVEL: u16 = 2;

/// From this feature level on, tasks and services have addresses in networks of the cluster.
const NETWORKS_LEVEL: u16 = 2;

/// From this feature level on, containers that are no tasks are attached to networks of the cluster.
pub const ATTACHMENTS_LEVEL: u16 = 2;

/// Transactions in one entry: bounds the time that one entry keeps others waiting.
pub const ENTRY_TXS_MAX: usize = 1024;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The feature level that it needs. A manager that does not know it stops rather than diverge.
    pub v: u16,
    /// The proposer's clock. Cluster time never goes back, whatever this says.
    pub at: Timestamp,
    /// Transactions, applied in order, each for itself.
    pub txs: Vec<Tx>,
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tx {
    /// Facts that must hold.
    pub guards: Vec<Guard>,
    /// Changes, in order.
    pub ops: Vec<Op>,
    /// The author of the changes; none for changes that the managers decide by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<Author>>,
    /// [`Service::stamp`] of the services whose specs it sets. None below feature level 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<u64>,
}

impl Tx {
    /// A transaction without guards.
    pub fn new(ops: Vec<Op>) -> Self {
        Self { guards: Vec::new(), ops, by: None, stamp: None }
    }

    /// The same, asked for by somebody.
    #[must_use]
    pub fn by(mut self, author: Arc<Author>) -> Self {
        self.by = Some(author);
        self
    }

    /// The same with a stamp for the specs that it sets: a random number that the proposer has drawn. Below feature level 2
    /// of the state the transaction gets none.
    #[must_use]
    pub fn stamped(mut self, state: &State, stamp: u64) -> Self {
        let sets_spec = self.ops.iter().any(Op::sets_spec);
        self.stamp = Some(stamp).filter(|_| sets_spec && state.feature_level() >= STAMPS_LEVEL);
        self
    }

    /// The lowest feature level whose programs know all of it.
    pub fn feature_level(&self) -> u16 {
        let of_stamp = if self.stamp.is_some() { STAMPS_LEVEL } else { FEATURE_LEVEL_MIN };
        self.ops.iter().map(Op::feature_level).max().unwrap_or(FEATURE_LEVEL_MIN).max(of_stamp)
    }

    /// The same with one more guard.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }
}

/// A fact that a transaction rests on. Facts are narrow: a status report must not make a plan fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// The cluster object has this version (`?version=`).
    Cluster {
        /// Its version.
        version: u64,
    },
    /// The service has this version (`?version=`): spec and replica count are as they were.
    Service {
        /// The service.
        service: ServiceId,
        /// Its version.
        version: u64,
    },
    /// The object has this version (`?version=`).
    Object {
        /// The object.
        object: ObjectKey,
        /// Its version.
        version: u64,
    },
    /// Nobody set the service's spec since: it wants the tasks that it wanted, by the policies that it had. Progress of
    /// an update does not touch this.
    Wanted {
        /// The service.
        service: ServiceId,
        /// Its stamp.
        #[serde(rename = "generation")]
        stamp: u64,
    },
    /// The tasks that the transaction stops can be spared (`swarmd.max-unavailable`): so many places of the service have
    /// another one that serves ([`State::serves`](crate::State::serves)), or each of theirs has. The one fact that
    /// reports touch: what failed since the plan was made, or was stopped by one that came late, is away as well.
    Serving {
        /// The service.
        service: ServiceId,
        /// How many places at least.
        least: u64,
        /// The tasks that it stops.
        #[serde(default)]
        besides: BTreeSet<TaskId>,
    },
    /// These tasks were told to stop, for what takes over from them is to run. The transaction that told them may have
    /// been refused.
    Stopped {
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// The node has this version (`?version=`).
    Node {
        /// The node.
        node: NodeId,
        /// Its version.
        version: u64,
    },
    /// Availability, state, labels and capacity of the node are as they were.
    NodeEpoch {
        /// The node.
        node: NodeId,
        /// Its epoch.
        epoch: u64,
    },
}

impl Guard {
    /// [`Guard::Wanted`] as a service is.
    pub fn wanted(service: &Service) -> Self {
        Self::Wanted { service: service.id, stamp: service.stamp }
    }
}

/// A task to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// Its slot.
    pub slot: u32,
    /// Its node, or why there is none.
    pub place: Place,
    /// Its addresses in the networks of the cluster; none without a node.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub addrs: Arc<[NetworkAddr]>,
}

/// Where a task goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Place {
    /// To this node.
    On(NodeId),
    /// Nowhere yet: why, for people.
    Pending(Arc<str>),
    /// To this node and no other (global services), but not yet: why, for people.
    PendingOn(NodeId, Arc<str>),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// All managers know this feature level: from now on entries may need it. It never sinks.
    RaiseFeatureLevel {
        /// The level.
        level: u16,
    },
    /// `swarm init`.
    CreateCluster(Arc<Cluster>),
    /// New settings or new tokens of the cluster.
    UpdateCluster {
        /// Settings, defaults filled in.
        spec: Arc<ClusterSpec>,
        /// Tokens, if they change.
        join_tokens: Option<Arc<JoinTokens>>,
    },
    /// Autolock is switched on with a key, gets another key, or is switched off.
    SetUnlockKey {
        /// `SWMKEY-1-…`; none while autolock is off.
        key: Option<Redacted>,
    },
    /// The cluster changes to another certificate authority; one change at a time.
    StartRootRotation(Arc<RootRotation>),
    /// All nodes have certificates from the new authority: it is the only one from now on.
    FinishRootRotation {
        /// Its [`RootCa::key_id`](swarm_model::RootCa::key_id).
        key_id: String,
        /// Tokens that go with it.
        join_tokens: Arc<JoinTokens>,
    },
    /// A node got its first certificate, or a new one.
    AdmitNode {
        /// The node.
        node: NodeId,
        /// The role in the certificate.
        role: NodeRole,
        /// When the certificate expires.
        cert_expires_at: Timestamp,
        /// `host:port` of its manager, if it is one.
        manager_addr: Option<String>,
        /// For a node that is new: whether it takes tasks.
        #[serde(default)]
        availability: Availability,
    },
    /// The operator changes a node.
    UpdateNode {
        /// The node.
        node: NodeId,
        /// The new spec.
        spec: Arc<NodeSpec>,
        /// [`Node::drain_deadline`](swarm_model::Node::drain_deadline) from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drain_deadline: Option<Timestamp>,
    },
    /// The dispatcher saw a node come, go or change.
    ReportNode {
        /// The node.
        node: NodeId,
        /// Its state.
        status: NodeStatus,
        /// Its description, if it changed.
        description: Option<Arc<NodeDescription>>,
    },
    /// The operator removes a node. It is locked out until its certificate has expired.
    RemoveNode {
        /// The node.
        node: NodeId,
        /// Also when it is not down.
        force: bool,
    },
    /// A new service.
    CreateService {
        /// Its id.
        service: ServiceId,
        /// What it is.
        spec: Arc<ServiceSpec>,
        /// Registry credentials.
        registry_auth: Option<Redacted>,
    },
    /// A new spec of a service.
    UpdateService {
        /// The service.
        service: ServiceId,
        /// What it is to be.
        spec: Arc<ServiceSpec>,
        /// Registry credentials; none keeps those that there are, empty ones take them away.
        registry_auth: Option<Redacted>,
        /// The parts of the new spec that are as before. The proposer compared the new spec with the one of the version that
        /// the transaction names. None below feature level 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alike: Option<Alike>,
    },
    /// Back to the previous spec, or to an earlier one: by hand, which makes the present one the previous one, or
    /// because an update failed, which leaves none (swarm-behaviour §4.2).
    RollBack {
        /// The service.
        service: ServiceId,
        /// Whether the present spec becomes the previous one.
        keep_previous: bool,
        /// For people.
        message: Arc<str>,
        /// Number of the revision to go back to; none for the previous spec.
        #[serde(default)]
        to: Option<u64>,
    },
    /// The ports that all nodes open for a service: all of them. The proposer chose the numbers that the spec leaves open; the
    /// transaction falls if another service has one of them.
    SetPorts {
        /// The service.
        service: ServiceId,
        /// The ports.
        ports: Arc<[PublishedPort]>,
    },
    /// The virtual addresses of a service: all of them. The proposer chose them; the transaction falls if somebody else has
    /// one.
    SetVirtualAddrs {
        /// The service.
        service: ServiceId,
        /// The addresses.
        addrs: Arc<[NetworkAddr]>,
    },
    /// How far a rolling update is.
    SetUpdate {
        /// The service.
        service: ServiceId,
        /// Its update.
        update: UpdateStatus,
    },
    /// Whether the tasks of a service are to move until they are spread evenly.
    SetRebalance {
        /// The service.
        service: ServiceId,
        /// The user asks for it, or it is done.
        asked: bool,
    },
    /// The end of a service: its tasks are stopped, then deleted.
    RemoveService {
        /// The service.
        service: ServiceId,
    },
    /// New tasks of a service, of its current spec version.
    CreateTasks {
        /// The service.
        service: ServiceId,
        /// The spec version; the transaction falls if the service has another one.
        spec_version: u64,
        /// What is wanted of them.
        desired: DesiredState,
        /// Why they are made.
        cause: Cause,
        /// The live task that stays in the slot while the new one comes; any other makes the transaction fall.
        #[serde(default)]
        beside: Option<TaskId>,
        /// When a task with desired state ready may run.
        start_at: Option<Timestamp>,
        /// [`Task::restarts`](swarm_model::Task::restarts) of them.
        #[serde(default)]
        restarts: u32,
        /// The tasks. A node without room for one, or a slot that has another task that is meant to live, makes the
        /// transaction fall.
        tasks: Vec<NewTask>,
    },
    /// Places a pending task, or says anew why it cannot be placed.
    PlaceTask {
        /// The task.
        task: TaskId,
        /// Where to.
        place: Place,
        /// Its addresses in the networks of the cluster; none without a node.
        #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
        addrs: Arc<[NetworkAddr]>,
    },
    /// Raises the desired state of tasks. Those that are as high already stay as they are.
    SetDesired {
        /// What is wanted.
        desired: DesiredState,
        /// Of which tasks.
        tasks: Vec<TaskId>,
    },
    /// What agents observed. Lower states than the stored ones and tasks of other nodes are skipped.
    ReportTasks {
        /// The node that says so.
        node: NodeId,
        /// Task by task.
        reports: Vec<(TaskId, TaskStatus)>,
    },
    /// What the managers decide on an agent's behalf: rejected by the constraint enforcer, orphaned, or stopped
    /// before it had a node.
    EndTasks {
        /// The end.
        status: TaskStatus,
        /// Of which tasks.
        tasks: Vec<TaskId>,
    },
    /// History that is no longer kept.
    DeleteTasks {
        /// Tasks that have ended, or never had a node.
        tasks: Vec<TaskId>,
    },
    /// A new object, of the kind that its content has.
    CreateObject {
        /// Its id.
        id: ObjectId,
        /// Its name; the transaction falls if there is one of its kind that has it.
        name: String,
        /// Its labels.
        labels: Labels,
        /// Its content, which never changes.
        content: Arc<ObjectContent>,
    },
    /// New labels of an object.
    LabelObject {
        /// The object.
        object: ObjectKey,
        /// All its labels from now on.
        labels: Labels,
    },
    /// The end of an object; the transaction falls if the spec of a service names it, or if a container is attached to it.
    RemoveObject {
        /// The object.
        object: ObjectKey,
    },
    /// A new attachment, or new names or another state of one. The proposer chose the addresses; the transaction falls if
    /// somebody else has one, or if the attachment is of another node or has other addresses.
    PutAttachment(Arc<Attachment>),
    /// The end of attachments. Those that are not there are skipped.
    RemoveAttachments {
        /// The attachments.
        attachments: Vec<TaskId>,
    },
}

impl Op {
    /// Whether it sets the spec of a service.
    fn sets_spec(&self) -> bool {
        matches!(self, Self::CreateService { .. } | Self::UpdateService { .. } | Self::RollBack { .. })
    }

    /// The lowest feature level whose programs know this change. All that the first level has need no more than that; a
    /// change that comes later names its own level here.
    pub fn feature_level(&self) -> u16 {
        match self {
            Self::CreateObject { .. } | Self::LabelObject { .. } | Self::RemoveObject { .. } => OBJECTS_LEVEL,
            Self::SetPorts { .. } => PORTS_LEVEL,
            Self::SetVirtualAddrs { .. } => NETWORKS_LEVEL,
            Self::PutAttachment(_) | Self::RemoveAttachments { .. } => ATTACHMENTS_LEVEL,
            Self::UpdateNode { drain_deadline: Some(_), .. } => DRAIN_DEADLINES_LEVEL,
            Self::UpdateService { alike: Some(_), .. } => ALIKE_LEVEL,
            Self::CreateService { spec, .. } | Self::UpdateService { spec, .. } if spec.names_objects() => {
                OBJECTS_LEVEL
            }
            _ => FEATURE_LEVEL_MIN,
        }
    }
}

/// Why a transaction fell.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The object is not there.
    #[error("{kind} {id} not found")]
    NotFound {
        /// Its kind.
        kind: String,
        /// Its id.
        id: String,
    },
    /// An object of that name, or with that id, is there already.
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    Exists {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The object changed since it was read.
    #[error("update out of sequence")]
    OutOfSequence,
    /// What the plan rests on changed; it is made anew.
    #[error("overtaken: {0}")]
    Stale(String),
    /// The change is not possible.
    #[error("{0}")]
    Invalid(String),
}

/// What became of a transaction.
pub type Outcome = Result<(), Refusal>;
