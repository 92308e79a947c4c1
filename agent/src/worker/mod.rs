//! The worker: sessions with managers, assignments, and all tasks of the node. Pure.
//!
//! [`Worker::step`] takes what happened and the time and says what to do; the shell ([`crate::Agent`]) or a simulator
//! does it and feeds the outcome back. Invariants:
//! * at most one engine call is under way for a task, so that a container is never made twice;
//! * the state of a task only goes up, and only the newest is reported;
//! * nothing is reported as failed because the engine did not answer.
//!
//! Not here: sockets, files, the engine, clocks.

mod assign;
mod attachments;
mod data;
mod networks;
mod outbox;
mod questions;
mod session;
mod tasks;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use swarm_dataplane::protocol::ToData;
use swarm_model::{
    DataAddress, Labels, NodeCertificate, NodeDescription, NodeId, NodeResources, NodeRole, ObjectId, ObjectKey,
    ServiceId, TaskId, Timestamp, mutant::mutant,
};
use swarm_net::protocol::ToNet;
use swarm_wire::agent::{AssignedObject, AssignedSpec, Authority, LogRequest, NodeReport, ToAgent, ToManager};

use crate::{
    executor::{ContainerEvent, ContainerRequest, EngineError, EngineReport, Listed, NodeIdentity, Observed},
    step::LocalTask,
};
use assign::Incoming;
use attachments::Attachments;
pub use attachments::{AttachmentAsk, AttachmentError, AttachmentGrant, AttachmentInput, AttachmentOutput};
use data::Data;
pub use data::DataInput;
pub use networks::NetInput;
use networks::Networks;
use outbox::Outbox;
use questions::Questions;
use session::Session;
use tasks::Entry;

/// How often the containers of this node are listed although nothing points to a change: events can be lost.
pub const LIST_PERIOD_MS: u64 = 60_000;

/// Time between two attempts of a call that failed (swarm-behaviour §2.4).
pub const RETRY_MS: u64 = 1_000;

/// What the time is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The host's clock, for people; may jump.
    pub wall: Timestamp,
    /// Milliseconds since some fixed moment; never goes back.
    pub mono_ms: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The stream that [`Output::Connect`] asked for is open.
    Connected,
    /// The stream could not be opened, or ended.
    Disconnected(String),
    /// A message arrived.
    Message(ToAgent),
    /// The engine answers and is like this.
    EngineUp(EngineReport),
    /// The engine does not answer.
    EngineDown(String),
    /// Engine events may have been lost.
    EventsLost,
    /// The engine tells of a container.
    Container(ContainerEvent),
    /// Outcome of [`Output::List`].
    Listed(Result<Vec<Listed>, EngineError>),
    /// Outcome of [`Output::Run`].
    Done {
        /// The task.
        task: TaskId,
        /// How its container is now.
        result: Result<Observed, EngineError>,
    },
    /// Outcome of [`Output::RemoveStray`].
    StrayRemoved {
        /// Id of the container.
        id: String,
        /// Whether it is gone.
        result: Result<(), EngineError>,
    },
    /// The data plane of the node.
    Data(DataInput),
    /// The process that makes networks.
    Net(NetInput),
    /// Containers that are no tasks, in networks.
    Attachment(AttachmentInput),
    /// The node has another certificate, or trusts others.
    Certificate(NodeCertificate),
    /// The node leaves the cluster.
    Leave,
}

/// A call to the engine on behalf of a task.
#[derive(Clone, Debug)]
pub enum Operation {
    /// [`Executor::inspect`](crate::Executor::inspect).
    Inspect(ContainerRequest),
    /// [`Executor::prepare`](crate::Executor::prepare).
    Prepare(ContainerRequest),
    /// [`Executor::start`](crate::Executor::start) of the container of this id. With a request, the files of the task are
    /// put in their place before ([`Executor::put_files`](crate::Executor::put_files)).
    Start(String, Option<Box<ContainerRequest>>),
    /// [`Executor::stop`](crate::Executor::stop) of the container of this id, with so many seconds of grace.
    Stop(String, u32),
    /// [`Executor::remove`](crate::Executor::remove) of the container of this id, with so many seconds of grace.
    Remove(String, u32),
}

/// A change of what the agent keeps on disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A task is new or changed.
    PutTask(LocalTask),
    /// A task is forgotten.
    DeleteTask(TaskId),
    /// A spec is new.
    PutSpec(Arc<AssignedSpec>),
    /// No task needs this version of a service's spec.
    DeleteSpec(ServiceId, u64),
}

/// How the session with the managers stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// There is none; why the last one ended or could not be opened. Tasks go on.
    Connecting {
        /// For people; empty before the first attempt.
        reason: String,
    },
    /// There is one.
    Open,
    /// The node was removed from the cluster. Its containers are left alone.
    Removed {
        /// What the manager said.
        reason: String,
    },
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Open a stream, to this manager if one is named, and drop the one before.
    Connect {
        /// Address of the leader, as far as known.
        leader: Option<String>,
    },
    /// Close the stream.
    Disconnect,
    /// Send on the stream.
    Send(ToManager),
    /// Connect to the data plane: from now on it is needed. Comes once.
    NeedData,
    /// Tell the data plane.
    Data(ToData),
    /// Connect to `swarmd net`: from now on it is needed. Comes once.
    NeedNet,
    /// Tell `swarmd net`.
    Net(ToNet),
    /// The tasks of this node are in these networks: the engine's parts of others are to go, where no container is in them.
    KeepNetworks(Vec<ObjectId>),
    /// The cluster's managers are now these (`host:port`).
    Managers(Vec<String>),
    /// For containers that are no tasks, in networks.
    Attachment(AttachmentOutput),
    /// The managers want the node to have this role.
    Role(NodeRole),
    /// Whose certificates count.
    Authority(Authority),
    /// The session changed.
    Session(SessionState),
    /// Call the engine; answered by [`Input::Done`].
    Run(TaskId, Operation),
    /// Give up waiting for the image of this task; [`Input::Done`] still comes.
    Cancel(TaskId),
    /// List the containers of this node; answered by [`Input::Listed`].
    List,
    /// Stop and remove a container of this node that belongs to no task; answered by [`Input::StrayRemoved`].
    RemoveStray(String),
    /// A call failed for want of an answer: find out whether the engine is there.
    CheckEngine,
    /// The files of this task are needed no more.
    DropFiles(TaskId),
    /// Keep this on disk.
    Save(Vec<Change>),
    /// Serve logs.
    Logs(LogRequest),
    /// All containers of this node are gone, after [`Input::Leave`].
    Left,
}

/// What a worker is made from.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The node.
    pub node: Arc<NodeIdentity>,
    /// Name and version of the program, for people.
    pub program: String,
    /// What tasks can reserve, in place of what the host has.
    pub resources: Option<NodeResources>,
    /// Labels on top of the engine's own.
    pub engine_labels: Labels,
    /// The address at which other nodes reach the data plane; none for a node without one.
    pub data_address: Option<DataAddress>,
    /// Whether networks are made by `swarmd net`; a simulated engine needs none.
    pub has_networks: bool,
    /// The folder where the engine shows the network namespaces of its containers.
    pub sandboxes: PathBuf,
    /// Seed of the randomness (reconnection delays). Also tells this run of the agent from others.
    pub seed: u64,
}

/// What an earlier run left on disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Tasks.
    pub tasks: Vec<LocalTask>,
    /// Specs, and whether registry credentials were left out of them.
    pub specs: Vec<(AssignedSpec, bool)>,
}

#[derive(Debug)]
struct SpecEntry {
    spec: Arc<AssignedSpec>,
    /// The spec comes from disk and its credentials do not: images wait for the manager to send it again.
    credentials_missing: bool,
    /// Tasks of the node that run it. With the last one it goes.
    users: usize,
}

/// All that an agent knows.
#[derive(Debug)]
pub struct Worker {
    options: WorkerOptions,
    tasks: BTreeMap<TaskId, Entry>,
    specs: BTreeMap<(ServiceId, u64), SpecEntry>,
    session: Session,
    outbox: Outbox,
    data: Data,
    networks: Networks,
    questions: Questions,
    attachments: Attachments,
    /// The node as last described by its engine.
    engine: EngineReport,
    engine_up: bool,
    certificate: NodeCertificate,
    /// The report that the managers have.
    told: Option<NodeReport>,
    /// A listing is under way; what was touched after this count is newer than it.
    listing: Option<u64>,
    list_again: bool,
    list_at_ms: u64,
    /// Whether containers may have been started again since the last listing without a word of it.
    runs_in_doubt: bool,
    /// Containers are not to be inspected one by one: a listing will tell.
    adopting: bool,
    /// Counts observations.
    touches: u64,
    /// A complete assignment has arrived in this run: what is not in it is not ours to keep.
    synced: bool,
    /// A full set that is still arriving.
    incoming: Option<Incoming>,
    /// The objects that the managers have told the node. They are in memory only.
    objects: BTreeMap<ObjectKey, Arc<AssignedObject>>,
    /// The tasks that wait for an object.
    waiting: BTreeMap<ObjectKey, BTreeSet<TaskId>>,
    /// Revision of the last complete assignment of this run.
    revision: Option<u64>,
    retries: BTreeSet<(u64, TaskId)>,
    strays: BTreeSet<String>,
    /// Containers with this node's label but no task's, as last listed: each is told of once.
    unlabelled: BTreeSet<String>,
    unsaved: BTreeSet<TaskId>,
    changes: Vec<Change>,
    leaving: bool,
    /// Whether a manager was told that the node leaves.
    said_leaving: bool,
    left: bool,
}

impl Worker {
    /// A worker with what an earlier run left.
    pub fn new(options: WorkerOptions, stored: Stored) -> Self {
        let observed = if mutant("adopt-nothing") { Observed::Absent } else { Observed::Unknown };
        let entry = |task: LocalTask| {
            let (id, has_files) = (task.assigned.id, !task.assigned.needs.is_empty());
            let mut entry = Entry::new(task, observed.clone());
            entry.has_files = has_files;
            (id, entry)
        };
        let tasks = stored.tasks.into_iter().map(entry).collect();
        let specs: BTreeMap<_, _> = stored
            .specs
            .into_iter()
            .map(|(spec, had_credentials)| {
                let missing = had_credentials && spec.registry_auth.is_none();
                let key = (spec.service, spec.version);
                (key, SpecEntry { spec: Arc::new(spec), credentials_missing: missing, users: 0 })
            })
            .collect();
        let mut worker = Self {
            session: Session::new(options.seed),
            attachments: Attachments::new(options.seed),
            options,
            tasks,
            specs,
            outbox: Outbox::default(),
            data: Data::default(),
            networks: Networks::default(),
            questions: Questions::default(),
            engine: EngineReport::default(),
            engine_up: false,
            certificate: NodeCertificate::default(),
            told: None,
            listing: None,
            list_again: false,
            list_at_ms: u64::MAX,
            runs_in_doubt: false,
            adopting: false,
            touches: 0,
            synced: false,
            incoming: None,
            objects: BTreeMap::new(),
            waiting: BTreeMap::new(),
            revision: None,
            retries: BTreeSet::new(),
            strays: BTreeSet::new(),
            unlabelled: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            changes: Vec::new(),
            leaving: false,
            said_leaving: false,
            left: false,
        };
        worker.count_users();
        worker
    }

    /// Takes what happened, in order, and says what to do.
    pub fn step(&mut self, now: Now, inputs: impl IntoIterator<Item = Input>) -> Vec<Output> {
        let mut out = Vec::new();
        for input in inputs {
            self.input(now, input, &mut out);
        }
        self.timers(now, &mut out);
        self.flush(now, &mut out);
        out
    }

    /// When [`Worker::step`] is to be called although nothing happened.
    pub fn deadline_ms(&self) -> u64 {
        let retry = self.retries.first().map_or(u64::MAX, |(at, _)| *at);
        let report = if self.session.is_open() { self.outbox.deadline_ms() } else { u64::MAX };
        let attachments = if self.session.is_open() { self.attachments.deadline_ms() } else { u64::MAX };
        self.session.deadline_ms().min(retry).min(self.list_at_ms).min(report).min(attachments)
    }

    /// The node that this worker is for.
    pub fn node_id(&self) -> NodeId {
        self.options.node.id
    }

    /// The tasks of the node.
    pub fn tasks(&self) -> impl Iterator<Item = &LocalTask> {
        self.tasks.values().map(|e| &e.task)
    }

    /// The objects that the managers have told the node of.
    pub fn objects(&self) -> impl Iterator<Item = ObjectKey> {
        self.objects.keys().copied()
    }

    /// Id of the container of a task, if it has one.
    pub fn container_id(&self, task: TaskId) -> Option<&str> {
        let entry = self.tasks.get(&task)?;
        let reported = || entry.task.status.container.as_ref().map(|c| c.id.as_str());
        match &entry.observed {
            // It changed a moment ago; it is still the same one.
            Observed::Unknown => reported(),
            observed => observed.container_id(),
        }
    }

    fn input(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Connected => self.connected(now, out),
            Input::Disconnected(reason) => self.disconnected(now, reason, out),
            Input::Message(message) => self.message(now, message, out),
            Input::EngineUp(report) => self.engine_is_up(now, report, out),
            Input::EngineDown(reason) => self.engine_is_down(now, &reason, out),
            Input::EventsLost => self.events_lost(now, out),
            Input::Container(event) => self.container_event(now, event, out),
            Input::Listed(result) => self.listed(now, result, out),
            Input::Done { task, result } => self.done(now, task, result, out),
            Input::StrayRemoved { id, result } => self.stray_removed(now, &id, result, out),
            Input::Data(input) => self.data_input(now, input, out),
            Input::Net(input) => self.net_input(now, input, out),
            Input::Attachment(input) => self.attachment_input(now, input, out),
            Input::Certificate(certificate) => {
                self.certificate = certificate;
                self.tell(out);
            }
            Input::Leave => self.leave(now, out),
        }
    }

    fn timers(&mut self, now: Now, out: &mut Vec<Output>) {
        self.session_timers(now, out);
        while let Some((at, task)) = self.retries.first().copied() {
            if at > now.mono_ms {
                break;
            }
            self.retries.pop_first();
            if let Some(entry) = self.tasks.get_mut(&task) {
                entry.retry_at_ms = None;
            }
            self.pump(now, task, out);
        }
        if self.list_at_ms <= now.mono_ms {
            self.request_list(now, out);
        }
    }

    fn flush(&mut self, now: Now, out: &mut Vec<Output>) {
        self.say_attachments(now, out);
        self.say_that_all_is_said(out);
        self.send_reports(now, out);
        let mut changes = std::mem::take(&mut self.changes);
        for id in std::mem::take(&mut self.unsaved) {
            changes.push(match self.tasks.get(&id) {
                Some(entry) => Change::PutTask(entry.task.clone()),
                None => Change::DeleteTask(id),
            });
        }
        if !changes.is_empty() {
            out.push(Output::Save(changes));
        }
    }

    /// How much each table holds.
    #[cfg(test)]
    fn sizes(&self) -> [(&'static str, usize); 10] {
        [
            ("tasks", self.tasks.len()),
            ("specs", self.specs.len()),
            ("statuses to report", self.outbox.len()),
            ("retries", self.retries.len()),
            ("strays", self.strays.len()),
            ("unsaved tasks", self.unsaved.len()),
            ("changes", self.changes.len()),
            ("tasks of a set that arrives", self.incoming.as_ref().map_or(0, |named| named.tasks.len())),
            ("objects", self.objects.len()),
            ("objects that are waited for", self.waiting.len()),
        ]
    }

    fn report(&self) -> NodeReport {
        let mut engine = self.engine.engine.clone();
        engine.labels.extend(self.options.engine_labels.clone());
        NodeReport {
            description: NodeDescription {
                hostname: self.options.node.hostname.clone(),
                platform: self.engine.platform.clone(),
                resources: self.options.resources.clone().unwrap_or_else(|| self.engine.resources.clone()),
                engine,
                certificate: self.certificate.clone(),
                data_address: self.options.data_address,
                engine_id: self.engine.engine_id.clone(),
                warnings: self.warnings(),
            },
            engine_reachable: self.engine_up,
        }
    }
}
