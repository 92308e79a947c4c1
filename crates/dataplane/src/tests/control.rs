//! swarmd comes and goes.

use std::os::unix::fs::PermissionsExt;

use swarm_model::TaskId;
use swarm_wire::endpoints::EndpointState;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::host::{Host, Links, OTHER, OWN, PORT, Stream, Table, Task, WEB, serving, tcp};
use crate::{
    Control, Holding,
    process::{Options, serve},
    protocol::{FromData, ToData},
    testing::{soon, until},
};

async fn refusal(control: Control) -> String {
    let (_keep, arrivals) = mpsc::channel::<Stream>(1);
    let options = Options {
        control,
        is_heir: false,
        holding: Holding::default(),
        shows_clients: false,
        stop: CancellationToken::new(),
        descriptors_max: None,
        on_ready: Box::new(|| {}),
    };
    format!("{:#}", soon(serve(options, std::sync::Arc::new(Links::default()), arrivals)).await.unwrap_err())
}

#[tokio::test]
async fn connections_are_forwarded_while_swarmd_is_away() {
    let task = Task::start(1).await;
    let (host, swarmd, table) = serving(&[&task]).await;
    drop(swarmd);
    assert_eq!(host.named().await.0, "t001");
    let (mut swarmd, known) = host.greet().await;
    assert_eq!(known, Some(table.version()));
    swarmd.say(ToData::LocalTasks(Vec::new())).await;
    assert_eq!(swarmd.stats().await.endpoints[0].connections_total, 1);
}

#[tokio::test]
async fn a_new_connection_of_swarmd_replaces_the_one_before() {
    let host = Host::start().await;
    let mut first = host.swarmd(&[]).await;
    let mut second = host.swarmd(&[]).await;
    while first.hear().await.is_some() {}
    second.apply(&mut Table::new()).await;
}

#[tokio::test]
async fn a_table_that_is_wrong_is_refused_whole() {
    let task = Task::start(1).await;
    let (host, mut swarmd, mut table) = serving(&[&task]).await;
    let mut wrong = table.clone();
    wrong.endpoint(task.id, OWN, EndpointState::Draining);
    wrong.endpoint(TaskId(5), swarm_model::NodeId(77), EndpointState::In);
    for update in wrong.updates() {
        swarmd.say(ToData::Table(update)).await;
    }
    let reason = swarmd.hear_of(|message| match message {
        FromData::Refused { reason } => Some(reason.clone()),
        _ => None,
    });
    let reason = reason.await;
    assert!(reason.contains("which is not there"), "{reason}");
    assert_eq!(host.named().await.0, "t001");
    let mut twice = table.clone();
    twice.service(swarm_model::ServiceId(8), vec![tcp(PORT)]);
    for update in twice.updates() {
        swarmd.say(ToData::Table(update)).await;
    }
    swarmd.hear_of(|message| matches!(message, FromData::Refused { .. }).then_some(())).await;
    table.service(WEB, vec![tcp(9001)]);
    swarmd.apply(&mut table).await;
}

#[tokio::test]
async fn a_process_ends_when_swarmd_says_so() {
    let mut host = Host::start().await;
    let mut swarmd = host.swarmd(&[]).await;
    swarmd.say(ToData::Stop).await;
    soon(&mut host.process).await.unwrap().unwrap();
    assert!(!host.path().exists());
}

#[tokio::test]
async fn a_process_that_is_stopped_ends_in_order() {
    let task = Task::start(1).await;
    let (mut host, mut swarmd, _) = serving(&[&task]).await;
    drop(host.named().await);
    host.stop.cancel();
    soon(&mut host.process).await.unwrap().unwrap();
    assert!(!host.path().exists() && !host.path().with_extension("take-over").exists());
    while swarmd.hear().await.is_some() {}
    until(|| std::net::TcpStream::connect((host.addr, PORT)).is_err()).await;
}

#[tokio::test]
async fn a_process_that_has_handed_over_can_be_stopped() {
    let task = Task::start(1).await;
    let (mut host, ..) = serving(&[&task]).await;
    let (_, open) = host.named().await;
    let next = host.take_over().await;
    host.stop.cancel();
    soon(&mut host.process).await.unwrap().unwrap();
    assert!(next.path().exists());
    assert_eq!(next.named().await.0, "t001");
    drop(open);
}

#[tokio::test]
async fn a_socket_in_use_or_in_an_open_folder_is_refused_and_a_stale_one_replaced() {
    let host = Host::start().await;
    let text = refusal(Control::Path(host.path())).await;
    assert!(text.contains("another process listens on") && text.contains("data.sock"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.sock");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
    let text = refusal(Control::Path(path.clone())).await;
    assert!(text.contains("mode 750") && text.contains("must be 700"), "{text}");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(&path, "text").unwrap();
    let text = refusal(Control::Path(path.clone())).await;
    assert!(text.contains("not a socket"), "{text}");
    std::fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = swarm_net::socket::OwnSocket::bind(path.clone()).await.unwrap();
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_probe_names_the_nodes_that_do_not_answer() {
    let task = Task::start(1).await;
    let (_host, mut swarmd, _table) = serving(&[&task]).await;
    let (nobody, number) = (swarm_model::NodeId(77), 5);
    swarmd.say(ToData::Probe { number, nodes: vec![OTHER, nobody] }).await;
    let failed = swarmd.hear_of(|message| match message {
        FromData::Probed { number: 5, failed } => Some(failed.clone()),
        _ => None,
    });
    assert_eq!(failed.await, [(nobody, "no such node".to_owned())]);
}
