//! The routes on a manager in memory, which applies what it is proposed at once.

mod callers;
mod change;
mod configs;
mod endpoints;
mod logs;
mod networks;
mod nodes;
mod object_use;
mod plan;
mod revisions;
mod rollout;
mod secrets;
mod services;
mod stale;
mod swarm;
mod tasks;
mod why;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, header::CONTENT_TYPE},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use swarm_consensus::{Asked, Committed, Local, Member, Status, Survey};
use swarm_core::{ENTRY_VERSION, Entry, NewTask, Op, Outcome, Place, State, Tx, apply};
use swarm_docker_api::{ApiVersion, WARNING_HEADER, view::TlsInfo};
use swarm_model::{
    Author, Cause, Cluster, ClusterId, ClusterSpec, DesiredState, Id, JoinTokens, Node, NodeDescription, NodeId,
    NodeName, NodeRole, NodeState, NodeStatus, Principal, Redacted, RootCa, RootRotation, ServiceId, TaskId, TaskState,
    TaskStatus, Timestamp,
};
use swarm_wire::agent::{Answer as NodeAnswer, LogMessage, Question};
use tower::ServiceExt;

use super::{Answers, Caller, LogSelector, Plane, PlaneError, SealedBackup, routes};

/// A manager in memory.
#[derive(Clone)]
struct TestPlane(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    state: State,
    /// The clock stands at least here.
    now: Timestamp,
    calls: i64,
    proposed: Vec<Op>,
    /// The author of each transaction.
    authors: Vec<Option<Arc<Author>>>,
    failure: Option<PlaneError>,
    /// The term that the swarm is in.
    term: u64,
    /// The term that this manager believes to lead in, and its state, where that is not the newest.
    leading: Option<(u64, Option<State>)>,
    /// How often others were asked for the newest state.
    reads: usize,
    /// States that are read in place of the newest one, the last one first.
    outdated_reads: Vec<State>,
    /// How often something was proposed.
    proposals: usize,
    /// Why the newest state cannot be read.
    unread: Option<PlaneError>,
    logs: Vec<LogMessage>,
    selectors: Vec<LogSelector>,
    /// The answers of nodes. The others have no session.
    answers: Vec<(NodeId, NodeAnswer)>,
    asked: Vec<(NodeId, Question)>,
}

impl TestPlane {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    fn state(&self) -> State {
        self.inner().state.clone()
    }

    fn apply(&self, ops: Vec<Op>) {
        let outcomes = self.inner().apply(vec![Tx::new(ops)]);
        assert_eq!(outcomes, [Ok(())]);
    }
}

impl Inner {
    fn apply(&mut self, txs: Vec<Tx>) -> Vec<Outcome> {
        self.proposed.extend(txs.iter().flat_map(|tx| tx.ops.clone()));
        self.authors.extend(txs.iter().map(|tx| tx.by.clone()));
        let index = self.state.revision() + 1;
        let at = Timestamp(1_700_000_000_000_000_000 + i64::try_from(index).expect("few entries") * 1_000_000_000);
        apply(&mut self.state, index, &Entry { v: ENTRY_VERSION, at: at.max(self.now), txs }).0
    }

    fn answer(&self) -> Result<(), PlaneError> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}

impl Plane for TestPlane {
    async fn propose(&self, txs: Vec<Tx>) -> Result<Committed, PlaneError> {
        let mut inner = self.inner();
        inner.proposals += 1;
        inner.answer()?;
        let outcomes = inner.apply(txs);
        Ok(Committed { index: inner.state.revision(), outcomes })
    }

    fn leading(&self) -> Option<(u64, Arc<State>)> {
        let inner = self.inner();
        inner.leading.clone().map(|(term, outdated)| (term, Arc::new(outdated.unwrap_or_else(|| inner.state.clone()))))
    }

    async fn propose_in_term(&self, term: u64, txs: Vec<Tx>) -> Result<Committed, PlaneError> {
        if self.inner().term != term {
            return Err(PlaneError::NotLeader { leader: None });
        }
        self.propose(txs).await
    }

    async fn read(&self) -> Result<State, PlaneError> {
        let mut inner = self.inner();
        inner.reads += 1;
        if let Some(failure) = inner.unread.clone() {
            return Err(failure);
        }
        Ok(inner.outdated_reads.pop().unwrap_or_else(|| inner.state.clone()))
    }

    fn now(&self) -> Timestamp {
        let mut inner = self.inner();
        inner.calls += 1;
        Timestamp::from_millis(1_700_000_000_000 + inner.calls)
    }

    fn random(&self) -> u128 {
        let mut inner = self.inner();
        inner.calls += 1;
        // An odd factor spreads the count over all bits.
        (inner.calls as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn rotate_join_token(&self, token: &Redacted) -> Result<Redacted, PlaneError> {
        Ok(Redacted::new(format!("{}-rotated", token.expose())))
    }

    fn state(&self) -> State {
        self.inner().state.clone()
    }

    fn new_unlock_key(&self) -> Result<Redacted, PlaneError> {
        let mut inner = self.inner();
        inner.calls += 1;
        Ok(Redacted::new(format!("unlock-key-{}", inner.calls)))
    }

    fn begin_root_rotation(&self, _: &RootCa, own: Option<&RootCa>) -> Result<RootRotation, PlaneError> {
        let new = RootCa { cert_pem: "NEW".into(), key_pem: Redacted::new("new-key"), key_id: "new".into() };
        let root = own.cloned().unwrap_or(new);
        Ok(RootRotation { root, cross_signed_pem: "CROSS".into() })
    }

    fn problem(&self) -> Option<String> {
        None
    }

    fn leader_contact(&self) -> Option<Duration> {
        Some(Duration::from_millis(1500))
    }

    async fn managers(&self) -> Status {
        let leader = self.state().node(MANAGER).and_then(|node| node.raft_id);
        let member = Member {
            raft_id: leader.unwrap_or_default(),
            addr: "10.0.0.1:2377".into(),
            voter: true,
            matched_index: Some(9),
            matched_leader: None,
            last_contact_ms: Some(0),
        };
        Status {
            raft_id: member.raft_id,
            term: 3,
            leader,
            last_log_index: Some(9),
            applied_index: Some(9),
            feature_level: 1,
            members: vec![member],
            ..Status::default()
        }
    }

    async fn survey(&self) -> Survey {
        let mut status = self.managers().await;
        let disk = (Some(50 << 20), Some(1 << 30));
        let clock = self.state().time();
        let local =
            Local { clock, disk_free_bytes: disk.0, disk_bytes: disk.1, snapshot_bytes: Some(77), ..Local::default() };
        status.local = Some(local);
        let asked = Asked { status: status.clone(), clock_skew_ms: -1500 };
        Survey { answers: [(status.raft_id, asked)].into(), status }
    }

    async fn backup(&self, passphrase: Redacted) -> Result<(u64, SealedBackup), PlaneError> {
        let bytes = format!("sealed with {} characters", passphrase.expose().len());
        Ok((self.state().revision(), stream::iter([Ok(bytes.into())]).boxed()))
    }

    async fn hand_over(&self, to: Option<u64>) -> Result<(), PlaneError> {
        match to {
            Some(_) => Ok(()),
            None => Err(PlaneError::NotNow("there is no other manager".into())),
        }
    }

    fn tls_info(&self) -> TlsInfo {
        TlsInfo { trust_root: "PEM".into(), cert_issuer_subject: "c3Vi".into(), cert_issuer_public_key: "a2V5".into() }
    }

    fn node_tls_info(&self, node: &Node) -> TlsInfo {
        node.description.as_ref().map_or_else(TlsInfo::default, |_| self.tls_info())
    }

    async fn logs(&self, selector: LogSelector) -> Result<BoxStream<'static, LogMessage>, PlaneError> {
        let mut inner = self.inner();
        inner.selectors.push(selector);
        Ok(stream::iter(inner.logs.clone()).boxed())
    }

    async fn ask(&self, questions: Vec<(NodeId, Question)>) -> Answers {
        let mut inner = self.inner();
        inner.asked.extend(questions.iter().cloned());
        let answer = |node| inner.answers.iter().find(|(of, _)| *of == node).map(|(_, answer)| answer.clone());
        let answer = |node| answer(node).ok_or_else(|| "it has no session with the leader".to_owned());
        questions.into_iter().map(|(node, _)| (node, answer(node))).collect()
    }
}

const MANAGER: NodeId = NodeId(0x0000_0000_0000_0001_aaaa_aaaa_aaaa_aaaa);
const WORKER: NodeId = NodeId(0x0000_0000_0000_0002_5555_5555_5555_5555);

/// A cluster of the manager `alpha`, which leads, and the worker `beta`.
fn cluster() -> TestPlane {
    cluster_of_level(ENTRY_VERSION)
}

/// The same at a feature level.
fn cluster_of_level(level: u16) -> TestPlane {
    let mut spec = ClusterSpec::default();
    spec.fill_defaults();
    let cluster = Cluster {
        id: ClusterId(7),
        version: 0,
        created_at: Timestamp::ZERO,
        updated_at: Timestamp::ZERO,
        spec: Arc::new(spec),
        root_ca: Arc::new(RootCa { cert_pem: "PEM".into(), key_pem: Redacted::new("root-key"), ..RootCa::default() }),
        join_tokens: Arc::new(JoinTokens { worker: Redacted::new("W"), manager: Redacted::new("M") }),
        removed_nodes: Default::default(),
        former_roots: Default::default(),
        unlock_key: None,
        overlay: Default::default(),
        root_rotation: None,
    };
    cluster_like(cluster, level)
}

/// The same with these settings.
fn cluster_like(cluster: Cluster, level: u16) -> TestPlane {
    let plane = TestPlane(Arc::default());
    plane.apply(vec![Op::CreateCluster(Arc::new(cluster))]);
    plane.apply(vec![Op::RaiseFeatureLevel { level }]);
    for (node, role, hostname) in [(MANAGER, NodeRole::Manager, "alpha"), (WORKER, NodeRole::Worker, "beta")] {
        plane.apply(vec![Op::AdmitNode {
            node,
            role,
            cert_expires_at: Timestamp::from_millis(1_800_000_000_000),
            manager_addr: (role == NodeRole::Manager).then(|| "10.0.0.1:2377".into()),
            availability: Default::default(),
        }]);
        let mut description = NodeDescription { hostname: hostname.into(), ..NodeDescription::default() };
        description.engine.labels.insert("disk".into(), hostname.into());
        description.resources.nano_cpus = 2_000_000_000;
        report_node(&plane, node, NodeState::Ready, Some(description));
    }
    let mut inner = plane.inner();
    inner.proposed.clear();
    inner.authors.clear();
    (inner.term, inner.leading) = (1, Some((1, None)));
    drop(inner);
    plane
}

fn report_node(plane: &TestPlane, node: NodeId, state: NodeState, description: Option<NodeDescription>) {
    let status = NodeStatus { state, message: String::new(), addr: "10.0.0.9".into(), engine_reachable: true };
    plane.apply(vec![Op::ReportNode { node, status, description: description.map(Arc::new) }]);
}

/// Makes a task of a service on a node, in a state.
fn add_task(plane: &TestPlane, service: &str, slot: u32, node: NodeId, state: TaskState) -> TaskId {
    let service: ServiceId = service.parse().expect("an id");
    let id = TaskId::make(plane.now(), plane.random());
    let spec_version = plane.state().service(service).expect("service").spec_version;
    plane.apply(vec![Op::CreateTasks {
        service,
        spec_version,
        desired: DesiredState::Running,
        cause: Cause::Fill,
        beside: None,
        start_at: None,
        restarts: 0,
        tasks: vec![NewTask { id, slot, place: Place::On(node), addrs: Default::default() }],
    }]);
    let at = Timestamp::from_millis(1_700_000_500_000);
    plane.apply(vec![Op::ReportTasks { node, reports: vec![(id, TaskStatus::new(state, at))] }]);
    id
}

/// What came back.
struct Answer {
    status: u16,
    content_type: String,
    warning: String,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.content_type, "application/json", "{:?}", self.body);
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The message of an error of this status.
    #[track_caller]
    fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{:?}", self.body);
        self.json()["message"].as_str().expect("a message").to_owned()
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert!(self.status < 300, "{} {:?}", self.status, self.body);
        self
    }

    /// A field of every item of a list.
    #[track_caller]
    fn all(self, pointer: &str) -> Vec<String> {
        let list = self.ok().json();
        let field = |item: &Value| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        list.as_array().expect("a list").iter().map(field).collect()
    }
}

/// The author of all calls in these tests.
fn alice() -> Arc<Author> {
    let node = NodeName::new(MANAGER, "alpha");
    Arc::new(Author { principal: Principal::user(1000, Some("alice")), node: Some(node) })
}

async fn send(plane: &TestPlane, request: Request<Body>) -> Answer {
    send_as(plane, &Caller::new(alice()), request).await
}

async fn send_as(plane: &TestPlane, caller: &Caller, mut request: Request<Body>) -> Answer {
    let router: Router = routes(plane.clone());
    request.extensions_mut().insert(caller.clone());
    let response: Response<Body> = router.oneshot(request).await.expect("a router always answers");
    let header = |name: &str| response.headers().get(name).map_or("", |v| v.to_str().expect("text")).to_owned();
    let (content_type, warning) = (header(CONTENT_TYPE.as_str()), header(WARNING_HEADER));
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    Answer { status, content_type, warning, body }
}

async fn get(plane: &TestPlane, path: &str) -> Answer {
    send(plane, Request::get(path).body(Body::empty()).expect("a request")).await
}

async fn delete(plane: &TestPlane, path: &str) -> Answer {
    send(plane, Request::delete(path).body(Body::empty()).expect("a request")).await
}

async fn post(plane: &TestPlane, path: &str, body: &Value) -> Answer {
    let request = Request::post(path).header(CONTENT_TYPE, "application/json");
    send(plane, request.body(body.to_string().into()).expect("a request")).await
}

/// A list, filtered.
async fn filtered(plane: &TestPlane, path: &str, filters: Value) -> Answer {
    let text: String = filters.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
    get(plane, &format!("{path}?filters={text}")).await
}

/// Makes a service and returns its id.
async fn create(plane: &TestPlane, name: &str) -> String {
    let answer = post(plane, "/services/create", &plain(name)).await.ok();
    assert_eq!(answer.status, 201);
    answer.json()["ID"].as_str().expect("an id").to_owned()
}

fn plain(name: &str) -> Value {
    json!({
        "Name": name,
        "Labels": {"tier": name},
        "TaskTemplate": {"ContainerSpec": {"Image": "hello:1"}},
        "Mode": {"Replicated": {"Replicas": 2}}
    })
}

#[tokio::test]
async fn before_there_is_a_cluster_every_call_says_so() {
    let plane = TestPlane(Arc::default());
    for path in [
        "/swarm",
        "/swarm/unlockkey",
        "/nodes",
        "/nodes/x",
        "/services",
        "/services/x",
        "/tasks",
        "/tasks/x",
        "/secrets",
        "/networks",
        "/networks/x",
    ] {
        assert!(get(&plane, path).await.error(503).contains("not a swarm manager"), "{path}");
    }
    assert!(post(&plane, "/services/create", &plain("web")).await.error(503).contains("not a swarm manager"));
}

#[tokio::test]
async fn what_the_log_cannot_do_is_told_apart() {
    let plane = cluster();
    for (failure, status, part) in [
        (PlaneError::NotLeader { leader: Some("10.0.0.2:2377".into()) }, 503, "10.0.0.2:2377"),
        (PlaneError::Unknown, 500, "it is not known whether the change was made"),
        (
            PlaneError::NoMajority { silent: vec!["b:1".into()], voters: 2, unknown: true },
            500,
            "it is not known whether",
        ),
        (
            PlaneError::CutOff { leader: "a:1".into(), ask: vec!["b:1".into()], unknown: false },
            503,
            "the leader at a:1 do not reach each other, while the managers at b:1 hear it",
        ),
        (PlaneError::CutOff { leader: "a:1".into(), ask: vec![], unknown: true }, 500, "it is not known whether"),
        (PlaneError::Stopped("disk full".into()), 503, "disk full"),
        (PlaneError::TooLarge { bytes: 9, limit: 8 }, 413, "9 bytes, the limit is 8"),
    ] {
        plane.inner().failure = Some(failure);
        let message = post(&plane, "/services/create", &plain("web")).await.error(status);
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn other_methods_are_unknown_pages() {
    assert_eq!(delete(&cluster(), "/services").await.error(404), "page not found");
}
