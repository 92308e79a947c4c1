//! Global services and global jobs: one task on each eligible node (swarm-behaviour §3.3).

use swarm_model::{Availability, DesiredState, Node, NodeState, Service, TaskId};

use super::{
    Planner,
    fill::{self, Need},
    schedule::Constraints,
    slots::Place,
};
use crate::Op;

/// Whether a node is to have a task of the service. Resources and the like are left to the scheduler: without them
/// the task waits.
fn is_eligible(constraints: &Constraints, node: &Node) -> bool {
    node.status.state != NodeState::Down && node.spec.availability != Availability::Drain && constraints.hold(node)
}

/// Whether a place of the service is none that is to have a task: its node is gone, or does not fit any more.
pub(super) fn is_retired(planner: &Planner, constraints: &Constraints, place: Place) -> bool {
    let Place::Node(id) = place else { return false };
    !planner.state.node(id).is_some_and(|node| is_eligible(constraints, node))
}

/// Stops tasks on nodes that are not, or no longer, to have one; on a paused node also what has ended.
pub(super) fn retire(planner: &mut Planner, service: &Service) {
    let mut gone: Vec<TaskId> = Vec::new();
    let constraints = Constraints::of(&service.spec);
    for (place, slot) in &planner.slots(service).shown {
        let Place::Node(id) = *place else { continue };
        let node = planner.state.node(id);
        let eligible = node.is_some_and(|node| is_eligible(&constraints, node));
        let paused = node.is_some_and(|node| node.spec.availability == Availability::Pause);
        // What a job has done stays done.
        let undone = slot.live().filter(|task| !task.is_done());
        let ends = |task: &&std::sync::Arc<swarm_model::Task>| !eligible || paused && task.status.state.is_terminal();
        gone.extend(undone.filter(ends).map(|task| task.id));
    }
    planner.push_each(Some(service), &gone, |tasks| Op::SetDesired { desired: DesiredState::Shutdown, tasks });
}

/// Replaces what cannot go on, and gives each eligible node its task.
pub(super) fn fill(planner: &mut Planner, service: &Service) {
    let mut needs = fill::restarts(planner, service);
    let slots = planner.slots(service);
    let constraints = Constraints::of(&service.spec);
    for node in planner.state.nodes() {
        let place = Place::Node(node.id);
        let taken = slots.shown.get(&place).is_some_and(|slot| slot.is_taken(service));
        if !taken && node.spec.availability == Availability::Active && is_eligible(&constraints, node) {
            needs.push(Need::New(place));
        }
    }
    fill::place(planner, service, needs);
}
