//! The dispatcher: the leader's end of the agents' streams.
//!
//! It hands out assignments, gathers reports into few entries, and watches heartbeats. Everything that it knows beside
//! the state lives for one leadership only; agents come back to the next leader by themselves.
//!
//! The steps are pure and tested alone: [`Session`] (what an agent is to be told), [`Liveness`] (who is down),
//! [`Reports`] (what goes into an entry). The rest of this folder carries their inputs and outputs.

mod attachments;
mod encoded;
mod liveness;
mod presence;
mod questions;
mod reports;
mod serve;
mod session;
mod stops;
#[cfg(test)]
mod tests;
mod twins;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use swarm_consensus::Role;
use swarm_core::State;
use swarm_model::{ClusterId, ClusterSpec, NodeId, NodeState, NodeStatus};
use swarm_wire::agent::{LogRequest, ToAgent};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    encoded::Encoded,
    liveness::{HEARTBEATS_MISSED_MAX, Liveness, MASS_EXPIRY_PERCENT, Tick, is_mass},
    presence::news,
    reports::{FLUSH_DELAY, FLUSH_ITEMS_MAX, Flush, REPORT_TEXT_MAX, Reports, Waiter},
    session::{Gate, Outbox, Session},
    stops::{Stops, WAIT_MAX},
    twins::{Machine, QUIET, Twins, Verdict},
};
use self::{presence::Presence, questions::Questions};
use crate::{
    feed::{Feed, Topic, lock},
    logs::LogBroker,
    raft::{Raft, leader_addr},
};

/// What a node that missed its heartbeats is told to be (swarm-behaviour §3.9).
pub const HEARTBEAT_FAILURE: &str = "heartbeat failure";

/// Streams of agents, and what the leader makes of them.
pub struct Dispatcher {
    raft: Arc<dyn Raft>,
    feed: Arc<Feed>,
    cluster: ClusterId,
    term: watch::Sender<Option<Arc<Term>>>,
    logs: Arc<LogBroker>,
}

/// What lives as long as one leadership.
struct Term {
    stop: CancellationToken,
    began: Instant,
    table: Mutex<Table>,
    reports: Mutex<Reports>,
    reported: Notify,
    /// `host:port` of all managers: sessions tell their agents of changes.
    managers: watch::Sender<Vec<String>>,
    /// A session ended.
    ended: Notify,
    encoded: Arc<Encoded>,
    stops: Mutex<Stops>,
    questions: Mutex<Questions>,
    /// The revision of the endpoint table that all nodes go by; none without a node.
    lowest: watch::Sender<Option<u64>>,
}

struct Table {
    liveness: Liveness,
    sessions: BTreeMap<NodeId, Registered>,
    registrations: u64,
    twins: Twins,
}

/// The newest session of a node.
struct Registered {
    number: u64,
    stop: CancellationToken,
    /// Messages for the agent beside what follows from the state.
    orders: mpsc::Sender<ToAgent>,
    takes_questions: bool,
    machine: Machine,
    presence: Arc<Presence>,
}

impl Dispatcher {
    /// A dispatcher that refuses agents until [`Dispatcher::lead`] runs.
    pub(crate) fn new(raft: Arc<dyn Raft>, feed: Arc<Feed>, cluster: ClusterId, logs: Arc<LogBroker>) -> Arc<Self> {
        Arc::new(Self { raft, feed, cluster, term: watch::Sender::new(None), logs })
    }

    /// Serves agents while this manager leads. The feed must have everything that earlier leaders committed.
    pub(crate) async fn lead(&self, stop: &CancellationToken) {
        let term = Arc::new(Term::new(&self.feed.state(), stop.child_token()));
        self.term.send_replace(Some(term.clone()));
        let work = async { tokio::join!(self.watch_nodes(&term), self.flush(&term)) };
        stop.run_until_cancelled(work).await;
        self.term.send_replace(None);
        term.stop.cancel();
    }

    /// Asks a node for logs. False when it has no session, or one that does not keep up.
    pub(crate) fn order(&self, node: NodeId, request: LogRequest) -> bool {
        let Some(term) = self.current() else { return false };
        let table = lock(&term.table);
        let order = ToAgent::StartLogs(request);
        table.sessions.get(&node).is_some_and(|session| session.orders.try_send(order).is_ok())
    }

    /// The nodes that this leader has not heard from, and of how many that are not down.
    pub(crate) fn unheard(&self) -> (BTreeSet<NodeId>, usize) {
        if let Some(term) = self.current() {
            let table = lock(&term.table);
            let (unheard, all) = table.liveness.unheard();
            return (unheard.clone(), all);
        }
        let unheard: BTreeSet<NodeId> = not_down(&self.feed.state()).collect();
        let all = unheard.len();
        (unheard, all)
    }

    fn current(&self) -> Option<Arc<Term>> {
        self.term.borrow().clone()
    }

    fn leader(&self) -> Option<String> {
        leader_addr(&self.raft.role().borrow())
    }

    fn role(&self) -> Role {
        self.raft.role().borrow().clone()
    }

    /// Finds nodes that are silent, and says so to the log.
    async fn watch_nodes(&self, term: &Term) {
        let watch = self.feed.watch(Topic::Nodes);
        let mut next_tick = Instant::now();
        loop {
            tokio::select! {
                () = watch.changed() => term.sync(&self.feed.state()),
                () = sleep_until(next_tick) => {
                    let state = self.feed.state();
                    // Also here: a node whose report was not committed is to be found silent again.
                    term.sync(&state);
                    let interval = term.tick(&state);
                    next_tick = Instant::now() + interval;
                }
            }
        }
    }

    /// Commits what was reported, an entry at a time: what comes meanwhile shares the next one.
    async fn flush(&self, term: &Term) {
        loop {
            term.reported.notified().await;
            if !lock(&term.reports).is_full() {
                sleep(FLUSH_DELAY).await;
            }
            loop {
                let Some(mut flush) = lock(&term.reports).take() else { break };
                match self.raft.propose(std::mem::take(&mut flush.txs)).await {
                    Ok(committed) => flush.answer(|tx| committed.outcomes.get(tx).is_some_and(Result::is_ok)),
                    Err(error) => {
                        tracing::warn!(%error, "reports of agents were not committed; they will report again");
                        flush.answer(|_| false);
                    }
                }
            }
        }
    }
}

impl Term {
    fn new(state: &State, stop: CancellationToken) -> Self {
        let table = Table {
            liveness: Liveness::new(heartbeat_period(state), not_down(state), Duration::ZERO),
            sessions: BTreeMap::new(),
            registrations: 0,
            twins: Twins::default(),
        };
        Self {
            stop,
            began: Instant::now(),
            table: Mutex::new(table),
            reports: Mutex::default(),
            reported: Notify::new(),
            managers: watch::Sender::new(managers(state)),
            ended: Notify::new(),
            encoded: Arc::default(),
            stops: Mutex::default(),
            questions: Mutex::default(),
            lowest: watch::Sender::new(None),
        }
    }

    /// Monotonic time since this leadership began.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// A sign of life of a session, unless a newer one took its place.
    fn beat(&self, node: NodeId, number: u64) {
        let mut table = lock(&self.table);
        if table.sessions.get(&node).is_some_and(|session| session.number == number) {
            table.liveness.beat(node, self.now());
        }
    }

    /// Adds to what is committed next.
    fn report(&self, add: impl FnOnce(&mut Reports)) {
        add(&mut lock(&self.reports));
        self.reported.notify_one();
    }

    /// Watches exactly the nodes that are not down, and those that have a session. Notes who the managers are, here
    /// and not in each session: there may be thousands of nodes, and as many sessions.
    fn sync(&self, state: &State) {
        let now = managers(state);
        self.managers.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        let mut table = lock(&self.table);
        let now = self.now();
        table.liveness.set_period(heartbeat_period(state));
        let mut alive = BTreeSet::new();
        for node in state.nodes() {
            if node.status.state != NodeState::Down {
                table.liveness.expect(node.id, now);
                alive.insert(node.id);
            } else if table.sessions.contains_key(&node.id) {
                alive.insert(node.id);
            }
        }
        table.liveness.retain(|node| alive.contains(&node));
    }

    /// One tick of the liveness table. Returns the time to the next.
    fn tick(&self, state: &State) -> Duration {
        let (tick, interval, single) = {
            let mut table = lock(&self.table);
            let tick = table.liveness.tick(self.now());
            for node in &tick.down {
                if let Some(session) = table.sessions.remove(node) {
                    session.stop.cancel();
                }
            }
            // Its presence says so no longer.
            let now = self.now();
            let single = table.twins.settle(now).into_iter().filter_map(|node| table.sessions.get(&node));
            let single: Vec<_> = single.map(|session| session.presence.clone()).collect();
            (tick, table.liveness.tick_interval(), single)
        };
        if !tick.down.is_empty() {
            // Another machine may wait for that.
            self.ended.notify_waiters();
        }
        for presence in single {
            presence.note(String::new());
            presence.sync(state, self);
        }
        lock(&self.stops).retain(|task| state.task(task).is_some_and(|task| !task.status.state.is_terminal()));
        if let Some(late) = tick.late {
            tracing::warn!(
                late_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX),
                "this process stood still; all heartbeat deadlines move by as much"
            );
        }
        if let Some(silent) = tick.held {
            tracing::warn!(
                silent,
                "many nodes are silent at once: more likely the network than the nodes; waiting before they count as down"
            );
        }
        for node in tick.down {
            tracing::warn!(%node, "node is down: {HEARTBEAT_FAILURE}");
            let known = state.node(node).map(|node| node.status.clone()).unwrap_or_default();
            let status = NodeStatus { state: NodeState::Down, message: HEARTBEAT_FAILURE.into(), ..known };
            self.report(|reports| reports.node(node, status, None, None));
        }
        interval
    }
}

fn not_down(state: &State) -> impl Iterator<Item = NodeId> + '_ {
    state.nodes().filter(|node| node.status.state != NodeState::Down).map(|node| node.id)
}

/// `host:port` of all managers.
fn managers(state: &State) -> Vec<String> {
    state.nodes().filter_map(|node| node.manager_addr.clone()).collect()
}

/// Time between two heartbeats, as the cluster has it now.
pub fn heartbeat_period(state: &State) -> Duration {
    let ns = state.cluster().map_or(0, |cluster| cluster.spec.dispatcher.heartbeat_period_ns);
    let ns = if ns > 0 { ns } else { ClusterSpec::HEARTBEAT_PERIOD_DEFAULT_NS };
    Duration::from_nanos(ns.unsigned_abs())
}
