//! Headers of the PROXY protocol, from proxies and to tasks.

use std::net::SocketAddr;

use swarm_model::IngressSource;
use swarm_wire::endpoints::EndpointState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::host::{Host, OTHER, PORT, Swarmd, TARGET, Table, Task, WEB, serving, tcp};
use crate::{
    protocol::Stats,
    testing::{eventually, soon, wanted},
};

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 50000 443\r\n";

/// A host with a task that wants a line of text before each connection, and a listener for the task.
async fn start(proxies: &str) -> (Host, Swarmd, Table, Task, TcpListener) {
    let task = Task::refusing(1);
    let listener = TcpListener::bind((task.addr, TARGET)).await.unwrap();
    let (host, mut swarmd, mut table) = serving(&[&task]).await;
    table.ingress.source = IngressSource::ProxyV1;
    table.ingress.proxies = vec![proxies.parse().unwrap()];
    table.service(WEB, vec![tcp(PORT)]);
    swarmd.apply(&mut table).await;
    (host, swarmd, table, task, listener)
}

/// The first bytes that the task gets.
async fn got(listener: &TcpListener, len: usize) -> Vec<u8> {
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    let mut bytes = vec![0; len];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test]
async fn the_client_that_a_proxy_names_is_the_client() {
    let (host, mut swarmd, mut table, task, listener) = start("127.0.0.0/8").await;
    let question = [HEADER, b"question"].concat();
    let mut client = host.client().await;
    client.write_all(&question).await.unwrap();
    assert_eq!(got(&listener, question.len()).await, question);
    // The proxy asks for itself.
    let mut client = host.client().await;
    client.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    let own = client.local_addr().unwrap();
    let line = format!("PROXY TCP4 {} {} {} {PORT}\r\n", own.ip(), host.addr, own.port());
    assert_eq!(got(&listener, line.len()).await, line.as_bytes());
    // A task of another node.
    host.links.tasks.lock().unwrap().insert(task.id, SocketAddr::new(task.addr, TARGET));
    table.endpoint(task.id, OTHER, EndpointState::In);
    swarmd.apply(&mut table).await;
    let mut client = host.client().await;
    client.write_all(&question).await.unwrap();
    assert_eq!(got(&listener, 8).await, b"question");
    let (_, request) = host.links.opened.lock().unwrap().pop().unwrap();
    assert_eq!(request.client, ([203, 0, 113, 7], 50_000).into());
    assert_eq!(request.asked, ([198, 51, 100, 1], 443).into());
}

#[tokio::test]
async fn a_proxy_has_to_name_the_client() {
    let (host, mut swarmd, ..) = start("127.0.0.0/8").await;
    let mut client = host.client().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = soon(client.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let counted = |stats: &Stats| stats.services.first().is_some_and(|service| service.bad_headers == 1);
    eventually(async || wanted(swarmd.stats().await, counted)).await;
}

#[tokio::test]
async fn nobody_else_can_name_a_client() {
    let (host, _swarmd, .., listener) = start("10.0.0.0/8").await;
    let mut client = host.client().await;
    client.write_all(HEADER).await.unwrap();
    let own = client.local_addr().unwrap();
    let line = format!("PROXY TCP4 {} {} {} {PORT}\r\n", own.ip(), host.addr, own.port());
    let expected = [line.as_bytes(), HEADER].concat();
    assert_eq!(got(&listener, expected.len()).await, expected);
}
