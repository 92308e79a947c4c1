//! The oracle: looks at what each entry did. It states what has to hold, not how the code under test comes to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_core::{Entry, Event as Change, Op, Outcome, State};
use swarm_model::{
    Availability, Constraint, ConstraintKey, DesiredState, GenericResource, Node, NodeId, NodeState, Operator,
    PublishMode, Service, ServiceId, ServiceSpec, Task, TaskId, TaskState, UpdateOrder,
};

use crate::updates;

/// A replacement need not wait longer than this for the task before it to stop (swarm-behaviour §3.5), from when that
/// one was told to, or last heard of.
const STOP_NS_MAX: i64 = 60_000_000_000;

/// A decision may not know of what was committed so short a time before it: the log may stall.
const LATE_MS: u64 = 15_000;

/// What the oracle remembers.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Placements seen.
    pub(crate) placements: u64,
    /// When nodes that were down were last heard of again: the true time, since the cluster's jumps.
    returned_ms: BTreeMap<NodeId, u64>,
    /// When an operator took start-first from a service: the true time.
    start_first_until_ms: BTreeMap<ServiceId, u64>,
}

/// One entry, and what it did.
pub(crate) struct Step<'a> {
    /// The state that the plan was made from, if it is one.
    pub(crate) decided: Option<&'a State>,
    pub(crate) before: &'a State,
    pub(crate) after: &'a State,
    pub(crate) entry: &'a Entry,
    pub(crate) outcomes: &'a [Outcome],
    pub(crate) events: &'a [Change],
}

/// A place of a service: a slot, or the node of a global service's task.
pub(crate) type Place = (ServiceId, u32, Option<NodeId>);

pub(crate) fn place_of(task: &Task) -> Place {
    (task.service, task.slot, task.node.filter(|_| task.slot == 0))
}

/// The tasks of a place, the oldest first.
pub(crate) fn tasks_of(state: &State, (service, slot, node): Place) -> impl Iterator<Item = &Arc<Task>> {
    state.tasks_of_slot(service, slot).filter(move |task| slot != 0 || task.node == node)
}

impl Oracle {
    /// Looks at one entry.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&mut self, step: &Step<'_>, now_ms: u64) -> Result<(), String> {
        let Step { decided, before, after, entry, outcomes, events } = *step;
        if after.time() <= before.time() {
            return Err(format!("cluster time went from {:?} to {:?}", before.time(), after.time()));
        }
        let stood = entry.txs.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
        let ops: Vec<&Op> = stood.flat_map(|(tx, _)| &tx.ops).collect();
        let touched: BTreeSet<TaskId> = events
            .iter()
            .filter_map(|event| if let Change::Task { task, .. } = event { Some(*task) } else { None })
            .collect();
        for event in events {
            if let Change::Node(id) = event
                && before.node(*id).is_some_and(|node| node.status.state == NodeState::Down)
            {
                self.returned_ms.insert(*id, now_ms);
            }
        }
        for event in events {
            if let Change::Service(id) = event
                && before.service(*id).is_some_and(|service| starts_first(service))
            {
                self.start_first_until_ms.insert(*id, now_ms);
            }
        }
        let just_returned: BTreeSet<NodeId> =
            self.returned_ms.iter().filter(|(_, at)| **at + LATE_MS > now_ms).map(|(node, _)| *node).collect();
        let mut places: BTreeSet<Place> = BTreeSet::new();
        let mut loaded: BTreeSet<NodeId> = BTreeSet::new();
        for id in touched {
            let (old, new) = (before.task(id), after.task(id));
            match (old, new) {
                (Some(old), Some(new)) => only_up(old, new)?,
                (Some(old), None) => deleted(old, &ops)?,
                (None, _) => {}
            }
            let Some(new) = new else { continue };
            places.insert(place_of(new));
            let was_placed = old.is_some_and(|old| old.status.state > TaskState::Pending);
            if !was_placed && new.status.state == TaskState::Assigned {
                self.placements += 1;
                loaded.extend(new.node);
                placed(before, after, new)?;
            }
            if let Some(old) = old.filter(|old| old.desired == DesiredState::Ready)
                && matches!(new.desired, DesiredState::Running | DesiredState::Complete)
            {
                released(decided.unwrap_or(before), after, old, &just_returned)?;
            }
        }
        for node in loaded {
            not_overcommitted(before, after, node)?;
        }
        for place in &places {
            let late = self.start_first_until_ms.get(&place.0).is_some_and(|at| at + LATE_MS > now_ms);
            one_in_place(before, after, *place, late)?;
        }
        // A plan that comes a second time may come when what it made is gone already.
        let Some(decided) = decided else { return Ok(()) };
        updates::availability(decided, before, after, &ops)?;
        updates::parallelism(before, after, &ops)
    }
}

/// Observed and desired states only go up; what a task is stays.
fn only_up(old: &Task, new: &Task) -> Result<(), String> {
    if new.status.state < old.status.state {
        return Err(format!("task {} went from {} to {}", new.id, old.status.state, new.status.state));
    }
    if new.desired < old.desired {
        return Err(format!("task {} is wanted {} after {}", new.id, new.desired, old.desired));
    }
    let kept = (old.service, old.slot, old.spec_version) == (new.service, new.slot, new.spec_version)
        && (old.node.is_none() || old.node == new.node);
    if kept { Ok(()) } else { Err(format!("task {} became another one: {old:?}, then {new:?}", new.id)) }
}

/// A record is kept while its container may run.
fn deleted(old: &Task, ops: &[&Op]) -> Result<(), String> {
    let ended = ops.iter().any(|op| match op {
        Op::EndTasks { tasks, .. } => tasks.contains(&old.id),
        Op::RemoveNode { node, .. } => old.node == Some(*node),
        Op::ReportTasks { reports, .. } => {
            reports.iter().any(|(task, status)| *task == old.id && status.state.is_terminal())
        }
        _ => false,
    });
    if old.holds_resources() && !ended {
        return Err(format!("task {} was deleted while it is {}", old.id, old.status.state));
    }
    Ok(())
}

/// Whether a node may take a task of this service, but for resources and ports.
pub(crate) fn is_eligible(node: &Node, spec: &ServiceSpec) -> bool {
    node.status.state == NodeState::Ready
        && node.status.engine_reachable
        && node.spec.availability == Availability::Active
        && constraints_hold(node, spec)
}

/// The simulator's services constrain labels only.
pub(crate) fn constraints_hold(node: &Node, spec: &ServiceSpec) -> bool {
    let constraints = spec.task_template.placement.as_ref().map_or(&[][..], |placement| &placement.constraints);
    constraints.iter().all(|text| match Constraint::parse(text) {
        Ok(Constraint { key: ConstraintKey::NodeLabel(key), operator, value }) => {
            let found = node.spec.labels.get(&key).map_or("", String::as_str);
            (found == value) == (operator == Operator::Equal)
        }
        _ => false,
    })
}

/// A task got its node: the node could take it when that was committed.
fn placed(before: &State, after: &State, task: &Task) -> Result<(), String> {
    let Some(id) = task.node else { return Err(format!("task {} is assigned to no node", task.id)) };
    let Some(node) = before.node(id) else { return Err(format!("task {} was placed on {id}, which is gone", task.id)) };
    let own = after.spec(task.service, task.spec_version).map(|version| &version.spec);
    // A task that waited was placed by what its service wants now.
    let current = after.service(task.service).map(|service| &service.spec);
    let fits = |spec: &Arc<ServiceSpec>| is_eligible(node, spec);
    if !own.is_some_and(fits) && !current.is_some_and(fits) {
        return Err(format!(
            "task {} was placed on node {id}, which could not take it: {:?}, {:?}, labels {:?}, constraints {:?}",
            task.id,
            node.status,
            node.spec.availability,
            node.spec.labels,
            own.and_then(|spec| spec.task_template.placement.clone()),
        ));
    }
    let most = own.into_iter().chain(current).map(|spec| spec.max_replicas_per_node()).max().unwrap_or(0);
    let limited = own.into_iter().chain(current).all(|spec| spec.max_replicas_per_node() > 0);
    let others = after.tasks_of_node(id).filter(|t| t.service == task.service && t.slot != task.slot && t.is_live());
    let found = others.count() as u64 + 1;
    // One that the same plan tells to stop makes way for others.
    if limited && task.is_live() && found > most {
        return Err(format!("node {id} has {found} tasks of service {}, {most} are allowed", task.service));
    }
    Ok(())
}

/// What the tasks of a node hold, counted from the tasks, is not more than it has.
fn not_overcommitted(before: &State, after: &State, id: NodeId) -> Result<(), String> {
    let Some(node) = after.node(id) else { return Ok(()) };
    let capacity = node.description.as_ref().map(|d| d.resources.clone()).unwrap_or_default();
    let (mut cpus, mut memory) = (0, 0);
    let mut ports = BTreeSet::new();
    let mut pieces: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for task in after.tasks_of_node(id).filter(|task| task.holds_resources()) {
        let Some(version) = after.spec(task.service, task.spec_version) else {
            return Err(format!("the spec of task {} is gone", task.id));
        };
        let asked = version.spec.task_template.reservations();
        (cpus, memory) = (cpus + asked.nano_cpus, memory + asked.memory_bytes);
        for resource in task.generic_resources.iter() {
            let (kind, name, count) = piece(resource);
            *pieces.entry((kind, name)).or_default() += count;
        }
        for port in version.spec.ports().iter().filter(|port| port.publish_mode == PublishMode::Host) {
            if !ports.insert((port.protocol, port.published_port)) {
                return Err(format!(
                    "port {} of node {id} is taken twice, by task {} too",
                    port.published_port, task.id
                ));
            }
        }
    }
    // A node that shrank may hold more than it has; nothing that reserves may be added to that.
    if (cpus > capacity.nano_cpus && cpus > 0) || (memory > capacity.memory_bytes && memory > 0) {
        let was_there = |known: &Arc<Task>| known.node == Some(id) && known.holds_resources();
        let was_given = |task: &&Arc<Task>| !before.task(task.id).is_some_and(was_there);
        let newest = after.tasks_of_node(id).filter(was_given).any(|task| {
            let asked = after.spec(task.service, task.spec_version).map(|v| v.spec.task_template.reservations());
            task.status.state == TaskState::Assigned
                && asked.is_some_and(|asked| {
                    asked.nano_cpus > 0 && cpus > capacity.nano_cpus
                        || asked.memory_bytes > 0 && memory > capacity.memory_bytes
                })
        });
        if newest {
            return Err(format!("node {id} has {capacity:?} and was given {cpus} and {memory}"));
        }
    }
    for task in after.tasks_of_node(id).filter(|t| t.version == after.revision() && t.holds_resources()) {
        if task.status.state != TaskState::Assigned {
            continue;
        }
        for (kind, name, _) in task.generic_resources.iter().map(piece) {
            let offered = capacity.generic_resources.iter().map(piece).filter(|(k, n, _)| (*k, *n) == (kind, name));
            let (held, has) = (pieces[&(kind, name)], offered.map(|(.., count)| count).sum::<i64>());
            if held > has {
                return Err(format!("node {id} has {has} of {kind} {name} and gave {held}, to task {} too", task.id));
            }
        }
    }
    Ok(())
}

/// Kind, name (none of a number) and number of a generic resource.
fn piece(resource: &GenericResource) -> (&str, &str, i64) {
    match resource {
        GenericResource::Discrete { kind, value } => (kind, "", *value),
        GenericResource::Named { kind, value } => (kind, value, 1),
    }
}

/// How many pieces of a kind these are.
pub(crate) fn pieces_of<'a>(resources: impl IntoIterator<Item = &'a GenericResource>, wanted: &str) -> i64 {
    resources.into_iter().map(piece).filter(|(kind, ..)| *kind == wanted).map(|(.., count)| count).sum()
}

/// Whether old and new tasks of a service may run side by side.
fn starts_first(service: &Service) -> bool {
    let configs = [&service.spec.update_config, &service.spec.rollback_config];
    configs.into_iter().flatten().any(|config| config.order == UpdateOrder::StartFirst)
}

/// A place has one live task; two while an old one waits for the new one beside it, and both are to run only where the
/// service starts first, or did so when that was decided. What was allowed when it came may stay.
fn one_in_place(before: &State, after: &State, place: Place, started_first: bool) -> Result<(), String> {
    let live = |state| tasks_of(state, place).filter(|task| task.desired.is_live()).count();
    let runs = |task: &&Arc<Task>| matches!(task.desired, DesiredState::Running | DesiredState::Complete);
    let to_run = |state| tasks_of(state, place).filter(runs).count();
    // What waited to be started again may go on while its successor, which once was to start first, finds no node.
    let joins_older = || {
        let newest = tasks_of(after, place).filter(runs).max_by_key(|task| task.id);
        newest.is_some_and(|task| before.task(task.id).is_none_or(|task| !runs(&task)))
    };
    let starts_first = started_first || after.service(place.0).is_some_and(|service| starts_first(service));
    if live(after) > live(before).max(2) || to_run(after) > to_run(before).max(1) && !starts_first && joins_older() {
        let live = tasks_of(after, place).filter(|task| task.desired.is_live());
        let found: Vec<_> = live.map(|t| (t.id, t.spec_version, t.desired, t.status.state, t.cause)).collect();
        return Err(format!("place {place:?} has more live tasks than it may: {found:?}"));
    }
    Ok(())
}

/// A replacement runs when its delay is over, and what it replaces has stopped or had time to.
/// Of a node that has just come back the decision may not have known; nor of what was reported after `decided`, the
/// state that it was made from.
fn released(decided: &State, after: &State, task: &Task, just_returned: &BTreeSet<NodeId>) -> Result<(), String> {
    let now = after.time();
    if task.start_at.is_some_and(|at| now < at) {
        return Err(format!("task {} runs at {now:?}, its delay ends at {:?}", task.id, task.start_at));
    }
    let silent = |id: NodeId| {
        after.node(id).is_none_or(|node| node.status.state == NodeState::Down) || just_returned.contains(&id)
    };
    let stops = |other: &&Arc<Task>| {
        // A job's next execution does not wait for the one before it.
        let precedes = other.id != task.id && other.iteration == task.iteration;
        precedes && !other.desired.is_live() && other.holds_resources() && !other.node.is_some_and(silent)
    };
    if let Some(old) = tasks_of(after, place_of(task)).find(stops)
        && let known = decided.task(old.id).unwrap_or(old)
        && now.since_ns(known.updated_at) < STOP_NS_MAX
    {
        return Err(format!(
            "task {} runs while {}, which it replaces, is still {}",
            task.id, old.id, old.status.state
        ));
    }
    Ok(())
}
