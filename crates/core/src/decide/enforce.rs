//! The constraint enforcer: tasks that their node no longer fits (swarm-behaviour §3.7).

use std::sync::Arc;

use swarm_model::{Availability, NodeId, Service, ServiceSpec, Task, TaskId, TaskState, TaskStatus};

use super::{Planner, schedule, slots};
use crate::{Guard, Op, Tx, state::offered};

/// Rejects the tasks of a node that no longer meet their service's constraints, and the newest of those that no
/// longer fit into what the node has left. The restart policy then moves them.
pub(super) fn node(planner: &mut Planner, id: NodeId) {
    let Some(node) = planner.state.node(id).cloned() else { return };
    if node.spec.availability != Availability::Active {
        return;
    }
    let mut evicted: Vec<TaskId> = Vec::new();
    let mut load = planner.state.load(id);
    // One that waits for room on its node (of a global service) holds nothing yet.
    let is_there = |task: &&Arc<Task>| task.is_live() && task.holds_resources();
    let tasks: Vec<_> = planner.state.tasks_of_node(id).filter(is_there).cloned().collect();
    planner.look(1 + tasks.len());
    for task in tasks.iter().rev() {
        let Some(spec) = planner.state.spec(task.service, task.spec_version) else { continue };
        let service = planner.state.service(task.service);
        let current = service.is_some_and(|service| schedule::constraints_hold(&service.spec, &node));
        // What an update is to replace is left to it: by its own constraints, too, it may stay until its place has
        // another.
        let is_outdated = || service.is_none_or(|service| slots::is_dirty(&planner.state, service, task));
        let own = || schedule::constraints_hold(&spec.spec, &node);
        // What another update let be here, and this one brings back to where it was, has to wait for its turn as well.
        let is_brought_back = || {
            let is_updated = |s: &&Arc<Service>| s.update.as_ref().is_some_and(|update| update.state.is_active());
            service.filter(is_updated).is_some_and(|s| constraints(&s.spec) == constraints(&spec.spec))
        };
        let suits = current || is_outdated() && (own() || is_brought_back());
        if !suits || load.is_overdrawn_by(task, &spec.spec, offered(&node)) {
            evicted.push(task.id);
            load.remove(task, &spec.spec);
        }
    }
    if evicted.is_empty() {
        return;
    }
    let mut status = TaskStatus::new(TaskState::Rejected, planner.now);
    status.message = Some("task rejected by constraint enforcer".into());
    status.err = Some("assigned node no longer meets constraints".into());
    let tx = Tx::new(vec![Op::EndTasks { status, tasks: evicted }]);
    planner.push(tx.guard(Guard::NodeEpoch { node: id, epoch: node.epoch }));
}

fn constraints(spec: &ServiceSpec) -> &[String] {
    spec.task_template.placement.as_ref().map_or(&[], |placement| &placement.constraints)
}
