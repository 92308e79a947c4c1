use std::net::Ipv4Addr;

use swarm_docker_api::view::InitRequest;
use swarm_wire::Trust;
use tokio::net::TcpSocket;

use super::*;
use crate::{
    node::{Member, Swarm},
    testing::TestNode,
};

struct TestManager {
    node: TestNode,
    member: Arc<Member>,
    addr: SocketAddr,
}

impl TestManager {
    async fn start() -> Self {
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
        strangers.push(tls::connect_bootstrap(&addr, Trust::Unverified).await.unwrap());
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
