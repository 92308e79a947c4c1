//! The dispatcher with scripted agents over in-memory streams, on consensus of one.

mod networks;
mod objects;
mod questions;
mod stops;
mod twins;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use swarm_consensus::{ProposeError, Role};
use swarm_core::Op;
use swarm_model::{
    Availability, DesiredState, NodeDescription, NodeId, NodeRole, NodeState, TaskId, TaskState, TaskStatus, Timestamp,
};
use swarm_wire::{
    PeerIdentity, Receiver, Sender,
    agent::{
        AGENT_PROTOCOL, Assignments, Held, Hello, LogMessage, NodeReport, Resume, TaskReport, ToAgent, ToManager,
        digest,
    },
    channel,
};
use tokio::{
    io::{DuplexStream, ReadHalf, WriteHalf, duplex},
    time::{advance, sleep, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use super::Dispatcher;
use crate::{
    api::{LogSelector, LogTarget},
    feed::{Feed, Topic},
    logs::LogBroker,
    raft::Raft,
    testing::{CLUSTER, FakeRaft, World, description},
};

const ADDR: &str = "10.0.0.9:40000";

struct Fixture {
    raft: Arc<FakeRaft>,
    feed: Arc<Feed>,
    logs: Arc<LogBroker>,
    dispatcher: Arc<Dispatcher>,
    stop: CancellationToken,
    _lead: AbortOnDropHandle<()>,
}

impl Fixture {
    /// A leader with this state.
    async fn new(world: World) -> Self {
        let feed = Feed::new();
        let raft = FakeRaft::new(world.state, feed.clone());
        let shared: Arc<dyn Raft> = raft.clone();
        let logs = LogBroker::new(feed.clone(), CancellationToken::new(), TaskTracker::new());
        let dispatcher = Dispatcher::new(shared, feed.clone(), CLUSTER, logs.clone());
        let stop = CancellationToken::new();
        let lead = tokio::spawn({
            let (dispatcher, stop) = (dispatcher.clone(), stop.clone());
            async move { dispatcher.lead(&stop).await }
        });
        while dispatcher.current().is_none() {
            tokio::task::yield_now().await;
        }
        Self { raft, feed, logs, dispatcher, stop, _lead: AbortOnDropHandle::new(lead) }
    }

    /// Opens a stream as this node.
    fn open(&self, node: NodeId) -> DuplexStream {
        self.open_from(node, ADDR)
    }

    /// The same from another address.
    fn open_from(&self, node: NodeId, addr: &str) -> DuplexStream {
        let (ours, theirs) = duplex(64 << 10);
        let (dispatcher, addr) = (self.dispatcher.clone(), addr.parse::<SocketAddr>().unwrap());
        tokio::spawn(async move { dispatcher.serve(peer(node), addr, theirs).await });
        ours
    }

    /// Opens a session.
    async fn agent(&self, node: NodeId, resume: Option<Resume>) -> Agent {
        let (sender, receiver) = channel(self.open(node));
        let mut agent = Agent { sender, receiver };
        agent.say(hello(node, resume)).await;
        agent
    }

    /// An agent that has got its welcome and its first assignments.
    async fn ready(&self, node: NodeId) -> (Agent, Assignments) {
        let mut agent = self.agent(node, None).await;
        assert!(matches!(agent.hear().await, ToAgent::Welcome(_)));
        let ToAgent::Assignments(assignments) = agent.hear().await else { panic!("assignments follow the welcome") };
        (agent, assignments)
    }

    async fn wait_for_node(&self, node: NodeId, state: NodeState) {
        let watch = self.feed.watch(Topic::Node(node));
        while self.feed.state().node(node).unwrap().status.state != state {
            watch.changed().await;
        }
    }

    fn state_of(&self, task: TaskId) -> TaskState {
        self.feed.state().task(task).unwrap().status.state
    }
}

fn peer(node: NodeId) -> PeerIdentity {
    PeerIdentity {
        node,
        role: NodeRole::Worker,
        cluster: CLUSTER,
        cert_valid_from: Timestamp::ZERO,
        cert_expires_at: Timestamp(i64::MAX),
        issuer: String::new(),
    }
}

fn report_of(node: NodeId) -> NodeReport {
    NodeReport { description: description(&format!("host{}", node.0)), engine_reachable: true }
}

fn hello(node: NodeId, resume: Option<Resume>) -> ToManager {
    ToManager::Hello(Box::new(Hello {
        protocol: AGENT_PROTOCOL,
        program: "test".into(),
        node: report_of(node),
        resume,
        run: None,
        newest: None,
        table: None,
        takes_networks: false,
        takes_questions: false,
    }))
}

struct Agent {
    sender: Sender<WriteHalf<DuplexStream>, ToManager>,
    receiver: Receiver<ReadHalf<DuplexStream>, ToAgent>,
}

impl Agent {
    async fn say(&mut self, message: ToManager) {
        self.sender.send(&message).await.unwrap();
    }

    async fn hear(&mut self) -> ToAgent {
        self.receiver.recv().await.unwrap().expect("the stream is open")
    }

    async fn report(&mut self, batch: u64, task: TaskId, state: TaskState) {
        let reports = vec![TaskReport { task, status: TaskStatus::new(state, Timestamp(7)) }];
        self.say(ToManager::Status { batch, reports }).await;
    }

    /// Whether the other side closed the stream.
    async fn closed(&mut self) -> bool {
        !matches!(self.receiver.recv().await, Ok(Some(_)))
    }
}

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);

#[tokio::test(start_paused = true)]
async fn a_session_from_hello_to_a_committed_status() {
    let mut world = World::new(2);
    let service = world.service("web");
    let task = world.task(service, 1, N1);
    let fixture = Fixture::new(world).await;
    let (mut agent, first) = fixture.ready(N1).await;
    assert_eq!((first.full, first.complete), (true, true));
    assert_eq!(first.tasks.iter().map(|t| t.id).collect::<Vec<_>>(), [task]);
    assert_eq!(fixture.feed.state().node(N1).unwrap().status.addr, "10.0.0.9");

    agent.say(ToManager::Heartbeat).await;
    assert_eq!(agent.hear().await, ToAgent::HeartbeatAck);

    agent.report(1, task, TaskState::Running).await;
    assert_eq!(agent.hear().await, ToAgent::StatusAck { batch: 1 });
    assert_eq!(fixture.state_of(task), TaskState::Running, "it is committed before it is acknowledged");

    // What is changed is pushed; the status alone was not.
    fixture.raft.commit(Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![task] });
    let ToAgent::Assignments(update) = agent.hear().await else { panic!("assignments are pushed") };
    assert!(!update.full && update.complete && update.specs.is_empty());
    assert_eq!(update.tasks[0].desired, DesiredState::Shutdown);

    // Back with what it has, it is told that nothing is missing.
    let held =
        Resume { revision: update.revision, digest: digest([Held::Task(task, DesiredState::Shutdown)]), all: None };
    let mut again = fixture.agent(N1, Some(held)).await;
    assert!(matches!(again.hear().await, ToAgent::Welcome(_)));
    let ToAgent::Assignments(nothing) = again.hear().await else { panic!("one message says so") };
    assert!(!nothing.full && nothing.complete && nothing.tasks.is_empty());
    assert!(agent.closed().await, "the latest session of a node wins");
}

#[tokio::test(start_paused = true)]
async fn agents_learn_of_managers_that_come() {
    let fixture = Fixture::new(World::new(1)).await;
    let (mut agent, _) = fixture.ready(N1).await;
    // Nothing of this is about the agent's own node.
    fixture.raft.commit(Op::AdmitNode {
        node: NodeId(7),
        role: NodeRole::Manager,
        cert_expires_at: Timestamp(1),
        manager_addr: Some("10.0.0.7:2377".into()),
        availability: Availability::Active,
    });
    let ToAgent::Welcome(welcome) = agent.hear().await else { panic!("it is told") };
    assert!(welcome.managers.contains(&"10.0.0.7:2377".to_owned()), "{welcome:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_says_why() {
    let fixture = Fixture::new(World::new(1)).await;
    let refusal = async |mut agent: Agent| match agent.hear().await {
        ToAgent::Refused { reason, removed, leader } => {
            assert!(agent.closed().await);
            (reason, removed, leader)
        }
        other => panic!("not refused: {other:?}"),
    };
    let (reason, removed, _) = refusal(fixture.agent(NodeId(9), None).await).await;
    assert!(reason.contains("not in the swarm as this manager knows it") && !removed, "{reason}");

    let (sender, receiver) = channel(fixture.open(N1));
    let mut newer = Agent { sender, receiver };
    let node = report_of(N1);
    newer
        .say(ToManager::Hello(Box::new(Hello {
            protocol: 99,
            program: "9.9".into(),
            node,
            resume: None,
            run: None,
            newest: None,
            table: None,
            takes_networks: false,
            takes_questions: false,
        })))
        .await;
    let (reason, removed, _) = refusal(newer).await;
    assert!(reason.contains("99") && !removed, "{reason}");

    fixture.raft.commit(Op::RemoveNode { node: N1, force: true });
    let (reason, removed, _) = refusal(fixture.agent(N1, None).await).await;
    assert!(reason.contains("removed from the swarm") && removed, "{reason}");

    fixture.raft.set_role(Role::Follower { leader: Some("10.0.0.2:2377".into()) });
    fixture.stop.cancel();
    while fixture.dispatcher.current().is_some() {
        tokio::task::yield_now().await;
    }
    let (reason, removed, leader) = refusal(fixture.agent(N1, None).await).await;
    assert_eq!((removed, leader.as_deref()), (false, Some("10.0.0.2:2377")), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_waits_at_any_manager_until_there_is_a_next_leader() {
    let fixture = Fixture::new(World::new(1)).await;
    fixture.stop.cancel();
    while fixture.dispatcher.current().is_some() {
        tokio::task::yield_now().await;
    }
    let follower = |leader: &str| Role::Follower { leader: Some(leader.into()) };
    let refusal = async |agent: &mut Agent| match agent.hear().await {
        ToAgent::Refused { leader, .. } => leader,
        other => panic!("not refused: {other:?}"),
    };
    // It still takes the lost one for the leader, but has not heard of it for a while.
    fixture.raft.set_role(follower("10.0.0.2:2377"));
    fixture.raft.set_leader_contact(Duration::from_secs(1));
    let began = tokio::time::Instant::now();
    let mut agent = fixture.agent(N1, None).await;
    sleep(Duration::from_millis(600)).await;
    fixture.raft.set_role(follower("10.0.0.3:2377"));
    assert_eq!(refusal(&mut agent).await.as_deref(), Some("10.0.0.3:2377"), "the next one is named");
    assert!(began.elapsed() < Duration::from_millis(650), "at once, not after {:?}", began.elapsed());

    // Heard again: it was only slow.
    let mut agent = fixture.agent(N1, None).await;
    sleep(Duration::from_millis(300)).await;
    fixture.raft.set_leader_contact(Duration::ZERO);
    assert_eq!(refusal(&mut agent).await.as_deref(), Some("10.0.0.3:2377"));
    // Nobody comes: the agent is not kept for ever.
    fixture.raft.set_leader_contact(Duration::from_secs(1));
    let began = tokio::time::Instant::now();
    refusal(&mut fixture.agent(N1, None).await).await;
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_removed_is_locked_out_at_once() {
    let fixture = Fixture::new(World::new(2)).await;
    let (mut agent, _) = fixture.ready(N1).await;
    fixture.raft.commit(Op::RemoveNode { node: N1, force: true });
    assert!(matches!(agent.hear().await, ToAgent::Refused { removed: true, .. }));
    assert!(agent.closed().await);
    assert!(matches!(fixture.agent(N1, None).await.hear().await, ToAgent::Refused { removed: true, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_deposed_lets_its_agents_go() {
    let fixture = Fixture::new(World::new(1)).await;
    let (mut agent, _) = fixture.ready(N1).await;
    fixture.stop.cancel();
    assert!(agent.closed().await);
    assert_eq!(fixture.feed.state().node(N1).unwrap().status.state, NodeState::Ready);
}

#[tokio::test(start_paused = true)]
async fn silent_nodes_go_down_and_come_back() {
    let fixture = Fixture::new(World::new(2)).await;
    let (mut silent, _) = fixture.ready(N1).await;
    let (mut agent, _) = fixture.ready(N2).await;
    let beats = tokio::spawn(async move {
        loop {
            agent.say(ToManager::Heartbeat).await;
            assert_eq!(agent.hear().await, ToAgent::HeartbeatAck);
            sleep(Duration::from_secs(2)).await;
        }
    });
    // While its connection stands, its machine lives: only swarmd stands still.
    let began = tokio::time::Instant::now();
    fixture.wait_for_node(N1, NodeState::Down).await;
    let took = began.elapsed();
    assert!((Duration::from_secs(19)..Duration::from_secs(22)).contains(&took), "{took:?}");
    assert_eq!(fixture.feed.state().node(N1).unwrap().status.message, "heartbeat failure");
    assert!(silent.closed().await);
    let back = fixture.ready(N1).await;
    assert_eq!(fixture.feed.state().node(N1).unwrap().status.state, NodeState::Ready);
    assert_eq!(fixture.feed.state().node(N2).unwrap().status.state, NodeState::Ready);
    // Without a connection three missed heartbeats are enough.
    drop(back);
    let began = tokio::time::Instant::now();
    fixture.wait_for_node(N1, NodeState::Down).await;
    let took = began.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(8)).contains(&took), "{took:?}");
    beats.abort();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stood_still_marks_nobody_down() {
    let fixture = Fixture::new(World::new(2)).await;
    let (mut one, _) = fixture.ready(N1).await;
    let (mut two, _) = fixture.ready(N2).await;
    // SIGSTOP: time goes on, and nothing else.
    advance(Duration::from_secs(10)).await;
    for _ in 0..30 {
        for agent in [&mut one, &mut two] {
            agent.say(ToManager::Heartbeat).await;
            assert_eq!(agent.hear().await, ToAgent::HeartbeatAck);
        }
        sleep(Duration::from_secs(2)).await;
    }
    let proposed = fixture.raft.entries();
    let downs = proposed
        .iter()
        .flatten()
        .flat_map(|tx| &tx.ops)
        .filter(|op| matches!(op, Op::ReportNode { status, .. } if status.state == NodeState::Down));
    assert_eq!(downs.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_end_was_not_committed_is_found_silent_again() {
    let fixture = Fixture::new(World::new(1)).await;
    let _silent = fixture.ready(N1).await;
    fixture.raft.fail_next(ProposeError::Unknown);
    fixture.wait_for_node(N1, NodeState::Down).await;
}

#[tokio::test(start_paused = true)]
async fn only_transitions_of_nodes_enter_the_log() {
    let fixture = Fixture::new(World::new(1)).await;
    let (mut agent, _) = fixture.ready(N1).await;
    let proposed = fixture.raft.entries().len();
    for _ in 0..100 {
        agent.say(ToManager::Heartbeat).await;
        assert_eq!(agent.hear().await, ToAgent::HeartbeatAck);
        sleep(Duration::from_secs(2)).await;
    }
    agent.say(ToManager::Describe(report_of(N1).into())).await;
    assert_eq!(fixture.raft.entries().len(), proposed);

    let watch = fixture.feed.watch(Topic::Node(N1));
    let report = NodeReport { engine_reachable: false, ..report_of(N1) };
    agent.say(ToManager::Describe(report.into())).await;
    while fixture.feed.state().node(N1).unwrap().status.engine_reachable {
        watch.changed().await;
    }
    agent.say(ToManager::Leaving).await;
    assert!(agent.closed().await);
    let status = fixture.feed.state().node(N1).unwrap().status.clone();
    assert_eq!((status.state, status.message.as_str()), (NodeState::Down, "the node left the swarm"));
}

#[tokio::test(start_paused = true)]
async fn reports_that_were_not_committed_are_not_acknowledged_and_come_again() {
    let mut world = World::new(1);
    let service = world.service("web");
    let task = world.task(service, 1, N1);
    let fixture = Fixture::new(world).await;
    let (mut agent, _) = fixture.ready(N1).await;
    fixture.raft.fail_next(ProposeError::Unknown);
    agent.report(1, task, TaskState::Running).await;
    assert!(agent.closed().await, "without an answer");
    let (mut agent, _) = fixture.ready(N1).await;
    agent.report(1, task, TaskState::Running).await;
    assert_eq!(agent.hear().await, ToAgent::StatusAck { batch: 1 });
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_floods_and_does_not_read_blocks_only_itself() {
    let mut world = World::new(2);
    let service = world.service("web");
    let (flooded, other) = (world.task(service, 1, N1), world.task(service, 2, N2));
    let fixture = Fixture::new(world).await;
    let (mut flood, _) = fixture.ready(N1).await;
    let (mut agent, _) = fixture.ready(N2).await;
    let flooding = tokio::spawn(async move {
        for batch in 0.. {
            let status = TaskStatus::new(TaskState::Running, Timestamp(batch));
            let batch = u64::try_from(batch).unwrap();
            flood.say(ToManager::Status { batch, reports: vec![TaskReport { task: flooded, status }] }).await;
        }
    });
    agent.report(1, other, TaskState::Running).await;
    assert_eq!(agent.hear().await, ToAgent::StatusAck { batch: 1 });
    // The flood stands: its answers are not read, so it is not read either.
    let proposed = async || {
        sleep(Duration::from_secs(1)).await;
        fixture.raft.entries().len()
    };
    let mut last = proposed().await;
    timeout(Duration::from_secs(3600), async {
        loop {
            let now = proposed().await;
            if now == last {
                return;
            }
            last = now;
        }
    })
    .await
    .expect("it comes to a stand");
    assert!(!flooding.is_finished());
    flooding.abort();
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_one_stream_and_nothing_else() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fixture = Fixture::new(World::new(1)).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0, 0, 0, 3, 0, 0, 0, 0, 1, 2, 3]] {
        let mut stream = fixture.open(N1);
        stream.write_all(garbage).await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    }
    let (sender, receiver) = channel(fixture.open(N1));
    let mut agent = Agent { sender, receiver };
    let mut node = report_of(N1);
    node.description = NodeDescription { hostname: "x".repeat(1 << 20), ..NodeDescription::default() };
    agent
        .say(ToManager::Hello(Box::new(Hello {
            protocol: AGENT_PROTOCOL,
            program: "t".into(),
            node,
            resume: None,
            run: None,
            newest: None,
            table: None,
            takes_networks: false,
            takes_questions: false,
        })))
        .await;
    assert!(matches!(agent.hear().await, ToAgent::Refused { reason, .. } if reason.contains("description")));
    fixture.ready(N1).await;
}

fn selector(target: LogTarget, follow: bool) -> LogSelector {
    LogSelector { target, stdout: true, stderr: true, follow, since: Timestamp::ZERO, tail: Some(5) }
}

fn line(task: TaskId, node: NodeId, text: &str) -> LogMessage {
    LogMessage::Line { task, node, stderr: false, at: Timestamp(1), data: text.into() }
}

impl Fixture {
    fn logs(&self, selector: LogSelector) -> tokio::sync::mpsc::Receiver<LogMessage> {
        let dispatcher = self.dispatcher.clone();
        self.logs.subscribe(selector, Arc::new(move |node, request| dispatcher.order(node, request)))
    }

    /// Opens the stream that an agent was asked for.
    async fn answer(&self, node: NodeId, subscription: u64) -> Sender<WriteHalf<DuplexStream>, LogMessage> {
        let mut stream = self.open(node);
        {
            let (mut sender, _) = channel::<_, ToManager, ToAgent>(&mut stream);
            sender.send(&ToManager::Logs { subscription }).await.unwrap();
        }
        channel::<_, LogMessage, ()>(stream).0
    }
}

#[tokio::test(start_paused = true)]
async fn logs_of_several_nodes_are_merged_and_what_is_missing_is_said() {
    let mut world = World::new(3);
    let service = world.service("web");
    let tasks: Vec<TaskId> = (1..=3).map(|n| world.task(service, n, NodeId(u128::from(n)))).collect();
    for (task, node) in tasks.iter().zip(1..) {
        let reports = vec![(*task, TaskStatus::new(TaskState::Running, Timestamp(1)))];
        world.apply(Op::ReportTasks { node: NodeId(node), reports });
    }
    let fixture = Fixture::new(world).await;
    let (mut one, _) = fixture.ready(N1).await;
    let (mut two, _) = fixture.ready(N2).await;
    let mut lines = fixture.logs(selector(LogTarget::Service(service), false));
    let ToAgent::StartLogs(of_one) = one.hear().await else { panic!("logs are asked for") };
    let ToAgent::StartLogs(of_two) = two.hear().await else { panic!("logs are asked for") };
    assert_eq!((&of_one.tasks, of_one.tail, of_one.follow), (&vec![tasks[0]], Some(5), false));

    // Another node cannot answer in its place.
    fixture.answer(N2, of_one.subscription).await;
    let mut stream = fixture.answer(N1, of_one.subscription).await;
    stream.send(&line(tasks[0], N1, "a")).await.unwrap();
    stream.close().await.unwrap();
    // What a node says of others' tasks is not believed.
    fixture.answer(N2, of_two.subscription).await.send(&line(tasks[0], N1, "forged")).await.unwrap();

    let mut heard = Vec::new();
    while let Some(message) = lines.recv().await {
        heard.push(match message {
            LogMessage::Line { data, .. } => String::from_utf8(data).unwrap(),
            LogMessage::Incomplete { task, reason } => format!("{}: {reason}", task.0),
        });
    }
    heard.sort();
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(heard[0].starts_with("3: ") && heard[0].contains("not asked for"), "{heard:?}");
    assert!(heard[1].starts_with("4: ") && heard[1].contains("not available"), "{heard:?}");
    assert_eq!(heard[2], "a");
}

#[tokio::test(start_paused = true)]
async fn following_a_service_finds_its_new_tasks_and_ends_with_the_reader() {
    let mut world = World::new(1);
    let service = world.service("web");
    let task = world.task(service, 1, N1);
    let fixture = Fixture::new(world).await;
    let (mut agent, _) = fixture.ready(N1).await;
    let mut lines = fixture.logs(selector(LogTarget::Service(service), true));
    agent.report(1, task, TaskState::Running).await;
    let request = loop {
        if let ToAgent::StartLogs(request) = agent.hear().await {
            break request;
        }
    };
    assert_eq!((&request.tasks, request.tail, request.follow), (&vec![task], None, true));
    let mut stream = fixture.answer(N1, request.subscription).await;
    stream.send(&line(task, N1, "new")).await.unwrap();
    assert_eq!(lines.recv().await, Some(line(task, N1, "new")));
    drop(lines);
    while stream.send(&line(task, N1, "unheard")).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_ends_the_wait() {
    let mut world = World::new(1);
    let service = world.service("web");
    let task = world.task(service, 1, N1);
    let fixture = Fixture::new(world).await;
    let mut lines = fixture.logs(selector(LogTarget::Task(task), false));
    let Some(LogMessage::Incomplete { reason, .. }) = lines.recv().await else { panic!("it has not started") };
    assert!(reason.contains("has not started"), "{reason}");
    assert_eq!(lines.recv().await, None);

    let (mut agent, _) = fixture.ready(N1).await;
    agent.report(1, task, TaskState::Running).await;
    assert_eq!(agent.hear().await, ToAgent::StatusAck { batch: 1 });
    let mut lines = fixture.logs(selector(LogTarget::Task(task), false));
    let Some(LogMessage::Incomplete { reason, .. }) = lines.recv().await else { panic!("nobody answers") };
    assert!(reason.contains("did not answer"), "{reason}");
    assert_eq!(lines.recv().await, None);
}
