use proptest::prelude::*;
use swarm_core::{ENTRY_VERSION, Entry, apply};
use swarm_model::{NodeDescription, NodeStatus, ObjectId, Timestamp};

use super::*;
use crate::testing::{World, description, network_of, ready};

const TOOLS: ObjectId = ObjectId(70);
const CLOSED: ObjectId = ObjectId(71);
const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);

fn world() -> World {
    let mut world = World::new(2);
    world.apply(network_of(TOOLS, "tools", 1, true));
    world.apply(network_of(CLOSED, "closed", 2, false));
    world
}

fn want(id: u128, network: &str, addrs: &[&str]) -> WantedAttachment {
    WantedAttachment {
        id: TaskId(id),
        network: network.to_owned(),
        addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
        names: vec![format!("c{id}")],
        is_running: false,
    }
}

/// Proposes for a node until nothing is left to propose, as a session does. Returns the answers.
fn settle(
    world: &mut World,
    node: NodeId,
    wanted: &[WantedAttachment],
) -> Vec<Result<GrantedAttachment, AttachmentRefusal>> {
    for _ in 0..PROPOSALS_MAX {
        let Look { txs, answers } = look(&world.state, node, wanted);
        if txs.is_empty() {
            return answers.into_iter().map(|(_, answer)| answer).collect();
        }
        let index = world.state.revision() + 1;
        let entry = Entry { v: ENTRY_VERSION, at: Timestamp(index as i64), txs };
        apply(&mut world.state, index, &entry);
    }
    panic!("it does not settle");
}

fn granted(addr: &str) -> Result<GrantedAttachment, AttachmentRefusal> {
    Ok(GrantedAttachment { network: TOOLS, addrs: vec![addr.parse().unwrap()] })
}

fn other(answer: &Result<GrantedAttachment, AttachmentRefusal>) -> &str {
    match answer {
        Err(AttachmentRefusal::Other(reason)) => reason,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn a_node_has_the_attachments_that_it_wants_and_no_others() {
    let mut world = world();
    // Two at once get two addresses, by name or by id.
    let (one, two) = (want(1, "tools", &[]), want(2, &TOOLS.to_string(), &[]));
    let answers = settle(&mut world, N1, &[one.clone(), two.clone()]);
    assert_eq!(answers, [granted("10.0.1.2"), granted("10.0.1.3")]);
    // Asked again, nothing changes; another node's are not touched.
    assert_eq!(settle(&mut world, N2, &[want(3, "tools", &["10.0.1.9"])]), [granted("10.0.1.9")]);
    assert!(look(&world.state, N1, &[one.clone(), two]).txs.is_empty());
    // An attachment that the node does not name any more is gone.
    let running = WantedAttachment { is_running: true, names: vec!["new".into()], ..one };
    assert_eq!(settle(&mut world, N1, &[running]), [granted("10.0.1.2")]);
    let left: Vec<_> = world.state.attachments().map(|found| (found.id.0, found.is_running)).collect();
    assert_eq!(left, [(1, true), (3, false)]);
    assert_eq!(settle(&mut world, N1, &[]), []);
    assert_eq!(world.state.attachments_of_node(N1).count(), 0);
}

#[test]
fn a_node_that_was_started_anew_keeps_its_attachments_by_their_addresses() {
    let mut world = world();
    settle(&mut world, N1, &[want(1, "tools", &[])]);
    let found = WantedAttachment { names: vec!["c1".into()], ..want(8, &TOOLS.to_string(), &["10.0.1.2"]) };
    assert!(look(&world.state, N1, std::slice::from_ref(&found)).txs.is_empty());
    assert_eq!(settle(&mut world, N1, &[found]), [granted("10.0.1.2")]);
    assert!(world.state.attachment(TaskId(1)).is_some());
}

#[test]
fn a_node_gets_nothing_that_it_may_not_have() {
    let mut world = world();
    settle(&mut world, N2, &[want(5, "tools", &["10.0.1.5"])]);
    let revision = world.state.revision();
    let mut one = |want: WantedAttachment| settle(&mut world, N1, &[want]).remove(0);
    assert_eq!(one(want(1, "closed", &[])), Err(AttachmentRefusal::NotAttachable));
    assert_eq!(one(want(1, &CLOSED.to_string(), &["10.0.2.5"])), Err(AttachmentRefusal::NotAttachable));
    for nowhere in ["nowhere", "", "ingress", "bridge", &"x".repeat(100_000), &ObjectId(9).to_string()] {
        assert_eq!(one(want(1, nowhere, &[])), Err(AttachmentRefusal::NoNetwork));
    }
    assert!(other(&one(want(1, "tools", &["10.0.9.9"]))).contains("none of its subnets"));
    assert!(other(&one(want(1, "tools", &["10.0.1.1"]))).contains("reserved"));
    assert!(other(&one(want(1, "tools", &["10.0.1.5"]))).contains("already in use"));
    // The attachment of another node.
    assert!(other(&one(want(5, "tools", &["10.0.1.5"]))).contains("id of another container"));
    let named = |names: Vec<String>| WantedAttachment { names, ..want(1, "tools", &[]) };
    for names in [vec![String::new()], vec!["a b".into()], vec!["x".repeat(300)], vec!["a".into(); 100]] {
        other(&one(named(names)));
    }
    assert_eq!(world.state.revision(), revision, "nothing was written");
    assert_eq!(world.state.attachments().count(), 1);
}

#[test]
fn a_container_that_another_node_of_the_engine_has_is_left_to_that_node() {
    let mut world = world();
    for node in [N1, N2] {
        let engine_id = "engine".to_owned();
        let description = NodeDescription { engine_id, ..description("host") };
        let Op::ReportNode { status, .. } = ready(node) else { unreachable!("it is a report") };
        let status = NodeStatus { ..status };
        world.apply(Op::ReportNode { node, status, description: Some(Arc::new(description)) });
    }
    assert_eq!(settle(&mut world, N1, &[want(1, "tools", &["10.0.1.5"])]), [granted("10.0.1.5")]);
    let found = want(2, &TOOLS.to_string(), &["10.0.1.5"]);
    assert_eq!(settle(&mut world, N2, &[found]), [Err(AttachmentRefusal::OtherNode)]);
}

proptest! {
    #[test]
    fn whatever_a_node_wants_settles_and_takes_nothing_from_another_node(
        wanted in prop::collection::vec(
            (0..6_u128, "tools|closed|[a-z]{0,3}", prop::collection::vec(0..8_u8, 0..3), "\\PC{0,3}", any::<bool>()),
            0..8,
        ),
    ) {
        let mut world = world();
        settle(&mut world, N2, &[want(1, "tools", &["10.0.1.5"])]);
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(id, network, addrs, name, is_running)| WantedAttachment {
                id: TaskId(id),
                network,
                addrs: addrs.into_iter().map(|last| IpAddr::from([10, 0, 1, last])).collect(),
                names: vec![name],
                is_running,
            })
            .collect();
        let answers = settle(&mut world, N1, &wanted);
        prop_assert_eq!(answers.len(), wanted.len());
        prop_assert_eq!(world.state.attachments_of_node(N2).count(), 1);
        let all: Vec<_> = world.state.attachments().flat_map(|found| found.network_addrs()).collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        prop_assert_eq!(distinct.len(), all.len());
    }
}
