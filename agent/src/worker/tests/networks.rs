//! The worker, `swarmd net` and the data plane: tasks in networks.

use std::{net::IpAddr, sync::Arc};

use swarm_dataplane::protocol::{ToData, VirtualAddrs};
use swarm_model::{
    DesiredState as D, NetworkAddr, NetworkContent, NetworkSubnet, NodeId, ObjectContent, ObjectId, ObjectKey,
    ObjectKind, ServiceId, TaskId, TaskState as S,
};
use swarm_net::protocol::{Abilities, FromNet, ToNet};
use swarm_wire::{
    agent::{AssignedObject, Item, ItemChange, ItemKey, Shared, ToAgent},
    endpoints::TableVersion,
    networks::{
        Member, MemberChange, MemberKey, NetworkEndpointRecord, NetworkEndpointState, NetworkNodeRecord,
        NetworkServiceRecord, NetworkUpdate,
    },
};

use super::world::{World, put_task};
use crate::{
    testing::{assigned_spec, assigned_task},
    worker::{DataInput, Input, NetInput},
};

const NETWORK: ObjectId = ObjectId(70);
const TASK: TaskId = TaskId(1);
const OTHER: TaskId = TaskId(2);
const SERVICE: ServiceId = ServiceId(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn network() -> AssignedObject {
    network_with(false)
}

fn network_with(encrypted: bool) -> AssignedObject {
    let content = NetworkContent {
        vni: 4097,
        data_port: 4789,
        subnets: vec![NetworkSubnet::new("10.0.1.0/24".parse().unwrap())],
        internal: false,
        attachable: false,
        encrypted,
        mtu: None,
        options: Default::default(),
    };
    AssignedObject { id: NETWORK, name: "net".into(), content: Arc::new(ObjectContent::Network(content)) }
}

fn key() -> ObjectKey {
    ObjectKey { kind: ObjectKind::Network, id: NETWORK }
}

pub(super) fn abilities() -> Abilities {
    Abilities { vxlan: Ok(()), tun: Ok(()), nft: Ok(()), setns: Ok(()) }
}

fn endpoint(task: TaskId, node: u128, addr: &str, state: NetworkEndpointState) -> Member {
    let names = vec![format!("web.{}.{task}", task.0)];
    let node = NodeId(node);
    Member::Endpoint(NetworkEndpointRecord { task, service: Some(SERVICE), node, addrs: vec![ip(addr)], names, state })
}

fn node(id: u128) -> Member {
    let data_addr = ip(&format!("192.168.0.{id}"));
    Member::Node(NetworkNodeRecord { id: NodeId(id), data_addr, engine: format!("engine{id}") })
}

fn service() -> Member {
    let (name, virtual_addrs) = ("web".into(), vec![ip("10.0.1.2")]);
    Member::Service(NetworkServiceRecord { id: SERVICE, name, aliases: Vec::new(), virtual_addrs })
}

fn update(full: bool, puts: &[Member], removes: &[MemberKey]) -> ToAgent {
    let puts = puts.iter().map(|member| MemberChange::Put(Shared::new(member).unwrap()));
    let changes = puts.chain(removes.iter().copied().map(MemberChange::Remove)).collect();
    let version = TableVersion { revision: 1, digest: 0 };
    ToAgent::Network(NetworkUpdate { network: NETWORK, full, complete: true, version, changes })
}

/// A node with a task in the network, whose container is made.
fn with_task() -> World {
    with_task_in(&network())
}

fn with_task_in(network: &AssignedObject) -> World {
    let mut world = World::with_networks();
    world.settle();
    let mut task = assigned_task(TASK.0, D::Running);
    task.needs = [key()].into();
    task.addrs = [NetworkAddr { network: NETWORK, addr: ip("10.0.1.10") }].into();
    let spec = ItemChange::Put(Item::Spec(Shared::new(&assigned_spec("hello:1")).unwrap()));
    let object = ItemChange::Put(Item::Object(Shared::new(network).unwrap()));
    world.wanted.insert(TASK, task.clone());
    world.tell(vec![object, spec, put_task(task)]);
    assert!(world.needs_net && world.needs_data);
    world.settle();
    world
}

/// The same with both processes there, and another node that has a task of the service.
fn running() -> World {
    let mut world = with_task();
    world.input(Input::Data(DataInput::Up(None)));
    world.input(Input::Net(NetInput::Up(abilities())));
    let there = [service(), node(1), node(2), endpoint(OTHER, 2, "10.0.1.11", NetworkEndpointState::In)];
    world.input(Input::Message(update(true, &there, &[])));
    world.settle();
    assert_eq!(world.state(TASK), Some(S::Running));
    world
}

#[test]
fn an_encrypted_network_is_never_made_as_one_in_clear_text() {
    let mut world = with_task_in(&network_with(true));
    let lacks = Abilities { tun: Err("there is no /dev/net/tun".into()), ..abilities() };
    world.input(Input::Net(NetInput::Up(lacks)));
    let reason = world.error(TASK).unwrap_or_default();
    assert_eq!(reason, "this node cannot be in the encrypted network net: there is no /dev/net/tun");
    let without_vxlan = Abilities { vxlan: Err("the kernel has no VXLAN".into()), ..abilities() };
    world.input(Input::Net(NetInput::Up(without_vxlan)));
    world.settle();
    assert_eq!(world.state(TASK), Some(S::Running));
    let networks = world.net.iter().filter_map(|message| match message {
        ToNet::PutNetwork(network) => Some((network.encrypted, network.mtu)),
        _ => None,
    });
    assert!(networks.clone().count() > 0 && networks.clone().all(|network| network == (true, 1500)));
}

#[test]
fn a_container_is_not_started_before_its_networks_can_be_made() {
    let mut world = with_task();
    assert_eq!(world.state(TASK), Some(S::Starting));
    let reason = |world: &World| world.error(TASK).unwrap_or_default();
    assert!(reason(&world).contains("waits for swarmd net"), "{}", reason(&world));
    world.input(Input::Net(NetInput::Down("no permission".into())));
    let lacks = Abilities { vxlan: Err("the kernel has no VXLAN".into()), ..abilities() };
    world.input(Input::Net(NetInput::Up(lacks)));
    assert!(reason(&world).contains("the kernel has no VXLAN"), "{}", reason(&world));
    world.input(Input::Net(NetInput::Up(abilities())));
    world.settle();
    assert_eq!(world.state(TASK), Some(S::Running));
    let told = |message: &&ToNet| matches!(message, ToNet::PutContainer(c) if c.addrs == [(NETWORK, ip("10.0.1.10"))]);
    assert!(world.net.iter().any(|message| told(&message)), "{:?}", world.net);
}

#[test]
fn tasks_of_other_nodes_are_peers_and_stand_behind_virtual_addresses() {
    let mut world = running();
    let put = ToNet::PutPeer { network: NETWORK, addrs: vec![ip("10.0.1.11")], at: ip("192.168.0.2") };
    assert!(world.net.contains(&put));
    let behind = |backends: &[&str]| ToNet::PutService {
        network: NETWORK,
        service: SERVICE,
        virtual_addrs: vec![ip("10.0.1.2")],
        backends: backends.iter().map(|addr| ip(addr)).collect(),
    };
    assert!(world.net.contains(&behind(&["10.0.1.11"])));
    // A task of this node is no peer.
    world.net.clear();
    let own = endpoint(TASK, 1, "10.0.1.10", NetworkEndpointState::In);
    world.input(Input::Message(update(false, &[own], &[])));
    assert_eq!(world.net, [behind(&["10.0.1.10", "10.0.1.11"])]);
    // A task that drains can be reached, and gets no new connections.
    world.net.clear();
    let drains = endpoint(OTHER, 2, "10.0.1.11", NetworkEndpointState::Draining);
    world.input(Input::Message(update(false, &[drains], &[])));
    assert_eq!(world.net, [behind(&["10.0.1.10"])]);
    // Connections to a task whose node is down are reset.
    world.net.clear();
    let gone = endpoint(OTHER, 2, "10.0.1.11", NetworkEndpointState::Gone);
    world.input(Input::Message(update(false, &[gone], &[MemberKey::Node(NodeId(2))])));
    let addrs = vec![ip("10.0.1.11")];
    let addr = ip("10.0.1.11");
    assert_eq!(world.net, [ToNet::RemovePeer { network: NETWORK, addrs }, ToNet::PutGone { network: NETWORK, addr }]);
    world.net.clear();
    world.input(Input::Message(update(false, &[], &[MemberKey::Endpoint(OTHER)])));
    assert_eq!(world.net, [ToNet::RemoveGone { network: NETWORK, addr }]);
}

#[test]
fn names_wait_for_virtual_addresses() {
    let mut world = running();
    let state = |world: &World| {
        world.data.iter().rev().find_map(|message| match message {
            ToData::PutContainer(names) => Some((names.virtual_addrs, names.networks[0].names[0].clone())),
            _ => None,
        })
    };
    let name = format!("web.1.{TASK}");
    assert_eq!(state(&world), Some((VirtualAddrs::Loading, name.clone())));
    world.input(Input::Net(NetInput::Says(FromNet::Ready { container: format!("c{TASK}") })));
    assert_eq!(state(&world), Some((VirtualAddrs::Loaded, name.clone())));
    // A node that cannot have them says so at once.
    world.input(Input::Net(NetInput::Up(Abilities { nft: Err("no".into()), ..abilities() })));
    world.input(Input::Data(DataInput::Up(None)));
    assert_eq!(state(&world), Some((VirtualAddrs::Missing, name)));
}

#[test]
fn a_new_connection_is_told_all_and_then_that_this_is_all() {
    let mut world = running();
    world.net.clear();
    world.input(Input::Net(NetInput::Up(abilities())));
    assert!(
        matches!(
            world.net[..],
            [
                ToNet::PutNetwork(_),
                ToNet::PutPeer { .. },
                ToNet::PutService { .. },
                ToNet::PutContainer(_),
                ToNet::Complete
            ]
        ),
        "{:?}",
        world.net
    );
    world.data.clear();
    world.input(Input::Data(DataInput::Up(None)));
    let keep = ToData::KeepNames { networks: vec![NETWORK], containers: vec![format!("c{TASK}")] };
    assert!(world.data.contains(&keep), "{:?}", world.data);
    // While the records of a network have not come, nothing that is there is taken away.
    let mut world = with_task();
    world.input(Input::Net(NetInput::Up(abilities())));
    assert!(!world.net.contains(&ToNet::Complete));
    world.input(Input::Message(update(true, &[], &[])));
    assert!(world.net.contains(&ToNet::Complete));
}

#[test]
fn a_network_goes_with_its_last_task() {
    let mut world = running();
    assert_eq!(world.kept.as_deref(), Some(&[NETWORK][..]));
    world.net.clear();
    world.unassign(TASK);
    world.settle();
    assert!(world.net.contains(&ToNet::RemoveContainer(format!("c{TASK}"))));
    world.tell(vec![ItemChange::Remove(ItemKey::Object(key()))]);
    assert_eq!(world.net.last(), Some(&ToNet::RemoveNetwork(NETWORK)));
    assert_eq!(world.kept.as_deref(), Some(&[][..]));
}
