//! The service at a pair of sockets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use rustix::io::Errno;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Audience, Shared, TABLE_WAIT, TCP_IDLE};
use crate::{
    message::{QUERY_BYTES_MAX, Query, Received, Transport, framed, read},
    share::Shares,
    table::Answer,
};

/// Pause before the next connection is taken when the process has no descriptor left for it.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);

/// Serves a pair of sockets.
pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) audience: Audience,
    pub(super) shares: Shares,
    pub(super) end: CancellationToken,
}

/// The way to the answer of a message.
enum Step {
    Answer(Vec<u8>),
    /// There is nobody to answer.
    Nothing,
    /// The answer takes time.
    Wait(Box<Query>),
}

/// The table's word on a query.
enum Word {
    Answer(Vec<u8>),
    Forward(Vec<IpAddr>),
    /// The table may answer later. Until then, the query would fail with this code.
    Later(ResponseCode),
}

impl Server {
    /// Answers on UDP until a socket fails or the service ends.
    pub(super) async fn serve_udp(self: Arc<Self>, udp: UdpSocket) {
        let udp = Arc::new(udp);
        let end = self.end.clone();
        if let Some(Err(e)) = end.run_until_cancelled(self.answer_datagrams(&udp)).await {
            self.fail("UDP", &e);
        }
    }

    /// Answers on TCP until a socket fails or the service ends.
    pub(super) async fn serve_tcp(self: Arc<Self>, tcp: TcpListener) {
        let end = self.end.clone();
        if let Some(Err(e)) = end.run_until_cancelled(self.accept(&tcp)).await {
            self.fail("TCP", &e);
        }
    }

    /// Ends the service: one socket is no use without the other.
    fn fail(&self, socket: &str, error: &io::Error) {
        tracing::info!("the {socket} socket for the names of {:?} failed, its service ends: {error}", self.audience);
        self.end.cancel();
    }

    async fn answer_datagrams(self: &Arc<Self>, udp: &Arc<UdpSocket>) -> io::Result<()> {
        let mut bytes = vec![0; QUERY_BYTES_MAX + 1];
        loop {
            let (length, peer) = udp.recv_from(&mut bytes).await?;
            let message = bytes.get(..length).unwrap_or_default();
            match self.first_step(peer.ip(), message, Transport::Udp) {
                Step::Nothing => {}
                Step::Answer(answer) => self.sent(udp.send_to(&answer, peer).await),
                Step::Wait(query) => {
                    let Some(waiting) = self.shares.wait(self.container_key(peer.ip())) else {
                        let answer = self.overloaded(&query);
                        self.sent(udp.send_to(&answer, peer).await);
                        continue;
                    };
                    let (server, udp) = (Arc::clone(self), Arc::clone(udp));
                    let answer = async move {
                        let answer = server.wait(peer.ip(), &query).await;
                        server.sent(udp.send_to(&answer, peer).await);
                        drop(waiting);
                    };
                    tokio::spawn(self.end.clone().run_until_cancelled_owned(answer));
                }
            }
        }
    }

    /// A client that is gone is no matter of the socket.
    fn sent(&self, sent: io::Result<usize>) {
        if let Err(e) = sent {
            self.shared.counts.dropped.add();
            tracing::debug!("cannot send an answer to {:?}: {e}", self.audience);
        }
    }

    async fn accept(self: &Arc<Self>, tcp: &TcpListener) -> io::Result<()> {
        loop {
            let (stream, peer) = match tcp.accept().await {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(e) if is_out_of_descriptors(&e) => {
                    self.shared.counts.overloaded.add();
                    sleep(DESCRIPTOR_PAUSE).await;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let Some(share) = self.shares.connect(self.container_key(peer.ip())) else {
                self.shared.counts.overloaded.add();
                continue;
            };
            let server = Arc::clone(self);
            let connection = async move {
                if let Err(e) = server.answer_stream(stream, peer.ip()).await {
                    tracing::debug!("the connection of {peer} ends: {e}");
                }
                drop(share);
            };
            tokio::spawn(self.end.clone().run_until_cancelled_owned(connection));
        }
    }

    /// Answers the queries of a connection one after the other, until the client closes it or is idle for too long.
    async fn answer_stream(&self, mut stream: TcpStream, peer: IpAddr) -> io::Result<()> {
        loop {
            let length = usize::from(timeout(TCP_IDLE, stream.read_u16()).await??);
            if length > QUERY_BYTES_MAX {
                self.shared.counts.queries.add();
                self.shared.counts.dropped.add();
                return Ok(());
            }
            let mut message = vec![0; length];
            timeout(TCP_IDLE, stream.read_exact(&mut message)).await??;
            let answer = match self.first_step(peer, &message, Transport::Tcp) {
                Step::Nothing => return Ok(()),
                Step::Answer(answer) => answer,
                Step::Wait(query) => match self.shares.wait(self.container_key(peer)) {
                    Some(_waiting) => self.wait(peer, &query).await,
                    None => self.overloaded(&query),
                },
            };
            let Some(answer) = framed(&answer) else { return Ok(()) };
            timeout(TCP_IDLE, stream.write_all(&answer)).await??;
        }
    }

    /// The address that a container's share goes by. A container has many addresses in its own namespace, and one share.
    fn container_key(&self, peer: IpAddr) -> IpAddr {
        match self.audience {
            Audience::Container(_) => Ipv4Addr::LOCALHOST.into(),
            Audience::Gateway(_) => peer,
        }
    }

    /// The answer to a message, if it takes no time.
    fn first_step(&self, peer: IpAddr, message: &[u8], transport: Transport) -> Step {
        let counts = &self.shared.counts;
        counts.queries.add();
        match read(message, transport) {
            Received::Nothing => {
                counts.dropped.add();
                Step::Nothing
            }
            Received::Answered(answer) => {
                counts.refused.add();
                Step::Answer(answer)
            }
            Received::Query(query) => match self.ask_table(peer, &query) {
                Word::Answer(answer) => Step::Answer(answer),
                Word::Forward(_) | Word::Later(_) => Step::Wait(query),
            },
        }
    }

    /// The answer to a query, from the table when it is complete, or from another resolver.
    async fn wait(&self, peer: IpAddr, query: &Query) -> Vec<u8> {
        let mut published = self.shared.published.subscribe();
        let mut failure = ResponseCode::ServFail;
        let table = async {
            loop {
                match self.ask_table(peer, query) {
                    Word::Later(code) => failure = code,
                    word => return Some(word),
                }
                // The sender is gone when the service is to end.
                published.changed().await.ok()?;
            }
        };
        let counts = &self.shared.counts;
        match timeout(TABLE_WAIT, table).await.ok().flatten() {
            Some(Word::Answer(answer)) => answer,
            Some(Word::Forward(nameservers)) => {
                counts.forwarded.add();
                match self.shared.upstream.ask(query, &nameservers).await {
                    Some(reply) => query.pass_on(reply),
                    None => {
                        counts.failed.add();
                        query.error(ResponseCode::ServFail)
                    }
                }
            }
            Some(Word::Later(_)) | None => {
                if failure == ResponseCode::Refused {
                    counts.refused.add()
                } else {
                    counts.failed.add()
                }
                query.error(failure)
            }
        }
    }

    fn overloaded(&self, query: &Query) -> Vec<u8> {
        self.shared.counts.overloaded.add();
        query.error(ResponseCode::ServFail)
    }

    fn ask_table(&self, peer: IpAddr, query: &Query) -> Word {
        let table = self.shared.table.load();
        let container = match &self.audience {
            Audience::Container(id) => Some(id.as_str()),
            Audience::Gateway(network) => table.container_at(*network, peer.to_canonical()),
        };
        let answer = container
            .map_or(Answer::NoContainer, |container| table.answer(container, query.question(), &mut rand::rng()));
        let answer = match answer {
            Answer::NoContainer => return Word::Later(ResponseCode::Refused),
            Answer::Unready => return Word::Later(ResponseCode::ServFail),
            Answer::Forward(nameservers) => return Word::Forward(nameservers),
            Answer::Addrs { addrs, ttl_s } => query.addrs(&addrs, ttl_s),
            Answer::Name { name, ttl_s } => query.name(&name, ttl_s),
            Answer::Missing => query.missing(),
        };
        self.shared.counts.answered.add();
        Word::Answer(answer)
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
