//! Applying what concerns tasks. Observed and desired states only go up (swarm-behaviour §2.3).

use std::sync::Arc;

use swarm_model::{
    Cause, DesiredState, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus, Timestamp, mutant::mutant,
};

use super::{Event, not_found};
use crate::{NewTask, Outcome, Place, Refusal, State, state::host_ports};

/// What the new tasks of one operation share.
pub(super) struct Batch {
    pub(super) service: ServiceId,
    pub(super) spec_version: u64,
    pub(super) desired: DesiredState,
    pub(super) cause: Cause,
    pub(super) beside: bool,
    pub(super) start_at: Option<Timestamp>,
}

pub(super) fn create(state: &mut State, batch: &Batch, new: &NewTask, events: &mut Vec<Event>) -> Outcome {
    let service = state.service(batch.service).ok_or_else(|| not_found("service", batch.service))?;
    if service.spec_version != batch.spec_version {
        return Err(Refusal::Stale(format!("service {} was updated", batch.service)));
    }
    if state.task(new.id).is_some() {
        return Err(Refusal::Exists { kind: "task".into(), name: new.id.to_string() });
    }
    let node = match new.place {
        Place::On(node) | Place::PendingOn(node, _) if new.slot == 0 => Some(node),
        Place::On(_) | Place::Pending(_) | Place::PendingOn(..) => None,
    };
    let rival = |task: &&Arc<Task>| {
        task.desired.is_live()
            && (new.slot != 0 || task.node == node)
            && (!batch.beside || task.spec_version == batch.spec_version)
    };
    if let Some(live) = state.tasks_of_slot(batch.service, new.slot).find(rival) {
        return Err(Refusal::Stale(format!("slot {} of service {} has task {}", new.slot, batch.service, live.id)));
    }
    let mut task = Task {
        id: new.id,
        service: batch.service,
        spec_version: batch.spec_version,
        slot: new.slot,
        node: None,
        cause: batch.cause,
        desired: batch.desired,
        status: TaskStatus::new(TaskState::Pending, state.time),
        status_applied_at: state.time,
        reached_at: None,
        version: state.revision,
        created_at: state.time,
        updated_at: state.time,
        start_at: batch.start_at,
    };
    settle(state, &mut task, &new.place)?;
    events.push(touched(&task));
    state.insert_task(Arc::new(task));
    Ok(())
}

pub(super) fn place(state: &mut State, id: TaskId, place: &Place, events: &mut Vec<Event>) -> Outcome {
    let task = state.task(id).ok_or_else(|| not_found("task", id))?;
    if task.status.state != TaskState::Pending || !task.desired.is_live() {
        return Err(Refusal::Stale(format!("task {id} no longer waits for a node")));
    }
    let mut task = Task::clone(task);
    settle(state, &mut task, place)?;
    store(state, task, events);
    Ok(())
}

/// Gives a task its node, if there is room for it, or the reason why it has none.
fn settle(state: &State, task: &mut Task, place: &Place) -> Outcome {
    match place {
        Place::On(node) => {
            let found = state.node(*node).ok_or_else(|| Refusal::Stale(format!("node {node} was removed")))?;
            let spec = state.spec(task.service, task.spec_version).expect("a task's spec version is kept");
            let load = state.load(*node);
            let capacity = found.description.as_ref().map(|d| d.resources.clone()).unwrap_or_default();
            if !load.has_room(&capacity, &spec.spec.task_template.reservations()) {
                return Err(Refusal::Stale(format!("node {node} has too few resources left")));
            }
            if !load.ports_free(host_ports(&spec.spec)) {
                return Err(Refusal::Stale(format!("a port is taken on node {node}")));
            }
            task.node = Some(*node);
            task.status = TaskStatus::new(TaskState::Assigned, state.time);
        }
        Place::Pending(reason) => {
            task.status = TaskStatus::new(TaskState::Pending, state.time);
            task.status.err = Some(reason.clone());
        }
        Place::PendingOn(node, reason) => {
            task.node = Some(*node);
            task.status = TaskStatus::new(TaskState::Pending, state.time);
            task.status.err = Some(reason.clone());
        }
    }
    task.status_applied_at = state.time;
    Ok(())
}

pub(super) fn set_desired(state: &mut State, id: TaskId, desired: DesiredState, events: &mut Vec<Event>) {
    let Some(task) = state.task(id).filter(|task| task.desired < desired) else { return };
    let mut task = Task::clone(task);
    task.desired = desired;
    task.start_at = None;
    if task.status.state == TaskState::Pending && !desired.is_live() {
        // No agent has it, so none will report its end.
        task.status = TaskStatus { state: TaskState::Shutdown, at: state.time, ..task.status };
        task.status_applied_at = state.time;
    }
    store(state, task, events);
}

pub(super) fn report(state: &mut State, node: NodeId, id: TaskId, status: &TaskStatus, events: &mut Vec<Event>) {
    // An agent speaks of its own tasks only, and of none that it was not given yet.
    let news = |task: &&Arc<Task>| {
        task.node == Some(node)
            && task.status.state >= TaskState::Assigned
            && (status.state >= task.status.state || mutant("status-goes-down"))
            && *status != task.status
    };
    let Some(task) = state.task(id).filter(news) else { return };
    let mut task = Task::clone(task);
    if task.status.state != status.state {
        task.status_applied_at = state.time;
    }
    task.status = status.clone();
    store(state, task, events);
}

pub(super) fn end(state: &mut State, id: TaskId, status: &TaskStatus, events: &mut Vec<Event>) {
    let Some(task) = state.task(id).filter(|task| !task.status.state.is_terminal()) else { return };
    let mut task = Task::clone(task);
    let (container, ports) = (task.status.container.take(), task.status.ports.clone());
    task.status = TaskStatus { at: state.time, container, ports, ..status.clone() };
    task.status_applied_at = state.time;
    store(state, task, events);
}

pub(super) fn delete(state: &mut State, id: TaskId, events: &mut Vec<Event>) {
    if state.task(id).is_some_and(|task| task.status.state.is_terminal())
        && let Some(task) = state.delete_task(id)
    {
        events.push(touched(&task));
    }
}

fn touched(task: &Task) -> Event {
    Event::Task { task: task.id, service: task.service, node: task.node }
}

/// Stores a changed task, and says so.
fn store(state: &mut State, mut task: Task, events: &mut Vec<Event>) {
    let old = state.task(task.id).expect("only tasks that exist are changed");
    let freed = old.holds_resources() && !task.holds_resources()
        // A service's limit of tasks per node counts those that are meant to live.
        || old.desired.is_live() && !task.desired.is_live();
    (task.version, task.updated_at) = (state.revision, state.time);
    if task.status.state >= TaskState::Running {
        task.reached_at.get_or_insert(state.time);
    }
    events.push(touched(&task));
    if let Some(node) = task.node.filter(|_| freed) {
        events.push(Event::Room(node));
    }
    state.replace_task(task);
}
