//! Questions that the networks of a container do not answer, asked of other resolvers from the host's namespace.

mod host;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use hickory_proto::{ProtoError, op::ResponseCode};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::message::{BadReply, Query, Reply, framed};
use host::HostResolvers;

/// Resolvers that are asked one after the other.
const SERVERS_MAX: usize = 3;
/// Time for each of them.
const SERVER_WAIT: Duration = Duration::from_secs(2);
/// Time for all of them: a container's C library asks again after five seconds.
const ALL_WAIT: Duration = Duration::from_secs(5);
/// Largest UDP answer that is read, in bytes. A smaller one is asked for.
const UDP_BYTES_MAX: usize = 4096;

/// The resolvers of the host.
#[derive(Clone, Debug)]
pub struct UpstreamOptions {
    /// The file that names the resolvers of the host.
    pub resolv_conf: PathBuf,
    /// The file that counts where the first one names nothing but the stub of systemd-resolved.
    pub resolved_conf: PathBuf,
    /// The UDP and TCP port of all resolvers that questions are forwarded to.
    pub port: u16,
}

impl Default for UpstreamOptions {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            resolved_conf: "/run/systemd/resolve/resolv.conf".into(),
            port: 53,
        }
    }
}

/// Asks other resolvers.
#[derive(Debug)]
pub(crate) struct Upstream {
    host: HostResolvers,
    port: u16,
}

/// A resolver that gave no answer.
#[derive(Debug, Error)]
enum NoReply {
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("the query cannot be written: {0}")]
    Query(#[from] ProtoError),
    #[error("the message on TCP is no answer: {0}")]
    Bad(#[from] BadReply),
}

impl Upstream {
    pub(crate) fn new(options: UpstreamOptions) -> Self {
        Self { host: HostResolvers::new(options.resolv_conf, options.resolved_conf), port: options.port }
    }

    /// Asks the resolvers of a container, or those of the host when the container has none, until one answers.
    pub(crate) async fn ask(&self, query: &Query, nameservers: &[IpAddr]) -> Option<Reply> {
        let servers = match nameservers {
            [] => self.host.addrs(),
            own => own.iter().copied().take(SERVERS_MAX).collect(),
        };
        // The answer of a resolver that could not do it counts when no other resolver can.
        let mut unable = None;
        let all = async {
            for server in servers.into_iter().take(SERVERS_MAX) {
                let server = SocketAddr::new(server, self.port);
                match timeout(SERVER_WAIT, ask_server(server, query)).await {
                    Ok(Ok(reply)) if is_unable(reply.code) => unable = Some(reply),
                    Ok(Ok(reply)) => return Some(reply),
                    Ok(Err(e)) => tracing::debug!("the resolver {server} did not answer: {e}"),
                    Err(_) => tracing::debug!("the resolver {server} did not answer within {SERVER_WAIT:?}"),
                }
            }
            None
        };
        timeout(ALL_WAIT, all).await.ok().flatten().or(unable)
    }
}

/// Whether another resolver may do better.
fn is_unable(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr)
}

/// Asks one resolver: on UDP, and on TCP for what UDP cannot carry.
async fn ask_server(server: SocketAddr, query: &Query) -> Result<Reply, NoReply> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A socket for each query: its port is by chance, and the kernel takes packets of the resolver alone.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = rand::random();
    socket.send(&query.forwarded(id)?).await?;
    let mut bytes = vec![0; UDP_BYTES_MAX];
    let reply = loop {
        let length = socket.recv(&mut bytes).await?;
        let message = bytes.get(..length).unwrap_or_default().to_vec();
        match Reply::read(message, query, id) {
            Ok(reply) => break reply,
            // The message may be forged. The right answer may still come.
            Err(e) => tracing::debug!("a message of {server} is no answer: {e}"),
        }
    };
    if !reply.is_truncated {
        return Ok(reply);
    }
    match ask_on_tcp(server, query).await {
        Ok(whole) => Ok(whole),
        Err(e) => {
            tracing::debug!("the resolver {server} gave a part of the answer on UDP and none on TCP: {e}");
            Ok(reply)
        }
    }
}

async fn ask_on_tcp(server: SocketAddr, query: &Query) -> Result<Reply, NoReply> {
    let mut stream = TcpStream::connect(server).await?;
    let id = rand::random();
    let question = framed(&query.forwarded(id)?).ok_or(io::ErrorKind::InvalidInput).map_err(io::Error::from)?;
    stream.write_all(&question).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(Reply::read(bytes, query, id)?)
}
