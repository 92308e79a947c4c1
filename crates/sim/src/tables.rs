//! The endpoint table between the managers and the agents (`manager/src/dispatcher/write.rs` does the same on tokio), and
//! what the oracle says of it: who is told to stop when, and which tables are where.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use swarm_core::{Event as Change, State};
use swarm_manager::{
    dispatcher::{Session, Stops, WAIT_MAX},
    endpoints::Endpoints,
};
use swarm_model::{NodeId, TaskId, TaskState};
use swarm_wire::{
    agent::{Item, ItemChange, ToAgent},
    endpoints::{Record, TableVersion},
};

use crate::{
    event::{ConnId, Event},
    lead::Leader,
    peers::{Peer, is_old},
    world::World,
};

/// Shortest time between two updates of the table to one agent.
const TABLE_INTERVAL_MS: u64 = 20;
/// A stop may be told so much later than its bound: events of one millisecond come one after another.
const SLACK_MS: u64 = 5;
/// So long after the faults all agents have a session.
const CALM_AFTER_MS: u64 = 90_000;
/// After so long in a calm cluster a task that has ended is in no table: a second, and twice the longest delay of a
/// message, to the node and to its data plane.
const ENDED_MS_MAX: u64 = 4_000;

fn wait_max_ms() -> u64 {
    u64::try_from(WAIT_MAX.as_millis()).unwrap_or(u64::MAX)
}

/// A session with an agent that has a data plane.
#[derive(Debug, Default)]
pub(crate) struct Told {
    version: Option<TableVersion>,
    /// Whether the table is to be looked at although it did not change.
    is_news: bool,
    /// Whether it will be looked at already.
    is_due: bool,
    next_ms: u64,
}

impl Told {
    /// The agent came with this table.
    pub(crate) fn of(version: Option<TableVersion>) -> Self {
        Self { version, is_news: true, ..Self::default() }
    }
}

/// The oracle's memory of a session: when the leader could first tell of each stop, and which it told of.
#[derive(Debug, Default)]
pub(crate) struct Stopping {
    since_ms: BTreeMap<TaskId, u64>,
    told: BTreeSet<TaskId>,
}

/// When tasks were to stop, and when they ended: the true times.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    stop_ms: BTreeMap<TaskId, u64>,
    ended_ms: BTreeMap<TaskId, u64>,
}

impl Ends {
    /// Looks at what an entry changed.
    pub(crate) fn follow(&mut self, before: &State, after: &State, events: &[Change], now_ms: u64) {
        for event in events {
            let Change::Task { task, .. } = event else { continue };
            let Some(old) = before.task(*task) else { continue };
            let new = after.task(*task);
            if old.desired.is_live() && new.is_some_and(|new| !new.desired.is_live()) {
                self.stop_ms.insert(*task, now_ms);
            }
            if !old.status.state.is_terminal() && new.is_none_or(|new| new.status.state.is_terminal()) {
                self.ended_ms.insert(*task, now_ms);
            }
        }
    }
}

/// The gate of a session for the stops of its tasks, and the time of the first stop that it holds.
pub(crate) struct Gated<'a> {
    pub(crate) stops: &'a mut Stops,
    pub(crate) table: &'a Endpoints,
    pub(crate) all_are_here: bool,
    pub(crate) now: Duration,
    first: Option<Duration>,
}

impl Gated<'_> {
    fn pass(&mut self, task: TaskId) -> bool {
        let Some(left_at) = self.table.left_at(task) else { return true };
        match self.stops.may_stop(task, left_at, self.all_are_here, self.now) {
            Ok(()) => true,
            Err(until) => {
                self.first = Some(self.first.map_or(until, |first| first.min(until)));
                false
            }
        }
    }
}

impl World {
    /// Looks at a session with the gate for its stops, and has it looked at again when the first stop has waited long
    /// enough.
    pub(crate) fn gated<T>(
        &mut self,
        node: NodeId,
        look: impl FnOnce(&mut Session, &State, &mut dyn FnMut(TaskId) -> bool) -> T,
    ) -> Option<T> {
        let now_ms = self.now_ms;
        let leader = self.leader.as_mut()?;
        let (term, began_ms, now) = (leader.term, leader.began_ms, leader.monotonic(now_ms));
        let all_are_here = leader.liveness.unheard().0.is_empty();
        let peer = leader.peers.get_mut(&node)?;
        let mut gated = Gated { stops: &mut leader.stops, table: &self.table, all_are_here, now, first: None };
        let looked = look(&mut peer.session, &self.log.state, &mut |task| gated.pass(task));
        let at = gated.first.map(|first| began_ms + u64::try_from(first.as_millis()).unwrap_or(u64::MAX));
        let (before, conn) = (std::mem::replace(&mut peer.stops_at_ms, at), peer.conn);
        if let Some(at) = at.filter(|at| before != Some(*at)) {
            self.counts.other("stops held");
            self.at(at, Event::Stops { term, conn: Some(conn) });
        }
        Some(looked)
    }

    /// Looks again at the stops that wait: of one session, or of all if more tables are acknowledged.
    pub(crate) fn look_at_stops(&mut self, term: u64, conn: Option<ConnId>) {
        let Some(leader) = self.leader.as_ref().filter(|leader| leader.term == term) else { return };
        let waits = leader.peers.iter().filter(|(_, peer)| peer.open && !peer.leaving && peer.stops_at_ms.is_some());
        let waits = waits.filter(|(_, peer)| conn.is_none_or(|conn| peer.conn == conn));
        let nodes: Vec<NodeId> = waits.map(|(node, _)| *node).collect();
        for node in nodes {
            let outbox = self.gated(node, |session, state, gate| {
                let held = session.held();
                session.follow(state, &held, gate)
            });
            let changes = outbox.flatten().into_iter().flatten();
            let messages = changes.filter_map(|changes| ToAgent::changes(changes.ok()?, !is_old(node)).ok()).collect();
            self.send_assignments(node, messages);
        }
    }

    /// A node acknowledged a table, or is not waited for any more.
    pub(crate) fn table_acknowledged(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        let (term, lowest) = (leader.term, leader.stops.lowest());
        if std::mem::replace(&mut leader.lowest, lowest) != lowest {
            self.after(0, Event::Stops { term, conn: None });
        }
    }

    /// Sends an agent changes of what it is to have. The oracle looks at the stops among them.
    pub(crate) fn send_assignments(&mut self, node: NodeId, messages: Vec<ToAgent>) {
        let Some(conn) = self.leader.as_ref().and_then(|leader| leader.peers.get(&node)).map(|peer| peer.conn) else {
            return;
        };
        for message in messages {
            for task in stops_in(&message) {
                if let Some(wrong) = self.stop_is_told(node, task) {
                    self.complain(wrong);
                }
            }
            self.down(conn, message);
        }
    }

    /// The agent of a node is told to stop a task.
    fn stop_is_told(&mut self, node: NodeId, task: TaskId) -> Option<String> {
        let now_ms = self.now_ms;
        let has_ended = self.log.state.task(task).is_none_or(|task| task.status.state.is_terminal());
        if has_ended || self.knows_stop(node, task) {
            return None;
        }
        let leader = self.leader.as_mut()?;
        let stopping = &mut leader.peers.get_mut(&node)?.stopping;
        let since_ms = stopping.since_ms.get(&task).copied().unwrap_or(now_ms);
        if !stopping.told.insert(task) {
            // The task is to be removed as well now.
            return None;
        }
        if now_ms > since_ms + wait_max_ms() + SLACK_MS {
            return Some(format!("the stop of task {task} on node {node} is told {} ms late", now_ms - since_ms));
        }
        let was_to_stop_ms = self.ends.stop_ms.get(&task).copied()?;
        if now_ms >= was_to_stop_ms + wait_max_ms() {
            return None;
        }
        let with_table = leader.peers.iter().filter(|(_, peer)| peer.table.is_some()).map(|(id, _)| *id);
        let balances = |id: &NodeId| self.hosts.get(id).is_some_and(|host| !host.gone && host.data.balances_to(task));
        let other = with_table.into_iter().find(balances)?;
        Some(format!(
            "node {node} is told to stop task {task} {} ms after that was wanted, while node {other} still sends it \
             connections",
            now_ms - was_to_stop_ms
        ))
    }

    /// Whether an agent does not run a task, or was told of its stop: in this session or in an earlier one.
    fn knows_stop(&self, node: NodeId, task: TaskId) -> bool {
        let worker = self.hosts.get(&node).and_then(|host| host.worker.as_ref());
        worker.is_none_or(|worker| {
            !worker.tasks().any(|known| known.assigned.id == task && known.assigned.desired.is_live())
        })
    }

    /// Notes since when the leader can tell an agent of its stops.
    pub(crate) fn note_stops(&mut self, node: NodeId) {
        let now_ms = self.now_ms;
        let Some(peer) = self.leader.as_mut().and_then(|leader| leader.peers.get_mut(&node)) else { return };
        if !peer.open {
            return;
        }
        let tasks = self.log.state.tasks_of_node(node).filter(|task| {
            (TaskState::Assigned..=TaskState::Running).contains(&task.status.state) && !task.desired.is_live()
        });
        let now: BTreeSet<TaskId> = tasks.map(|task| task.id).collect();
        peer.stopping.since_ms.retain(|task, _| now.contains(task));
        peer.stopping.told.retain(|task| now.contains(task));
        let new: Vec<TaskId> = now.into_iter().filter(|task| !peer.stopping.since_ms.contains_key(task)).collect();
        // An agent that an earlier leader told is not told again.
        let knows: Vec<TaskId> = new.iter().copied().filter(|task| self.knows_stop(node, *task)).collect();
        let Some(peer) = self.leader.as_mut().and_then(|leader| leader.peers.get_mut(&node)) else { return };
        peer.stopping.since_ms.extend(new.into_iter().map(|task| (task, now_ms)));
        peer.stopping.told.extend(knows);
    }

    /// Looks for stops that no agent was told of in time.
    pub(crate) fn check_stops(&mut self) {
        let now_ms = self.now_ms;
        let Some(leader) = &self.leader else { return };
        let mut wrong = None;
        // An agent that was off and is back has no session before its hello, while the leader still has the old one.
        let is_heard =
            |node: &NodeId, peer: &Peer| self.hosts.get(node).is_some_and(|host| host.conn == Some(peer.conn));
        let peers = leader.peers.iter().filter(|(_, peer)| peer.open && !peer.leaving && peer.table.is_some());
        for (node, peer) in peers.filter(|(node, peer)| is_heard(node, peer)) {
            let late = peer.stopping.since_ms.iter().find(|(task, since_ms)| {
                now_ms > **since_ms + wait_max_ms() + SLACK_MS
                    && !peer.stopping.told.contains(task)
                    && !self.knows_stop(*node, **task)
            });
            if let Some((task, since_ms)) = late {
                wrong = Some(format!(
                    "node {node} is not told to stop task {task}, which could be told {} ms ago",
                    now_ms - since_ms
                ));
            }
        }
        if let Some(wrong) = wrong {
            self.complain(wrong);
        }
        if self.healed_ms.is_some_and(|healed_ms| now_ms >= healed_ms + CALM_AFTER_MS) {
            self.check_ended_endpoints();
        }
    }

    /// In a cluster without faults no table has a task that ended a while ago.
    fn check_ended_endpoints(&mut self) {
        let state = &self.log.state;
        let is_over = |task: TaskId| {
            state.task(task).is_none_or(|task| task.status.state.is_terminal())
                && self.ends.ended_ms.get(&task).is_none_or(|at| at + ENDED_MS_MAX < self.now_ms)
        };
        let wrong = self.hosts.iter().filter(|(_, host)| !host.gone).find_map(|(node, host)| {
            let table = host.data.table()?.table();
            let over = table.records().find_map(|record| match record {
                Record::Endpoint(endpoint) if is_over(endpoint.task) => Some(endpoint.task),
                _ => None,
            })?;
            Some(format!("the data plane of node {node} has an endpoint of task {over}, which has ended"))
        });
        if let Some(wrong) = wrong {
            self.complain(wrong);
        }
    }

    /// The table may have changed: agents are told soon.
    pub(crate) fn tell_of_table(&mut self) {
        let version = self.table.version();
        let Some(leader) = &mut self.leader else { return };
        let mut due = Vec::new();
        for peer in leader.peers.values_mut().filter(|peer| peer.open && !peer.leaving) {
            let Some(told) = &mut peer.table else { continue };
            if (told.is_news || told.version != Some(version)) && !std::mem::replace(&mut told.is_due, true) {
                due.push((peer.conn, told.next_ms));
            }
        }
        let term = leader.term;
        for (conn, at) in due {
            self.at(at, Event::Table { term, conn });
        }
    }

    /// Sends an agent the newest table.
    pub(crate) fn send_table(&mut self, term: u64, conn: ConnId) {
        let now_ms = self.now_ms;
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) else { return };
        let Some(peer) = leader.peers.values_mut().find(|peer| peer.conn == conn) else { return };
        let Some(told) = &mut peer.table else { return };
        let updates = self.table.since(told.version);
        let (version, next_ms) = (Some(self.table.version()), now_ms + TABLE_INTERVAL_MS);
        *told = Told { version, next_ms, ..Told::default() };
        for update in updates {
            self.down(conn, ToAgent::Table(update));
        }
    }

    /// Whether settled tables are as they should be: all the same, that of the state, made from it anew.
    pub(crate) fn check_tables(&self, state: &State) -> Result<(), String> {
        let wanted = Endpoints::of(state).version().digest;
        if self.table.version().digest != wanted {
            return Err(format!("the managers' table is {:?}, made anew it is {wanted:016x}", self.table.version()));
        }
        let is_needed = state.services().any(|service| !service.ports.is_empty());
        for (node, host) in self.hosts.iter().filter(|(node, host)| !host.gone && !is_old(**node)) {
            match host.data.table().and_then(|table| table.table().version()) {
                Some(version) if version.digest != wanted => {
                    return Err(format!("the data plane of node {node} has table {version:?} and not {wanted:016x}"));
                }
                None if is_needed => return Err(format!("the data plane of node {node} has no table")),
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

impl Leader {
    /// Waits for the acknowledgements of a node, from the start of its session on.
    pub(crate) fn expect_table(&mut self, node: NodeId, has_data_plane: bool) {
        if has_data_plane {
            self.stops.acknowledge(node, 0);
        } else {
            self.stops.forget(node);
        }
    }
}

/// The tasks that a message tells an agent to stop.
fn stops_in(message: &ToAgent) -> Vec<TaskId> {
    let ToAgent::Changes(changeset) = message else { return Vec::new() };
    let stop = |change: &ItemChange| match change {
        ItemChange::Put(Item::Task(task)) if !task.desired.is_live() => Some(task.id),
        _ => None,
    };
    changeset.changes.iter().filter_map(stop).collect()
}
