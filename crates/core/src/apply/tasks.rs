//! Applying what concerns tasks. Observed and desired states only go up (swarm-behaviour §2.3).

use std::sync::Arc;

use swarm_model::{
    Cause, DesiredState, NetworkAddr, NodeId, Service, ServiceId, ServiceSpec, Task, TaskId, TaskState, TaskStatus,
    Timestamp, mutant::mutant,
};

use super::{Event, not_found};
use crate::{
    NewTask, Outcome, Place, Refusal, State,
    state::{host_ports, is_active, offered, reserved},
};

/// What the new tasks of one operation share.
pub(super) struct Batch {
    pub(super) service: ServiceId,
    pub(super) spec_version: u64,
    pub(super) desired: DesiredState,
    pub(super) cause: Cause,
    pub(super) beside: Option<TaskId>,
    pub(super) start_at: Option<Timestamp>,
    pub(super) restarts: u32,
}

/// Makes all of these tasks, or none.
pub(super) fn create(state: &mut State, batch: &Batch, tasks: &[NewTask], events: &mut Vec<Event>) -> Outcome {
    let service = state.service(batch.service).ok_or_else(|| not_found("service", batch.service))?;
    if service.spec_version != batch.spec_version {
        return Err(Refusal::Stale(format!("service {} was updated", batch.service)));
    }
    let service = service.clone();
    let spec = state.spec(batch.service, batch.spec_version).expect("a service's current spec version is kept").clone();
    let known = events.len();
    // In a slot above all others there is no rival.
    let mut highest = state.highest_slot(batch.service);
    let mut newest = state.newest_task();
    state.refer_to_spec(batch.service, batch.spec_version, tasks.len());
    for (made, new) in tasks.iter().enumerate() {
        let is_free = highest.is_none_or(|highest| new.slot > highest);
        let is_new = newest.is_none_or(|newest| new.id > newest);
        let check = |state: &State| {
            if !is_new && state.task(new.id).is_some() {
                return Err(Refusal::Exists { kind: "task".into(), name: new.id.to_string() });
            }
            if is_free { Ok(()) } else { check_slot(state, batch, new) }
        };
        (highest, newest) = (highest.max(Some(new.slot)), newest.max(Some(new.id)));
        let made_one = check(state).and_then(|()| batch.task(state, &service, &spec.spec, new));
        if let Err(refusal) = made_one.map(|task| {
            events.push(touched(&task));
            state.insert_new_task(Arc::new(task), &spec.spec);
        }) {
            tasks[..made].iter().for_each(|task| drop(state.delete_task(task.id)));
            state.let_go_of_spec(batch.service, batch.spec_version, tasks.len() - made);
            events.truncate(known);
            return Err(refusal);
        }
    }
    state.unsettle(batch.service, tasks.iter().map(|task| task.slot));
    Ok(())
}

/// No task that is meant to live has the same place, but the one that the new one takes over from.
fn check_slot(state: &State, batch: &Batch, new: &NewTask) -> Outcome {
    let is_rival = |task: &&Arc<Task>| task.desired.is_live() && batch.beside != Some(task.id);
    let rival = match new.place {
        // The place of a global service's task is its node.
        Place::On(node) | Place::PendingOn(node, _) if new.slot == 0 => {
            state.tasks_of_node(node).filter(|task| task.service == batch.service && task.slot == 0).find(is_rival)
        }
        Place::Pending(_) if new.slot == 0 => {
            state.tasks_of_slot(batch.service, 0).filter(|task| task.node.is_none()).find(is_rival)
        }
        Place::On(_) | Place::Pending(_) | Place::PendingOn(..) => {
            state.tasks_of_slot(batch.service, new.slot).find(is_rival)
        }
    };
    match rival {
        None => Ok(()),
        Some(live) => {
            Err(Refusal::Stale(format!("slot {} of service {} has task {}", new.slot, batch.service, live.id)))
        }
    }
}

impl Batch {
    fn task(&self, state: &State, service: &Service, spec: &ServiceSpec, new: &NewTask) -> Result<Task, Refusal> {
        let mut task = Task {
            id: new.id,
            service: self.service,
            spec_version: self.spec_version,
            slot: new.slot,
            iteration: service.iteration(),
            node: None,
            cause: self.cause,
            desired: self.desired,
            status: TaskStatus::new(TaskState::Pending, state.time),
            status_applied_at: state.time,
            reached_at: None,
            version: state.revision,
            created_at: state.time,
            updated_at: state.time,
            start_at: self.start_at,
            generic_resources: Arc::default(),
            restarts: self.restarts,
            addrs: Arc::default(),
        };
        settle(state, &mut task, spec, service.spec.max_replicas_per_node(), (&new.place, &new.addrs))?;
        Ok(task)
    }
}

/// Charges the nodes with the first tasks of a service as [`create`] does, but makes no tasks: for a planner that will
/// not ask for them. If a task does not fit, by a defect of the planner, the nodes of those before it stay charged.
pub(crate) fn charge(state: &mut State, service: &Service, tasks: &[NewTask], events: &mut Vec<Event>) -> Outcome {
    let spec = state.spec(service.id, service.spec_version).expect("a service's current spec version is kept").clone();
    let batch = Batch {
        service: service.id,
        spec_version: service.spec_version,
        desired: service.goal(),
        cause: Cause::Fill,
        beside: None,
        start_at: None,
        restarts: 0,
    };
    for new in tasks {
        let task = batch.task(state, service, &spec.spec, new)?;
        events.push(touched(&task));
        state.charge(&task, &spec.spec);
    }
    Ok(())
}

/// A node for a task, with its addresses there, or the reason why it has none.
type Spot<'a> = (&'a Place, &'a Arc<[NetworkAddr]>);

pub(super) fn place(state: &mut State, id: TaskId, spot: Spot<'_>, events: &mut Vec<Event>) -> Outcome {
    let task = state.task(id).ok_or_else(|| not_found("task", id))?;
    if task.status.state != TaskState::Pending || !task.desired.is_live() {
        return Err(Refusal::Stale(format!("task {id} no longer waits for a node")));
    }
    let mut task = Task::clone(task);
    let spec = state.spec(task.service, task.spec_version).expect("a task's spec version is kept");
    let max_replicas = state.service(task.service).map_or(0, |service| service.spec.max_replicas_per_node());
    settle(state, &mut task, &spec.spec, max_replicas, spot)?;
    store(state, task, events);
    Ok(())
}

/// Gives a task its node, if there is room for it, or the reason why it has none.
fn settle(state: &State, task: &mut Task, spec: &ServiceSpec, max_replicas: u64, (place, addrs): Spot<'_>) -> Outcome {
    match place {
        Place::On(node) => {
            let removed = || Refusal::Stale(format!("node {node} was removed"));
            let load = state.loads.get(*node).ok_or_else(removed)?;
            if let Some(asked) = reserved(spec) {
                let generic = !asked.generic_resources.is_empty();
                let offered = if generic { state.node(*node).map_or(&[][..], |node| offered(node)) } else { &[] };
                if !load.has_room(offered, asked, 1) {
                    return Err(Refusal::Stale(format!("node {node} has too few resources left")));
                }
                if generic {
                    task.generic_resources = load.choose(offered, &asked.generic_resources).into();
                }
            }
            if !load.ports_free(host_ports(spec)) {
                return Err(Refusal::Stale(format!("a port is taken on node {node}")));
            }
            check_replicas(state, task, max_replicas, *node)?;
            state.check_addrs(addrs)?;
            task.addrs = addrs.clone();
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

/// A node has no more tasks of a service than that allows now. An old task in the slot of the new one, which takes over
/// from it, does not count.
fn check_replicas(state: &State, task: &Task, most: u64, node: NodeId) -> Outcome {
    if most == 0 {
        return Ok(());
    }
    let others = state.tasks_of_service_on(task.service, node).filter(|t| t.slot != task.slot && is_active(t)).count();
    if (others as u64) < most {
        return Ok(());
    }
    Err(Refusal::Stale(format!("node {node} has {others} tasks of service {}, {most} are allowed", task.service)))
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
    let known = std::mem::replace(&mut task.status, status.clone());
    let from = events.len();
    store(state, task, events);
    for event in &mut events[from..] {
        if let Event::Task { reported, .. } = event {
            *reported = Some((known.state, status.state));
        }
    }
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
    Event::Task { task: task.id, service: task.service, slot: task.slot, node: task.node, reported: None }
}

/// Stores a changed task, and says so.
fn store(state: &mut State, mut task: Task, events: &mut Vec<Event>) {
    let old = state.stored(&task);
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
