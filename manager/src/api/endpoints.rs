//! The endpoints of a service: which of its tasks get connections.

use axum::extract;
use swarm_core::State;
use swarm_docker_api::view::TaskEndpointView;
use swarm_model::{Task, TaskState};
use swarm_wire::endpoints::EndpointState;

use super::{
    Plane,
    call::Call,
    plan::{node_name, task_name},
    reply::{self, Reply},
    resolve,
};
use crate::endpoints::endpoint;

/// `GET /swarmd/services/{id}/endpoints`: the tasks that have a node and have not ended, by place.
pub(super) async fn list<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let service = resolve::service(&state, call.id())?;
    let tasks = state.tasks_of_service(service.id).filter(|task| !task.status.state.is_terminal());
    let views: Vec<_> = tasks.filter_map(|task| view(&state, task)).collect();
    reply::json(&views)
}

fn view(state: &State, task: &Task) -> Option<TaskEndpointView> {
    let node = task.node?;
    let (word, reason) = match endpoint(state, task) {
        Some(endpoint) if endpoint.state == EndpointState::In => ("in", String::new()),
        Some(_) => ("draining", String::new()),
        None if task.desired.is_live() && task.status.state < TaskState::Running => ("starting", String::new()),
        None => ("out", why_out(state, task)),
    };
    Some(TaskEndpointView {
        name: task_name(state, task.service, task.slot, task.node),
        task_id: task.id.to_string(),
        node_id: node.to_string(),
        node: node_name(state, node),
        state: word.to_owned(),
        reason,
    })
}

fn why_out(state: &State, task: &Task) -> String {
    let node = task.node.and_then(|node| state.node(node));
    let reason = match node {
        _ if !task.desired.is_live() => "the task stops",
        _ if state.service(task.service).is_none_or(|service| service.ports.is_empty()) => {
            "the service publishes no port on all nodes"
        }
        Some(node) if node.status.state == swarm_model::NodeState::Down => "the node is down",
        Some(node) if node.description.as_ref().is_none_or(|described| described.data_address.is_none()) => {
            "the node has no data plane: swarmd there is older than published ports"
        }
        _ => "the node is not known",
    };
    reason.to_owned()
}
