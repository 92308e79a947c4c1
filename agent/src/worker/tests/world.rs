//! A manager and an engine in a few lines, to play with a worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use swarm_dataplane::protocol::ToData;
use swarm_model::{
    DataAddress, DesiredState, ObjectContent, ObjectId, SecretContent, ServiceId, TaskId, TaskState, TaskStatus,
    Timestamp,
};
use swarm_net::protocol::ToNet;
use swarm_wire::agent::{
    AssignedObject, AssignedSpec, AssignedTask, Changeset, Held, Hello, Item, ItemChange, ItemKey, Shared, ToAgent,
    ToManager, WantedAttachments, Welcome, digest,
};

use crate::{
    executor::{
        AttachedContainer, ContainerEvent, ContainerRequest, EngineError, EngineReport, Exited, Health, Listed,
        NodeIdentity, Observed, Running,
    },
    testing::{assigned_spec, assigned_task},
    worker::{
        AttachmentInput, AttachmentOutput, Change, Input, Now, Operation, Output, SessionState, Stored, Worker,
        WorkerOptions,
    },
};

pub(super) struct World {
    pub(super) worker: Worker,
    pub(super) now_ms: u64,
    disk_tasks: BTreeMap<TaskId, crate::step::LocalTask>,
    disk_specs: BTreeMap<(u128, u64), AssignedSpec>,
    // The engine.
    pub(super) engine_up: bool,
    pub(super) containers: BTreeMap<TaskId, Observed>,
    made: BTreeSet<TaskId>,
    /// Containers that were started so far; the number of a start stands for its time.
    starts: i64,
    /// Tasks whose container somebody restarted while they ran, and the engine told so; and whether it was a job's.
    restarted: BTreeMap<TaskId, bool>,
    pub(super) calls: Vec<(TaskId, Operation)>,
    /// Tasks whose files are there.
    pub(super) files: BTreeSet<TaskId>,
    /// Calls so far that stopped a container.
    pub(super) stops: usize,
    // The manager.
    pub(super) wanted: BTreeMap<TaskId, AssignedTask>,
    /// Assigned once; ids are never used again.
    gone: BTreeSet<TaskId>,
    pub(super) known: BTreeMap<TaskId, TaskStatus>,
    pub(super) open: bool,
    revision: u64,
    pub(super) answers: bool,
    pub(super) sent: Vec<ToManager>,
    pub(super) state: Option<SessionState>,
    pub(super) left: bool,
    /// Files may be gone that the worker thinks are there.
    lost_files: bool,
    /// Whether the data plane is needed.
    pub(super) needs_data: bool,
    /// The messages to the data plane.
    pub(super) data: Vec<ToData>,
    /// Whether `swarmd net` is needed.
    pub(super) needs_net: bool,
    /// The messages to `swarmd net`.
    pub(super) net: Vec<ToNet>,
    /// The networks that the engine was told last to keep its parts of.
    pub(super) kept: Option<Vec<ObjectId>>,
    /// The attached containers that the engine has.
    pub(super) attached: Vec<AttachedContainer>,
    /// The attachments that the managers were told of.
    pub(super) attachments: Vec<WantedAttachments>,
    /// The answers to the API, and the containers that were taken out of networks.
    pub(super) attachment_outputs: Vec<AttachmentOutput>,
}

/// The secret that tasks of even ids need.
pub(super) fn secret() -> AssignedObject {
    let content = ObjectContent::Secret(SecretContent { data: b"s3cret".to_vec().into(), templating: None });
    AssignedObject { id: ObjectId(7), name: "key".into(), content: Arc::new(content) }
}

pub(super) fn put_secret() -> ItemChange {
    ItemChange::Put(Item::Object(Shared::new(&secret()).unwrap()))
}

fn put_spec() -> ItemChange {
    ItemChange::Put(Item::Spec(Shared::new(&assigned_spec("hello:1")).unwrap()))
}

pub(super) fn put_task(task: AssignedTask) -> ItemChange {
    ItemChange::Put(Item::Task(task))
}

/// The address of all containers.
pub(super) const ADDR: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));

fn worker(stored: Stored) -> Worker {
    worker_with(stored, None)
}

fn worker_with(stored: Stored, data_address: Option<DataAddress>) -> Worker {
    let node = NodeIdentity {
        id: swarm_model::NodeId(1),
        hostname: "one".into(),
        platform: Default::default(),
        bind_addr: None,
    };
    let options = WorkerOptions {
        node: node.into(),
        program: "test".into(),
        resources: None,
        engine_labels: Default::default(),
        seed: 1,
        data_address,
        has_networks: false,
        sandboxes: "/run/docker/netns".into(),
    };
    Worker::new(options, stored)
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(worker(Stored::default()))
    }

    /// A node whose networks are made by `swarmd net`.
    pub(super) fn with_networks() -> Self {
        Self::with_networks_and(Vec::new())
    }

    /// The same where the engine has attached containers before the agent starts.
    pub(super) fn with_networks_and(attached: Vec<AttachedContainer>) -> Self {
        let mut worker = worker_with(Stored::default(), Some(DataAddress { addr: None, port: 7946 }));
        worker.options.has_networks = true;
        Self::with_attached(worker, attached)
    }

    /// A node with a data plane.
    pub(super) fn with_data_plane() -> Self {
        Self::with(worker_with(Stored::default(), Some(DataAddress { addr: None, port: 7946 })))
    }

    fn with(worker: Worker) -> Self {
        Self::with_attached(worker, Vec::new())
    }

    fn with_attached(worker: Worker, attached: Vec<AttachedContainer>) -> Self {
        let mut world = Self {
            worker,
            now_ms: 0,
            disk_tasks: BTreeMap::new(),
            disk_specs: BTreeMap::new(),
            engine_up: true,
            containers: BTreeMap::new(),
            made: BTreeSet::new(),
            starts: 0,
            restarted: BTreeMap::new(),
            calls: Vec::new(),
            files: BTreeSet::new(),
            stops: 0,
            wanted: BTreeMap::new(),
            gone: BTreeSet::new(),
            known: BTreeMap::new(),
            open: false,
            revision: 0,
            answers: true,
            sent: Vec::new(),
            state: None,
            left: false,
            lost_files: false,
            needs_data: false,
            data: Vec::new(),
            needs_net: false,
            net: Vec::new(),
            kept: None,
            attached,
            attachments: Vec::new(),
            attachment_outputs: Vec::new(),
        };
        world.input(Input::EngineUp(EngineReport::default()));
        world
    }

    pub(super) fn input(&mut self, input: Input) {
        let mut inputs = vec![input];
        while !inputs.is_empty() {
            let now = Now { wall: Timestamp::from_millis(self.now_ms as i64), mono_ms: self.now_ms };
            let outputs = self.worker.step(now, std::mem::take(&mut inputs));
            for output in outputs {
                self.perform(output, &mut inputs);
            }
        }
    }

    fn perform(&mut self, output: Output, inputs: &mut Vec<Input>) {
        match output {
            Output::Connect { .. } if self.answers => {
                self.open = true;
                inputs.push(Input::Connected);
            }
            Output::Disconnect => self.open = false,
            Output::Send(message) => {
                self.sent.push(message.clone());
                if self.open {
                    self.receive(message, inputs);
                }
            }
            Output::Session(state) => self.state = Some(state),
            Output::Run(task, operation) => {
                assert!(self.calls.iter().all(|(t, _)| *t != task), "two calls for {task}");
                self.calls.push((task, operation));
            }
            Output::List => inputs.push(Input::Listed(match self.engine_up {
                true => Ok(self
                    .containers
                    .iter()
                    .map(|(task, state)| Listed { task: Some(*task), state: state.clone() })
                    .collect()),
                false => Err(EngineError::Unreachable("down".into())),
            })),
            Output::RemoveStray(id) => {
                self.containers.retain(|_, c| c.container_id() != Some(&id));
                inputs.push(Input::StrayRemoved { id, result: Ok(()) });
            }
            Output::CheckEngine if !self.engine_up => inputs.push(Input::EngineDown("down".into())),
            Output::Save(changes) => self.save(changes),
            Output::DropFiles(task) => drop(self.files.remove(&task)),
            Output::Left => self.left = true,
            Output::NeedData => self.needs_data = true,
            Output::Data(message) => self.data.push(message),
            Output::NeedNet => self.needs_net = true,
            Output::Attachment(AttachmentOutput::List) => {
                let listed = AttachmentInput::Listed(Ok(self.attached.clone()));
                inputs.push(Input::Attachment(listed));
            }
            Output::Attachment(output) => self.attachment_outputs.push(output),
            Output::Net(message) => self.net.push(message),
            Output::KeepNetworks(networks) => self.kept = Some(networks),
            Output::Connect { .. }
            | Output::CheckEngine
            | Output::Managers(_)
            | Output::Role(_)
            | Output::Authority(_)
            | Output::Cancel(_)
            | Output::Logs(_) => {}
        }
    }

    fn save(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::PutTask(task) => drop(self.disk_tasks.insert(task.assigned.id, task)),
                Change::DeleteTask(id) => drop(self.disk_tasks.remove(&id)),
                Change::PutSpec(s) => drop(self.disk_specs.insert((s.service.0, s.version), (*s).clone())),
                Change::DeleteSpec(service, version) => drop(self.disk_specs.remove(&(service.0, version))),
            }
        }
    }

    fn receive(&mut self, message: ToManager, inputs: &mut Vec<Input>) {
        match message {
            ToManager::Hello(hello) => self.greet(&hello, inputs),
            ToManager::Heartbeat => inputs.push(Input::Message(ToAgent::HeartbeatAck)),
            ToManager::Status { batch, reports } => {
                for report in reports {
                    let old = self.known.get(&report.task).map(|s| s.state);
                    assert!(old.is_none_or(|o| o <= report.status.state), "{} went down", report.task);
                    if self.wanted.contains_key(&report.task) {
                        self.known.insert(report.task, report.status);
                    }
                }
                inputs.push(Input::Message(ToAgent::StatusAck { batch }));
            }
            ToManager::Attachments(wanted) => self.attachments.push(wanted),
            ToManager::Describe(_)
            | ToManager::Leaving
            | ToManager::Logs { .. }
            | ToManager::Answer { .. }
            | ToManager::Table(_) => {}
        }
    }

    fn greet(&mut self, hello: &Hello, inputs: &mut Vec<Input>) {
        let welcome = Welcome {
            heartbeat_period_ms: 2000,
            managers: vec!["m:1".into()],
            role: None,
            authority: None,
            takes_attachments: true,
        };
        inputs.push(Input::Message(ToAgent::Welcome(welcome)));
        let tasks = self.wanted.values().map(|task| Held::Task(task.id, task.desired));
        let spec = Held::Spec(ServiceId(1), 1);
        let rest = tasks.clone().next().map(|_| spec).into_iter().chain([Held::Object(secret().key())]);
        if hello.resume.is_some_and(|resume| resume.all == Some(digest(tasks.chain(rest)))) {
            return;
        }
        // A full set in two messages.
        let mut first: Vec<_> = [put_secret(), put_spec()].into();
        first.extend(self.wanted.values().cloned().map(put_task));
        let last = first.split_off(2 + self.wanted.len() / 2);
        let first = Changeset { full: true, changes: first, ..Default::default() };
        let last = Changeset { complete: true, revision: self.revision, changes: last, ..Default::default() };
        inputs.extend([first, last].map(|changes| Input::Message(ToAgent::Changes(changes))));
    }

    pub(super) fn tell(&mut self, changes: Vec<ItemChange>) {
        self.revision += 1;
        if self.open {
            let changes = Changeset { full: false, complete: true, revision: self.revision, changes };
            self.input(Input::Message(ToAgent::Changes(changes)));
        }
    }

    pub(super) fn want(&mut self, id: TaskId, desired: DesiredState) {
        self.want_with(id, desired, put_spec());
    }

    /// The same with a spec of its own.
    pub(super) fn want_with(&mut self, id: TaskId, desired: DesiredState, spec: ItemChange) {
        if self.gone.contains(&id) {
            return;
        }
        let old = self.wanted.get(&id).map_or(desired, |t| t.desired);
        let mut task = assigned_task(id.0, desired.max(old));
        if id.0.is_multiple_of(2) {
            task.needs = [secret().key()].into();
        }
        self.wanted.insert(id, task.clone());
        self.tell(vec![spec, put_task(task)]);
    }

    pub(super) fn unassign(&mut self, id: TaskId) {
        if self.wanted.remove(&id).is_some() {
            self.gone.insert(id);
            self.tell(vec![ItemChange::Remove(ItemKey::Task(id))]);
        }
    }

    /// Carries a call out.
    fn carry_out(&mut self, task: TaskId, operation: &Operation) -> Observed {
        let id = format!("c{task}");
        if let Operation::Prepare(request) = operation {
            self.put_files(task, request);
        }
        if let Operation::Start(_, Some(request)) = operation {
            self.put_files(task, request);
        }
        match operation {
            Operation::Inspect(_) => {}
            Operation::Prepare(_) => {
                if !self.containers.contains_key(&task) {
                    assert!(self.made.insert(task), "a second container for {task}");
                    self.containers.insert(task, Observed::Created { id });
                }
            }
            Operation::Start(..) => {
                if let Some(Observed::Created { .. }) = self.containers.get(&task) {
                    self.begin_run(task);
                }
            }
            Operation::Stop(..) => {
                self.stops += usize::from(self.end_run(task, 0));
            }
            Operation::Remove(..) => drop(self.containers.remove(&task)),
        }
        self.containers.get(&task).cloned().unwrap_or(Observed::Absent)
    }

    fn put_files(&mut self, task: TaskId, request: &ContainerRequest) {
        let found: Vec<_> = request.objects.iter().map(|object| object.key()).collect();
        assert_eq!(found, *request.task.needs, "what {task} needs is there");
        if !found.is_empty() {
            self.files.insert(task);
        }
    }

    fn begin_run(&mut self, task: TaskId) {
        self.starts += 1;
        let started_at = Timestamp(self.starts);
        let run = Running { id: format!("c{task}"), started_at, addr: Some(ADDR), ..Running::default() };
        self.containers.insert(task, Observed::Running(run));
    }

    fn end_run(&mut self, task: TaskId, exit_code: i64) -> bool {
        let Some(state @ Observed::Running(_)) = self.containers.get_mut(&task) else { return false };
        let started_at = state.started_at();
        *state = Observed::Exited(Exited { id: format!("c{task}"), started_at, exit_code, ..Exited::default() });
        true
    }

    pub(super) fn answer(&mut self, n: usize) {
        if self.calls.is_empty() {
            return;
        }
        let (task, operation) = self.calls.remove(n % self.calls.len());
        let result = match self.engine_up {
            true => Ok(self.carry_out(task, &operation)),
            false => Err(EngineError::Unreachable("down".into())),
        };
        self.input(Input::Done { task, result });
    }

    pub(super) fn lose(&mut self, n: usize, carried_out: bool) {
        if self.calls.is_empty() {
            return;
        }
        let (task, operation) = self.calls.remove(n % self.calls.len());
        if carried_out && self.engine_up {
            self.carry_out(task, &operation);
        }
        self.input(Input::Done { task, result: Err(EngineError::Unreachable("lost".into())) });
    }

    /// Takes all running containers along, as an engine without live-restore does.
    pub(super) fn engine_dies(&mut self) {
        self.engine_up = false;
        for task in self.containers.keys().copied().collect::<Vec<_>>() {
            self.end_run(task, 255);
        }
        self.input(Input::EngineDown("died".into()));
    }

    pub(super) fn engine_returns(&mut self) {
        self.engine_up = true;
        self.input(Input::EngineUp(EngineReport::default()));
    }

    pub(super) fn exit(&mut self, task: TaskId, seen: bool) {
        if self.end_run(task, 3) && seen && self.engine_up {
            self.input(Input::Container(ContainerEvent::Changed(task)));
        }
    }

    /// Somebody restarts a container. The engine tells of it or not; in between the agent may look or not.
    pub(super) fn restart_by_hand(&mut self, task: TaskId, seen: bool, looks: bool) {
        let known = self.worker.tasks().find(|t| t.assigned.id == task);
        let running = known.filter(|t| t.status.state == TaskState::Running);
        let is_job = running.map(|t| t.assigned.desired == DesiredState::Complete);
        if !self.engine_up || !self.end_run(task, 0) {
            return;
        }
        if seen {
            self.input(Input::Container(ContainerEvent::Changed(task)));
        }
        if let Some(call) = self.calls.iter().position(|(t, _)| *t == task).filter(|_| looks) {
            self.answer(call);
        }
        if let Some(Observed::Exited(_)) = self.containers.get(&task) {
            self.begin_run(task);
        }
        if seen {
            self.input(Input::Container(ContainerEvent::Started(task)));
            self.input(Input::Container(ContainerEvent::Restarted(task)));
            self.restarted.extend(is_job.map(|is_job| (task, is_job)));
        }
    }

    /// Somebody starts a container that has ended.
    pub(super) fn start_by_hand(&mut self, task: TaskId, seen: bool) {
        if let Some(Observed::Exited(_)) = self.containers.get(&task).filter(|_| self.engine_up) {
            self.begin_run(task);
            if seen {
                self.input(Input::Container(ContainerEvent::Started(task)));
            }
        }
    }

    pub(super) fn sicken(&mut self, task: TaskId) {
        if let Some(Observed::Running(r)) = self.containers.get_mut(&task) {
            r.health = Health::Unhealthy;
            if self.engine_up {
                self.input(Input::Container(ContainerEvent::Changed(task)));
            }
        }
    }

    pub(super) fn session_breaks(&mut self) {
        self.open = false;
        self.input(Input::Disconnected("broke".into()));
    }

    /// The agent is killed and started again.
    pub(super) fn restart(&mut self) {
        self.calls.clear();
        self.open = false;
        let specs = self.disk_specs.values().map(|s| (s.clone(), false)).collect();
        // As the shell does it at its start.
        let keeps = |task: &crate::step::LocalTask| !task.status.state.is_terminal();
        self.files.retain(|task| self.disk_tasks.get(task).is_some_and(keeps));
        self.lost_files = true;
        self.worker = worker(Stored { tasks: self.disk_tasks.values().cloned().collect(), specs });
        self.input(match self.engine_up {
            true => Input::EngineUp(EngineReport::default()),
            false => Input::EngineDown("down".into()),
        });
    }

    /// The agent starts again without its files. What it reports then starts low; a manager ignores that.
    pub(super) fn lose_store(&mut self) {
        self.disk_tasks.clear();
        self.disk_specs.clear();
        self.known.clear();
        self.restart();
    }

    pub(super) fn wait(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.worker.deadline_ms() <= end {
            self.now_ms = self.now_ms.max(self.worker.deadline_ms());
            self.input(Input::Container(ContainerEvent::Changed(TaskId(u128::MAX))));
        }
        self.now_ms = end;
    }

    /// The engine is back, every call is answered, and time goes on until all that is due has been done.
    pub(super) fn settle(&mut self) {
        self.engine_returns();
        for _ in 0..200 {
            while !self.calls.is_empty() {
                self.answer(0);
            }
            self.wait(1_000);
        }
    }

    /// How many tasks and specs the disk has.
    pub(super) fn on_disk(&self) -> (usize, usize) {
        (self.disk_tasks.len(), self.disk_specs.len())
    }

    /// The error in the status of a task.
    pub(super) fn error(&self, task: TaskId) -> Option<String> {
        let task = self.worker.tasks().find(|known| known.assigned.id == task)?;
        task.status.err.as_ref().map(ToString::to_string)
    }

    pub(super) fn state(&self, task: TaskId) -> Option<TaskState> {
        self.worker.tasks().find(|t| t.assigned.id == task).map(|t| t.status.state)
    }

    pub(super) fn check_settled(&self) {
        let tasks: BTreeMap<_, _> = self.worker.tasks().map(|t| (t.assigned.id, t)).collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = (tasks.keys().collect(), self.wanted.keys().collect());
        assert_eq!(ours, theirs, "the worker has the tasks that the manager wants");
        for (id, task) in &tasks {
            assert_eq!(Some(&task.status), self.known.get(id), "the manager knows how {id} is");
            let desired = self.wanted[id].desired;
            let state = task.status.state;
            match desired {
                DesiredState::Ready => assert!(state >= TaskState::Ready),
                DesiredState::Running | DesiredState::Complete => assert!(state >= TaskState::Running),
                DesiredState::Shutdown | DesiredState::Remove => assert!(state.is_terminal()),
            }
            let runs = matches!(self.containers.get(id), Some(Observed::Running(_)));
            assert_eq!(runs, state == TaskState::Running, "{id} is {state}, wanted {desired}");
            if let Some(is_job) = self.restarted.get(id) {
                let fits = state > TaskState::Complete || *is_job && state == TaskState::Complete;
                assert!(fits, "{id} was restarted by hand and is {state}");
            }
            let has_ended = state.is_terminal() && !runs;
            assert!(!has_ended || !self.files.contains(id), "files of {id} are left, which is {state}");
            let was_started_here = runs && !task.assigned.needs.is_empty() && !self.lost_files;
            assert!(!was_started_here || self.files.contains(id), "{id} runs without its files");
            if desired == DesiredState::Remove {
                assert!(!self.containers.contains_key(id), "the container of {id} is left");
            }
        }
        let strays: Vec<_> = self.containers.keys().filter(|id| !self.wanted.contains_key(id)).collect();
        assert!(strays.is_empty(), "containers without a task: {strays:?}");
        let strays: Vec<_> = self.files.iter().filter(|id| !self.wanted.contains_key(id)).collect();
        assert!(strays.is_empty(), "files without a task: {strays:?}");
    }
}
