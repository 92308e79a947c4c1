//! The choice of a task for a connection.

use std::{collections::BTreeMap, net::SocketAddr};

use swarm_model::{IngressChoice, TaskId};
use swarm_wire::endpoints::{EndpointState, RecordKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::host::{Host, OTHER, OWN, PORT, TARGET, Table, Task, WEB, name, serving, tcp};
use crate::{
    Holding,
    protocol::{Stats, ToData},
    testing::{eventually, soon, until, wanted},
};

#[tokio::test]
async fn connections_are_spread_evenly_and_forwarded_both_ways() {
    let tasks = [Task::start(1).await, Task::start(2).await, Task::start(3).await];
    let (host, mut swarmd, _) = serving(&tasks.iter().collect::<Vec<_>>()).await;
    let mut counts = BTreeMap::<String, u32>::new();
    for _ in 0..300 {
        let (name, mut client) = host.named().await;
        client.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        soon(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"hello");
        *counts.entry(name).or_default() += 1;
    }
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| (90..=110).contains(count)), "{counts:?}");
    let stats = swarmd.stats().await;
    assert_eq!(stats.endpoints.iter().map(|endpoint| endpoint.connections_total).sum::<u64>(), 300);
    assert!(stats.endpoints.iter().all(|endpoint| endpoint.errors == 0));
    assert_eq!(stats.endpoints.iter().map(|endpoint| endpoint.bytes_in).sum::<u64>(), 5 * 300);
}

#[tokio::test]
async fn a_task_that_comes_later_is_not_flooded_and_fewer_connections_win() {
    let host = Host::start().await;
    let (first, second) = (Task::start(1).await, Task::start(2).await);
    let mut swarmd = host.swarmd(&[&first, &second]).await;
    let mut table = Table::new();
    table.endpoint(first.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(host.named().await);
    }
    table.endpoint(second.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    // The first has 20 connections, so that the second gets the next 20.
    for _ in 0..20 {
        let (name, client) = host.named().await;
        assert_eq!(name, "t002");
        open.push((name, client));
    }
    drop(open);
    // Nothing is open any more: both take turns, although the first was chosen more often before.
    let are_closed = |stats: &Stats| stats.endpoints.iter().all(|endpoint| endpoint.connections == 0);
    eventually(async || wanted(swarmd.stats().await, are_closed)).await;
    let before = second.accepted();
    for _ in 0..40 {
        drop(host.named().await);
    }
    assert!((10..=40).contains(&(second.accepted() - before)));
    assert!(first.accepted() > 20);
}

#[tokio::test]
async fn a_connection_is_held_until_an_endpoint_comes() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let mut swarmd = host.swarmd(&[]).await;
    let mut table = Table::new();
    swarmd.apply(&mut table).await;
    let mut held = host.client().await;
    held.write_all(b"early").await.unwrap();
    // In the table, but not there yet.
    table.endpoint(task.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    swarmd.say(ToData::PutLocal(task.local())).await;
    assert_eq!(name(&mut held).await, "t001");
    let mut answer = [0; 5];
    soon(held.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"early");
}

#[tokio::test]
async fn a_connection_is_reset_when_no_endpoint_comes_or_too_many_wait() {
    let holding = Holding { time: std::time::Duration::from_millis(300), connections_max: 2 };
    let host = Host::start_with(holding).await;
    let mut swarmd = host.swarmd(&[]).await;
    swarmd.apply(&mut Table::new()).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(host.client().await);
    }
    for client in &mut clients {
        let error = soon(client.read(&mut [0; 1])).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn connections_that_wait_are_closed_with_their_port() {
    let host = Host::start().await;
    let mut swarmd = host.swarmd(&[]).await;
    let mut table = Table::new();
    swarmd.apply(&mut table).await;
    let mut held = host.client().await;
    table.remove(RecordKey::Service(WEB));
    swarmd.apply(&mut table).await;
    let error = soon(held.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn endpoints_that_refuse_are_passed_over_without_the_client_noticing() {
    let host = Host::start().await;
    let (dead, living) = (Task::refusing(1), Task::start(3).await);
    let mut swarmd = host.swarmd(&[&dead, &living]).await;
    let mut table = Table::new();
    table.endpoint(dead.id, OWN, EndpointState::In);
    table.endpoint(living.id, OWN, EndpointState::In);
    // On another node, which refuses.
    table.endpoint(TaskId(2), OTHER, EndpointState::In);
    swarmd.apply(&mut table).await;
    for _ in 0..20 {
        assert_eq!(host.named().await.0, "t003");
    }
    let stats = swarmd.stats().await;
    assert!(stats.endpoints.iter().all(|endpoint| (endpoint.errors > 0) == (endpoint.task != living.id)));
}

#[tokio::test]
async fn a_connection_is_reset_after_three_endpoints_that_refuse() {
    let host = Host::start().await;
    let dead = [1, 2, 3, 4, 5].map(Task::refusing);
    let mut swarmd = host.swarmd(&dead.iter().collect::<Vec<_>>()).await;
    let mut table = Table::new();
    dead.iter().for_each(|task| table.endpoint(task.id, OWN, EndpointState::In));
    swarmd.apply(&mut table).await;
    let mut client = host.client().await;
    let error = soon(client.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let mut errors: Vec<_> = swarmd.stats().await.endpoints.iter().map(|endpoint| endpoint.errors).collect();
    errors.sort_unstable();
    assert_eq!(errors, [0, 0, 1, 1, 1]);
}

#[tokio::test]
async fn a_connection_goes_on_when_the_only_task_was_dead_and_the_table_names_another() {
    let host = Host::start().await;
    let (dead, living) = (Task::refusing(1), Task::start(2).await);
    let mut swarmd = host.swarmd(&[&dead, &living]).await;
    let mut table = Table::new();
    table.endpoint(dead.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    let mut client = host.client().await;
    let has_failed = |stats: &Stats| stats.endpoints.iter().any(|endpoint| endpoint.errors > 0);
    eventually(async || wanted(swarmd.stats().await, has_failed)).await;
    table.endpoint(living.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    assert_eq!(name(&mut client).await, "t002");
}

#[tokio::test]
async fn a_task_that_has_ended_here_gets_nothing_more() {
    let (first, second) = (Task::start(1).await, Task::start(2).await);
    let (host, mut swarmd, _) = serving(&[&first, &second]).await;
    swarmd.say(ToData::RemoveLocal(first.id)).await;
    swarmd.stats().await;
    for _ in 0..20 {
        assert_eq!(host.named().await.0, "t002");
    }
    until(|| second.accepted() == 20).await;
    assert_eq!(first.accepted(), 0);
}

#[tokio::test]
async fn a_task_of_this_node_comes_before_those_of_others_where_the_service_prefers_it() {
    let (near, far) = (Task::start(1).await, Task::start(2).await);
    let (host, mut swarmd, mut table) = serving(&[&near]).await;
    host.links.tasks.lock().unwrap().insert(far.id, SocketAddr::new(far.addr, TARGET));
    table.ingress.choice = IngressChoice::PreferLocal;
    table.service(WEB, vec![tcp(PORT)]);
    table.endpoint(far.id, OTHER, EndpointState::In);
    swarmd.apply(&mut table).await;
    for _ in 0..20 {
        assert_eq!(host.named().await.0, "t001");
    }
    table.endpoint(near.id, OWN, EndpointState::Draining);
    swarmd.apply(&mut table).await;
    assert_eq!(host.named().await.0, "t002");
}

#[tokio::test]
async fn a_client_keeps_its_task_where_the_service_wants_it() {
    let tasks = [Task::start(1).await, Task::start(2).await, Task::start(3).await];
    let (host, mut swarmd, mut table) = serving(&tasks.iter().collect::<Vec<_>>()).await;
    table.ingress.has_affinity = true;
    table.service(WEB, vec![tcp(PORT)]);
    swarmd.apply(&mut table).await;
    let (first, open) = host.named().await;
    for _ in 0..20 {
        assert_eq!(host.named().await.0, first);
    }
    drop(open);
}
