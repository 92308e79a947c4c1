//! The shell around the dispatcher's steps: streams of agents, what they are told and what they report
//! (`manager/src/dispatcher` does the same on tokio).

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use swarm_core::{Event as Change, Outcome, State};
use swarm_manager::dispatcher::{FLUSH_DELAY, HEARTBEAT_FAILURE, Session, Waiter, heartbeat_period, news};
use swarm_model::{NodeDescription, NodeId, NodeState, NodeStatus};
use swarm_wire::agent::{Hello, NodeReport, Resume, ToAgent, ToManager, Welcome};

use crate::{
    event::{ConnId, Event},
    lead::Leader,
    log::Origin,
    tables::{Stopping, Told},
    world::World,
};

/// Pause before a node report that was not committed is tried again.
const PRESENCE_RETRY_MS: u64 = 500;

/// Among so many nodes, one has an agent that speaks as in version 0.1.0.
const OLD_AGENTS: u128 = 4;

/// Whether the agent of a node does.
pub(crate) fn is_old(node: NodeId) -> bool {
    node.0.is_multiple_of(OLD_AGENTS)
}

/// A stream between an agent and a manager.
pub(crate) struct Conn {
    pub(crate) node: NodeId,
    pub(crate) boot: u64,
    pub(crate) stream: u64,
    /// The term in which its manager leads; 0 for one that does not.
    pub(crate) term: u64,
    /// Messages arrive in order: none before these.
    pub(crate) last_up_ms: u64,
    pub(crate) last_down_ms: u64,
}

/// A session, as the dispatcher sees it.
pub(crate) struct Peer {
    pub(crate) conn: ConnId,
    pub(crate) session: Session,
    /// Whether its agent speaks as in version 0.1.0.
    is_old: bool,
    /// Whether it was welcomed: before that the state has to say what the node says.
    pub(crate) open: bool,
    resume: Option<Resume>,
    wanted: (NodeStatus, Arc<NodeDescription>),
    /// Its report is under way.
    flying: bool,
    pub(crate) leaving: bool,
    /// None of an agent without a data plane.
    pub(crate) table: Option<Told>,
    /// When the first stop that waits has waited long enough.
    pub(crate) stops_at_ms: Option<u64>,
    pub(crate) stopping: Stopping,
}

/// Who waits for what became of a report.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting {
    /// A session, for what its node is like.
    Presence(NodeId, ConnId),
    /// A session, for a batch of statuses.
    Batch(NodeId, ConnId, u64),
}

impl Leader {
    fn waiter(&self, waiting: Waiting) -> Waiter {
        let told: Arc<Mutex<Vec<(Waiting, bool)>>> = self.told.clone();
        Box::new(move |stood| told.lock().unwrap_or_else(PoisonError::into_inner).push((waiting, stood)))
    }

    fn peer(&mut self, node: NodeId, conn: ConnId) -> Option<&mut Peer> {
        self.peers.get_mut(&node).filter(|peer| peer.conn == conn)
    }

    pub(crate) fn monotonic(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms - self.began_ms)
    }

    /// Watches exactly the nodes that are not down, and those that have a session.
    fn sync(&mut self, state: &State, now_ms: u64) {
        let now = self.monotonic(now_ms);
        self.liveness.set_period(heartbeat_period(state));
        let mut alive = BTreeSet::new();
        for node in state.nodes() {
            if node.status.state != NodeState::Down {
                self.liveness.expect(node.id, now);
                alive.insert(node.id);
            } else if self.peers.contains_key(&node.id) {
                alive.insert(node.id);
            }
        }
        self.liveness.retain(|node| alive.contains(&node));
    }

    /// Reports what a session says of its node and the state does not. Says whether there is nothing to report.
    fn sync_presence(&mut self, state: &State, node: NodeId) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        let Some(found) = state.node(node) else { return false };
        let Some((status, description)) = news(found, &peer.wanted.0, &peer.wanted.1) else { return true };
        if !std::mem::replace(&mut peer.flying, true) {
            let waiting = Waiting::Presence(node, peer.conn);
            let waiter = self.waiter(waiting);
            self.reports.node(node, status, description, Some(waiter));
        }
        false
    }
}

fn welcome(state: &State) -> Welcome {
    Welcome {
        heartbeat_period_ms: u64::try_from(heartbeat_period(state).as_millis()).unwrap_or(u64::MAX),
        managers: state.nodes().filter_map(|node| node.manager_addr.clone()).collect(),
        role: None,
        authority: None,
        takes_attachments: false,
    }
}

impl World {
    /// A message of an agent arrives at its manager.
    pub(crate) fn receive(&mut self, conn: ConnId, message: ToManager) {
        let Some((node, term)) = self.conns.get(&conn).map(|c| (c.node, c.term)) else { return };
        if let ToManager::Hello(hello) = message {
            return self.greet(conn, node, term, *hello);
        }
        let now_ms = self.now_ms;
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) else { return };
        let now = leader.monotonic(now_ms);
        if leader.peer(node, conn).is_none_or(|peer| !peer.open || peer.leaving) {
            return;
        }
        leader.liveness.beat(node, now);
        match message {
            ToManager::Heartbeat => self.down(conn, ToAgent::HeartbeatAck),
            ToManager::Status { batch, reports } => {
                let waiter = leader.waiter(Waiting::Batch(node, conn, batch));
                leader.reports.tasks(&self.log.state, node, reports, waiter);
                self.after_reports();
            }
            ToManager::Describe(report) => {
                if let Some(peer) = leader.peer(node, conn) {
                    peer.wanted.0.engine_reachable = report.engine_reachable;
                    peer.wanted.1 = Arc::new(report.description);
                }
                leader.sync_presence(&self.log.state, node);
                self.after_reports();
            }
            ToManager::Leaving => {
                if let Some(peer) = leader.peer(node, conn) {
                    peer.leaving = true;
                    peer.wanted.0.state = NodeState::Down;
                    "the node left the swarm".clone_into(&mut peer.wanted.0.message);
                }
                self.tell_peer(node);
                self.after_reports();
            }
            ToManager::Table(Some(version)) => {
                leader.stops.acknowledge(node, version.revision);
                self.table_acknowledged();
            }
            ToManager::Table(None) => {
                if let Some(peer) = leader.peer(node, conn).filter(|peer| peer.table.is_some()) {
                    peer.table = Some(Told::of(None));
                }
                self.tell_of_table();
            }
            // Nobody asks questions here, and containers that are no tasks are attached by none.
            ToManager::Hello(_) | ToManager::Logs { .. } | ToManager::Answer { .. } | ToManager::Attachments(_) => {
                self.close(conn);
            }
        }
    }

    /// The first message of a session.
    fn greet(&mut self, conn: ConnId, node: NodeId, term: u64, hello: Hello) {
        let now_ms = self.now_ms;
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) else {
            let reason = "this manager does not lead the swarm".to_owned();
            let leader = self.leader.as_ref().map(|leader| format!("manager{}", leader.manager));
            self.down(conn, ToAgent::Refused { reason, leader, removed: false });
            return self.close(conn);
        };
        if self.log.state.node(node).is_none() {
            return self.refuse_removed(conn, node);
        }
        let NodeReport { description, engine_reachable } = hello.node;
        let status = NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: format!("10.0.{}.{}", node.0 as u8, (node.0 >> 8) as u8),
            engine_reachable,
        };
        let is_old = is_old(node);
        let peer = Peer {
            conn,
            session: Session::new(node, Arc::default()),
            is_old,
            open: false,
            resume: if is_old { hello.resume.map(|resume| Resume { all: None, ..resume }) } else { hello.resume },
            wanted: (status, Arc::new(description)),
            flying: false,
            leaving: false,
            table: hello.table.map(|held| Told::of(held.version)),
            stops_at_ms: None,
            stopping: Stopping::default(),
        };
        leader.expect_table(node, peer.table.is_some());
        let old = leader.peers.insert(node, peer);
        let now = leader.monotonic(now_ms);
        leader.liveness.beat(node, now);
        if let Some(old) = old {
            self.end_stream(old.conn);
        }
        self.tell_peer(node);
        self.after_reports();
    }

    fn refuse_removed(&mut self, conn: ConnId, node: NodeId) {
        let reason = format!("node {node} was removed from the swarm");
        self.down(conn, ToAgent::Refused { reason, leader: None, removed: true });
        self.close(conn);
    }

    /// Tells the agents that a change concerns.
    pub(crate) fn tell_peers(&mut self, events: &[Change]) {
        let mut nodes = BTreeSet::new();
        let mut all = false;
        for event in events {
            match *event {
                Change::Node(node) => {
                    nodes.insert(node);
                    all |= self.log.state.node(node).is_none();
                }
                Change::Task { node, .. } => nodes.extend(node),
                Change::Cluster => all = true,
                Change::Service(_) | Change::Object(_) | Change::Room(_) | Change::Attachment { .. } => {}
            }
        }
        let Some(leader) = &mut self.leader else { return };
        if all {
            nodes.extend(leader.peers.keys().copied());
        }
        if events.iter().any(|event| matches!(event, Change::Node(_) | Change::Cluster)) {
            leader.sync(&self.log.state, self.now_ms);
        }
        for node in nodes {
            self.tell_peer(node);
        }
        self.tell_of_table();
        self.after_reports();
    }

    /// Tells one agent what it does not know yet.
    fn tell_peer(&mut self, node: NodeId) {
        let Some(leader) = &mut self.leader else { return };
        let Some(conn) = leader.peers.get(&node).map(|peer| peer.conn) else { return };
        if self.log.state.node(node).is_none() {
            return self.refuse_removed(conn, node);
        }
        let in_sync = leader.sync_presence(&self.log.state, node);
        let Some(peer) = leader.peers.get_mut(&node) else { return };
        if peer.leaving {
            if in_sync {
                leader.liveness.forget(node);
                self.close(conn);
            }
            return;
        }
        let (is_new, is_old, resume) = (!peer.open, peer.is_old, peer.resume);
        if is_new && !in_sync {
            return;
        }
        let outbox = if is_new {
            (peer.open, peer.resume) = (true, None);
            self.down(conn, ToAgent::Welcome(welcome(&self.log.state)));
            self.note_stops(node);
            self.gated(node, |session, state, gate| session.open(state, resume, gate))
        } else {
            self.note_stops(node);
            self.gated(node, |session, state, gate| session.update(state, gate)).flatten()
        };
        let changes = outbox.into_iter().flatten();
        let messages = changes.filter_map(|changes| ToAgent::changes(changes.ok()?, !is_old).ok()).collect();
        self.send_assignments(node, messages);
        if is_new {
            self.tell_of_table();
        }
    }

    pub(crate) fn retry_presence(&mut self, term: u64, conn: ConnId) {
        let Some(node) = self.conns.get(&conn).filter(|c| c.term == term).map(|c| c.node) else { return };
        if self.leader.as_mut().is_some_and(|leader| leader.peer(node, conn).is_some()) {
            self.tell_peer(node);
            self.after_reports();
        }
    }

    /// The dispatcher ends a stream.
    fn close(&mut self, conn: ConnId) {
        let Some(node) = self.conns.get(&conn).map(|c| c.node) else { return };
        if let Some(leader) = &mut self.leader
            && leader.peer(node, conn).is_some()
        {
            leader.peers.remove(&node);
            leader.liveness.disconnect(node);
            leader.stops.forget(node);
        }
        self.table_acknowledged();
        self.end_stream(conn);
    }

    /// The agent, or the network, ended a stream.
    pub(crate) fn manager_hears(&mut self, conn: ConnId) {
        if let Some(leader) = &mut self.leader
            && let Some(node) = leader.peers.iter().find(|(_, peer)| peer.conn == conn).map(|(node, _)| *node)
        {
            leader.peers.remove(&node);
            leader.liveness.disconnect(node);
            leader.stops.forget(node);
        }
        self.table_acknowledged();
        self.conns.remove(&conn);
    }

    /// After anything that may have added reports, or told those who wait for them.
    fn after_reports(&mut self) {
        loop {
            let Some(leader) = &mut self.leader else { return };
            let told = std::mem::take(&mut *leader.told.lock().unwrap_or_else(PoisonError::into_inner));
            if told.is_empty() {
                break;
            }
            for (waiting, stood) in told {
                self.told(waiting, stood);
            }
        }
        let Some(leader) = &mut self.leader else { return };
        if !leader.reports.is_empty() && leader.flight.is_none() && !leader.flush_due {
            leader.flush_due = true;
            let delay = if leader.reports.is_full() { 0 } else { FLUSH_DELAY.as_millis() as u64 };
            let term = leader.term;
            self.after(delay, Event::Flush { term });
        }
    }

    fn told(&mut self, waiting: Waiting, stood: bool) {
        let Some(leader) = &mut self.leader else { return };
        match waiting {
            Waiting::Presence(node, conn) => {
                let term = leader.term;
                let Some(peer) = leader.peer(node, conn) else { return };
                peer.flying = false;
                if stood {
                    self.tell_peer(node);
                } else {
                    self.after(PRESENCE_RETRY_MS, Event::Presence { term, conn });
                }
            }
            Waiting::Batch(node, conn, batch) => {
                if leader.peer(node, conn).is_none() {
                    return;
                }
                if stood {
                    self.down(conn, ToAgent::StatusAck { batch });
                } else {
                    // The agent comes back and reports again.
                    self.close(conn);
                }
            }
        }
    }

    /// Proposes what was reported.
    pub(crate) fn flush(&mut self, term: u64) {
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) else { return };
        leader.flush_due = false;
        if leader.flight.is_some() {
            return;
        }
        let Some(mut flush) = leader.reports.take() else { return };
        let txs = std::mem::take(&mut flush.txs);
        leader.flight = Some(flush);
        self.propose(txs, Origin::Reports(term));
    }

    pub(crate) fn reports_answered(&mut self, term: u64, outcomes: Option<Vec<Outcome>>) {
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) else { return };
        let Some(flush) = leader.flight.take() else { return };
        match outcomes {
            Some(outcomes) => flush.answer(|tx| outcomes.get(tx).is_some_and(Result::is_ok)),
            None => flush.answer(|_| false),
        }
        self.after_reports();
    }

    /// Finds nodes that are silent, and says so to the log.
    pub(crate) fn tick(&mut self, term: u64) {
        let now_ms = self.now_ms;
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) else { return };
        leader.sync(&self.log.state, now_ms);
        let now = leader.monotonic(now_ms);
        let tick = leader.liveness.tick(now);
        let interval = leader.liveness.tick_interval();
        let mut ended = Vec::new();
        for node in &tick.down {
            ended.extend(leader.peers.remove(node).map(|peer| peer.conn));
            leader.stops.forget(*node);
            let known = self.log.state.node(*node).map(|node| node.status.clone()).unwrap_or_default();
            let status = NodeStatus { state: NodeState::Down, message: HEARTBEAT_FAILURE.into(), ..known };
            leader.reports.node(*node, status, None, None);
            self.counts.other("nodes taken for down");
        }
        for conn in ended {
            self.end_stream(conn);
        }
        self.table_acknowledged();
        self.check_stops();
        self.after(u64::try_from(interval.as_millis()).unwrap_or(1_000), Event::Tick { term });
        self.after_reports();
    }
}
