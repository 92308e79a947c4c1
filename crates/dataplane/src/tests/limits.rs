//! The limits of descriptors and memory.

use std::{num::NonZeroU32, sync::Arc};

use swarm_model::WarningCause;
use swarm_wire::endpoints::EndpointState;
use tokio::{io::AsyncReadExt, sync::mpsc};

use super::host::{Host, Links, OWN, PORT, Stream, Table, Task, WEB, serving, tcp};
use crate::{
    Holding,
    descriptors::{Descriptors, KEPT_DESCRIPTORS},
    forward::Forwarder,
    plane::Plane,
    protocol::Stats,
    testing::{eventually, soon, wanted},
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
    assert_eq!(swarmd.causes, [WarningCause::Descriptors]);
    drop(kept);
    // Their descriptors are free when the task has closed its side.
    eventually(async || host.client().await.read(&mut [0; 4]).await).await;
}

#[tokio::test]
async fn connections_beyond_the_limits_of_a_service_are_reset_and_counted() {
    let task = Task::start(1).await;
    let (host, mut swarmd, mut table) = serving(&[&task]).await;
    let count = |stats: Stats| stats.services.first().map(|s| (s.connections, s.over_connections, s.over_rate));
    async fn is_reset(host: &Host) -> bool {
        let error = soon(host.client().await.read(&mut [0; 1])).await.err();
        error.map(|e| e.kind()) == Some(std::io::ErrorKind::ConnectionReset)
    }
    // A connection of before the limit counts.
    let open = host.named().await;
    table.ingress.connections_max = NonZeroU32::new(2);
    table.service(WEB, vec![tcp(PORT)]);
    swarmd.apply(&mut table).await;
    let more = host.named().await;
    assert!(is_reset(&host).await);
    assert_eq!(count(swarmd.stats().await), Some((2, 1, 0)));
    drop((open, more));
    eventually(async || wanted(count(swarmd.stats().await), |count| *count == Some((0, 1, 0)))).await;
    assert_eq!(host.named().await.0, "t001");
    // At one connection a second, some of those that follow each other at once are refused.
    table.ingress.connections_max = None;
    table.ingress.rate_max = NonZeroU32::new(1);
    table.service(WEB, vec![tcp(PORT)]);
    swarmd.apply(&mut table).await;
    let refused = eventually(async || wanted(is_reset(&host).await, |is_reset| *is_reset)).await;
    assert!(refused);
    assert!(count(swarmd.stats().await).is_some_and(|(_, _, over_rate)| over_rate > 0));
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
