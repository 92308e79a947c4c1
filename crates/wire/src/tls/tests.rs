use proptest::prelude::*;
use swarm_model::{ClusterId, NodeId, Timestamp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
};

use super::*;
use crate::{Ca, new_key_and_csr};

const HOUR_NS: i64 = 3_600_000_000_000;
const CLUSTER: ClusterId = ClusterId(9);

fn holder_at(ca: &Ca, role: NodeRole, cluster: ClusterId, now: Timestamp) -> IdentityHolder {
    let (key, csr) = new_key_and_csr().unwrap();
    let issued = ca.issue(&csr, NodeId(role as u128), role, cluster, HOUR_NS, now).unwrap();
    IdentityHolder::new(NodeIdentity::new(issued.cert_pem, key, ca.cert_pem()).unwrap()).unwrap()
}

fn holder(ca: &Ca, role: NodeRole) -> IdentityHolder {
    holder_at(ca, role, CLUSTER, clock::now())
}

/// Both ends of a handshake, the client asking for `alpn`.
async fn meet(
    server: &IdentityHolder,
    client: &IdentityHolder,
    alpn: Alpn,
) -> (Result<Accepted, TlsError>, Result<Connected, TlsError>) {
    let (a, b) = duplex(64 << 10);
    tokio::join!(accept(a, server), handshake(b, "peer", client, alpn))
}

/// A client without a certificate, over a stream.
async fn anonymous(stream: DuplexStream, trust: Trust<'_>) -> Result<BoxedStream, TlsError> {
    Ok(Box::new(client(stream, "peer", config::bootstrap(trust)?).await?))
}

async fn round_trip(mut a: BoxedStream, mut b: BoxedStream) {
    for (from, to) in [(0, 1), (1, 0)] {
        let (sender, receiver) = if from < to { (&mut a, &mut b) } else { (&mut b, &mut a) };
        sender.write_all(b"hello").await.unwrap();
        sender.flush().await.unwrap();
        let mut bytes = [0; 5];
        receiver.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
    }
}

#[tokio::test]
async fn a_worker_and_a_manager_know_each_other() {
    let ca = Ca::create().unwrap();
    let (manager, worker) = (holder(&ca, NodeRole::Manager), holder(&ca, NodeRole::Worker));
    let (server, client) = meet(&manager, &worker, Alpn::Agent).await;
    let (server, client) = (server.unwrap(), client.unwrap());
    assert_eq!(server.alpn, Alpn::Agent);
    assert_eq!(server.peer.as_ref(), Some(worker.identity().as_peer()));
    assert_eq!(&client.peer, manager.identity().as_peer());
    round_trip(server.stream, client.stream).await;
}

#[tokio::test]
async fn without_a_certificate_a_peer_is_nobody() {
    let ca = Ca::create().unwrap();
    let manager = holder(&ca, NodeRole::Manager);
    for trust in [Trust::Root(ca.cert_pem()), Trust::Unverified] {
        let (a, b) = duplex(64 << 10);
        let (server, client) = tokio::join!(accept(a, &manager), anonymous(b, trust));
        let server = server.unwrap();
        assert_eq!((server.alpn, server.peer.clone()), (Alpn::Http1, None));
        round_trip(server.stream, client.unwrap()).await;
    }
}

#[tokio::test]
async fn nodes_of_another_cluster_are_refused_on_both_sides() {
    let (ours, other) = (Ca::create().unwrap(), Ca::create().unwrap());
    let (manager, foreign) = (holder(&ours, NodeRole::Manager), holder(&other, NodeRole::Worker));
    let (_, client) = meet(&manager, &foreign, Alpn::Agent).await;
    assert!(matches!(client, Err(TlsError::OtherCluster { .. })), "{:?}", client.err());

    let (a, b) = duplex(64 << 10);
    let (_, client) = tokio::join!(accept(a, &manager), anonymous(b, Trust::Root(other.cert_pem())));
    assert!(matches!(client, Err(TlsError::OtherCluster { .. })), "{:?}", client.err());

    // A foreign node that takes our manager for its own (it trusts our root, its certificate is of another one).
    let (key, csr) = new_key_and_csr().unwrap();
    let issued = other.issue(&csr, NodeId(3), NodeRole::Manager, CLUSTER, HOUR_NS, clock::now()).unwrap();
    let intruder = IdentityHolder::new(NodeIdentity::new(issued.cert_pem, key, ours.cert_pem()).unwrap()).unwrap();
    let (server, _) = meet(&manager, &intruder, Alpn::Agent).await;
    assert!(matches!(server, Err(TlsError::OtherCluster { .. })), "{:?}", server.err());
}

#[tokio::test]
async fn the_cluster_id_must_be_the_same_even_under_one_root() {
    let ca = Ca::create().unwrap();
    let manager = holder(&ca, NodeRole::Manager);
    let other = holder_at(&ca, NodeRole::Worker, ClusterId(10), clock::now());
    let (_, refused) = meet(&manager, &other, Alpn::Agent).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains(&format!("another cluster ({CLUSTER})")), "{refused}");

    // A client that does not look at our cluster id.
    let (a, b) = duplex(64 << 10);
    let careless = config::client(&other.identity()).unwrap();
    let (server, _client) = tokio::join!(accept(a, &manager), client(b, "peer", careless));
    let refused = server.err().unwrap().to_string();
    assert!(refused.contains(&format!("another cluster ({})", ClusterId(10))), "{refused}");
}

#[tokio::test]
async fn a_worker_is_no_server() {
    let ca = Ca::create().unwrap();
    let (_, client) = meet(&holder(&ca, NodeRole::Worker), &holder(&ca, NodeRole::Worker), Alpn::Agent).await;
    assert!(matches!(client, Err(TlsError::NotAManager { .. })), "{:?}", client.err());
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides() {
    let ca = Ca::create().unwrap();
    let long_ago = clock::now().plus_ns(-3 * HOUR_NS);
    let old = |role| holder_at(&ca, role, CLUSTER, long_ago);
    let (server, _) = meet(&holder(&ca, NodeRole::Manager), &old(NodeRole::Worker), Alpn::Agent).await;
    assert!(matches!(server, Err(TlsError::Expired)), "{:?}", server.err());
    let (_, client) = meet(&old(NodeRole::Manager), &holder(&ca, NodeRole::Worker), Alpn::Agent).await;
    assert!(matches!(client, Err(TlsError::Expired)), "{:?}", client.err());
}

#[tokio::test]
async fn certificates_that_are_not_valid_yet_count() {
    let ca = Ca::create().unwrap();
    let ahead = clock::now().plus_ns(365 * 24 * HOUR_NS);
    let early = |role| holder_at(&ca, role, CLUSTER, ahead);
    for (server, client) in [
        (holder(&ca, NodeRole::Manager), early(NodeRole::Worker)),
        (early(NodeRole::Manager), holder(&ca, NodeRole::Worker)),
        (early(NodeRole::Manager), early(NodeRole::Manager)),
    ] {
        let (server, client) = meet(&server, &client, Alpn::Agent).await;
        round_trip(server.unwrap().stream, client.unwrap().stream).await;
    }
    let (a, b) = duplex(64 << 10);
    let manager = early(NodeRole::Manager);
    let (server, client) = tokio::join!(accept(a, &manager), anonymous(b, Trust::Root(ca.cert_pem())));
    round_trip(server.unwrap().stream, client.unwrap()).await;
    // All else is checked as ever.
    let other = Ca::create().unwrap();
    let foreign = holder_at(&other, NodeRole::Worker, CLUSTER, ahead);
    let (server, client) = meet(&holder(&ca, NodeRole::Manager), &foreign, Alpn::Agent).await;
    assert!(server.is_err() && matches!(client, Err(TlsError::OtherCluster { .. })), "{:?}", client.err());
}

#[tokio::test]
async fn a_renewed_certificate_counts_from_the_next_connection_on() {
    let ca = Ca::create().unwrap();
    let manager = holder(&ca, NodeRole::Manager);
    let worker = holder_at(&ca, NodeRole::Worker, CLUSTER, clock::now().plus_ns(-3 * HOUR_NS));
    assert!(meet(&manager, &worker, Alpn::Agent).await.0.is_err());
    worker.replace((*holder(&ca, NodeRole::Worker).identity()).clone()).unwrap();
    assert!(meet(&manager, &worker, Alpn::Agent).await.0.is_ok());
}

#[tokio::test]
async fn unknown_protocols_are_refused() {
    let ca = Ca::create().unwrap();
    let manager = holder(&ca, NodeRole::Manager);
    let mut config = config::bootstrap(Trust::Unverified).unwrap();
    config.alpn_protocols = vec![b"smtp".to_vec()];
    let (a, b) = duplex(64 << 10);
    let (server, client) = tokio::join!(accept(a, &manager), client(b, "peer", config));
    assert!(matches!(server, Err(TlsError::Handshake(_))), "{:?}", server.err());
    assert!(client.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up() {
    let ca = Ca::create().unwrap();
    let (a, _silent) = duplex(64);
    assert!(matches!(accept(a, &holder(&ca, NodeRole::Manager)).await, Err(TlsError::Slow)));
    let (b, _silent) = duplex(64 << 10);
    let error = handshake(b, "peer", &holder(&ca, NodeRole::Worker), Alpn::Agent).await.err().unwrap();
    assert!(error.to_string().contains("cannot connect to peer"), "{error}");
}

#[tokio::test]
async fn over_tcp_the_errors_name_the_address() {
    let ca = Ca::create().unwrap();
    let (manager, worker) = (holder(&ca, NodeRole::Manager), holder(&ca, NodeRole::Worker));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let served = async {
        let (tcp, _) = listener.accept().await.unwrap();
        accept(tcp, &manager).await.unwrap()
    };
    let (server, client) = tokio::join!(served, connect(&addr, None, &worker, Alpn::H2));
    assert_eq!(server.alpn, Alpn::H2);
    round_trip(server.stream, client.unwrap().stream).await;

    let source = "127.0.0.5".parse().unwrap();
    let seen = async { listener.accept().await.unwrap().1.ip() };
    let (seen, _) = tokio::join!(seen, dial(&addr, Some(source)));
    assert_eq!(seen, source);

    drop(listener);
    let error = connect(&addr, None, &worker, Alpn::H2).await.err().unwrap();
    assert!(error.to_string().contains(&addr), "{error}");
    let error = connect_bootstrap("nonsense", Trust::Unverified, Alpn::Http1).await.err().unwrap();
    assert!(error.to_string().contains("nonsense"), "{error}");
}

#[tokio::test]
async fn a_plain_http_request_is_told_apart() {
    let ca = Ca::create().unwrap();
    let (a, mut b) = duplex(64 << 10);
    b.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let error = accept(a, &holder(&ca, NodeRole::Manager)).await.err().unwrap();
    assert!(matches!(error, TlsError::NotTls(_)), "{error:?}");
}

proptest! {
    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        thread_local! {
            static MANAGER: IdentityHolder = holder(&Ca::create().unwrap(), NodeRole::Manager);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        MANAGER.with(|manager| runtime.block_on(async {
            let (a, mut b) = duplex(64 << 10);
            b.write_all(&bytes).await.unwrap();
            b.shutdown().await.unwrap();
            assert!(accept(a, manager).await.is_err());
        }));
    }
}
