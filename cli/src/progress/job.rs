//! How far a job is: what has completed counts, not what runs (swarm-behaviour §11.5).

use std::collections::BTreeMap;

use swarm_docker_api::view::TaskView;
use swarm_model::ReplicatedJob;

use super::{
    source::Snapshot,
    view::{LINES_MAX, Line, Progress, is_terminal, line},
};
use crate::{tasks::place, units::short_id};

/// So many completions are wanted.
pub(super) fn replicated(snapshot: &Snapshot, job: &ReplicatedJob) -> Progress {
    let total = job.total();
    let mut best = best_tasks(snapshot);
    // After the number was lowered, slots beyond it are on their way out.
    best.retain(|(slot, _), _| slot.is_some_and(|slot| slot < total));
    let complete = best.values().filter(|task| is_complete(task)).count() as u64;
    let active = best.values().filter(|task| is_active(task)).count();
    let mut lines = vec![Line {
        id: "active tasks".to_owned(),
        state: format!("{active} out of {} tasks", total.saturating_sub(complete).min(job.concurrent())),
        error: None,
    }];
    if total <= LINES_MAX {
        // Slots of jobs count from 0.
        lines.extend(best.into_values().filter_map(|t| Some(line(format!("{}/{total}", t.slot? + 1), t))));
    }
    progress(complete, total, complete >= total, lines)
}

/// Every node that has a task is to complete it.
pub(super) fn global(snapshot: &Snapshot) -> Progress {
    let mut best = best_tasks(snapshot);
    // A node that was drained, lost or removed is not waited for; a failure is.
    best.retain(|_, task| is_complete(task) || is_active(task) || matches!(&*task.status.state, "failed" | "rejected"));
    let (complete, total) = (best.values().filter(|task| is_complete(task)).count() as u64, best.len() as u64);
    if total == 0 {
        return Progress { overall: "waiting for tasks".to_owned(), is_job: true, ..Progress::default() };
    }
    let lines = match total {
        0..=LINES_MAX => best.into_values().map(|task| line(short_id(&task.node_id).to_owned(), task)).collect(),
        _ => Vec::new(),
    };
    progress(complete, total, complete == total, lines)
}

fn progress(complete: u64, total: u64, converged: bool, lines: Vec<Line>) -> Progress {
    let overall = format!("{complete} out of {total} complete");
    Progress { overall, lines, converged, is_job: true, ..Progress::default() }
}

fn is_complete(task: &TaskView) -> bool {
    task.status.state == "complete"
}

/// Whether it is to complete, and may.
fn is_active(task: &TaskView) -> bool {
    let is_wanted = !is_terminal(&task.desired_state) || task.desired_state == "complete";
    is_wanted && !is_terminal(&task.status.state)
}

/// The task of the present execution that stands for each place: one that has completed, else the one that is on its
/// way, else the last one.
fn best_tasks(snapshot: &Snapshot) -> BTreeMap<(Option<u64>, String), &TaskView> {
    let iteration = snapshot.service.job_status.map(|job| job.job_iteration);
    let merit = |task: &TaskView| (is_complete(task), is_active(task), task.created_at);
    let mut best: BTreeMap<_, &TaskView> = BTreeMap::new();
    for task in snapshot.tasks.iter().filter(|task| task.job_iteration == iteration) {
        let entry = best.entry((task.slot, place(task))).or_insert(task);
        if merit(task) > merit(entry) {
            *entry = task;
        }
    }
    best
}
