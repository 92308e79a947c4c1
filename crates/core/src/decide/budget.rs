//! How many tasks of a service may be taken away now (`swarmd.max-unavailable`, design §8).
//!
//! Whatever stops a running task of its own accord asks here: update, drain and rebalance together never leave fewer
//! than the wanted tasks less the limit. Crashes and lost nodes may; then those wait. What has ended and is not to be
//! restarted is no longer wanted, until an update begins there anew. A task that a drain without policy drives out goes in
//! any case, so it does not count. A task that an update made, or a restart after a failure, counts once it has run for the
//! monitor period: an image that crashes runs for a moment each time.

use std::collections::BTreeSet;

use swarm_model::{Cause, DesiredState, Service, Settings, Task, TaskId, Timestamp, UpdateOrder};

use super::{
    Planner, TASKS_BATCH_MAX,
    restart::{self, Verdict},
    rolling,
    slots::{Slot, is_let_be},
};
use crate::{Guard, Op, State, Tx};

/// What may be taken away. Ask anew after each change of the state by others.
pub(super) struct Budget {
    /// None without limit.
    left: Option<u64>,
    /// Places that are to be left.
    least: u64,
    steady: Steady,
}

/// Which tasks are counted on.
#[derive(Clone, Copy)]
struct Steady {
    now: Timestamp,
    monitor_ns: i64,
}

impl Steady {
    /// From when on a task that serves counts, if it does not yet.
    fn counts_at(self, task: &Task) -> Option<Timestamp> {
        let steady_at = task.reached_at.filter(|_| !is_proven(task))?.plus_ns(self.monitor_ns);
        (steady_at > self.now).then_some(steady_at)
    }

    /// Whether a task serves, and is to be counted on.
    fn serves(self, state: &State, task: &Task) -> bool {
        self.is_held(state, task) && self.counts_at(task).is_none()
    }

    /// Whether a task serves, and the limit says when it may go. One that is driven out by a drain goes in any case.
    fn is_held(self, state: &State, task: &Task) -> bool {
        state.serves(task) && !rolling::is_driven_out(state, task, self.now)
    }
}

/// Whether a task counts as soon as it runs: it is no trial of another spec, and did not take over from one that failed.
pub(super) fn is_proven(task: &Task) -> bool {
    task.restarts == 0 && task.cause != Cause::Update
}

impl Budget {
    /// What may be taken away as the state is.
    pub(super) fn of(planner: &mut Planner, service: &Service) -> Self {
        let steady = Steady { now: planner.now, monitor_ns: rolling::config(service).monitor_or_default_ns() };
        let Some(limit) = Settings::of(&service.spec.labels).max_unavailable else {
            return Self { left: None, least: 0, steady };
        };
        let slots = planner.slots(service);
        debug_assert_eq!(slots.settled, 0, "with a limit no place is left out");
        let slots = &slots.shown;
        let serving = || slots.values().flat_map(Slot::live).filter(|task| planner.state.serves(task));
        if let Some(at) = serving().filter_map(|task| steady.counts_at(task)).min() {
            planner.wake(service.id, at);
        }
        let planner = &*planner;
        // What has ended for good is not waited for.
        let ended = |slot: &&Slot| has_ended(planner, service, slot);
        let (ended, others) = slots.values().partition::<Vec<_>, _>(ended);
        // A global service wants a task in each of its places.
        let taken = || others.iter().filter(|slot| slot.is_taken(service)).count() as u64;
        let wanted = service.spec.replicas().map_or_else(taken, |all| all.saturating_sub(ended.len() as u64));
        let is_available = |slot: &&Slot| slot.live().any(|task| steady.serves(&planner.state, task));
        let available = slots.values().filter(is_available).count() as u64;
        let least = wanted.saturating_sub(limit.of(wanted));
        Self { left: Some(available.saturating_sub(least)), least, steady }
    }

    /// Whether a new task may be prepared that takes the place over; if so what will stop for it is counted.
    pub(super) fn take_for_move(&mut self, state: &State, slot: &Slot, order: UpdateOrder) -> bool {
        order == UpdateOrder::StartFirst || self.take(state, slot, |_| true)
    }

    /// Whether these tasks of a place may stop, while the others of it go on. If so they are counted.
    pub(super) fn take(&mut self, state: &State, slot: &Slot, stops: impl Fn(&Task) -> bool) -> bool {
        // What runs on a lost node is away already.
        let loses = slot.live().any(|task| self.steady.is_held(state, task) && stops(task));
        let stays = slot.live().any(|task| self.steady.serves(state, task) && !stops(task));
        let Some(left) = self.left.as_mut().filter(|_| loses && !stays) else { return true };
        if *left == 0 {
            return false;
        }
        *left -= 1;
        true
    }

    /// Stops tasks that were taken, or serve no more.
    pub(super) fn stop(&self, planner: &mut Planner, service: &Service, tasks: &[TaskId]) {
        for batch in planner.fitting(tasks).chunks(TASKS_BATCH_MAX) {
            // Tasks that are driven out stop in a transaction of their own: the limit may make the other one fall.
            let (free, held): (Vec<_>, Vec<_>) = batch.iter().partition(|id| self.is_driven_out(&planner.state, **id));
            for tasks in [free, held].into_iter().filter(|tasks| !tasks.is_empty()) {
                let tx = Tx::new(vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks }]);
                let tx = self.guard(&planner.state, service, tx);
                planner.push_for(service, tx);
            }
        }
    }

    fn is_driven_out(&self, state: &State, id: TaskId) -> bool {
        state.task(id).is_some_and(|task| rolling::is_driven_out(state, task, self.steady.now))
    }

    /// Lets a transaction that stops tasks rest on these being spared when it is applied: what is to serve instead may
    /// fail, or an earlier plan come, after this one was made. So may one serve by then that does not yet.
    pub(super) fn guard(&self, state: &State, service: &Service, tx: Tx) -> Tx {
        if self.left.is_none() {
            return tx;
        }
        let stopped = tx.ops.iter().filter_map(|op| match op {
            Op::SetDesired { desired, tasks } if !desired.is_live() => Some(tasks),
            _ => None,
        });
        let may_serve = |id: &TaskId| {
            state.task(*id).is_some_and(|task| !task.status.state.is_terminal()) && !self.is_driven_out(state, *id)
        };
        let besides: BTreeSet<TaskId> = stopped.flatten().copied().filter(may_serve).collect();
        if besides.is_empty() {
            return tx;
        }
        tx.guard(Guard::Serving { service: service.id, least: self.least, besides })
    }
}

/// Whether the restart policy lets a place be whose tasks ended or are lost, also if that has just happened. What was told
/// to stop is missed until it has: a drain that ends tasks for good takes them away no faster than another one.
fn has_ended(planner: &Planner, service: &Service, slot: &Slot) -> bool {
    let judge = |task| restart::judge(&planner.state, &service.spec, slot, task, planner.now);
    match slot.live().next() {
        None => slot.finished(service).is_some_and(|task| task.status.state.is_terminal() && is_let_be(service, task)),
        Some(_) => slot.live().all(|task| judge(task) == Verdict::Leave && is_let_be(service, task)),
    }
}
