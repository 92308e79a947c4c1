//! Tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::extract;
use swarm_core::{State, is_up_to_date, why_waiting};
use swarm_docker_api::{ApiError, Filters, view::TaskView};
use swarm_model::{NodeId, ServiceId, Task, TaskSpec, TaskState};

use super::{
    Plane,
    call::Call,
    networks::Attachments,
    reply::{self, Reply},
    resolve,
};

const FILTERS: &[&str] = &["id", "name", "service", "node", "label", "desired-state", "_up-to-date", "runtime"];

/// `GET /tasks`
pub(super) async fn list<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let filters = call.filters(FILTERS)?;
    let mut states: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
    states.extend(["new", "allocated", "remove"]);
    filters.check_values("desired-state", &states)?;
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let tasks = select(&state, &filters)?;
    let mut templates = Templates::default();
    Ok(reply::list(tasks, move |task| templates.show(&state, &task)))
}

/// The tasks that a list is narrowed to. Services and nodes are given by id or name; unknown ones are an error.
fn select(state: &State, filters: &Filters) -> Result<Vec<Arc<Task>>, ApiError> {
    let given = |key| filters.values(key).into_iter().flatten();
    let services: BTreeSet<ServiceId> =
        given("service").map(|text| Ok(resolve::service(state, text)?.id)).collect::<Result<_, ApiError>>()?;
    let nodes: BTreeSet<NodeId> =
        given("node").map(|text| Ok(resolve::node(state, text)?.id)).collect::<Result<_, ApiError>>()?;
    let only_current = filters.values("_up-to-date").is_some_and(|values| values.contains("true"));
    let wanted = |task: &&Arc<Task>| {
        (services.is_empty() || services.contains(&task.service))
            && (nodes.is_empty() || task.node.is_some_and(|node| nodes.contains(&node)))
            && filters.has("desired-state", task.desired.as_str())
            && (!only_current || is_up_to_date(state, task))
            && filters.has("runtime", "container")
            && (filters.values("id").is_none() || filters.has_prefix("id", &task.id.to_string()))
            && (filters.values("name").is_none() || filters.has_name_prefix("name", &resolve::task_name(state, task)))
            && has_labels(state, filters, task)
    };
    // The indexes spare a look at all tasks where they can.
    Ok(if !services.is_empty() {
        services.iter().flat_map(|service| state.tasks_of_service(*service)).filter(wanted).cloned().collect()
    } else if !nodes.is_empty() {
        nodes.iter().flat_map(|node| state.tasks_of_node(*node)).filter(wanted).cloned().collect()
    } else {
        state.tasks().filter(wanted).cloned().collect()
    })
}

/// Labels of tasks are those of their services (docker-api §0.56), also of removed ones.
fn has_labels(state: &State, filters: &Filters, task: &Task) -> bool {
    if filters.values("label").is_none() {
        return true;
    }
    match (state.service(task.service), state.spec(task.service, task.spec_version)) {
        (Some(service), _) => filters.has_labels("label", &service.spec.labels),
        (None, Some(spec)) => filters.has_labels("label", &spec.spec.labels),
        (None, None) => false,
    }
}

/// `GET /tasks/{id}`
pub(super) async fn inspect<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let task = resolve::task(&state, call.id())?;
    reply::json(&Templates::default().show(&state, task))
}

/// Services of one answer for which all nodes are asked why a task waits. Of further ones the scheduler's word is told.
const WAITING_MAX: usize = 10;

/// The parts that tasks of a service show alike: templates, one for all tasks of a spec version, why they wait, and their networks.
#[derive(Default)]
struct Templates {
    specs: BTreeMap<(ServiceId, u64), Arc<TaskSpec>>,
    waiting: BTreeMap<ServiceId, Option<String>>,
    networks: Attachments,
}

impl Templates {
    fn show(&mut self, state: &State, task: &Task) -> TaskView {
        let template = self.specs.entry((task.service, task.spec_version)).or_insert_with(|| {
            let spec = state.spec(task.service, task.spec_version).expect("a task's spec version is kept");
            Arc::new(TaskView::spec_of(&spec.spec.task_template))
        });
        let mut view = TaskView::new(task, template.clone(), self.networks.of(state, task));
        if task.status.state == TaskState::Pending
            && task.status.err.is_some()
            && (self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&task.service))
            && let Some(why) = self.waiting.entry(task.service).or_insert_with(|| why_waiting(state, task))
        {
            view.status.err.clone_from(why);
        }
        view
    }
}
