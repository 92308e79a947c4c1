//! The shell around the worker: carries out what [`Worker::step`] says and feeds the outcomes back.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use swarm_dataplane::protocol::ToData;
use swarm_model::{Labels, NodeId, NodeResources, ObjectId, Platform, ServiceId, TaskId};
use swarm_net::protocol::ToNet;
use swarm_wire::agent::ToManager;
use thiserror::Error;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    attacher::Attacher,
    connection::{self, Connector, Event, OUTGOING_MAX},
    data::{self, DataPlane},
    engine,
    executor::{Executor, NodeIdentity},
    logs, net,
    side::Side,
    store::{Store, StoreError},
    worker::{
        AttachmentError, AttachmentGrant, AttachmentInput, AttachmentOutput, Change, DataInput, Input, NetInput, Now,
        Operation, Output, SessionState, Stored, Worker, WorkerOptions,
    },
};

/// Things that happened and wait for the main loop; when it is full, those who bring more wait.
const EVENTS_MAX: usize = 1024;
/// Things that happened and are taken in one step, so that their reports and writes go together.
const STEP_INPUTS_MAX: usize = 256;
/// Longest sleep of the main loop. There is always something sooner; this is for the arithmetic.
const SLEEP_MS_MAX: u64 = 3_600_000;
/// Time for the containers to stop when the node leaves: longer than the usual grace, short enough for a person.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(120);

/// Longest time that a container is taken out of a network: the end of an agent waits for that.
const DETACH_TIME_MAX: Duration = Duration::from_secs(10);

/// How to run an agent.
pub struct AgentOptions {
    /// Folder of the agent's own files; none keeps nothing (simulations).
    pub state_dir: Option<PathBuf>,
    /// Id of the node, from its certificate.
    pub node: NodeId,
    /// Host name that the cluster sees.
    pub hostname: String,
    /// The address on which host-mode ports are opened; none means all. Several nodes may share one engine.
    pub bind_addr: Option<IpAddr>,
    /// What tasks can reserve; none means all that the host has.
    pub resources: Option<NodeResources>,
    /// Labels on top of the engine's own (`engine.labels.KEY` in constraints).
    pub engine_labels: Labels,
    /// Name and version of the program, for people.
    pub program: String,
    /// The container engine.
    pub executor: Arc<dyn Executor>,
    /// The way to the managers.
    pub connector: Arc<dyn Connector>,
    /// The way to the node's data plane; none for a node that opens no published ports.
    pub data_plane: Option<Arc<dyn DataPlane>>,
    /// The way to `swarmd net`; none for a simulated engine, whose networks are simulated as well.
    pub net: Option<Arc<dyn Side<ToNet>>>,
    /// The folder where the engine shows the network namespaces of its containers.
    pub sandboxes: PathBuf,
    /// Seed of the randomness (reconnection delays). Another one in each run: it also tells this run from others.
    pub seed: u64,
}

/// Why an agent cannot start or leave.
#[derive(Debug, Error)]
pub enum AgentError {
    /// Its files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Containers that could not be removed.
    #[error(
        "the containers of this node could not all be removed: the container engine does not answer, or they do not \
         stop; remove those with the label com.docker.swarm.node.id={node} by hand"
    )]
    ContainersLeft {
        /// The node.
        node: NodeId,
    },
}

/// A running agent. Dropping it stops the agent as [`Agent::shutdown`] does, without waiting.
pub struct Agent {
    node: NodeId,
    state_dir: Option<PathBuf>,
    executor: Arc<dyn Executor>,
    session: watch::Receiver<SessionState>,
    left: watch::Receiver<bool>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
    main: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Agent {
    /// Starts an agent on the current tokio runtime. What it ran before is watched again at once.
    ///
    /// # Errors
    /// Its files cannot be opened.
    pub fn start(options: AgentOptions) -> Result<Self, AgentError> {
        let (store, stored) = match &options.state_dir {
            Some(folder) => {
                let (store, stored) = Store::open(folder)?;
                (Some(store), stored)
            }
            None => (None, Stored::default()),
        };
        let node = Arc::new(NodeIdentity {
            id: options.node,
            hostname: options.hostname,
            platform: Platform::default(),
            bind_addr: options.bind_addr,
        });
        let worker = Worker::new(
            WorkerOptions {
                node,
                program: options.program,
                resources: options.resources,
                engine_labels: options.engine_labels,
                seed: options.seed,
                data_address: options.data_plane.as_ref().map(|plane| plane.address()),
                has_networks: options.net.is_some(),
                sandboxes: options.sandboxes,
            },
            stored,
        );
        let (events, incoming) = mpsc::channel(EVENTS_MAX);
        let (session_out, session) = watch::channel(SessionState::Connecting { reason: String::new() });
        let (left_out, left) = watch::channel(false);
        let stop = CancellationToken::new();
        let shell = Shell {
            worker,
            executor: options.executor.clone(),
            connector: options.connector,
            data_plane: options.data_plane,
            data: None,
            need_data: Arc::default(),
            net_side: options.net,
            net: None,
            need_net: Arc::default(),
            started: Instant::now(),
            events: events.clone(),
            check_engine: Arc::new(Notify::new()),
            stop: stop.clone(),
            tracker: TaskTracker::new(),
            stream: None,
            streams: 0,
            asked: BTreeMap::new(),
            preparing: BTreeMap::new(),
            saver: Saver { store, ..Saver::default() },
            log_permits: Arc::new(Semaphore::new(logs::STREAMS_MAX)),
            session: session_out,
            left: left_out,
        };
        let main = tokio::spawn(shell.run(incoming));
        Ok(Self {
            node: options.node,
            state_dir: options.state_dir,
            executor: options.executor,
            session,
            left,
            events,
            stop,
            main,
        })
    }

    /// How the session with the managers stands.
    pub fn session_state(&self) -> watch::Receiver<SessionState> {
        self.session.clone()
    }

    /// The way to have containers in networks that are no tasks.
    pub fn attacher(&self) -> Attacher {
        Attacher::new(self.events.clone(), self.executor.clone())
    }

    /// Stops the agent. Its containers keep running; the next start adopts them.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.main).await {
            tracing::error!(%error, "the agent ended badly");
        }
    }

    /// Tells the managers that the node leaves, stops and removes all its containers and deletes the agent's files.
    ///
    /// # Errors
    /// Containers that are still there after two minutes, or files that cannot be deleted. The agent has stopped in
    /// any case; its files are kept if containers are left.
    pub async fn leave(mut self) -> Result<(), AgentError> {
        // The main loop ends only with `stop`, which nobody else can cancel.
        let _ = self.events.send(Event::Input(Input::Leave)).await;
        let gone = timeout(LEAVE_TIME_MAX, self.left.wait_for(|left| *left)).await.is_ok_and(|r| r.is_ok());
        let (node, folder, executor) = (self.node, self.state_dir.clone(), self.executor.clone());
        self.shutdown().await;
        if !gone {
            return Err(AgentError::ContainersLeft { node });
        }
        executor.keep_files(node, Vec::new()).await;
        keep_networks(executor, Vec::new()).await;
        folder.map_or(Ok(()), |f| Store::wipe(&f)).map_err(AgentError::from)
    }
}

struct Stream {
    number: u64,
    outgoing: mpsc::Sender<ToManager>,
    stop: CancellationToken,
}

struct Shell {
    worker: Worker,
    executor: Arc<dyn Executor>,
    connector: Arc<dyn Connector>,
    data_plane: Option<Arc<dyn DataPlane>>,
    /// The connection to the data plane, if there is one.
    data: Option<mpsc::Sender<ToData>>,
    /// Says that there is to be one.
    need_data: Arc<Notify>,
    net_side: Option<Arc<dyn Side<ToNet>>>,
    /// The connection to `swarmd net`, if there is one.
    net: Option<mpsc::Sender<ToNet>>,
    /// Says that there is to be one.
    need_net: Arc<Notify>,
    started: Instant,
    events: mpsc::Sender<Event>,
    check_engine: Arc<Notify>,
    stop: CancellationToken,
    tracker: TaskTracker,
    stream: Option<Stream>,
    streams: u64,
    /// Requests of the node's API that wait for an answer.
    asked: BTreeMap<TaskId, oneshot::Sender<Result<AttachmentGrant, AttachmentError>>>,
    /// Ends the wait for the image of a task that is being prepared.
    preparing: BTreeMap<TaskId, CancellationToken>,
    saver: Saver,
    log_permits: Arc<Semaphore>,
    session: watch::Sender<SessionState>,
    left: watch::Sender<bool>,
}

impl Shell {
    async fn run(mut self, mut incoming: mpsc::Receiver<Event>) {
        let with_files = self.worker.tasks().filter(|task| !task.assigned.needs.is_empty());
        let kept = with_files.filter(|task| !task.status.state.is_terminal()).map(|task| task.assigned.id).collect();
        self.executor.keep_files(self.worker.node_id(), kept).await;
        self.tracker.spawn(engine::watch(
            self.executor.clone(),
            self.worker.node_id(),
            self.check_engine.clone(),
            self.events.clone(),
            self.stop.clone(),
        ));
        if let Some(plane) = self.data_plane.take() {
            // Before the first session: tables are acknowledged when this data plane goes by them.
            if plane.runs().await {
                for output in self.worker.step(self.now(), [Input::Data(DataInput::Found)]) {
                    self.perform(output);
                }
            }
            self.tracker.spawn(data::run(plane, self.need_data.clone(), self.events.clone(), self.stop.clone()));
        }
        if let Some(side) = self.net_side.take() {
            self.tracker.spawn(net::run(side, self.need_net.clone(), self.events.clone(), self.stop.clone()));
        }
        let mut certificate = self.connector.certificate();
        // Before the first session, so that it says all at once.
        let known = Input::Certificate(certificate.borrow_and_update().clone());
        for output in self.worker.step(self.now(), [known]) {
            self.perform(output);
        }
        let (events, stop) = (self.events.clone(), self.stop.clone());
        self.tracker.spawn(stop.run_until_cancelled_owned(async move {
            while certificate.changed().await.is_ok() {
                let now = Input::Certificate(certificate.borrow_and_update().clone());
                if events.send(Event::Input(now)).await.is_err() {
                    return;
                }
            }
        }));
        let mut batch = Vec::new();
        loop {
            let now_ms = self.now().mono_ms;
            let wait_ms = self.worker.deadline_ms().saturating_sub(now_ms).min(SLEEP_MS_MAX);
            let wake = Instant::now() + Duration::from_millis(wait_ms);
            tokio::select! {
                () = self.stop.cancelled() => break,
                _ = incoming.recv_many(&mut batch, STEP_INPUTS_MAX) => {}
                () = sleep_until(wake) => {}
                store = self.saver.written() => self.saver.next(store),
            }
            let inputs: Vec<_> = batch.drain(..).filter_map(|event| self.accept(event)).collect();
            for output in self.worker.step(self.now(), inputs) {
                self.perform(output);
            }
        }
        self.stream = None;
        self.tracker.close();
        self.tracker.wait().await;
        self.saver.finish().await;
    }

    fn now(&self) -> Now {
        Now { wall: swarm_wire::clock::now(), mono_ms: self.started.elapsed().as_millis() as u64 }
    }

    /// Drops what a stream that was given up still says.
    fn accept(&mut self, event: Event) -> Option<Input> {
        let input = match event {
            Event::Input(input) => input,
            Event::Data(connection, input) => {
                if let DataInput::Up(_) | DataInput::Down = input {
                    self.data = connection;
                }
                Input::Data(input)
            }
            Event::Net(connection, input) => {
                if let NetInput::Up(_) | NetInput::Down(_) = input {
                    self.net = connection;
                }
                Input::Net(input)
            }
            Event::Ask(ask, answer) => {
                self.asked.insert(ask.id, answer);
                Input::Attachment(AttachmentInput::Ask(ask))
            }
            Event::Stream(number, input) if self.stream.as_ref().is_some_and(|s| s.number == number) => input,
            Event::Stream(..) => return None,
        };
        if let Input::Done { task, .. } = &input {
            self.preparing.remove(task);
        }
        Some(input)
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Connect { leader } => self.connect(leader),
            Output::Disconnect => self.disconnect(),
            Output::Send(message) => self.send(message),
            Output::NeedData => self.need_data.notify_one(),
            Output::Data(message) => {
                // A data plane that does not keep up is told everything anew.
                if self.data.as_ref().is_some_and(|data| data.try_send(message).is_err()) {
                    self.data = None;
                }
            }
            Output::NeedNet => self.need_net.notify_one(),
            Output::Net(message) => {
                if self.net.as_ref().is_some_and(|net| net.try_send(message).is_err()) {
                    self.net = None;
                }
            }
            Output::KeepNetworks(networks) => {
                let executor = self.executor.clone();
                self.tracker.spawn(self.stop.clone().run_until_cancelled_owned(keep_networks(executor, networks)));
            }
            Output::Attachment(output) => self.attachment(output),
            Output::Managers(addrs) => self.connector.managers(&addrs),
            Output::Role(role) => self.connector.role(role),
            Output::Authority(authority) => self.connector.authority(authority),
            Output::Session(state) => drop(self.session.send_replace(state)),
            Output::Run(task, operation) => self.operate(task, operation),
            Output::Cancel(task) => {
                if let Some(token) = self.preparing.get(&task) {
                    token.cancel();
                }
            }
            Output::List => {
                let (executor, node) = (self.executor.clone(), self.worker.node_id());
                self.spawn(async move { Input::Listed(executor.list(node).await) });
            }
            Output::RemoveStray(id) => {
                let executor = self.executor.clone();
                self.spawn(async move {
                    let result = executor.remove(id.clone(), STRAY_GRACE_SECS).await;
                    Input::StrayRemoved { id, result }
                });
            }
            Output::CheckEngine => self.check_engine.notify_one(),
            Output::DropFiles(task) => {
                let (executor, node) = (self.executor.clone(), self.worker.node_id());
                self.tracker.spawn(async move { executor.drop_files(node, task).await });
            }
            Output::Save(changes) => self.saver.add(changes),
            Output::Logs(request) => {
                let source = |task| self.worker.container_id(task).map(str::to_owned);
                let sources = request.tasks.iter().map(|task| (*task, source(*task))).collect();
                let serve = logs::serve(
                    self.worker.node_id(),
                    request,
                    sources,
                    self.executor.clone(),
                    self.connector.clone(),
                    self.log_permits.clone(),
                    self.stop.clone(),
                );
                self.tracker.spawn(serve);
            }
            Output::Left => drop(self.left.send_replace(true)),
        }
    }

    fn attachment(&mut self, output: AttachmentOutput) {
        match output {
            AttachmentOutput::List => {
                let executor = self.executor.clone();
                self.spawn(async move { Input::Attachment(AttachmentInput::Listed(executor.attached().await)) });
            }
            AttachmentOutput::Answer(id, answer) => {
                let is_taken = self.asked.remove(&id).is_none_or(|asked| asked.send(answer).is_ok());
                if !is_taken {
                    // The caller has gone.
                    self.spawn(async move { Input::Attachment(AttachmentInput::Withdraw(id)) });
                }
            }
            AttachmentOutput::Detach { network, container } => {
                let executor = self.executor.clone();
                // Not cancelled: the node may leave, and its networks are removed behind this.
                self.tracker.spawn(async move {
                    let detached = timeout(DETACH_TIME_MAX, executor.detach(network, container.clone())).await;
                    if !matches!(detached, Ok(Ok(()))) {
                        tracing::warn!(%container, %network, ?detached, "a container stays in a network for now");
                    }
                });
            }
        }
    }

    /// Runs something whose outcome is an input.
    fn spawn(&self, work: impl Future<Output = Input> + Send + 'static) {
        let (events, stop) = (self.events.clone(), self.stop.clone());
        self.tracker.spawn(async move {
            tokio::select! {
                input = work => drop(events.send(Event::Input(input)).await),
                () = stop.cancelled() => {}
            }
        });
    }

    fn operate(&mut self, task: TaskId, operation: Operation) {
        let executor = self.executor.clone();
        let cancel = CancellationToken::new();
        if let Operation::Prepare(_) = operation {
            self.preparing.insert(task, cancel.clone());
        }
        self.spawn(async move {
            let result = match operation {
                Operation::Inspect(request) => executor.inspect(request).await,
                Operation::Prepare(request) => executor.prepare(request, cancel).await,
                Operation::Start(id, None) => executor.start(id).await,
                Operation::Start(id, Some(request)) => match executor.put_files(*request).await {
                    Ok(()) => executor.start(id).await,
                    Err(error) => Err(error),
                },
                Operation::Stop(id, grace_secs) => executor.stop(id, grace_secs).await,
                Operation::Remove(id, grace_secs) => {
                    executor.remove(id, grace_secs).await.map(|()| crate::executor::Observed::Absent)
                }
            };
            Input::Done { task, result }
        });
    }

    fn connect(&mut self, leader: Option<String>) {
        self.disconnect();
        self.streams += 1;
        let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
        let stop = self.stop.child_token();
        let (number, events) = (self.streams, self.events.clone());
        self.tracker.spawn(connection::run(number, self.connector.clone(), leader, messages, events, stop.clone()));
        self.stream = Some(Stream { number, outgoing, stop });
    }

    fn disconnect(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.stop.cancel();
        }
    }

    fn send(&mut self, message: ToManager) {
        let Some(stream) = &self.stream else { return };
        if stream.outgoing.try_send(message).is_ok() {
            return;
        }
        let (number, events) = (stream.number, self.events.clone());
        let broken = Input::Disconnected("the manager does not take what is sent".into());
        // The number is checked again when it arrives; the stream stops at once.
        stream.stop.cancel();
        self.tracker.spawn(async move { drop(events.send(Event::Stream(number, broken)).await) });
    }
}

/// Removes the engine's parts of other networks than these.
async fn keep_networks(executor: Arc<dyn Executor>, networks: Vec<ObjectId>) {
    if let Err(error) = executor.keep_networks(networks).await {
        tracing::warn!(%error, "networks that this node is not in any more stay at the engine for now");
    }
}

/// Grace of a container that belongs to no task: nobody knows its spec any more (swarm-behaviour §12.1).
const STRAY_GRACE_SECS: u32 = 10;

type Writing = JoinHandle<Store>;

/// What a change is about; a newer change replaces an older one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Task(TaskId),
    Spec(ServiceId, u64),
}

/// Writes changes to the store, one transaction after another, away from the main loop. While one is being written
/// the next ones are gathered, at most one for each task and spec.
#[derive(Default)]
struct Saver {
    /// The store, unless it is with the writer; never there without a state folder.
    store: Option<Store>,
    waiting: BTreeMap<Key, Change>,
    writing: Option<Writing>,
}

impl Saver {
    fn add(&mut self, changes: Vec<Change>) {
        if self.store.is_none() && self.writing.is_none() {
            return;
        }
        for change in changes {
            let key = match &change {
                Change::PutTask(task) => Key::Task(task.assigned.id),
                Change::DeleteTask(id) => Key::Task(*id),
                Change::PutSpec(spec) => Key::Spec(spec.service, spec.version),
                Change::DeleteSpec(service, version) => Key::Spec(*service, *version),
            };
            self.waiting.insert(key, change);
        }
        self.write();
    }

    fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if let Some(mut store) = self.store.take() {
            let changes: Vec<_> = std::mem::take(&mut self.waiting).into_values().collect();
            self.writing = Some(tokio::task::spawn_blocking(move || {
                if let Err(error) = store.save(&changes) {
                    tracing::error!(%error, "changes of tasks could not be kept; a restart will ask the managers");
                }
                store
            }));
        }
    }

    /// Waits for the transaction that is under way, for ever if there is none.
    async fn written(&mut self) -> Option<Store> {
        match &mut self.writing {
            Some(writing) => writing.await.ok(),
            None => std::future::pending().await,
        }
    }

    fn next(&mut self, store: Option<Store>) {
        self.writing = None;
        self.store = store;
        self.write();
    }

    async fn finish(mut self) {
        while self.writing.is_some() {
            let store = self.written().await;
            self.next(store);
        }
    }
}
