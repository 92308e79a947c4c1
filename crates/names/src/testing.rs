//! Helpers of tests: queries, other resolvers, and a clock that stands still.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::mpsc,
};

use hickory_proto::{
    op::{self, Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::{spawn_blocking, yield_now},
};

use crate::message::framed;

/// The id of queries of tests.
pub(crate) const ID: u16 = 4711;

pub(crate) fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn message(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(ID, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(op::Query::query(Name::from_ascii(name).expect("a name"), record_type));
    message
}

/// The addresses in an answer, in order.
pub(crate) fn addrs(answer: &Message) -> Vec<IpAddr> {
    let mut addrs: Vec<_> = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    addrs.sort();
    addrs
}

/// Keeps a paused clock where it is, until it is dropped; `tokio::time::advance` still moves the clock. So no machine is
/// too slow for a time-out.
pub(crate) struct StillClock(#[expect(dead_code, reason = "its drop ends the wait")] mpsc::Sender<()>);

impl StillClock {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        // The runtime does not move a paused clock while such a closure runs.
        spawn_blocking(move || receiver.recv());
        Self(sender)
    }
}

/// Waits until something is so.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        yield_now().await;
    }
}

/// Another resolver.
pub(crate) struct FakeServer {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl FakeServer {
    /// A resolver at each of the addresses, all on the same port.
    pub(crate) async fn at(addrs: &[&str]) -> (Vec<Self>, u16) {
        loop {
            let first = UdpSocket::bind((addrs[0], 0)).await.expect("loopback has free ports");
            let port = first.local_addr().expect("it is bound").port();
            drop(first);
            // The port may be taken on another address: then by chance another one is not.
            if let Ok(servers) = Self::on(addrs, port).await {
                return (servers, port);
            }
        }
    }

    async fn on(addrs: &[&str], port: u16) -> io::Result<Vec<Self>> {
        let mut servers = Vec::new();
        for addr in addrs {
            let udp = UdpSocket::bind((*addr, port)).await?;
            servers.push(Self { udp, tcp: TcpListener::bind((*addr, port)).await? });
        }
        Ok(servers)
    }

    /// The next query on UDP, and its sender.
    pub(crate) async fn query(&self) -> (Message, SocketAddr) {
        let mut bytes = [0; 4096];
        let (length, peer) = self.udp.recv_from(&mut bytes).await.expect("a question");
        (Message::from_vec(&bytes[..length]).expect("a question of the resolver can be read"), peer)
    }

    pub(crate) async fn send(&self, answer: &Message, peer: SocketAddr) {
        self.udp.send_to(&answer.to_vec().expect("an answer can be written"), peer).await.expect("the peer is there");
    }

    /// Answers the next query on UDP.
    pub(crate) async fn answer(&self, answer: impl FnOnce(Message) -> Message) {
        let (query, peer) = self.query().await;
        self.send(&answer(query), peer).await;
    }

    /// Answers the next query on TCP.
    pub(crate) async fn answer_on_tcp(&self, answer: impl FnOnce(Message) -> Message) {
        let (mut stream, _) = self.tcp.accept().await.expect("a connection");
        let mut bytes = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
        stream.read_exact(&mut bytes).await.expect("a question");
        let answer = answer(Message::from_vec(&bytes).expect("a question of the resolver can be read"))
            .to_vec()
            .expect("an answer can be written");
        stream.write_all(&framed(&answer).expect("it fits")).await.expect("the peer is there");
    }
}

/// An answer with one address for each of the numbers.
pub(crate) fn with_addrs(query: Message, last_bytes: impl IntoIterator<Item = u8>) -> Message {
    let mut answer = query.into_response();
    let name = answer.queries[0].name.clone();
    for last in last_bytes {
        answer.add_answer(Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, last))));
    }
    answer
}

/// An answer without records.
pub(crate) fn with_code(query: Message, code: ResponseCode) -> Message {
    let mut answer = query.into_response();
    answer.metadata.response_code = code;
    answer
}

pub(crate) fn truncated(query: Message) -> Message {
    let mut answer = query.into_response();
    answer.metadata.truncation = true;
    answer
}
