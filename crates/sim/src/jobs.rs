//! What a settled cluster has made of its jobs.

use std::collections::BTreeSet;

use swarm_core::State;
use swarm_model::{Service, ServiceMode, Task, TaskState};

use crate::{
    converged::{could_take, is_given_up, is_up_to_date},
    oracle::{Place, constraints_hold, place_of, tasks_of},
};

/// Each place of a job is done, given up, or has a task that runs or waits for room; where more tasks may run at a
/// time, none is left out. Nothing runs of an earlier execution.
pub(crate) fn check(state: &State, service: &Service) -> Result<(), String> {
    let name = &service.spec.name;
    let is_present = |task: &Task| task.iteration == service.iteration();
    let all = || state.tasks_of_service(service.id);
    if let Some(task) = all().find(|task| task.is_live() && !is_present(task)) {
        return Err(format!("task {} of an earlier execution of {name} is to be {}", task.id, task.desired));
    }
    let (places, concurrent): (BTreeSet<Place>, u64) = match &service.spec.mode {
        ServiceMode::ReplicatedJob(job) => {
            let last = u32::try_from(job.total()).unwrap_or(u32::MAX);
            ((1..=last).map(|slot| (service.id, slot, None)).collect(), job.concurrent())
        }
        _ => {
            let fits = |node: &&std::sync::Arc<swarm_model::Node>| constraints_hold(node, &service.spec);
            (state.nodes().filter(fits).map(|node| (service.id, 0, Some(node.id))).collect(), u64::MAX)
        }
    };
    let live: Vec<&Task> = all().filter(|task| task.is_live()).map(|task| &**task).collect();
    let mut busy: BTreeSet<Place> = BTreeSet::new();
    for task in live {
        if !busy.insert(place_of(task)) {
            return Err(format!("place {:?} of job {name} has two live tasks", place_of(task)));
        }
        match task.status.state {
            TaskState::Running => {}
            TaskState::Pending => {
                if let Some(node) = state.nodes().find(|node| could_take(state, service, task, node)) {
                    return Err(format!("task {} of job {name} waits, though node {} has room", task.id, node.id));
                }
            }
            found => return Err(format!("task {} of job {name} is to be {} and is {found}", task.id, task.desired)),
        }
        if !is_up_to_date(state, service, task) {
            return Err(format!("task {} of job {name} is of spec version {}", task.id, task.spec_version));
        }
    }
    if let Some(surplus) = busy.difference(&places).next() {
        return Err(format!("job {name} has a task at {surplus:?}, where it is to have none"));
    }
    if busy.len() as u64 > concurrent {
        return Err(format!("job {name} has {} tasks at a time, {concurrent} are allowed", busy.len()));
    }
    let is_done = |place: &Place| {
        tasks_of(state, *place).any(|task| is_present(task) && task.status.state == TaskState::Complete)
    };
    let missing =
        places.iter().find(|place| !busy.contains(*place) && !is_done(place) && !is_given_up(state, service, **place));
    match missing {
        Some(place) if (busy.len() as u64) < concurrent => Err(format!("job {name} has no task at {place:?}")),
        _ => Ok(()),
    }
}
