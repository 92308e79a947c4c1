//! The bytes of a connection.

use std::{io, net::SocketAddr, time::Duration};

use rustix::net::sockopt::set_socket_linger;
use swarm_wire::endpoints::EndpointState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::host::{Host, OTHER, OWN, TARGET, Table, Task, serving};
use crate::testing::soon;

/// A writer that gets no room for so long is blocked. On a machine that is slower, the reader stops less than it could.
const BLOCKED_AFTER: Duration = Duration::from_millis(200);

/// The two ends of a connection through the data plane, to a task of this node or of another one.
async fn ends(host: &Host, is_local: bool) -> (TcpStream, TcpStream) {
    let task = Task::refusing(1);
    let listener = TcpListener::bind((task.addr, TARGET)).await.unwrap();
    let mut swarmd = host.swarmd(&[&task]).await;
    host.links.tasks.lock().unwrap().insert(task.id, SocketAddr::new(task.addr, TARGET));
    let mut table = Table::new();
    table.endpoint(task.id, if is_local { OWN } else { OTHER }, EndpointState::In);
    swarmd.apply(&mut table).await;
    let client = host.client().await;
    let (task, _) = soon(listener.accept()).await.unwrap();
    (client, task)
}

fn abort(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    for is_local in [true, false] {
        let host = Host::start().await;
        let (mut client, mut task) = ends(&host, is_local).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        soon(task.read_to_end(&mut question)).await.unwrap();
        assert_eq!(question, b"question");
        task.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        soon(client.read_exact(&mut answer)).await.unwrap();
        task.write_all(b"more").await.unwrap();
        drop(task);
        let mut more = Vec::new();
        soon(client.read_to_end(&mut more)).await.unwrap();
        assert_eq!(more, b"more");
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_both_ways() {
    for is_client in [true, false] {
        let host = Host::start().await;
        let (client, task) = ends(&host, true).await;
        let (broken, mut other) = if is_client { (client, task) } else { (task, client) };
        abort(broken);
        let error = soon(other.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_reset_ends_a_stream_of_a_link() {
    let host = Host::start().await;
    let (client, mut task) = ends(&host, false).await;
    abort(client);
    // The double of a link is a TCP connection that is closed when it is dropped.
    assert_eq!(soon(task.read(&mut [0; 1])).await.unwrap_or(0), 0);
    let (mut client, task) = ends(&Host::start().await, false).await;
    abort(task);
    let error = soon(client.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// Bytes that do not repeat within a pipe's length.
fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_arrives_as_it_was_sent_both_ways_at_once() {
    for is_local in [true, false] {
        let host = Host::start().await;
        let (client, task) = ends(&host, is_local).await;
        let (up, down) = (pattern(9 << 20, 1), pattern(7 << 20, 2));
        let exchange = |stream: TcpStream, out: Vec<u8>| async move {
            let (mut read, mut write) = stream.into_split();
            let mut found = Vec::new();
            let sent = async {
                write.write_all(&out).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let (_, received) = tokio::join!(sent, read.read_to_end(&mut found));
            received.unwrap();
            found
        };
        let (down_found, up_found) =
            soon(async { tokio::join!(exchange(client, up.clone()), exchange(task, down.clone())) }).await;
        assert!(up_found == up && down_found == down, "bytes were changed or lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_stops_itself_alone() {
    let task = Task::start(1).await;
    let (host, _swarmd, _) = serving(&[&task]).await;
    // The task says everything again. The slow client sends until nothing goes any more, and reads nothing.
    let (_, slow) = host.named().await;
    let chunk = pattern(64 << 10, 3);
    let mut sent_bytes = 0;
    while timeout(BLOCKED_AFTER, slow.writable()).await.is_ok() {
        sent_bytes += slow.try_write(&chunk).unwrap_or_default();
    }
    let (_, mut fast) = host.named().await;
    for round in 0..200u32 {
        fast.write_all(&round.to_be_bytes()).await.unwrap();
        let mut echo = [0; 4];
        soon(fast.read_exact(&mut echo)).await.unwrap();
        assert_eq!(echo, round.to_be_bytes());
    }
    let (mut read, mut write) = slow.into_split();
    write.shutdown().await.unwrap();
    let mut found = Vec::new();
    soon(read.read_to_end(&mut found)).await.unwrap();
    assert_eq!(found.len(), sent_bytes);
}
