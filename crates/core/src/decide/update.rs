//! Rolling updates and rollbacks (swarm-behaviour §4).
//!
//! There is no worker that waits: each look at the service derives from its tasks how far the places are
//! (`rolling.rs`) and what has failed. The start, the number of places and the failures are fields of the service, so
//! a new leader goes on where the old one was.

use std::sync::Arc;

use swarm_model::{
    Author, Cause, FailureAction, Principal, Service, Settings, Task, Timestamp, UpdateConfig, UpdateState,
    UpdateStatus,
};

use super::{Planner, restart, rolling};
use crate::{Op, Tx};

/// After the last place an update is watched so much longer than the delay, if the delay is longer than the monitor
/// period (swarm-behaviour §4.4).
const WATCH_AFTER_DELAY_NS: i64 = 1_000_000_000;

/// How the message of an automatic rollback begins (swarm-behaviour §4.5).
const ROLLED_BACK: &str = "update rolled back due to";

/// Due to what an update was rolled back, from the message of its rollback; none if a person asked for that.
pub(super) fn why_rolled_back(message: &str) -> Option<&str> {
    message.split_once(ROLLED_BACK).map(|(_, why)| why.trim_start())
}

/// Agents come to a new leader within this: 10 s.
const AGENTS_COME_NS: i64 = 10_000_000_000;

/// A new task that ended on its own while it was watched counts once, and only if this update made it.
pub(super) fn count_failures(planner: &mut Planner, service: &Service) {
    let Some(update) = service.update.as_ref().filter(|update| update.state.is_active()) else { return };
    let config = rolling::config(service);
    if config.failure_action == FailureAction::Continue {
        return;
    }
    let mut failed = update.failed.clone();
    let slots = planner.slots(service);
    let made = slots.shown.values().flat_map(|slot| &slot.0).filter(|task| is_of_update(service, update, task));
    failed.extend(
        made.filter(|task| has_failed(service, task, &config) || is_overdue(service, task, planner.now)).map(|t| t.id),
    );
    let Some(newest) = failed.iter().rfind(|id| !update.failed.contains(id)).copied() else { return };
    let ratio = failed.len() as f32 / update.slots.max(1) as f32;
    let mut next = UpdateStatus { failed, ..update.clone() };
    let why = if planner.state.task(newest).is_some_and(|task| is_overdue(service, task, planner.now)) {
        format!("task {newest}, which did not run before its deadline")
    } else {
        format!("failure or early termination of task {newest}")
    };
    let mut rollback = None;
    if ratio > config.max_failure_ratio {
        let pause = |what: &str| format!("{what} paused due to {why}").into();
        match (update.state, config.failure_action) {
            (UpdateState::RollbackStarted, _) => {
                (next.state, next.message) = (UpdateState::RollbackPaused, pause("rollback"));
            }
            (_, FailureAction::Rollback) if service.previous.is_some() => {
                let message = format!("{ROLLED_BACK} {why}").into();
                let op = Op::RollBack { service: service.id, keep_previous: false, message, to: None };
                let stamp = planner.random();
                let tx = Tx::new(vec![op]).by(Arc::new(Author::of(Principal::UpdatePolicy)));
                let tx = tx.stamped(&planner.state, stamp);
                // Without a free port the service goes back all the same.
                rollback = Some(tx.clone().with_ports(&planner.state).unwrap_or(tx));
            }
            _ => (next.state, next.message) = (UpdateState::Paused, pause("update")),
        }
    }
    let progress = || Tx::new(vec![Op::SetUpdate { service: service.id, update: next }]);
    planner.push_for(service, rollback.unwrap_or_else(progress));
}

/// Whether this update made the task, and for the spec that is being rolled out.
pub(super) fn is_of_update(service: &Service, update: &UpdateStatus, task: &Task) -> bool {
    task.cause == Cause::Update && task.spec_version == service.spec_version && task.created_at >= update.started_at
}

/// Whether a task that an update made is watched still. What takes over from it before it could fail, because its node is
/// drained or lost, is the update's as well: it may fail in its stead.
pub(super) fn is_watched(service: &Service, task: &Task, now: Timestamp) -> bool {
    let update = service.update.as_ref().filter(|update| update.state.is_active());
    let monitor_ns = rolling::config(service).monitor_or_default_ns();
    update.is_some_and(|update| is_of_update(service, update, task))
        && task.desired.is_live()
        && !task.status.state.is_terminal()
        && !is_overdue(service, task, now)
        && task.reached_at.is_none_or(|at| now.since_ns(at) < monitor_ns)
}

/// Completion counts as well where the restart policy starts anew what has completed: there a task is to go on running. What
/// we stopped ourselves does not count: it is no longer meant to live when it ends.
///
/// It ended when its agent says so, if that is earlier than when a manager heard of it: while there was no leader
/// reports had to wait. A node whose clock is behind makes its tasks look shorter-lived, which errs on the safe side.
fn has_failed(service: &Service, task: &Task, config: &UpdateConfig) -> bool {
    let ended_at = task.status.at.min(task.status_applied_at);
    let reached_at = task.reached_at.unwrap_or_default();
    task.desired.is_live()
        && task.status.state.is_terminal()
        && !restart::did_its_part(&service.spec, task)
        && (ended_at <= reached_at || ended_at.since_ns(reached_at) < config.monitor_or_default_ns())
}

/// Until when a task that an update made has to run (`swarmd.update.deadline`); none if it did, or has no deadline.
pub(super) fn deadline(service: &Service, task: &Task) -> Option<Timestamp> {
    let deadline_ns = Settings::of(&service.spec.labels).update_deadline_ns?;
    (task.desired.is_live() && task.reached_at.is_none()).then(|| task.created_at.plus_ns(deadline_ns))
}

/// Whether a task missed its deadline, which counts as a failure. It is left to itself: if it runs in the end, it
/// takes over like any other.
fn is_overdue(service: &Service, task: &Task, now: Timestamp) -> bool {
    deadline(service, task).is_some_and(|at| at <= now)
}

/// How far the places of a service are, for its update.
#[derive(Default)]
pub(super) struct Progress {
    /// Places that still have what is to be replaced, or are under way.
    pub(super) places: u64,
    /// When the last one was reached.
    pub(super) last_reached: Option<Timestamp>,
}

/// Writes down that an update began, if there is something to do and that is not known yet, or that it is done.
pub(super) fn track(planner: &mut Planner, service: &Service, config: &UpdateConfig, progress: &Progress) {
    let known = service.update.as_ref().filter(|update| update.state.is_active());
    let slots = u32::try_from(progress.places).unwrap_or(u32::MAX);
    let update = match known {
        None if slots == 0 => return,
        None => UpdateStatus {
            state: UpdateState::Updating,
            started_at: planner.now,
            completed_at: None,
            message: "update in progress".into(),
            slots,
            failed: Default::default(),
        },
        Some(update) if slots == 0 => return complete(planner, service, update, config, progress.last_reached),
        Some(update) if update.slots > 0 => return,
        Some(update) => UpdateStatus { slots, ..update.clone() },
    };
    planner.push_for(service, Tx::new(vec![Op::SetUpdate { service: service.id, update }]));
}

/// How long after a new leader began each agent has come to it and told what it knows, or counts as lost: managers wait
/// three heartbeats for an agent, and longer if the period is short.
fn told_after_ns(planner: &Planner) -> i64 {
    let period_ns = planner.state.cluster().map_or(0, |cluster| cluster.spec.dispatcher.heartbeat_period_ns);
    AGENTS_COME_NS.max(period_ns.saturating_mul(3))
}

/// Ends an update once its last place has been watched long enough.
fn complete(
    planner: &mut Planner,
    service: &Service,
    update: &UpdateStatus,
    config: &UpdateConfig,
    last_reached: Option<Timestamp>,
) {
    let monitor_ns = config.monitor_or_default_ns();
    let watch_ns = if config.delay_ns >= monitor_ns { config.delay_ns + WATCH_AFTER_DELAY_NS } else { monitor_ns };
    let watched = last_reached.map(|at| at.plus_ns(watch_ns));
    // While there was no leader nobody heard of failures: the agents get the time to tell.
    let told = planner.led_since.plus_ns(told_after_ns(planner));
    if let Some(at) = watched.map(|at| at.max(told)).filter(|at| *at > planner.now) {
        planner.wake(service.id, at);
        return;
    }
    let (state, message) = match update.state {
        // Why it was rolled back is asked for afterwards.
        UpdateState::RollbackStarted if why_rolled_back(&update.message).is_some() => {
            (UpdateState::RollbackCompleted, format!("rollback completed: {}", update.message))
        }
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, "rollback completed".to_owned()),
        _ => (UpdateState::Completed, "update completed".to_owned()),
    };
    let update = UpdateStatus { state, message: message.into(), completed_at: Some(planner.now), ..update.clone() };
    planner.push_for(service, Tx::new(vec![Op::SetUpdate { service: service.id, update }]));
}
