//! What becomes of a task that ended, or whose node is gone: the restart policy (swarm-behaviour §3.5).
//!
//! The history that the policy counts is the slot's tasks themselves; nothing is remembered besides the state, so a
//! new leader goes on where the old one was.

use std::sync::Arc;

use swarm_model::{
    Availability, Cause, NodeState, RestartCondition, ServiceSpec, Settings, Task, TaskState, Timestamp, UpdateOrder,
    mutant::mutant,
};

use super::slots::Slot;
use crate::State;

/// A task with a running predecessor is started anyway after this: 60 s (swarm-behaviour §3.5). One that may take longer
/// to stop is waited for longer.
const PREDECESSOR_STOP_MAX_NS: i64 = 60_000_000_000;
/// How much longer than its grace period a task may take to stop, until its node says so: 10 s.
const PREDECESSOR_STOP_MARGIN_NS: i64 = 10_000_000_000;

/// A task that its engine refused, so that it never ran, is started anew no sooner than this: 1 s. Without a delay of the
/// policy the managers would write tens of log entries a second, for as long as nobody mends the service.
const REFUSED_DELAY_MIN_NS: i64 = 1_000_000_000;

/// Longest delay that doubling leads to: 5 minutes. A policy that waits longer keeps its own.
const BACKOFF_MAX_NS: i64 = 300_000_000_000;
/// A task that ran so long starts anew with the policy's delay: 10 minutes.
const BACKOFF_RESET_NS: i64 = 600_000_000_000;
/// What is doubled when the policy's delay is shorter, or none at all: half a second.
const BACKOFF_BASE_MIN_NS: i64 = 500_000_000;
/// Half a second, doubled so often, is more than the longest delay.
const BACKOFF_DOUBLINGS_MAX: u32 = 10;

/// What to do with a task that cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Fine,
    /// Nothing before this time: it ended inside its own restart delay.
    Later(Timestamp),
    /// Its slot stays as it is: the policy allows no restart.
    Leave,
    /// Replace it; the replacement may start at this time, or at once. So many restarts in a row led to it.
    Replace { start_at: Option<Timestamp>, restarts: u32 },
}

/// Whether what ended on a node may start there again: it exists, is not down and is not drained (swarm-behaviour
/// §3.2).
fn keeps_tasks(state: &State, task: &Task) -> bool {
    task.node.is_none_or(|id| {
        state.node(id).is_some_and(|n| n.status.state != NodeState::Down && n.spec.availability != Availability::Drain)
    })
}

/// Whether the node of a task cannot tell how the task is, and is not waited for.
pub(super) fn is_silent(state: &State, task: &Task) -> bool {
    task.node.is_some_and(|id| state.node(id).is_none_or(|n| n.status.state == NodeState::Down))
}

/// Judges a task that is meant to live. `slot` is all tasks of its slot, the oldest first.
pub(super) fn judge(state: &State, spec: &ServiceSpec, slot: &Slot, task: &Task, now: Timestamp) -> Verdict {
    let ended = task.status.state.is_terminal();
    // What a job has done it does not do again, also with condition any (swarm-behaviour §3.4).
    // What runs on a drained node moves with the rolling replacement (`rolling.rs`), which jobs do not have.
    let stays = || if spec.mode.is_job() { keeps_tasks(state, task) } else { !is_silent(state, task) };
    if task.is_done() || !ended && stays() {
        return Verdict::Fine;
    }
    if !allowed(spec, slot, task) {
        return Verdict::Leave;
    }
    if !ended {
        // A lost node's tasks start elsewhere at once, those of a drained one when they have stopped.
        let start_at = (!is_silent(state, task)).then_some(now);
        return Verdict::Replace { start_at, restarts: task.restarts };
    }
    if let Some(start_at) = task.start_at.filter(|start_at| *start_at > now) {
        return Verdict::Later(start_at);
    }
    let restarts_before = restarts_in_a_row(task);
    let restarts = restarts_before.saturating_add(1);
    if !keeps_tasks(state, task) {
        return Verdict::Replace { start_at: None, restarts };
    }
    let from = task.status_applied_at.max(task.start_at.unwrap_or_default());
    // A task that never ran has reached no earlier state than its end.
    let never_ran = task.reached_at.is_none_or(|at| at >= task.status_applied_at);
    let is_refused = task.status.state == TaskState::Rejected && never_ran;
    let least_ns = if is_refused { REFUSED_DELAY_MIN_NS } else { 0 };
    let start_at = from.plus_ns(delay_ns(spec, restarts_before).max(least_ns));
    Verdict::Replace { start_at: Some(start_at).filter(|start_at| *start_at > now), restarts }
}

/// Restarts in a row up to a task that ended, unless it ran well for long.
fn restarts_in_a_row(task: &Task) -> u32 {
    let ran_ns = task.reached_at.map_or(0, |reached_at| task.status_applied_at.since_ns(reached_at));
    if ran_ns >= BACKOFF_RESET_NS { 0 } else { task.restarts }
}

/// The restart delay after so many restarts in a row: the policy's; with `swarmd.restart.backoff` twice as long each
/// time.
fn delay_ns(spec: &ServiceSpec, restarts: u32) -> i64 {
    let policy_ns = spec.task_template.restart().delay_or_default_ns();
    if restarts == 0 || !Settings::of(&spec.labels).restart_backoff {
        return policy_ns;
    }
    let doubled_ns = policy_ns.max(BACKOFF_BASE_MIN_NS).saturating_mul(1_i64 << restarts.min(BACKOFF_DOUBLINGS_MAX));
    doubled_ns.min(BACKOFF_MAX_NS).max(policy_ns)
}

/// Whether a task did what it was to do: it has completed, and the policy does not start anew what has completed.
pub(super) fn did_its_part(spec: &ServiceSpec, task: &Task) -> bool {
    task.status.state == TaskState::Complete && spec.task_template.restart().condition != RestartCondition::Any
}

/// Whether the policy lets this task be replaced.
/// Restarts count per slot and spec version; what an update, a rollback or a drain made is none.
pub(super) fn allowed(spec: &ServiceSpec, slot: &Slot, task: &Task) -> bool {
    let policy = spec.task_template.restart();
    match policy.condition {
        RestartCondition::None => return false,
        RestartCondition::OnFailure if task.status.state == TaskState::Complete => return false,
        RestartCondition::OnFailure | RestartCondition::Any => {}
    }
    policy.max_attempts == 0 || restarts(spec, slot, task) < policy.max_attempts
}

/// The restarts that count when this task ends.
pub(super) fn restarts(spec: &ServiceSpec, slot: &Slot, task: &Task) -> u64 {
    let policy = spec.task_template.restart();
    // The window ends where the task ended, not now: the verdict must not change while nothing happens.
    let end = task.status_applied_at;
    let window_ns = policy.window_or_default_ns();
    let restarts = slot
        .0
        .iter()
        .filter(|t| t.spec_version == task.spec_version && t.desired != swarm_model::DesiredState::Remove)
        .filter(|t| t.cause == Cause::Restart)
        .filter(|t| window_ns == 0 || end.since_ns(t.created_at) < window_ns)
        .count();
    restarts as u64
}

/// When a task that is prepared may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At once.
    Now,
    /// Not before this time, which may be moved forward by an event.
    At(Timestamp),
    /// When the task that still serves in its place has been told to stop.
    WhenAlone,
}

/// When a task with desired state ready may run.
pub(super) fn start(state: &State, slot: &Slot, task: &Task, order: UpdateOrder, now: Timestamp) -> Start {
    let before = |t: &&Arc<Task>| t.id != task.id && t.holds_resources() && !is_silent(state, t);
    let delay_ends = task.start_at.filter(|_| !mutant("skip-restart-delay")).unwrap_or_default();
    // Counted from when it was told to stop, or last heard of: a task that is prepared first is older than that.
    let stops = slot.0.iter().filter(before).filter(|t| !t.desired.is_live());
    let stop_ends = stops.map(|t| t.updated_at.plus_ns(stop_max_ns(state, t))).max();
    let stop_ends = stop_ends.filter(|_| !mutant("skip-predecessor")).unwrap_or_default();
    match delay_ends.max(stop_ends) {
        at if at > now => Start::At(at),
        _ if order == UpdateOrder::StopFirst && slot.live().filter(before).any(|t| t.id < task.id) => Start::WhenAlone,
        _ => Start::Now,
    }
}

/// How long a task that was told to stop is waited for.
fn stop_max_ns(state: &State, task: &Task) -> i64 {
    let spec = state.spec(task.service, task.spec_version);
    let grace_ns = spec.and_then(|spec| spec.spec.task_template.container_spec.stop_grace_period_ns);
    let with_margin_ns = grace_ns.map_or(0, |grace_ns| grace_ns.saturating_add(PREDECESSOR_STOP_MARGIN_NS));
    PREDECESSOR_STOP_MAX_NS.max(with_margin_ns)
}
