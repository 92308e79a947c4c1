//! What has to hold of rolling updates, and of all that stops tasks that run.

use std::{collections::BTreeSet, sync::Arc};

use swarm_core::{Op, State};
use swarm_model::{
    Cause, DesiredState, NodeState, Service, ServiceId, ServiceMode, Settings, Task, TaskState, UpdateConfig,
};

use crate::{
    converged::may_be_given_up,
    oracle::{Place, place_of, tasks_of},
};

/// The policy in force.
fn policy(service: &Service) -> UpdateConfig {
    let config = if service.rolls_back() { &service.spec.rollback_config } else { &service.spec.update_config };
    config.clone().unwrap_or_else(UpdateConfig::when_absent)
}

/// Whether the update under way made this task.
fn is_made_by_update(service: &Service, task: &Task) -> bool {
    let began = service.update.as_ref().map(|update| update.started_at);
    task.cause == Cause::Update
        && task.spec_version == service.spec_version
        && began.is_some_and(|began| task.created_at >= began)
}

/// Whenever an update begins with another place, no more are under way than its policy allows. A place is under way
/// from the time when its new task is made until that, or what took over from it, has run or ended.
pub(crate) fn parallelism(before: &State, after: &State, ops: &[&Op]) -> Result<(), String> {
    let begun: BTreeSet<ServiceId> = ops
        .iter()
        .filter_map(|op| match op {
            Op::CreateTasks { service, cause: Cause::Update, .. } => Some(*service),
            _ => None,
        })
        .collect();
    for id in begun {
        let Some(service) = after.service(id) else { continue };
        let most = policy(service).parallelism;
        if most == 0 {
            continue;
        }
        // What the same plan has ended is under way no longer, though it may be started again.
        let ended = ended_by(before, ops);
        // A place that has no node, or had none before, takes nobody's turn. One where nothing was left gets a task that
        // waits for a node, and finds one in the same plan perhaps.
        let is_idle =
            |place: Place| nothing_runs(before, place) || nothing_runs(after, place) && is_taken(after, place);
        let under_way: BTreeSet<Place> = before
            .tasks_of_service(id)
            .filter(|task| is_made_by_update(service, task))
            .map(|task| place_of(task))
            .filter(|place| is_under_way(before, service, *place) && is_under_way(after, service, *place))
            .filter(|place| !ended.contains(place) && !is_idle(*place))
            .collect();
        // What comes instead of a new task whose node is drained or lost begins nothing.
        let is_first = |place: &Place| !tasks_of(before, *place).any(|task| is_made_by_update(service, task));
        let mut places: BTreeSet<Place> = after
            .tasks_of_service(id)
            .filter(|task| task.cause == Cause::Update && before.task(task.id).is_none())
            .map(|task| place_of(task))
            .filter(is_first)
            .filter(|place| !is_idle(*place) && !is_driven_out(before, after, *place))
            .collect();
        let begins = !places.is_subset(&under_way);
        places.extend(under_way);
        // An operator may have lowered the number meanwhile; then none may be added.
        if begins && places.len() as u64 > most {
            return Err(format!(
                "an update of service {} has {} places under way, {most} are allowed: {places:?}",
                service.spec.name,
                places.len(),
            ));
        }
    }
    Ok(())
}

/// Whether nothing runs in a place: its tasks, if it has some that are meant to live, wait for a node.
fn nothing_runs(state: &State, place: Place) -> bool {
    let waits = |task: &Arc<Task>| task.status.state == TaskState::Pending;
    let mut live = tasks_of(state, place).filter(|task| task.desired.is_live());
    live.all(waits) && !tasks_of(state, place).any(|task| task.holds_resources())
}

fn is_taken(state: &State, place: Place) -> bool {
    tasks_of(state, place).any(|task| task.desired.is_live())
}

fn is_under_way(state: &State, service: &Service, place: Place) -> bool {
    let Some(made) = tasks_of(state, place).filter(|task| is_made_by_update(service, task)).last() else {
        return false;
    };
    let heirs = || {
        tasks_of(state, place)
            .filter(|task| task.spec_version == service.spec_version && task.created_at >= made.created_at)
    };
    // One that misses its deadline holds nobody up any longer.
    let deadline_ns = Settings::of(&service.spec.labels).update_deadline_ns;
    if deadline_ns.is_some_and(|ns| made.created_at.plus_ns(ns) <= state.time()) {
        return false;
    }
    // A node that came back gets a new task; that is no step of an update.
    let goes_on = |task: &Arc<Task>| task.desired.is_live() && task.cause != Cause::Fill;
    heirs().any(goes_on) && heirs().all(|task| task.reached_at.is_none())
}

/// The places whose tasks a plan ends itself.
fn ended_by(before: &State, ops: &[&Op]) -> BTreeSet<Place> {
    let ended = ops.iter().filter_map(|op| if let Op::EndTasks { tasks, .. } = op { Some(tasks) } else { None });
    ended.flatten().filter_map(|id| before.task(*id).map(|task| place_of(task))).collect()
}

fn all_places(state: &State, service: ServiceId) -> BTreeSet<Place> {
    state.tasks_of_service(service).map(|task| place_of(task)).collect()
}

/// Whether a task runs, and its node says so.
fn serves(state: &State, task: &Task) -> bool {
    let is_ready = || task.node.and_then(|id| state.node(id)).is_some_and(|n| n.status.state == NodeState::Ready);
    task.desired.is_live() && task.status.state == TaskState::Running && is_ready()
}

/// Whether a place is let be for good, also if the plan is only about to say so.
fn is_over(state: &State, service: &Service, place: Place) -> bool {
    let is_lost = |id| state.node(id).is_none_or(|node| node.status.state == NodeState::Down);
    let is_over = |task: &Task| task.status.state.is_terminal() || task.node.is_some_and(is_lost);
    let mut live = tasks_of(state, place).filter(|task| task.desired.is_live());
    may_be_given_up(state, service, place) && live.all(|task| is_over(task))
}

/// Whether the drain of its node takes a task away whatever the policies say.
fn leaves(before: &State, after: &State, task: &Task) -> bool {
    let node = task.node.and_then(|id| before.node(id));
    node.and_then(|node| node.emptied_from()).is_some_and(|from| from <= after.time())
}

/// Whether such a task is in a place.
fn is_driven_out(before: &State, after: &State, place: Place) -> bool {
    tasks_of(before, place).any(|task| task.desired.is_live() && leaves(before, after, task))
}

/// Of a service with `swarmd.max-unavailable` nothing is stopped that it cannot do without: updates, drains and
/// rebalancing together leave so many running, whatever has failed since the plan was made. `decided` is the state that
/// it was made from.
pub(crate) fn availability(decided: &State, before: &State, after: &State, ops: &[&Op]) -> Result<(), String> {
    // What goes because there are to be fewer is removed at once; that is not limited.
    let stopped = ops.iter().filter_map(|op| match op {
        Op::SetDesired { desired: DesiredState::Shutdown, tasks } => Some(tasks),
        _ => None,
    });
    let mut hit: BTreeSet<Place> = BTreeSet::new();
    for task in stopped.flatten().filter_map(|id| before.task(*id)) {
        let place = place_of(task);
        // What has just been rejected is lost already; so was, to the plan, what was on a node that came back since.
        let served = |state: &State| state.task(task.id).is_some_and(|task| serves(state, task));
        let runs = after.task(task.id).is_some_and(|task| !task.status.state.is_terminal());
        if !(served(decided) && served(before) && runs) || leaves(decided, after, task) {
            continue;
        }
        if !tasks_of(after, place).any(|other| serves(after, other)) {
            hit.insert(place);
        }
    }
    let services: BTreeSet<ServiceId> = hit.iter().map(|place| place.0).collect();
    for id in services {
        let Some(service) = after.service(id) else { continue };
        let Some(limit) = Settings::of(&service.spec.labels).max_unavailable else { continue };
        let ServiceMode::Replicated { replicas: wanted } = service.spec.mode else { continue };
        // What an operator has changed meanwhile the plan could not know either.
        if decided.service(id).is_none_or(|known| known.spec != service.spec) {
            continue;
        }
        let places: BTreeSet<Place> =
            after.tasks_of_service(id).filter(|task| serves(after, task)).map(|task| place_of(task)).collect();
        // What has ended for good is not waited for, nor is what the same plan ended where the restart policy lets it be.
        let is_over = |place: &Place| {
            is_over(decided, service, *place)
                || ended_by(before, ops).contains(place) && may_be_given_up(decided, service, *place)
        };
        let ended = all_places(decided, id).into_iter().filter(is_over).count();
        let wanted = wanted.saturating_sub(ended as u64);
        if places.len() as u64 + limit.of(wanted) < wanted {
            return Err(format!(
                "{} of {wanted} tasks of service {} are left, {} may be away; stopped at {:?}",
                places.len(),
                service.spec.name,
                limit.of(wanted),
                hit.iter().filter(|place| place.0 == id).collect::<Vec<_>>(),
            ));
        }
    }
    Ok(())
}
