//! Services.

use std::{collections::BTreeSet, mem::discriminant, sync::Arc};

use axum::{extract, http::StatusCode};
use serde_json::Value;
use swarm_core::{Guard, Op, State, Tx};
use swarm_docker_api::{
    ApiError, Filters, read_value,
    view::{CreateServiceResponse, ServiceStatus, ServiceView, UpdateServiceResponse},
};
use swarm_model::{
    DesiredState, Id, NodeState, Redacted, Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskState,
    service_warnings, validate_service_spec,
};

use super::{
    Plane, available,
    call::Call,
    change::change,
    names, networks,
    reply::{self, Reply},
    resolve,
};

const FILTERS: &[&str] = &["id", "name", "label", "mode", "runtime"];
const MODES: &[&str] = &["replicated", "global", "replicated-job", "global-job"];

/// `GET /services`
pub(super) async fn list<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let filters = call.filters(FILTERS)?;
    filters.check_values("mode", MODES)?;
    let with_status = call.flag("status")?;
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let services: Vec<_> = state.services().filter(|service| matches(&filters, service)).cloned().collect();
    Ok(reply::list(services, move |service| {
        let status = with_status.then(|| count_tasks(&state, &service));
        ServiceView::new(&service, status, networks::virtual_ips(&state, &service))
    }))
}

fn matches(filters: &Filters, service: &Service) -> bool {
    let mode = match service.spec.mode {
        ServiceMode::Replicated { .. } => MODES[0],
        ServiceMode::Global => MODES[1],
        ServiceMode::ReplicatedJob(_) => MODES[2],
        ServiceMode::GlobalJob => MODES[3],
    };
    filters.has_prefix("id", &service.id.to_string())
        && filters.has_name_prefix("name", &service.spec.name)
        && filters.has_labels("label", &service.spec.labels)
        && filters.has("mode", mode)
        && filters.has("runtime", "container")
}

/// Tasks that run, that there should be, and that have completed their part of a job. Running are also those being
/// stopped (swarm-behaviour §11.1), but none on nodes that are down: nobody knows
/// whether those do.
fn count_tasks(state: &State, service: &Service) -> ServiceStatus {
    let is_down = |node| state.node(node).is_none_or(|n| n.status.state == NodeState::Down);
    let tasks = || state.tasks_of_service(service.id);
    let runs = tasks().filter(|task| task.status.state == TaskState::Running && !task.node.is_none_or(is_down));
    ServiceStatus {
        running_tasks: runs.count() as u64,
        desired_tasks: match &service.spec.mode {
            ServiceMode::Replicated { replicas } => *replicas,
            ServiceMode::ReplicatedJob(job) => job.concurrent(),
            ServiceMode::Global => tasks().filter(|task| task.desired == DesiredState::Running).count() as u64,
            ServiceMode::GlobalJob => tasks().filter(|task| task.desired.is_live() && !task.is_done()).count() as u64,
        },
        completed_tasks: completed_slots(state, service),
    }
}

/// Slots or nodes that have done their part of the present execution of a job.
fn completed_slots(state: &State, service: &Service) -> u64 {
    let counts = |task: &&Arc<Task>| {
        service.job.is_some()
            && task.iteration == service.iteration()
            && task.status.state == TaskState::Complete
            && task.desired != DesiredState::Remove
    };
    let place = |task: &Arc<Task>| (task.slot, task.node.filter(|_| service.spec.mode.is_global()));
    state.tasks_of_service(service.id).filter(counts).map(place).collect::<BTreeSet<_>>().len() as u64
}

/// `GET /services/{id}`
pub(super) async fn inspect<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let insert_defaults = call.flag("insertDefaults")?;
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let service = resolve::service(&state, call.id())?;
    let mut view = ServiceView::new(service, None, networks::virtual_ips(&state, service));
    if insert_defaults {
        view.spec = Arc::new(view.spec.with_defaults());
    }
    reply::json(&view)
}

/// `POST /services/create`
pub(super) async fn create<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let fields: Value = call.body()?;
    let given: ServiceSpec = read_value(fields.clone())?;
    let registry_auth = call.registry_auth()?;
    let (service, random) = (ServiceId::make(plane.now(), plane.random()), plane.random());
    let warnings = change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        let mut spec = given.clone();
        if spec.name.is_empty() {
            spec.name = names::random_name(random, |name| state.service_by_name(name).is_some());
        }
        check(state, &mut spec, &fields, None)?;
        let warnings = service_warnings(&spec);
        let op = Op::CreateService { service, spec: Arc::new(spec), registry_auth: registry_auth.clone() };
        Ok((Tx::new(vec![op]), warnings))
    })
    .await?;
    reply::json_with(
        StatusCode::CREATED,
        &CreateServiceResponse { id: service.to_string(), warnings: (!warnings.is_empty()).then_some(warnings) },
    )
}

/// Whether a spec, of a service that is to be made or that is there, is one that this version can run; brings it into its
/// normal form, in which networks have ids. `fields` is the spec as the client sent it, null where none was sent.
pub(super) fn check(
    state: &State,
    spec: &mut ServiceSpec,
    fields: &Value,
    old: Option<&ServiceSpec>,
) -> Result<(), reply::Failure> {
    spec.normalize();
    validate_service_spec(spec)?;
    available::check_fields(fields, old)?;
    available::check_templates(spec, old)?;
    available::check_objects(state, spec, old)?;
    networks::name_by_ids(state, spec)?;
    Ok(available::check_service(spec)?)
}

/// `POST /services/{id}/update`
pub(super) async fn update<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let version = call.version("service")?;
    let rolls_back = match call.param("rollback").unwrap_or_default() {
        "" => false,
        "previous" => true,
        other => return Err(ApiError::bad_request(format!("unrecognized rollback option {other}")).into()),
    };
    change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        let old = resolve::service(state, call.id())?;
        if old.version != version {
            return Err(reply::out_of_sequence().into());
        }
        let service = old.id;
        let op = if rolls_back {
            // Clients send the present spec along: it means nothing (docker-api §0.36).
            Op::RollBack { service, keep_previous: true, message: "manually requested rollback".into(), to: None }
        } else {
            new_spec(state, old, &call)?
        };
        Ok((Tx::new(vec![op]).guard(Guard::Service { service, version }), ()))
    })
    .await?;
    reply::json(&UpdateServiceResponse::default())
}

/// The new spec that an update brings.
fn new_spec(state: &State, old: &Service, call: &Call) -> Result<Op, reply::Failure> {
    let fields: Value = call.body()?;
    let mut spec: ServiceSpec = read_value(fields.clone())?;
    check_change(old, &spec)?;
    check(state, &mut spec, &fields, Some(&old.spec))?;
    let registry_auth = match call.registry_auth()? {
        None => kept_registry_auth(state, old, call.param("registryAuthFrom").unwrap_or_default())?,
        given => given,
    };
    Ok(Op::update_service(state, old, Arc::new(spec), registry_auth))
}

/// Credentials of an update that brings none: those of the present spec, or of the one before it.
fn kept_registry_auth(state: &State, old: &Service, from: &str) -> Result<Option<Redacted>, ApiError> {
    match (from, &old.previous) {
        ("" | "spec", _) => Ok(None),
        ("previous-spec", Some(previous)) => {
            let version = state.spec(old.id, previous.spec_version);
            Ok(Some(version.and_then(|version| version.registry_auth.clone()).unwrap_or_default()))
        }
        ("previous-spec", None) => {
            Err(ApiError::bad_request(format!("service {} does not have a previous spec", old.spec.name)))
        }
        (other, _) => Err(ApiError::bad_request(format!(
            "unsupported registryAuthFrom '{other}', possible are spec, previous-spec"
        ))),
    }
}

/// Name and mode stay as they are (swarm-behaviour §1.2).
pub(super) fn check_change(old: &Service, spec: &ServiceSpec) -> Result<(), ApiError> {
    if old.spec.name != spec.name {
        return Err(ApiError::not_implemented(format!(
            "renaming services is not supported: service '{}' cannot become '{}'",
            old.spec.name, spec.name
        )));
    }
    if discriminant(&old.spec.mode) != discriminant(&spec.mode) {
        return Err(ApiError::not_implemented("service mode change is not allowed"));
    }
    Ok(())
}

/// `DELETE /services/{id}`
pub(super) async fn remove<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        let service = resolve::service(state, call.id())?.id;
        Ok((Tx::new(vec![Op::RemoveService { service }]), ()))
    })
    .await?;
    Ok(reply::empty())
}
