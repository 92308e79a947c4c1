//! Endpoints that are to stop.

use swarm_model::TaskId;
use swarm_wire::endpoints::{EndpointState, RecordKey};
use tokio::io::AsyncWriteExt;

use super::{
    host::{Host, OTHER, OWN, Table, Task},
    remote::arrive,
};
use crate::{protocol::FromData, testing::soon};

#[tokio::test]
async fn a_draining_endpoint_gets_nothing_new_and_is_drained_with_its_last_connection() {
    let host = Host::start().await;
    let (first, second) = (Task::start(1).await, Task::start(2).await);
    let mut swarmd = host.swarmd(&[&first, &second]).await;
    let mut table = Table::new();
    table.endpoint(first.id, OWN, EndpointState::In);
    swarmd.apply(&mut table).await;
    let (_, mut open) = host.named().await;
    table.endpoint(first.id, OWN, EndpointState::Draining);
    table.endpoint(second.id, OWN, EndpointState::In);
    let heard = swarmd.apply(&mut table).await;
    assert!(!heard.iter().any(|message| matches!(message, FromData::Drained(_))), "{heard:?}");
    for _ in 0..20 {
        assert_eq!(host.named().await.0, "t002");
    }
    open.write_all(b"still there").await.unwrap();
    drop(open);
    let drained = swarmd.hear_of(|message| match message {
        FromData::Drained(task) => Some(*task),
        _ => None,
    });
    assert_eq!(drained.await, first.id);
}

#[tokio::test]
async fn an_idle_endpoint_is_drained_at_once_and_said_again_to_a_new_connection() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut table = Table::new();
    table.endpoint(task.id, OWN, EndpointState::Draining);
    // The drain of a task on another node is not for this node to report.
    table.endpoint(TaskId(9), OTHER, EndpointState::Draining);
    let heard = swarmd.apply(&mut table).await;
    let drained: Vec<_> = heard.into_iter().filter(|message| matches!(message, FromData::Drained(_))).collect();
    assert_eq!(drained, [FromData::Drained(task.id)]);
    let (mut swarmd, _) = host.greet().await;
    swarmd.hear_of(|message| (*message == FromData::Drained(task.id)).then_some(())).await;
}

#[tokio::test]
async fn a_stream_of_a_node_that_lags_takes_the_word_back() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut table = Table::new();
    table.endpoint(task.id, OWN, EndpointState::Draining);
    swarmd.apply(&mut table).await;
    let (mut stream, answer) = arrive(&host, task.id).await;
    soon(answer).await.unwrap().unwrap();
    swarmd.hear_of(|message| (*message == FromData::InUse(task.id)).then_some(())).await;
    stream.shutdown().await.unwrap();
    drop(stream);
    swarmd.hear_of(|message| (*message == FromData::Drained(task.id)).then_some(())).await;
}

#[tokio::test]
async fn a_task_that_serves_no_more_or_not_yet_is_not_waited_for() {
    let host = Host::start().await;
    let task = Task::start(1).await;
    let mut swarmd = host.swarmd(&[&task]).await;
    let mut table = Table::new();
    // The service publishes the port, and this task does not run yet.
    let drained = |message: &FromData| (*message == FromData::Drained(task.id)).then_some(());
    table.endpoint(TaskId(9), OTHER, EndpointState::In);
    let heard = swarmd.apply(&mut table).await;
    if !heard.iter().any(|message| drained(message).is_some()) {
        swarmd.hear_of(drained).await;
    }
    table.endpoint(task.id, OWN, EndpointState::In);
    table.remove(RecordKey::Endpoint(TaskId(9)));
    let heard = swarmd.apply(&mut table).await;
    assert!(heard.contains(&FromData::InUse(task.id)), "{heard:?}");
    // The service is removed while a client is connected.
    let (_, open) = host.named().await;
    table.remove(RecordKey::Endpoint(task.id));
    let heard = swarmd.apply(&mut table).await;
    assert!(!heard.iter().any(|message| drained(message).is_some()), "{heard:?}");
    drop(open);
    swarmd.hear_of(drained).await;
}
