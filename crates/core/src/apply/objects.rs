//! Applying what concerns named objects, of whatever kind.

use std::sync::Arc;

use swarm_model::{Labels, NamedObject, ObjectContent, ObjectId, ObjectKey, ObjectKind, ServiceSpec};

use super::{Event, not_found};
use crate::{Outcome, Refusal, State};

pub(super) fn create(
    state: &mut State,
    id: ObjectId,
    name: &str,
    labels: &Labels,
    content: &Arc<ObjectContent>,
    events: &mut Vec<Event>,
) -> Outcome {
    let key = ObjectKey { kind: content.kind(), id };
    let exists = |name: String| Err(Refusal::Exists { kind: key.kind.to_string(), name });
    if state.object_by_name(key.kind, name).is_some() {
        return exists(name.into());
    }
    if state.object(key).is_some() {
        return exists(id.to_string());
    }
    state.check_network(content)?;
    state.put_object(NamedObject {
        id,
        version: state.revision,
        created_at: state.time,
        updated_at: state.time,
        name: name.into(),
        labels: labels.clone(),
        content: content.clone(),
    });
    events.push(Event::Object(key));
    Ok(())
}

pub(super) fn label(state: &mut State, key: ObjectKey, labels: &Labels, events: &mut Vec<Event>) -> Outcome {
    let object = state.object(key).ok_or_else(|| not_found(key.kind.as_str(), key.id))?;
    let mut object = NamedObject::clone(object);
    object.labels = labels.clone();
    (object.version, object.updated_at) = (state.revision, state.time);
    state.put_object(object);
    events.push(Event::Object(key));
    Ok(())
}

/// An object that a spec names stays: whoever made that spec counts on it. Tasks of earlier specs keep nothing
/// (swarm-behaviour §1.7). A network with attached containers stays as well.
pub(super) fn remove(state: &mut State, key: ObjectKey, events: &mut Vec<Event>) -> Outcome {
    let object = state.object(key).ok_or_else(|| not_found(key.kind.as_str(), key.id))?;
    let mut users: Vec<&str> = state.users_of(key).map(|service| service.spec.name.as_str()).collect();
    users.sort_unstable();
    let services = if users.len() == 1 { "service" } else { "services" };
    if !users.is_empty() {
        let (kind, name, users) = (key.kind, &object.name, users.join(", "));
        return Err(Refusal::Invalid(format!("{kind} '{name}' is in use by the following {services}: {users}")));
    }
    if let Some(user) = state.attachments_of_network(key.id).next().filter(|_| key.kind == ObjectKind::Network) {
        let (name, user) = (&object.name, state.describe_attachment(user));
        return Err(Refusal::Invalid(format!("network '{name}' is in use by {user}")));
    }
    state.delete_object(key);
    events.push(Event::Object(key));
    Ok(())
}

/// The objects that a new spec of a service names must be there. What the service named before may be gone: a rollback
/// has led back to it.
pub(super) fn check_named(state: &State, old: Option<&ServiceSpec>, new: &ServiceSpec) -> Outcome {
    let known = old.map(|old| old.task_template.container_spec.references()).unwrap_or_default();
    for reference in new.task_template.container_spec.references() {
        let is_there = reference.key().is_some_and(|key| state.object(key).is_some());
        if !is_there && !known.iter().any(|old| (old.kind, &old.id) == (reference.kind, &reference.id)) {
            let name = if reference.name.is_empty() { &reference.id } else { &reference.name };
            return Err(Refusal::Invalid(format!("{} not found: {name}", reference.kind)));
        }
    }
    let mut networks = new.network_ids().map(|id| ObjectKey { kind: ObjectKind::Network, id });
    if let Some(key) = networks.find(|key| state.object(*key).is_none()) {
        return Err(Refusal::Invalid(format!("network {} not found", key.id)));
    }
    Ok(())
}
