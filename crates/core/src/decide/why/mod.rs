//! Why a service, or one of its tasks, is as it is, and what would help.
//!
//! The answer is computed when somebody asks, from the state alone, by asking the scheduler and the restart policy
//! what they would say. It decides nothing.

mod back;
mod limit;
mod nodes;
mod resources;
mod stays;
mod task;

use std::sync::Arc;

use swarm_model::{
    DesiredState, NodeId, Service, ServiceId, Task, TaskId, TaskState, TaskStatus, Timestamp, UpdateOrder, UpdateState,
    UpdateStatus,
};

use super::{
    rolling, schedule,
    slots::{self, Slot},
    update,
};
use crate::{Op, Place, State, Tx, apply::apply_tx};
use nodes::Asker;
pub(crate) use nodes::Planned;
pub(crate) use stays::{Stay, Staying, why_staying};

/// Tasks that an answer about a service describes; of more than these, one is like the other.
const TASKS_MAX: usize = 10;
/// Pieces of advice in an answer.
const FIXES_MAX: usize = 6;
/// The label with the deadline of tasks that an update makes.
const DEADLINE: &str = "swarmd.update.deadline";
/// A failure that is older than this no longer says how a service is: 10 min, as the back-off forgets it by then.
const RECENT_NS: i64 = 10 * 60_000_000_000;

/// Why a service, or one of its tasks, is as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Why {
    /// The service.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// The answer in a sentence.
    pub summary: String,
    /// The last update or rollback.
    pub update: Option<UpdateStatus>,
    /// The task that was asked for, or the tasks of the service that are not as they should be.
    pub tasks: Vec<TaskWhy>,
    /// How many more such tasks there are.
    pub more_tasks: usize,
    /// If a task waits for a node: what keeps nodes from taking it.
    pub rejections: Vec<Rejection>,
    /// What would help, the most promising first.
    pub fixes: Vec<String>,
}

/// How a task is, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskWhy {
    /// The task.
    pub task: Arc<Task>,
    /// Name of its node; empty while it has none.
    pub node_name: String,
    /// The answer in a sentence.
    pub summary: String,
    /// The last tasks in its place that failed, the newest first.
    pub failures: Vec<Failure>,
    /// What the restart policy does.
    pub restart: Restart,
}

/// How a task failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The task.
    pub task: TaskId,
    /// Name of the node.
    pub node_name: String,
    /// How it ended.
    pub state: TaskState,
    /// When.
    pub at: Timestamp,
    /// Exit code of its container, if it ran.
    pub exit_code: Option<i64>,
    /// What was said.
    pub reason: String,
}

/// What the restart policy does with a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restart {
    /// Restarts that count against the limit.
    pub restarts: u64,
    /// The limit; 0 for none.
    pub max_attempts: u64,
    /// How long the next start still waits.
    pub wait_ns: Option<i64>,
    /// Whether there will be no restart.
    pub given_up: bool,
}

/// A requirement, and the nodes that do not meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The filter: `ready`, `resources`, `constraint`, `platform`, `plugin`, `host-port`, `max-replicas`, `other`.
    pub filter: &'static str,
    /// What is asked for.
    pub asked: String,
    /// Nodes, not more than a list can show.
    pub nodes: Vec<NodeRejection>,
    /// How many more nodes.
    pub more_nodes: usize,
}

/// Why one node does not meet a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRejection {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it has instead.
    pub found: String,
}

/// Why a task is as it is; none if there is no such task. `now` is the leader's clock.
pub fn why_task(state: &State, id: TaskId, now: Timestamp) -> Option<Why> {
    let task = state.task(id)?;
    let Some(service) = state.service(task.service) else {
        let name = state.spec(task.service, task.spec_version).map_or(String::new(), |spec| spec.spec.name.clone());
        return Some(of_removed(state, task, name));
    };
    let place = slots::of(state, service).into_values().find(|slot| slot.0.iter().any(|other| other.id == id));
    let slot = place.unwrap_or_else(|| Slot(vec![task.clone()]));
    let mut advice = Vec::new();
    let mut told = task::tell(state, service, &slot, task, now, &mut advice);
    if task.status.state == TaskState::Running {
        told.summary.push_str(&stays_so_far(state, service, &slot, task, now, &mut advice));
    }
    let waits = task.status.state == TaskState::Pending && task.desired.is_live();
    let asker = Asker { service, planned: Planned::default() };
    let rejections = if waits { rejections(state, asker, task, now, &mut advice) } else { Vec::new() };
    update_advice(service, &mut advice);
    if waits || told.task.status.state.is_terminal() || !told.failures.is_empty() {
        advice.extend(back::advice(state, service, now));
    }
    Some(Why { summary: told.summary.clone(), tasks: vec![told], rejections, ..new(service, advice) })
}

/// What keeps nodes from taking a task that waits at the end of a forecast, and what would help. `now` is when it was
/// asked for: its own clock has run on, and nobody knows how long a node will be down.
pub(crate) fn why_without_node(
    state: &State,
    task: &Task,
    now: Timestamp,
    planned: Planned,
) -> (Vec<Rejection>, Vec<String>) {
    let Some(service) = state.service(task.service) else { return Default::default() };
    let mut advice = Vec::new();
    let rejections = rejections(state, Asker { service, planned }, task, now, &mut advice);
    (rejections, new(service, advice).fixes)
}

/// Due to what an update is rolled back, from what its rollback is to say: the task by its name, the deadline by its
/// label.
pub(crate) fn why_rolled_back(state: &State, id: ServiceId, message: &str) -> String {
    let reason = update::why_rolled_back(message).unwrap_or(message);
    let Some(service) = state.service(id) else { return reason.to_owned() };
    let named = state.tasks_of_service(id).find(|task| reason.contains(&task.id.to_string()));
    let reason = named.map_or(reason.to_owned(), |task| {
        reason.replace(&task.id.to_string(), &stays::name(state, service, slots::place_of(service, task)))
    });
    match service.spec.labels.get(DEADLINE).filter(|_| reason.ends_with("deadline")) {
        Some(deadline) => format!("{reason} ({DEADLINE}={deadline})"),
        None => reason,
    }
}

/// Why a service is as it is; none if there is no such service. `now` is the leader's clock.
pub fn why_service(state: &State, id: ServiceId, now: Timestamp) -> Option<Why> {
    let service = state.service(id)?;
    let mut advice = Vec::new();
    update_advice(service, &mut advice);
    let (mut tasks, mut waiting, mut live, mut runs, mut done) = (Vec::new(), None, 0, 0, 0);
    for slot in slots::of(state, service).values() {
        let Some(task) = slot.live().next_back().or_else(|| slot.finished(service)) else { continue };
        live += 1;
        done += u64::from(service.job.is_some() && slot.has_completed());
        runs += u64::from(slot.runs());
        if waiting.is_none() && task.status.state == TaskState::Pending && task.desired.is_live() {
            waiting = Some(task.clone());
        }
        if task::is_well(state, service, slot, task, now) {
            continue;
        }
        tasks.push((slot.clone(), task.clone()));
    }
    // What is stuck comes before what is on its way.
    tasks.sort_by_key(|(_, task)| {
        let stuck = task.status.state.is_terminal() || task.status.state == TaskState::Pending;
        (!stuck, task.slot, task.node)
    });
    let more_tasks = tasks.len().saturating_sub(TASKS_MAX);
    tasks.truncate(TASKS_MAX);
    let tasks: Vec<TaskWhy> =
        tasks.iter().map(|(slot, task)| task::tell(state, service, slot, task, now, &mut advice)).collect();
    let everywhere = service.spec.mode.is_global() && live == 0;
    let asker = Asker { service, planned: Planned::default() };
    let rejections = match waiting {
        Some(task) => rejections(state, asker, &task, now, &mut advice),
        None if everywhere => nodes::rejections(state, asker, None, now, &mut advice),
        None => Vec::new(),
    };
    advice.extend(back::advice(state, service, now));
    let wanted = service.spec.replicas().unwrap_or(live);
    let mut summary = match wanted {
        0 if everywhere => match rejections.first() {
            Some(first) => {
                let meets = match first.nodes.len() + first.more_nodes {
                    1 => "1 node does not meet".to_owned(),
                    nodes => format!("{nodes} nodes do not meet"),
                };
                format!("no node takes a task of it: {meets} '{}'", first.asked)
            }
            None => "no node takes a task of it".to_owned(),
        },
        0 => "no task is wanted".to_owned(),
        wanted if service.job.is_some() => format!("{done} of {wanted} tasks have completed, {runs} run"),
        wanted => format!("{runs} of {wanted} tasks run"),
    };
    if wanted == 0 && !everywhere {
        advice.push(format!("`swarmctl service scale {}=1` makes it run", service.spec.name));
    }
    let has_ended = |state| matches!(state, UpdateState::Completed | UpdateState::RollbackCompleted);
    if let Some(update) = service.update.as_ref().filter(|update| !has_ended(update.state)) {
        summary = format!("{summary}; {}", update.message);
    }
    if let Some(told) = rolled_back(state, service) {
        summary = format!("{summary}; {told}");
    }
    summary.push_str(&kept(state, service, now, &tasks, &mut advice));
    if let Some(first) = tasks.first() {
        summary = format!("{summary}; {}", first.summary);
    }
    Some(Why { summary, tasks, more_tasks, rejections, ..new(service, advice) })
}

/// That a task which runs is to go, and what keeps it, unless that is the order of things; what would help is added to
/// `advice`.
fn stays_so_far(
    state: &State,
    service: &Service,
    slot: &Slot,
    task: &Task,
    now: Timestamp,
    advice: &mut Vec<String>,
) -> String {
    let mut staying = why_staying(state, service, now);
    let Some(stay) = staying.tasks.iter().find(|stay| stay.task.id == task.id && stay.is_held) else {
        return String::new();
    };
    let heir = slot.live().find(|task| task.status.state == TaskState::Pending);
    if let Some(waiting) = heir.or(staying.waiting.as_ref()) {
        let asker = Asker { service, planned: Planned::default() };
        rejections(state, asker, waiting, now, advice);
    }
    advice.extend(staying.fix.take().filter(|_| stay.is_limited));
    format!("; it is to go, but stays so far: {}", stay.reason)
}

/// How many tasks that are to go stay so far, and why, such as a limit. Advice is added if things do not move by
/// themselves.
fn kept(state: &State, service: &Service, now: Timestamp, tells: &[TaskWhy], advice: &mut Vec<String>) -> String {
    let staying = why_staying(state, service, now);
    let stay = |count: usize| match count {
        1 => "a task that is to go stays so far".to_owned(),
        count => format!("{count} tasks that are to go stay so far"),
    };
    let Some(limit) = staying.limit else {
        let Some(held) = staying.tasks.iter().find(|stay| stay.is_held) else { return String::new() };
        let stays = stay(staying.tasks.len());
        return match tells.first().is_some_and(|told| told.summary.contains(&held.reason)) {
            true => format!("; {stays}"), // The reason follows.
            false => format!("; {stays}: {}", held.reason),
        };
    };
    let moves = |told: &TaskWhy| {
        let state = told.task.status.state;
        told.failures.is_empty() && TaskState::Pending < state && state < TaskState::Running
    };
    if !tells.iter().all(moves) {
        advice.extend(staying.fix);
    }
    format!("; {limit}: {}", stay(staying.tasks.iter().filter(|stay| stay.is_limited).count()))
}

/// That the service is back at an earlier spec, and why: of an automatic rollback the task that it names, of one by hand the
/// last failure of what ran before, if those are still known.
fn rolled_back(state: &State, service: &Service) -> Option<String> {
    let update = service.update.as_ref().filter(|update| update.state == UpdateState::RollbackCompleted)?;
    let named = update::why_rolled_back(&update.message);
    let is_meant = |task: &Task| match (named, &service.previous) {
        (Some(why), _) => why.contains(&task.id.to_string()),
        (None, left) => left.as_ref().is_some_and(|left| left.spec_version == task.spec_version),
    };
    let failed_before = |task: &&Arc<Task>| {
        matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
            && task.created_at <= update.started_at
            && is_meant(task)
    };
    let failed = state.tasks_of_service(service.id).filter(failed_before).max_by_key(|task| task.status_applied_at);
    let failure = failed.map(|task| (task, task::failure(state, task)));
    Some(match failure {
        Some((task, Failure { node_name, reason, .. })) => {
            let state = task.status.state;
            format!("the last update was rolled back: before that, task {} {state} on {node_name}: {reason}", task.id)
        }
        None if named.is_some() => {
            let why = why_rolled_back(state, service.id, &update.message);
            format!("the last update was rolled back due to {why}")
        }
        None => format!("the last update was rolled back ({})", update.message),
    })
}

/// Why a task of a service waits for a node, with what nodes lack: `no suitable node (insufficient resources on 2
/// nodes): asks for 2GiB of memory (most free: 1.2GiB on n3)`. None if it waits for nothing. It looks at every node.
pub fn why_waiting(state: &State, task: &Task) -> Option<String> {
    let waits = task.status.state == TaskState::Pending && task.desired.is_live() && task.node.is_none();
    let (service, err) = (state.service(task.service)?, task.status.err.as_deref()?);
    let asks =
        if waits { nodes::unmet(state, &schedule::asked_by(state, service, task.spec_version)) } else { return None };
    Some(if asks.is_empty() { err.to_owned() } else { format!("{err}: asks for {}", asks.join(" and ")) })
}

/// What keeps nodes from taking a task that waits, by the spec that it has.
fn rejections(
    state: &State,
    asker: Asker<'_>,
    task: &Task,
    now: Timestamp,
    advice: &mut Vec<String>,
) -> Vec<Rejection> {
    let wanted = schedule::asked_by(state, asker.service, task.spec_version);
    advice.extend(order_advice(state, asker.service, task));
    // What would help the earlier spec of a service is of no use to the one that it has.
    let mut useless = Vec::new();
    let advice = if task.spec_version == asker.service.spec_version { advice } else { &mut useless };
    nodes::rejections(state, Asker { service: &wanted, ..asker }, task.node, now, advice)
}

/// Another order, if the old task of the place has the room that the new one waits for.
fn order_advice(state: &State, service: &Service, task: &Task) -> Option<String> {
    let is_new = task.spec_version == service.spec_version && rolling::order(service) == UpdateOrder::StartFirst;
    let place = slots::place_of(service, task);
    let is_old = |old: &&Arc<Task>| {
        old.spec_version != task.spec_version && old.holds_resources() && slots::place_of(service, old) == place
    };
    let old = state.tasks_of_slot(service.id, task.slot).filter(|_| is_new).find(is_old)?;
    let stopped = TaskStatus::new(TaskState::Shutdown, state.time());
    let mut without = state.clone();
    let mut apply = |op| apply_tx(&mut without, &Tx::new(vec![op]), &mut Vec::new()).ok();
    apply(Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![old.id] })?;
    apply(Op::ReportTasks { node: old.node?, reports: vec![(old.id, stopped)] })?;
    let mut nodes = without.nodes().filter(|node| task.node.is_none_or(|only| only == node.id));
    nodes.any(|node| matches!(schedule::place_on(&without, service, node.id), Place::On(_))).then(|| {
        let flag = if service.rolls_back() { "--rollback-order" } else { "--update-order" };
        format!("`swarmctl service update {flag} stop-first {}` lets the old task make room", service.spec.name)
    })
}

fn new(service: &Service, mut advice: Vec<String>) -> Why {
    let mut fixes: Vec<String> = Vec::new();
    advice.retain(|fix| {
        let is_new = !fixes.contains(fix) && fixes.len() < FIXES_MAX;
        if is_new {
            fixes.push(fix.clone());
        }
        is_new
    });
    Why {
        service: service.id,
        name: service.spec.name.clone(),
        summary: String::new(),
        update: service.update.clone(),
        tasks: Vec::new(),
        more_tasks: 0,
        rejections: Vec::new(),
        fixes,
    }
}

/// A task that outlived its service.
fn of_removed(state: &State, task: &Arc<Task>, name: String) -> Why {
    let node_name = task.node.map_or(String::new(), |node| nodes::name(state, node));
    let summary = match task.status.state.is_terminal() {
        true => "its service was removed, and it has stopped".to_owned(),
        false => format!("its service was removed: it goes when its container on {node_name} has stopped"),
    };
    let told = TaskWhy {
        task: task.clone(),
        node_name,
        summary: summary.clone(),
        failures: Vec::new(),
        restart: Restart::default(),
    };
    Why {
        service: task.service,
        name,
        summary,
        update: None,
        tasks: vec![told],
        more_tasks: 0,
        rejections: Vec::new(),
        fixes: Vec::new(),
    }
}

fn update_advice(service: &Service, advice: &mut Vec<String>) {
    let name = &service.spec.name;
    match service.update.as_ref().map(|update| update.state) {
        Some(UpdateState::Paused) => {
            advice.push(format!("`swarmctl service rollback {name}` goes back to what ran before"));
            advice.push(format!("`swarmctl service update --force {name}` tries the same again"));
        }
        Some(UpdateState::RollbackPaused) => {
            advice.push(format!("`swarmctl service update --force {name}` tries the same again"));
            advice.push(format!("`swarmctl service history {name}` lists what else it can go back to"));
        }
        _ => {}
    }
}

/// Whether a task is on its way to be stopped, or has been.
fn is_unwanted(task: &Task) -> bool {
    matches!(task.desired, DesiredState::Shutdown | DesiredState::Remove)
}
