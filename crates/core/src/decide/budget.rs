//! How many tasks of a service may be taken away now (`swarmd.max-unavailable`, design §8).
//!
//! Whatever stops a running task of its own accord asks here: update, drain and rebalance together never leave fewer
//! than the wanted tasks less the limit. Crashes and lost nodes may; then those wait. What has ended and is not to be
//! restarted is no longer wanted.

use swarm_model::{NodeState, Service, Settings, Task, TaskState, UpdateOrder};

use super::{
    Planner,
    restart::{self, Verdict},
    slots::{self, Slot},
};
use crate::State;

/// What may be taken away. Ask anew after each change of the state by others.
pub(super) struct Budget {
    /// None without limit.
    left: Option<u64>,
}

impl Budget {
    /// What may be taken away as the state is.
    pub(super) fn of(planner: &Planner, service: &Service) -> Self {
        let Some(limit) = Settings::of(&service.spec.labels).max_unavailable else { return Self { left: None } };
        let slots = slots::of(&planner.state, service);
        // What has ended for good is not waited for.
        let ended = |slot: &&Slot| has_ended(planner, service, slot);
        let (ended, others) = slots.values().partition::<Vec<_>, _>(ended);
        // A global service wants a task in each of its places.
        let taken = || others.iter().filter(|slot| slot.is_taken(service)).count() as u64;
        let wanted = service.spec.replicas().map_or_else(taken, |all| all.saturating_sub(ended.len() as u64));
        let available = slots.values().filter(|slot| slot.live().any(|task| serves(&planner.state, task))).count();
        Self { left: Some((available as u64 + limit.of(wanted)).saturating_sub(wanted)) }
    }

    /// Whether a new task may be prepared that takes the place over; if so what will stop for it is counted.
    pub(super) fn take_for_move(&mut self, state: &State, slot: &Slot, order: UpdateOrder) -> bool {
        order == UpdateOrder::StartFirst || self.take(state, slot, |_| true)
    }

    /// Whether these tasks of a place may stop, while the others of it go on. If so they are counted.
    pub(super) fn take(&mut self, state: &State, slot: &Slot, stops: impl Fn(&Task) -> bool) -> bool {
        // What runs on a lost node is away already.
        let has = slot.live().any(|task| serves(state, task));
        let stays = slot.live().any(|task| serves(state, task) && !stops(task));
        let Some(left) = self.left.as_mut().filter(|_| has && !stays) else { return true };
        if *left == 0 {
            return false;
        }
        *left -= 1;
        true
    }
}

/// Whether the restart policy lets a place be whose tasks ended or are lost, also if that has just happened.
fn has_ended(planner: &Planner, service: &Service, slot: &Slot) -> bool {
    let judge = |task| restart::judge(&planner.state, &service.spec, slot, task, planner.now);
    match slot.live().next() {
        None => slot.finished(service).is_some(),
        Some(_) => slot.live().all(|task| judge(task) == Verdict::Leave),
    }
}

/// Whether a task runs, healthy as far as it has a health check, and its node says so.
fn serves(state: &State, task: &Task) -> bool {
    let node_is_ready = || task.node.and_then(|id| state.node(id)).is_some_and(|n| n.status.state == NodeState::Ready);
    task.status.state == TaskState::Running && node_is_ready()
}
