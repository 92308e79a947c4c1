use std::net::Ipv4Addr;

use swarm_docker_api::view::InitRequest;
use swarm_wire::Trust;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use super::*;
use crate::{
    node::{Member, Swarm},
    testing::{TestNode, caller},
};

pub(super) struct TestManager {
    pub(super) node: TestNode,
    pub(super) member: Arc<Member>,
    pub(super) addr: SocketAddr,
}

impl TestManager {
    pub(super) async fn start() -> Self {
        let node = TestNode::new();
        node.node.clone().init(InitRequest::default()).await.unwrap();
        let Swarm::In(member) = &*node.node.swarm() else { panic!("the node is in no swarm") };
        let member = member.clone();
        let addr = member.managers()[0].parse().unwrap();
        Self { node, member, addr }
    }

    async fn dial(&self, source: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        socket.connect(self.addr).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_nobody_else_out() {
    let manager = TestManager::start().await;
    let mut silent = Vec::new();
    // More than there are handshakes at once: half of them come from one address, and the others from four.
    for last in [2, 3, 2, 4, 2, 5, 2, 6].into_iter().cycle().take(HANDSHAKES_MAX + 40) {
        silent.push(manager.dial(Ipv4Addr::new(127, 0, 0, last)).await);
    }
    let node = manager.dial(Ipv4Addr::new(127, 0, 0, 9)).await;
    let addr = manager.addr.to_string();
    let stream = tls::handshake(node, &addr, &manager.member.holder(), Alpn::Http1).await.unwrap().stream;
    let root = crate::http::request(stream, &addr, Method::GET, CA_PATH, Vec::new()).await.unwrap();
    assert_eq!(root, manager.member.identity().root_pem());
    // It did not have to wait until the first ones were given up.
    let first = silent.remove(0).into_std().unwrap();
    assert_eq!(first.peek(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(silent);
    manager.node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_leave_room_for_renewals() {
    let manager = TestManager::start().await;
    let addr = manager.addr.to_string();
    let mut strangers = Vec::new();
    for _ in 0..=JOINS_PER_ADDR_MAX + JOINS_WAITING_PER_ADDR_MAX {
        strangers.push(tls::connect_bootstrap(&addr, Trust::Unverified, Alpn::Http1).await.unwrap());
    }
    // One more than may come from here at once: the last one is closed, and was not answered.
    let last = strangers.pop().unwrap();
    crate::http::request(last, &addr, Method::GET, CA_PATH, Vec::new()).await.unwrap_err();
    let stream = tls::connect(&addr, None, &manager.member.holder(), Alpn::Http1).await.unwrap().stream;
    let root = crate::http::request(stream, &addr, Method::GET, CA_PATH, Vec::new()).await.unwrap();
    assert_eq!(root, manager.member.identity().root_pem());
    drop(strangers);
    manager.node.node.shutdown().await;
}

/// What a connection for Raft that brings these bytes comes to: a refusal in words, or its end.
async fn raft_with(addr: &str, holder: &IdentityHolder, bytes: &[u8]) -> String {
    let mut stream = tls::connect(addr, None, holder, Alpn::Raft).await.unwrap().stream;
    // It may be refused before all of it is written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn raft_is_for_managers_of_the_cluster() {
    let manager = TestManager::start().await;
    let addr = manager.addr.to_string();
    let worker = TestNode::new();
    let join = |token: &str| swarm_docker_api::view::JoinRequest {
        remote_addrs: vec![addr.clone()],
        join_token: swarm_model::Redacted::new(token),
        ..Default::default()
    };
    let request = Request::get("/swarm").extension(caller()).body(Body::empty()).unwrap();
    let Ok(response) = manager.member.routes().unwrap().oneshot(request).await;
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let swarm: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let token = swarm["JoinTokens"]["Worker"].as_str().unwrap();
    worker.node.clone().join(join(token)).await.unwrap();
    let Swarm::In(member) = &*worker.node.swarm() else { panic!("the node is in no swarm") };

    // A hello in MessagePack, of this version, to nobody.
    let hello = b"\x81\xa5Hello\x82\xa8protocol\x01\xa2to\x00";
    let frame = |payload: &[u8]| {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    };
    // A worker is refused with its first message, whatever it says.
    let answer = raft_with(&addr, &member.holder(), &frame(hello)).await;
    assert!(answer.contains("Refused"), "{answer:?}");
    // A manager is heard, but not understood, or not meant.
    let holder = manager.member.holder();
    assert!(raft_with(&addr, &holder, &frame(hello)).await.contains("not manager 0"));
    for garbage in [frame(b"nonsense"), vec![0xff; 64], frame(&[0x80; 4096]), frame(hello)[..9].to_vec()] {
        let answer = raft_with(&addr, &holder, &garbage).await;
        assert!(!answer.contains("Voted"), "{answer:?}");
    }
    // It leads as before.
    let request = Request::get("/nodes").extension(caller()).body(Body::empty()).unwrap();
    let Ok(response) = manager.member.routes().unwrap().oneshot(request).await;
    assert!(response.status().is_success());
    worker.node.shutdown().await;
    manager.node.node.shutdown().await;
}
