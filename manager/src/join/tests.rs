//! The joining routes, on consensus of one.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use swarm_consensus::ProposeError;
use swarm_core::{Op, State};
use swarm_model::{Cluster, ClusterId, JoinTokens, NodeId, NodeRole, Timestamp};
use swarm_wire::{
    Ca, JoinToken, NodeIdentity, PeerIdentity,
    join::{CA_PATH, CERTIFICATE_PATH, JOIN_BODY_BYTES_MAX},
    new_key_and_csr,
};
use tower::ServiceExt;

use super::{Authority, FAILURES_MAX};
use crate::{
    feed::Feed,
    testing::{CLUSTER, FakeRaft, cluster},
};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);

fn clock() -> Timestamp {
    NOW
}

struct Fixture {
    raft: Arc<FakeRaft>,
    ca: Ca,
    tokens: JoinTokens,
    routes: Router,
}

impl Fixture {
    fn new() -> Self {
        let ca = Ca::create().unwrap();
        let token = || JoinToken::generate(ca.cert_pem()).unwrap().format();
        let tokens = JoinTokens { worker: token(), manager: token() };
        let feed = Feed::new();
        let raft = FakeRaft::new(State::default(), feed.clone());
        raft.commit(Op::CreateCluster(Arc::new(Cluster {
            root_ca: Arc::new(ca.to_root().unwrap()),
            join_tokens: Arc::new(tokens.clone()),
            ..cluster()
        })));
        let routes = Authority::new(raft.clone(), feed, clock).routes();
        Self { raft, ca, tokens, routes }
    }

    async fn post(&self, peer: Option<PeerIdentity>, body: impl Into<Body>) -> (StatusCode, Value) {
        let mut request = Request::post(CERTIFICATE_PATH).body(body.into()).unwrap();
        request.extensions_mut().extend(
            peer.map(|peer| {
                let mut extensions = axum::http::Extensions::new();
                extensions.insert(peer);
                extensions
            })
            .unwrap_or_default(),
        );
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Asks for a certificate. Returns the identity that it makes, or the status and the message.
    async fn ask(&self, peer: Option<PeerIdentity>, token: Option<&str>) -> Result<NodeIdentity, (u16, String)> {
        let (key, csr) = new_key_and_csr().unwrap();
        let (status, answer) = self.post(peer, json!({ "Csr": csr, "Token": token }).to_string()).await;
        match answer["Certificate"].as_str() {
            Some(certificate) => Ok(NodeIdentity::new(certificate, key, self.ca.cert_pem()).unwrap()),
            None => Err((status.as_u16(), answer["message"].as_str().unwrap_or_default().to_owned())),
        }
    }

    async fn denied(&self, token: &str) -> (u16, String) {
        self.ask(None, Some(token)).await.unwrap_err()
    }
}

#[tokio::test]
async fn the_root_is_given_to_anybody_byte_for_byte() {
    let fixture = Fixture::new();
    let request = Request::builder().method(Method::GET).uri(CA_PATH).body(Body::empty()).unwrap();
    let response = fixture.routes.clone().oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), fixture.ca.cert_pem().as_bytes());
}

#[tokio::test]
async fn a_worker_joins_with_its_token_and_is_in_the_log_before_it_has_its_certificate() {
    let fixture = Fixture::new();
    let identity = fixture.ask(None, Some(fixture.tokens.worker.expose())).await.unwrap();
    assert_eq!((identity.role(), identity.cluster()), (NodeRole::Worker, CLUSTER));
    let state = fixture.raft.state();
    let node = state.node(identity.node()).expect("it is admitted");
    assert_eq!(node.cert_expires_at, identity.as_peer().cert_expires_at);
    let admitted = fixture.raft.entries().pop().expect("an entry");
    let by = admitted[0].by.as_ref().expect("it asked for it").to_string();
    assert_eq!(by, format!("node {}", identity.node()));

    fixture.raft.fail_next(ProposeError::Unknown);
    let (status, _) = fixture.denied(fixture.tokens.worker.expose()).await;
    assert_eq!(status, 503, "no certificate without a commit");
    fixture.raft.fail_next(ProposeError::NotLeader { leader: Some("10.0.0.2:2377".into()) });
    let (status, message) = fixture.denied(fixture.tokens.worker.expose()).await;
    assert!(status == 503 && message.contains("10.0.0.2:2377"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_give_nothing_say_why() {
    let fixture = Fixture::new();
    let (status, message) = fixture.denied(fixture.tokens.manager.expose()).await;
    assert!(status == 400 && message.contains("is no HOST:PORT"), "{message}");
    let rotated = JoinToken::parse(fixture.tokens.worker.expose()).unwrap().rotate().unwrap().format();
    let (status, message) = fixture.denied(rotated.expose()).await;
    assert!(status == 403 && message.contains("rotated"), "{message}");
    let other = JoinToken::generate(Ca::create().unwrap().cert_pem()).unwrap().format();
    let (status, message) = fixture.denied(other.expose()).await;
    assert!(status == 400 && message.contains("another cluster"), "{message}");
    let (status, message) = fixture.denied("SWMTKN").await;
    assert!(status == 400 && message.contains("not a join token"), "{message}");
    let (status, message) = fixture.ask(None, None).await.unwrap_err();
    assert!(status == 401 && message.contains("token"), "{message}");
    assert_eq!(fixture.raft.entries().len(), 1, "nobody was admitted");

    // Guessing is slowed down; who has the token gets in all the same.
    for _ in 0..FAILURES_MAX {
        fixture.denied(rotated.expose()).await;
    }
    assert_eq!(fixture.denied(rotated.expose()).await.0, 429);
    fixture.ask(None, Some(fixture.tokens.worker.expose())).await.unwrap();
    tokio::time::advance(super::FAILURES_WINDOW).await;
    assert_eq!(fixture.denied(rotated.expose()).await.0, 403);
}

#[tokio::test]
async fn a_renewal_needs_the_old_certificate_of_a_node_that_is_still_there() {
    let fixture = Fixture::new();
    let first = fixture.ask(None, Some(fixture.tokens.worker.expose())).await.unwrap();
    let renewed = fixture.ask(Some(first.as_peer().clone()), None).await.unwrap();
    assert_eq!(renewed.node(), first.node());
    assert_eq!(fixture.raft.state().nodes().count(), 1);

    let other = PeerIdentity { cluster: ClusterId(1), ..first.as_peer().clone() };
    assert_eq!(fixture.ask(Some(other), None).await.unwrap_err().0, 403);
    let unknown = PeerIdentity { node: NodeId(5), ..first.as_peer().clone() };
    assert_eq!(fixture.ask(Some(unknown), None).await.unwrap_err().0, 403);
    fixture.raft.commit(Op::RemoveNode { node: first.node(), force: true });
    let (status, message) = fixture.ask(Some(first.as_peer().clone()), None).await.unwrap_err();
    assert!(status == 403 && message.contains("was removed"), "{message}");
}

#[tokio::test]
async fn a_manager_says_where_it_is_and_learns_its_raft_id() {
    let fixture = Fixture::new();
    fixture.raft.commit(crate::testing::admit(NodeId(1)));
    let ask = async |addr: &str| {
        let (_, csr) = new_key_and_csr().unwrap();
        let token = fixture.tokens.manager.expose();
        let (status, answer) =
            fixture.post(None, json!({ "Csr": csr, "Token": token, "ManagerAddr": addr }).to_string()).await;
        (status.as_u16(), answer)
    };
    for addr in ["", ":2377", "host", "host:0", "host:x", &format!("{}:2377", "x".repeat(300))] {
        let (status, answer) = ask(addr).await;
        assert!(status == 400 && answer["message"].as_str().unwrap().contains("is no HOST:PORT"), "{answer}");
    }
    let (status, answer) = ask("10.0.0.9:2377").await;
    let state = fixture.raft.state();
    let node = state.nodes().find(|node| node.role == NodeRole::Manager).expect("it is admitted");
    assert_eq!((status, answer["RaftId"].as_u64()), (200, node.raft_id));
    assert_eq!(node.raft_id, Some(state.revision()), "a number that never comes again");
    assert_eq!(node.manager_addr.as_deref(), Some("10.0.0.9:2377"));
}

#[tokio::test]
async fn a_manager_of_an_older_version_than_the_swarm_uses_is_refused() {
    let fixture = Fixture::new();
    fixture.raft.commit(Op::RaiseFeatureLevel { level: 2 });
    let ask = async |token: &str, level: u16| {
        let (_, csr) = new_key_and_csr().unwrap();
        let request = json!({ "Csr": csr, "Token": token, "ManagerAddr": "10.0.0.9:2377", "FeatureLevel": level });
        let (status, answer) = fixture.post(None, request.to_string()).await;
        (status.as_u16(), answer["message"].as_str().unwrap_or_default().to_owned())
    };
    let (worker, manager) = (fixture.tokens.worker.expose(), fixture.tokens.manager.expose());
    for knows in [0, 1] {
        let (status, message) = ask(manager, knows).await;
        assert!(
            status == 403 && message.contains("feature level 2") && message.contains("up to 1: upgrade"),
            "{message}"
        );
    }
    assert_eq!(fixture.raft.state().nodes().count(), 0, "nobody was admitted");
    assert_eq!(ask(worker, 1).await.0, 200, "of an agent nothing is asked");
    assert_eq!(ask(manager, 2).await.0, 200);
}

#[tokio::test]
async fn a_bad_request_admits_nobody() {
    let fixture = Fixture::new();
    let token = fixture.tokens.worker.expose();
    let (status, answer) = fixture.post(None, json!({ "Csr": "nonsense", "Token": token }).to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let (status, _) = fixture.post(None, vec![b'x'; JOIN_BODY_BYTES_MAX + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(fixture.raft.state().nodes().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_body_is_answered(body: Vec<u8>, text in "\\PC{0,80}") {
        thread_local! { static FIXTURE: Fixture = Fixture::new(); }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        FIXTURE.with(|fixture| runtime.block_on(async {
            for body in [body, text.clone().into_bytes(), json!({ "Csr": text, "Token": text }).to_string().into()] {
                let (status, _) = fixture.post(None, body).await;
                assert!(status.is_client_error(), "{status}");
            }
        }));
    }
}
