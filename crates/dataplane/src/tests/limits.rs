//! The limits of descriptors and memory.

use std::sync::Arc;

use swarm_wire::endpoints::EndpointState;
use tokio::{io::AsyncReadExt, sync::mpsc};

use super::host::{Host, Links, OWN, Stream, Table, Task};
use crate::{
    Holding,
    descriptors::{Descriptors, KEPT_DESCRIPTORS},
    forward::Forwarder,
    plane::Plane,
    testing::{eventually, soon},
};

#[test]
fn the_last_descriptors_are_kept() {
    let descriptors = Descriptors::new(KEPT_DESCRIPTORS + 5);
    let four = descriptors.reserve(4).unwrap();
    assert!(descriptors.reserve(2).is_none());
    let one = descriptors.reserve(1).unwrap();
    drop(four);
    assert!(descriptors.reserve(4).is_some());
    drop(one);
    assert!(Descriptors::new(10).reserve(1).is_none());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_reset_and_spoken_of() {
    // The socket for links, that of the port, and two connections.
    let host = Host::start_within(KEPT_DESCRIPTORS + 6).await;
    let task = Task::start(1).await;
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut table = Table::new();
    table.endpoint(task.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    let kept = [host.named().await, host.named().await];
    let mut refused = host.client().await;
    let error = soon(refused.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let text = format!("refused 1 connections: limit of {} open files", KEPT_DESCRIPTORS + 6);
    swarmd.warned(|warnings| warnings.contains(&text)).await;
    drop(kept);
    // Their descriptors are free when the task has closed its side.
    eventually(async || host.client().await.read(&mut [0; 4]).await).await;
}

#[test]
fn a_connection_that_moves_nothing_takes_little() {
    let (_keep, _arrivals) = mpsc::channel::<Stream>(1);
    let plane = Arc::new(Plane::new(Arc::new(Links::default())));
    let forwarder = Arc::new(Forwarder::new(plane, Descriptors::new(1000), Holding::default()));
    // The rest are two sockets, which the runtime has some hundred bytes for.
    let bytes = forwarder.connection_bytes();
    assert!(bytes < 2 << 10, "{bytes} bytes");
}
