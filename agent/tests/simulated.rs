//! A whole agent on the simulated engine, with a manager at the other end of its stream.

mod common;

use std::sync::Arc;

use common::{Manager, eventually, no_container_of, options, spec, start, unique, within};
use serde_json::json;
use swarm_agent::{SessionState, SimulatedExecutor};
use swarm_model::{DesiredState as D, NodeId, TaskId, TaskState as S, Timestamp};
use swarm_wire::agent::{LogMessage, LogRequest};

fn image(name: &str) -> serde_json::Value {
    json!({ "ContainerSpec": { "Image": name } })
}

struct Node {
    id: NodeId,
    manager: Arc<Manager>,
    engine: SimulatedExecutor,
}

impl Node {
    fn new() -> Self {
        Self { id: unique(), manager: Manager::new(), engine: SimulatedExecutor::new() }
    }

    fn options(&self) -> swarm_agent::AgentOptions {
        options(&self.manager, self.id, Arc::new(self.engine.clone()))
    }
}

#[tokio::test]
async fn tasks_start_stop_and_go() {
    let node = Node::new();
    let agent = start(node.options());
    let spec = spec(image("hello:1"), json!([{ "TargetPort": 80, "PublishMode": "host" }]));
    let id: TaskId = unique();
    node.manager.want(&spec, id, D::Ready);
    node.manager.state(id, S::Ready).await;
    assert!(node.engine.running(node.id).is_empty());
    node.manager.desire(id, D::Running);
    let status = node.manager.state(id, S::Running).await;
    assert_eq!((status.ports[0].target_port, status.ports[0].published_port), (80, 32768));
    assert_eq!(node.engine.running(node.id), [id]);
    node.manager.desire(id, D::Shutdown);
    node.manager.state(id, S::Shutdown).await;
    assert_eq!(node.engine.count(node.id), 1, "history");
    node.manager.unassign(id);
    no_container_of(&node.engine, node.id).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn ends_are_reported_as_they_were() {
    let node = Node::new();
    let agent = start(node.options());
    let check = json!({ "Test": ["CMD", "true"] });
    let sick = json!({ "ContainerSpec": { "Image": "hello:unhealthy", "Healthcheck": check } });
    for (task, state, err) in [
        (image("hello:broken"), S::Failed, Some("task: non-zero exit (1)")),
        (image("hello:once"), S::Complete, None),
        (image("example.com/missing:1"), S::Rejected, Some("No such image: example.com/missing:1")),
        (sick, S::Failed, Some("unhealthy container")),
    ] {
        let id: TaskId = unique();
        node.manager.want(&spec(task, json!([])), id, D::Running);
        assert_eq!(node.manager.state(id, state).await.err.as_deref(), err);
    }
    let job: TaskId = unique();
    node.manager.want(&spec(image("hello:once"), json!([])), job, D::Complete);
    assert_eq!(node.manager.state(job, S::Complete).await.container.as_ref().and_then(|c| c.exit_code), Some(0));
    let id: TaskId = unique();
    node.manager.want(&spec(image("hello:1"), json!([])), id, D::Running);
    node.manager.state(id, S::Running).await;
    assert!(node.engine.kill(id, 137));
    let status = node.manager.state(id, S::Failed).await;
    assert_eq!(status.err.as_deref(), Some("task: non-zero exit (137)"));
    agent.shutdown().await;
}

#[tokio::test]
async fn an_agent_watches_its_tasks_again_without_a_manager() {
    let node = Node::new();
    let folder = tempfile::tempdir().unwrap();
    let with_files = || swarm_agent::AgentOptions { state_dir: Some(folder.path().into()), ..node.options() };
    let agent = start(with_files());
    let (spec, a, b) = (spec(image("hello:1"), json!([])), unique::<TaskId>(), unique::<TaskId>());
    node.manager.want(&spec, a, D::Running);
    node.manager.want(&spec, b, D::Running);
    node.manager.state(a, S::Running).await;
    node.manager.state(b, S::Running).await;
    agent.shutdown().await;
    assert_eq!(node.engine.running(node.id).len(), 2, "containers outlive the agent");

    node.manager.set_reachable(false);
    node.engine.kill(a, 9);
    let agent = start(with_files());
    let mut session = agent.session_state();
    eventually(&mut session, "an attempt", |s| matches!(s, SessionState::Connecting { reason } if !reason.is_empty()))
        .await;
    node.manager.set_reachable(true);
    let status = node.manager.state(a, S::Failed).await;
    assert_eq!(status.container.unwrap().exit_code, Some(9));
    eventually(&mut session, "a session", |s| *s == SessionState::Open).await;
    assert_eq!(node.engine.running(node.id), [b]);
    assert_eq!(node.engine.count(node.id), 2, "no second copy");
    agent.shutdown().await;
}

#[tokio::test]
async fn a_silent_engine_is_told_and_survived() {
    let node = Node::new();
    let agent = start(node.options());
    let (spec, a, b) = (spec(image("hello:1"), json!([])), unique::<TaskId>(), unique::<TaskId>());
    node.manager.want(&spec, a, D::Running);
    node.manager.state(a, S::Running).await;
    node.engine.set_silent(true);
    node.manager.engine_reachable(false).await;
    node.manager.want(&spec, b, D::Running);
    node.manager.state(b, S::Preparing).await;
    node.engine.set_silent(false);
    node.manager.engine_reachable(true).await;
    node.manager.state(b, S::Running).await;
    node.manager.state(a, S::Running).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn a_restart_by_hand_is_a_failure_also_of_a_container_that_ends_with_code_0() {
    let node = Node::new();
    let agent = start(node.options());
    let id: TaskId = unique();
    node.manager.want(&spec(image("hello:1"), json!([])), id, D::Running);
    node.manager.state(id, S::Running).await;
    assert!(node.engine.restart(id));
    let mut statuses = node.manager.statuses.subscribe();
    let failed = |all: &std::collections::BTreeMap<TaskId, _>| {
        all.get(&id).is_some_and(|s: &swarm_model::TaskStatus| s.state == S::Failed)
    };
    let status = eventually(&mut statuses, "the failure", failed).await.remove(&id);
    assert_eq!(status.and_then(|s| s.err).as_deref(), Some("the container was restarted from outside"));
    for again in [true, false] {
        within("its container to stop", async {
            while !node.engine.running(node.id).is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(!again || node.engine.start_again(id));
    }
    agent.shutdown().await;
}

#[tokio::test]
async fn sessions_come_back() {
    let node = Node::new();
    let agent = start(node.options());
    let mut sessions = node.manager.sessions.subscribe();
    let id: TaskId = unique();
    for n in 1..4 {
        eventually(&mut sessions, "a session", |s| *s >= n).await;
        node.manager.set_reachable(true);
    }
    node.manager.want(&spec(image("hello:1"), json!([])), id, D::Running);
    node.manager.state(id, S::Running).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn logs_go_over_a_stream_of_their_own() {
    let node = Node::new();
    let agent = start(node.options());
    let (a, nowhere) = (unique::<TaskId>(), unique::<TaskId>());
    node.manager.want(&spec(image("hello:1"), json!([])), a, D::Running);
    node.manager.state(a, S::Running).await;
    let request = LogRequest {
        subscription: 5,
        tasks: vec![a, nowhere],
        stdout: true,
        stderr: true,
        follow: false,
        since: Timestamp::ZERO,
        tail: None,
    };
    let mut lines = node.manager.logs(request.clone());
    let mut found = Vec::new();
    while let Some(line) = lines.recv().await {
        found.push(line);
    }
    let text = format!("web.1.{a} runs\n").into_bytes();
    assert_eq!(found.len(), 2);
    assert!(found.iter().any(|l| matches!(l, LogMessage::Line { task, data, .. } if *task == a && *data == text)));
    assert!(found.iter().any(|l| matches!(l, LogMessage::Incomplete { task, .. } if *task == nowhere)));

    let mut lines =
        node.manager.logs(LogRequest { subscription: 6, tasks: vec![a], follow: true, tail: Some(0), ..request });
    node.engine.kill(a, 1);
    assert_eq!(lines.recv().await, None, "following ends with the container");
    agent.shutdown().await;
}

#[tokio::test]
async fn leaving_removes_containers_and_files() {
    let node = Node::new();
    let folder = tempfile::tempdir().unwrap();
    let agent = start(swarm_agent::AgentOptions { state_dir: Some(folder.path().into()), ..node.options() });
    let id: TaskId = unique();
    node.manager.want(&spec(image("hello:1"), json!([])), id, D::Running);
    node.manager.state(id, S::Running).await;
    agent.leave().await.expect("all gone");
    assert!(*node.manager.left.borrow());
    assert_eq!(node.engine.count(node.id), 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn nothing_is_left_of_tasks_that_came_and_went() {
    let node = Node::new();
    let folder = tempfile::tempdir().unwrap();
    let agent = start(swarm_agent::AgentOptions { state_dir: Some(folder.path().into()), ..node.options() });
    for _ in 0..200 {
        // Each with a spec of its own, as updates have it.
        let (spec, id) = (spec(image("hello:1"), json!([])), unique::<TaskId>());
        node.manager.want(&spec, id, D::Running);
        node.manager.state(id, S::Running).await;
        node.manager.unassign(id);
        no_container_of(&node.engine, node.id).await;
    }
    assert_eq!(*node.manager.sessions.borrow(), 1, "it is one session");
    agent.shutdown().await;
    let database = rusqlite::Connection::open(folder.path().join("agent.db")).unwrap();
    for table in ["tasks", "specs"] {
        let rows: i64 =
            database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a table");
        // The agent may have stopped before it heard that the last container is gone.
        assert!(rows <= 1, "{rows} {table}");
    }
}
