//! Why services and tasks are as they are. Docker's API has no word for it.

use axum::extract;
use swarm_core::{Rejection, TaskWhy, Why, why_service, why_task};
use swarm_docker_api::{
    ApiError,
    view::{FailureView, NodeRejectionView, RejectionView, RestartView, TaskWhyView, UpdateStatusView, WhyView},
};

use super::{
    Plane,
    call::Call,
    reply::{self, Reply},
    resolve, warnings,
};

/// `GET /swarmd/services/{id}/why`
pub(super) async fn of_service<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let service = resolve::service(&state, call.id())?;
    let now = plane.now().max(state.time());
    let why = why_service(&state, service.id, now).ok_or_else(|| ApiError::no_such("service", call.id()))?;
    let (warnings, more_warnings) = warnings::of_service(&state, service);
    reply::json(&WhyView { warnings, more_warnings, ..show(&why) })
}

/// `GET /swarmd/tasks/{id}/why`
pub(super) async fn of_task<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let task = resolve::task(&state, call.id())?.id;
    let now = plane.now().max(state.time());
    let why = why_task(&state, task, now).ok_or_else(|| ApiError::no_such("task", call.id()))?;
    reply::json(&show(&why))
}

fn show(why: &Why) -> WhyView {
    WhyView {
        service_id: why.service.to_string(),
        service: why.name.clone(),
        summary: why.summary.clone(),
        update_status: why.update.as_ref().map(UpdateStatusView::new),
        tasks: why.tasks.iter().map(|told| show_task(&why.name, told)).collect(),
        more_tasks: why.more_tasks as u64,
        rejections: why.rejections.iter().map(show_rejection).collect(),
        fixes: why.fixes.clone(),
        warnings: Vec::new(),
        more_warnings: 0,
    }
}

fn show_task(service: &str, told: &TaskWhy) -> TaskWhyView {
    let task = &told.task;
    let name = match task.number() {
        None => format!("{service}.{}", told.node_name),
        Some(number) => format!("{service}.{number}"),
    };
    TaskWhyView {
        id: task.id.to_string(),
        name,
        node_id: task.node.map(|node| node.to_string()).unwrap_or_default(),
        node: told.node_name.clone(),
        desired_state: task.desired.as_str().into(),
        state: task.status.state.as_str().into(),
        since: task.status_applied_at.into(),
        summary: told.summary.clone(),
        failures: told
            .failures
            .iter()
            .map(|failure| FailureView {
                id: failure.task.to_string(),
                node: failure.node_name.clone(),
                state: failure.state.as_str().into(),
                at: failure.at.into(),
                exit_code: failure.exit_code,
                reason: failure.reason.clone(),
            })
            .collect(),
        restart: RestartView {
            restarts: told.restart.restarts,
            max_attempts: told.restart.max_attempts,
            wait_ns: told.restart.wait_ns,
            given_up: told.restart.given_up,
        },
    }
}

/// A requirement with its nodes.
pub(super) fn show_rejection(rejection: &Rejection) -> RejectionView {
    RejectionView {
        filter: rejection.filter.into(),
        asked: rejection.asked.clone(),
        nodes: rejection
            .nodes
            .iter()
            .map(|node| NodeRejectionView {
                node_id: node.node.to_string(),
                node: node.name.clone(),
                found: node.found.clone(),
            })
            .collect(),
        more_nodes: rejection.more_nodes as u64,
    }
}
