//! Whether to go back to the spec before an update that went on although its tasks do not run.

use std::sync::Arc;

use swarm_model::{FailureAction, Service, Task, TaskState, Timestamp, UpdateState};

use super::{RECENT_NS, task};
use crate::{
    State,
    decide::{
        rolling,
        slots::{self, Kinship, Slot},
    },
};

/// The way back, if there is an earlier spec, and tasks of the present one fail or never found a node. That an update was
/// long ago and others of them run says that it is not to blame.
pub(super) fn advice(state: &State, service: &Service, now: Timestamp) -> Option<String> {
    let (update, previous) = (service.update.as_ref()?, &service.previous.as_ref()?.spec);
    let differs = (&previous.task_template, &previous.endpoint_spec)
        != (&service.spec.task_template, &service.spec.endpoint_spec);
    let goes_on = rolling::config(service).failure_action == FailureAction::Continue;
    let is_over = match update.state {
        UpdateState::Completed => true,
        UpdateState::Updating if goes_on => false,
        _ => return None,
    };
    let (kinship, mut fails, mut runs) = (Kinship::default(), false, false);
    for slot in slots::of(state, service).values() {
        let Some(newest) = slot.live().next_back().or_else(|| slot.finished(service)) else { continue };
        if kinship.is_dirty(state, service, newest) || task::is_done(service, newest) {
            continue;
        }
        let waits = newest.status.state == TaskState::Pending && is_over;
        let waited = waits && update.completed_at.is_some_and(|at| newest.created_at <= at);
        let failed = has_failed(slot, newest, now);
        fails |= failed || waited;
        runs |= newest.status.state == TaskState::Running && !failed;
    }
    let is_recent = update.completed_at.is_none_or(|at| now.since_ns(at) < RECENT_NS);
    let name = &service.spec.name;
    (differs && fails && (is_recent || !runs))
        .then(|| format!("`swarmctl service rollback {name}` goes back to what ran before the update"))
}

/// Whether a place failed of late with the spec that it has, or for good.
fn has_failed(slot: &Slot, newest: &Arc<Task>, now: Timestamp) -> bool {
    let is_recent = |task: &Arc<Task>| now.since_ns(task.status_applied_at) < RECENT_NS;
    let is_over = newest.status.state.is_terminal();
    task::failed_before(slot, newest).any(|task| is_recent(task) || is_over)
}
