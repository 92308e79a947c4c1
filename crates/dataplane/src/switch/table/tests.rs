use swarm_model::{ObjectId, ServiceId, TaskId};
use swarm_wire::{
    agent::Shared,
    networks::{MemberChange, NetworkNodeRecord, NetworkUpdate},
};

use super::*;

const OWN: NodeId = NodeId(1);
const BESIDE: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const THIRD: NodeId = NodeId(4);

fn addr(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn mac(last: u8) -> Mac {
    [2, 0x42, 10, 0, 0, last]
}

fn node(id: NodeId, engine: &str) -> Member {
    Member::Node(NetworkNodeRecord { id, data_addr: [192, 0, 2, 1].into(), engine: engine.to_owned() })
}

fn task(last: u8, node: NodeId, state: NetworkEndpointState) -> Member {
    let (task, service) = (TaskId(last.into()), ServiceId(7));
    Member::Endpoint(NetworkEndpointRecord {
        task,
        service: Some(service),
        node,
        addrs: vec![addr(last)],
        names: vec![],
        state,
    })
}

fn put(member: &Member) -> MemberChange {
    MemberChange::Put(Shared::new(member).unwrap())
}

#[derive(Default)]
struct Network {
    members: Members,
    table: Table,
}

impl Network {
    fn take(&mut self, full: bool, changes: &[MemberChange]) {
        for update in NetworkUpdate::batches(ObjectId(5), full, Default::default(), changes) {
            let changed = self.members.take(&update).unwrap();
            self.table.change(&self.members, &changed);
        }
    }
}

/// A task of each node. The second node shares the engine of this one.
fn network() -> Network {
    let mut network = Network::default();
    let nodes = [(OWN, "a"), (BESIDE, "a"), (OTHER, "b"), (THIRD, "")];
    let members = nodes.iter().map(|(id, engine)| put(&node(*id, engine)));
    let tasks = nodes.iter().map(|(id, _)| put(&task(id.0 as u8, *id, NetworkEndpointState::In)));
    network.take(true, &members.chain(tasks).collect::<Vec<_>>());
    network
}

#[test]
fn frames_go_to_containers_of_other_engines_only() {
    let Network { table, .. } = network();
    let ways = [1, 2, 3, 4, 9].map(|last| table.way_to(mac(last), OWN));
    assert_eq!(ways, [None, None, Some(OTHER), Some(THIRD), None]);
    assert_eq!([1, 2, 3, 9].map(|last| table.owner(addr(last), OWN)), [None, None, Some(mac(3)), None]);
    // Without an engine each node is for itself.
    assert_eq!(table.way_to(mac(4), OTHER), Some(THIRD));
}

#[test]
fn a_frame_is_admitted_from_a_container_of_its_node_to_one_of_this_node() {
    let Network { table, .. } = network();
    let admit = |node, from, to| table.admit(node, OWN, mac(from), mac(to));
    assert_eq!(admit(OTHER, 3, 1), Ok(()));
    assert_eq!(admit(OTHER, 3, 2), Ok(()), "it is on the same bridge");
    assert_eq!(admit(OTHER, 4, 1), Err(Refusal::Forged), "the container of a third node");
    assert_eq!(admit(OTHER, 1, 1), Err(Refusal::Forged), "a container of this node");
    assert_eq!(admit(BESIDE, 1, 2), Err(Refusal::Forged), "frames of one engine need no link");
    assert_eq!(admit(OTHER, 9, 1), Err(Refusal::Unknown), "nobody's");
    assert_eq!(admit(OTHER, 3, 4), Err(Refusal::Stray));
    assert_eq!(table.admit(OTHER, OWN, mac(3), [0xff; 6]), Err(Refusal::Stray));
}

#[test]
fn what_changes_is_followed() {
    let mut network = network();
    // The task is gone with its node; another one has moved.
    network.take(
        false,
        &[put(&task(3, OTHER, NetworkEndpointState::Gone)), put(&task(4, OTHER, NetworkEndpointState::In))],
    );
    assert_eq!([3, 4].map(|last| network.table.way_to(mac(last), OWN)), [None, Some(OTHER)]);
    assert_eq!(network.table.owner(addr(3), OWN), None);
    // A node gets the engine of this one.
    network.take(false, &[put(&node(OTHER, "a"))]);
    assert_eq!(network.table.way_to(mac(4), OWN), None);
    // An address passes from one task to another by one change.
    let remove = MemberChange::Remove(MemberKey::Endpoint(TaskId(2)));
    let next = NetworkEndpointRecord { task: TaskId(12), ..network.members.endpoint(TaskId(2)).unwrap().clone() };
    network.take(false, &[put(&Member::Endpoint(NetworkEndpointRecord { node: THIRD, ..next })), remove]);
    assert_eq!(network.table.way_to(mac(2), OWN), Some(THIRD));
    network.take(true, &[]);
    assert_eq!(network.table.way_to(mac(2), OWN), None);
    assert!(network.table.owners.is_empty() && network.table.engines.is_empty());
}
