//! Tasks of other nodes, and streams of other nodes to tasks of this one.

use std::net::SocketAddr;

use swarm_model::TaskId;
use swarm_wire::endpoints::EndpointState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

use super::host::{Host, OTHER, OWN, PORT, TARGET, Table, Task, name, tcp};
use crate::{remote::OpenRequest, testing::soon};

/// Another node wants a stream to a task of the host.
pub(super) async fn arrive(host: &Host, task: TaskId) -> (TcpStream, oneshot::Receiver<Result<(), String>>) {
    arrive_for(host, task, PORT).await
}

async fn arrive_for(host: &Host, task: TaskId, port: u16) -> (TcpStream, oneshot::Receiver<Result<(), String>>) {
    let client = ([192, 0, 2, 1], 5000).into();
    host.arrive(OpenRequest { task, port: tcp(port), client, asked: ([192, 0, 2, 2], port).into() }).await
}

#[tokio::test]
async fn a_task_of_another_node_is_reached_over_a_link_that_knows_the_client() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    host.links.tasks.lock().unwrap().insert(task.id, SocketAddr::new(task.addr, TARGET));
    let mut swarmd = host.swarmd(&[]).await;
    let mut table = Table::new();
    table.endpoint(task.id, OTHER, EndpointState::In);
    swarmd.apply(&mut table).await;
    assert_eq!(host.links.peers.lock().unwrap().keys().copied().collect::<Vec<_>>(), [OTHER]);
    let (name, mut client) = host.named().await;
    assert_eq!(name, "t001");
    client.write_all(b"far").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"far");
    let opened = host.links.opened.lock().unwrap().clone();
    let asked = SocketAddr::new(host.addr, PORT);
    let request = OpenRequest { task: task.id, port: tcp(PORT), client: client.local_addr().unwrap(), asked };
    assert_eq!(opened, [(OTHER, request)]);
    assert!(host.links.listener.lock().unwrap().is_some());
}

#[tokio::test]
async fn a_stream_reaches_a_task_that_is_in_or_drains_and_counts_for_the_other_node() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut table = Table::new();
    for state in [EndpointState::In, EndpointState::Draining] {
        table.endpoint(task.id, OWN, state);
        swarmd.apply(&mut table).await;
        let (mut stream, answer) = arrive(&host, task.id).await;
        soon(answer).await.unwrap().unwrap();
        assert_eq!(name(&mut stream).await, "t001");
    }
    let stats = swarmd.stats().await;
    let counted: Vec<_> = stats.endpoints.iter().map(|endpoint| (endpoint.task, endpoint.connections_total)).collect();
    assert_eq!(counted, [(task.id, 0)]);
}

#[tokio::test]
async fn a_stream_that_asks_for_what_is_not_here_is_refused() {
    let host = Host::start().await;
    let (task, dead, elsewhere) = (Task::start(1).await, Task::refusing(2), Task::start(3).await);
    let mut swarmd = host.swarmd(&[&task, &dead, &elsewhere]).await;
    let mut table = Table::new();
    table.endpoint(task.id, OWN, EndpointState::In);
    table.endpoint(dead.id, OWN, EndpointState::In);
    // Its table says that another node has it.
    table.endpoint(elsewhere.id, OTHER, EndpointState::In);
    swarmd.apply(&mut table).await;
    let cases = [
        (elsewhere.id, PORT, "does not serve on this node"),
        (TaskId(99), PORT, "does not serve on this node"),
        (task.id, PORT + 1, "does not publish 8081:8081/tcp"),
        (dead.id, PORT, "does not accept"),
    ];
    for (id, port, reason) in cases {
        let (_stream, answer) = arrive_for(&host, id, port).await;
        let refused = soon(answer).await.unwrap().unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
    assert_eq!((task.accepted(), elsewhere.accepted()), (0, 0));
}
