//! Tests of the links over sockets.

use std::{future::poll_fn, pin::pin};

use bytes::Bytes;
use swarm_model::{ClusterId, NodeRole, PortProtocol};
use swarm_wire::{Ca, clock, new_key_and_csr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::testing::{eventually, soon, until, wanted};

mod ethernet;
mod flood;
mod trust;

const HOUR_NS: i64 = 3_600_000_000_000;

pub(super) fn identity(ca: &Ca, node: u128) -> NodeIdentity {
    let (key, csr) = new_key_and_csr().unwrap();
    let issued = ca.issue(&csr, NodeId(node), NodeRole::Worker, ClusterId(9), HOUR_NS, clock::now()).unwrap();
    NodeIdentity::new(issued.cert_pem, key, ca.cert_pem()).unwrap()
}

pub(super) fn request() -> OpenRequest {
    OpenRequest {
        task: TaskId(7),
        port: PublishedPort { protocol: PortProtocol::Tcp, published: 9000, target: 80 },
        client: ([192, 0, 2, 1], 40_000).into(),
        asked: ([10, 0, 0, 1], 9000).into(),
    }
}

/// A node of a test.
struct Node {
    id: NodeId,
    addr: SocketAddr,
    links: Links,
    incoming: mpsc::Receiver<Incoming>,
}

impl Node {
    async fn new(ca: &Ca, id: u128) -> Self {
        let (links, incoming) = Links::new();
        links.set_identity(identity(ca, id)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        links.listen(listener);
        Self { id: NodeId(id), addr, links, incoming }
    }

    /// A stream to another node, which accepts it.
    async fn stream_to(&self, other: &mut Self) -> (LinkStream, LinkStream) {
        let (ours, theirs) = tokio::join!(self.links.open(other.id, request()), async {
            let incoming = other.incoming.recv().await.unwrap();
            assert_eq!((incoming.from, incoming.request), (self.id, request()));
            incoming.accept()
        });
        (ours.unwrap(), theirs)
    }
}

/// Nodes that know each other.
async fn nodes<const N: usize>(ca: &Ca) -> [Node; N] {
    let mut nodes = Vec::new();
    for id in 1..=N {
        nodes.push(Node::new(ca, id as u128).await);
    }
    let peers: BTreeMap<_, _> = nodes.iter().map(|node| (node.id, node.addr)).collect();
    nodes.iter().for_each(|node| node.links.set_peers(peers.clone()));
    nodes.try_into().map_err(|_| "another number").unwrap()
}

async fn pair() -> (Ca, Node, Node) {
    let ca = Ca::create().unwrap();
    let [a, b] = nodes(&ca).await;
    (ca, a, b)
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_direction_ends_by_itself() {
    let (_ca, a, mut b) = pair().await;
    let (mut ours, mut theirs) = a.stream_to(&mut b).await;
    ours.write_all(b"request").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut text = String::new();
    theirs.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "request");
    assert_eq!(ours.write(b"more").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    theirs.write_all(b"answer").await.unwrap();
    theirs.shutdown().await.unwrap();
    text.clear();
    ours.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test]
async fn both_sides_open_streams_on_one_link() {
    let (_ca, mut a, mut b) = pair().await;
    let _there = a.stream_to(&mut b).await;
    let (mut ours, mut theirs) = b.stream_to(&mut a).await;
    theirs.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 5];
    ours.read_exact(&mut bytes).await.unwrap();
    assert_eq!((a.links.count(b.id), b.links.count(a.id)), (1, 1));
}

#[tokio::test]
async fn many_bytes_arrive_as_they_were_sent() {
    let (_ca, a, mut b) = pair().await;
    let (mut ours, mut theirs) = a.stream_to(&mut b).await;
    let sent: Bytes = (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut rest = sent.clone();
    let sending = async {
        // Small pieces first, then as much as there is room for, without copying.
        ours.write_all(&rest.split_to(10)).await.unwrap();
        ours.write_all(&rest.split_to(100_000)).await.unwrap();
        let (_, mut writer) = ours.split();
        while poll_fn(|cx| writer.poll_send(cx, &mut rest)).await.unwrap() > 0 {}
        ours.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, read) = tokio::join!(sending, theirs.read_to_end(&mut received));
    read.unwrap();
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
}

#[tokio::test]
async fn a_refusal_brings_its_reason() {
    let (_ca, a, mut b) = pair().await;
    let (refused, ()) = tokio::join!(a.links.open(b.id, request()), async {
        b.incoming.recv().await.unwrap().refuse("the task does not listen".to_owned());
    });
    assert_eq!(refused.unwrap_err(), OpenError::Refused { reason: "the task does not listen".to_owned() });
    let (dropped, ()) = tokio::join!(a.links.open(b.id, request()), async {
        drop(b.incoming.recv().await.unwrap());
    });
    assert!(matches!(dropped.unwrap_err(), OpenError::Refused { .. }));
}

#[tokio::test]
async fn a_dropped_stream_is_a_reset_for_the_peer() {
    let (_ca, a, mut b) = pair().await;
    let (ours, mut theirs) = a.stream_to(&mut b).await;
    drop(ours);
    let error = soon(theirs.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let error = theirs.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The link carries on.
    let (mut ours, mut theirs) = a.stream_to(&mut b).await;
    ours.write_all(b"x").await.unwrap();
    assert_eq!(theirs.read_u8().await.unwrap(), b'x');
    assert_eq!(a.links.count(b.id), 1);
}

#[tokio::test]
async fn a_slow_reader_stops_only_itself() {
    let (_ca, a, mut b) = pair().await;
    let (mut slow, mut unread) = a.stream_to(&mut b).await;
    let (mut fast, mut read) = a.stream_to(&mut b).await;
    // Until the credit is used up.
    let mut stuck = 0;
    while let Ok(sent) = timeout(Duration::from_millis(200), slow.write(&[1; 10_000])).await {
        stuck += sent.unwrap();
        assert!(stuck <= mux::flow::WINDOW_BYTES_MAX as usize, "no more than the window");
    }
    let payload = vec![7; 3_000_000];
    let mut received = vec![0; payload.len()];
    let (sent, got) = tokio::join!(fast.write_all(&payload), read.read_exact(&mut received));
    sent.unwrap();
    got.unwrap();
    assert!(received == payload);
    // Bytes that were held back arrive when they are read.
    let mut late = vec![0; stuck];
    soon(unread.read_exact(&mut late)).await.unwrap();
    assert!(late.iter().all(|byte| *byte == 1));
}

#[tokio::test]
async fn a_request_that_is_taken_back_does_not_stay() {
    let (_ca, a, mut b) = pair().await;
    let opening = tokio::spawn({
        let (links, node) = (a.links.clone(), b.id);
        async move { links.open(node, request()).await }
    });
    let incoming = soon(b.incoming.recv()).await.unwrap();
    opening.abort();
    let _ = opening.await;
    let mut stream = incoming.accept();
    let error = soon(stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_cannot_be_reached_is_said_at_once() {
    let ca = Ca::create().unwrap();
    let [a, b, stranger] = nodes(&ca).await;
    let gone = b.addr;
    drop(b);
    until(|| std::net::TcpListener::bind(gone).is_ok()).await;
    let error = a.links.open(NodeId(2), request()).await.unwrap_err();
    assert!(matches!(&error, OpenError::Unreachable(why) if why.contains(&gone.to_string())), "{error}");
    let error = a.links.open(NodeId(99), request()).await.unwrap_err();
    assert!(matches!(&error, OpenError::Unreachable(why) if why.contains("not in the table")), "{error}");
    // Another node at the address of the wanted one.
    a.links.set_peers([(NodeId(2), stranger.addr)].into());
    let error = a.links.open(NodeId(2), request()).await.unwrap_err();
    assert!(error.to_string().contains("names another node"), "{error}");
    let (without_identity, _incoming) = Links::new();
    without_identity.set_peers([(NodeId(3), stranger.addr)].into());
    let error = without_identity.open(NodeId(3), request()).await.unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
}

#[tokio::test]
async fn a_link_that_was_lost_is_made_again_at_once() {
    let ca = Ca::create().unwrap();
    let [a, mut b] = nodes(&ca).await;
    let (mut ours, _theirs) = a.stream_to(&mut b).await;
    // The other data plane ends and another one takes its place.
    let addr = b.addr;
    drop((b, _theirs));
    let error = soon(ours.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let (links, incoming) = Links::new();
    links.set_identity(identity(&ca, 2)).unwrap();
    links.set_peers([(NodeId(1), a.addr)].into());
    links.listen(TcpListener::bind(addr).await.unwrap());
    let mut b = Node { id: NodeId(2), addr, links, incoming };
    let (mut ours, mut theirs) = a.stream_to(&mut b).await;
    ours.write_all(b"x").await.unwrap();
    assert_eq!(theirs.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn many_streams_open_at_once_share_a_few_links() {
    let (_ca, a, mut b) = pair().await;
    let accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        while open.len() < 400 {
            open.push(b.incoming.recv().await.unwrap().accept());
        }
        (b, open)
    });
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let links = a.links.clone();
        opening.spawn(async move { links.open(NodeId(2), request()).await.unwrap() });
    }
    let ours = soon(opening.join_all()).await;
    let (b, theirs) = soon(accepting).await.unwrap();
    assert!((1..=4).contains(&a.links.count(b.id)), "{} links", a.links.count(b.id));
    drop((ours, theirs));
}

#[tokio::test]
async fn a_peer_that_takes_long_to_connect_is_waited_for() {
    let (_ca, a, mut b) = pair().await;
    let streams = a.stream_to(&mut b).await;
    let mut opening = pin!(a.links.open(b.id, request()));
    let early = timeout(2 * SILENT_OPEN_TIMEOUT + QUIET_MAX, &mut opening).await;
    assert!(early.is_err(), "{early:?}");
    drop(soon(b.incoming.recv()).await.unwrap().accept());
    let opened = soon(opening).await;
    assert!(opened.is_ok(), "{opened:?}");
    drop(streams);
}

#[tokio::test]
async fn a_link_without_streams_ends_after_a_while() {
    let (_ca, a, mut b) = pair().await;
    drop(a.stream_to(&mut b).await);
    assert_eq!((a.links.count(b.id), b.links.count(a.id)), (1, 1));
    tokio::time::pause();
    let begin = Instant::now();
    until(|| (a.links.count(b.id), b.links.count(a.id)) == (0, 0)).await;
    assert!(begin.elapsed() >= driver::IDLE_MAX);
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let (_ca, a, mut b) = pair().await;
    // A wire that can be stopped without an end.
    let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = wire.local_addr().unwrap();
    let target = b.addr;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut near, _) = wire.accept().await.unwrap();
        let mut far = TcpStream::connect(target).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = stopped => {}
        }
        std::future::pending::<()>().await;
    });
    a.links.set_peers([(b.id, between)].into());
    let (mut ours, mut theirs) = a.stream_to(&mut b).await;
    // The link is idle for longer than a silent peer would be given: signs of life keep it.
    assert!(timeout(driver::DEAD_AFTER + Duration::from_secs(1), ours.read_u8()).await.is_err());
    stop.send(()).unwrap();
    let begin = Instant::now();
    // Before that, who wants a stream does not have to wait so long.
    let error = a.links.open(b.id, request()).await.unwrap_err();
    assert!(matches!(&error, OpenError::Unreachable(why) if why.contains("no sign of life")), "{error}");
    let error = soon(ours.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(error.to_string().contains("silent"), "{error}");
    assert!(begin.elapsed() >= driver::DEAD_AFTER - Duration::from_secs(3));
    soon(theirs.read_u8()).await.unwrap_err();
    assert_eq!(ours.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_peer_that_does_not_answer_is_named_until_it_does() {
    let (_ca, a, b) = pair().await;
    let mut silent = a.links.silent();
    b.links.retire();
    // The system refuses connections a moment after the socket is closed.
    eventually(async || wanted(TcpStream::connect(b.addr).await.is_err(), |refused| *refused)).await;
    assert!(a.links.open(b.id, request()).await.is_err());
    assert!(silent.borrow().is_empty(), "once is no more than a data plane that is started anew");
    let named = soon(silent.wait_for(|silent| !silent.is_empty())).await.unwrap().clone();
    assert_eq!(named.keys().collect::<Vec<_>>(), [&b.id]);
    b.links.listen(TcpListener::bind(b.addr).await.unwrap());
    soon(silent.wait_for(Silent::is_empty)).await.unwrap();
    assert_eq!(a.links.count(b.id), 1, "it was tried again");
}

#[tokio::test]
async fn a_probe_says_whether_a_peer_answers_and_leaves_no_link() {
    let (_ca, a, b) = pair().await;
    assert_eq!(soon(a.links.probe(b.id)).await, Ok(()));
    assert_eq!(a.links.count(b.id), 0);
    until(|| b.links.count(a.id) == 0).await;
    assert!(a.links.probe(NodeId(99)).await.unwrap_err().contains("not in the table"));
    // The connection is refused, or nobody takes it.
    b.links.retire();
    assert!(soon(a.links.probe(b.id)).await.is_err());
}
