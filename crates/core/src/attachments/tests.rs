use std::net::IpAddr;

use swarm_model::{NetworkContent, NodeRole, ObjectKey, ObjectKind, Timestamp};

use super::*;
use crate::{
    ADDRESS_REST_NS, Object, Op,
    addresses::tests::{NODE, World, create, ip, network},
};

const NETWORK: ObjectId = ObjectId(8);
const OTHER: NodeId = NodeId(2);

/// A state with two nodes and a network that takes containers, of addresses 10.0.2.2 to 10.0.2.6.
fn world() -> World {
    let mut world = World::new();
    let admit = Op::AdmitNode {
        node: OTHER,
        role: NodeRole::Worker,
        cert_expires_at: Timestamp(i64::MAX),
        manager_addr: None,
        availability: Default::default(),
    };
    assert_eq!(world.apply(admit), Ok(()));
    let content = NetworkContent { attachable: true, ..network(4098, "10.0.2.0/29") };
    assert_eq!(world.apply(create(NETWORK, "tools", content)), Ok(()));
    world
}

fn put(world: &mut World, id: u128, node: NodeId, addr: &str) -> Outcome {
    world.apply(Op::PutAttachment(attachment(id, node, addr)))
}

fn choose(world: &World, asked: &[&str]) -> Result<Vec<IpAddr>, Refusal> {
    let asked: Vec<IpAddr> = asked.iter().map(|addr| ip(addr)).collect();
    world.state.choose_attachment_addrs(TaskId(99), NETWORK, &asked)
}

fn attachment(id: u128, node: NodeId, addr: &str) -> Arc<Attachment> {
    Arc::new(Attachment {
        id: TaskId(id),
        node,
        network: NETWORK,
        addrs: [ip(addr)].into(),
        names: [format!("c{id}")].into(),
        is_running: false,
    })
}

fn is_refused(outcome: Outcome, text: &str) -> bool {
    outcome.is_err_and(|refusal| refusal.to_string().contains(text))
}

#[test]
fn an_attachment_holds_its_address_until_it_ends_and_the_address_rests_then() {
    let mut world = world();
    assert_eq!(choose(&world, &[]), Ok(vec![ip("10.0.2.2")]));
    assert_eq!(put(&mut world, 1, NODE, "10.0.2.2"), Ok(()));
    assert!(is_refused(put(&mut world, 2, OTHER, "10.0.2.2"), "was given meanwhile"));
    assert!(is_refused(put(&mut world, 2, OTHER, "10.0.9.2"), "has no address 10.0.9.2"));
    assert_eq!(choose(&world, &[]), Ok(vec![ip("10.0.2.3")]));
    let in_use = choose(&world, &["10.0.2.2"]).unwrap_err().to_string();
    assert!(in_use.contains("10.0.2.2") && in_use.contains("already in use"), "{in_use}");

    assert_eq!(world.apply(Op::RemoveAttachments { attachments: vec![TaskId(1), TaskId(8)] }), Ok(()));
    assert_eq!(world.state.attachments().count(), 0);
    // A request that names the address gets it; no other request gets it before it has rested.
    assert_eq!(choose(&world, &["10.0.2.2"]), Ok(vec![ip("10.0.2.2")]));
    for (id, addr) in (3..).zip(["10.0.2.3", "10.0.2.4", "10.0.2.5", "10.0.2.6"]) {
        assert_eq!(choose(&world, &[]), Ok(vec![ip(addr)]));
        assert_eq!(put(&mut world, id, NODE, addr), Ok(()));
    }
    assert!(choose(&world, &[]).unwrap_err().to_string().contains("no free address"));
    world.time = Timestamp(ADDRESS_REST_NS + 1_000);
    assert_eq!(world.apply(Op::RemoveAttachments { attachments: vec![] }), Ok(()));
    assert_eq!(choose(&world, &[]), Ok(vec![ip("10.0.2.2")]));
}

#[test]
fn addresses_that_nobody_can_have_are_refused() {
    let world = world();
    for (asked, reason) in [
        (&["10.0.9.2"][..], "none of its subnets"),
        (&["10.0.2.1"], "reserved"),
        (&["10.0.2.0"], "reserved"),
        (&["10.0.2.7"], "reserved"),
        (&["fd00::1"], "none of its subnets"),
        (&["10.0.2.2", "10.0.2.3"], "give one"),
    ] {
        let refused = choose(&world, asked).unwrap_err().to_string();
        assert!(refused.contains(reason), "{asked:?}: {refused}");
    }
    let unknown = world.state.choose_attachment_addrs(TaskId(1), ObjectId(9), &[]);
    assert!(matches!(unknown, Err(Refusal::NotFound { .. })), "{unknown:?}");
}

#[test]
fn names_and_state_change_and_the_place_does_not() {
    let mut world = world();
    assert_eq!(put(&mut world, 1, NODE, "10.0.2.2"), Ok(()));
    let running = Attachment { is_running: true, ..Attachment::clone(&attachment(1, NODE, "10.0.2.2")) };
    assert_eq!(world.apply(Op::PutAttachment(running.clone().into())), Ok(()));
    assert_eq!(**world.state.attachment(TaskId(1)).unwrap(), running);
    assert!(is_refused(put(&mut world, 1, OTHER, "10.0.2.2"), "another container's"));
    assert!(is_refused(put(&mut world, 1, NODE, "10.0.2.3"), "another container's"));
    assert!(matches!(put(&mut world, 2, NodeId(9), "10.0.2.3"), Err(Refusal::NotFound { .. })));
    let nowhere = Attachment { addrs: [].into(), ..running };
    assert!(is_refused(world.apply(Op::PutAttachment(Attachment { id: TaskId(5), ..nowhere }.into())), "no address"));
}

#[test]
fn a_network_with_an_attached_container_stays_and_a_removed_node_takes_its_attachments_along() {
    let mut world = world();
    let object = ObjectKey { kind: ObjectKind::Network, id: NETWORK };
    assert_eq!(put(&mut world, 1, NODE, "10.0.2.2"), Ok(()));
    assert_eq!(put(&mut world, 2, OTHER, "10.0.2.3"), Ok(()));
    let refused = world.apply(Op::RemoveObject { object });
    assert!(is_refused(refused, "network 'tools' is in use by container c1 on node"));
    assert_eq!(world.apply(Op::RemoveNode { node: NODE, force: true }), Ok(()));
    let left: Vec<_> = world.state.attachments_of_network(NETWORK).map(|found| found.id).collect();
    assert_eq!(left, [TaskId(2)]);
    assert_eq!(world.state.attachments_of_node(NODE).count(), 0);
    assert_eq!(world.apply(Op::RemoveAttachments { attachments: left }), Ok(()));
    assert_eq!(world.apply(Op::RemoveObject { object }), Ok(()));
}

#[test]
fn a_snapshot_has_the_attachments_and_their_addresses() {
    let mut world = world();
    assert_eq!(put(&mut world, 1, NODE, "10.0.2.2"), Ok(()));
    let pieces: Vec<Object> = world.state.export().collect();
    world.state = State::import(pieces.clone());
    assert_eq!(world.state.export().collect::<Vec<_>>(), pieces);
    assert_eq!(world.state.attachments_of_node(NODE).count(), 1);
    assert!(is_refused(put(&mut world, 2, OTHER, "10.0.2.2"), "was given meanwhile"));
}

#[test]
fn attachments_need_a_level_of_their_own() {
    let put = Op::PutAttachment(attachment(1, NODE, "10.0.2.2"));
    assert_eq!(put.feature_level(), crate::ATTACHMENTS_LEVEL);
    assert_eq!(Op::RemoveAttachments { attachments: vec![] }.feature_level(), crate::ATTACHMENTS_LEVEL);
}
