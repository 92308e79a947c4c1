//! Leaders that are lost one after another, and nothing else: who counts as down, and what becomes of a node that dies
//! with its leader.

use std::sync::Arc;

use swarm_core::{Op, Tx};
use swarm_model::{NodeId, NodeState, ServiceId, ServiceMode, ServiceSpec};

use crate::{
    Options,
    event::{ConnId, Event},
    world::World,
};

const NODES: u32 = 200;
/// Losses of each kind.
const LOSSES: u64 = 10;
const REPLICAS: u64 = 1_000;
/// A node that dies with its leader has no task after so long.
const EMPTY_AFTER_MS: u64 = 8_000;
/// Between two losses.
const ROUND_MS: u64 = 30_000;

impl World {
    /// The leader dies, and the agent of a node with it. If it was its process, the others hear that its connections end;
    /// if it was its machine, there is only silence.
    fn lose_leader(&mut self, with: NodeId, is_process: bool) {
        self.leader = None;
        let streams: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in streams {
            let Some(stream) = self.conns.remove(&conn).filter(|_| is_process) else { continue };
            let delay = self.rng.between(1, 50);
            self.after(delay, Event::AgentHears { node: stream.node, boot: stream.boot, stream: stream.stream });
        }
        self.kill_agent(with, false);
        // A machine that is gone is found by the election timeout alone.
        let election = if is_process { self.rng.between(300, 700) } else { self.rng.between(600, 1_000) };
        self.after(election, Event::Elect);
    }

    fn down_nodes(&self, but: NodeId) -> Vec<NodeId> {
        let nodes = self.log.state.nodes().filter(|node| node.id != but && node.status.state == NodeState::Down);
        nodes.map(|node| node.id).collect()
    }

    fn live_on(&self, node: NodeId) -> usize {
        self.log.state.tasks_of_node(node).filter(|task| task.desired.is_live()).count()
    }
}

/// A cluster of nodes that send a heartbeat every two seconds, with tasks on all of them.
fn cluster(seed: u64) -> World {
    let mut world = World::new(seed, Options { nodes: NODES, minutes: 60, trace: false });
    world.healed = true;
    let mut spec = (*world.log.state.cluster().expect("it was founded").spec).clone();
    spec.dispatcher.heartbeat_period_ns = 2_000_000_000;
    world.commit_now(vec![Tx::new(vec![Op::UpdateCluster { spec: spec.into(), join_tokens: None }])]);
    world.run_until(20_000);
    create(&mut world, 1, REPLICAS);
    world.run_until(60_000);
    assert!(world.log.state.nodes().all(|node| node.status.state == NodeState::Ready));
    world
}

fn create(world: &mut World, id: u128, replicas: u64) {
    let mut spec = ServiceSpec { name: format!("s{id}"), ..ServiceSpec::default() };
    spec.mode = ServiceMode::Replicated { replicas };
    spec.task_template.container_spec.image = "hello:1".into();
    let create = Op::CreateService { service: ServiceId(id), spec: Arc::new(spec), registry_auth: None };
    world.commit_now(vec![Tx::new(vec![create])]);
}

#[test]
fn no_live_node_is_ever_down_and_what_dies_with_the_leader_is_soon_empty() {
    let mut world = cluster(7);
    let nodes: Vec<NodeId> = world.hosts.keys().copied().collect();
    for round in 0..2 * LOSSES {
        let began_ms = world.now_ms;
        let dead = nodes[(round as usize * 37) % nodes.len()];
        assert!(world.live_on(dead) > 0, "round {round}: the node has tasks");
        world.lose_leader(dead, round % 2 == 0);
        let mut fresh = None;
        while world.now_ms < began_ms + ROUND_MS {
            world.run_until(world.now_ms + 50);
            assert_eq!(world.complaint, None);
            assert_eq!(world.down_nodes(dead), [], "round {round}, {} ms after the loss", world.now_ms - began_ms);
            if world.now_ms >= began_ms + EMPTY_AFTER_MS && world.hosts[&dead].worker.is_none() {
                assert_eq!(world.live_on(dead), 0, "round {round}: the node is empty");
                world.after(0, Event::Start { node: dead });
            }
            // What is created once the next leader is there does not go to the dead node, if the leader's process alone
            // is lost: then the other nodes have come.
            if fresh.is_none() && world.leader.is_some() && round % 2 == 0 {
                let id = 100 + u128::from(round);
                create(&mut world, id, u64::from(NODES));
                fresh = Some((ServiceId(id), world.now_ms));
            }
            if let Some((service, at)) = fresh.filter(|(_, at)| world.now_ms == at + 2_000) {
                let tasks = || world.log.state.tasks_of_service(service);
                assert_eq!(tasks().count() as u64, u64::from(NODES), "round {round}: {} ms", world.now_ms - at);
                assert!(tasks().all(|task| task.node != Some(dead)), "round {round}: a task for the dead node");
            }
        }
        if let Some((service, _)) = fresh {
            world.commit_now(vec![Tx::new(vec![Op::RemoveService { service }])]);
        }
    }
}
