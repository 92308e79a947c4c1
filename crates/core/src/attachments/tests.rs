use std::net::IpAddr;

use swarm_model::{Labels, NamedObject, NetworkContent, NetworkSubnet, NodeRole, ObjectContent, Timestamp};

use super::*;
use crate::{ADDRESS_REST_NS, ENTRY_VERSION, Entry, Object, Op, Tx, apply};

const NETWORK: ObjectId = ObjectId(7);
const NODE: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

/// A state with two nodes and a network of addresses 10.0.1.2 to 10.0.1.6.
struct World {
    state: State,
    time: Timestamp,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::default(), time: Timestamp(1) };
        assert_eq!(world.op(Op::RaiseFeatureLevel { level: ENTRY_VERSION }), Ok(()));
        for node in [NODE, OTHER] {
            let admit = Op::AdmitNode {
                node,
                role: NodeRole::Worker,
                cert_expires_at: Timestamp(i64::MAX),
                manager_addr: None,
                availability: Default::default(),
            };
            assert_eq!(world.op(admit), Ok(()));
        }
        let content = NetworkContent {
            vni: 4097,
            data_port: NetworkContent::DATA_PORT_DEFAULT,
            subnets: vec![NetworkSubnet::new("10.0.1.0/29".parse().unwrap())],
            internal: false,
            attachable: true,
            encrypted: false,
            mtu: None,
            options: Default::default(),
        };
        let content = Arc::new(ObjectContent::Network(content));
        let create = Op::CreateObject { id: NETWORK, name: "tools".into(), labels: Labels::new(), content };
        assert_eq!(world.op(create), Ok(()));
        world
    }

    fn op(&mut self, op: Op) -> Outcome {
        let entry = Entry { v: ENTRY_VERSION, at: self.time, txs: vec![Tx::new(vec![op])] };
        let index = self.state.revision() + 1;
        apply(&mut self.state, index, &entry).0.remove(0)
    }

    fn put(&mut self, id: u128, node: NodeId, addr: &str) -> Outcome {
        self.op(Op::PutAttachment(attachment(id, node, addr)))
    }

    fn choose(&self, asked: &[&str]) -> Result<Vec<IpAddr>, Refusal> {
        let asked: Vec<IpAddr> = asked.iter().map(|addr| ip(addr)).collect();
        self.state.choose_attachment_addrs(TaskId(99), NETWORK, &asked)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
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
    let mut world = World::new();
    assert_eq!(world.choose(&[]), Ok(vec![ip("10.0.1.2")]));
    assert_eq!(world.put(1, NODE, "10.0.1.2"), Ok(()));
    assert!(is_refused(world.put(2, OTHER, "10.0.1.2"), "was given meanwhile"));
    assert!(is_refused(world.put(2, OTHER, "10.0.9.2"), "has no address 10.0.9.2"));
    assert_eq!(world.choose(&[]), Ok(vec![ip("10.0.1.3")]));
    let in_use = world.choose(&["10.0.1.2"]).unwrap_err().to_string();
    assert!(in_use.contains("10.0.1.2") && in_use.contains("already in use"), "{in_use}");

    assert_eq!(world.op(Op::RemoveAttachments { attachments: vec![TaskId(1), TaskId(8)] }), Ok(()));
    assert_eq!(world.state.attachments().count(), 0);
    // The one who asks for it by its number gets it; nobody else gets it before it has rested.
    assert_eq!(world.choose(&["10.0.1.2"]), Ok(vec![ip("10.0.1.2")]));
    for (id, addr) in (3..).zip(["10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6"]) {
        assert_eq!(world.choose(&[]), Ok(vec![ip(addr)]));
        assert_eq!(world.put(id, NODE, addr), Ok(()));
    }
    assert!(world.choose(&[]).unwrap_err().to_string().contains("no free address"));
    world.time = Timestamp(ADDRESS_REST_NS + 1_000);
    assert_eq!(world.op(Op::RemoveAttachments { attachments: vec![] }), Ok(()));
    assert_eq!(world.choose(&[]), Ok(vec![ip("10.0.1.2")]));
}

#[test]
fn addresses_that_nobody_can_have_are_refused() {
    let world = World::new();
    for (asked, reason) in [
        (&["10.0.9.2"][..], "none of its subnets"),
        (&["10.0.1.1"], "reserved"),
        (&["10.0.1.0"], "reserved"),
        (&["10.0.1.7"], "reserved"),
        (&["fd00::1"], "none of its subnets"),
        (&["10.0.1.2", "10.0.1.3"], "give one"),
    ] {
        let refused = world.choose(asked).unwrap_err().to_string();
        assert!(refused.contains(reason), "{asked:?}: {refused}");
    }
    let unknown = world.state.choose_attachment_addrs(TaskId(1), ObjectId(8), &[]);
    assert!(matches!(unknown, Err(Refusal::NotFound { .. })), "{unknown:?}");
}

#[test]
fn names_and_state_change_and_the_place_does_not() {
    let mut world = World::new();
    assert_eq!(world.put(1, NODE, "10.0.1.2"), Ok(()));
    let running = Attachment { is_running: true, ..Attachment::clone(&attachment(1, NODE, "10.0.1.2")) };
    assert_eq!(world.op(Op::PutAttachment(running.clone().into())), Ok(()));
    assert_eq!(**world.state.attachment(TaskId(1)).unwrap(), running);
    assert!(is_refused(world.put(1, OTHER, "10.0.1.2"), "another container's"));
    assert!(is_refused(world.put(1, NODE, "10.0.1.3"), "another container's"));
    assert!(matches!(world.put(2, NodeId(9), "10.0.1.3"), Err(Refusal::NotFound { .. })));
    let nowhere = Attachment { addrs: [].into(), ..running };
    assert!(is_refused(world.op(Op::PutAttachment(Attachment { id: TaskId(5), ..nowhere }.into())), "no address"));
}

#[test]
fn a_network_with_an_attached_container_stays_and_a_removed_node_takes_its_attachments_along() {
    let mut world = World::new();
    let object = world.state.objects(swarm_model::ObjectKind::Network).map(|n| NamedObject::key(n)).next().unwrap();
    assert_eq!(world.put(1, NODE, "10.0.1.2"), Ok(()));
    assert_eq!(world.put(2, OTHER, "10.0.1.3"), Ok(()));
    let refused = world.op(Op::RemoveObject { object });
    assert!(is_refused(refused, "network 'tools' is in use by container c1 on node"));
    assert_eq!(world.op(Op::RemoveNode { node: NODE, force: true }), Ok(()));
    let left: Vec<_> = world.state.attachments_of_network(NETWORK).map(|found| found.id).collect();
    assert_eq!(left, [TaskId(2)]);
    assert_eq!(world.state.attachments_of_node(NODE).count(), 0);
    assert_eq!(world.op(Op::RemoveAttachments { attachments: left }), Ok(()));
    assert_eq!(world.op(Op::RemoveObject { object }), Ok(()));
}

#[test]
fn a_snapshot_has_the_attachments_and_their_addresses() {
    let mut world = World::new();
    assert_eq!(world.put(1, NODE, "10.0.1.2"), Ok(()));
    let pieces: Vec<Object> = world.state.export().collect();
    world.state = State::import(pieces.clone());
    assert_eq!(world.state.export().collect::<Vec<_>>(), pieces);
    assert_eq!(world.state.attachments_of_node(NODE).count(), 1);
    assert!(is_refused(world.put(2, OTHER, "10.0.1.2"), "was given meanwhile"));
}

#[test]
fn attachments_need_a_level_of_their_own() {
    let put = Op::PutAttachment(attachment(1, NODE, "10.0.1.2"));
    assert_eq!(put.feature_level(), crate::ATTACHMENTS_LEVEL);
    assert_eq!(Op::RemoveAttachments { attachments: vec![] }.feature_level(), crate::ATTACHMENTS_LEVEL);
}
