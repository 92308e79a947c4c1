//! What has to hold of rolling updates.

use std::{collections::BTreeSet, sync::Arc};

use swarm_core::{Op, State};
use swarm_model::{Cause, Service, ServiceId, Task, UpdateConfig};

use crate::oracle::{Place, place_of, tasks_of};

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
        let under_way: BTreeSet<Place> = before
            .tasks_of_service(id)
            .filter(|task| is_made_by_update(service, task))
            .map(|task| place_of(task))
            .filter(|place| is_under_way(before, service, *place) && is_under_way(after, service, *place))
            .collect();
        let mut places: BTreeSet<Place> = after
            .tasks_of_service(id)
            .filter(|task| task.cause == Cause::Update && before.task(task.id).is_none())
            .map(|task| place_of(task))
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

fn is_under_way(state: &State, service: &Service, place: Place) -> bool {
    let Some(made) = tasks_of(state, place).filter(|task| is_made_by_update(service, task)).last() else {
        return false;
    };
    let heirs = || {
        tasks_of(state, place)
            .filter(|task| task.spec_version == service.spec_version && task.created_at >= made.created_at)
    };
    // A node that came back gets a new task; that is no step of an update.
    let goes_on = |task: &Arc<Task>| task.desired.is_live() && task.cause != Cause::Fill;
    heirs().any(goes_on) && heirs().all(|task| task.reached_at.is_none())
}
