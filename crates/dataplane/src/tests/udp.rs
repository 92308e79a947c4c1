//! Datagrams.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use swarm_model::TaskId;
use swarm_wire::endpoints::EndpointState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};

use super::host::{Host, OTHER, OWN, PORT, Swarmd, TARGET, Table, Task, WEB, fresh_addr, serving_ports, udp};
use crate::{
    protocol::{FromData, IngressAddr, ToData},
    remote::OpenRequest,
    testing::{eventually, soon, wanted},
};

/// A task that answers each datagram with its name and the datagram.
struct Echo {
    task: Task,
    serving: JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn echo(id: u128) -> Echo {
    let task = Task::refusing(id);
    let socket = UdpSocket::bind((task.addr, TARGET)).await.unwrap();
    let serving = tokio::spawn(async move {
        let mut datagram = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut datagram).await {
            let answer = [format!("t{id:03}").as_bytes(), &datagram[..len]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    Echo { task, serving }
}

/// Asks until there is an answer, as clients do: a datagram may come before the port is open. Answers to earlier
/// questions are passed over.
async fn ask(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    eventually(async || {
        // An error says that the port was not open.
        let _ = client.send(question).await;
        let mut answer = vec![0; 65_536];
        let received = timeout(Duration::from_millis(500), client.recv(&mut answer)).await;
        answer.truncate(received.ok().and_then(Result::ok).unwrap_or_default());
        wanted(answer, |answer| !answer.is_empty() && answer.ends_with(question))
    })
    .await
}

async fn client(addr: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind((fresh_addr(), 0)).await.unwrap();
    client.connect(addr).await.unwrap();
    client
}

async fn host(tasks: &[&Echo]) -> (Host, Swarmd, Table) {
    serving_ports(&tasks.iter().map(|echo| &echo.task).collect::<Vec<_>>(), vec![udp(PORT)]).await
}

#[tokio::test]
async fn a_flow_stays_with_its_task_and_flows_are_spread() {
    let (first, second) = (echo(1).await, echo(2).await);
    let (host, mut swarmd, _) = host(&[&first, &second]).await;
    let mut names = std::collections::BTreeMap::<Vec<u8>, usize>::new();
    for _ in 0..10 {
        let client = client(SocketAddr::new(host.addr, PORT)).await;
        let name = ask(&client, b"one").await[..4].to_vec();
        for round in 0..5 {
            assert_eq!(ask(&client, &[round; 900]).await[..4], name);
        }
        *names.entry(name).or_default() += 1;
    }
    assert_eq!(names.values().copied().collect::<Vec<_>>(), [5, 5]);
    let stats = swarmd.stats().await.endpoints;
    assert_eq!(stats.iter().map(|endpoint| endpoint.connections).collect::<Vec<_>>(), [5, 5]);
    assert!(stats.iter().all(|endpoint| endpoint.bytes_in >= 5 * (3 + 5 * 900)));
}

#[tokio::test]
async fn the_first_datagram_of_a_flow_arrives() {
    let task = echo(1).await;
    let (host, ..) = host(&[&task]).await;
    let addr = SocketAddr::new(host.addr, PORT);
    ask(&client(addr).await, b"is it open").await;
    for _ in 0..50 {
        let client = client(addr).await;
        client.send(b"once").await.unwrap();
        let mut answer = [0; 16];
        let len = soon(client.recv(&mut answer)).await.unwrap();
        assert_eq!(&answer[..len], b"t001once");
    }
}

#[tokio::test]
async fn large_datagrams_pass() {
    let task = echo(1).await;
    let (host, ..) = host(&[&task]).await;
    let client = client(SocketAddr::new(host.addr, PORT)).await;
    let question = vec![7; 60_000];
    assert_eq!(ask(&client, &question).await.len(), 60_004);
}

#[tokio::test]
async fn the_answer_leaves_from_the_address_that_was_asked() {
    let task = echo(1).await;
    let (host, mut swarmd, mut table) = host(&[&task]).await;
    let number = 30_000 + (std::process::id() % 2_000) as u16;
    let mut configuration = host.configuration();
    configuration.ingress = vec![
        IngressAddr { addr: Ipv4Addr::UNSPECIFIED.into(), is_optional: false },
        IngressAddr { addr: "::".parse().unwrap(), is_optional: false },
    ];
    swarmd.say(ToData::Configure(configuration)).await;
    table.service(WEB, vec![udp(number)]);
    swarmd.apply(&mut table).await;
    // A connected client hears only who it asked.
    for addr in [fresh_addr(), fresh_addr()] {
        let client = client(SocketAddr::new(addr, number)).await;
        assert_eq!(ask(&client, b"who?").await, b"t001who?");
    }
    let v6: IpAddr = "::1".parse().unwrap();
    let client = UdpSocket::bind((v6, 0)).await.unwrap();
    client.connect((v6, number)).await.unwrap();
    assert_eq!(ask(&client, b"who?").await, b"t001who?");
}

#[tokio::test]
async fn a_flow_moves_when_its_task_ends_or_refuses() {
    let (first, second) = (echo(1).await, echo(2).await);
    let (host, mut swarmd, mut table) = host(&[&first]).await;
    let client = client(SocketAddr::new(host.addr, PORT)).await;
    assert_eq!(ask(&client, b"1").await, b"t0011");
    swarmd.say(ToData::PutLocal(second.task.local())).await;
    table.endpoint(second.task.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    assert_eq!(ask(&client, b"2").await, b"t0012");
    swarmd.say(ToData::RemoveLocal(first.task.id)).await;
    swarmd.stats().await;
    eventually(async || wanted(ask(&client, b"3").await, |answer| answer == b"t0023")).await;
    // The second one's process is gone, and the table does not know yet.
    swarmd.say(ToData::PutLocal(first.task.local())).await;
    swarmd.stats().await;
    drop(second);
    eventually(async || wanted(ask(&client, b"4").await, |answer| answer == b"t0014")).await;
}

#[tokio::test]
async fn a_flow_of_a_draining_endpoint_ends_when_it_is_idle() {
    let (first, second) = (echo(1).await, echo(2).await);
    let (host, mut swarmd, mut table) = host(&[&first]).await;
    let client = client(SocketAddr::new(host.addr, PORT)).await;
    assert_eq!(ask(&client, b"1").await, b"t0011");
    swarmd.say(ToData::PutLocal(second.task.local())).await;
    table.endpoint(second.task.id, OWN, EndpointState::In);
    table.endpoint(first.task.id, OWN, EndpointState::Draining);
    swarmd.apply(&mut table).await;
    swarmd.hear_of(|message| (*message == FromData::Drained(first.task.id)).then_some(())).await;
    assert_eq!(ask(&client, b"2").await, b"t0022");
}

/// The end of a link that datagrams are read from and written to.
struct Link(TcpStream);

impl Link {
    async fn read(&mut self) -> Vec<u8> {
        let len = soon(self.0.read_u16()).await.unwrap();
        let mut datagram = vec![0; len.into()];
        soon(self.0.read_exact(&mut datagram)).await.unwrap();
        datagram
    }

    async fn write(&mut self, datagram: &[u8]) {
        self.0.write_u16(datagram.len() as u16).await.unwrap();
        self.0.write_all(datagram).await.unwrap();
    }
}

#[tokio::test]
async fn datagrams_travel_to_a_task_of_another_node() {
    let (task, refusing) = (TaskId(5), TaskId(6));
    let (host, mut swarmd, mut table) = host(&[]).await;
    let listener = TcpListener::bind((fresh_addr(), 0)).await.unwrap();
    host.links.tasks.lock().unwrap().insert(task, listener.local_addr().unwrap());
    table.endpoint(task, OTHER, EndpointState::In);
    table.endpoint(refusing, OTHER, EndpointState::In);
    swarmd.apply(&mut table).await;
    // The flows come one after the other. Each comes here, wherever it was to go first.
    for _ in 0..4 {
        let client = client(SocketAddr::new(host.addr, PORT)).await;
        let serving = async {
            let mut link = Link(soon(listener.accept()).await.unwrap().0);
            loop {
                let question = link.read().await;
                link.write(&[b"far ".as_slice(), &question].concat()).await;
                if question == b"two" {
                    return;
                }
            }
        };
        let asking = async {
            assert_eq!(ask(&client, b"one").await, b"far one");
            assert_eq!(ask(&client, b"two").await, b"far two");
        };
        tokio::join!(serving, asking);
    }
}

#[tokio::test]
async fn datagrams_of_another_node_reach_a_task_of_this_one() {
    let task = echo(1).await;
    let (host, ..) = host(&[&task]).await;
    let (client, asked) = (([192, 0, 2, 1], 5000).into(), ([192, 0, 2, 2], PORT).into());
    let request = OpenRequest { task: task.task.id, port: udp(PORT), client, asked };
    let (stream, answered) = host.arrive(request).await;
    soon(answered).await.unwrap().unwrap();
    let mut link = Link(stream);
    link.write(b"near").await;
    link.write(b"").await;
    assert_eq!(link.read().await, b"t001near");
    assert_eq!(link.read().await, b"t001");
}
