//! Mutual TLS between the data planes of nodes, on the data port: only `swarm-data/1`, only with a node's certificate.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    CommonState,
    pki_types::{CertificateDer, ServerName},
};
use swarm_model::{NodeId, Timestamp};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{Alpn, HANDSHAKE_TIMEOUT, TlsError, check_peer, config};
use crate::{NodeIdentity, PeerIdentity, clock, identity::certificates};

/// Longest wait for a TCP connection to another data plane: a client waits meanwhile, and another endpoint may answer.
pub const DATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest TLS handshake with another data plane: a processor that is busy for a second is no reason to give up.
pub const DATA_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes asked of the socket at once: four of TLS's largest records. With less, system calls cost more than copying.
const BURST_BYTES: usize = 64 << 10;
/// Bytes that wait encrypted in a stream, at most: what one system call takes at a time.
const SEALED_BYTES_MAX: usize = 128 << 10;
/// Nanoseconds in a second.
const NS_PER_S: i64 = 1_000_000_000;

/// The identity of this node, ready for links.
pub struct DataTls {
    identity: NodeIdentity,
    own: ShownChain,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// A certificate chain that was shown in a handshake, to be checked again when this node trusts other roots.
#[derive(Clone, Debug)]
pub struct ShownChain {
    certificates: Arc<[CertificateDer<'static>]>,
    expires_at: Timestamp,
}

/// A connection between two data planes.
pub struct DataConnection {
    /// The other node.
    pub peer: PeerIdentity,
    /// The certificates that it showed.
    pub chain: ShownChain,
    /// The bytes.
    pub stream: DataStream,
}

impl std::fmt::Debug for DataTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DataTls").field(self.identity.as_peer()).finish()
    }
}

impl DataTls {
    /// Prepares an identity.
    ///
    /// # Errors
    /// [`TlsError::Identity`] when TLS has no use for it.
    pub fn new(identity: NodeIdentity) -> Result<Self, TlsError> {
        let chain = certificates(identity.cert_pem()).map_err(|e| TlsError::Identity(e.to_string()))?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config::data_server(&identity)?)),
            connector: TlsConnector::from(Arc::new(config::data_client(&identity)?)),
            own: ShownChain { certificates: chain.into(), expires_at: identity.as_peer().cert_expires_at },
            identity,
        })
    }

    /// The identity.
    pub const fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// The certificates that this node shows.
    pub const fn own_chain(&self) -> &ShownChain {
        &self.own
    }

    /// Whether this node would still trust who shows a chain. Its expiry does not count: a link stands on the certificate
    /// that was valid when the link was made.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, chain: &ShownChain) -> Result<(), TlsError> {
        let at = clock::now().min(chain.expires_at.plus_ns(-NS_PER_S));
        config::check_certificates(self.identity.root_pem(), &chain.certificates, at)
    }

    /// Takes a link from a node: the TLS handshake, at most [`HANDSHAKE_TIMEOUT`], and the check of its certificate.
    ///
    /// # Errors
    /// [`TlsError`]: no TLS, too slow, no certificate, one of another cluster, an expired one, another protocol.
    pub async fn accept(&self, tcp: TcpStream) -> Result<DataConnection, TlsError> {
        tcp.set_nodelay(true).map_err(|e| TlsError::Handshake(e.to_string()))?;
        let stream = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(Burst::new(tcp)))
            .await
            .map_err(|_| TlsError::Slow)?
            .map_err(TlsError::from_client)?;
        let (peer, chain) = self.examine(stream.get_ref().1, "the peer")?;
        Ok(DataConnection { peer, chain, stream: DataStream::new(TlsStream::Server(stream)) })
    }

    /// Connects to the data plane of a node.
    ///
    /// # Errors
    /// [`TlsError`]: nobody listens, too slow, another node, one of another cluster, an expired certificate, another
    /// protocol.
    pub async fn connect(&self, addr: SocketAddr, node: NodeId) -> Result<DataConnection, TlsError> {
        let failed = |source| TlsError::Connect { addr: addr.to_string(), source };
        let late = |problem| failed(io::Error::new(io::ErrorKind::TimedOut, problem));
        let tcp = timeout(DATA_CONNECT_TIMEOUT, TcpStream::connect(addr))
            .await
            .map_err(|_| late("no answer in time"))?
            .map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let name = ServerName::try_from(node.to_string()).map_err(|e| TlsError::Identity(e.to_string()))?;
        let stream = timeout(DATA_HANDSHAKE_TIMEOUT, self.connector.connect(name, Burst::new(tcp)))
            .await
            .map_err(|_| late("it does not answer the TLS handshake"))?
            .map_err(|e| match TlsError::from_server(&addr.to_string(), e) {
                TlsError::NotAManager { addr } => TlsError::OtherNode { addr, wanted: node },
                other => other,
            })?;
        let (peer, chain) = self.examine(stream.get_ref().1, &addr.to_string())?;
        if peer.node != node {
            return Err(TlsError::OtherNode { addr: addr.to_string(), wanted: node });
        }
        Ok(DataConnection { peer, chain, stream: DataStream::new(TlsStream::Client(stream)) })
    }

    /// Whose a connection is that the handshake has verified.
    fn examine(&self, connection: &CommonState, addr: &str) -> Result<(PeerIdentity, ShownChain), TlsError> {
        if connection.alpn_protocol() != Some(Alpn::Data.as_str().as_bytes()) {
            return Err(TlsError::Protocol { addr: addr.to_owned(), wanted: Alpn::Data });
        }
        let shown = connection.peer_certificates().unwrap_or_default();
        let peer = check_peer(shown.first().ok_or(TlsError::NoCertificate)?, &self.identity)?;
        let certificates = shown.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let chain = ShownChain { certificates, expires_at: peer.cert_expires_at };
        Ok((peer, chain))
    }
}

/// The bytes of a link. Reading lends the decrypted bytes, so that they are copied once and to where they belong. While
/// nothing moves it holds no buffers for bulk data.
pub struct DataStream(TlsStream<Burst>);

impl DataStream {
    fn new(mut stream: TlsStream<Burst>) -> Self {
        match &mut stream {
            TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(Some(SEALED_BYTES_MAX)),
            TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(Some(SEALED_BYTES_MAX)),
        }
        Self(stream)
    }

    /// The address of the peer.
    ///
    /// # Errors
    /// The socket's: the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().0.tcp.peer_addr()
    }
}

impl AsyncRead for DataStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncBufRead for DataStream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().0).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.0).consume(amount);
    }
}

impl AsyncWrite for DataStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Reads a socket in large pieces, because rustls asks for small ones. The buffer lives only while bytes come.
struct Burst {
    tcp: TcpStream,
    bytes: Vec<u8>,
    /// How many of them rustls has.
    taken: usize,
}

impl Burst {
    const fn new(tcp: TcpStream) -> Self {
        Self { tcp, bytes: Vec::new(), taken: 0 }
    }
}

impl AsyncRead for Burst {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken == this.bytes.len() {
            this.bytes.clear();
            this.taken = 0;
            this.bytes.reserve_exact(BURST_BYTES);
            match pin!(this.tcp.read_buf(&mut this.bytes)).poll(cx) {
                Poll::Ready(read) => drop(read?),
                Poll::Pending => {
                    this.bytes = Vec::new();
                    return Poll::Pending;
                }
            }
        }
        let waiting = &this.bytes[this.taken..];
        let amount = waiting.len().min(out.remaining());
        out.put_slice(&waiting[..amount]);
        this.taken += amount;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Burst {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
