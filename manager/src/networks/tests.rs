//! Tests of the records of networks as the state has them.

use std::sync::Arc;

use swarm_core::Op;
use swarm_model::{DataAddress, DesiredState, NetworkAttachment, NodeDescription, NodeStatus, TaskStatus, Timestamp};

use super::*;
use crate::{
    feed::{AssignmentKey, AssignmentWatch, Changes, Feed},
    testing::{FakeRaft, World, description, network, task_id, task_in},
};

const NETWORK: ObjectId = ObjectId(70);
const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);

fn report(node: NodeId, state: NodeState) -> Op {
    let data_address = Some(DataAddress { addr: None, port: 7946 });
    let engine_id = format!("engine{}", node.0);
    let description = NodeDescription { data_address, engine_id, ..description(&format!("host{}", node.0)) };
    let status =
        NodeStatus { state, engine_reachable: true, addr: format!("10.0.0.{}", node.0), ..NodeStatus::default() };
    Op::ReportNode { node, status, description: Some(Arc::new(description)) }
}

fn task(state: &State, service: ServiceId, n: u32, node: NodeId) -> Op {
    task_in(state, service, n, node, NETWORK)
}

fn becomes(node: NodeId, task: TaskId, state: TaskState) -> Op {
    Op::ReportTasks { node, reports: vec![(task, TaskStatus::new(state, Timestamp(5)))] }
}

/// A node that is told each change of the network.
struct Holder {
    feed: Arc<Feed>,
    raft: Arc<FakeRaft>,
    held: Option<TableVersion>,
    members: BTreeMap<MemberKey, Member>,
}

impl Holder {
    fn new(world: World) -> Self {
        let feed = Feed::new();
        let raft = FakeRaft::new(world.state, feed.clone());
        Self { feed, raft, held: None, members: BTreeMap::new() }
    }

    /// Commits a change, and tells the holder. Returns the number of changed records that it was told of.
    fn commit(&mut self, op: Op) -> usize {
        self.raft.commit(op);
        self.tell()
    }

    fn tell(&mut self) -> usize {
        let (updates, version) = self.feed.networks(|all| (all.since(NETWORK, self.held), all.version(NETWORK)));
        let mut told = 0;
        for update in updates {
            if update.full {
                self.members.clear();
            }
            told += update.changes.len();
            for change in update.changes {
                match change {
                    MemberChange::Put(member) => {
                        let member = member.open().unwrap();
                        self.members.insert(member.key(), member);
                    }
                    MemberChange::Remove(key) => assert!(self.members.remove(&key).is_some()),
                }
            }
        }
        self.held = Some(version);
        // As a manager has it that starts with this state.
        assert_eq!(Networks::of(&self.feed.state()).version(NETWORK).digest, version.digest);
        told
    }

    fn stage(&self, task: TaskId) -> Option<NetworkEndpointState> {
        match self.members.get(&MemberKey::Endpoint(task))? {
            Member::Endpoint(endpoint) => Some(endpoint.state),
            other => panic!("{other:?}"),
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        let id = |member: &Member| if let Member::Node(node) = member { Some(node.id) } else { None };
        self.members.values().filter_map(id).collect()
    }
}

/// Two nodes, a network, and a service in it with an alias.
fn world() -> (World, ServiceId) {
    let mut world = World::new(2);
    [N1, N2].into_iter().for_each(|node| world.apply(report(node, NodeState::Ready)));
    world.apply(network(NETWORK));
    let service = world.service_with("web", |spec| {
        let attachment =
            NetworkAttachment { target: NETWORK.to_string(), aliases: vec!["www".into()], ..Default::default() };
        spec.task_template.networks = vec![attachment];
    });
    (world, service)
}

#[test]
fn a_task_is_in_its_network_until_it_has_ended() {
    use NetworkEndpointState::{Draining, Gone, In, Starting};
    let (world, service) = world();
    let mut holder = Holder::new(world);
    holder.tell();
    let (one, two) = (task_id(1), task_id(2));
    let op = task(&holder.raft.state(), service, 1, N1);
    assert_eq!(holder.commit(op), 2, "the task and its node");
    assert_eq!((holder.stage(one), holder.nodes()), (Some(Starting), vec![N1]));
    let op = task(&holder.raft.state(), service, 2, N2);
    holder.commit(op);
    assert_eq!(holder.commit(becomes(N1, one, TaskState::Running)), 1, "a change costs what it is");
    assert_eq!(holder.stage(one), Some(In));
    assert_eq!(holder.commit(Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![one] }), 1);
    assert_eq!(holder.stage(one), Some(Draining));
    assert_eq!(holder.commit(becomes(N1, one, TaskState::Shutdown)), 2);
    assert_eq!((holder.stage(one), holder.nodes()), (None, vec![N2]));

    holder.commit(becomes(N2, two, TaskState::Running));
    assert_eq!(holder.commit(report(N2, NodeState::Down)), 2, "the task and its node");
    assert_eq!((holder.stage(two), holder.nodes()), (Some(Gone), vec![]));
    holder.commit(report(N2, NodeState::Ready));
    assert_eq!((holder.stage(two), holder.nodes()), (Some(In), vec![N2]));
}

#[test]
fn a_service_shows_its_names_and_virtual_addresses_in_its_networks() {
    let (world, service) = world();
    let mut holder = Holder::new(world);
    holder.tell();
    let addr = NetworkAddr { network: NETWORK, addr: "10.0.1.2".parse().unwrap() };
    assert_eq!(holder.commit(Op::SetVirtualAddrs { service, addrs: [addr].into() }), 1);
    let Some(Member::Service(record)) = holder.members.get(&MemberKey::Service(service)) else { panic!("no record") };
    assert_eq!((&*record.name, &record.aliases[..]), ("web", &["www".to_owned()][..]));
    assert_eq!(record.virtual_addrs, [addr.addr]);
    holder.commit(Op::RemoveService { service });
    assert!(holder.members.is_empty());
    assert_eq!(holder.feed.networks(|all| all.tables.len()), 0, "nothing is kept of an empty network");
}

#[test]
fn only_the_nodes_of_a_network_are_woken_for_it() {
    let (world, service) = world();
    let feed = Feed::new();
    let raft = FakeRaft::new(world.state, feed.clone());
    let (one, two) = (feed.assignments(N1), feed.assignments(N2));
    let concerns = |watch: &AssignmentWatch| watch.take().1.concern(AssignmentKey::Network(NETWORK));
    raft.commit(task(&raft.state(), service, 1, N1));
    assert!(concerns(&one) && !concerns(&two));
    // The report is a change of the network's records, and no change of the tasks of a node.
    raft.commit(becomes(N1, task_id(1), TaskState::Running));
    assert_eq!(one.take().1, Changes::Keys([AssignmentKey::Network(NETWORK)].into()));
    assert_eq!(two.take().1, Changes::default());
    raft.commit(task(&raft.state(), service, 2, N2));
    assert!(concerns(&one) && concerns(&two));
}
