use axum::body::Body;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use swarm_model::Redacted;
use swarm_wire::{Alpn, Ca, Trust, clock, join::CA_PATH, new_key_and_csr, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use super::*;
use crate::testing::{TestNode, caller};

/// Longer than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl TestNode {
    async fn init(&self) -> String {
        self.node.clone().init(InitRequest::default()).await.unwrap()
    }

    async fn join(&self, addr: &str, token: &str) -> Result<(), ApiError> {
        let join_token = Redacted::new(token);
        let request = JoinRequest { remote_addrs: vec![addr.to_owned()], join_token, ..JoinRequest::default() };
        self.node.clone().join(request).await
    }

    fn member(&self) -> Arc<Member> {
        match &*self.node.swarm() {
            Swarm::In(member) => member.clone(),
            Swarm::Out | Swarm::Locked(_) => panic!("the node is in no swarm"),
        }
    }

    fn is_out(&self) -> bool {
        matches!(&*self.node.swarm(), Swarm::Out) && self.node.state().membership().unwrap().is_none()
    }

    fn addr(&self) -> String {
        self.member().managers()[0].clone()
    }

    async fn ask(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).extension(caller()).body(Body::empty()).unwrap();
        let Ok(response) = self.member().routes().unwrap().oneshot(request).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn token(&self, role: &str) -> String {
        self.ask(Method::GET, "/swarm").await.1["JoinTokens"][role].as_str().unwrap().to_owned()
    }

    /// Waits until the nodes are in these states, by id.
    async fn wait_nodes(&self, expected: &[(&str, &str)]) {
        let mut expected: Vec<_> = expected.iter().map(|(id, s)| ((*id).to_owned(), (*s).to_owned())).collect();
        expected.sort();
        let reached = async {
            loop {
                let nodes = self.ask(Method::GET, "/nodes").await.1;
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                let mut found: Vec<_> = nodes
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|n| (text(&n["ID"]), text(&n["Status"]["State"])))
                    .collect();
                found.sort();
                if found == expected {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("the nodes reach these states");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_restart_and_leave() {
    let (manager, worker) = (TestNode::new(), TestNode::new());
    let manager_id = manager.init().await;
    assert_eq!(manager.member().state(), MemberState::Active(String::new()));
    worker.join(&manager.addr(), &manager.token("Worker").await).await.unwrap();
    assert_eq!(worker.member().state(), MemberState::Active(String::new()));
    assert!(worker.member().routes().is_none());
    let worker_id = worker.member().identity().node().to_string();
    manager.wait_nodes(&[(&manager_id, "ready"), (&worker_id, "ready")]).await;

    let text = worker.join(&manager.addr(), "x").await.unwrap_err();
    assert!(text.status == 503 && text.message.contains("already part of a swarm"), "{text}");

    // Both come back as who they were.
    let (manager, worker) = (manager.restart().await, worker.restart().await);
    for node in [&manager, &worker] {
        assert_eq!(node.member().wait_accepted(PATIENCE).await, MemberState::Active(String::new()));
    }
    assert_eq!(worker.member().identity().node().to_string(), worker_id);
    manager.wait_nodes(&[(&manager_id, "ready"), (&worker_id, "ready")]).await;

    worker.node.clone().leave(false).await.unwrap();
    assert!(worker.is_out());
    manager.wait_nodes(&[(&manager_id, "ready"), (&worker_id, "down")]).await;
    assert_eq!(worker.node.clone().leave(false).await.unwrap_err().message, NOT_A_MEMBER);

    let refused = manager.node.clone().leave(false).await.unwrap_err();
    assert_eq!((refused.status, refused.message.as_str()), (503, LAST_MANAGER));
    manager.node.clone().leave(true).await.unwrap();
    assert!(manager.is_out());
    assert_ne!(manager.init().await, manager_id);
    manager.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_join_is_told_why_and_keeps_nothing() {
    let (manager, other, node) = (TestNode::new(), TestNode::new(), TestNode::new());
    manager.init().await;
    other.init().await;
    let addr = manager.addr();
    let token = manager.token("Worker").await;
    // The same cluster, another secret.
    let wrong = format!("{}-{}", &token[..token.len() - 26], "0".repeat(25));
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (addr, token, status, text) in [
        (addr.as_str(), "nonsense", 400, "not a join token"),
        (&addr, &token[..70], 400, "copied whole"),
        (&addr, &other.token("Worker").await, 400, "another cluster"),
        (&addr, &wrong, 403, "token"),
        (&nowhere, &token, 503, nowhere.as_str()),
        ("http://x/", &token, 400, "HOST:PORT"),
    ] {
        let error = node.join(addr, token).await.unwrap_err();
        assert!(error.status == status && error.message.contains(text), "{text}: {} {error}", error.status);
        assert!(!error.message.contains(&token[token.len().saturating_sub(25)..]), "no secret in {error}");
        assert!(node.is_out());
    }
    // It is not the worse for it.
    node.join(&addr, &token).await.unwrap();
    for node in [manager, other, node] {
        node.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_locked_out() {
    let (manager, worker) = (TestNode::new(), TestNode::new());
    manager.init().await;
    worker.join(&manager.addr(), &manager.token("Worker").await).await.unwrap();
    let member = worker.member();
    let id = member.identity().node();
    let (status, _) = manager.ask(Method::DELETE, &format!("/nodes/{id}?force=1")).await;
    assert_eq!(status, StatusCode::OK);
    let removed = async {
        while !matches!(member.state(), MemberState::Error(_)) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, removed).await.expect("the node notices");
    let MemberState::Error(text) = member.state() else { panic!("it was removed") };
    assert!(text.contains("removed from the swarm"), "{text}");
    worker.node.clone().leave(false).await.unwrap();
    assert!(worker.is_out());
    manager.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_survives_garbage_and_gives_strangers_nothing() {
    let manager = TestNode::new();
    manager.init().await;
    let addr = manager.addr();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0x16, 3, 1, 0xff, 0xff, 1]] {
        let mut stream = tokio::net::TcpStream::connect(&addr).await.unwrap();
        // It may be refused before all of it is written.
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let get = async |path: &str| {
        let stream = tls::connect_bootstrap(&addr, Trust::Unverified, Alpn::Http1).await.unwrap();
        crate::http::request(stream, &addr, Method::GET, path, Vec::new()).await
    };
    let root = get(CA_PATH).await.unwrap();
    assert_eq!(root, manager.member().identity().root_pem());
    for path in ["/swarm", "/nodes", "/", "/swarmd/certificate"] {
        let error = get(path).await.unwrap_err();
        assert!(error.status == 404 && error.message.contains("Unix socket"), "{path}: {error}");
    }
    let stream = tls::connect_bootstrap(&addr, Trust::Unverified, Alpn::Http1).await.unwrap();
    let error = crate::http::request(stream, &addr, Method::POST, "/swarmd/certificate", b"{}".to_vec()).await;
    assert_eq!(error.unwrap_err().status, 400);
    manager.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_for_the_same_node() {
    let (manager, worker) = (TestNode::new(), TestNode::new());
    manager.init().await;
    worker.join(&manager.addr(), &manager.token("Worker").await).await.unwrap();
    let member = worker.member();
    let old = member.identity();
    member.renew_certificate(worker.node.state()).await.unwrap();
    let new = member.identity();
    assert_eq!((new.node(), new.role(), new.cluster()), (old.node(), old.role(), old.cluster()));
    assert_ne!((new.cert_pem(), new.key_pem()), (old.cert_pem(), old.key_pem()));
    assert_eq!(worker.node.state().membership().unwrap().unwrap().1.cert_pem(), new.cert_pem());

    // A worker's certificate opens no more than joining does.
    let stream = tls::connect(&manager.addr(), None, &member.holder(), Alpn::Http1).await.unwrap().stream;
    let error = crate::http::request(stream, "manager", Method::GET, "/nodes", Vec::new()).await.unwrap_err();
    assert_eq!(error.status, 404);
    for node in [manager, worker] {
        node.node.shutdown().await;
    }
}

#[tokio::test]
async fn impossible_requests_change_nothing() {
    let node = TestNode::new();
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = occupied.local_addr().unwrap().to_string();
    let default = InitRequest::default;
    let settings = |ca: Value| serde_json::from_value(json!({ "CAConfig": ca })).unwrap();
    let external = settings(json!({ "ExternalCAs": [{ "Protocol": "cfssl", "URL": "https://ca.example.com" }] }));
    let own_root = settings(json!({ "SigningCACert": "PEM", "SigningCAKey": "PEM" }));
    for (request, status, text) in [
        (InitRequest { force_new_cluster: true, ..default() }, 503, "not part of a swarm"),
        (
            InitRequest { default_addr_pool: Some(vec!["10.0.0.0".to_owned()]), ..default() },
            400,
            "address pool 10.0.0.0",
        ),
        (InitRequest { subnet_size: 30, ..default() }, 400, "subnet size 30"),
        (InitRequest { data_path_port: 80, ..default() }, 400, "data path port 80"),
        (InitRequest { data_path_addr: "eth77".to_owned(), ..default() }, 400, "data path address: \"eth77\""),
        (InitRequest { data_path_addr: "0.0.0.0".to_owned(), ..default() }, 400, "data path address: 0.0.0.0"),
        (InitRequest { force_new_cluster: true, data_path_port: 7777, ..default() }, 400, "when the swarm was made"),
        (InitRequest { spec: external, ..default() }, 501, "external certificate authorities"),
        (InitRequest { spec: own_root, ..default() }, 400, "swarm ca --rotate --ca-cert"),
        (InitRequest { availability: "lazy".to_owned(), ..default() }, 400, "\"lazy\""),
        (InitRequest { listen_addr: "here".to_owned(), ..default() }, 400, "listen address"),
        (InitRequest { advertise_addr: "eth77".to_owned(), ..default() }, 400, "eth77"),
    ] {
        let error = node.node.clone().init(request).await.unwrap_err();
        assert!(error.status == status && error.message.contains(text), "{text}: {} {error}", error.status);
        assert!(node.is_out());
    }
    let error = node.node.clone().init(InitRequest { listen_addr: taken.clone(), ..default() }).await.unwrap_err();
    assert!(error.message.contains(&taken) && error.message.contains("in use"), "{error}");
    drop(occupied);
    assert!(node.is_out());
    let error = node.node.clone().join(JoinRequest::default()).await.unwrap_err();
    assert!(error.message.contains("not a join token"), "{error}");
    // What workers say of the swarm's state is Docker's text.
    assert!(NOT_A_MANAGER.contains("Worker nodes"));
}

/// The node's identity with a certificate that has expired, as its own authority would have signed it long ago.
fn expired(identity: &NodeIdentity, ca: &Ca) -> NodeIdentity {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let (key, csr) = new_key_and_csr().unwrap();
    let long_ago = clock::now().plus_ns(-3 * HOUR_NS);
    let issued = ca.issue(&csr, identity.node(), identity.role(), identity.cluster(), HOUR_NS, long_ago).unwrap();
    NodeIdentity::new(issued.cert_pem, key, identity.root_pem()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_too_long_a_pause_a_manager_helps_itself_and_a_worker_says_what_to_do() {
    let (manager, worker) = (TestNode::new(), TestNode::new());
    manager.init().await;
    worker.join(&manager.addr(), &manager.token("Worker").await).await.unwrap();
    let state = manager.member().manager().unwrap().state();
    let root = state.cluster().unwrap().root_ca.clone();
    let ca = Ca::load(&root.cert_pem, &root.key_pem).unwrap();
    for node in [&manager, &worker] {
        node.node.state().save_identity(&expired(&node.member().identity(), &ca)).unwrap();
    }
    let (manager, worker) = (manager.restart().await, worker.restart().await);
    let is_valid = async {
        while manager.member().identity().as_peer().cert_expires_at <= clock::now() {
            sleep(STEP_DOWN_POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_valid).await.expect("the manager gets a certificate");
    assert_eq!(manager.member().wait_accepted(PATIENCE).await, MemberState::Active(String::new()));
    // The worker's certificate is nobody's any more.
    let says_so = |text: &str| text.contains("has expired") && text.contains("swarm join");
    assert!(matches!(worker.member().state(), MemberState::Error(text) if says_so(&text)));
    for node in [manager, worker] {
        node.node.shutdown().await;
    }
}

#[test]
fn a_join_that_goes_on_says_why() {
    for state in [MemberState::Active(String::new()), MemberState::Pending(String::new())] {
        assert!(still_joining(&state).starts_with(|c: char| c.is_alphabetic()), "{state:?}");
    }
    assert_eq!(still_joining(&MemberState::Pending("no answer".to_owned())), "no answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_and_a_renewal_are_lines_of_the_managers_audit_log() {
    let (manager, worker) = (TestNode::with_audit_log(), TestNode::new());
    manager.init().await;
    let token = manager.token("Worker").await;
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(manager.folder.path().join("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // A token that was never given out; who does not get in leaves no line.
    let wrong = JoinToken::parse(&token).unwrap().rotate().unwrap().format();
    worker.join(&manager.addr(), wrong.expose()).await.unwrap_err();
    assert_eq!(lines(), Vec::<Value>::new());

    worker.join(&manager.addr(), &token).await.unwrap();
    let id = worker.member().identity().node().to_string();
    worker.member().renew_certificate(worker.node.state()).await.unwrap();
    let found = lines();
    assert_eq!(found[0]["by"], serde_json::json!({"kind": "token", "name": "join"}));
    let by = &found.last().unwrap()["by"];
    assert_eq!((&by["kind"], &by["id"]), (&"node".into(), &id.as_str().into()), "{found:?}");
    for line in &found {
        assert_eq!(
            (&line["object"], &line["outcome"]["status"]),
            (&format!("node {id} as worker").into(), &200.into())
        );
        assert!(line["from"].as_str().unwrap().starts_with("127.0.0.") && line["revision"].is_u64(), "{line}");
    }
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("SWMTKN") && !text.contains("PRIVATE") && !text.contains("REQUEST-----"), "{text}");
    worker.node.shutdown().await;
    manager.node.shutdown().await;
}
