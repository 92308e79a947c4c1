//! Jobs: tasks that run to their end, so many at a time (swarm-behaviour §3.4). A global job is filled like a global
//! service.
//!
//! A job has slots like a replicated service, one for each completion that is wanted. A slot is done when a task in it
//! has completed; one whose task failed is the restart policy's business.

use swarm_model::{DesiredState, ReplicatedJob, Service, Task, TaskId};

use super::{
    Planner,
    fill::{self, Need},
    slots::Place,
};
use crate::Op;

/// Ends what is no longer wanted: earlier executions, slots beyond the number of completions, and what runs in a slot
/// that is done already.
pub(super) fn retire(planner: &mut Planner, service: &Service) {
    let slots = planner.slots(service);
    let slots = &slots.shown;
    let id = |task: &std::sync::Arc<Task>| task.id;
    let earlier = planner.state.tasks_of_service(service.id).filter(|task| task.iteration != service.iteration());
    let (mut history, running): (Vec<_>, Vec<_>) =
        earlier.filter(|task| task.desired.is_live()).partition(|task| task.status.state.is_terminal());
    let mut removed: Vec<TaskId> = running.into_iter().map(id).collect();
    let total = service.spec.replicas();
    for (place, slot) in slots {
        if matches!(place, Place::Number(number) if total.is_some_and(|total| u64::from(*number) > total)) {
            removed.extend(slot.0.iter().filter(|task| task.desired != DesiredState::Remove).map(id));
        } else if slot.has_completed() {
            history.extend(slot.live().filter(|task| !task.is_done()));
        }
    }
    let history: Vec<TaskId> = history.into_iter().map(id).collect();
    planner.push_each(Some(service), &removed, |tasks| Op::SetDesired { desired: DesiredState::Remove, tasks });
    planner.push_each(Some(service), &history, |tasks| Op::SetDesired { desired: DesiredState::Shutdown, tasks });
}

/// Replaces what failed, and starts as many more as may run beside what runs, the lowest slots first.
pub(super) fn fill(planner: &mut Planner, service: &Service, job: &ReplicatedJob) {
    let mut needs = fill::restarts(planner, service);
    let slots = planner.slots(service);
    let slots = &slots.shown;
    let running = slots.values().filter(|slot| slot.live().any(|task| !task.is_done())).count() as u64;
    let room = usize::try_from(job.concurrent().saturating_sub(running)).unwrap_or(usize::MAX);
    let free = |place: &Place| slots.get(place).is_none_or(|slot| !slot.is_taken(service));
    let last = u32::try_from(job.total()).unwrap_or(u32::MAX);
    needs.extend((1..=last).map(Place::Number).filter(free).take(room).map(Need::New));
    fill::place(planner, service, needs);
}
