//! What a change would lead to. Docker's API has no word for it.

use std::sync::Arc;

use axum::extract;
use serde_json::Value;
use swarm_core::{Forecast, Op, State, Step, Tx, forecast};
use swarm_docker_api::{
    ApiError, read_value,
    view::{PlanRequest, PlanView, RolledBackView, StayingView, StepView, Version, WaitingView, WaveView},
};
use swarm_model::{Availability, Id, NodeId, NodeSpec, Service, ServiceId, ServiceMode, ServiceSpec, Task, Timestamp};

use super::{
    Plane,
    call::Call,
    names,
    reply::{self, Failure, Reply},
    resolve, services, why,
};

/// `POST /swarmd/plan`
pub(super) async fn plan<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let mut body: Value = call.body()?;
    let request: PlanRequest = read_value(body.clone())?;
    let fields = body["Spec"].take();
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let now = plane.now().max(state.time());
    let change = change(&plane, &state, request, &fields)?;
    // It may take a second, which must not keep other requests waiting.
    let view = tokio::task::spawn_blocking(move || foretell(&state, &change, now)).await;
    reply::json(&view.map_err(|error| ApiError::internal(format!("the plan could not be made: {error}")))??)
}

/// A change, as the routes that make it would propose it.
struct Change {
    subject: String,
    service: Option<ServiceId>,
    op: Op,
}

fn change<P: Plane>(plane: &P, state: &State, request: PlanRequest, fields: &Value) -> Result<Change, Failure> {
    let of_service = |reference: &str, op: &dyn Fn(&Service) -> Result<Op, Failure>| {
        let old = resolve::service(state, reference)?;
        let op = op(old)?;
        Ok(Change { subject: old.spec.name.clone(), service: Some(old.id), op })
    };
    match request {
        PlanRequest::Create { mut spec } => {
            if spec.name.is_empty() {
                spec.name = names::random_name(plane.random(), |name| state.service_by_name(name).is_some());
            }
            services::check(state, &mut spec, fields, None)?;
            let service = ServiceId::make(plane.now(), plane.random());
            let subject = spec.name.clone();
            let op = Op::CreateService { service, spec: Arc::new(*spec), registry_auth: None };
            Ok(Change { subject, service: Some(service), op })
        }
        PlanRequest::Update { service, spec } => {
            let old = resolve::service(state, &service)?;
            services::check_change(old, &spec)?;
            of_service(&service, &|old| update(state, old, fields, (*spec).clone()))
        }
        PlanRequest::Scale { service, replicas } => of_service(&service, &|old| {
            let mut spec = ServiceSpec::clone(&old.spec);
            match &mut spec.mode {
                ServiceMode::Replicated { replicas: number } => *number = replicas,
                ServiceMode::ReplicatedJob(job) => job.total_completions = Some(replicas),
                ServiceMode::Global | ServiceMode::GlobalJob => {
                    let text = "scale can only be used with replicated services; this one runs one task on each node";
                    return Err(ApiError::bad_request(text).into());
                }
            }
            update(state, old, &Value::Null, spec)
        }),
        PlanRequest::Rollback { service, to } => of_service(&service, &|old| {
            Ok(Op::RollBack { service: old.id, keep_previous: true, message: "planned rollback".into(), to })
        }),
        PlanRequest::Drain { node, now: at_once } => {
            let node = resolve::node(state, &node)?;
            let spec = NodeSpec { availability: Availability::Drain, ..(*node.spec).clone() };
            let subject = node_name(state, node.id);
            // A drain by policy is planned as if it had no deadline: the plan says what stays until then.
            let drain_deadline = (!at_once).then_some(Timestamp::MAX);
            let op = Op::UpdateNode { node: node.id, spec: Arc::new(spec), drain_deadline };
            Ok(Change { subject, service: None, op })
        }
    }
}

fn update(state: &State, old: &Service, fields: &Value, mut spec: ServiceSpec) -> Result<Op, Failure> {
    services::check(state, &mut spec, fields, Some(&old.spec))?;
    Ok(Op::update_service(state, old, Arc::new(spec), None))
}

fn foretell(state: &State, change: &Change, now: Timestamp) -> Result<PlanView, Failure> {
    let forecast = forecast(state, &Tx::new(vec![change.op.clone()]), now)?;
    let end = &forecast.end;
    let waits = |task: &Arc<Task>| WaitingView {
        task: task_name(end, task.service, task.slot, task.node),
        reason: task.status.err.as_deref().unwrap_or_default().to_owned(),
    };
    let rolled_back = forecast
        .rolled_back
        .as_ref()
        .map(|how| RolledBackView { reason: how.reason.clone(), waiting: how.waiting.iter().map(waits).collect() });
    let staying = forecast.staying.iter().map(|(task, reason)| StayingView {
        task: task_name(end, task.service, task.slot, task.node),
        node: task.node.map(|node| node_name(end, node)).unwrap_or_default(),
        reason: reason.clone(),
    });
    let update = change.service.and_then(|service| end.service(service)).and_then(|service| service.update.as_ref());
    Ok(PlanView {
        subject: change.subject.clone(),
        version: Version { index: newest_version(state) },
        changes: forecast.changes,
        fits: forecast.rolled_back.is_none()
            && forecast.waiting.is_empty()
            && (forecast.staying.is_empty() || !forecast.stuck),
        waves: waves(&forecast),
        cut: forecast.cut,
        ends_after_ns: forecast.ends_after_ns,
        update_state: update.map(|update| update.state.as_str().to_owned()).unwrap_or_default(),
        stuck: forecast.stuck,
        rolled_back,
        waiting: forecast.waiting.iter().map(waits).collect(),
        staying: staying.collect(),
        rejections: forecast.rejections.iter().map(why::show_rejection).collect(),
        fixes: forecast.fixes.clone(),
    })
}

/// The newest version of all services and nodes: what a plan rests on, since all of them compete for the same room.
fn newest_version(state: &State) -> u64 {
    let services = state.services().map(|service| service.version);
    services.chain(state.nodes().map(|node| node.version)).max().unwrap_or_default()
}

fn waves(forecast: &Forecast) -> Vec<WaveView> {
    let end = &forecast.end;
    let name = |node: Option<NodeId>| node.map(|node| node_name(end, node)).unwrap_or_default();
    let show = |step: &Step| StepView {
        action: step.action.as_str().into(),
        task: task_name(end, step.service, step.slot, step.to.or(step.from)),
        from: name(step.from),
        to: name(step.to),
        reason: step.reason.as_deref().unwrap_or_default().to_owned(),
    };
    let waves = forecast.waves.iter();
    waves.map(|wave| WaveView { after_ns: wave.after_ns, steps: wave.steps.iter().map(show).collect() }).collect()
}

pub(super) fn node_name(state: &State, id: NodeId) -> String {
    match state.node(id).map(|node| node.hostname()) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => id.to_string(),
    }
}

/// The name of a task; the slots of jobs are counted from 0 where people see them.
pub(super) fn task_name(state: &State, service: ServiceId, slot: u32, node: Option<NodeId>) -> String {
    let found = state.service(service);
    let name = found.map_or_else(|| service.to_string(), |service| service.spec.name.clone());
    match (slot.checked_sub(u32::from(found.is_some_and(|service| service.job.is_some()))), node) {
        (None | Some(0), Some(node)) if slot == 0 => format!("{name}.{}", node_name(state, node)),
        (number, _) => format!("{name}.{}", number.unwrap_or(0)),
    }
}
