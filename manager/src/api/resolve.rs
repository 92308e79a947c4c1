//! From what a user types to an object: full id, then exact name, then unique beginning of an id
//! (swarm-behaviour §1.1).

use std::{fmt::Display, sync::Arc};

use swarm_core::State;
use swarm_docker_api::{ApiError, NO_SWARM};
use swarm_model::{Cluster, NamedObject, Node, ObjectKey, ObjectKind, Service, Task, TaskId};

/// The cluster.
pub(super) fn cluster(state: &State) -> Result<&Arc<Cluster>, ApiError> {
    state.cluster().ok_or_else(|| ApiError::unavailable(NO_SWARM))
}

/// A service.
pub(super) fn service<'a>(state: &'a State, text: &str) -> Result<&'a Arc<Service>, ApiError> {
    text.parse()
        .ok()
        .and_then(|id| state.service(id))
        .or_else(|| state.service_by_name(text))
        .map_or_else(|| by_prefix("service", text, state.services(), |service| service.id), Ok)
}

/// A named object.
pub(super) fn object<'a>(state: &'a State, kind: ObjectKind, text: &str) -> Result<&'a Arc<NamedObject>, ApiError> {
    text.parse()
        .ok()
        .and_then(|id| state.object(ObjectKey { kind, id }))
        .or_else(|| state.object_by_name(kind, text))
        .map_or_else(|| by_prefix(kind.as_str(), text, state.objects(kind), |object| object.id), Ok)
}

/// A node. Names are host names and need not be unique.
pub(super) fn node<'a>(state: &'a State, text: &str) -> Result<&'a Arc<Node>, ApiError> {
    if let Some(node) = text.parse().ok().and_then(|id| state.node(id)) {
        return Ok(node);
    }
    let same = |name: &str| name.to_lowercase() == text.to_lowercase();
    let named: Vec<_> = state.nodes().filter(|n| same(n.hostname()) || same(&n.spec.name)).collect();
    match named[..] {
        [] => by_prefix("node", text, state.nodes(), |node| node.id),
        [node] => Ok(node),
        _ => Err(ambiguous("node", text, named.len())),
    }
}

/// A task: by its id, its name, the beginning of its id, or the place that it has ([`of_slot`]).
pub(super) fn task<'a>(state: &'a State, text: &str) -> Result<&'a Arc<Task>, ApiError> {
    let of_name = |text: &str| text.rsplit_once('.').and_then(|(_, id)| id.parse().ok());
    let named = |task: &&Arc<Task>| task_name(state, task).eq_ignore_ascii_case(text);
    text.parse::<TaskId>()
        .ok()
        .and_then(|id| state.task(id))
        .or_else(|| of_name(text).and_then(|id| state.task(id)).filter(named))
        .or_else(|| of_slot(state, text))
        .map_or_else(|| by_prefix("task", text, state.tasks(), |task| task.id), Ok)
}

/// The task that stands for a slot, or for a node's place, named as tables show it: `web.2`, `agent.<node>`. The newest
/// that is meant to live, else the newest: after a rollback the one that was made last is gone.
fn of_slot<'a>(state: &'a State, text: &str) -> Option<&'a Arc<Task>> {
    let (name, place) = text.rsplit_once('.')?;
    let service = state.service_by_name(name)?.id;
    // Of equals the last one, which is the newest.
    let best = |is_there: &dyn Fn(&Task) -> bool| {
        state.tasks_of_service(service).filter(|task| is_there(task)).max_by_key(|task| task.desired.is_live())
    };
    let by_number = place.parse().ok().and_then(|number: u32| best(&|task| task.number() == Some(number)));
    let by_node = || {
        let node = node(state, place).ok()?.id;
        best(&|task| task.slot == 0 && task.node == Some(node))
    };
    by_number.or_else(by_node)
}

/// The name of a task: `<service>.<slot>.<id>`, with its node in place of the slot for a global service
/// (swarm-behaviour §1.6).
pub(super) fn task_name(state: &State, task: &Task) -> String {
    let service = state.spec(task.service, task.spec_version).map_or("", |spec| &spec.spec.name);
    match (task.number(), task.node) {
        (None, Some(node)) => format!("{service}.{node}.{}", task.id),
        (number, _) => format!("{service}.{}.{}", number.unwrap_or(0), task.id),
    }
}

fn by_prefix<'a, T: 'a, I: Display>(
    kind: &str,
    text: &str,
    objects: impl Iterator<Item = &'a T>,
    id: impl Fn(&T) -> I,
) -> Result<&'a T, ApiError> {
    if text.is_empty() {
        return Err(ApiError::no_such(kind, text));
    }
    let mut found = objects.filter(|object| id(object).to_string().starts_with(text));
    match (found.next(), found.count()) {
        (None, _) => Err(ApiError::no_such(kind, text)),
        (Some(object), 0) => Ok(object),
        (Some(_), more) => Err(ambiguous(kind, text, more + 1)),
    }
}

fn ambiguous(kind: &str, text: &str, matches: usize) -> ApiError {
    ApiError::bad_request(format!("{kind} {text} is ambiguous ({matches} matches found)"))
}
