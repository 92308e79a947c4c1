//! Tests of the TLS of the data port: who may connect to whom, over sockets.

use rustls::ClientConfig;
use swarm_model::{ClusterId, NodeRole};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{Ca, IdentityHolder, SigningTime, new_key_and_csr, tls};

const HOUR_NS: i64 = 3_600_000_000_000;
const CLUSTER: ClusterId = ClusterId(9);

fn identity_at(ca: &Ca, node: u128, role: NodeRole, now: impl Into<SigningTime>) -> NodeIdentity {
    let (key, csr) = new_key_and_csr().unwrap();
    let issued = ca.issue(&csr, NodeId(node), role, CLUSTER, HOUR_NS, now).unwrap();
    NodeIdentity::new(issued.cert_pem, key, ca.cert_pem()).unwrap()
}

fn worker(ca: &Ca, node: u128) -> DataTls {
    DataTls::new(identity_at(ca, node, NodeRole::Worker, clock::now())).unwrap()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Both ends of a handshake, the client expecting `wanted`.
async fn meet(
    server: &DataTls,
    client: &DataTls,
    wanted: u128,
) -> (Result<DataConnection, TlsError>, Result<DataConnection, TlsError>) {
    let (listener, addr) = listen().await;
    let served = async { server.accept(listener.accept().await.unwrap().0).await };
    tokio::join!(served, client.connect(addr, NodeId(wanted)))
}

/// What a server says to a client with settings of its own.
async fn serve(server: &DataTls, config: ClientConfig) -> Result<DataConnection, TlsError> {
    let (listener, addr) = listen().await;
    let served = async { server.accept(listener.accept().await.unwrap().0).await };
    let client = async {
        let tcp = TcpStream::connect(addr).await.unwrap();
        tls::client(tcp, "the server", config).await
    };
    let (served, _client) = tokio::join!(served, client);
    served
}

#[tokio::test]
async fn nodes_of_any_role_make_links_and_know_each_other() {
    let ca = Ca::create().unwrap();
    for (a, b) in [(NodeRole::Worker, NodeRole::Worker), (NodeRole::Manager, NodeRole::Worker)] {
        let server = DataTls::new(identity_at(&ca, 1, a, clock::now())).unwrap();
        let client = DataTls::new(identity_at(&ca, 2, b, clock::now())).unwrap();
        let (taken, made) = meet(&server, &client, 1).await;
        let (mut taken, mut made) = (taken.unwrap(), made.unwrap());
        assert_eq!(&taken.peer, client.identity().as_peer());
        assert_eq!(&made.peer, server.identity().as_peer());
        made.stream.write_all(b"hello").await.unwrap();
        made.stream.flush().await.unwrap();
        assert_eq!(taken.stream.fill_buf().await.unwrap(), b"hello");
        assert_eq!(taken.stream.peer_addr().unwrap().ip(), made.stream.peer_addr().unwrap().ip());
    }
}

#[tokio::test]
async fn aes_128_is_preferred_where_the_processor_has_it() {
    let ca = Ca::create().unwrap();
    let (_taken, made) = meet(&worker(&ca, 1), &worker(&ca, 2), 1).await;
    let suite = made.unwrap().stream.0.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    let wanted = match std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default().contains(" aes ") {
        true => rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
        false => rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    };
    assert_eq!(suite, wanted);
}

#[tokio::test]
async fn another_node_than_the_wanted_one_is_refused() {
    let ca = Ca::create().unwrap();
    let (_, made) = meet(&worker(&ca, 1), &worker(&ca, 2), 3).await;
    let error = made.err().unwrap();
    assert!(matches!(error, TlsError::OtherNode { wanted: NodeId(3), .. }), "{error:?}");
    assert!(error.to_string().contains(&NodeId(3).to_string()), "{error}");
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides() {
    let ca = Ca::create().unwrap();
    let long_ago = clock::now().plus_ns(-3 * HOUR_NS);
    let old = |node| DataTls::new(identity_at(&ca, node, NodeRole::Worker, long_ago)).unwrap();
    let (taken, _) = meet(&worker(&ca, 1), &old(2), 1).await;
    assert!(matches!(taken, Err(TlsError::Expired)), "{:?}", taken.err());
    let (_, made) = meet(&old(1), &worker(&ca, 2), 1).await;
    assert!(matches!(made, Err(TlsError::Expired)), "{:?}", made.err());
}

#[tokio::test]
async fn foreign_certificates_are_refused_on_both_sides() {
    let (ours, other) = (Ca::create().unwrap(), Ca::create().unwrap());
    let (_, made) = meet(&worker(&other, 1), &worker(&ours, 2), 1).await;
    assert!(matches!(made, Err(TlsError::OtherCluster { .. })), "{:?}", made.err());
    // A foreign node that takes our node for its own: it trusts our root, its certificate is of another one.
    let foreign = identity_at(&other, 2, NodeRole::Worker, clock::now());
    let intruder = NodeIdentity::new(foreign.cert_pem(), foreign.key_pem().clone(), ours.cert_pem()).unwrap();
    let (taken, _) = meet(&worker(&ours, 1), &DataTls::new(intruder).unwrap(), 1).await;
    assert!(matches!(taken, Err(TlsError::OtherCluster { .. })), "{:?}", taken.err());
    // One root, two clusters.
    let (key, csr) = new_key_and_csr().unwrap();
    let issued = ours.issue(&csr, NodeId(2), NodeRole::Worker, ClusterId(10), HOUR_NS, clock::now()).unwrap();
    let namesake = DataTls::new(NodeIdentity::new(issued.cert_pem, key, ours.cert_pem()).unwrap()).unwrap();
    let (taken, made) = meet(&worker(&ours, 1), &namesake, 1).await;
    assert!(matches!(taken, Err(TlsError::OtherCluster { .. })), "{:?}", taken.err());
    assert!(matches!(made, Err(TlsError::OtherCluster { .. })), "{:?}", made.err());
}

#[tokio::test]
async fn without_a_certificate_nobody_is_served() {
    let ca = Ca::create().unwrap();
    let mut config = config::bootstrap(tls::Trust::Unverified).unwrap();
    config.alpn_protocols = vec![Alpn::Data.as_str().into()];
    let taken = serve(&worker(&ca, 1), config).await;
    assert!(matches!(taken, Err(TlsError::NoCertificate)), "{:?}", taken.err());
}

#[tokio::test]
async fn the_data_port_and_the_managers_port_speak_different_protocols() {
    let ca = Ca::create().unwrap();
    let server = identity_at(&ca, 1, NodeRole::Manager, clock::now());
    let node = identity_at(&ca, 2, NodeRole::Worker, clock::now());
    for protocol in [vec![b"h2".to_vec(), b"http/1.1".to_vec()], vec![Alpn::Agent.as_str().into()], Vec::new()] {
        let mut config = config::client(&node).unwrap();
        config.alpn_protocols = protocol;
        let taken = serve(&DataTls::new(server.clone()).unwrap(), config).await;
        assert!(matches!(taken, Err(TlsError::Handshake(_) | TlsError::Protocol { .. })), "{:?}", taken.err());
    }
    let (listener, addr) = listen().await;
    let holder = IdentityHolder::new(server).unwrap();
    let served = async { tls::accept(listener.accept().await.unwrap().0, &holder).await };
    let client = DataTls::new(node).unwrap();
    let (served, made) = tokio::join!(served, client.connect(addr, NodeId(1)));
    assert!(matches!(served, Err(TlsError::Handshake(_))), "{:?}", served.err());
    assert!(made.is_err());
}

#[tokio::test]
async fn a_chain_is_checked_again_when_the_roots_change() {
    let (old, new) = (Ca::create().unwrap(), Ca::create().unwrap());
    let (taken, _made) = meet(&worker(&old, 1), &worker(&old, 2), 1).await;
    let chain = taken.unwrap().chain;
    worker(&old, 1).check(&chain).unwrap();
    assert!(worker(&new, 1).check(&chain).is_err());
    // A node trusts both while the root is being replaced.
    let both = format!("{}{}", old.cert_pem(), new.cert_pem());
    let renewed = identity_at(&new, 1, NodeRole::Worker, clock::now()).trusting(&both).unwrap();
    DataTls::new(renewed).unwrap().check(&chain).unwrap();
}

#[tokio::test]
async fn nobody_at_the_address_is_said_with_the_address() {
    let ca = Ca::create().unwrap();
    let (listener, addr) = listen().await;
    drop(listener);
    let error = worker(&ca, 1).connect(addr, NodeId(2)).await.err().unwrap().to_string();
    assert!(error.contains(&addr.to_string()), "{error}");
}
