//! The stop of a task that serves a published port, and the acknowledgements that it waits for.

use swarm_model::{DataAddress, EndpointSpec, PortConfig, PortProtocol, PublishedPort};
use swarm_wire::{
    agent::{AGENT_PROTOCOL_NEWEST, Changeset, HeldTable, Item, ItemChange},
    endpoints::{EndpointState, TableReceiver},
};

use super::*;
use crate::dispatcher::WAIT_MAX;

/// A node with a data plane.
struct Node {
    agent: Agent,
    table: TableReceiver,
}

impl Fixture {
    /// A node opens a session, and goes by the table that it is told.
    async fn node(&self, node: NodeId) -> Node {
        let ToManager::Hello(hello) = hello(node, None) else { unreachable!("it is one") };
        let description = described(node);
        let (sender, receiver) = channel(self.open(node));
        let mut agent = Agent { sender, receiver };
        let hello = Hello {
            newest: Some(AGENT_PROTOCOL_NEWEST),
            table: Some(HeldTable::default()),
            takes_networks: false,
            takes_questions: false,
            node: NodeReport { description, ..hello.node },
            ..*hello
        };
        agent.say(ToManager::Hello(hello.into())).await;
        assert!(matches!(agent.hear().await, ToAgent::Welcome(_)));
        let mut node = Node { agent, table: TableReceiver::default() };
        while node.table.table().version().is_none() {
            node.hear().await;
        }
        node.acknowledge().await;
        node
    }
}

impl Node {
    /// Takes the next message; returns it if it changes the tasks.
    async fn hear(&mut self) -> Option<Changeset> {
        match self.agent.hear().await {
            ToAgent::Table(update) => {
                self.table.take(&update).unwrap();
                None
            }
            ToAgent::Changes(changes) => Some(changes),
            _ => None,
        }
    }

    async fn hear_of_state(&mut self, task: TaskId, state: EndpointState) {
        while self.table.table().endpoint(task).map(|endpoint| endpoint.state) != Some(state) {
            assert_eq!(self.hear().await, None, "nothing of the task is new before");
        }
    }

    /// Says by which table it goes, and waits until that is heard.
    async fn acknowledge(&mut self) {
        self.agent.say(ToManager::Table(self.table.table().version())).await;
        self.agent.say(ToManager::Heartbeat).await;
        while self.agent.hear().await != ToAgent::HeartbeatAck {}
    }

    /// Waits for the stop of a task.
    async fn hear_of_stop(&mut self, task: TaskId) {
        loop {
            let changes = self.hear().await.map(|changeset| changeset.changes).unwrap_or_default();
            let is_stop = |change: &ItemChange| matches!(change, ItemChange::Put(Item::Task(put)) if put.id == task && put.desired == DesiredState::Shutdown);
            if changes.iter().any(is_stop) {
                return;
            }
        }
    }
}

fn described(node: NodeId) -> NodeDescription {
    let data_address = Some(DataAddress { addr: None, port: 7946 });
    NodeDescription { data_address, ..description(&format!("host{}", node.0)) }
}

/// Two nodes, the first with a task that serves.
async fn serving() -> (Fixture, TaskId, Node, Node) {
    let mut world = World::new(2);
    let port = PortConfig { target_port: 80, ..PortConfig::default() };
    let service = world.service_with("web", |spec| {
        spec.endpoint_spec = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
    });
    let port = PublishedPort { protocol: PortProtocol::Tcp, published: 9000, target: 80 };
    world.apply(Op::SetPorts { service, ports: [port].into() });
    let task = world.task(service, 1, N1);
    let fixture = Fixture::new(world).await;
    let (mut one, mut other) = (fixture.node(N1).await, fixture.node(N2).await);
    one.agent.report(1, task, TaskState::Running).await;
    for node in [&mut one, &mut other] {
        node.hear_of_state(task, EndpointState::In).await;
        node.acknowledge().await;
    }
    (fixture, task, one, other)
}

fn stop(fixture: &Fixture, task: TaskId) {
    fixture.raft.commit(Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![task] });
}

#[tokio::test(start_paused = true)]
async fn a_task_is_told_to_stop_when_all_nodes_have_left_it() {
    let (fixture, task, mut one, mut other) = serving().await;
    let begin = tokio::time::Instant::now();
    stop(&fixture, task);
    for node in [&mut one, &mut other] {
        node.hear_of_state(task, EndpointState::Draining).await;
    }
    one.acknowledge().await;
    other.acknowledge().await;
    one.hear_of_stop(task).await;
    assert!(begin.elapsed() < WAIT_MAX / 2, "nobody waits for the bound: {:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_holds_up_a_stop_no_longer_than_the_bound() {
    let (fixture, task, mut one, _silent) = serving().await;
    let begin = tokio::time::Instant::now();
    stop(&fixture, task);
    one.hear_of_state(task, EndpointState::Draining).await;
    one.acknowledge().await;
    one.hear_of_stop(task).await;
    assert!((WAIT_MAX..2 * WAIT_MAX).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_session_ends_is_not_waited_for() {
    let (fixture, task, mut one, mut other) = serving().await;
    let begin = tokio::time::Instant::now();
    stop(&fixture, task);
    one.hear_of_state(task, EndpointState::Draining).await;
    one.acknowledge().await;
    other.agent.say(ToManager::Leaving).await;
    // Messages that were on their way come before the end.
    while !other.agent.closed().await {}
    one.hear_of_stop(task).await;
    assert!(begin.elapsed() < WAIT_MAX, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_table_gets_all_of_it() {
    let (_fixture, task, _one, mut other) = serving().await;
    other.table = TableReceiver::default();
    other.agent.say(ToManager::Table(None)).await;
    while other.table.table().version().is_none() {
        other.hear().await;
    }
    assert!(other.table.table().endpoint(task).is_some());
}
