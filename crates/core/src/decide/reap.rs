//! The end of tasks: which records are deleted, and when a silent node's tasks are given up (swarm-behaviour §3.8, §3.9).

use std::sync::Arc;

use swarm_model::{ClusterSpec, DesiredState, NodeState, Service, ServiceId, Task, TaskId, TaskState, TaskStatus};

use super::{
    Planner,
    slots::{self, Place},
    update::is_of_update,
};
use crate::Op;

/// A node that is down for so long does not come back with its tasks: 24 h (swarm-behaviour §6.1).
const ORPHAN_AFTER_NS: i64 = 24 * 3_600_000_000_000;

/// What is left of a service that was removed: its tasks go as they end.
pub(super) fn removed_service(planner: &mut Planner, id: ServiceId) {
    let tasks = tasks_left(planner, id);
    planner.look(tasks.len());
    // Tasks that were created by an entry that overtook the removal are told to stop here.
    let late: Vec<TaskId> =
        tasks.iter().filter(|task| task.desired != DesiredState::Remove).map(|task| task.id).collect();
    planner.push_each(None, &late, |tasks| Op::SetDesired { desired: DesiredState::Remove, tasks });
    orphans_among(planner, id, tasks_left(planner, id).iter());
    let ended = tasks_left(planner, id).into_iter().filter(|task| task.status.state.is_terminal());
    let ended: Vec<TaskId> = ended.map(|task| task.id).collect();
    planner.push_each(None, &ended, |tasks| Op::DeleteTasks { tasks });
}

/// The tasks of a service that was removed, as far as the look goes.
fn tasks_left(planner: &Planner, id: ServiceId) -> Vec<Arc<Task>> {
    let state = &planner.state;
    match &planner.part {
        Some(part) => part.numbers.iter().flat_map(|slot| state.tasks_of_slot(id, *slot)).cloned().collect(),
        None => state.tasks_of_service(id).cloned().collect(),
    }
}

/// The history of a service: no more than the limit in each place, the oldest go first. With its node, a place of a
/// global service is gone for good, and its history with it (swarm-behaviour §3.3).
pub(super) fn history(planner: &mut Planner, service: &Service) {
    let slots = planner.slots(service);
    let with_history = service.spec.mode.is_job().then(|| slots::with_history(&planner.state, service));
    let tasks: Vec<TaskId> = with_history
        .as_ref()
        .unwrap_or(&slots.shown)
        .iter()
        .flat_map(|(place, slot)| match place {
            Place::Node(node) if planner.state.node(*node).is_none() => {
                slot.0.iter().filter(|task| task.status.state.is_terminal()).map(|task| task.id).collect()
            }
            _ => excess(planner, service, &slot.0),
        })
        .collect();
    planner.push_each(None, &tasks, |tasks| Op::DeleteTasks { tasks });
}

fn excess(planner: &Planner, service: &Service, tasks: &[Arc<Task>]) -> Vec<TaskId> {
    let restart = service.spec.task_template.restart();
    let limit = if restart.max_attempts > 0 {
        // The restart policy counts these (swarm-behaviour §3.6).
        usize::try_from(restart.max_attempts).unwrap_or(usize::MAX).saturating_add(1)
    } else {
        let history = planner.state.cluster().map_or(ClusterSpec::TASK_HISTORY_DEFAULT, |c| c.spec.task_history());
        // Negative keeps all.
        usize::try_from(history).unwrap_or(usize::MAX)
    };
    let ended = |task: &&Arc<Task>| task.status.state.is_terminal();
    let removed = tasks.iter().filter(|task| task.desired == DesiredState::Remove);
    let kept: Vec<&Arc<Task>> = tasks.iter().filter(|task| task.desired != DesiredState::Remove).collect();
    let excess = kept.len().saturating_sub(limit);
    // The newest stays in any case: it says that the place is not to be restarted, or that an update has tried it.
    let newest = kept.last().map(|task| task.id);
    // So does what says that, and since when, as long as the update is not over.
    let update = service.update.as_ref().filter(|update| update.state.is_active() || update.state.is_paused());
    let of_update = |task: &&&Arc<Task>| update.is_some_and(|update| is_of_update(service, update, task));
    let made = kept.iter().rfind(of_update).map(|task| task.id);
    let stays = |task: &Task| task.desired.is_live() || [newest, made].contains(&Some(task.id));
    let history = kept.into_iter().filter(|task| !stays(task));
    removed.filter(ended).chain(history.filter(ended).take(excess)).map(|task| task.id).collect()
}

/// Gives up tasks whose node is down for too long, and sees to it that the others are looked at in time.
pub(super) fn orphans(planner: &mut Planner, service: &Service) {
    let slots = planner.slots(service);
    if service.spec.mode.is_job() {
        let tasks: Vec<Arc<Task>> = planner.state.tasks_of_service(service.id).cloned().collect();
        return orphans_among(planner, service.id, tasks.iter());
    }
    orphans_among(planner, service.id, slots.shown.values().flat_map(|slot| &slot.0));
}

fn orphans_among<'a>(planner: &mut Planner, service: ServiceId, tasks: impl Iterator<Item = &'a Arc<Task>>) {
    let mut lost = Vec::new();
    for task in tasks.filter(|task| task.holds_resources()) {
        let Some(node) = task.node.and_then(|id| planner.state.node(id)) else { continue };
        if node.status.state != NodeState::Down {
            continue;
        }
        let at = node.state_since.plus_ns(ORPHAN_AFTER_NS);
        if at <= planner.now {
            lost.push(task.id);
        } else {
            planner.wake(service, at);
        }
    }
    if !lost.is_empty() {
        let mut status = TaskStatus::new(TaskState::Orphaned, planner.now);
        status.err = Some("the task's node has been down for 24 hours".into());
        planner.push_each(None, &lost, |tasks| Op::EndTasks { status: status.clone(), tasks });
    }
}
