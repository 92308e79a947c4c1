//! How far a service is, from one snapshot.

use std::collections::BTreeMap;

use swarm_docker_api::view::{ServiceView, TaskView};
use swarm_model::ServiceMode;

use super::source::Snapshot;
use crate::units::{one_line, short_id};

/// Lines of single tasks are shown up to this many tasks.
pub(super) const LINES_MAX: u64 = 20;

/// States in the order that a task passes them; those that are not listed are not shown (docker-api §6).
const STATES: [&str; 13] = [
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
];

/// The place of a state in its order, from 1; none for a state that is not shown.
pub(super) fn rank(state: &str) -> Option<usize> {
    STATES.iter().position(|s| *s == state).map(|i| i + 1)
}

/// Whether a task in this state has ended.
pub(super) fn is_terminal(state: &str) -> bool {
    rank(state).is_none_or(|r| r > 9)
}

/// Whether an update or a rollback is under way.
pub(super) fn is_updating(service: &ServiceView) -> bool {
    let state = service.update_status.as_ref().map(|status| status.state.as_str());
    matches!(state, Some("updating" | "rollback_started"))
}

/// How far a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Name of the service.
    pub(super) service: String,
    /// `overall progress`, or that of a job.
    pub(super) title: &'static str,
    /// All tasks together.
    pub(super) overall: String,
    /// Tasks one by one, if they are few.
    pub(super) lines: Vec<Line>,
    /// Whether as many tasks run as there should be.
    pub(super) converged: bool,
    /// Whether it runs to an end.
    pub(super) is_job: bool,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// `2/5`, or the start of a node id.
    pub(super) id: String,
    /// Its state.
    pub(super) state: String,
    /// What is wrong with it.
    pub(super) error: Option<String>,
}

/// Remembers which line a slot has: slots are not always 1 to N, and lines must not jump.
#[derive(Debug, Default)]
pub(super) struct View {
    line_of_slot: BTreeMap<u64, u64>,
}

impl View {
    /// How far the service is now.
    pub(super) fn update(&mut self, snapshot: &Snapshot) -> Progress {
        let spec = &snapshot.service.spec;
        let progress = match &spec.mode {
            ServiceMode::Replicated { replicas } => self.replicated(snapshot, *replicas),
            ServiceMode::Global => global(snapshot),
            ServiceMode::ReplicatedJob(job) => super::job::replicated(snapshot, job),
            ServiceMode::GlobalJob => super::job::global(snapshot),
        };
        let title = if progress.is_job { "job progress" } else { "overall progress" };
        let is_back = snapshot.service.update_status.as_ref().is_some_and(|s| s.state.starts_with("rollback"));
        let overall = if is_back { format!("rolling back update: {}", progress.overall) } else { progress.overall };
        Progress { service: spec.name.clone(), title, overall, ..progress }
    }

    fn replicated(&mut self, snapshot: &Snapshot, replicas: u64) -> Progress {
        let best = best_tasks(snapshot, |task| task.slot.unwrap_or_default().to_string());
        let mut running = 0;
        let mut lines = BTreeMap::new();
        for task in best.into_values() {
            let is_wanted = !is_terminal(&task.desired_state);
            running += u64::from(is_wanted && task.status.state == "running");
            let next = self.line_of_slot.len() as u64 + 1;
            let slot = task.slot.unwrap_or_default();
            let number = match self.line_of_slot.get(&slot) {
                Some(number) => *number,
                // A slot that is going away gets no line.
                None if !is_wanted => continue,
                None => *self.line_of_slot.entry(slot).or_insert(next),
            };
            if number <= replicas && replicas <= LINES_MAX {
                lines.insert(number, line(format!("{number}/{replicas}"), task));
            }
        }
        Progress {
            overall: format!("{running} out of {replicas} tasks"),
            lines: lines.into_values().collect(),
            converged: running == replicas,
            ..Progress::default()
        }
    }
}

fn global(snapshot: &Snapshot) -> Progress {
    let best = best_tasks(snapshot, |task| task.node_id.clone());
    let wanted: Vec<&TaskView> = best.into_values().filter(|t| !is_terminal(&t.desired_state)).collect();
    let running = wanted.iter().filter(|t| t.status.state == "running").count();
    let few = wanted.len() as u64 <= LINES_MAX;
    Progress {
        overall: match wanted.len() {
            0 => "waiting for new tasks".to_owned(),
            total => format!("{running} out of {total} tasks"),
        },
        lines: wanted.iter().filter(|_| few).map(|t| line(short_id(&t.node_id).to_owned(), t)).collect(),
        // Which nodes will have a task is not known: during an update it is those that were updated already.
        converged: !wanted.is_empty() && running == wanted.len() && !is_updating(&snapshot.service),
        ..Progress::default()
    }
}

/// The task that stands for each place: wanted ones before others, then the one that is least far, since that one
/// is on its way up while the other is on its way out. Tasks of nodes that are down stand for nothing.
fn best_tasks(snapshot: &Snapshot, place: impl Fn(&TaskView) -> String) -> BTreeMap<(u64, String), &TaskView> {
    let mut best: BTreeMap<(u64, String), &TaskView> = BTreeMap::new();
    let key = |task: &TaskView| Some((rank(&task.desired_state)?, rank(&task.status.state)?));
    for task in &snapshot.tasks {
        let Some(task_key) = key(task) else { continue };
        if !snapshot.may_move(task) {
            continue;
        }
        let entry = best.entry((task.slot.unwrap_or_default(), place(task))).or_insert(task);
        // Of two ended tasks the later one tells more.
        let is_later = task_key == key(entry).unwrap_or(task_key) && task.created_at > entry.created_at;
        if key(entry).is_some_and(|k| task_key < k) || is_later {
            *entry = task;
        }
    }
    best
}

pub(super) fn line(id: String, task: &TaskView) -> Line {
    let error = one_line(&task.status.err);
    Line { id, state: task.status.state.clone(), error: (!error.is_empty()).then_some(error) }
}
