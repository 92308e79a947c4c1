//! Tests of moving bytes.

use std::sync::Arc;

use swarm_model::TaskId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    descriptors::{Descriptors, KEPT_DESCRIPTORS},
    endpoint::{Drains, Endpoint},
    voice::Voice,
};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (one, other) = tokio::join!(connect, listener.accept());
    (one.unwrap(), other.unwrap().0)
}

fn lease() -> Lease {
    Arc::new(Endpoint::new(TaskId(1), Arc::new(Drains::new(Voice::default())))).begin_linked()
}

/// Sends bytes through a relay and returns what arrives.
async fn through(pipes: &Pipes, sent: &[u8]) -> Vec<u8> {
    let ((mut client, outside), (inside, mut task)) = (pair().await, pair().await);
    let lease = lease();
    let (client_side, task_side) = (
        async {
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        },
        async {
            let mut received = Vec::new();
            task.read_to_end(&mut received).await.unwrap();
            task.shutdown().await.unwrap();
            received
        },
    );
    tokio::join!(local(outside, inside, &lease, pipes), client_side, task_side).2
}

#[tokio::test]
async fn much_is_spliced_little_is_not_and_without_pipes_all_is_copied() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
    let pipes = Pipes::new(Descriptors::new(KEPT_DESCRIPTORS + 4));
    assert!(through(&pipes, &bytes[..100_000]).await == bytes[..100_000]);
    assert_eq!(pipes.idle(), 0);
    assert!(through(&pipes, &bytes).await == bytes);
    assert_eq!(pipes.idle(), 1);
    let none = Pipes::new(Descriptors::new(0));
    assert!(through(&none, &bytes).await == bytes);
    assert_eq!(none.idle(), 0);
}
