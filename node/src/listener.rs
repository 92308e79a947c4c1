//! The managers' port: one TCP port with TLS for joining and for agents (design §6).

mod cut;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Method, Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use swarm_docker_api::{ApiError, CONTENT_TYPE_JSON};
use swarm_manager::{Manager, api::Caller};
use swarm_model::{Author, NodeId, NodeName, Principal};
use swarm_wire::{
    Accepted, Alpn, BoxedStream, IdentityHolder, PeerIdentity, TlsError,
    join::{CA_PATH, CERTIFICATE_PATH},
    tls,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::cut::Severable;
use crate::{
    api::authorise,
    audit::{
        Audit,
        record::{self, Record},
    },
    forward,
    node::Node,
    places::{Entry, Full, Limits, Places, source},
    reminder::{PERIOD, Reminder},
};

/// Silence after which the kernel asks whether the peer's machine is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Time without any answer after which the connection ends: with the idle time, three heartbeats of 2 s.
const UNANSWERED_MAX_MS: u32 = 4_000;

/// Handshakes at once of one address. Each may last [`tls::HANDSHAKE_TIMEOUT`] when the peer is silent, and some
/// milliseconds when it is a node: sixteen let hundreds of nodes behind one address in every second.
const HANDSHAKES_PER_ADDR_MAX: usize = 16;
/// Handshakes at once of all addresses: sixteen of them with all that they may have. Each costs a file descriptor and
/// some ten kilobytes.
const HANDSHAKES_MAX: usize = 16 * HANDSHAKES_PER_ADDR_MAX;
/// Connections of one address that wait for their handshake: a fleet behind one address that comes back at once.
const WAITING_PER_ADDR_MAX: usize = 128;
/// Connections of all addresses that wait; more are closed. With the handshakes they stay well below the thousand file
/// descriptors that a process has at least.
const WAITING_MAX: usize = 256;
/// Longest wait for a handshake: the peer gives up after that time.
const WAIT_MAX: Duration = tls::HANDSHAKE_TIMEOUT;

/// Connections at once of peers without a certificate, which fetch the root CA or a certificate.
const JOINS_MAX: usize = 128;
/// Such connections at once of one address: each takes a moment, unless the peer is silent.
const JOINS_PER_ADDR_MAX: usize = 16;
/// Such connections that wait: they hold file descriptors as those before the handshake do.
const JOINS_WAITING_MAX: usize = 64;
/// Such connections of one address that wait.
const JOINS_WAITING_PER_ADDR_MAX: usize = 32;
/// Connections at once of nodes of this cluster that renew their certificate; strangers have no part in them.
const RENEWALS_MAX: usize = 128;
/// Such connections at once of one node: one, and one that it gave up and we have not noticed.
const RENEWALS_PER_NODE_MAX: usize = 2;

const HANDSHAKES: Limits = Limits {
    total_max: HANDSHAKES_MAX,
    per_key_max: HANDSHAKES_PER_ADDR_MAX,
    waiting_max: WAITING_MAX,
    waiting_per_key_max: WAITING_PER_ADDR_MAX,
    wait_max: WAIT_MAX,
};
const JOINS: Limits = Limits {
    total_max: JOINS_MAX,
    per_key_max: JOINS_PER_ADDR_MAX,
    waiting_max: JOINS_WAITING_MAX,
    waiting_per_key_max: JOINS_WAITING_PER_ADDR_MAX,
    wait_max: WAIT_MAX,
};
/// Nodes try again by themselves, so that few need to wait.
const RENEWALS: Limits = Limits {
    total_max: RENEWALS_MAX,
    per_key_max: RENEWALS_PER_NODE_MAX,
    waiting_max: JOINS_WAITING_MAX,
    waiting_per_key_max: RENEWALS_PER_NODE_MAX,
    wait_max: WAIT_MAX,
};
/// Longest life of such a connection: two small requests.
const JOIN_TIME_MAX: Duration = Duration::from_secs(30);
/// Pause after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// At most one line about refused connections of a kind in this time: anybody can make more of them than a disk can hold.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(10);

/// What serves the port.
pub(crate) struct Listener {
    identity: Arc<IdentityHolder>,
    manager: Manager,
    join_routes: Router,
    audit: Audit,
    /// This node, as the audit log calls it.
    own: record::Node,
    handshakes: Places<IpAddr>,
    joins: Places<IpAddr>,
    renewals: Places<NodeId>,
    complaints: std::sync::Mutex<BTreeMap<Offence, Reminder>>,
}

/// Why a connection is refused. Each kind has its line in the log, so that many of one do not hide another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Offence {
    /// There are too many.
    Flood,
    /// It does not come as far as a certificate.
    Handshake,
    /// Its certificate does not count here, or is missing.
    Certificate,
    /// A node of this cluster wants what it may not have.
    Node,
}

impl Offence {
    fn of(error: &TlsError) -> Self {
        match error {
            TlsError::OtherCluster { .. } | TlsError::Expired | TlsError::Peer(_) => Self::Certificate,
            _ => Self::Handshake,
        }
    }
}

impl Listener {
    /// Serves this manager.
    pub(crate) fn new(identity: Arc<IdentityHolder>, manager: Manager, node: &Node) -> Self {
        let own = record::Node { id: Some(identity.identity().node()), name: node.config().hostname.clone() };
        Self {
            audit: node.audit().clone(),
            own,
            identity,
            join_routes: manager.join_routes(),
            manager,
            handshakes: Places::new(HANDSHAKES),
            joins: Places::new(JOINS),
            renewals: Places::new(RENEWALS),
            complaints: std::sync::Mutex::default(),
        }
    }

    /// Accepts connections until `stop`, which also ends those that are open.
    pub(crate) async fn serve(self, tcp: TcpListener, stop: CancellationToken) {
        let this = Arc::new(self);
        let connections = TaskTracker::new();
        let mut reminder = Reminder::new(PERIOD);
        loop {
            let Some(accepted) = stop.run_until_cancelled(tcp.accept()).await else { break };
            let (stream, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    if let Some(others) = reminder.happened() {
                        tracing::warn!(others, "cannot accept a connection from a node: {e}");
                    }
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let entry = match this.handshakes.enter(source(addr.ip())) {
                Ok(entry) => entry,
                Err(full) => {
                    this.complain(Offence::Flood, addr, &full);
                    continue;
                }
            };
            let (this, stop) = (this.clone(), stop.clone());
            connections.spawn(async move {
                stop.run_until_cancelled(async {
                    let place = match entry.turn().await {
                        Ok(place) => place,
                        Err(full) => return this.complain(Offence::Flood, addr, &full),
                    };
                    let accepted = this.shake_hands(stream).await;
                    drop(place);
                    match accepted {
                        Ok(accepted) => this.dispatch(accepted, addr).await,
                        Err(e) => this.complain(Offence::of(&e), addr, &e),
                    }
                })
                .await;
            });
        }
        connections.close();
        connections.wait().await;
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<Accepted, TlsError> {
        // Small messages go out at once; a socket that does not know the option works all the same.
        let _ = stream.set_nodelay(true);
        if let Err(e) = notice_lost_peer(&stream) {
            tracing::debug!("a connection has no keep-alive: {e}");
        }
        tls::accept(stream, &self.identity).await
    }

    async fn dispatch(self: &Arc<Self>, accepted: Accepted, addr: SocketAddr) {
        // Who is removed or demoted loses what is open as well.
        let watched = |peer: &PeerIdentity, stream| {
            let (manager, peer, alpn) = (self.manager.clone(), peer.clone(), accepted.alpn);
            let expelled = async move {
                let reason = manager.expelled(&peer, alpn).await;
                tracing::info!(%addr, node = %peer.node, "a connection is closed: {reason}");
            };
            Box::new(Severable::new(stream, expelled)) as BoxedStream
        };
        match (accepted.alpn, accepted.peer) {
            (Alpn::H2 | Alpn::Http1, None) => match enter(&self.joins, source(addr.ip())).await {
                Ok(_place) => self.serve_join(accepted.stream, None, addr).await,
                Err(full) => self.complain(Offence::Flood, addr, &full),
            },
            (Alpn::H2 | Alpn::Http1, Some(peer)) => match enter(&self.renewals, peer.node).await {
                Ok(_place) => self.serve_join(accepted.stream, Some(peer), addr).await,
                Err(full) => self.complain(Offence::Flood, addr, &full),
            },
            (Alpn::Agent, Some(peer)) => {
                let stream = watched(&peer, accepted.stream);
                self.manager.serve_agent(peer, addr, stream).await;
            }
            (alpn, None) => {
                self.complain(Offence::Certificate, addr, &format!("{} without a certificate", alpn.as_str()));
            }
            (Alpn::Api, Some(peer)) => match self.manager.admit(&peer) {
                Ok(()) => {
                    let from = self.name(peer.node);
                    let stream = watched(&peer, accepted.stream);
                    forward::serve(self.manager.routes(), stream, addr, from, authorise::allow_all).await;
                }
                Err(reason) => self.complain(Offence::Node, addr, &format!("{}: {reason}", Alpn::Api.as_str())),
            },
            // The handshake at this port does not agree to that protocol.
            (Alpn::Data, Some(peer)) => {
                let problem = format!("{} of node {}: the data port takes it", Alpn::Data.as_str(), peer.node);
                self.complain(Offence::Node, addr, &problem);
            }
            (Alpn::Raft, Some(peer)) => {
                let node = peer.node;
                // Who has no business here from the start is told so.
                let stream = match self.manager.admit(&peer) {
                    Ok(()) => watched(&peer, accepted.stream),
                    Err(_) => accepted.stream,
                };
                if let Err(e) = self.manager.serve_manager(peer, addr, stream).await {
                    self.complain(Offence::Node, addr, &format!("{} of node {node}: {e}", Alpn::Raft.as_str()));
                }
            }
        }
    }

    async fn serve_join(self: &Arc<Self>, stream: BoxedStream, peer: Option<PeerIdentity>, addr: SocketAddr) {
        let service = service_fn(|request| self.clone().join(peer.clone(), addr, request));
        let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new());
        let served = timeout(JOIN_TIME_MAX, server.serve_connection(TokioIo::new(stream), service)).await;
        if let Ok(Err(e)) = served {
            tracing::debug!(%addr, "a connection to join ended: {e}");
        }
    }

    /// Answers what anybody may ask on this port; nothing else is here, with a certificate or without one.
    async fn join(
        self: Arc<Self>,
        peer: Option<PeerIdentity>,
        addr: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, std::convert::Infallible> {
        let path = request.uri().path().to_owned();
        let issues = (request.method(), &*path) == (&Method::POST, CERTIFICATE_PATH);
        if !issues && (request.method(), &*path) != (&Method::GET, CA_PATH) {
            return Ok(elsewhere());
        }
        let mut request = request.map(Body::new);
        let principal = match &peer {
            Some(peer) => Principal::Node(self.name(peer.node)),
            None => Principal::from_parts("token", "join", ""),
        };
        let caller = Caller::new(Arc::new(Author::of(principal)));
        let (audit, own) = (self.audit.clone(), self.own.clone());
        let record =
            issues.then(|| Record::begin(audit, caller.clone(), own, &addr.to_string(), &request, &path).if_ended());
        request.extensions_mut().insert(caller);
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let Ok(response) = self.join_routes.clone().oneshot(request).await;
        Ok(match record {
            Some(record) if response.status().is_success() => record.end(response, None).await,
            _ => response,
        })
    }

    /// The name of a node.
    fn name(&self, node: NodeId) -> NodeName {
        NodeName::new(node, self.manager.state().node(node).map_or("", |node| node.hostname()))
    }

    /// One log line for many refused connections of a kind.
    fn complain(&self, offence: Offence, addr: SocketAddr, problem: &dyn std::fmt::Display) {
        let mut complaints = self.complaints.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let reminder = complaints.entry(offence).or_insert_with(|| Reminder::new(COMPLAINT_PERIOD));
        if let Some(others) = reminder.happened() {
            tracing::warn!(%addr, others, "connection refused: {problem}");
        }
    }
}

async fn enter<K: Ord + Clone>(places: &Places<K>, key: K) -> Result<Entry<K>, Full> {
    places.enter(key)?.turn().await
}

/// Lets the kernel end a connection whose machine no longer answers within the time of three heartbeats; the dispatcher
/// takes a connection that stands for a machine that lives.
fn notice_lost_peer(stream: &TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(stream, UNANSWERED_MAX_MS)
}

fn elsewhere() -> Response<Body> {
    let error = ApiError::not_found("on this port nodes join the swarm; the API is on swarmd's Unix socket");
    let mut response = Response::new(Body::from(error.body()));
    *response.status_mut() = hyper::StatusCode::NOT_FOUND;
    let json = hyper::header::HeaderValue::from_static(CONTENT_TYPE_JSON);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod attack;
#[cfg(test)]
mod tests;
