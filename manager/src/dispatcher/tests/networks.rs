//! Records of networks in the sessions of agents.

use swarm_core::Op;
use swarm_model::{NetworkAttachment, NodeId, ObjectId, TaskState};
use swarm_wire::{
    agent::{AGENT_PROTOCOL_NEWEST, Hello, ToAgent, ToManager},
    channel,
    networks::{MemberChange, NetworkEndpointState, NetworkUpdate},
};

use super::{Agent, Fixture, N1, N2, hello};
use crate::testing::{World, network, task_id, task_in};

const NETWORK: ObjectId = ObjectId(70);

async fn enter(fixture: &Fixture, node: NodeId) -> Agent {
    let (sender, receiver) = channel(fixture.open(node));
    let mut agent = Agent { sender, receiver };
    let ToManager::Hello(hello) = hello(node, None) else { panic!("it is a hello") };
    let hello = Hello { newest: Some(AGENT_PROTOCOL_NEWEST), takes_networks: true, ..*hello };
    agent.say(ToManager::Hello(Box::new(hello))).await;
    agent
}

/// The next update of a network's records that an agent is told.
async fn update(agent: &mut Agent) -> NetworkUpdate {
    loop {
        if let ToAgent::Network(update) = agent.hear().await {
            return update;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_told_of_networks_in_which_it_has_tasks_and_of_no_others() {
    let mut world = World::new(2);
    world.apply(network(NETWORK));
    let service = world.service_with("web", |spec| {
        spec.task_template.networks = vec![NetworkAttachment { target: NETWORK.to_string(), ..Default::default() }];
    });
    let op = task_in(&world.state, service, 1, N1, NETWORK);
    world.apply(op);
    let fixture = Fixture::new(world).await;
    let (mut one, mut two) = (enter(&fixture, N1).await, enter(&fixture, N2).await);
    let first = update(&mut one).await;
    assert!(first.full && first.complete);
    // After the first update, a change costs what it is.
    one.report(1, task_id(1), TaskState::Running).await;
    let second = update(&mut one).await;
    let [MemberChange::Put(member)] = &second.changes[..] else { panic!("{second:?}") };
    let shown = format!("{:?}", member.open().unwrap());
    assert!(!second.full && shown.contains(&format!("{:?}", NetworkEndpointState::In)), "{shown}");
    // The other node was told nothing of the network, and is told all once it has a task there.
    two.say(ToManager::Heartbeat).await;
    loop {
        match two.hear().await {
            ToAgent::HeartbeatAck => break,
            other => assert!(!matches!(other, ToAgent::Network(_)), "{other:?}"),
        }
    }
    let op = task_in(&fixture.feed.state(), service, 2, N2, NETWORK);
    fixture.raft.commit(op);
    assert!(update(&mut two).await.full);
    // The service's record, its two tasks and the second node's place in the network.
    assert!(!update(&mut one).await.full);
    let remove = Op::RemoveService { service };
    fixture.raft.commit(remove);
    assert!(matches!(update(&mut one).await.changes[..], [MemberChange::Remove(_)]));
}
