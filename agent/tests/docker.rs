//! Real containers on a real Docker Engine: `SWARM_TEST_DOCKER`, or the one at /var/run/docker.sock.

#[path = "common/docker.rs"]
mod engine;

mod common;

use std::{future::Future, io::Read, net::TcpStream, sync::Arc};

use bollard::{models::ContainerCreateBody, query_parameters::CreateContainerOptionsBuilder};
use common::{Manager, no_container_of, only_containers_of, options, spec, start, unique};
use engine::{Engine, IMAGE, PrivateEngine, files_dir};
use serde_json::{Value, json};
use swarm_agent::AgentOptions;
use swarm_model::{
    ConfigContent, DesiredState as D, NodeId, ObjectContent, SecretContent, TaskId, TaskState as S, Templating,
    Timestamp,
};
use swarm_wire::agent::{AssignedObject, LogMessage, LogRequest};

/// A node on a shared engine, under an id of its own.
struct Node {
    id: NodeId,
    manager: Arc<Manager>,
    engine: Engine,
}

impl Node {
    fn options(&self) -> AgentOptions {
        options(&self.manager, self.id, self.engine.executor.clone())
    }
}

/// Runs a test on a node and removes its containers afterwards, also when it fails.
async fn on_a_node<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Arc<Node>) -> F) {
    let Some(engine) = Engine::of_this_machine().await else { return };
    let node = Arc::new(Node { id: unique(), manager: Manager::new(), engine });
    let result = tokio::spawn(test(node.clone())).await;
    node.engine.clean_up(node.id).await;
    if let Err(error) = result {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// A task that runs the test program. SIGKILL as its stop signal, since it has no handlers.
fn app(args: &[&str], more: Value) -> Value {
    let mut container = json!({ "Image": IMAGE, "Command": ["/app"], "Args": args, "StopSignal": "SIGKILL" });
    let fields = more.as_object().expect("an object").clone();
    container.as_object_mut().expect("an object").extend(fields);
    json!({ "ContainerSpec": container, "Networks": [{ "Target": "none" }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_stops_and_goes() {
    on_a_node(async |node: Arc<Node>| {
        let agent = start(node.options());
        let task = app(&["wait"], json!({ "Labels": { "tier": "front" }, "Env": ["NAME={{.Task.Name}}"] }));
        let (spec, id) = (spec(task, json!([])), unique::<TaskId>());
        node.manager.want(&spec, id, D::Ready);
        node.manager.state(id, S::Ready).await;
        node.manager.desire(id, D::Running);
        let status = node.manager.state(id, S::Running).await;
        let container = node.engine.container(id).await.expect("a container");
        let reported = status.container.expect("reported");
        assert_eq!(Some(&reported.id), container.id.as_ref());
        assert!(reported.pid > 0);
        let config = container.config.expect("a config");
        let labels = config.labels.expect("labels");
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        assert_eq!(label("com.docker.swarm.task.name"), format!("web.1.{id}"));
        assert_eq!(label("com.docker.swarm.node.id"), node.id.to_string());
        assert_eq!(label("tier"), "front");
        assert!(config.env.expect("an environment").contains(&format!("NAME=web.1.{id}")));

        node.manager.desire(id, D::Shutdown);
        node.manager.state(id, S::Shutdown).await;
        assert_eq!(node.engine.count(node.id).await, 1, "history");
        node.manager.unassign(id);
        no_container_of(&*node.engine.executor, node.id).await;
        agent.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_and_refusals_are_reported_as_they_were() {
    on_a_node(async |node: Arc<Node>| {
        let agent = start(node.options());
        let mut odd_image = app(&[], json!({}));
        // Nothing listens on port 1: the answer is the same on any machine.
        odd_image["ContainerSpec"]["Image"] = "127.0.0.1:1/none:1".into();
        let mut no_program = app(&[], json!({}));
        no_program["ContainerSpec"]["Command"] = json!(["/nothing"]);
        let mut greedy = app(&["eat"], json!({}));
        greedy["Resources"] = json!({ "Limits": { "MemoryBytes": 16 << 20 } });
        let mut overlay = app(&[], json!({}));
        overlay["Networks"] = json!([{ "Target": "backend" }]);
        for (task, state, part, exit_code) in [
            (app(&["exit", "3"], json!({})), S::Failed, "task: non-zero exit (3)", Some(3)),
            (app(&["exit", "0"], json!({})), S::Complete, "", Some(0)),
            (odd_image, S::Rejected, "No such image: 127.0.0.1:1/none:1", None),
            (no_program, S::Failed, "starting container failed", Some(127)),
            // "killed because it was out of memory" follows only if the engine hears of that before the end.
            (greedy, S::Failed, "task: non-zero exit (137)", Some(137)),
            (overlay, S::Rejected, "network backend is neither an id nor one of bridge, host and none", None),
        ] {
            let id: TaskId = unique();
            node.manager.want(&spec(task, json!([])), id, D::Running);
            let status = node.manager.state(id, state).await;
            let err = status.err.as_deref().unwrap_or_default();
            assert!(err.contains(part), "{err}");
            assert_eq!(status.message() == "starting", exit_code == Some(127), "{err}");
            assert_eq!(status.container.and_then(|c| c.exit_code), exit_code, "{err}");
        }
        agent.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_means_healthy() {
    on_a_node(async |node: Arc<Node>| {
        let agent = start(node.options());
        let check = json!({ "Healthcheck": { "Test": ["CMD", "/app", "check"], "Interval": 200_000_000, "Retries": 1,
                            "StartPeriod": 20_000_000_000_i64 } });
        let (late, id) = (app(&["health", "600", "600"], check.clone()), unique::<TaskId>());
        node.manager.want(&spec(late, json!([])), id, D::Running);
        node.manager.state(id, S::Starting).await;
        node.manager.state(id, S::Running).await;
        assert_eq!(node.manager.state(id, S::Failed).await.err.as_deref(), Some("unhealthy container"));

        let never = json!({ "Healthcheck": { "Test": ["CMD", "/nothing"], "Interval": 200_000_000, "Retries": 1 } });
        let (never, id) = (app(&["wait"], never), unique::<TaskId>());
        node.manager.want(&spec(never, json!([])), id, D::Running);
        assert_eq!(node.manager.state(id, S::Failed).await.err.as_deref(), Some("unhealthy container"));
        agent.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_is_open_on_the_nodes_own_address() {
    on_a_node(async |node: Arc<Node>| {
        let addr = std::net::IpAddr::from([127, 0, 0, 77]);
        let agent = start(AgentOptions { bind_addr: Some(addr), ..node.options() });
        let mut task = app(&["serve", "8080"], json!({}));
        task["Networks"] = json!([]);
        let ports = json!([{ "TargetPort": 8080, "PublishMode": "host" }]);
        let id: TaskId = unique();
        node.manager.want(&spec(task, ports), id, D::Running);
        let status = node.manager.state(id, S::Running).await;
        assert_eq!((status.ports.len(), status.ports[0].target_port), (1, 8080));
        let port = status.ports[0].published_port;
        node.engine.said(id, "listening").await;
        let ask = || {
            let mut answer = String::new();
            TcpStream::connect((addr, port)).and_then(|mut s| s.read_to_string(&mut answer)).map(|_| answer)
        };
        // The engine's proxy takes connections before it reaches the container, and closes them again.
        let answer = async {
            loop {
                match ask() {
                    Ok(answer) if !answer.is_empty() => break answer,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        assert_eq!(common::within("an answer", answer).await, "here\n");
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is open on another address");
        agent.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_adopted_after_a_restart() {
    on_a_node(async |node: Arc<Node>| {
        let folder = tempfile::tempdir().expect("a folder");
        let with_files = || AgentOptions { state_dir: Some(folder.path().into()), ..node.options() };
        let agent = start(with_files());
        let spec = spec(app(&["wait"], json!({})), json!([]));
        let (a, b) = (unique::<TaskId>(), unique::<TaskId>());
        for id in [a, b] {
            node.manager.want(&spec, id, D::Running);
            node.manager.state(id, S::Running).await;
        }
        let before = node.engine.id(a).await;
        agent.shutdown().await;
        let b_container = node.engine.id(b).await;
        let kill = None::<bollard::query_parameters::KillContainerOptions>;
        node.engine.client.kill_container(&b_container, kill).await.expect("killed");

        let agent = start(with_files());
        let status = node.manager.state(b, S::Failed).await;
        assert_eq!(status.container.expect("reported").exit_code, Some(137), "the true exit code");
        assert_eq!(node.engine.id(a).await, before, "the same container");
        assert_eq!(node.engine.count(node.id).await, 2, "no second copy");
        assert!(node.engine.container(a).await.and_then(|c| c.state?.running).expect("a state"));
        agent.leave().await.expect("all gone");
        assert_eq!(node.engine.count(node.id).await, 0);
    })
    .await;
}

/// Makes a container by hand.
async fn make(engine: &Engine, name: &str, labels: &[(&str, String)]) -> String {
    let body = ContainerCreateBody {
        image: Some(IMAGE.into()),
        entrypoint: Some(vec!["/app".into()]),
        labels: Some(labels.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    engine.client.create_container(Some(options), body).await.expect("a container").id
}

#[tokio::test(flavor = "multi_thread")]
async fn strays_go_and_other_containers_stay() {
    on_a_node(async |node: Arc<Node>| {
        let other: NodeId = unique();
        let label = |node: NodeId| ("com.docker.swarm.node.id", node.to_string());
        let task = ("com.docker.swarm.task.id", unique::<TaskId>().to_string());
        make(&node.engine, &format!("stray-{}", node.id), &[label(node.id), task]).await;
        let task_of = |value: &str| ("com.docker.swarm.task.id", value.to_owned());
        make(&node.engine, &format!("other-{}", node.id), &[label(other), task_of(&unique::<TaskId>().to_string())])
            .await;
        // Somebody else's: no task of this node has made them.
        let bare = make(&node.engine, &format!("bare-{}", node.id), &[label(node.id)]).await;
        let odd = make(&node.engine, &format!("odd-{}", node.id), &[label(node.id), task_of("none of ours")]).await;
        let agent = start(node.options());
        only_containers_of(&*node.engine.executor, node.id, &[bare.clone(), odd.clone()]).await;
        assert_eq!(node.engine.count(other).await, 1);
        // Nor do they go, or hold it up, when the node leaves.
        agent.leave().await.expect("it leaves");
        only_containers_of(&*node.engine.executor, node.id, &[bare, odd]).await;
        node.engine.clean_up(other).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_conflict_leads_to_adoption_of_what_is_ours_only() {
    on_a_node(async |node: Arc<Node>| {
        let agent = start(node.options());
        node.manager.engine_reachable(true).await;
        common::eventually(&mut node.manager.sessions.subscribe(), "a session", |n| *n > 0).await;
        let spec = spec(app(&["wait"], json!({})), json!([]));
        let foreign: TaskId = unique();
        let name = format!("web.1.{foreign}");
        let id = make(&node.engine, &name, &[]).await;
        node.manager.want(&spec, foreign, D::Running);
        let status = node.manager.state(foreign, S::Rejected).await;
        assert!(status.err.expect("an error").contains("is in use by a container that does not belong to this task"));
        node.manager.unassign(foreign);
        let gone = node.engine.client.remove_container(&id, None::<bollard::query_parameters::RemoveContainerOptions>);
        gone.await.expect("it was left alone");
        agent.shutdown().await;

        // Without its files the agent finds what it made before.
        let agent = start(node.options());
        let ours: TaskId = unique();
        node.manager.want(&spec, ours, D::Running);
        node.manager.state(ours, S::Running).await;
        let before = node.engine.id(ours).await;
        agent.shutdown().await;
        let agent = start(node.options());
        let mut sessions = node.manager.sessions.subscribe();
        common::eventually(&mut sessions, "a session", |n| *n == 3).await;
        node.manager.desire(ours, D::Shutdown);
        node.manager.state(ours, S::Shutdown).await;
        assert_eq!(node.engine.id(ours).await, before);
        assert_eq!(node.engine.count(node.id).await, 1);
        agent.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_line_by_line() {
    on_a_node(async |node: Arc<Node>| {
        let agent = start(node.options());
        let id: TaskId = unique();
        let task = app(&["say"], json!({ "Env": ["NAME={{.Service.Name}}"] }));
        node.manager.want(&spec(task, json!([])), id, D::Running);
        node.manager.state(id, S::Running).await;
        let request = LogRequest {
            subscription: 1,
            tasks: vec![id],
            stdout: true,
            stderr: true,
            follow: true,
            since: Timestamp::ZERO,
            tail: None,
        };
        let mut lines = node.manager.logs(request.clone());
        let mut texts = Vec::new();
        while texts.len() < 3 {
            let Some(LogMessage::Line { task, stderr, data, at, .. }) = lines.recv().await else { panic!("a line") };
            assert!(task == id && !at.is_zero());
            texts.push((stderr, String::from_utf8(data).expect("text")));
        }
        texts.sort();
        let expected = [(false, "NAME=web\n"), (false, "to stdout\n"), (true, "to stderr\n")];
        assert_eq!(texts, expected.map(|(e, t)| (e, t.to_owned())));
        drop(lines);

        let mut lines = node.manager.logs(LogRequest { subscription: 2, follow: false, tail: Some(1), ..request });
        assert!(matches!(lines.recv().await, Some(LogMessage::Line { .. })), "the last line");
        assert_eq!(lines.recv().await, None, "the stream ends");
        agent.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_or_dies_comes_back() {
    let Some(mut private) = PrivateEngine::start().await else { return };
    let engine = Engine::at(&private.address());
    engine.import_image().await;
    let node = Node { id: unique(), manager: Manager::new(), engine };
    let agent = start(node.options());
    let spec = spec(app(&["wait"], json!({})), json!([]));
    let (a, b, c) = (unique::<TaskId>(), unique::<TaskId>(), unique::<TaskId>());
    node.manager.want(&spec, a, D::Running);
    node.manager.state(a, S::Running).await;

    private.signal("STOP");
    node.manager.engine_reachable(false).await;
    node.manager.want(&spec, b, D::Running);
    node.manager.state(b, S::Preparing).await;
    private.signal("CONT");
    node.manager.engine_reachable(true).await;
    node.manager.state(b, S::Running).await;
    node.manager.state(a, S::Running).await;

    // A killed engine takes its containers along when it comes back, as it does without live-restore.
    private.kill();
    node.manager.engine_reachable(false).await;
    node.manager.state(a, S::Running).await;
    private.start_dockerd().await;
    node.manager.engine_reachable(true).await;
    for id in [a, b] {
        let status = node.manager.state(id, S::Failed).await;
        assert!(status.container.expect("a container").exit_code.is_some_and(|code| code != 0));
    }
    node.manager.want(&spec, c, D::Running);
    node.manager.state(c, S::Running).await;
    assert_eq!(node.engine.count(node.id).await, 3);
    agent.leave().await.expect("all gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_by_hand_is_a_failure_and_the_new_run_is_stopped() {
    on_a_node(async |node: Arc<Node>| {
        let folder = tempfile::tempdir().expect("a folder");
        let with_files = || AgentOptions { state_dir: Some(folder.path().into()), ..node.options() };
        let agent = start(with_files());
        let spec = spec(app(&["wait"], json!({})), json!([]));
        let (seen, unseen) = (unique::<TaskId>(), unique::<TaskId>());
        for id in [seen, unseen] {
            node.manager.want(&spec, id, D::Running);
            node.manager.state(id, S::Running).await;
        }
        let container = node.engine.id(seen).await;
        node.engine.restart(&container).await;
        node.manager.state(seen, S::Failed).await;
        node.engine.stopped(&container).await;

        agent.shutdown().await;
        let container = node.engine.id(unseen).await;
        node.engine.restart(&container).await;
        let agent = start(with_files());
        let status = node.manager.state(unseen, S::Failed).await;
        assert_eq!(status.err.as_deref(), Some("the container was restarted from outside"));
        node.engine.stopped(&container).await;
        assert_eq!(node.engine.count(node.id).await, 2, "history, and no more");
        agent.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_started_after_its_task_ended_is_stopped() {
    on_a_node(async |node: Arc<Node>| {
        let folder = tempfile::tempdir().expect("a folder");
        let with_files = || AgentOptions { state_dir: Some(folder.path().into()), ..node.options() };
        let mut agent = start(with_files());
        let (waits, done) = (app(&["wait"], json!({})), app(&["once"], json!({})));
        let (service, job) = (unique::<TaskId>(), unique::<TaskId>());
        node.manager.want(&spec(waits, json!([])), service, D::Running);
        node.manager.state(service, S::Running).await;
        node.manager.desire(service, D::Shutdown);
        node.manager.want(&spec(done, json!([])), job, D::Complete);
        for (id, state) in [(service, S::Shutdown), (job, S::Complete)] {
            let ended = node.manager.state(id, state).await;
            let container = node.engine.id(id).await;
            node.engine.start(&container).await;
            node.engine.stopped(&container).await;
            agent.shutdown().await;
            node.engine.start(&container).await;
            agent = start(with_files());
            node.engine.stopped(&container).await;
            assert_eq!(node.manager.statuses.borrow()[&id], ended, "it stays as it ended");
        }

        // One whose task nobody knows.
        let label = ("com.docker.swarm.node.id", node.id.to_string());
        let task = ("com.docker.swarm.task.id", unique::<TaskId>().to_string());
        let stray = make(&node.engine, &format!("stray-{}", node.id), &[label, task]).await;
        node.engine.start(&stray).await;
        node.manager.unassign(service);
        node.manager.unassign(job);
        no_container_of(&*node.engine.executor, node.id).await;
        agent.shutdown().await;
    })
    .await;
}

fn secret(name: &str, text: &str) -> AssignedObject {
    let content = SecretContent { data: text.as_bytes().to_vec().into(), templating: None };
    AssignedObject { id: unique(), name: name.into(), content: Arc::new(ObjectContent::Secret(content)) }
}

fn config(name: &str, text: &str, templating: Option<Templating>) -> AssignedObject {
    let content = ConfigContent { data: text.as_bytes().to_vec().into(), templating };
    AssignedObject { id: unique(), name: name.into(), content: Arc::new(ObjectContent::Config(content)) }
}

/// A reference as the docker CLI makes it.
fn reference(object: &AssignedObject, file: Value) -> Value {
    let (id, name) = match *object.content {
        ObjectContent::Secret(_) => ("SecretID", "SecretName"),
        ObjectContent::Config(_) => ("ConfigID", "ConfigName"),
        ObjectContent::Network(_) => panic!("a network is no file"),
    };
    json!({ id: object.id.to_string(), name: object.name, "File": file })
}

fn file(name: &str, owner: &str, mode: u32) -> Value {
    json!({ "Name": name, "UID": owner, "GID": owner, "Mode": mode })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_finds_its_secrets_and_configs_as_files_which_go_when_it_has_ended() {
    on_a_node(async |node: Arc<Node>| {
        let agent = start(node.options());
        let (key, own) = (secret("key", "s3cret"), secret("own", "of app"));
        let plain = config("app.conf", "plain {{.Task.Slot}}", None);
        let filled = "{{.Service.Name}}.{{.Task.Slot}} {{env \"NAME\"}} {{secret \"key\"}} {{config \"app.conf\"}}";
        let filled = config("filled", filled, Some(Templating::Golang));
        let paths = ["/run/secrets/key", "/run/secrets/a/b/own", "/app.conf", "/etc/app/filled"];
        let task = app(
            &[&["show"][..], &paths].concat(),
            json!({
                "Env": ["NAME=first", "NAME=last"],
                "Secrets": [
                    reference(&key, file("key", "0", 0o444)), reference(&own, file("a/b/own", "1000", 0o400)),
                ],
                "Configs": [
                    reference(&plain, file("app.conf", "0", 0o444)),
                    reference(&filled, file("/etc/app/filled", "7", 0o440)),
                ],
            }),
        );
        let (spec, id) = (spec(task, json!([])), unique::<TaskId>());
        node.manager.want_with(&spec, &[key, own, plain, filled], id, D::Running);
        node.manager.state(id, S::Running).await;
        for line in [
            "/run/secrets/key 0:0 0444 s3cret",
            "/run/secrets/a/b/own 1000:1000 0400 of app",
            "/app.conf 0:0 0444 plain {{.Task.Slot}}",
            "/etc/app/filled 7:7 0440 web.1 last s3cret plain {{.Task.Slot}}",
        ] {
            node.engine.said(id, line).await;
        }
        let inspected = format!("{:?}", node.engine.container(id).await);
        assert!(!inspected.contains("s3cret") && !inspected.contains("of app"), "{inspected}");
        let folder = files_dir().join(node.id.to_string());
        assert!(folder.join(id.to_string()).join("3").exists());

        node.manager.desire(id, D::Shutdown);
        node.manager.state(id, S::Shutdown).await;
        common::within("its files to go", async {
            while folder.join(id.to_string()).exists() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        agent.leave().await.expect("it leaves");
        assert!(!folder.exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_cannot_be_filled_in_is_the_end_of_the_task_and_tells_no_secret() {
    on_a_node(async |node: Arc<Node>| {
        let agent = start(node.options());
        let key = secret("key", "s3cret");
        let bad = config("bad", "{{secret \"key\"}} {{env \"NONE\"}}", Some(Templating::Golang));
        let list = json!({
            "Secrets": [reference(&key, file("key", "0", 0o444))], "Configs": [reference(&bad, file("bad", "0", 0o444))],
        });
        let (spec, id) = (spec(app(&["wait"], list), json!([])), unique::<TaskId>());
        node.manager.want_with(&spec, &[key, bad], id, D::Running);
        let status = node.manager.state(id, S::Rejected).await;
        let error = status.err.unwrap_or_default();
        assert!(error.contains("config bad") && error.contains("NONE") && !error.contains("s3cret"), "{error}");
        agent.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_tasks_keep_their_files_when_the_agent_is_killed_and_others_lose_them() {
    on_a_node(async |node: Arc<Node>| {
        let state = tempfile::tempdir().unwrap();
        let with_state = || AgentOptions { state_dir: Some(state.path().into()), ..node.options() };
        let agent = start(with_state());
        let key = secret("key", "s3cret");
        let list = || json!({ "Secrets": [reference(&key, file("key", "0", 0o444))] });
        let (spec, id) = (spec(app(&["wait"], list()), json!([])), unique::<TaskId>());
        node.manager.want_with(&spec, std::slice::from_ref(&key), id, D::Running);
        node.manager.state(id, S::Running).await;
        agent.shutdown().await;
        let folder = files_dir().join(node.id.to_string());
        // A task of which this agent knows nothing any more.
        std::fs::create_dir(folder.join(unique::<TaskId>().to_string())).unwrap();
        node.manager.set_reachable(false);
        let agent = start(with_state());
        common::within("what nobody needs to go", async {
            while std::fs::read_dir(&folder).unwrap().count() > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let kept = folder.join(id.to_string()).join("0");
        assert_eq!(std::fs::read(&kept).unwrap(), b"s3cret");
        node.manager.set_reachable(true);
        node.manager.unassign(id);
        no_container_of(&*node.engine.executor, node.id).await;
        agent.leave().await.expect("it leaves");
        assert!(!folder.exists());
    })
    .await;
}
