//! What becomes of a task that ended, or whose node is gone: the restart policy (swarm-behaviour §3.5).
//!
//! The history that the policy counts is the slot's tasks themselves; nothing is remembered besides the state, so a
//! new leader goes on where the old one was.

use swarm_model::{Availability, NodeState, RestartCondition, ServiceSpec, Task, TaskState, Timestamp, mutant::mutant};

use super::slots::Slot;
use crate::State;

/// A task with a running predecessor is started anyway after this: 60 s (swarm-behaviour §3.5).
const PREDECESSOR_STOP_MAX_NS: i64 = 60_000_000_000;

/// What to do with a task that cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Fine,
    /// Nothing before this time: it ended inside its own restart delay.
    Later(Timestamp),
    /// Its slot stays as it is: the policy allows no restart.
    Leave,
    /// Replace it; the replacement may start at this time, or at once.
    Replace { start_at: Option<Timestamp> },
}

/// Whether a node can keep tasks: it exists, is not down and is not drained (swarm-behaviour §3.2).
fn keeps_tasks(state: &State, task: &Task) -> bool {
    task.node.is_none_or(|id| {
        state.node(id).is_some_and(|n| n.status.state != NodeState::Down && n.spec.availability != Availability::Drain)
    })
}

/// Whether the node of a task cannot tell how the task is.
fn is_silent(state: &State, task: &Task) -> bool {
    task.node.is_some_and(|id| state.node(id).is_none_or(|n| n.status.state == NodeState::Down))
}

/// Judges a task that is meant to live. `slot` is all tasks of its slot, the oldest first.
pub(super) fn judge(state: &State, spec: &ServiceSpec, slot: &Slot, task: &Task, now: Timestamp) -> Verdict {
    let ended = task.status.state.is_terminal();
    if !ended && keeps_tasks(state, task) {
        return Verdict::Fine;
    }
    if !allowed(spec, slot, task) {
        return Verdict::Leave;
    }
    if !ended {
        // A lost node's tasks start elsewhere at once; a drained one's as soon as the old container has stopped.
        let start_at = if is_silent(state, task) { None } else { Some(now) };
        return Verdict::Replace { start_at };
    }
    if let Some(start_at) = task.start_at.filter(|start_at| *start_at > now) {
        return Verdict::Later(start_at);
    }
    if !keeps_tasks(state, task) {
        return Verdict::Replace { start_at: None };
    }
    let from = task.status_applied_at.max(task.start_at.unwrap_or_default());
    let start_at = from.plus_ns(spec.task_template.restart().delay_or_default_ns());
    Verdict::Replace { start_at: Some(start_at).filter(|start_at| *start_at > now) }
}

/// Whether the policy lets this task be replaced.
/// Restarts count per slot and spec version: every task of the slot but the first.
pub(super) fn allowed(spec: &ServiceSpec, slot: &Slot, task: &Task) -> bool {
    let policy = spec.task_template.restart();
    match policy.condition {
        RestartCondition::None => return false,
        RestartCondition::OnFailure if task.status.state == TaskState::Complete => return false,
        RestartCondition::OnFailure | RestartCondition::Any => {}
    }
    if policy.max_attempts == 0 {
        return true;
    }
    // The window ends where the task ended, not now: the verdict must not change while nothing happens.
    let end = task.status_applied_at;
    let restarts = slot
        .0
        .iter()
        .filter(|t| t.spec_version == task.spec_version && t.desired != swarm_model::DesiredState::Remove)
        .skip(1)
        .filter(|t| policy.window_ns == 0 || end.since_ns(t.created_at) < policy.window_ns)
        .count();
    (restarts as u64) < policy.max_attempts
}

/// When a task that is prepared may run: now, at a time, or as soon as its predecessors have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At once.
    Now,
    /// Not before this time, which may be moved forward by an event.
    At(Timestamp),
}

/// When a task with desired state ready may run.
pub(super) fn start(state: &State, slot: &Slot, task: &Task, now: Timestamp) -> Start {
    let delay_ends = task.start_at.filter(|_| !mutant("skip-restart-delay")).unwrap_or_default();
    let waits =
        slot.0.iter().any(|t| t.id != task.id && !t.desired.is_live() && t.holds_resources() && !is_silent(state, t));
    let stop_ends = if waits && !mutant("skip-predecessor") {
        task.created_at.plus_ns(PREDECESSOR_STOP_MAX_NS)
    } else {
        Timestamp::ZERO
    };
    match delay_ends.max(stop_ends) {
        at if at > now => Start::At(at),
        _ => Start::Now,
    }
}
