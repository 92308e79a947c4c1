//! The worker and containers that are no tasks.

use std::net::IpAddr;

use swarm_dataplane::protocol::ToData;
use swarm_model::{DesiredState, ObjectId, TaskId};
use swarm_net::protocol::ToNet;
use swarm_wire::agent::{
    AttachmentAnswers, AttachmentRefusal, GrantedAttachment, Item, ItemChange, Shared, ToAgent, WantedAttachment,
};

use super::{
    networks::{abilities, network},
    world::World,
};
use crate::{
    executor::{AttachedContainer, AttachedNetwork, ContainerEvent},
    worker::{
        AttachmentAsk, AttachmentError, AttachmentGrant, AttachmentInput, AttachmentOutput, DataInput, Input, NetInput,
        RETRY_MS,
    },
};

const NETWORK: ObjectId = ObjectId(70);
const ASKED: TaskId = TaskId(9);
const CONTAINER: &str = "c1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with a session, whose managers take attachments.
fn world() -> World {
    let mut world = World::with_networks();
    world.settle();
    world.attachments.clear();
    world
}

fn ask(world: &mut World, addrs: &[&str]) {
    let addrs = addrs.iter().map(|addr| ip(addr)).collect();
    let ask = AttachmentAsk { id: ASKED, network: "net".into(), addrs, container: None };
    world.input(Input::Attachment(AttachmentInput::Ask(ask)));
}

fn wanted(world: &World) -> Vec<WantedAttachment> {
    world.attachments.last().expect("the managers were told").wanted.clone()
}

/// The managers answer the last message.
fn answer(world: &mut World, answer: Result<&str, AttachmentRefusal>) {
    let last = world.attachments.last().expect("the managers were told");
    let answer = answer.map(|addr| GrantedAttachment { network: NETWORK, addrs: vec![ip(addr)] });
    let answers = last.wanted.iter().map(|wanted| (wanted.id, answer.clone())).collect();
    let answers = AttachmentAnswers { number: last.number, answers };
    world.input(Input::Message(ToAgent::Attachments(answers)));
}

/// The managers tell the node of the network, and `swarmd net` and the data plane are there.
fn learn_network(world: &mut World) {
    world.tell(vec![ItemChange::Put(Item::Object(Shared::new(&network()).unwrap()))]);
    world.input(Input::Net(NetInput::Up(abilities())));
    world.input(Input::Data(DataInput::Up(None)));
}

fn answered(world: &World) -> Option<Result<AttachmentGrant, AttachmentError>> {
    world.attachment_outputs.iter().rev().find_map(|output| match output {
        AttachmentOutput::Answer(ASKED, answer) => Some(answer.clone()),
        _ => None,
    })
}

fn container(is_running: bool) -> AttachedContainer {
    let names = vec!["shell".to_owned(), "alias".to_owned()];
    AttachedContainer {
        id: CONTAINER.into(),
        networks: vec![AttachedNetwork { network: NETWORK, addrs: vec![ip("10.0.1.5")], names }],
        is_running,
        pid: 7,
        sandbox: None,
        nameservers: Vec::new(),
    }
}

/// A node whose container runs in the network.
fn running() -> World {
    let mut world = world();
    ask(&mut world, &[]);
    answer(&mut world, Ok("10.0.1.5"));
    learn_network(&mut world);
    world.input(Input::Attachment(AttachmentInput::Given { id: ASKED, container: CONTAINER.into() }));
    world.attached = vec![container(true)];
    world.input(Input::Container(ContainerEvent::NetworkChanged(None)));
    world
}

#[test]
fn the_api_gets_an_address_when_the_node_has_the_network() {
    let mut world = world();
    ask(&mut world, &["10.0.1.5"]);
    let asked = &wanted(&world)[0];
    assert_eq!(
        (asked.id, &*asked.network, &asked.addrs[..], asked.is_running),
        (ASKED, "net", &[ip("10.0.1.5")][..], false)
    );
    answer(&mut world, Ok("10.0.1.5"));
    assert_eq!(answered(&world), None, "the node has no network yet");
    world.tell(vec![ItemChange::Put(Item::Object(Shared::new(&network()).unwrap()))]);
    assert!(world.needs_net);
    assert_eq!(answered(&world), None, "swarmd net is not there yet");
    world.input(Input::Net(NetInput::Up(abilities())));
    let grant = answered(&world).expect("an answer").expect("a place");
    assert_eq!((grant.id, grant.network.id, &grant.addrs[..]), (ASKED, NETWORK, &[ip("10.0.1.5")][..]));
}

#[test]
fn what_the_managers_refuse_is_not_asked_again() {
    let mut world = world();
    ask(&mut world, &[]);
    answer(&mut world, Err(AttachmentRefusal::NotAttachable));
    assert_eq!(answered(&world), Some(Err(AttachmentError::Refused(AttachmentRefusal::NotAttachable))));
    assert_eq!(wanted(&world), []);
}

#[test]
fn the_api_is_told_why_there_is_no_answer() {
    let reason = |world: &mut World| {
        world.input(Input::Attachment(AttachmentInput::Overdue(ASKED)));
        match answered(world) {
            Some(Err(AttachmentError::Unavailable(reason))) => reason,
            other => panic!("{other:?}"),
        }
    };
    let mut granted = world();
    ask(&mut granted, &[]);
    answer(&mut granted, Ok("10.0.1.5"));
    assert!(reason(&mut granted).contains("swarmd net"));
    let mut silent = world();
    ask(&mut silent, &[]);
    assert!(reason(&mut silent).contains("did not answer"));
    assert_eq!(wanted(&silent), [], "it is given back");
    let mut alone = world();
    alone.answers = false;
    alone.input(Input::Disconnected("gone".into()));
    ask(&mut alone, &[]);
    assert!(reason(&mut alone).contains("no connection to a manager"));
}

#[test]
fn a_container_has_tables_and_names_before_its_start_and_is_shown_when_it_runs() {
    let mut world = world();
    ask(&mut world, &[]);
    answer(&mut world, Ok("10.0.1.5"));
    learn_network(&mut world);
    world.attached = vec![container(false)];
    world.input(Input::Attachment(AttachmentInput::Given { id: ASKED, container: CONTAINER.into() }));
    let addrs = [(NETWORK, ip("10.0.1.5"))];
    let put = |message: &ToNet| matches!(message, ToNet::PutContainer(c) if c.id == CONTAINER && c.addrs == addrs);
    assert!(world.net.iter().any(put), "{:?}", world.net);
    assert!(!wanted(&world)[0].is_running);
    world.attached = vec![container(true)];
    world.input(Input::Container(ContainerEvent::NetworkChanged(None)));
    let shown = &wanted(&world)[0];
    assert_eq!((shown.is_running, &shown.names[..]), (true, &["shell".to_owned(), "alias".to_owned()][..]));
    let sandbox =
        |message: &ToNet| matches!(message, ToNet::PutContainer(c) if c.sandbox == Some("/proc/7/ns/net".into()));
    assert!(world.net.iter().any(sandbox), "{:?}", world.net);
    let named = |message: &ToData| matches!(message, ToData::PutContainer(names) if names.task.is_none() && names.networks[0].names == ["shell", "alias"]);
    assert!(world.data.iter().any(named), "{:?}", world.data);
}

#[test]
fn a_container_that_has_ended_is_in_no_network() {
    let mut world = running();
    world.attached.clear();
    world.input(Input::Container(ContainerEvent::NetworkChanged(None)));
    assert_eq!(wanted(&world), []);
    assert!(world.net.contains(&ToNet::RemoveContainer(CONTAINER.into())));
    assert!(world.data.contains(&ToData::RemoveContainer(CONTAINER.into())));
}

#[test]
fn a_place_that_no_container_got_is_given_back() {
    let mut world = world();
    ask(&mut world, &[]);
    answer(&mut world, Ok("10.0.1.5"));
    // A listing takes nothing away that the API is about to use.
    world.input(Input::Container(ContainerEvent::NetworkChanged(None)));
    assert_eq!(wanted(&world).len(), 1);
    world.input(Input::Attachment(AttachmentInput::Withdraw(ASKED)));
    assert_eq!(wanted(&world), []);
}

#[test]
fn a_new_run_tells_of_the_containers_that_run_and_takes_nothing_away_before() {
    let mut new = World::with_networks_and(vec![container(true)]);
    new.settle();
    let first = new.attachments.first().expect("the managers were told").wanted.clone();
    assert_eq!(first.len(), 1, "the first word is of the container");
    assert_eq!((&*first[0].network, &first[0].addrs[..]), (&*NETWORK.to_string(), &[ip("10.0.1.5")][..]));
    learn_network(&mut new);
    assert!(!new.net.contains(&ToNet::Complete), "{:?}", new.net);
    answer(&mut new, Ok("10.0.1.5"));
    assert!(new.net.iter().any(|message| matches!(message, ToNet::PutContainer(c) if c.id == CONTAINER)));
}

#[test]
fn containers_that_the_managers_refuse_are_disconnected_but_for_those_of_others() {
    for (refusal, is_detached) in [
        (AttachmentRefusal::NotAttachable, true),
        (AttachmentRefusal::Other("Address already in use".into()), true),
        (AttachmentRefusal::NoNetwork, false),
        (AttachmentRefusal::OtherNode, false),
    ] {
        let mut world = world();
        world.attached = vec![container(true)];
        world.input(Input::Container(ContainerEvent::NetworkChanged(None)));
        assert_eq!(wanted(&world).len(), 1);
        answer(&mut world, Err(refusal.clone()));
        let detached = world.attachment_outputs.iter().any(
            |output| matches!(output, AttachmentOutput::Detach { network: NETWORK, container } if container == CONTAINER),
        );
        assert_eq!(detached, is_detached, "{refusal:?}");
        world.input(Input::Container(ContainerEvent::NetworkChanged(None)));
        // A container of another node or cluster is asked for once.
        assert_eq!(wanted(&world).len(), usize::from(is_detached), "{refusal:?}");
    }
}

#[test]
fn the_managers_are_told_again_until_they_answer_and_by_each_session() {
    let mut world = running();
    let told = world.attachments.len();
    answer(&mut world, Ok("10.0.1.5"));
    world.wait(3 * RETRY_MS);
    assert_eq!(world.attachments.len(), told, "it was answered");
    world.input(Input::Disconnected("gone".into()));
    world.settle();
    let told = world.attachments.len();
    assert_eq!(wanted(&world).len(), 1);
    world.wait(2 * RETRY_MS);
    assert!(world.attachments.len() > told, "no answer came");
}

#[test]
fn a_node_that_leaves_takes_its_containers_out_of_their_networks() {
    let mut world = running();
    answer(&mut world, Ok("10.0.1.5"));
    world.input(Input::Leave);
    let detached = |output: &AttachmentOutput| matches!(output, AttachmentOutput::Detach { container, .. } if container == CONTAINER);
    assert!(world.attachment_outputs.iter().any(detached));
    world.attachment_outputs.clear();
    ask(&mut world, &[]);
    assert!(matches!(answered(&world), Some(Err(AttachmentError::Unavailable(_)))));
}

#[test]
fn the_start_of_a_task_lists_no_attached_containers() {
    let mut world = running();
    world.want(TaskId(1), DesiredState::Running);
    world.settle();
    let of_task = world.worker.container_id(TaskId(1)).expect("a container").to_owned();
    world.attached.clear();
    let told = world.attachments.len();
    for (container, is_listed) in [(of_task, false), ("c7".to_owned(), true)] {
        world.input(Input::Container(ContainerEvent::NetworkChanged(Some(container.clone()))));
        // A listing finds that the attached container is gone, and the managers are told.
        assert_eq!(world.attachments.len() > told, is_listed, "{container}");
    }
}
