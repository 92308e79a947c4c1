//! Tests of the endpoint table as the state has it.

use std::sync::Arc;

use swarm_core::Op;
use swarm_model::{
    DataAddress, DesiredState, EndpointSpec, NodeDescription, NodeId, NodeState, NodeStatus, PortConfig, PortProtocol,
    PublishedPort, ServiceId, TaskId, TaskState, TaskStatus, Timestamp,
};
use swarm_wire::endpoints::{EndpointState, TableReceiver};

use super::*;
use crate::{
    feed::Feed,
    testing::{FakeRaft, World, description},
};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);

fn report(node: NodeId, state: NodeState) -> Op {
    let data_address = Some(DataAddress { addr: None, port: 7946 });
    let description = NodeDescription { data_address, ..description(&format!("host{}", node.0)) };
    let status =
        NodeStatus { state, engine_reachable: true, addr: format!("10.0.0.{}", node.0), ..NodeStatus::default() };
    Op::ReportNode { node, status, description: Some(Arc::new(description)) }
}

/// Two nodes, a service with a port and a task on each node, and a service without a port.
fn world() -> (World, ServiceId, [TaskId; 2]) {
    let mut world = World::new(2);
    [N1, N2].into_iter().for_each(|node| world.apply(report(node, NodeState::Ready)));
    let service = world.service_with("web", |spec| {
        let port = PortConfig { target_port: 80, ..PortConfig::default() };
        spec.endpoint_spec = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
    });
    world.apply(ports(service, 9000));
    let tasks = [world.task(service, 1, N1), world.task(service, 2, N2)];
    let other = world.service("other");
    world.task(other, 3, N1);
    (world, service, tasks)
}

fn ports(service: ServiceId, published: u16) -> Op {
    let port = PublishedPort { protocol: PortProtocol::Tcp, published, target: 80 };
    Op::SetPorts { service, ports: [port].into() }
}

fn runs(node: NodeId, task: TaskId) -> Op {
    becomes(node, task, TaskState::Running)
}

fn becomes(node: NodeId, task: TaskId, state: TaskState) -> Op {
    Op::ReportTasks { node, reports: vec![(task, TaskStatus::new(state, Timestamp(5)))] }
}

fn desire(task: TaskId, desired: DesiredState) -> Op {
    Op::SetDesired { desired, tasks: vec![task] }
}

/// The table that follows from the state, and a node that is told each change of it.
struct Node {
    feed: Arc<Feed>,
    raft: Arc<FakeRaft>,
    holder: TableReceiver,
}

impl Node {
    fn new(world: World) -> Self {
        let feed = Feed::new();
        let raft = FakeRaft::new(world.state, feed.clone());
        Self { feed, raft, holder: TableReceiver::default() }
    }

    /// Commits a change, and tells the node. Returns the number of changed records that the node was told of.
    fn commit(&mut self, op: Op) -> usize {
        self.raft.commit(op);
        self.tell()
    }

    fn tell(&mut self) -> usize {
        let held = self.holder.table().version();
        let updates = self.feed.endpoints(|table| table.since(held));
        let number = updates.iter().map(|update| update.changes.len()).sum();
        for update in updates {
            self.holder.take(&update).unwrap();
        }
        let version = self.feed.endpoints(Endpoints::version);
        assert_eq!(self.holder.table().version(), Some(version));
        // As a manager has it that starts with this state.
        assert_eq!(Endpoints::of(&self.feed.state()).version().digest, version.digest);
        number
    }

    fn state(&self, task: TaskId) -> Option<EndpointState> {
        self.holder.table().endpoint(task).map(|endpoint| endpoint.state)
    }

    fn left_at(&self, task: TaskId) -> Option<u64> {
        self.feed.endpoints(|table| table.left_at(task))
    }
}

#[test]
fn a_task_serves_while_it_runs_and_drains_before_it_stops() {
    let (world, service, [one, two]) = world();
    let mut node = Node::new(world);
    node.tell();
    assert_eq!((node.state(one), node.holder.table().service(service).unwrap().ports[0].published), (None, 9000));
    assert_eq!(node.commit(runs(N1, one)), 1, "a change costs what it is");
    assert_eq!(node.state(one), Some(EndpointState::In));
    // A task that did not serve yet is stopped without further ado.
    assert_eq!(node.commit(desire(two, DesiredState::Shutdown)), 0);
    assert_eq!(node.left_at(two), None);

    assert_eq!(node.commit(desire(one, DesiredState::Shutdown)), 1);
    assert_eq!(node.state(one), Some(EndpointState::Draining));
    let revision = node.feed.state().revision();
    assert_eq!(node.left_at(one), Some(revision));
    assert_eq!(node.commit(desire(one, DesiredState::Remove)), 0);
    assert_eq!(node.left_at(one), Some(revision), "it left only once");
    assert_eq!(node.commit(becomes(N1, one, TaskState::Shutdown)), 1);
    assert_eq!((node.state(one), node.left_at(one)), (None, None));
}

#[test]
fn what_goes_away_is_in_no_table() {
    let (world, service, [one, two]) = world();
    let mut node = Node::new(world);
    node.tell();
    node.commit(runs(N1, one));
    node.commit(runs(N2, two));
    // A node that is lost, and comes back.
    assert_eq!(node.commit(report(N2, NodeState::Down)), 2);
    assert_eq!((node.state(two), node.holder.table().node(N2)), (None, None));
    assert_eq!(node.commit(report(N2, NodeState::Ready)), 2);
    assert_eq!(node.state(two), Some(EndpointState::In));
    // A task whose container died.
    node.commit(becomes(N2, two, TaskState::Failed));
    assert_eq!((node.state(two), node.left_at(two)), (None, None));
    // A service that is removed: its tasks get no new connections, and are stopped after that.
    node.commit(Op::RemoveService { service });
    assert!(node.holder.table().service(service).is_none() && node.state(one).is_none());
    let revision = node.feed.state().revision();
    node.commit(desire(one, DesiredState::Remove));
    assert_eq!(node.left_at(one), Some(revision), "it left with its service, before it was to stop");
    assert_eq!(Endpoints::of(&node.feed.state()).left_at(one), Some(revision + 1), "when it left is not known");
}

#[test]
fn a_task_that_is_to_stop_while_its_node_is_down_has_left_with_it() {
    let (world, _, [one, two]) = world();
    let mut node = Node::new(world);
    node.commit(runs(N1, one));
    node.commit(runs(N2, two));
    node.commit(report(N2, NodeState::Down));
    let revision = node.feed.state().revision();
    node.commit(desire(two, DesiredState::Shutdown));
    node.commit(report(N2, NodeState::Ready));
    assert_eq!((node.state(two), node.left_at(two)), (Some(EndpointState::Draining), Some(revision)));
    let made_anew = Endpoints::of(&node.feed.state());
    assert_eq!((made_anew.left_at(one), made_anew.left_at(two)), (None, Some(revision + 2)));
}

#[test]
fn ports_that_come_and_go_bring_and_take_the_tasks_of_the_service() {
    let (world, _, _) = world();
    let mut node = Node::new(world);
    let other = node.feed.state().service_by_name("other").unwrap().id;
    let task = node.feed.state().tasks_of_service(other).next().unwrap().id;
    node.tell();
    assert_eq!(node.commit(runs(N1, task)), 0);
    assert_eq!(node.commit(ports(other, 9001)), 2);
    assert_eq!(node.state(task), Some(EndpointState::In));
    assert_eq!(node.commit(ports(other, 9002)), 1);
    assert_eq!(node.commit(Op::SetPorts { service: other, ports: [].into() }), 2);
    assert_eq!(node.state(task), None);
}

#[test]
fn a_node_that_was_away_too_long_gets_the_whole_table() {
    let (world, _, [one, two]) = world();
    let mut node = Node::new(world);
    node.tell();
    let held = node.holder.table().version();
    node.commit(runs(N1, one));
    node.commit(runs(N2, two));
    let updates = |held| node.feed.endpoints(|table: &Endpoints| table.since(held));
    assert!(updates(node.holder.table().version()).is_empty());
    assert!(!updates(held)[0].full && updates(held)[0].changes.len() == 2);
    assert!(updates(None)[0].full);
    let unknown = held.map(|held| TableVersion { digest: held.digest ^ 1, ..held });
    assert!(updates(unknown)[0].full);
}
