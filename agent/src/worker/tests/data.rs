//! The worker and the data plane of its node.

use swarm_dataplane::protocol::{EndpointStats, FromData, LocalTask, ServiceStats, Stats, ToData};
use swarm_model::{
    DesiredState as D, NodeId, PortConfig, PortProtocol, PublishedPort, ServiceId, TaskId, TaskState as S,
};
use swarm_wire::{
    agent::{Answer, Item, ItemChange, Question, REACH_NODES_MAX, Shared, ToAgent, ToManager, Traffic},
    endpoints::{
        EndpointRecord, EndpointState, NodeRecord, Record, RecordHash, ServiceRecord, TableChange, TableReceiver,
        TableUpdate, TableVersion,
    },
};

use super::world::{ADDR, World, put_task};
use crate::{
    testing::{assigned_spec, assigned_task},
    worker::{DataInput, Input, Operation},
};

const TASK: TaskId = TaskId(1);

fn table(revision: u64, records: &[Record]) -> TableUpdate {
    let puts: Vec<_> = records.iter().map(|record| Shared::new(record).unwrap()).collect();
    let digest = puts.iter().fold(0, |digest, record| RecordHash::of(record).added_to(digest));
    let version = TableVersion { revision, digest };
    TableUpdate { full: true, complete: true, version, changes: puts.into_iter().map(TableChange::Put).collect() }
}

fn service() -> Record {
    let port = PublishedPort { protocol: PortProtocol::Tcp, published: 9000, target: 80 };
    Record::Service(ServiceRecord {
        id: ServiceId(1),
        name: "web".into(),
        ports: vec![port],
        ingress: Default::default(),
    })
}

fn node() -> Record {
    Record::Node(NodeRecord { id: NodeId(1), data_addr: ([10, 0, 0, 1], 7946).into() })
}

/// A node whose data plane runs, with a task that serves.
fn serving() -> World {
    let mut world = World::with_data_plane();
    world.settle();
    world.input(Input::Message(ToAgent::Table(table(3, &[service()]))));
    assert!(world.needs_data);
    world.input(Input::Data(DataInput::Up(None)));
    let port = PortConfig { target_port: 80, ..PortConfig::default() };
    let mut spec = assigned_spec("hello:1");
    spec.ports = vec![port];
    world.want_with(TASK, D::Running, ItemChange::Put(Item::Spec(Shared::new(&spec).unwrap())));
    world.settle();
    assert_eq!(world.state(TASK), Some(S::Running));
    world
}

/// The managers tell the task to stop.
fn stop(world: &mut World) {
    world.tell(vec![put_task(assigned_task(TASK.0, D::Shutdown))]);
}

/// Carries all calls out.
fn answer(world: &mut World) {
    while !world.calls.is_empty() {
        world.answer(0);
    }
}

fn says(world: &mut World, message: FromData) {
    world.input(Input::Data(DataInput::Says(message)));
}

#[test]
fn without_published_ports_there_is_no_data_plane_and_each_table_is_gone_by() {
    let mut world = World::with_data_plane();
    world.settle();
    let update = table(3, &[node()]);
    world.input(Input::Message(ToAgent::Table(update.clone())));
    assert!(!world.needs_data);
    assert_eq!(world.sent.last(), Some(&ToManager::Table(Some(update.version))));
}

#[test]
fn a_data_plane_gets_the_table_and_the_tasks_and_its_word_goes_to_the_managers() {
    let mut world = serving();
    let version = table(3, &[service()]).version;
    let mut holder = TableReceiver::default();
    for message in &world.data {
        if let ToData::Table(update) = message {
            holder.take(update).unwrap();
        }
    }
    assert_eq!(holder.table().version(), Some(version));
    assert!(world.data.contains(&ToData::PutLocal(LocalTask { task: TASK, addr: ADDR })));
    assert!(!world.sent.iter().any(|message| matches!(message, ToManager::Table(_))), "it has not said so");
    says(&mut world, FromData::Applied(version));
    assert_eq!(world.sent.last(), Some(&ToManager::Table(Some(version))));
    // A data plane that was started anew has nothing, one that went on has all.
    for (held, tables) in [(None, 1), (Some(version), 0)] {
        world.data.clear();
        world.input(Input::Data(DataInput::Down));
        world.input(Input::Data(DataInput::Up(held)));
        assert_eq!(world.data[0], ToData::LocalTasks(vec![LocalTask { task: TASK, addr: ADDR }]));
        assert_eq!(world.data.iter().filter(|message| matches!(message, ToData::Table(_))).count(), tables);
    }
    // A table that it refuses comes whole.
    world.data.clear();
    says(&mut world, FromData::Refused { reason: "digest".into() });
    assert!(matches!(&world.data[..], [ToData::Table(update)] if update.full));
}

#[test]
fn a_change_that_does_not_fit_is_refused_and_the_whole_table_asked_for_once() {
    let mut world = serving();
    let mut bad = table(4, &[service()]);
    (bad.full, bad.version.digest) = (false, 1);
    world.sent.clear();
    world.input(Input::Message(ToAgent::Table(bad.clone())));
    world.input(Input::Message(ToAgent::Table(bad)));
    let asked = world.sent.iter().filter(|message| **message == ToManager::Table(None)).count();
    assert_eq!(asked, 1);
}

#[test]
fn a_stop_waits_until_the_last_connection_has_ended() {
    let mut world = serving();
    stop(&mut world);
    answer(&mut world);
    assert_eq!(world.stops, 0);
    says(&mut world, FromData::Drained(TASK));
    answer(&mut world);
    assert_eq!((world.stops, world.state(TASK)), (1, Some(S::Shutdown)));
    assert!(world.data.contains(&ToData::RemoveLocal(TASK)));
}

#[test]
fn a_stop_waits_no_longer_than_three_seconds() {
    let mut world = serving();
    stop(&mut world);
    answer(&mut world);
    world.wait(2_900);
    answer(&mut world);
    assert_eq!(world.stops, 0);
    world.wait(200);
    answer(&mut world);
    assert_eq!(world.stops, 1);
}

#[test]
fn a_stop_does_not_wait_where_no_connection_can_be() {
    // The last word came before the stop; there is no data plane any more.
    let drained: fn(&mut World) = |world| says(world, FromData::Drained(TASK));
    let down: fn(&mut World) = |world| world.input(Input::Data(DataInput::Down));
    for happens in [drained, down] {
        let mut world = serving();
        happens(&mut world);
        stop(&mut world);
        answer(&mut world);
        assert_eq!(world.stops, 1);
    }
    // A task that serves no published port.
    let mut world = serving();
    let other = TaskId(3);
    let mut task = assigned_task(other.0, D::Running);
    task.spec_version = 2;
    let mut spec = assigned_spec("hello:1");
    spec.version = 2;
    world.tell(vec![ItemChange::Put(Item::Spec(Shared::new(&spec).unwrap())), put_task(task.clone())]);
    answer(&mut world);
    task.desired = D::Shutdown;
    world.tell(vec![put_task(task)]);
    assert!(world.calls.iter().any(|(task, call)| *task == other && matches!(call, Operation::Stop(..))));
}

#[test]
fn a_stop_that_waits_goes_on_when_the_container_ends_or_the_data_plane_does() {
    let ends: fn(&mut World) = |world| world.input(Input::Container(crate::executor::ContainerEvent::Ended(TASK)));
    let down: fn(&mut World) = |world| world.input(Input::Data(DataInput::Down));
    for happens in [ends, down] {
        let mut world = serving();
        stop(&mut world);
        assert!(world.calls.is_empty(), "it waits");
        happens(&mut world);
        assert!(!world.calls.is_empty(), "it goes on");
    }
}

#[test]
fn a_task_whose_container_died_gets_no_more_connections() {
    let mut world = serving();
    world.input(Input::Container(crate::executor::ContainerEvent::Ended(TASK)));
    assert_eq!(world.data.last(), Some(&ToData::RemoveLocal(TASK)));
}

#[test]
fn an_agent_that_comes_back_tells_its_tasks_when_it_knows_their_containers() {
    let mut world = serving();
    // No manager is there to say anything.
    world.answers = false;
    world.restart();
    world.data.clear();
    world.input(Input::Data(DataInput::Found));
    world.input(Input::Data(DataInput::Up(None)));
    let is_all = |message: &ToData| matches!(message, ToData::LocalTasks(_));
    assert!(!world.data.iter().any(is_all), "the data plane goes on with the tasks that it knows");
    world.settle();
    let all: Vec<_> = world.data.iter().filter(|message| is_all(message)).collect();
    assert_eq!(all, [&ToData::LocalTasks(vec![LocalTask { task: TASK, addr: ADDR }])]);
}

#[test]
fn a_data_plane_that_runs_already_is_waited_for_without_published_ports() {
    let mut world = World::with_data_plane();
    world.input(Input::Data(DataInput::Found));
    assert!(world.needs_data, "it may still go by an older table");
    world.settle();
    world.sent.clear();
    let update = table(3, &[node()]);
    world.input(Input::Message(ToAgent::Table(update.clone())));
    assert!(!world.sent.iter().any(|message| matches!(message, ToManager::Table(_))));
    world.input(Input::Data(DataInput::Up(Some(table(2, &[service()]).version))));
    world.input(Input::Data(DataInput::Says(FromData::Applied(update.version))));
    assert!(world.sent.contains(&ToManager::Table(Some(update.version))));
}

fn endpoint(task: u128, service: u128) -> Record {
    let (task, service, node) = (TaskId(task), ServiceId(service), NodeId(1));
    Record::Endpoint(EndpointRecord { task, service, node, state: EndpointState::In })
}

fn counted(task: u128) -> EndpointStats {
    EndpointStats {
        task: TaskId(task),
        connections: 1,
        connections_total: 2,
        bytes_in: 3,
        bytes_out: 4,
        errors: 5,
        source: None,
    }
}

fn ask(world: &mut World, number: u64) {
    let question = Question::Traffic(ServiceId(1));
    world.input(Input::Message(ToAgent::Ask { number, question }));
}

/// The answers that went to the managers, with their numbers.
fn answers(world: &World) -> Vec<(u64, Answer)> {
    let answer = |message: &ToManager| match message {
        ToManager::Answer { number, answer } => Some((*number, answer.clone())),
        _ => None,
    };
    world.sent.iter().filter_map(answer).collect()
}

#[test]
fn the_leader_is_told_the_counters_of_the_service_that_it_asks_for() {
    let mut world = serving();
    let Record::Service(other) = service() else { panic!("it is a service") };
    let other = Record::Service(ServiceRecord { id: ServiceId(2), name: "api".into(), ports: Vec::new(), ..other });
    let records = [node(), service(), other, endpoint(1, 1), endpoint(2, 2)];
    world.input(Input::Message(ToAgent::Table(table(4, &records))));
    world.data.clear();
    ask(&mut world, 7);
    ask(&mut world, 8);
    assert_eq!(world.data, [ToData::Stats], "one look answers both");
    assert_eq!(answers(&world), []);
    let of = |service| ServiceStats {
        service: ServiceId(service),
        connections: 1,
        over_connections: 2,
        over_rate: 3,
        bad_headers: 4,
    };
    let stats = Stats { endpoints: vec![counted(1), counted(2)], services: vec![of(2), of(1)], ..Stats::default() };
    says(&mut world, FromData::Stats(stats));
    let traffic = Answer::Traffic(Traffic { endpoints: vec![counted(1)], service: Some(of(1)) });
    assert_eq!(answers(&world), [(7, traffic.clone()), (8, traffic)]);
}

#[test]
fn a_question_that_the_data_plane_cannot_answer_is_answered_all_the_same() {
    // There is none, and none is needed.
    let mut world = World::with_data_plane();
    world.settle();
    ask(&mut world, 1);
    assert_eq!(answers(&world), [(1, Answer::Traffic(Traffic::default()))]);

    let mut world = serving();
    ask(&mut world, 2);
    world.input(Input::Data(DataInput::Down));
    ask(&mut world, 3);
    let numbers: Vec<_> = answers(&world)
        .into_iter()
        .map(|(number, answer)| match answer {
            Answer::Unable(_) => number,
            other => panic!("nobody counted: {other:?}"),
        })
        .collect();
    assert_eq!(numbers, [2, 3]);

    // The number of a question means nothing in the next session.
    world.input(Input::Data(DataInput::Up(None)));
    ask(&mut world, 4);
    world.session_breaks();
    world.settle();
    says(&mut world, FromData::Stats(Stats::default()));
    assert_eq!(answers(&world).len(), 2);
}

#[test]
fn the_leader_is_told_which_nodes_do_not_answer() {
    let mut world = serving();
    world.data.clear();
    let reach = |nodes: &[NodeId]| Question::Reach(nodes.to_vec());
    let ask = |world: &mut World, number, question| {
        world.input(Input::Message(ToAgent::Ask { number, question }));
    };
    ask(&mut world, 7, reach(&[NodeId(2), NodeId(3)]));
    assert_eq!(world.data, [ToData::Probe { number: 7, nodes: vec![NodeId(2), NodeId(3)] }]);
    let failed = vec![(NodeId(3), "no answer".to_owned())];
    // The answer to a question of an earlier session.
    says(&mut world, FromData::Probed { number: 6, failed: Vec::new() });
    says(&mut world, FromData::Probed { number: 7, failed: failed.clone() });
    assert_eq!(answers(&world), [(7, Answer::Unreached(failed))]);

    ask(&mut world, 8, reach(&[NodeId(2); REACH_NODES_MAX + 1]));
    ask(&mut world, 9, reach(&[NodeId(2)]));
    world.input(Input::Data(DataInput::Down));
    let unable = |answer: &(u64, Answer)| matches!(answer.1, Answer::Unable(_));
    assert!(answers(&world).len() == 3 && answers(&world)[1..].iter().all(unable), "{:?}", answers(&world));
}
