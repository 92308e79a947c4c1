//! The endpoints of a service: which of its tasks get connections, and how many.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract;
use swarm_core::State;
use swarm_docker_api::view::{EndpointStatsView, EndpointsView, RefusedView, SilentNodeView, TaskEndpointView};
use swarm_model::{IngressSource, NodeId, NodeState, Task, TaskId, TaskState};
use swarm_wire::{
    agent::{Answer, Question, Traffic},
    endpoints::EndpointState,
};

use super::{
    Answers, Plane,
    call::Call,
    plan::{node_name, task_name},
    reply::{self, Reply},
    resolve,
};
use crate::endpoints::endpoint;

/// `GET /swarmd/services/{id}/endpoints`: the tasks that have a node and have not ended, by place. With `stats=1`, the
/// counters of all nodes.
pub(super) async fn list<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let with_stats = call.flag("stats")?;
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let service = resolve::service(&state, call.id())?;
    let tasks = || state.tasks_of_service(service.id).filter(|task| !task.status.state.is_terminal());
    // Only the node of a task knows which address of a client the task sees.
    let mut nodes: BTreeSet<NodeId> =
        tasks().filter(|task| endpoint(&state, task).is_some()).filter_map(|task| task.node).collect();
    if with_stats && !service.ports.is_empty() {
        nodes.extend(state.nodes().filter(|node| node.status.state != NodeState::Down).map(|node| node.id));
    }
    let question = Question::Traffic(service.id);
    let answers = plane.ask(nodes.into_iter().map(|node| (node, question.clone())).collect()).await;
    let sums = Sums::of(&state, answers);
    let endpoints = tasks().filter_map(|task| view(&state, task, &sums, with_stats)).collect();
    reply::json(&EndpointsView { endpoints, refused: with_stats.then_some(sums.refused), silent: sums.silent })
}

/// The answers of the nodes, summed.
#[derive(Default)]
struct Sums {
    sources: BTreeMap<TaskId, IngressSource>,
    stats: BTreeMap<TaskId, EndpointStatsView>,
    refused: RefusedView,
    silent: Vec<SilentNodeView>,
}

impl Sums {
    fn of(state: &State, answers: Answers) -> Self {
        let mut sums = Self::default();
        for (node, answer) in answers {
            let reason = match answer {
                Ok(Answer::Traffic(traffic)) => {
                    sums.add(state, node, &traffic);
                    continue;
                }
                Ok(Answer::Unreached(_)) => "it answered another question".to_owned(),
                Ok(Answer::Unable(reason)) | Err(reason) => reason,
            };
            sums.silent.push(SilentNodeView { node_id: node.to_string(), node: node_name(state, node), reason });
        }
        sums
    }

    fn add(&mut self, state: &State, node: NodeId, traffic: &Traffic) {
        for stats in &traffic.endpoints {
            // A node knows the source for its own tasks only.
            if let Some(source) = stats.source
                && state.task(stats.task).is_some_and(|task| task.node == Some(node))
            {
                self.sources.insert(stats.task, source);
            }
            let sum = self.stats.entry(stats.task).or_default();
            for (sum, more) in [
                (&mut sum.connections, stats.connections),
                (&mut sum.connections_total, stats.connections_total),
                (&mut sum.bytes_in, stats.bytes_in),
                (&mut sum.bytes_out, stats.bytes_out),
                (&mut sum.errors, stats.errors),
            ] {
                *sum = sum.saturating_add(more);
            }
        }
        if let Some(stats) = &traffic.service {
            let sum = &mut self.refused;
            for (sum, more) in [
                (&mut sum.over_connections, stats.over_connections),
                (&mut sum.over_rate, stats.over_rate),
                (&mut sum.bad_headers, stats.bad_headers),
            ] {
                *sum = sum.saturating_add(more);
            }
        }
    }
}

fn view(state: &State, task: &Task, sums: &Sums, with_stats: bool) -> Option<TaskEndpointView> {
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
        source: sums.sources.get(&task.id).copied(),
        stats: with_stats.then(|| sums.stats.get(&task.id).copied().unwrap_or_default()),
    })
}

fn why_out(state: &State, task: &Task) -> String {
    let node = task.node.and_then(|node| state.node(node));
    let reason = match node {
        _ if !task.desired.is_live() => "the task stops",
        _ if state.service(task.service).is_none_or(|service| service.ports.is_empty()) => {
            "the service publishes no port on all nodes"
        }
        Some(node) if node.status.state == NodeState::Down => "the node is down",
        Some(node) if node.description.as_ref().is_none_or(|described| described.data_address.is_none()) => {
            "the node has no data plane: swarmd there is older than published ports"
        }
        _ => "the node is not known",
    };
    reason.to_owned()
}
