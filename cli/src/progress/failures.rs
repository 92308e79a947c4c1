//! Tasks that fail again and again.

use std::collections::{BTreeMap, BTreeSet};

use swarm_docker_api::view::{TaskView, Time};
use swarm_model::{RestartCondition, ServiceMode, ServiceSpec};

use super::view::is_terminal;
use crate::{tasks::place, units::one_line};

/// So many ends in a row are no accident: with the default restart delay they take a quarter of a minute.
const ENDS_IN_A_ROW_MAX: usize = 3;

/// Ids of the tasks that have ended.
pub(crate) fn ended_task_ids(tasks: &[TaskView]) -> BTreeSet<String> {
    tasks.iter().filter(|t| is_terminal(&t.status.state)).map(|t| t.id.clone()).collect()
}

/// The failure that came last among the tasks of the service of this name, as `task web.1 failed: exit 1`.
pub(crate) fn last_failure(tasks: &[TaskView], ended_before: &BTreeSet<String>, name: &str) -> Option<String> {
    let failed = |t: &&TaskView| matches!(&*t.status.state, "failed" | "rejected") && !ended_before.contains(&t.id);
    let task = tasks.iter().filter(failed).max_by_key(|task| (task.created_at, &task.id))?;
    Some(format!("task {name}.{} {}: {}", place(task), what(&task.status.state), reason(task)))
}

impl Hopeless {
    /// How often it ended so.
    pub(super) fn times(&self) -> String {
        let times = match self.times {
            1 => "once".to_owned(),
            times => format!("{times} times in a row"),
        };
        if self.is_final { format!("{times}, and is not restarted") } else { times }
    }
}

/// How a task ended.
#[derive(Clone, Debug)]
struct End {
    state: String,
    reason: String,
}

/// A place whose tasks do not stay up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hopeless {
    /// Slot, or node id.
    pub(super) place: String,
    /// `failed`, `was rejected`, `ended`.
    pub(super) what: &'static str,
    /// How often.
    pub(super) times: usize,
    /// The last reason.
    pub(super) reason: String,
    /// It is not restarted again.
    pub(super) is_final: bool,
}

/// Remembers how tasks ended since the command began, place by place. The cluster forgets: its history is short.
#[derive(Debug, Default)]
pub(super) struct Failures {
    ignored: BTreeSet<String>,
    /// By place, then by time and id.
    ends: BTreeMap<String, BTreeMap<(Time, String), End>>,
}

impl Failures {
    /// Ignores the tasks that had ended before.
    pub(super) fn new(ended_before: BTreeSet<String>) -> Self {
        Self { ignored: ended_before, ends: BTreeMap::new() }
    }

    /// The tasks whose ends do not count.
    pub(super) fn ignored(&self) -> &BTreeSet<String> {
        &self.ignored
    }

    /// Takes note of the tasks that have ended.
    pub(super) fn observe(&mut self, tasks: &[TaskView]) {
        for task in tasks.iter().filter(|t| is_terminal(&t.status.state) && !self.ignored.contains(&t.id)) {
            let place = place(task);
            let key = (task.created_at, task.id.clone());
            self.ends
                .entry(place)
                .or_default()
                .entry(key)
                .or_insert_with(|| End { state: task.status.state.clone(), reason: reason(task) });
        }
    }

    /// A place that will not come up, or has failed too often in a row.
    pub(super) fn hopeless(&self, spec: &ServiceSpec) -> Option<Hopeless> {
        let is_job = matches!(spec.mode, ServiceMode::ReplicatedJob(_) | ServiceMode::GlobalJob);
        let restart = spec.task_template.restart();
        self.ends.iter().find_map(|(place, ends)| {
            let counts = |end: &&End| match end.state.as_str() {
                "failed" | "rejected" => true,
                "complete" => !is_job,
                _ => false,
            };
            let times = ends.values().rev().take_while(counts).count();
            let last = ends.values().next_back()?;
            let is_last_chance = match restart.condition {
                RestartCondition::None => true,
                RestartCondition::OnFailure => last.state == "complete",
                RestartCondition::Any => false,
            };
            let limit = match usize::try_from(restart.max_attempts) {
                _ if is_last_chance => 1,
                Ok(attempts) if attempts > 0 => ENDS_IN_A_ROW_MAX.min(attempts.saturating_add(1)),
                _ => ENDS_IN_A_ROW_MAX,
            };
            (times >= limit).then(|| Hopeless {
                place: place.clone(),
                what: what(&last.state),
                times,
                reason: last.reason.clone(),
                is_final: is_last_chance || usize::try_from(restart.max_attempts).is_ok_and(|n| n > 0 && times > n),
            })
        })
    }
}

fn what(state: &str) -> &'static str {
    match state {
        "rejected" => "was rejected",
        "complete" => "ended",
        _ => "failed",
    }
}

fn reason(task: &TaskView) -> String {
    let status = &task.status;
    let exit_code = status.container_status.as_ref().map(|c| c.exit_code);
    match (one_line(&status.err), exit_code) {
        (err, _) if !err.is_empty() => err,
        (_, Some(code)) => format!("the container exited with code {code}"),
        (_, None) => one_line(&status.message),
    }
}
