//! The story of one task.

use std::sync::Arc;

use swarm_model::{DesiredState, NodeState, RestartCondition, Service, Task, TaskState, Timestamp, format_duration};

use super::{Failure, RECENT_NS, Restart, TaskWhy, is_unwanted, nodes};
use crate::{
    State,
    decide::{restart, slots::Slot},
};

/// Failures that are told of a place.
const FAILURES_MAX: usize = 5;

/// Whether there is nothing to say about the task that stands for its place: it runs on a node that answers, and
/// nothing failed there of late.
pub(super) fn is_well(state: &State, service: &Service, slot: &Slot, task: &Task, now: Timestamp) -> bool {
    let node = task.node.and_then(|id| state.node(id));
    let runs = task.status.state == TaskState::Running && task.desired.is_live();
    let done = is_done(service, task);
    let answers = node.is_some_and(|n| n.status.state == NodeState::Ready && n.status.engine_reachable);
    let failed = failed_before(slot, task).any(|t| now.since_ns(t.status_applied_at) < RECENT_NS);
    done || runs && answers && !failed
}

/// Whether it has done its part of a job.
pub(super) fn is_done(service: &Service, task: &Task) -> bool {
    service.job.is_some() && task.status.state == TaskState::Complete
}

/// This task and those before it in its place, as far as they failed, the newest first. What failed with another spec
/// says nothing of this one.
pub(super) fn failed_before<'a>(slot: &'a Slot, task: &'a Task) -> impl Iterator<Item = &'a Arc<Task>> {
    slot.0.iter().rev().filter(move |other| {
        matches!(other.status.state, TaskState::Failed | TaskState::Rejected)
            && other.id <= task.id
            && other.spec_version == task.spec_version
    })
}

/// How a task is, and why; what would help is added to `advice`.
pub(super) fn tell(
    state: &State,
    service: &Service,
    slot: &Slot,
    task: &Arc<Task>,
    now: Timestamp,
    advice: &mut Vec<String>,
) -> TaskWhy {
    let failed = failed_before(slot, task).take(FAILURES_MAX);
    let failures: Vec<Failure> = failed.map(|task| failure(state, task)).collect();
    let restart = restart_of(service, slot, task, now);
    let node_name = task.node.map_or(String::new(), |node| nodes::name(state, node));
    let gave_up_on = |last: &Failure| restart.given_up && last.task == task.id;
    if let Some(last) = failures.first().filter(|last| now.since_ns(last.at) < RECENT_NS || gave_up_on(last)) {
        failure_advice(state, service, last, advice);
    }
    if restart.given_up {
        advice.push(format!("`swarmctl service update --force {}` starts afresh", service.spec.name));
    }
    let summary = summary(state, service, slot, task, &restart, &failures, now);
    TaskWhy { task: task.clone(), node_name, summary, failures, restart }
}

/// How a task failed.
pub(super) fn failure(state: &State, task: &Task) -> Failure {
    let status = &task.status;
    let exit_code = status.container.as_ref().and_then(|container| container.exit_code);
    let reason = match (&status.err, exit_code) {
        (Some(err), _) => err.to_string(),
        (None, Some(code)) => format!("the container exited with code {code}"),
        (None, None) => status.message().to_owned(),
    };
    Failure {
        task: task.id,
        node_name: task.node.map_or(String::new(), |node| nodes::name(state, node)),
        state: status.state,
        at: task.status_applied_at,
        exit_code,
        reason,
    }
}

fn restart_of(service: &Service, slot: &Slot, task: &Task, now: Timestamp) -> Restart {
    let newest = slot.0.iter().rfind(|other| other.desired != DesiredState::Remove);
    let is_newest = newest.is_some_and(|newest| newest.id == task.id);
    let given_up = is_newest
        && task.status.state.is_terminal()
        && !is_done(service, task)
        && !restart::allowed(&service.spec, slot, task);
    // What is prepared can fail inside its delay; the next one then starts at the end of it (swarm-behaviour §3.5).
    let waits = (is_newest || !task.status.state.is_terminal()) && !is_unwanted(task);
    Restart {
        restarts: restart::restarts(&service.spec, slot, task),
        max_attempts: service.spec.task_template.restart().max_attempts,
        wait_ns: task.start_at.map(|at| at.since_ns(now)).filter(|left| *left > 0 && waits),
        given_up,
    }
}

fn summary(
    state: &State,
    service: &Service,
    slot: &Slot,
    task: &Task,
    restart: &Restart,
    failures: &[Failure],
    now: Timestamp,
) -> String {
    let status = &task.status;
    let node = task.node.and_then(|id| state.node(id));
    let name = task.node.map_or(String::new(), |id| nodes::name(state, id));
    let since = format_duration(nodes::whole_seconds(now.since_ns(task.status_applied_at)));
    let err = status.err.as_deref().map_or(String::new(), |err| format!(": {err}"));
    if status.state.is_terminal() {
        return ended(slot, service, task, restart);
    }
    if is_unwanted(task) {
        let why = match task.desired {
            DesiredState::Remove => "its place was taken away",
            _ if slot.live().next().is_some() => "another task takes its place",
            _ => "its place is to stay empty",
        };
        return format!("is being stopped on {name}: {why}");
    }
    if status.state == TaskState::Pending {
        return match task.node {
            Some(_) => format!("waits for {name}{err}"),
            None => format!("waits for a node{err}"),
        };
    }
    match node {
        None => return format!("its node {name} was removed"),
        Some(node) if node.status.state != NodeState::Ready => {
            let since = format_duration(nodes::whole_seconds(now.since_ns(node.state_since)));
            let state = node.status.state.as_str();
            return format!("its node {name} has been {state} for {since}: how the task is now is not known");
        }
        Some(node) if !node.status.engine_reachable => {
            let state = status.state;
            return format!("the container engine of {name} does not answer: the task was last seen {state}");
        }
        Some(_) => {}
    }
    if let Some(wait_ns) = restart.wait_ns {
        // Of tasks that ended long ago nothing is kept, but this one knows how often its place was restarted in a row.
        let times = match failures.len() {
            count if task.restarts as usize > count => format!(" after it ended {} times in a row", task.restarts),
            0 => String::new(),
            FAILURES_MAX => format!(" after {FAILURES_MAX} failures or more"),
            1 => " after a failure".to_owned(),
            count => format!(" after {count} failures"),
        };
        let last = failures.first().map_or(String::new(), |last| format!(": {}", last.reason));
        return format!("is restarted {}{times}{last}", when(wait_ns));
    }
    let image = &service.spec.task_template.container_spec.image;
    match status.state {
        TaskState::Assigned => format!("{name} has not taken it yet, for {since}{err}"),
        TaskState::Accepted | TaskState::Preparing => {
            format!("{name} prepares it for {since}: it pulls {image} and creates the container{err}")
        }
        TaskState::Ready if task.desired == DesiredState::Ready => {
            format!("is prepared on {name}, and starts when the task before it has stopped{err}")
        }
        TaskState::Ready => format!("is about to start on {name}{err}"),
        TaskState::Starting if service.spec.task_template.container_spec.healthcheck.is_some() => {
            format!("started on {name} {since} ago and is not healthy yet{err}")
        }
        TaskState::Starting => format!("is starting on {name} for {since}{err}"),
        _ => match failures.first().filter(|last| now.since_ns(last.at) < RECENT_NS) {
            Some(last) => {
                let ago = format_duration(nodes::whole_seconds(now.since_ns(last.at)));
                format!("runs on {name} for {since}, but failed {ago} ago: {}", last.reason)
            }
            None => format!("runs on {name} for {since}{err}"),
        },
    }
}

/// A time that is still to come, to the tenth of a second.
fn when(wait_ns: i64) -> String {
    match wait_ns / 100_000_000 * 100_000_000 {
        0 => "now".to_owned(),
        tenths => format!("in {}", format_duration(tenths)),
    }
}

fn ended(slot: &Slot, service: &Service, task: &Task, restart: &Restart) -> String {
    let status = &task.status;
    let exit_code = status.container.as_ref().and_then(|container| container.exit_code);
    let how = match (status.state, &status.err, exit_code) {
        (TaskState::Complete, _, _) => "ended by itself with exit code 0".to_owned(),
        (TaskState::Shutdown, _, _) => "was stopped".to_owned(),
        (state, Some(err), _) => format!("{state}: {err}"),
        (state, None, Some(code)) => format!("{state}: the container exited with code {code}"),
        (state, None, None) => state.to_string(),
    };
    if is_done(service, task) {
        return format!("{how}: its part of the job is done");
    }
    if restart.given_up {
        let policy = service.spec.task_template.restart();
        let why = match policy.condition {
            RestartCondition::None => "the restart condition is none".to_owned(),
            RestartCondition::OnFailure if status.state == TaskState::Complete => {
                "the restart condition is on-failure".to_owned()
            }
            _ => format!("{} of {} restarts are used up", restart.restarts, policy.max_attempts),
        };
        return format!("{how}; it is not restarted: {why}");
    }
    let later = slot.0.iter().filter(|other| other.id > task.id).max_by_key(|other| other.id);
    match later {
        Some(next) => format!("{how}; task {} took its place", next.id),
        None if task.desired.is_live() => match restart.wait_ns {
            Some(wait_ns) => format!("{how}; it is restarted {}", when(wait_ns)),
            None => format!("{how}; it is about to be restarted"),
        },
        None => how,
    }
}

/// What may help against a failure.
fn failure_advice(state: &State, service: &Service, failure: &Failure, advice: &mut Vec<String>) {
    let name = &service.spec.name;
    let image = state
        .task(failure.task)
        .and_then(|task| state.spec(task.service, task.spec_version))
        .map_or("?", |spec| &spec.spec.task_template.container_spec.image);
    let reason = failure.reason.to_lowercase();
    if reason.contains("no such image") || reason.contains("manifest unknown") || reason.contains("pull access denied")
    {
        advice.push(format!(
            "check the name {image}; for a private registry, `docker login` and `swarmctl service update \
             --with-registry-auth {name}`"
        ));
        return;
    }
    // What engines say, and what is to be done about it.
    let known: [(&[&str], String); 5] = [
        (
            &["bind source path does not exist", "invalid mount config"],
            "make the folder on each node that may run it, or keep it to nodes that have it (--constraint-add)"
                .to_owned(),
        ),
        (
            &["executable file not found", "no such file or directory"],
            format!("the command is not in the image {image}: correct the arguments or the image"),
        ),
        (
            &["unable to find user", "no matching entries in passwd"],
            format!("the image {image} has no such user: see --user"),
        ),
        (
            &["out of memory"],
            format!(
                "it took more than its limit: `swarmctl service update --limit-memory … {name}`, or look for a leak"
            ),
        ),
        (
            &["unhealthy"],
            format!(
                "its health check fails: run the check by hand in the container; if it only needs longer to start, \
                 `swarmctl service update --health-start-period … {name}`"
            ),
        ),
    ];
    if let Some((_, text)) = known.into_iter().find(|(parts, _)| parts.iter().any(|part| reason.contains(part))) {
        advice.push(text);
        return;
    }
    match failure.exit_code {
        Some(137) => advice.push(
            "exit code 137: something killed it with SIGKILL: `docker kill`, or a machine without memory, whose kernel log \
             says so"
                .to_owned(),
        ),
        Some(127) => advice.push(format!("exit code 127: the command is not in the image {image}")),
        Some(126) => advice.push(format!("exit code 126: the command of {image} cannot be executed")),
        _ => {}
    }
    if failure.exit_code.is_some() {
        advice.push(format!("`swarmctl service logs {name}` shows what it wrote before it ended"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_almost_over_is_now() {
        assert_eq!([1, 99_999_999, 3_290_000_000].map(when), ["now", "now", "in 3.2s"]);
    }
}
