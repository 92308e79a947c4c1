//! Which tasks run on although they are to go, and why.

use std::sync::Arc;

use swarm_model::{Availability, Service, Task, TaskState};

use super::nodes;
use crate::{
    State,
    decide::{
        rolling::is_leaving,
        slots::{self, Kinship, Place, Slot},
    },
};

/// The tasks of a service that run where they are not to stay, or not as the service is now, and why each of them is
/// left: what is to come instead waits for a node, or its turn does not come.
pub(crate) fn why_staying(state: &State, service: &Service) -> Vec<(Arc<Task>, String)> {
    let (places, kinship) = (slots::of(state, service), Kinship::default());
    let held_up = places.iter().find_map(|(place, slot)| waiting(slot).map(|_| name(state, service, *place)));
    let is_to_go = |task: &&Arc<Task>| {
        let serves = task.holds_resources() && !service.spec.mode.is_job();
        serves && (is_leaving(state, task) || kinship.is_dirty(state, service, task))
    };
    let of_place = |(place, slot): (&Place, &Slot)| -> Vec<(Arc<Task>, String)> {
        // What takes over is on its way.
        if slot.live().any(|task| task.holds_resources() && !is_to_go(&task)) {
            return Vec::new();
        }
        let held_up = held_up.as_ref().filter(|held_up| **held_up != name(state, service, *place));
        let why = if let Some(heir) = waiting(slot) {
            heir.status.err.as_deref().unwrap_or("what is to come waits for a node").to_owned()
        } else if let Some(node) = slot.live().find_map(|task| paused_node(state, task)) {
            format!("{node} is paused and takes nothing new")
        } else if slot.finished(service).is_some_and(|newest| newest.status.state != TaskState::Shutdown) {
            "what was to come failed for good".to_owned()
        } else if let Some(held_up) = held_up {
            format!("its turn does not come while {held_up} waits for a node")
        } else {
            "its turn does not come".to_owned()
        };
        slot.live().filter(is_to_go).map(|task| (task.clone(), why.clone())).collect()
    };
    places.iter().flat_map(of_place).collect()
}

/// The task of a place that waits for a node.
fn waiting(slot: &Slot) -> Option<&Arc<Task>> {
    slot.live().find(|task| task.status.state == TaskState::Pending)
}

/// The name of the node of a global service's task, if it is paused.
fn paused_node(state: &State, task: &Task) -> Option<String> {
    let node = state.node(task.node.filter(|_| task.slot == 0)?)?;
    (node.spec.availability == Availability::Pause).then(|| nodes::name(state, node.id))
}

pub(super) fn name(state: &State, service: &Service, place: Place) -> String {
    match place {
        Place::Number(number) => format!("{}.{number}", service.spec.name),
        Place::Node(node) => format!("{}.{}", service.spec.name, nodes::name(state, node)),
    }
}
