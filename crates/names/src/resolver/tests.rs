use std::net::{IpAddr, SocketAddr};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use swarm_model::{NodeId, ServiceId, TaskId};
use swarm_wire::networks::{NetworkEndpointRecord, NetworkEndpointState, NetworkRecord, NetworkServiceRecord};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::*;
use crate::{
    message::{QUERY_BYTES_MAX, framed},
    share::{CONTAINER_CONNECTIONS_MAX, CONTAINER_WAITING_MAX},
    table::{ContainerNames, ContainerNetwork, VirtualAddrs},
    testing::{FakeServer, ID, StillClock, addr, addrs, message, truncated, until, with_addrs},
};

const NETWORK: ObjectId = ObjectId(1);
const WEB: ServiceId = ServiceId(1);

fn task(task: u8, state: NetworkEndpointState) -> NetworkEndpointRecord {
    NetworkEndpointRecord {
        task: TaskId(task.into()),
        service: Some(WEB),
        node: NodeId(1),
        addrs: vec![IpAddr::from([10, 1, 0, task])],
        names: vec![],
        state,
    }
}

fn container(virtual_addrs: VirtualAddrs) -> ContainerNames {
    ContainerNames {
        container: "c".into(),
        // The address of the container at the gateway.
        networks: vec![ContainerNetwork { network: NETWORK, addrs: vec![addr("127.0.0.5")], names: vec!["me".into()] }],
        task: None,
        virtual_addrs,
        nameservers: vec![addr("127.0.0.1")],
    }
}

/// A network with `web` at a virtual address and its task 1, and a container that may ask.
fn table() -> NamesTable {
    let mut table = NamesTable::default();
    table.put_network(NetworkRecord {
        id: NETWORK,
        name: "front".into(),
        vni: 4097,
        subnets: vec![],
        mtu: None,
        internal: false,
        encrypted: false,
    });
    table.set_ready(NETWORK, true);
    table.put_service(
        NETWORK,
        NetworkServiceRecord { id: WEB, name: "web".into(), aliases: vec![], virtual_addrs: vec![addr("10.1.0.250")] },
    );
    table.put_endpoint(NETWORK, task(1, NetworkEndpointState::In));
    table.put_container(container(VirtualAddrs::Loaded));
    table
}

/// A resolver with a pair of sockets for one audience.
struct Fixture {
    resolver: Resolver,
    audience: Audience,
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl Fixture {
    fn new(audience: Audience, upstream_port: u16) -> Self {
        let resolver = Resolver::start(UpstreamOptions {
            resolv_conf: "/nowhere".into(),
            resolved_conf: "/nowhere".into(),
            port: upstream_port,
        });
        let udp = net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        resolver.put(audience.clone(), udp, tcp).unwrap();
        Self { resolver, audience, udp: udp_at, tcp: tcp_at }
    }

    fn of_container() -> Self {
        Self::new(Audience::Container("c".into()), 1)
    }

    async fn client(&self, from: &str) -> Client {
        let socket = UdpSocket::bind((from, 0)).await.unwrap();
        socket.connect(self.udp).await.unwrap();
        Client(socket)
    }
}

struct Client(UdpSocket);

impl Client {
    async fn send(&self, query: &Message) {
        self.0.send(&query.to_vec().unwrap()).await.unwrap();
    }

    async fn receive(&self) -> Message {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).await.unwrap();
        Message::from_vec(&bytes[..length]).unwrap()
    }

    async fn ask(&self, name: &str) -> Message {
        self.send(&message(name, RecordType::A)).await;
        self.receive().await
    }
}

async fn ask_on_tcp(stream: &mut TcpStream, query: &Message) -> Message {
    stream.write_all(&framed(&query.to_vec().unwrap()).unwrap()).await.unwrap();
    let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

/// Whether the other side has closed a connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0; 1]).await, Ok(1))
}

#[tokio::test(start_paused = true)]
async fn a_container_is_answered_on_udp_and_tcp_from_the_table_published_last() {
    let _clock = StillClock::new();
    let fixture = Fixture::of_container();
    let mut table = table();
    fixture.resolver.publish(table.clone());
    let client = fixture.client("127.0.0.1").await;
    let answer = client.ask("web.").await;
    assert_eq!((answer.id, addrs(&answer)), (ID, vec![addr("10.1.0.250")]));
    assert_eq!(addrs(&client.ask("tasks.web.").await), [addr("10.1.0.1")]);

    // A hundred tasks are too many for a small answer.
    for n in 1..=100 {
        table.put_endpoint(NETWORK, task(n, NetworkEndpointState::In));
    }
    fixture.resolver.publish(table.clone());
    assert!(client.ask("tasks.web.").await.truncation);
    let mut stream = TcpStream::connect(fixture.tcp).await.unwrap();
    let whole = ask_on_tcp(&mut stream, &message("tasks.web.", RecordType::A)).await;
    assert_eq!(whole.answers.len(), 100);

    for n in 1..=100 {
        table.put_endpoint(NETWORK, task(n, NetworkEndpointState::Draining));
    }
    fixture.resolver.publish(table);
    let none = ask_on_tcp(&mut stream, &message("tasks.web.", RecordType::A)).await;
    assert_eq!((none.response_code, none.answers.len()), (ResponseCode::NoError, 0));
    let counters = fixture.resolver.counters();
    assert_eq!(counters, Counters { queries: 5, answered: 5, ..Counters::default() });
}

#[tokio::test(start_paused = true)]
async fn containers_at_a_gateway_are_known_by_their_addresses() {
    let fixture = Fixture::new(Audience::Gateway(NETWORK), 1);
    fixture.resolver.publish(table());
    let known = fixture.client("127.0.0.5").await;
    assert_eq!(addrs(&known.ask("web.front.").await), [addr("10.1.0.250")]);

    let started = Instant::now();
    let stranger = fixture.client("127.0.0.6").await;
    assert_eq!(stranger.ask("web.").await.response_code, ResponseCode::Refused);
    assert_eq!(started.elapsed(), TABLE_WAIT);
    assert_eq!(fixture.resolver.counters().refused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_query_waits_until_the_table_is_complete() {
    let _clock = StillClock::new();
    let fixture = Fixture::new(Audience::Gateway(NETWORK), 1);
    let client = fixture.client("127.0.0.5").await;
    client.send(&message("web.", RecordType::A)).await;
    until(|| fixture.resolver.counters().queries == 1).await;

    // The container appears, then the records of its network are complete, then its virtual addresses are loaded.
    let mut table = table();
    table.put_container(container(VirtualAddrs::Loading));
    table.set_ready(NETWORK, false);
    fixture.resolver.publish(table.clone());
    table.set_ready(NETWORK, true);
    fixture.resolver.publish(table.clone());
    assert_eq!(addrs(&client.ask("tasks.web.").await), [addr("10.1.0.1")]);
    assert_eq!(fixture.resolver.counters().answered, 1);

    table.put_container(container(VirtualAddrs::Loaded));
    fixture.resolver.publish(table);
    assert_eq!(addrs(&client.receive().await), [addr("10.1.0.250")]);
}

#[tokio::test(start_paused = true)]
async fn a_query_fails_when_the_table_is_not_complete_in_time() {
    let fixture = Fixture::of_container();
    let mut table = table();
    table.set_ready(NETWORK, false);
    fixture.resolver.publish(table);
    let client = fixture.client("127.0.0.1").await;
    let started = Instant::now();
    assert_eq!(client.ask("web.").await.response_code, ResponseCode::ServFail);
    assert_eq!(started.elapsed(), TABLE_WAIT);
    assert_eq!(fixture.resolver.counters(), Counters { queries: 1, failed: 1, ..Counters::default() });
}

#[tokio::test(start_paused = true)]
async fn other_names_are_asked_of_other_resolvers() {
    let _clock = StillClock::new();
    let (servers, port) = FakeServer::at(&["127.0.0.1"]).await;
    let fixture = Fixture::new(Audience::Container("c".into()), port);
    fixture.resolver.publish(table());
    let client = fixture.client("127.0.0.1").await;
    client.send(&message("example.com.", RecordType::A)).await;
    servers[0].answer(truncated).await;
    servers[0].answer_on_tcp(|query| with_addrs(query, [1])).await;
    let answer = client.receive().await;
    assert_eq!((answer.id, addrs(&answer)), (ID, vec![addr("192.0.2.1")]));

    // Answers of others do not hold up those of the table.
    client.send(&message("example.org.", RecordType::A)).await;
    let (query, peer) = servers[0].query().await;
    assert_eq!(addrs(&client.ask("web.").await), [addr("10.1.0.250")]);
    servers[0].send(&with_addrs(query, [2]), peer).await;
    assert_eq!(addrs(&client.receive().await), [addr("192.0.2.2")]);
    let counters = Counters { queries: 3, answered: 1, forwarded: 2, ..Counters::default() };
    assert_eq!(fixture.resolver.counters(), counters);
}

#[tokio::test(start_paused = true)]
async fn a_container_of_internal_networks_asks_nobody_else() {
    let _clock = StillClock::new();
    let (servers, port) = FakeServer::at(&["127.0.0.1"]).await;
    let fixture = Fixture::new(Audience::Container("c".into()), port);
    let mut table = table();
    table.put_network(NetworkRecord {
        id: NETWORK,
        name: "front".into(),
        vni: 4097,
        subnets: vec![],
        mtu: None,
        internal: true,
        encrypted: false,
    });
    fixture.resolver.publish(table);
    let client = fixture.client("127.0.0.1").await;
    assert_eq!(client.ask("example.com.").await.response_code, ResponseCode::NXDomain);
    assert!(servers[0].udp.try_recv(&mut [0; 1]).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_container_has_a_share_of_queries_that_wait() {
    let _clock = StillClock::new();
    let fixture = Fixture::of_container();
    let mut table = table();
    table.put_container(container(VirtualAddrs::Loading));
    fixture.resolver.publish(table.clone());
    let client = fixture.client("127.0.0.1").await;
    let most = u16::try_from(CONTAINER_WAITING_MAX).unwrap();
    let mut query = message("web.", RecordType::A);
    for id in 0..=most {
        query.metadata.id = id;
        client.send(&query).await;
        until(|| fixture.resolver.counters().queries == u64::from(id) + 1).await;
    }
    let beyond = client.receive().await;
    assert_eq!((beyond.id, beyond.response_code), (most, ResponseCode::ServFail));
    assert_eq!(fixture.resolver.counters().overloaded, 1);

    table.put_container(container(VirtualAddrs::Loaded));
    fixture.resolver.publish(table.clone());
    let mut ids = Vec::new();
    for _ in 0..most {
        let answer = client.receive().await;
        assert_eq!(addrs(&answer), [addr("10.1.0.250")]);
        ids.push(answer.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..most).collect::<Vec<_>>());
    // Their share is free again.
    let mut loading = table.clone();
    loading.put_container(container(VirtualAddrs::Loading));
    fixture.resolver.publish(loading);
    let before = fixture.resolver.counters();
    client.send(&query).await;
    until(|| fixture.resolver.counters().queries > before.queries).await;
    fixture.resolver.publish(table);
    assert_eq!(addrs(&client.receive().await), [addr("10.1.0.250")]);
}

#[tokio::test(start_paused = true)]
async fn a_container_has_a_share_of_connections() {
    let _clock = StillClock::new();
    let fixture = Fixture::of_container();
    fixture.resolver.publish(table());
    let mut streams = Vec::new();
    for _ in 0..CONTAINER_CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(fixture.tcp).await.unwrap();
        ask_on_tcp(&mut stream, &message("web.", RecordType::A)).await;
        streams.push(stream);
    }
    assert!(is_closed(&mut TcpStream::connect(fixture.tcp).await.unwrap()).await);
    assert_eq!(fixture.resolver.counters().overloaded, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_idle_or_sends_too_much_is_closed() {
    let clock = StillClock::new();
    let fixture = Fixture::of_container();
    fixture.resolver.publish(table());
    let mut stream = TcpStream::connect(fixture.tcp).await.unwrap();
    ask_on_tcp(&mut stream, &message("web.", RecordType::A)).await;
    let started = Instant::now();
    // A part of a length is no query.
    stream.write_all(&[0]).await.unwrap();
    drop(clock);
    assert!(is_closed(&mut stream).await);
    assert_eq!(started.elapsed(), TCP_IDLE);

    let _clock = StillClock::new();
    let mut stream = TcpStream::connect(fixture.tcp).await.unwrap();
    stream.write_u16(u16::try_from(QUERY_BYTES_MAX).unwrap() + 1).await.unwrap();
    assert!(is_closed(&mut stream).await);
}

#[tokio::test(start_paused = true)]
async fn malformed_messages_do_not_end_the_service() {
    let _clock = StillClock::new();
    let fixture = Fixture::of_container();
    fixture.resolver.publish(table());
    let client = fixture.client("127.0.0.1").await;
    client.0.send(b"").await.unwrap();
    client.0.send(b"no query").await.unwrap();
    client.send(&message("web.", RecordType::A).into_response()).await;
    client.0.send(&message("web.", RecordType::A).to_vec().unwrap()[..14]).await.unwrap();
    assert_eq!(client.receive().await.response_code, ResponseCode::FormErr);
    client.0.send(&[0; QUERY_BYTES_MAX + 1]).await.unwrap();
    assert_eq!(client.receive().await.response_code, ResponseCode::FormErr);
    assert_eq!(addrs(&client.ask("web.").await), [addr("10.1.0.250")]);
    let counters = Counters { queries: 6, answered: 1, refused: 2, dropped: 3, ..Counters::default() };
    assert_eq!(fixture.resolver.counters(), counters);
}

#[tokio::test]
async fn the_sockets_of_an_audience_are_closed_at_its_end() {
    let fixture = Fixture::of_container();
    assert!(fixture.resolver.serves(&fixture.audience));
    fixture.resolver.remove(&fixture.audience);
    assert!(!fixture.resolver.serves(&fixture.audience));
    until(|| net::UdpSocket::bind(fixture.udp).is_ok() && net::TcpListener::bind(fixture.tcp).is_ok()).await;

    // The end of the resolver is the end of all.
    let fixture = Fixture::of_container();
    let (udp, tcp) = (fixture.udp, fixture.tcp);
    drop(fixture);
    until(|| net::UdpSocket::bind(udp).is_ok() && net::TcpListener::bind(tcp).is_ok()).await;
}

#[tokio::test]
async fn a_socket_that_fails_ends_the_service_of_its_audience() {
    let fixture = Fixture::of_container();
    let udp = net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp_at, broken) = (udp.local_addr().unwrap(), tcp.try_clone().unwrap());
    fixture.resolver.put(fixture.audience.clone(), udp, tcp).unwrap();
    assert!(fixture.resolver.serves(&fixture.audience));
    rustix::net::shutdown(&broken, rustix::net::Shutdown::Both).unwrap();
    until(|| !fixture.resolver.serves(&fixture.audience)).await;
    until(|| net::UdpSocket::bind(udp_at).is_ok()).await;
}
