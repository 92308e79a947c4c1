//! The scheduler: which nodes get the tasks of a service (swarm-behaviour §5).
//!
//! Filters say which nodes can take a task, the spread says which of them takes the next one. Reservations count,
//! limits and real usage do not.

mod bits;
mod filter;
mod fleet;
mod plugins;
mod spread;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use swarm_model::{Constraint, Node, NodeId, Service, ServiceSpec, Settings, Timestamp};

use crate::{Place, State};
use filter::Request;
pub(super) use filter::{Constraints, active_of_service, constraints_hold};
pub(super) use fleet::Fleet;
pub(super) use plugins::named_drivers;

/// Failures of a spec version on a node are looked at over 5 minutes (swarm-behaviour §5.3).
const FAILURE_WINDOW_NS: i64 = 5 * 60_000_000_000;
/// From so many on, the node is chosen after others.
const FAILURES_MIN: u32 = 5;

/// The service as a task that waits with this version of its spec asks for a node: by that version the task counts on its
/// node, and it has to suit there also when an update is taken back. How many tasks a node may have is asked of the
/// service, as `apply` does, whichever specs they have.
pub(super) fn asked_by<'a>(state: &State, service: &'a Service, version: u64) -> Cow<'a, Service> {
    let Some(earlier) = state.spec(service.id, version).filter(|_| version != service.spec_version) else {
        return Cow::Borrowed(service);
    };
    let mut spec = ServiceSpec::clone(&earlier.spec);
    spec.task_template.placement.get_or_insert_default().max_replicas = service.spec.max_replicas_per_node();
    Cow::Owned(Service { spec: Arc::new(spec), spec_version: version, ..service.clone() })
}

/// A place for each of so many tasks of a service, beside the tasks that are there. All tasks are alike, so the
/// order of the places means nothing; those that find no node come last.
pub(super) fn place(fleet: &mut Fleet, state: &State, service: &Service, count: usize) -> Vec<Place> {
    let failures = if has_tasks(state, service) { recent_failures(state, service) } else { BTreeMap::new() };
    place_beside(fleet, state, service, &failures, count)
}

/// The same for a service that has no task yet, or one in each slot. Where none was replaced, few can have failed: it is
/// not asked where, which would be a look at each of them.
pub(super) fn place_more(fleet: &mut Fleet, state: &State, service: &Service, count: usize) -> Vec<Place> {
    place_beside(fleet, state, service, &BTreeMap::new(), count)
}

fn has_tasks(state: &State, service: &Service) -> bool {
    state.highest_slot(service.id).is_some()
}

fn place_beside(
    fleet: &mut Fleet,
    state: &State,
    service: &Service,
    failures: &BTreeMap<NodeId, Failures>,
    count: usize,
) -> Vec<Place> {
    let request = &Request::new(service);
    let mut places = Vec::with_capacity(count);
    take(fleet, state, request, failures, count, &mut places);
    if places.len() < count
        && let Some(mut unheard) = fleet.unheard(state)
    {
        take(&mut unheard, state, request, failures, count, &mut places);
    }
    if places.len() < count {
        let reason = filter::explain(state, request, &places);
        places.resize(count, Place::Pending(reason));
    }
    places
}

/// Takes nodes of a fleet until there are so many places, or no node takes another task.
fn take(
    fleet: &mut Fleet,
    state: &State,
    request: &Request<'_>,
    failures: &BTreeMap<NodeId, Failures>,
    count: usize,
    places: &mut Vec<Place>,
) {
    let mut tree = spread::Tree::new(fleet, state, request, failures);
    places.extend(std::iter::from_fn(|| tree.take()).take(count - places.len()).map(Place::On));
    let verdicts = tree.into_verdicts();
    fleet.give_back(verdicts);
}

/// The place of a task of a global service, whose node is given. Why it cannot start there yet has no prefix and
/// does not count against the node (swarm-behaviour §5.5).
pub(super) fn place_on(state: &State, service: &Service, id: NodeId) -> Place {
    let request = Request::new(service);
    let found = state.node(id).zip(state.loads.get(id));
    match found.map(|(node, load)| request.check(node, load, request.active_on(state, id), 0)) {
        Some(Ok(())) => Place::On(id),
        Some(Err(filter)) => Place::PendingOn(id, filter::reason(filter, 1).into()),
        None => Place::PendingOn(id, "the node was removed".into()),
    }
}

/// Which nodes may take one more task of a service beside all that is there: they have room for it, and the current spec
/// version has not failed often on them of late.
pub(super) fn openings<'a>(state: &'a State, service: &'a Service) -> impl Fn(&Node) -> bool + 'a {
    let (request, failing) = (Request::new(service), recent_failures(state, service));
    move |node| {
        let load = state.loads.get(node.id).filter(|_| !failing.contains_key(&node.id));
        load.is_some_and(|load| request.check(node, load, request.active_on(state, node.id), 0).is_ok())
    }
}

/// What the scheduler compares of nodes before it counts the tasks on them.
pub(super) struct Preferences {
    descriptors: Vec<String>,
    prefer: Vec<Constraint>,
}

impl Preferences {
    pub(super) fn of(service: &Service) -> Self {
        Self { descriptors: spread_descriptors(&service.spec), prefer: Settings::of(&service.spec.labels).prefer }
    }

    /// Whether there are no labels to spread over.
    pub(super) fn are_flat(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// The labels of a node that the service is spread over, outermost first.
    pub(super) fn branches<'n>(&self, node: &'n Node) -> impl Iterator<Item = &'n str> {
        self.descriptors.iter().map(|descriptor| label(descriptor, node))
    }

    /// How many of the preferred constraints a node does not meet.
    pub(super) fn missed(&self, node: &Node) -> u32 {
        filter::missed(&self.prefer, node)
    }
}

/// How often the current spec version failed on a node of late.
#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    /// When the first of them did.
    since: Timestamp,
}

/// Nodes on which the current spec version failed often of late.
fn recent_failures(state: &State, service: &Service) -> BTreeMap<NodeId, Failures> {
    let mut nodes: BTreeMap<NodeId, Failures> = BTreeMap::new();
    for task in state.failed_of_service(service.id) {
        let at = task.status_applied_at;
        let recent = state.time().since_ns(at) < FAILURE_WINDOW_NS;
        if let (true, Some(node)) = (recent && task.spec_version == service.spec_version, task.node) {
            let failures = nodes.entry(node).or_insert(Failures { count: 0, since: at });
            *failures = Failures { count: failures.count + 1, since: failures.since.min(at) };
        }
    }
    nodes.retain(|_, failures| failures.count >= FAILURES_MIN);
    nodes
}

/// When a failure that keeps a node behind the others is forgotten, if there is one: from then on the scheduler may
/// choose otherwise although nothing has changed.
pub(super) fn forgets_at(state: &State, service: &Service) -> Option<Timestamp> {
    recent_failures(state, service).values().map(|failures| failures.since.plus_ns(FAILURE_WINDOW_NS)).min()
}

/// The label that a preference names, as a node has it; missing is empty, and so is what is no label.
fn label<'a>(descriptor: &str, node: &'a Node) -> &'a str {
    let strip = |prefix: &str| {
        descriptor.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix))?;
        Some(&descriptor[prefix.len()..])
    };
    if let Some(key) = strip("node.labels.") {
        return node.spec.labels.get(key).map_or("", String::as_str);
    }
    if let Some(key) = strip("engine.labels.") {
        return node.description.as_ref().and_then(|d| d.engine.labels.get(key)).map_or("", String::as_str);
    }
    ""
}

/// The labels to spread over, outermost first.
fn spread_descriptors(spec: &ServiceSpec) -> Vec<String> {
    let preferences = spec.task_template.placement.as_ref().map_or(&[][..], |p| &p.preferences);
    preferences.iter().filter_map(|p| p.spread.as_ref()).map(|s| s.spread_descriptor.clone()).collect()
}
