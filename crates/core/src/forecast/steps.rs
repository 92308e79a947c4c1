//! From two states to what happens between them, place by place.

use std::{collections::BTreeMap, sync::Arc};

use swarm_model::{DesiredState, NodeId, ServiceId, Task, TaskId, TaskState};

use super::{Action, Step};
use crate::{Event, State};

/// A place: a service, a slot, and for a task of a global service its node.
type Key = (ServiceId, u32, Option<NodeId>);

/// What one plan does.
pub(super) fn between(before: &State, after: &State, events: &[Event]) -> Vec<Step> {
    let mut touched: BTreeMap<Key, Vec<TaskId>> = BTreeMap::new();
    for event in events {
        let Event::Task { task: id, .. } = *event else { continue };
        let Some(task) = after.task(id).or_else(|| before.task(id)) else { continue };
        let tasks = touched.entry(key(task)).or_default();
        if !tasks.contains(&id) {
            tasks.push(id);
        }
    }
    touched.iter().flat_map(|(key, tasks)| place(before, after, *key, tasks)).collect()
}

fn key(task: &Task) -> Key {
    (task.service, task.slot, task.node.filter(|_| task.slot == 0))
}

/// Whether a container runs, or is on its way to.
fn serves(task: &Task) -> bool {
    task.is_live() && task.status.state != TaskState::Pending
}

fn place(before: &State, after: &State, key: Key, touched: &[TaskId]) -> Vec<Step> {
    let (service, slot, _) = key;
    let step = |action, from, to, reason| Step { service, slot, action, from, to, reason };
    let tasks = || touched.iter().filter_map(|id| after.task(*id));
    let stopped: Vec<Option<NodeId>> = touched
        .iter()
        .filter_map(|id| before.task(*id))
        .filter(|task| serves(task) && after.task(task.id).is_none_or(|now| !now.is_live()))
        .map(|task| task.node)
        .collect();
    let is_new = |task: &&Arc<Task>| task.is_live() && before.task(task.id).is_none_or(|before| !serves(before));
    let Some(new) = tasks().find(is_new) else {
        let waited = |task: &Arc<Task>| task.is_live() && !serves(task);
        let dropped = touched.iter().filter_map(|id| before.task(*id)).any(waited);
        if dropped && stopped.is_empty() && !others(after, key, TaskId(0)).any(|task| task.is_live()) {
            return vec![step(Action::Drop, None, None, None)];
        }
        return without_new(before, after, key, &stopped, step);
    };
    if !serves(new) {
        let known = before.task(new.id).is_some_and(|before| before.status.err == new.status.err);
        let waits = step(Action::Wait, None, new.node, new.status.err.clone());
        let stops = stopped.iter().map(|node| step(Action::Stop, *node, None, None));
        return stops.chain((!known).then_some(waits)).collect();
    }
    let Some(from) = stopped.first() else {
        let has_other = others(after, key, new.id).any(|other| serves(other));
        let prepared = has_other && new.desired == DesiredState::Ready;
        return vec![step(if prepared { Action::Prepare } else { Action::Start }, None, new.node, None)];
    };
    let action = if *from == new.node { Action::Replace } else { Action::Move };
    let more = stopped[1..].iter().map(|node| step(Action::Stop, *node, None, None));
    more.chain([step(action, *from, new.node, None)]).collect()
}

/// What stops where nothing new is made: for good, or because what was prepared takes over.
fn without_new(
    before: &State,
    after: &State,
    key: Key,
    stopped: &[Option<NodeId>],
    step: impl Fn(Action, Option<NodeId>, Option<NodeId>, Option<Arc<str>>) -> Step,
) -> Vec<Step> {
    let was_prepared = |task: &&Arc<Task>| {
        serves(task) && before.task(task.id).is_some_and(|before| before.desired == DesiredState::Ready)
    };
    let heir = others(after, key, TaskId(0)).find(was_prepared).map(|task| task.node);
    let mut steps: Vec<Step> = stopped.iter().map(|node| step(Action::Stop, *node, None, None)).collect();
    if let (Some(to), Some(last)) = (heir, steps.last_mut()) {
        last.action = if last.from == to { Action::Replace } else { Action::Move };
        last.to = to;
    }
    steps
}

/// The other tasks of a place.
fn others(state: &State, (service, slot, node): Key, than: TaskId) -> impl Iterator<Item = &Arc<Task>> {
    let tasks = state.tasks_of_slot(service, slot);
    tasks.filter(move |task| task.id != than && (slot != 0 || task.node == node))
}
