//! Ports that open and close.

use std::net::SocketAddr;

use swarm_model::{IngressChoice, PortProtocol, ServiceId, TaskId, WarnedPort, WarningCause};
use swarm_wire::endpoints::{EndpointState, RecordKey};
use tokio::net::TcpListener;

use super::host::{Host, OTHER, OWN, PORT, Table, Task, WEB, client, fresh_addr, name, tcp};
use crate::{
    protocol::{IngressAddr, ToData},
    testing::until,
};

#[tokio::test]
async fn a_port_that_is_taken_is_a_warning_until_it_is_free() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let taken = TcpListener::bind((host.addr, PORT)).await.unwrap();
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut table = Table::new();
    table.endpoint(task.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    let text = format!("port {PORT}/tcp is in use on {}", host.addr);
    let program = format!("(pid {})", std::process::id());
    swarmd.warned(|warnings| warnings.iter().any(|w| w.contains(&text) && w.contains(&program))).await;
    let port = WarnedPort { protocol: PortProtocol::Tcp, published: PORT };
    assert_eq!(swarmd.causes, [WarningCause::PortTaken(port)]);
    drop(taken);
    swarmd.warned(<[String]>::is_empty).await;
    assert_eq!(host.named().await.0, "t001");
}

#[tokio::test]
async fn a_port_that_is_taken_on_an_optional_address_is_no_warning() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let (other, missing) = (fresh_addr(), [192, 0, 2, 77].into());
    let _taken = TcpListener::bind((other, PORT)).await.unwrap();
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut configuration = host.configuration();
    configuration.ingress.push(IngressAddr { addr: other, is_optional: true });
    configuration.ingress.push(IngressAddr { addr: missing, is_optional: false });
    swarmd.say(ToData::Configure(configuration)).await;
    let mut table = Table::new();
    table.endpoint(task.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    swarmd.warned(|warnings| !warnings.is_empty()).await;
    assert_eq!(host.named().await.0, "t001");
    let text = "port 8080/tcp cannot be opened on 192.0.2.77: this host does not have the address";
    assert_eq!(swarmd.warnings, [text]);
    let port = WarnedPort { protocol: PortProtocol::Tcp, published: PORT };
    assert_eq!(swarmd.causes, [WarningCause::PortFailed(port)]);
}

#[tokio::test]
async fn ports_follow_the_table() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut table = Table::new();
    table.endpoint(task.id, OWN, EndpointState::In);
    table.service(ServiceId(8), vec![tcp(9000)]);
    swarmd.apply(&mut table).await;
    drop(client(SocketAddr::new(host.addr, 9000)).await);
    let (_, open) = host.named().await;
    // The port moves to the other service: what listens stays, and goes to nobody yet.
    table.service(ServiceId(8), vec![tcp(PORT)]);
    table.service(WEB, vec![tcp(9000)]);
    swarmd.apply(&mut table).await;
    let mut moved = client(SocketAddr::new(host.addr, 9000)).await;
    assert_eq!(name(&mut moved).await, "t001");
    table.remove(RecordKey::Service(ServiceId(8)));
    swarmd.apply(&mut table).await;
    until(|| std::net::TcpStream::connect((host.addr, PORT)).is_err()).await;
    drop(open);
}

#[tokio::test]
async fn ipv6_clients_reach_an_ipv4_task() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut configuration = host.configuration();
    configuration.ingress = vec![IngressAddr { addr: "::1".parse().unwrap(), is_optional: false }];
    swarmd.say(ToData::Configure(configuration)).await;
    // A number that is no other test's: this host has one such address only.
    let number = 20_000 + (std::process::id() % 10_000) as u16;
    let mut table = Table::new();
    table.service(WEB, vec![tcp(number)]);
    table.endpoint(task.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    let mut over_v6 = client(SocketAddr::new("::1".parse().unwrap(), number)).await;
    assert_eq!(name(&mut over_v6).await, "t001");
}

#[tokio::test]
async fn a_port_for_own_tasks_alone_is_open_while_there_is_one() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut table = Table::new();
    table.ingress.choice = IngressChoice::OnlyLocal;
    table.service(WEB, vec![tcp(PORT)]);
    table.endpoint(TaskId(9), OTHER, EndpointState::In);
    // A port without such a wish, which opens after the others.
    table.ingress.choice = IngressChoice::Any;
    table.service(ServiceId(8), vec![tcp(PORT + 1)]);
    swarmd.apply(&mut table).await;
    drop(client(SocketAddr::new(host.addr, PORT + 1)).await);
    let is_closed = || std::net::TcpStream::connect((host.addr, PORT)).is_err();
    assert!(is_closed());
    table.endpoint(task.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    let (name, open) = host.named().await;
    assert_eq!(name, "t001");
    table.endpoint(task.id, OWN, EndpointState::Draining);
    swarmd.apply(&mut table).await;
    until(is_closed).await;
    drop(open);
}
