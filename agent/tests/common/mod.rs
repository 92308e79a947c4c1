//! A manager in a few lines, and waiting with an end.

#![allow(dead_code, reason = "each test file uses its part of this")]
#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, reason = "test code")]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture};
use swarm_agent::{Agent, AgentOptions, ByteStream, Connector, Executor, Purpose};
use swarm_model::{DesiredState, Id, NodeId, ServiceId, TaskId, TaskState, TaskStatus, Timestamp};
use swarm_wire::{
    agent::{
        AssignedObject, AssignedSpec, AssignedTask, Changeset, Hello, Item, ItemChange, ItemKey, LogMessage,
        LogRequest, NodeReport, Shared, TaskReport, ToAgent, Welcome,
    },
    channel,
};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// No test waits longer than this for anything; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until a watched value is as it should be.
pub async fn eventually<T: Clone + std::fmt::Debug>(
    values: &mut watch::Receiver<T>,
    what: &str,
    mut is_so: impl FnMut(&T) -> bool,
) -> T {
    let found = tokio::time::timeout(PATIENCE, values.wait_for(|v| is_so(v))).await.map(|r| r.map(|v| v.clone()));
    match found {
        Ok(value) => value.expect("the sender lives"),
        Err(_) => panic!("waited in vain for {what}; it is {:?}", values.borrow().clone()),
    }
}

/// Waits for something that tells when it is there.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits until an engine has no container of a node any more.
pub async fn no_container_of(engine: &dyn Executor, node: NodeId) {
    only_containers_of(engine, node, &[]).await;
}

/// Waits until an engine has these containers of a node, by id, and no others.
pub async fn only_containers_of(engine: &dyn Executor, node: NodeId, left: &[String]) {
    let left: BTreeSet<&str> = left.iter().map(String::as_str).collect();
    // From before the first look, so that nothing happens between that and the first event.
    let mut events = engine.events(node, swarm_wire::clock::now());
    within("the containers to go", async {
        loop {
            let found = engine.list(node).await.expect("a listing");
            if found.iter().filter_map(|c| c.state.container_id()).collect::<BTreeSet<_>>() == left {
                return;
            }
            events.next().await.expect("the engine goes on telling");
        }
    })
    .await;
}

#[derive(Clone, Debug)]
enum Command {
    Tell(ToAgent),
}

/// The items that a node is to have.
#[derive(Default)]
struct Wanted {
    objects: Vec<AssignedObject>,
    specs: Vec<AssignedSpec>,
    tasks: BTreeMap<TaskId, AssignedTask>,
}

/// A manager: keeps what it wants and what it is told.
pub struct Manager {
    wanted: Mutex<Wanted>,
    commands: broadcast::Sender<Command>,
    pub statuses: watch::Sender<BTreeMap<TaskId, TaskStatus>>,
    pub node: watch::Sender<Option<NodeReport>>,
    pub sessions: watch::Sender<u64>,
    pub left: watch::Sender<bool>,
    logs: Mutex<BTreeMap<u64, mpsc::UnboundedSender<LogMessage>>>,
    reachable: Mutex<(bool, CancellationToken)>,
    revision: AtomicU64,
}

fn puts(
    objects: &[AssignedObject],
    specs: &[AssignedSpec],
    tasks: impl IntoIterator<Item = AssignedTask>,
) -> Vec<ItemChange> {
    let objects = objects.iter().map(|object| Item::Object(Shared::new(object).unwrap()));
    let specs = specs.iter().map(|spec| Item::Spec(Shared::new(spec).unwrap()));
    objects.chain(specs).chain(tasks.into_iter().map(Item::Task)).map(ItemChange::Put).collect()
}

impl Manager {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            wanted: Mutex::default(),
            commands: broadcast::channel(1024).0,
            statuses: watch::channel(BTreeMap::new()).0,
            node: watch::channel(None).0,
            sessions: watch::channel(0).0,
            left: watch::channel(false).0,
            logs: Mutex::default(),
            reachable: Mutex::new((true, CancellationToken::new())),
            revision: AtomicU64::new(0),
        })
    }

    fn tell(&self, changes: Vec<ItemChange>) {
        let revision = self.revision.fetch_add(1, Ordering::SeqCst) + 1;
        let changes = Changeset { full: false, complete: true, revision, changes };
        // Nobody listens while there is no session.
        let _ = self.commands.send(Command::Tell(ToAgent::Changes(changes)));
    }

    /// Wants a task of a spec.
    pub fn want(&self, spec: &AssignedSpec, id: TaskId, desired: DesiredState) {
        self.want_with(spec, &[], id, desired);
    }

    /// Wants a task of a spec that names these objects.
    pub fn want_with(&self, spec: &AssignedSpec, objects: &[AssignedObject], id: TaskId, desired: DesiredState) {
        let (service, spec_version) = (spec.service, spec.version);
        let generic_resources = Default::default();
        let needs = objects.iter().map(AssignedObject::key).collect();
        let task = AssignedTask {
            id,
            service,
            spec_version,
            slot: Some(1),
            desired,
            generic_resources,
            needs,
            addrs: Arc::default(),
        };
        {
            let mut wanted = self.wanted.lock().unwrap();
            wanted.specs.retain(|s| s.service != spec.service);
            wanted.specs.push(spec.clone());
            wanted.tasks.insert(id, task.clone());
            wanted.objects.extend(objects.iter().cloned());
        }
        self.tell(puts(objects, std::slice::from_ref(spec), [task]));
    }

    /// Wants something else of a task.
    pub fn desire(&self, id: TaskId, desired: DesiredState) {
        let task = {
            let mut wanted = self.wanted.lock().unwrap();
            let task = wanted.tasks.get_mut(&id).unwrap();
            task.desired = desired;
            task.clone()
        };
        self.tell(puts(&[], &[], [task]));
    }

    /// Takes a task out of the assignment.
    pub fn unassign(&self, id: TaskId) {
        self.wanted.lock().unwrap().tasks.remove(&id);
        self.tell(vec![ItemChange::Remove(ItemKey::Task(id))]);
    }

    /// Ends all sessions and, unless reachable, lets no new one in.
    pub fn set_reachable(&self, reachable: bool) {
        let mut guard = self.reachable.lock().unwrap();
        guard.0 = reachable;
        std::mem::take(&mut guard.1).cancel();
    }

    /// Waits for a task to be in a state and gives its status.
    pub async fn state(&self, id: TaskId, state: TaskState) -> TaskStatus {
        let mut statuses = self.statuses.subscribe();
        let is_so = |all: &BTreeMap<TaskId, TaskStatus>| all.get(&id).is_some_and(|s| s.state >= state);
        let all = eventually(&mut statuses, &format!("state {state}"), is_so).await;
        assert_eq!(all[&id].state, state, "{:?}", all[&id]);
        all[&id].clone()
    }

    /// Waits for the node to say whether its engine answers.
    pub async fn engine_reachable(&self, reachable: bool) -> NodeReport {
        let mut node = self.node.subscribe();
        let is_so = |n: &Option<NodeReport>| n.as_ref().is_some_and(|n| n.engine_reachable == reachable);
        eventually(&mut node, "the engine", is_so).await.unwrap()
    }

    /// Asks for logs.
    pub fn logs(&self, request: LogRequest) -> mpsc::UnboundedReceiver<LogMessage> {
        let (lines, receiver) = mpsc::unbounded_channel();
        self.logs.lock().unwrap().insert(request.subscription, lines);
        self.commands.send(Command::Tell(ToAgent::StartLogs(request))).expect("a session");
        receiver
    }

    async fn serve(self: Arc<Self>, stream: tokio::io::DuplexStream) -> io::Result<()> {
        let cut = self.reachable.lock().unwrap().1.clone();
        let (mut sender, mut receiver) = channel::<_, ToAgent, FromAgent>(stream);
        let hello = match receiver.recv().await? {
            Some(FromAgent::Hello(hello)) => hello,
            Some(FromAgent::Logs { subscription }) => {
                let lines = self.logs.lock().unwrap().remove(&subscription).expect("a known subscription");
                while let Some(line) = receiver.recv().await? {
                    if lines.send(line.log()).is_err() {
                        break;
                    }
                }
                return Ok(());
            }
            other => panic!("first message {other:?}"),
        };
        let mut commands = self.commands.subscribe();
        self.node.send_replace(Some(hello.node));
        let welcome = Welcome {
            heartbeat_period_ms: 200,
            managers: vec!["manager:2377".into()],
            role: None,
            authority: None,
            takes_attachments: false,
        };
        sender.send(&ToAgent::Welcome(welcome)).await?;
        let full = {
            let wanted = self.wanted.lock().unwrap();
            let revision = self.revision.load(Ordering::SeqCst);
            let changes = puts(&wanted.objects, &wanted.specs, wanted.tasks.values().cloned());
            Changeset { full: true, complete: true, revision, changes }
        };
        sender.send(&ToAgent::Changes(full)).await?;
        self.sessions.send_modify(|n| *n += 1);
        let (answers, mut to_send) = mpsc::unbounded_channel();
        let read = async {
            while let Some(message) = receiver.recv().await? {
                match message {
                    FromAgent::Heartbeat => drop(answers.send(ToAgent::HeartbeatAck)),
                    FromAgent::Describe(node) => drop(self.node.send_replace(Some(node))),
                    FromAgent::Leaving => drop(self.left.send_replace(true)),
                    FromAgent::Status { batch, reports } => {
                        self.statuses.send_modify(|all| {
                            for report in reports {
                                let old = all.get(&report.task).map_or(TaskState::Pending, |s| s.state);
                                if report.status.state >= old {
                                    all.insert(report.task, report.status);
                                }
                            }
                        });
                        let _ = answers.send(ToAgent::StatusAck { batch });
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
            io::Result::Ok(())
        };
        let write = async {
            loop {
                let message = tokio::select! {
                    Ok(Command::Tell(message)) = commands.recv() => message,
                    Some(message) = to_send.recv() => message,
                };
                sender.send(&message).await?;
            }
        };
        tokio::select! {
            result = read => result,
            result = write => result,
            () = cut.cancelled() => Ok(()),
        }
    }
}

/// What comes on a stream: the messages of `ToManager`, then those of `LogMessage`.
#[derive(Debug, serde::Deserialize)]
enum FromAgent {
    Hello(Hello),
    Heartbeat,
    Describe(NodeReport),
    Status { batch: u64, reports: Vec<TaskReport> },
    Leaving,
    Logs { subscription: u64 },
    Line { task: TaskId, node: NodeId, stderr: bool, at: Timestamp, data: Vec<u8> },
    Incomplete { task: TaskId, reason: String },
}

impl FromAgent {
    fn log(self) -> LogMessage {
        match self {
            Self::Line { task, node, stderr, at, data } => LogMessage::Line { task, node, stderr, at, data },
            Self::Incomplete { task, reason } => LogMessage::Incomplete { task, reason },
            other => panic!("{other:?} is no log message"),
        }
    }
}

/// The way to a [`Manager`].
pub struct Way(pub Arc<Manager>);

impl Connector for Way {
    fn role(&self, _role: swarm_model::NodeRole) {}

    fn authority(&self, _authority: swarm_wire::agent::Authority) {}

    fn certificate(&self) -> watch::Receiver<swarm_model::NodeCertificate> {
        watch::channel(Default::default()).1
    }

    fn connect(&self, _: Purpose) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        let manager = self.0.clone();
        Box::pin(async move {
            if !manager.reachable.lock().unwrap().0 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(manager.serve(theirs));
            Ok(Box::new(ours) as Box<dyn ByteStream>)
        })
    }

    fn managers(&self, addrs: &[String]) {
        assert_eq!(addrs, ["manager:2377"]);
    }
}

/// Ids that no other test, in this process or another one, uses.
pub fn unique<T: Id>() -> T {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let at = jiff::Timestamp::now().as_millisecond();
    T::make(Timestamp::from_millis(at), u128::from(std::process::id()) << 32 | u128::from(n))
}

/// A spec from the JSON of a `TaskSpec` and of ports.
pub fn spec(task: serde_json::Value, ports: serde_json::Value) -> AssignedSpec {
    AssignedSpec {
        service: unique::<ServiceId>(),
        version: 1,
        service_name: "web".into(),
        service_labels: Default::default(),
        task: serde_json::from_value(task).unwrap(),
        ports: serde_json::from_value(ports).unwrap(),
        registry_auth: None,
    }
}

/// Options of an agent that talks to this manager.
pub fn options(manager: &Arc<Manager>, node: NodeId, executor: Arc<dyn Executor>) -> AgentOptions {
    AgentOptions {
        state_dir: None,
        node,
        hostname: "one".into(),
        bind_addr: None,
        resources: None,
        engine_labels: Default::default(),
        program: "test".into(),
        executor,
        connector: Arc::new(Way(manager.clone())),
        seed: 1,
        net: None,
        sandboxes: "/run/docker/netns".into(),
        data_plane: None,
    }
}

/// Starts an agent.
pub fn start(options: AgentOptions) -> Agent {
    Agent::start(options).expect("an agent")
}
