//! Mutual TLS between nodes, on one port. ALPN says which protocol follows (design §6).
//!
//! A server asks for a client certificate and checks it against the root CA if it gets one; without one a peer can
//! join, and nothing else. A client insists on a manager of its own cluster, except where it has yet to learn which
//! root CA to trust ([`connect_bootstrap`]). rustls stays inside this module.

mod config;
mod data;
mod early;
mod error;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, CommonState, pki_types::ServerName};
use swarm_model::NodeRole;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) use self::config::check_chain;
pub use self::{
    data::{DATA_CONNECT_TIMEOUT, DATA_HANDSHAKE_TIMEOUT, DataConnection, DataStream, DataTls, ShownChain},
    error::TlsError,
};
use crate::{NodeIdentity, PeerIdentity, clock, peer::MANAGER_OU};

/// Longest TLS handshake: slow networks manage in one second; whoever takes longer holds a place for nothing.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a TCP connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A byte stream in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Any byte stream.
pub type BoxedStream = Box<dyn ByteStream>;

/// The protocol that a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2: the API, joining.
    H2,
    /// HTTP/1.1: the same.
    Http1,
    /// [`crate::agent`].
    Agent,
    /// Raft between managers.
    Raft,
    /// HTTP/1.1 between managers: requests that only the leader can answer.
    Api,
    /// Links between the data planes of nodes, on a port of their own ([`DataTls`]): no manager listens for it.
    Data,
}

impl Alpn {
    /// The protocols of a manager's port.
    const OF_MANAGERS: [Self; 5] = [Self::H2, Self::Http1, Self::Agent, Self::Raft, Self::Api];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Http1 => "http/1.1",
            Self::Agent => "swarm-agent/1",
            Self::Raft => "swarm-raft/1",
            Self::Api => "swarm-api/1",
            Self::Data => "swarm-data/1",
        }
    }

    /// What was agreed on; a peer that named nothing speaks HTTP/1.1.
    fn negotiated(connection: &CommonState) -> Self {
        let name = connection.alpn_protocol().unwrap_or_default();
        Self::OF_MANAGERS.into_iter().find(|a| a.as_str().as_bytes() == name).unwrap_or(Self::Http1)
    }
}

/// This node's identity, ready for connections. A renewed certificate replaces it while everything runs; connections
/// that are open keep the old one.
pub struct IdentityHolder {
    current: ArcSwap<Current>,
    replaced: AtomicU64,
}

struct Current {
    identity: Arc<NodeIdentity>,
    acceptor: TlsAcceptor,
    connector: Arc<ClientConfig>,
}

impl std::fmt::Debug for IdentityHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("IdentityHolder").field(self.identity().as_peer()).finish()
    }
}

impl IdentityHolder {
    /// Holds an identity.
    ///
    /// # Errors
    /// [`TlsError::Identity`] when TLS has no use for it.
    pub fn new(identity: NodeIdentity) -> Result<Self, TlsError> {
        Ok(Self { current: ArcSwap::from_pointee(Current::new(identity)?), replaced: AtomicU64::new(0) })
    }

    /// Replaces the identity, for connections made from now on.
    ///
    /// # Errors
    /// [`TlsError::Identity`] when TLS has no use for it; then the old one stays.
    pub fn replace(&self, identity: NodeIdentity) -> Result<(), TlsError> {
        self.current.store(Arc::new(Current::new(identity)?));
        self.replaced.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// How often the identity was replaced: a connection made before the last time shows an older certificate.
    pub fn times_replaced(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// The identity now.
    pub fn identity(&self) -> Arc<NodeIdentity> {
        Arc::clone(&self.current.load().identity)
    }
}

impl Current {
    fn new(identity: NodeIdentity) -> Result<Self, TlsError> {
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config::server(&identity)?)),
            connector: Arc::new(config::client(&identity)?),
            identity: Arc::new(identity),
        })
    }
}

/// A connection that a server accepted.
pub struct Accepted {
    /// Its protocol.
    pub alpn: Alpn,
    /// Whose it is; none for a peer without a certificate, which may join and nothing else.
    pub peer: Option<PeerIdentity>,
    /// Its bytes.
    pub stream: BoxedStream,
}

/// A connection that a client made to a manager.
pub struct Connected {
    /// The manager.
    pub peer: PeerIdentity,
    /// The bytes.
    pub stream: BoxedStream,
}

/// Takes a connection from a peer: the TLS handshake, at most [`HANDSHAKE_TIMEOUT`], and the check of its certificate.
///
/// # Errors
/// [`TlsError`]: no TLS, too slow, a certificate of another cluster, an expired one, no common protocol.
pub async fn accept<S>(stream: S, holder: &IdentityHolder) -> Result<Accepted, TlsError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let current = holder.current.load_full();
    let stream = timeout(HANDSHAKE_TIMEOUT, current.acceptor.accept(stream))
        .await
        .map_err(|_| TlsError::Slow)?
        .map_err(TlsError::from_client)?;
    let connection = stream.get_ref().1;
    let alpn = Alpn::negotiated(connection);
    let peer = match connection.peer_certificates().and_then(|chain| chain.first()) {
        None => None,
        Some(leaf) => Some(check_peer(leaf, &current.identity)?),
    };
    Ok(Accepted { alpn, peer, stream: Box::new(stream) })
}

/// Connects to a manager of this node's cluster, from the local address `source` if one is given.
///
/// # Errors
/// [`TlsError`]: nobody listens, too slow, no manager, one of another cluster, no common protocol.
pub async fn connect(
    addr: &str,
    source: Option<IpAddr>,
    holder: &IdentityHolder,
    alpn: Alpn,
) -> Result<Connected, TlsError> {
    let tcp = dial(addr, source).await?;
    handshake(tcp, addr, holder, alpn).await
}

/// [`connect`] over a stream that is open already.
///
/// # Errors
/// As [`connect`].
pub async fn handshake<S>(stream: S, addr: &str, holder: &IdentityHolder, alpn: Alpn) -> Result<Connected, TlsError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let current = holder.current.load_full();
    let mut config = (*current.connector).clone();
    config.alpn_protocols = vec![alpn.as_str().into()];
    let stream = client(stream, addr, config).await?;
    let connection = stream.get_ref().1;
    if connection.alpn_protocol() != Some(alpn.as_str().as_bytes()) {
        return Err(TlsError::Protocol { addr: addr.to_owned(), wanted: alpn });
    }
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| TlsError::Handshake("the server showed no certificate".to_owned()))?;
    let peer = check_peer(leaf, &current.identity)?;
    if peer.role != NodeRole::Manager {
        return Err(TlsError::NotAManager { addr: addr.to_owned() });
    }
    Ok(Connected { peer, stream: Box::new(stream) })
}

/// Whom a node trusts that has no identity yet.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// A manager under this root CA (PEM).
    Root(&'a str),
    /// Anybody: only to fetch the root CA, which the caller then compares with its join token.
    Unverified,
}

/// Connects to a manager without a certificate of one's own: to join, which is done by HTTP/1.1. Other protocols are
/// refused there.
///
/// # Errors
/// As [`connect`].
pub async fn connect_bootstrap(addr: &str, trust: Trust<'_>, alpn: Alpn) -> Result<BoxedStream, TlsError> {
    let mut config = config::bootstrap(trust)?;
    config.alpn_protocols = vec![alpn.as_str().into()];
    let tcp = dial(addr, None).await?;
    Ok(Box::new(client(tcp, addr, config).await?))
}

async fn dial(addr: &str, source: Option<IpAddr>) -> Result<TcpStream, TlsError> {
    let failed = |source| TlsError::Connect { addr: addr.to_owned(), source };
    let tcp = timeout(CONNECT_TIMEOUT, connect_tcp(addr, source))
        .await
        .map_err(|_| failed(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))?
        .map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    Ok(tcp)
}

/// Connects to the first address of the name that answers.
async fn connect_tcp(addr: &str, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(addr).await };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("it has no address that {source} can reach"));
    for target in lookup_host(addr).await?.filter(|target| target.is_ipv4() == source.is_ipv4()) {
        let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(source, 0)).map_err(|e| {
            io::Error::new(e.kind(), format!("this node's own address {source} cannot be used as it did before: {e}"))
        })?;
        match socket.connect(target).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

async fn client<S>(stream: S, addr: &str, config: ClientConfig) -> Result<tokio_rustls::client::TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let name = ServerName::try_from(MANAGER_OU).map_err(|e| TlsError::Identity(e.to_string()))?;
    timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(Arc::new(config)).connect(name, stream))
        .await
        .map_err(|_| TlsError::Connect {
            addr: addr.to_owned(),
            source: io::Error::new(io::ErrorKind::TimedOut, "it does not answer the TLS handshake"),
        })?
        .map_err(|e| TlsError::from_server(addr, e))
}

/// Reads the certificate of a peer that the handshake has verified. Resumed sessions bring the certificate of the
/// first handshake along, so that its expiry is looked at again.
fn check_peer(leaf: &[u8], own: &NodeIdentity) -> Result<PeerIdentity, TlsError> {
    let peer = PeerIdentity::from_der(leaf)?;
    if peer.cluster != own.cluster() {
        return Err(TlsError::OtherCluster { found: Some(peer.cluster) });
    }
    if peer.cert_expires_at <= clock::now() {
        return Err(TlsError::Expired);
    }
    Ok(peer)
}

#[cfg(test)]
mod tests;
