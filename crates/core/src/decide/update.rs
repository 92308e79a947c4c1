//! Rolling updates and rollbacks (swarm-behaviour §4).
//!
//! There is no worker that waits: each look at the service derives from its tasks how many places are under way, what
//! has failed and what comes next. The start, the number of places and the failures are fields of the service, so a
//! new leader goes on where the old one was.

use std::{collections::BTreeMap, sync::Arc};

use swarm_model::{
    Availability, Cause, DesiredState, FailureAction, Service, ServiceMode, Task, TaskState, Timestamp, UpdateConfig,
    UpdateOrder, UpdateState, UpdateStatus, mutant::mutant,
};

use super::{
    Planner,
    fill::{self, Need, Replacement},
    global,
    slots::{self, Place, Slot},
};
use crate::{Op, Tx, state::host_ports};

/// After the last place an update is watched so much longer than the delay, if the delay is longer than the monitor
/// period (swarm-behaviour §4.4).
const WATCH_AFTER_DELAY_NS: i64 = 1_000_000_000;

/// The policy in force: that of the spec which the service is on its way to.
fn config(service: &Service) -> UpdateConfig {
    let config = if service.rolls_back() { &service.spec.rollback_config } else { &service.spec.update_config };
    config.clone().unwrap_or_else(UpdateConfig::when_absent)
}

/// Takes an update one step further: counts failures, finishes places, begins the next ones. Returns the service as
/// it is afterwards.
pub(super) fn advance(planner: &mut Planner, service: &Arc<Service>) -> Arc<Service> {
    let current = |planner: &Planner| planner.state.service(service.id).cloned().expect("nothing removes it here");
    count_failures(planner, service);
    let service = current(planner);
    finish_places(planner, &service);
    let state = service.update.as_ref().map(|update| update.state);
    if !matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused)) {
        roll(planner, &service);
    }
    current(planner)
}

/// A new task that ended on its own while it was watched counts once, and only if this update made it.
fn count_failures(planner: &mut Planner, service: &Service) {
    let Some(update) = service.update.as_ref().filter(|update| update.state.is_active()) else { return };
    let config = config(service);
    if config.failure_action == FailureAction::Continue {
        return;
    }
    let mut failed = update.failed.clone();
    let slots = slots::of(&planner.state, service);
    let made = slots.values().flat_map(|slot| &slot.0).filter(|task| is_of_update(service, update, task));
    failed.extend(made.filter(|task| has_failed(task, &config)).map(|task| task.id));
    let Some(newest) = failed.iter().rfind(|id| !update.failed.contains(id)).copied() else { return };
    let ratio = failed.len() as f32 / update.slots.max(1) as f32;
    let mut next = UpdateStatus { failed, ..update.clone() };
    let mut op = None;
    if ratio > config.max_failure_ratio {
        let pause = |what: &str| format!("{what} paused due to failure or early termination of task {newest}").into();
        match (update.state, config.failure_action) {
            (UpdateState::RollbackStarted, _) => {
                (next.state, next.message) = (UpdateState::RollbackPaused, pause("rollback"));
            }
            (_, FailureAction::Rollback) if service.previous.is_some() => {
                let message = format!("update rolled back due to failure or early termination of task {newest}").into();
                op = Some(Op::RollBack { service: service.id, keep_previous: false, message });
            }
            _ => (next.state, next.message) = (UpdateState::Paused, pause("update")),
        }
    }
    let op = op.unwrap_or(Op::SetUpdate { service: service.id, update: next });
    planner.push_for(service, Tx::new(vec![op]));
}

/// Whether this update made the task, and for the spec that is being rolled out.
fn is_of_update(service: &Service, update: &UpdateStatus, task: &Task) -> bool {
    task.cause == Cause::Update && task.spec_version == service.spec_version && task.created_at >= update.started_at
}

/// Completion counts as well. What we stopped ourselves does not: it is no longer meant to live when it ends.
///
/// It ended when its agent says so, if that is earlier than when a manager heard of it: while there was no leader
/// reports had to wait. A node whose clock is behind makes its tasks look shorter-lived, which errs on the safe side.
fn has_failed(task: &Task, config: &UpdateConfig) -> bool {
    let ended_at = task.status.at.min(task.status_applied_at);
    let reached_at = task.reached_at.unwrap_or_default();
    task.desired.is_live()
        && task.status.state.is_terminal()
        && (ended_at <= reached_at || ended_at.since_ns(reached_at) < config.monitor_or_default_ns())
}

/// Where a new task runs beside an old one, the old one goes.
fn finish_places(planner: &mut Planner, service: &Service) {
    let mut done = Vec::new();
    for slot in slots::of(&planner.state, service).values().filter(|slot| slot.live().count() > 1) {
        let clean = |task: &Arc<Task>| !slots::is_dirty(&planner.state, service, task);
        let Some(keep) = slot.live().rfind(|t| clean(t) && t.status.state == TaskState::Running) else { continue };
        done.extend(slot.live().filter(|task| task.id != keep.id).map(|task| task.id));
    }
    planner.push_each(Some(service), &done, |tasks| Op::SetDesired { desired: DesiredState::Shutdown, tasks });
}

/// What one place means for an update.
enum Stage {
    /// Nothing to do.
    Clean,
    /// Still has what is to be replaced.
    Dirty,
    /// Its new task, or what took over from that, has not run yet.
    UnderWay,
    /// Its new task runs, or ran, since then; the delay and the watch count from there.
    Reached(Timestamp),
}

fn stage(planner: &Planner, service: &Service, order: UpdateOrder, slot: &Slot) -> Stage {
    let dirty = |task: &Arc<Task>| slots::is_dirty(&planner.state, service, task);
    // What an update made that is over is no sign of one that has yet to begin.
    let active = service.update.as_ref().filter(|update| update.state.is_active());
    let made_now = active.and_then(|update| slot.0.iter().rfind(|t| is_of_update(service, update, t)));
    if let Some(task) = made_now {
        return match task.reached_at {
            Some(at) => Stage::Reached(at),
            None if slot.live().any(|task| task.reached_at.is_none() && !dirty(task)) => Stage::UnderWay,
            None => Stage::Clean,
        };
    }
    let is_dirty = match slot.live().count() {
        0 => slot.finished(service).is_some_and(dirty),
        _ => slot.live().any(dirty),
    };
    let paused_node = slot.live().filter_map(|task| task.node).any(|id| {
        // A paused node takes nothing new: a global service's task there stays as it is (swarm-behaviour §3.3).
        slot.0.iter().all(|task| task.slot == 0)
            && planner.state.node(id).is_none_or(|node| node.spec.availability != Availability::Active)
    });
    if !is_dirty || paused_node {
        Stage::Clean
    } else if order == UpdateOrder::StartFirst && slot.live().any(|task| !dirty(task)) {
        // Something else made what is to stay: a restart, or what was there before a rollback half-way. The old one
        // goes when it runs.
        Stage::UnderWay
    } else {
        Stage::Dirty
    }
}

fn roll(planner: &mut Planner, service: &Arc<Service>) {
    let slots = slots::of(&planner.state, service);
    let mut dirty: Vec<Place> = Vec::new();
    let mut busy: u64 = 0;
    let mut last_reached = None;
    let config = config(service);
    let order = order(service, &config);
    let wanted = |place: &Place, slot: &Slot| slot.is_taken(service) && !global::is_retired(planner, service, *place);
    let places: Vec<(&Place, &Slot)> = slots.iter().filter(|(place, slot)| wanted(place, slot)).collect();
    for (place, slot) in places {
        match stage(planner, service, order, slot) {
            Stage::Clean => {}
            Stage::Dirty => dirty.push(*place),
            Stage::UnderWay => busy += u64::from(!mutant("uncounted-update")),
            Stage::Reached(at) => {
                last_reached = last_reached.max(Some(at));
                let next_at = at.plus_ns(config.delay_ns);
                if next_at > planner.now {
                    busy += 1;
                    planner.wake(service.id, next_at);
                }
            }
        }
    }
    let Some(service) = begin(planner, service, dirty.len() as u64 + busy) else { return };
    if dirty.is_empty() && busy == 0 {
        complete(planner, &service, &config, last_reached);
        return;
    }
    let room = match config.parallelism {
        0 => dirty.len(),
        parallelism => usize::try_from(parallelism.saturating_sub(busy)).unwrap_or(usize::MAX),
    };
    let needs = dirty.into_iter().take(room).map(|place| replacement(planner, &slots, place, order)).collect();
    fill::place(planner, &service, needs);
}

/// Writes down that an update is under way, if there is something to do and that is not known yet.
fn begin(planner: &mut Planner, service: &Arc<Service>, places: u64) -> Option<Arc<Service>> {
    let known = service.update.as_ref().filter(|update| update.state.is_active());
    if known.is_none() && places == 0 {
        return None;
    }
    let slots = u32::try_from(places).unwrap_or(u32::MAX);
    let update = match known {
        Some(update) if update.slots > 0 || places == 0 => return Some(service.clone()),
        Some(update) => UpdateStatus { slots, ..update.clone() },
        None => UpdateStatus {
            state: UpdateState::Updating,
            started_at: planner.now,
            completed_at: None,
            message: "update in progress".into(),
            slots,
            failed: Default::default(),
        },
    };
    planner.push_for(service, Tx::new(vec![Op::SetUpdate { service: service.id, update }]));
    planner.state.service(service.id).cloned()
}

/// On its one node, the new task of a global service could never open a port that the old one holds: such a service is
/// updated stop-first, whatever it says.
fn order(service: &Service, config: &UpdateConfig) -> UpdateOrder {
    let fixed_port = host_ports(&service.spec).next().is_some();
    if service.spec.mode == ServiceMode::Global && fixed_port { UpdateOrder::StopFirst } else { config.order }
}

fn replacement(planner: &Planner, slots: &BTreeMap<Place, Slot>, place: Place, order: UpdateOrder) -> Need {
    let slot = &slots[&place];
    let has_ended = slot.live().all(|task| task.status.state.is_terminal());
    // The task that serves while the new one starts; others in the place are left of an update that was cut short.
    let serves = |task: &&Arc<Task>| task.status.state == TaskState::Running;
    let kept = match order {
        UpdateOrder::StartFirst if !has_ended => slot.live().find(serves).or(slot.live().next()),
        UpdateOrder::StartFirst | UpdateOrder::StopFirst => None,
    };
    Need::Replace(Replacement {
        place,
        old: slot.live().filter(|task| kept.is_none_or(|kept| kept.id != task.id)).map(|task| task.id).collect(),
        cause: Cause::Update,
        beside: kept.is_some(),
        // Prepared first, it runs when the old one has stopped.
        start_at: if kept.is_some() { None } else { Some(planner.now) },
    })
}

/// Ends an update once its last place has been watched long enough.
fn complete(planner: &mut Planner, service: &Service, config: &UpdateConfig, last_reached: Option<Timestamp>) {
    let Some(update) = service.update.clone() else { return };
    let monitor_ns = config.monitor_or_default_ns();
    let watch_ns = if config.delay_ns >= monitor_ns { config.delay_ns + WATCH_AFTER_DELAY_NS } else { monitor_ns };
    if let Some(at) = last_reached.map(|at| at.plus_ns(watch_ns)).filter(|at| *at > planner.now) {
        planner.wake(service.id, at);
        return;
    }
    let (state, message) = match update.state {
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, "rollback completed"),
        _ => (UpdateState::Completed, "update completed"),
    };
    let update = UpdateStatus { state, message: message.into(), completed_at: Some(planner.now), ..update };
    planner.push_for(service, Tx::new(vec![Op::SetUpdate { service: service.id, update }]));
}
