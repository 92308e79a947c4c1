//! What breaks, and how all is mended in the end.

use swarm_model::NodeId;

use crate::{
    data::DataEvent,
    event::{ConnId, Event, Fate},
    world::{MANAGERS, World},
};

/// Mean time between two faults. Many last for a while, so that several overlap.
const FAULT_EVERY_MS: u64 = 3_000;

/// Nodes that a power cut may keep away for longer than their tasks are waited for.
const LONG_OUTAGE_MS: u64 = 240_000;

impl World {
    /// One fault, and the time of the next.
    pub(crate) fn break_something(&mut self) {
        if self.healed {
            return;
        }
        let next = self.rng.between(1, 2 * FAULT_EVERY_MS);
        self.after(next, Event::Break);
        let nodes: Vec<NodeId> = self.hosts.iter().filter(|(_, host)| !host.gone).map(|(node, _)| *node).collect();
        let Some(node) = self.rng.pick(&nodes).copied() else { return };
        match self.rng.below(100) {
            0..12 => {
                self.counts.fault("agent crash");
                self.kill_agent(node, true);
                let pause = if self.rng.per_mille(200) { 60_000 } else { 4_000 };
                let pause = self.rng.between(50, pause);
                self.after(pause, Event::Start { node });
            }
            12..18 => self.power_cut(node),
            18..26 => {
                let takes_containers = self.rng.per_mille(400);
                let name = if takes_containers { "engine outage with its containers" } else { "engine outage" };
                self.counts.fault(name);
                let ms = self.rng.between(100, 60_000);
                self.engine_outage(node, takes_containers, ms);
            }
            26..36 => self.cut_connection(),
            36..46 => {
                let ms = self.rng.between(100, 20_000);
                let until = self.now_ms + ms;
                let up = self.rng.per_mille(500);
                self.counts.fault(if up { "reports late" } else { "assignments late" });
                if let Some(host) = self.hosts.get_mut(&node) {
                    let stuck = if up { &mut host.up_stuck_ms } else { &mut host.down_stuck_ms };
                    *stuck = until.max(*stuck);
                }
            }
            46..49 => self.cut_network(&nodes),
            49..57 => {
                self.counts.fault("leader change");
                self.depose();
            }
            57..61 => {
                self.counts.fault("log stalls");
                let ms = self.rng.between(500, 8_000);
                self.stall_log(ms);
            }
            61..65 => self.jump_leader_clock(),
            65..70 => {
                self.counts.fault("agent clock jump");
                let skew = self.any_skew(600_000);
                if let Some(host) = self.hosts.get_mut(&node) {
                    host.skew_ms = skew;
                }
                let right = self.rng.between(5_000, 300_000);
                self.after(right, Event::ClockBack { manager: None, node: Some(node) });
            }
            70..86 => self.hurt_container(node),
            86..91 => {
                let ms = self.rng.between(1_000, 60_000);
                let until = self.now_ms + ms;
                self.counts.fault("node fills up");
                if let Some(host) = self.hosts.get_mut(&node) {
                    host.engine.full_until_ms = until;
                }
            }
            91..95 => self.shrink(node),
            _ => {
                // Several things at once: the node's agent dies while the leader changes.
                self.counts.fault("leader change");
                self.counts.fault("agent crash");
                self.kill_agent(node, false);
                self.depose();
                let pause = self.rng.between(50, 20_000);
                self.after(pause, Event::Start { node });
            }
        }
    }

    fn power_cut(&mut self, node: NodeId) {
        self.counts.fault("power cut");
        self.kill_agent(node, false);
        let mut has_data = false;
        if let Some(host) = self.hosts.get_mut(&node) {
            host.files.clear();
            host.data.die();
            has_data = host.data.was_needed();
        }
        let long = self.rng.per_mille(300);
        let pause = if long { LONG_OUTAGE_MS } else { 40_000 };
        let pause = self.rng.between(5_000, pause);
        self.engine_outage(node, true, pause);
        if has_data {
            self.after(pause, Event::Data(node, Box::new(DataEvent::Start)));
        }
        self.after(pause + 100, Event::Start { node });
    }

    fn cut_connection(&mut self) {
        let streams: Vec<ConnId> = self.conns.keys().copied().collect();
        let Some(conn) = self.rng.pick(&streams).copied() else { return };
        self.counts.fault("connection cut");
        let (agent_hears, manager_hears) = (self.rng.per_mille(600), self.rng.per_mille(600));
        self.drop_conn(conn, agent_hears, manager_hears);
    }

    /// Many nodes at once are silent: more likely a switch than the nodes.
    fn cut_network(&mut self, nodes: &[NodeId]) {
        self.counts.fault("network cut for many");
        let share = self.rng.between(5, 60);
        let ms = self.rng.between(2_000, 25_000);
        let until = self.now_ms + ms;
        for node in nodes {
            if self.rng.below(100) < share
                && let Some(host) = self.hosts.get_mut(node)
            {
                (host.up_stuck_ms, host.down_stuck_ms) = (until, until);
            }
        }
    }

    /// A clock is off by up to so much, more often ahead than behind.
    fn any_skew(&mut self, most_ms: u64) -> i64 {
        let ms = i64::try_from(self.rng.between(100, most_ms)).unwrap_or(0);
        if self.rng.per_mille(400) { -ms } else { ms }
    }

    fn jump_leader_clock(&mut self) {
        let Some(manager) = self.leader.as_ref().map(|leader| leader.manager) else { return };
        self.counts.fault("leader clock jump");
        self.skew_ms[manager] = self.any_skew(90_000);
        let right = self.rng.between(1_000, 120_000);
        self.after(right, Event::ClockBack { manager: Some(manager), node: None });
    }

    pub(crate) fn clock_back(&mut self, manager: Option<usize>, node: Option<NodeId>) {
        if let Some(manager) = manager {
            self.skew_ms[manager] = 0;
        }
        if let Some(host) = node.and_then(|node| self.hosts.get_mut(&node)) {
            host.skew_ms = 0;
        }
    }

    fn hurt_container(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let running: Vec<String> = host.engine.containers.keys().cloned().collect();
        let Some(id) = self.rng.pick(&running).cloned() else { return };
        match self.rng.below(12) {
            0 => {
                self.counts.fault("container disappears");
                self.container_event(node, &id);
                if let Some(host) = self.hosts.get_mut(&node) {
                    host.engine.containers.remove(&id);
                }
            }
            1..3 => self.befall(node, &id, Fate::Unhealthy),
            3 => self.befall(node, &id, Fate::StartByHand(false)),
            4 => {
                // A program that is told to stop ends as if its work were done, or is killed.
                let exit_code = if self.rng.per_mille(500) { 0 } else { 137 };
                self.befall(node, &id, Fate::Exit(exit_code));
                let pause = self.rng.between(10, 400);
                self.after(pause, Event::Container { node, container: id, fate: Fate::StartByHand(true) });
            }
            _ => self.befall(node, &id, Fate::Exit(137)),
        }
    }

    /// A node has less than it had: memory went bad, or an operator gave it away.
    fn shrink(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        self.counts.fault("node shrinks");
        host.engine.resources.nano_cpus /= 2;
        host.engine.resources.memory_bytes /= 2;
        host.engine.resources.generic_resources.pop();
        let notice = self.rng.between(100, 20_000);
        self.look_at_engine(node, notice, true);
    }

    /// Faults stop, and all that broke is mended. Operators take their hands off.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.healed_ms = Some(self.now_ms);
        self.skew_ms = [0; MANAGERS];
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        for node in nodes {
            let Some(host) = self.hosts.get_mut(&node) else { continue };
            host.skew_ms = 0;
            (host.up_stuck_ms, host.down_stuck_ms, host.data.stuck_ms) = (0, 0, 0);
            host.engine.full_until_ms = 0;
            let (gone, runs, has_data) = (host.gone, host.worker.is_some(), host.data.was_needed());
            if gone {
                continue;
            }
            let delay = self.rng.between(10, 5_000);
            self.after(delay, Event::EngineBack { node });
            if has_data {
                self.after(delay, Event::Data(node, Box::new(DataEvent::Start)));
            }
            if !runs {
                self.after(delay + 100, Event::Start { node });
            }
        }
        if self.leader.is_none() {
            self.after(1_000, Event::Elect);
        }
        self.after(20_000, Event::Operate);
    }
}
