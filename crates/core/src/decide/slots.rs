//! The places of a service: numbered slots of a replicated service, nodes of a global one.

use std::{collections::BTreeMap, sync::Arc};

use swarm_model::{DesiredState, NodeId, Service, ServiceSpec, Task, TaskState};

use super::{restart, schedule};
use crate::State;

/// A place of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A numbered slot, on whatever node.
    Number(u32),
    /// A node.
    Node(NodeId),
}

impl Place {
    /// The number that its tasks carry.
    pub(super) fn slot(self) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::Node(_) => 0,
        }
    }
}

/// The tasks of one place, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(pub(super) Vec<Arc<Task>>);

impl Slot {
    /// Those that are meant to live: one, or an old and a new one in an update that starts first.
    pub(super) fn live(&self) -> impl DoubleEndedIterator<Item = &Arc<Task>> {
        self.0.iter().filter(|task| task.desired.is_live())
    }

    /// Whether it counts: it has a task that is meant to live, its part of a job is done, or its newest task is not to
    /// be restarted. A rollback does not let such a task be: it always converges (swarm-behaviour §4.6).
    pub(super) fn is_taken(&self, service: &Service) -> bool {
        self.live().next().is_some()
            || service.job.is_some() && self.has_completed()
            || self.finished(service).is_some_and(|_| !service.rolls_back())
    }

    /// Whether one of its tasks has completed, also one that was told to stop a moment before.
    pub(super) fn has_completed(&self) -> bool {
        self.0.iter().any(|t| t.status.state == TaskState::Complete && t.desired != DesiredState::Remove)
    }

    /// The newest task, if it has ended and is not to be restarted.
    pub(super) fn finished(&self, service: &Service) -> Option<&Arc<Task>> {
        let newest = self.0.iter().rfind(|task| task.desired != DesiredState::Remove)?;
        (!newest.desired.is_live() && !restart::allowed(&service.spec, self, newest)).then_some(newest)
    }

    /// Whether one of its tasks runs and is meant to.
    pub(super) fn runs(&self) -> bool {
        self.live().any(|task| task.status.state == TaskState::Running)
    }
}

/// All places of a service that have tasks. Of a job only those of its present execution: earlier ones are history.
pub(super) fn of(state: &State, service: &Service) -> BTreeMap<Place, Slot> {
    group(service, state.tasks_of_service(service.id).filter(|task| task.iteration == service.iteration()))
}

/// The same with the earlier executions of a job.
pub(super) fn with_history(state: &State, service: &Service) -> BTreeMap<Place, Slot> {
    group(service, state.tasks_of_service(service.id))
}

fn group<'a>(service: &Service, tasks: impl Iterator<Item = &'a Arc<Task>>) -> BTreeMap<Place, Slot> {
    let mut places: Vec<(Place, Slot)> = Vec::new();
    for task in tasks {
        let place = place_of(service, task);
        match places.last_mut() {
            Some((last, slot)) if *last == place => slot.0.push(task.clone()),
            _ => places.push((place, Slot(vec![task.clone()]))),
        }
    }
    if !service.spec.mode.is_global() {
        return places.into_iter().collect(); // They come in order, which makes a map fast.
    }
    let mut slots: BTreeMap<Place, Slot> = BTreeMap::new();
    for (place, slot) in places {
        slots.entry(place).or_default().0.extend(slot.0);
    }
    slots
}

/// The place of a task.
pub(super) fn place_of(service: &Service, task: &Task) -> Place {
    match task.node {
        Some(node) if service.spec.mode.is_global() => Place::Node(node),
        _ => Place::Number(task.slot),
    }
}

/// Whether a task does not run what its service wants now (swarm-behaviour §4.1). Only the task template and the
/// endpoint count; a change of placement alone leaves a task be whose node still fits.
pub(super) fn is_dirty(state: &State, service: &Service, task: &Task) -> bool {
    if task.spec_version == service.spec_version {
        return false;
    }
    let Some(old) = state.spec(task.service, task.spec_version) else { return true };
    let same = old.spec.makes_same_tasks(&service.spec);
    let moved_only = differs_in_placement_only(&old.spec, &service.spec) && fits(state, service, task);
    !(same || moved_only)
}

fn differs_in_placement_only(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    let mut moved = old.clone();
    moved.task_template.placement.clone_from(&new.task_template.placement);
    moved.makes_same_tasks(new)
}

fn fits(state: &State, service: &Service, task: &Task) -> bool {
    task.node.and_then(|id| state.node(id)).is_some_and(|node| schedule::constraints_hold(&service.spec, node))
}
