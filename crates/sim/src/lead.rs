//! The shell around the leader's step: wakes it, proposes what it says, and tells it what became of that
//! (`manager/src/leader/mod.rs` does the same on tokio).

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use swarm_core::{
    Context, Dirty, ENTRY_VERSION, Entry, Event as Change, Op, Outcome, PIECE_CHANGES_MAX, Place, Plan, State, Tx,
    apply, decide,
};
use swarm_manager::{
    dispatcher::{Flush, Liveness, Reports, Stops, heartbeat_period},
    endpoints::Endpoints,
    leader::{Input, LeaderStep, Output, SLEEP_MAX},
};
use swarm_model::{NodeId, NodeState, Timestamp};

use crate::{
    event::{ConnId, Event},
    log::Origin,
    peers::{Peer, Waiting},
    world::{MANAGERS, World},
};

/// One in so many decisions is made again on the state that it leads to: nothing more may come out.
const REPLAN_EVERY: u64 = 16;

thread_local! {
    /// What is wrong with plans of this thread. [`LeaderStep`] takes a plain function, which has no other way to tell.
    static WRONG: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Decisions after which nothing may be left to do. One is not always enough: what a service gives up may be what an
/// earlier one in the same plan waits for.
const REPLANS_MAX: u64 = 8;
/// Decisions after which it is no matter of what became due.
const ROUNDS_MAX: u64 = 1_000;

/// What is left to do of a decision: a newer reason why a task waits is nothing.
pub(crate) fn rest(plan: Plan) -> Vec<Tx> {
    let reason = |op: &Op| matches!(op, Op::PlaceTask { place: Place::Pending(_) | Place::PendingOn(..), .. });
    plan.txs.into_iter().filter(|tx| !tx.ops.iter().all(reason)).collect()
}

/// Decides again and again on the state that a plan leads to, until there is nothing to do. Each decision is a moment
/// later: what became due by that, and not before, is not left over from the ones before.
fn replan(state: &State, dirty: &Dirty, context: &Context, first: &Plan) -> Option<String> {
    let mut after = state.clone();
    let (mut txs, mut due) = (first.txs.clone(), earliest(first));
    let mut replans = 0;
    for round in 1..=ROUNDS_MAX {
        let entry = Entry { v: ENTRY_VERSION, at: context.now, txs };
        let index = after.revision() + 1;
        let (outcomes, _) = apply(&mut after, index, &entry);
        if let Some(refusal) = outcomes.into_iter().find_map(Result::err) {
            return Some(format!(
                "a plan does not apply to the state that it was made from: {refusal}: {:?}",
                entry.txs
            ));
        }
        // All that is left, where the first one was a piece.
        let next = Context { seed: context.seed ^ round, changes_max: usize::MAX, ..context.clone() };
        let plan = decide(&after, dirty, &next);
        let became_due = due.is_some_and(|due| due <= after.time().plus_ns(1));
        due = earliest(&plan);
        txs = rest(plan);
        if txs.is_empty() {
            return None;
        }
        replans += u64::from(!became_due);
        if replans == REPLANS_MAX {
            break;
        }
    }
    Some(format!("decisions do not come to an end: {:?}, and after {replans} more still {txs:?}", first.txs))
}

/// When something of a plan is due.
fn earliest(plan: &Plan) -> Option<Timestamp> {
    plan.deadlines.values().min().copied()
}

/// `decide`, watched: a plan applies to the state that it was made from, and leads to one with nothing to do.
fn watched(state: &State, dirty: &Dirty, context: &Context) -> Plan {
    let plan = decide(state, dirty, context);
    let mut wrong = None;
    if let Some((tx, refusal)) = plan.refused.first() {
        wrong = Some(format!("a plan that its own clone refuses: {refusal}: {tx:?}"));
    } else if plan.txs.is_empty() && plan.unfinished == *dirty {
        wrong = Some(format!("a piece of a plan in which nothing is done: {dirty:?}"));
    } else if !plan.txs.is_empty() && context.seed.is_multiple_of(REPLAN_EVERY) {
        wrong = replan(state, dirty, context, &plan);
    }
    if wrong.is_some() {
        WRONG.with_borrow_mut(|first| *first = first.take().or(wrong));
    }
    plan
}

/// What a manager has while it leads; nothing of it outlives the term.
pub(crate) struct Leader {
    pub(crate) term: u64,
    pub(crate) manager: usize,
    pub(crate) began_ms: u64,
    step: LeaderStep,
    /// The state that its last plan was made from.
    pub(crate) decided: State,
    dirty: Dirty,
    phase: Phase,
    /// Numbers the wake-ups, so that one that was overtaken is known.
    token: u64,
    /// When the loop wakes up, while it waits.
    wake_ms: u64,
    pub(crate) liveness: Liveness,
    pub(crate) stops: Stops,
    /// The lowest revision of the table that was acknowledged when that last changed.
    pub(crate) lowest: Option<u64>,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) reports: Reports,
    pub(crate) flight: Option<Flush>,
    pub(crate) flush_due: bool,
    /// What the waiters of reports were told.
    pub(crate) told: Arc<Mutex<Vec<(Waiting, bool)>>>,
}

enum Phase {
    Waiting,
    Proposing { rest: VecDeque<Vec<Tx>>, last: u64, fallen: bool },
    Pausing,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl World {
    /// A manager leads from now on. It has everything that its predecessors committed.
    pub(crate) fn elect(&mut self) {
        if self.leader.is_some() {
            return;
        }
        self.cut_log();
        self.term += 1;
        let manager = usize::try_from(self.rng.below(MANAGERS as u64)).unwrap_or(0);
        let alive = self.log.state.nodes().filter(|node| node.status.state != NodeState::Down).map(|node| node.id);
        let liveness = Liveness::new(heartbeat_period(&self.log.state), alive, Duration::ZERO);
        let interval = ms(liveness.tick_interval());
        // Small pieces at times, so that plans are cut.
        let changes_max = if self.rng.per_mille(300) { self.rng.between(1, 40) as usize } else { PIECE_CHANGES_MAX };
        self.leader = Some(Leader {
            term: self.term,
            manager,
            began_ms: self.now_ms,
            step: LeaderStep::new(watched).with_changes_max(changes_max),
            decided: State::default(),
            dirty: Dirty::default(),
            phase: Phase::Waiting,
            token: 0,
            wake_ms: u64::MAX,
            liveness,
            stops: Stops::default(),
            lowest: None,
            peers: BTreeMap::new(),
            reports: Reports::default(),
            flight: None,
            flush_due: false,
            told: Arc::default(),
        });
        if !self.healed && self.side.per_mille(200) {
            self.counts.fault("leader with a table made anew");
            self.table = Endpoints::of(&self.log.state);
        }
        self.after(interval, Event::Tick { term: self.term });
        let seed = self.rng.next();
        self.drive(Input::Elected { seed });
    }

    /// The leader is lost, with all that it knew beside the log.
    pub(crate) fn depose(&mut self) {
        if self.leader.take().is_none() {
            return;
        }
        let streams: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in streams {
            // Some agents are told, for others there is only silence.
            let told = self.rng.per_mille(700);
            self.drop_conn(conn, told, false);
        }
        let wait = if self.rng.per_mille(100) { self.rng.between(5_000, 40_000) } else { self.rng.between(300, 3_000) };
        self.after(wait, Event::Elect);
    }

    fn drive(&mut self, input: Input) {
        let Some(manager) = self.leader.as_ref().map(|leader| leader.manager) else { return };
        let clock = self.wall_off(self.skew_ms[manager]);
        let Some(leader) = &mut self.leader else { return };
        let (unheard, nodes) = leader.liveness.unheard();
        leader.step.hear(unheard.clone(), nodes);
        if leader.step.is_unfinished() {
            leader.step.mark(std::mem::take(&mut leader.dirty));
        }
        let output = leader.step.step(input, &self.log.state, clock);
        if let Some(wrong) = WRONG.take() {
            self.complain(wrong);
        }
        match output {
            Output::Wait { until } => self.wait_for(until, clock),
            Output::Propose(entries) => {
                if let Some(leader) = &mut self.leader {
                    leader.decided = self.log.state.clone();
                    leader.phase = Phase::Proposing { rest: entries.into(), last: 0, fallen: false };
                }
                self.propose_next();
            }
        }
    }

    fn wait_for(&mut self, until: Option<Timestamp>, clock: Timestamp) {
        let now = clock.max(self.log.state.time());
        let nap_ms = until.map_or(u64::MAX, |until| {
            // Rounded up: woken too early it would find nothing due.
            u64::try_from(until.since_ns(now).max(0)).unwrap_or(0).div_ceil(1_000_000).min(ms(SLEEP_MAX))
        });
        let Some(leader) = &mut self.leader else { return };
        leader.phase = Phase::Waiting;
        leader.token += 1;
        leader.wake_ms = self.now_ms.saturating_add(nap_ms.max(1));
        if !leader.dirty.is_empty() {
            leader.wake_ms = leader.wake_ms.min(self.now_ms + ms(leader.step.pause()).max(1));
        }
        let (at, event) = (leader.wake_ms, Event::Decide { term: leader.term, token: leader.token });
        if at != u64::MAX {
            self.at(at, event);
        }
    }

    /// A newer state was published.
    pub(crate) fn published(&mut self, events: &[Change]) {
        let Some(leader) = &mut self.leader else { return };
        events.iter().for_each(|event| leader.dirty.mark(event));
        if let Phase::Waiting = leader.phase {
            let at = self.now_ms + ms(leader.step.pause()).max(1);
            if at < leader.wake_ms {
                leader.token += 1;
                leader.wake_ms = at;
                let event = Event::Decide { term: leader.term, token: leader.token };
                self.at(at, event);
            }
        }
        self.tell_peers(events);
    }

    pub(crate) fn wake_leader(&mut self, term: u64, token: u64) {
        let Some(leader) = self.leader.as_mut().filter(|l| l.term == term && l.token == token) else { return };
        if let Phase::Waiting = leader.phase {
            let dirty = std::mem::take(&mut leader.dirty);
            self.drive(Input::Changed(dirty));
        }
    }

    fn propose_next(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        let term = leader.term;
        let Phase::Proposing { rest, last, fallen } = &mut leader.phase else { return };
        if let Some(txs) = rest.pop_front() {
            return self.propose(txs, Origin::Plan(term));
        }
        let (index, fallen) = (*last, *fallen);
        self.plan_ended(index, fallen);
    }

    fn plan_ended(&mut self, index: u64, fallen: bool) {
        let Some(leader) = &mut self.leader else { return };
        if !fallen {
            return self.drive(Input::Proposed { index, fallen });
        }
        leader.phase = Phase::Pausing;
        let (pause, term) = (ms(leader.step.pause()), leader.term);
        self.after(pause, Event::Resume { term, index });
    }

    pub(crate) fn resume_leader(&mut self, term: u64, index: u64) {
        let Some(leader) = self.leader.as_ref().filter(|leader| leader.term == term) else { return };
        if self.log.state.revision() < index {
            // What became of the plan is not certain yet.
            let pause = ms(leader.step.pause());
            return self.after(pause.max(1), Event::Resume { term, index });
        }
        self.drive(Input::Proposed { index, fallen: true });
    }

    pub(crate) fn plan_answered(&mut self, term: u64, outcomes: Option<Vec<Outcome>>) {
        let revision = self.log.state.revision();
        let Some(leader) = self.leader.as_mut().filter(|leader| leader.term == term) else { return };
        let Phase::Proposing { last, fallen, .. } = &mut leader.phase else { return };
        let Some(outcomes) = outcomes else {
            let end = revision + self.log.appended.len() as u64;
            self.counts.other("plans of unknown outcome");
            return self.plan_ended(end, true);
        };
        *last = revision;
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        *fallen |= refused > 0;
        if refused > 0 {
            self.counts.other("plans that fell");
        }
        self.propose_next();
    }
}
