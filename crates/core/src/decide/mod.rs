//! `decide`: what to do about what changed.
//!
//! Reconcilers, one per kind of service, look at one service at a time and at the state alone. They work on a clone,
//! through the same `apply`, so that later ones see earlier choices. Nothing here waits: what has to happen later is
//! a deadline of the plan, and what must outlive a leader is a field of an object.

mod budget;
mod dirty;
mod enforce;
mod fill;
mod global;
mod job;
mod part;
mod planner;
mod reap;
mod rebalance;
mod replicated;
mod restart;
mod rolling;
mod schedule;
mod slots;
mod update;
mod why;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use planner::Planner;
use restart::Start;
use swarm_model::{DesiredState, NodeId, Service, ServiceId, ServiceMode, Task, TaskId, Timestamp};

pub use dirty::Dirty;
pub use why::{Failure, NodeRejection, Rejection, Restart, TaskWhy, Why, why_service, why_task, why_waiting};
pub(crate) use why::{Planned, Stay, Staying, why_rolled_back, why_staying, why_without_node};

use crate::{Guard, Op, Refusal, State, Tx};

/// How often a decision looks at a service again because of what it decided itself. What is left then is looked at when
/// the plan has been applied.
const PASSES_MAX: usize = 8;

/// Tasks changed by one transaction: some 80 KB, far below what an entry holds.
const TASKS_BATCH_MAX: usize = 4096;

/// Changes of tasks in one piece of a plan, and places of one service that it looks at where the others can be left out:
/// what else the managers have to do waits no longer than for that. Of a service of 100,000 tasks (`one_service`, two
/// processors that others used as well) a piece took 6 ms to make tasks, 4 ms to find nothing to do, 13 ms to let prepared
/// tasks run, and 50 to 60 ms to begin or to finish places of an update. Where a policy counts all places (a parallelism,
/// `swarmd.max-unavailable`, a rebalance), and when a service shrinks, the look at all of them comes on top.
pub const PIECE_CHANGES_MAX: usize = 2048;

/// What a decision rests on beside the state and what is dirty. It is the leader's alone, and never in the log.
#[derive(Clone, Debug)]
pub struct Context {
    /// The leader's clock.
    pub now: Timestamp,
    /// Makes ids.
    pub seed: u64,
    /// Since when there is this leader: what agents saw before, they may not have told yet.
    pub led_since: Timestamp,
    /// Nodes that this leader has not heard from, although the state says that they are there. They may have died with
    /// the leader before: others are preferred.
    pub unheard: Arc<BTreeSet<NodeId>>,
    /// Changes of tasks in one piece, at least one.
    pub changes_max: usize,
}

impl Context {
    /// That of a leader which knows all nodes.
    pub fn at(now: Timestamp, seed: u64) -> Self {
        let changes_max = PIECE_CHANGES_MAX;
        Self { now, seed, led_since: Timestamp::ZERO, unheard: Arc::default(), changes_max }
    }
}

/// What `decide` proposes: a piece of all that is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Transactions in order; later ones may rest on earlier ones.
    pub txs: Vec<Tx>,
    /// When to look at a service again although nothing has changed (a delay ends); see [`Plan::renew`].
    pub deadlines: BTreeMap<ServiceId, Timestamp>,
    /// All services that this plan looked at.
    pub services: BTreeSet<ServiceId>,
    /// Those of them of which it looked at some places only.
    pub parts: BTreeSet<ServiceId>,
    /// All nodes that this plan looked at.
    pub nodes: BTreeSet<NodeId>,
    /// What is left of what was to be looked at. It is dirty still, once this plan is applied.
    pub unfinished: Dirty,
    /// Transactions that a reconciler made and `apply` refused on the clone: defects of this program, to be logged.
    pub refused: Vec<(Tx, Refusal)>,
}

impl Plan {
    /// Brings deadlines up to date: a service that was looked at as a whole keeps none from before.
    pub fn renew(&self, deadlines: &mut BTreeMap<ServiceId, Timestamp>) {
        deadlines.retain(|service, _| !self.services.contains(service) || self.parts.contains(service));
        for (service, at) in &self.deadlines {
            let known = deadlines.entry(*service).or_insert(*at);
            *known = (*known).min(*at);
        }
    }
}

/// Looks at what is dirty and proposes changes: no more than a piece at a time, so that nothing else waits for long. What
/// else is dirty has its turn before what was cut. Deciding again right after the last piece was applied gives an empty
/// plan, but for the words why a task waits and the end of a rebalance: what was placed after a service was looked at may
/// have taken the room that it hoped for.
pub fn decide(state: &State, dirty: &Dirty, context: &Context) -> Plan {
    let mut planner = Planner::new(state, context);
    let mut left = to_look_at(state, dirty);
    while !planner.is_over()
        && let Some(node) = left.nodes.pop_first()
    {
        enforce::node(&mut planner, node);
        planner.plan.nodes.insert(node);
        if !dirty.all {
            left.services.extend(state.task_ids_of_node(node).map(|(service, _)| service));
        }
    }
    for _ in 0..PASSES_MAX {
        for id in left.in_turn() {
            if planner.is_over() {
                break;
            }
            let places = left.places.remove(&id);
            let is_whole = left.services.remove(&id);
            left.behind = Some(id);
            planner.begin(id, places.filter(|_| !is_whole));
            settle(&mut planner, id);
            planner.end(id);
        }
        if !left.services.is_empty() || !left.places.is_empty() {
            break;
        }
        // What one service gives up another one may have waited for.
        left.services.extend(concerned_by_room(&planner.state, &std::mem::take(&mut planner.room)));
    }
    planner.plan.unfinished.merge(left);
    planner.plan
}

/// The nodes and services that are to be looked at.
fn to_look_at(state: &State, dirty: &Dirty) -> Dirty {
    let mut left = Dirty { all: false, room: BTreeSet::new(), ..dirty.clone() };
    if dirty.all {
        left.nodes.extend(state.nodes.keys());
        left.services.extend(state.services.keys());
        left.services.extend(state.services_with_tasks());
        return left;
    }
    if !dirty.nodes.is_empty() {
        // A node that comes, goes or changes concerns every service that is to be on all of them, or even; and those that
        // have tasks there.
        let concerned = |s: &&Arc<Service>| s.spec.mode.is_global() || rebalance::is_wanted(s);
        left.services.extend(state.services().filter(concerned).map(|s| s.id));
    }
    left.services.extend(concerned_by_room(state, &dirty.room));
    left
}

/// Looks at one service until there is nothing more to do now: what is taken away may leave places to forget, an update
/// that ends may let a task be restarted, one that has begun its last place may let the service be spread anew.
fn settle(planner: &mut Planner, id: ServiceId) {
    for _ in 0..PASSES_MAX {
        let known = planner.plan.txs.len();
        let Some(service) = planner.state.service(id).cloned() else {
            return reap::removed_service(planner, id);
        };
        if planner.part.is_none()
            && let Some(slots) = replicated::grows_by(planner, &service)
        {
            // There is nothing to stop, to update or to forget, or there will be when it has grown.
            return replicated::grow(planner, &service, slots);
        }
        let is_part = planner.part.is_some();
        reconcile(planner, &service);
        if is_part {
            part::follow(planner, id, known);
        }
        if planner.is_cut {
            return;
        }
        if is_part && planner.part.is_none() {
            continue; // It became a look at all places.
        }
        let mut ops = planner.plan.txs[known..].iter().flat_map(|tx| &tx.ops).peekable();
        // To place the last task that waited may be the end of a rebalance.
        let is_last_step = |op: &Op| !service.rebalance && is_last_step(op);
        if ops.peek().is_none() || ops.all(is_last_step) {
            return;
        }
    }
}

/// Whether nothing of a look can follow from what one did: these are the last that a look does.
fn is_last_step(op: &Op) -> bool {
    match op {
        Op::SetDesired { desired, .. } => desired.is_live(),
        Op::PlaceTask { .. } => true,
        _ => false,
    }
}

/// The services that may want something of nodes which have more room than before.
fn concerned_by_room(state: &State, room: &BTreeSet<NodeId>) -> Vec<ServiceId> {
    if room.is_empty() {
        return Vec::new();
    }
    let gains = |s: &&Arc<Service>| rebalance::is_wanted(s) && rebalance::gains(state, s, room);
    state.services_with_pending().chain(state.services().filter(gains).map(|s| s.id)).collect()
}

/// Whether a task runs what its service wants now, as far as an update would care (swarm-behaviour §4.1). Clients wait
/// for such tasks. A task of a removed service is none.
pub fn is_up_to_date(state: &State, task: &Task) -> bool {
    state.service(task.service).is_some_and(|service| !slots::is_dirty(state, service, task))
}

/// Looks at one service: what is too many goes, an update takes a step, what is missing comes, what is prepared runs.
fn reconcile(planner: &mut Planner, service: &Arc<Service>) {
    if let ServiceMode::Replicated { replicas } = service.spec.mode {
        replicated::scale_down(planner, service, replicas);
        if planner.is_cut {
            return; // To look further would be for the next piece, which begins anew.
        }
    }
    reap::orphans(planner, service);
    let service = match service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            let (stamp, service) = (service.stamp, rolling::advance(planner, service));
            if service.stamp != stamp {
                // It was rolled back, to fewer places perhaps: the next look begins anew with that.
                return;
            }
            replicated::fill(planner, &service, service.spec.replicas().unwrap_or(replicas));
            service
        }
        ServiceMode::Global => {
            global::retire(planner, service);
            let (stamp, service) = (service.stamp, rolling::advance(planner, service));
            if service.stamp != stamp {
                return;
            }
            global::fill(planner, &service);
            service
        }
        ServiceMode::ReplicatedJob(ref numbers) => {
            job::retire(planner, service);
            job::fill(planner, service, numbers);
            service.clone()
        }
        ServiceMode::GlobalJob => {
            job::retire(planner, service);
            global::retire(planner, service);
            global::fill(planner, service);
            service.clone()
        }
    };
    promote(planner, &service);
    reap::history(planner, &service);
}

/// Lets prepared tasks run whose time has come.
fn promote(planner: &mut Planner, service: &Service) {
    let mut due = Vec::new();
    // With what each takes over from: that is lost, and told to stop in this plan perhaps. If it is back when the plan is
    // applied, it may be kept.
    let mut due_after = Vec::new();
    for slot in planner.slots(service).shown.values() {
        let order = rolling::order_in(&planner.state, service, slot, planner.now);
        for task in slot.0.iter().filter(|t| t.desired == DesiredState::Ready && !t.status.state.is_terminal()) {
            match restart::start(&planner.state, slot, task, order, planner.now) {
                Start::Now => {
                    let stops = |other: &&Arc<Task>| !other.desired.is_live() && !other.status.state.is_terminal();
                    let stopped: Vec<TaskId> = slot.0.iter().filter(stops).map(|other| other.id).collect();
                    if stopped.is_empty() {
                        due.push(task.id);
                    } else {
                        due_after.push((task.id, stopped));
                    }
                }
                Start::At(at) => planner.wake(service.id, at),
                Start::WhenAlone => {}
            }
        }
    }
    planner.push_each(Some(service), &due, |tasks| Op::SetDesired { desired: service.goal(), tasks });
    for batch in planner.fitting(&due_after).chunks(TASKS_BATCH_MAX) {
        let tasks = batch.iter().map(|(task, _)| *task).collect();
        let stopped = batch.iter().flat_map(|(_, stopped)| stopped).copied().collect();
        let tx = Tx::new(vec![Op::SetDesired { desired: service.goal(), tasks }]);
        planner.push_for(service, tx.guard(Guard::Stopped { tasks: stopped }));
    }
}
