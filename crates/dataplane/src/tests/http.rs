//! Services of HTTP, whose clients are asked to leave a task that is to stop.

use std::net::SocketAddr;

use swarm_wire::endpoints::EndpointState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::host::{OTHER, OWN, PORT, TARGET, Task, WEB, serving, tcp};
use crate::testing::soon;

const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n";
const BODY_BYTES: usize = 300_000;

/// Asks on an open connection, and answers as the task. Returns the head that the client got.
async fn exchange(client: &mut TcpStream, task: &mut TcpStream) -> String {
    client.write_all(QUESTION).await.unwrap();
    let mut question = vec![0; QUESTION.len()];
    soon(task.read_exact(&mut question)).await.unwrap();
    assert_eq!(question, QUESTION);
    let body: Vec<_> = (0..BODY_BYTES).map(|at| (at ^ (at >> 8)) as u8).collect();
    let answer = [format!("{HEAD}\r\n").as_bytes(), &body].concat();
    let mut found = Vec::new();
    let receiving = async {
        let is_complete = |found: &[u8]| {
            let head = found.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            head.is_some_and(|head| found.len() == head + 4 + BODY_BYTES)
        };
        while !is_complete(&found) {
            assert!(soon(client.read_buf(&mut found)).await.unwrap() > 0);
        }
    };
    let (sent, ()) = tokio::join!(task.write_all(&answer), receiving);
    sent.unwrap();
    let found_body = found.split_off(found.len() - BODY_BYTES);
    assert!(found_body == body, "the body was changed");
    String::from_utf8(found).unwrap()
}

#[tokio::test]
async fn a_client_is_asked_to_leave_a_task_that_drains() {
    for node in [OWN, OTHER] {
        let task = Task::refusing(1);
        let listener = TcpListener::bind((task.addr, TARGET)).await.unwrap();
        let (host, mut swarmd, mut table) = serving(&[&task]).await;
        host.links.tasks.lock().unwrap().insert(task.id, SocketAddr::new(task.addr, TARGET));
        table.ingress.is_http = true;
        table.service(WEB, vec![tcp(PORT)]);
        table.endpoint(task.id, node, EndpointState::In);
        swarmd.apply(&mut table).await;
        let mut client = host.client().await;
        let (mut serving, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(exchange(&mut client, &mut serving).await, format!("{HEAD}\r\n"));
        table.endpoint(task.id, node, EndpointState::Draining);
        swarmd.apply(&mut table).await;
        assert_eq!(exchange(&mut client, &mut serving).await, format!("{HEAD}Connection: close\r\n\r\n"));
        client.shutdown().await.unwrap();
        assert_eq!(soon(serving.read(&mut [0; 1])).await.unwrap(), 0);
        drop(serving);
        assert_eq!(soon(client.read(&mut [0; 1])).await.unwrap(), 0);
    }
}
