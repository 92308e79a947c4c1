//! The port as an attacker finds it: certificates that are none of the cluster's any more, or never were, and bytes
//! that are none of the protocols'.

use swarm_consensus::Role;
use swarm_core::{Op, Tx};
use swarm_manager::api::Plane;
use swarm_model::{Availability, ClusterId, NodeRole, Timestamp};
use swarm_wire::{Ca, NodeIdentity, Trust, clock, new_key_and_csr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{tests::TestManager, *};

const HOUR_NS: i64 = 3_600_000_000_000;
/// Longer than any of the port's own limits.
const PATIENCE: Duration = Duration::from_secs(60);
/// The protocols that take a certificate.
const NODES_ONLY: [Alpn; 3] = [Alpn::Agent, Alpn::Raft, Alpn::Api];
/// A node that is no test's own.
const STRANGER: NodeId = NodeId(77);

/// Somebody with the cluster's own authority, and worse.
struct Forger {
    manager: TestManager,
    ca: Ca,
}

impl Forger {
    async fn start() -> Self {
        let manager = TestManager::start().await;
        let state = manager.member.manager().unwrap().state();
        let root = &state.cluster().unwrap().root_ca;
        let ca = Ca::load(&root.cert_pem, &root.key_pem).unwrap();
        Self { manager, ca }
    }

    fn cluster(&self) -> ClusterId {
        self.manager.member.identity().cluster()
    }

    fn raft_id(&self) -> u64 {
        let member = &self.manager.member;
        member.manager().unwrap().state().node(member.identity().node()).unwrap().raft_id.unwrap()
    }

    /// A certificate that was valid for an hour from some time on.
    fn holder(&self, ca: &Ca, cluster: ClusterId, role: NodeRole, from: Timestamp) -> IdentityHolder {
        let (key, csr) = new_key_and_csr().unwrap();
        let issued = ca.issue(&csr, STRANGER, role, cluster, HOUR_NS, from).unwrap();
        IdentityHolder::new(NodeIdentity::new(issued.cert_pem, key, self.ca.cert_pem()).unwrap()).unwrap()
    }

    fn valid(&self, role: NodeRole) -> IdentityHolder {
        self.holder(&self.ca, self.cluster(), role, clock::now())
    }

    /// What a connection that brings these bytes is answered until it ends; why there is none.
    async fn send(&self, holder: &IdentityHolder, alpn: Alpn, bytes: &[u8]) -> Result<String, String> {
        let connected = tls::connect(&self.manager.addr.to_string(), None, holder, alpn).await;
        Ok(answer(connected.map_err(|e| e.to_string())?.stream, bytes).await)
    }

    async fn write(&self, ops: Vec<Op>) {
        let manager = self.manager.member.manager().unwrap();
        assert_eq!(manager.propose(vec![Tx::new(ops)]).await.unwrap().outcomes, [Ok(())]);
    }

    async fn admit(&self, role: NodeRole, cert_expires_at: Timestamp) {
        let manager_addr = (role == NodeRole::Manager).then(|| "127.0.0.1:1".to_owned());
        let availability = Availability::Drain;
        self.write(vec![Op::AdmitNode { node: STRANGER, role, cert_expires_at, manager_addr, availability }]).await;
    }

    /// The manager leads, in the term in which it led before, and answers.
    async fn is_well(&self) {
        let manager = self.manager.member.manager().unwrap();
        assert!(matches!(&*manager.role().borrow(), Role::Leader { .. }));
        assert_eq!(manager.managers().await.term, 1);
        manager.read().await.unwrap();
    }

    async fn stop(self) {
        self.is_well().await;
        self.manager.node.node.shutdown().await;
    }
}

async fn answer(mut stream: BoxedStream, bytes: &[u8]) -> String {
    // It may be refused before all of it is written.
    let _ = stream.write_all(bytes).await;
    // Whole requests end the connection themselves; a client that hangs up early is not answered.
    if !bytes.starts_with(b"GET ") && !bytes.starts_with(b"POST ") {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[0; 4], payload].concat()
}

/// The first message of a manager, in MessagePack.
fn hello(to: u64) -> Vec<u8> {
    frame(&[b"\x81\xa5Hello\x82\xa8protocol\x01\xa2to\xcf", &to.to_be_bytes()[..]].concat())
}

fn http(method: &str, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_one_can_join_and_nothing_else() {
    let forger = Forger::start().await;
    let addr = forger.manager.addr.to_string();
    let root = forger.ca.cert_pem().to_owned();
    let send = async |alpn, bytes: &[u8]| {
        answer(tls::connect_bootstrap(&addr, Trust::Root(&root), alpn).await.unwrap(), bytes).await
    };
    for alpn in NODES_ONLY {
        for bytes in [hello(0), http("GET", "/services/x/logs")] {
            assert_eq!(send(alpn, &bytes).await, "", "{alpn:?}");
        }
    }
    for path in ["/services", "/swarm", "/swarm/unlockkey", "/swarmd/managers"] {
        assert!(send(Alpn::Http1, &http("GET", path)).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    let renewal = send(Alpn::Http1, &http("POST", CERTIFICATE_PATH)).await;
    assert!(renewal.starts_with("HTTP/1.1 400"), "{renewal}");
    assert!(send(Alpn::Http1, &http("GET", CA_PATH)).await.contains("BEGIN CERTIFICATE"));
    forger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_no_manager() {
    let forger = Forger::start().await;
    let worker = forger.valid(NodeRole::Worker);
    let answered = forger.send(&worker, Alpn::Raft, &hello(forger.raft_id())).await.unwrap();
    assert!(answered.contains("Refused") && answered.contains("is a worker"), "{answered}");
    assert_eq!(forger.send(&worker, Alpn::Api, &http("GET", "/services/x/logs")).await.unwrap(), "");
    let answered = forger.send(&worker, Alpn::Http1, &http("GET", "/swarm")).await.unwrap();
    assert!(answered.starts_with("HTTP/1.1 404"), "{answered}");
    forger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_others_and_of_yesterday_open_nothing() {
    let forger = Forger::start().await;
    let (cluster, now) = (forger.cluster(), clock::now());
    let (foreign, long_ago) = (Ca::create().unwrap(), now.plus_ns(-2 * HOUR_NS));
    let bad = [
        forger.holder(&foreign, cluster, NodeRole::Manager, now),
        forger.holder(&forger.ca, ClusterId(1), NodeRole::Manager, now),
        forger.holder(&forger.ca, cluster, NodeRole::Manager, long_ago),
        forger.holder(&forger.ca, cluster, NodeRole::Worker, long_ago),
    ];
    for (index, holder) in bad.iter().enumerate() {
        for (alpn, bytes) in [
            (Alpn::Raft, hello(0)),
            (Alpn::Agent, hello(0)),
            (Alpn::Api, http("GET", "/services/x/logs")),
            (Alpn::Http1, http("POST", CERTIFICATE_PATH)),
        ] {
            // With TLS 1.3 a client may only learn with its first read that it was refused.
            let answered = forger.send(holder, alpn, &bytes).await.unwrap_or_default();
            assert_eq!(answered, "", "certificate {index}, {alpn:?}");
        }
    }
    forger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_demoted_or_removed_is_locked_out_with_what_is_open() {
    let forger = Forger::start().await;
    let holder = forger.valid(NodeRole::Manager);
    let expires_at = holder.identity().as_peer().cert_expires_at;
    forger.admit(NodeRole::Manager, expires_at).await;
    let own_raft_id = forger.raft_id();
    let addr = forger.manager.addr.to_string();
    let open = async || {
        let mut stream = tls::connect(&addr, None, &holder, Alpn::Raft).await.unwrap().stream;
        stream.write_all(&hello(own_raft_id)).await.unwrap();
        stream
    };
    // It stands as long as nothing happens: what is asked on it is answered.
    let mut stream = open().await;
    stream.write_all(&frame(b"\xa6Status")).await.unwrap();
    let length = timeout(PATIENCE, stream.read_u32()).await.expect("an answer").unwrap();
    let mut status = vec![0; 4 + length as usize];
    stream.read_exact(&mut status).await.unwrap();
    assert!(String::from_utf8_lossy(&status).contains("Status"));

    forger.admit(NodeRole::Worker, expires_at.plus_ns(1_000_000_000)).await;
    // Without another word of the peer.
    let closed = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    closed.expect("the connection of a manager that was demoted is closed").ok();
    let answered = forger.send(&holder, Alpn::Raft, &hello(own_raft_id)).await.unwrap();
    assert!(answered.contains("no manager any more"), "{answered}");

    forger.write(vec![Op::RemoveNode { node: STRANGER, force: true }]).await;
    let answered = forger.send(&holder, Alpn::Raft, &hello(own_raft_id)).await.unwrap();
    assert!(answered.contains("was removed"), "{answered}");
    assert_eq!(forger.send(&holder, Alpn::Api, &http("GET", "/services/x/logs")).await.unwrap(), "");
    // Nor does it get a new certificate.
    let (_, csr) = new_key_and_csr().unwrap();
    let request = serde_json::json!({ "Csr": csr, "ManagerAddr": "127.0.0.1:1" }).to_string();
    let stream = tls::connect(&addr, None, &holder, Alpn::Http1).await.unwrap().stream;
    let refused =
        crate::http::request(stream, &addr, Method::POST, CERTIFICATE_PATH, request.into()).await.unwrap_err();
    assert!(refused.status == 403 && refused.message.contains("was removed"), "{refused:?}");
    // An agent's stream that was open, too.
    let mut agent = tls::connect(&addr, None, &holder, Alpn::Agent).await.unwrap().stream;
    timeout(Duration::from_secs(8), agent.read_to_end(&mut Vec::new())).await.expect("it is closed").ok();
    forger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_bring_a_manager_down() {
    let forger = Forger::start().await;
    let holder = forger.valid(NodeRole::Manager);
    let mut bytes = vec![
        Vec::new(),
        vec![0; 3],
        vec![0xff; 4096],
        // Longer than any frame may be, and one that ends early.
        frame(&[0; 64])[..20].to_vec(),
        [&u32::MAX.to_be_bytes()[..], &[0; 64]].concat(),
        frame(b""),
        frame(&[0xdd, 0xff, 0xff, 0xff, 0xff]),
        frame(&[0x91; 100_000]),
        hello(0)[..11].to_vec(),
        http("GET", &format!("/{}", "x".repeat(1 << 20))),
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for length in (0..40).map(|n| n * 7 + 1) {
        let random = (0..length).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        });
        let random: Vec<u8> = random.collect();
        bytes.push(random.clone());
        bytes.push(frame(&random));
    }
    for alpn in [Alpn::Raft, Alpn::Agent, Alpn::Api, Alpn::Http1, Alpn::H2] {
        for bytes in &bytes {
            let answered = forger.send(&holder, alpn, bytes).await.unwrap();
            assert!(!answered.contains("Voted") && !answered.contains("HTTP/1.1 2"), "{alpn:?}: {answered}");
        }
        forger.is_well().await;
    }
    forger.stop().await;
}
