//! Tasks for the places that need one: replaces what cannot go on, fills what is empty, places what waits. All needs
//! of a service in one go, so that the scheduler sees them together.

use std::sync::Arc;

use swarm_model::{Cause, DesiredState, NodeId, Service, Task, TaskId, TaskState, Timestamp};

use super::{
    Planner,
    restart::{self, Verdict},
    schedule::{self, Fleet},
    slots::{self, Place as SlotPlace, Slot},
};
use crate::{Guard, NewTask, Op, Place, State, Tx, apply::apply_tx};

/// Tasks made by one transaction: one node that changed lets so many fall.
const CREATE_BATCH_MAX: usize = 256;

/// A task that needs a node.
pub(super) enum Need {
    /// A place that has none.
    New(SlotPlace),
    /// Tasks that cannot go on, or are to be replaced.
    Replace(Replacement),
    /// A task that waits for a node.
    Pending(Arc<Task>),
}

/// A task that takes over from others.
pub(super) struct Replacement {
    pub(super) place: SlotPlace,
    /// What it takes over from.
    pub(super) old: Vec<TaskId>,
    pub(super) cause: Cause,
    /// Whether another live task stays in the place meanwhile.
    pub(super) beside: bool,
    /// When it may run; none for at once. One that has to wait is prepared meanwhile.
    pub(super) start_at: Option<Timestamp>,
}

/// What the restart policy makes of the tasks of a service, and the tasks that wait.
pub(super) fn restarts(planner: &mut Planner, service: &Service) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut leave = Vec::new();
    for (place, slot) in slots::of(&planner.state, service) {
        // One new task takes over from all of them, where an old and a new one fall together.
        let mut is_replaced = false;
        for task in slot.live() {
            match restart::judge(&planner.state, &service.spec, &slot, task, planner.now) {
                Verdict::Fine if task.status.state == TaskState::Pending => needs.push(Need::Pending(task.clone())),
                Verdict::Fine => {}
                Verdict::Later(at) => planner.wake(service.id, at),
                // An update has its successor in the place already.
                Verdict::Replace { .. } if is_replaced || has_successor(&slot, task, service) => leave.push(task.id),
                Verdict::Leave => leave.push(task.id),
                Verdict::Replace { start_at } => {
                    is_replaced = true;
                    needs.push(Need::Replace(Replacement {
                        place,
                        old: vec![task.id],
                        cause: Cause::Restart,
                        beside: slot.live().count() > 1,
                        start_at,
                    }));
                }
            }
        }
    }
    planner.push_each(Some(service), &leave, |tasks| Op::SetDesired { desired: DesiredState::Shutdown, tasks });
    needs
}

fn has_successor(slot: &Slot, task: &Task, service: &Service) -> bool {
    slot.live().any(|other| other.id != task.id && other.spec_version == service.spec_version)
}

/// Finds nodes for all of these.
pub(super) fn place(planner: &mut Planner, service: &Service, needs: Vec<Need>) {
    if needs.is_empty() {
        return;
    }
    let request = schedule::Request::new(service);
    let free = needs.iter().filter(|need| node_of(need).is_none()).count();
    let mut places = free_places(planner, &request, &needs, free).into_iter();
    let mut new = Vec::new();
    for need in needs {
        let place = match node_of(&need) {
            Some(node) => schedule::place_on(&planner.state, &request, node),
            None => places.next().expect("as many places as needs without a node"),
        };
        match need {
            Need::New(at) => new.push(NewTask { id: planner.task_id(), slot: at.slot(), place }),
            Need::Replace(replacement) => replace(planner, service, replacement, place),
            Need::Pending(task) => settle(planner, &task, place),
        }
    }
    for batch in new.chunks(CREATE_BATCH_MAX) {
        let mut tx = on_same_nodes(&planner.state, Tx::default(), batch.iter().map(|task| &task.place));
        tx.ops.push(Op::CreateTasks {
            service: service.id,
            spec_version: service.spec_version,
            desired: service.goal(),
            cause: Cause::Fill,
            beside: false,
            start_at: None,
            tasks: batch.to_vec(),
        });
        planner.push_for(service, tx);
    }
}

/// The node that a task of a global service is for.
fn node_of(need: &Need) -> Option<NodeId> {
    match need {
        Need::New(place) | Need::Replace(Replacement { place, .. }) => match place {
            SlotPlace::Node(node) => Some(*node),
            SlotPlace::Number(_) => None,
        },
        Need::Pending(task) => task.node,
    }
}

/// Nodes for the tasks that may go anywhere. What is being replaced no longer counts in the spread.
fn free_places(planner: &mut Planner, request: &schedule::Request<'_>, needs: &[Need], count: usize) -> Vec<Place> {
    let replaced = |need: &Need| match need {
        Need::Replace(replacement) => replacement.old.clone(),
        Need::New(_) | Need::Pending(_) => Vec::new(),
    };
    let tasks: Vec<TaskId> = needs.iter().flat_map(replaced).collect();
    let mut fleet = planner.fleet.take().unwrap_or_else(|| Fleet::new(&planner.state));
    let places = if tasks.is_empty() {
        schedule::place(&mut fleet, &planner.state, request, count)
    } else {
        let mut view = planner.state.clone();
        let nodes: Vec<NodeId> = tasks.iter().filter_map(|id| view.task(*id)?.node).collect();
        let tx = Tx::new(vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks }]);
        apply_tx(&mut view, &tx, &mut Vec::new()).expect("raising a desired state cannot fail");
        nodes.iter().for_each(|node| fleet.touch(*node));
        let places = schedule::place(&mut fleet, &view, request, count);
        nodes.iter().for_each(|node| fleet.touch(*node));
        places
    };
    planner.fleet = Some(fleet);
    places
}

/// Guards for the nodes that were chosen: none of them has changed since.
fn on_same_nodes<'a>(state: &State, mut tx: Tx, places: impl Iterator<Item = &'a Place>) -> Tx {
    let mut nodes: Vec<NodeId> =
        places.filter_map(|place| if let Place::On(node) = place { Some(*node) } else { None }).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let guard = |id: NodeId| Some(Guard::NodeEpoch { node: id, epoch: state.loads.get(&id)?.epoch });
    tx.guards.extend(nodes.into_iter().filter_map(guard));
    tx
}

fn replace(planner: &mut Planner, service: &Service, replacement: Replacement, place: Place) {
    let Replacement { place: at, old, cause, beside, start_at } = replacement;
    let desired = if start_at.is_some() { DesiredState::Ready } else { service.goal() };
    let mut tx = on_same_nodes(&planner.state, Tx::default(), std::iter::once(&place));
    if !old.is_empty() {
        tx.ops.push(Op::SetDesired { desired: DesiredState::Shutdown, tasks: old });
    }
    tx.ops.push(Op::CreateTasks {
        service: service.id,
        spec_version: service.spec_version,
        desired,
        cause,
        beside,
        start_at,
        tasks: vec![NewTask { id: planner.task_id(), slot: at.slot(), place }],
    });
    planner.push_for(service, tx);
}

fn settle(planner: &mut Planner, task: &Task, place: Place) {
    let known = |reason: &Arc<str>| task.status.err.as_ref() == Some(reason);
    if matches!(&place, Place::Pending(reason) | Place::PendingOn(_, reason) if known(reason)) {
        return;
    }
    let mut tx = on_same_nodes(&planner.state, Tx::default(), std::iter::once(&place));
    tx.ops.push(Op::PlaceTask { task: task.id, place });
    planner.push(tx);
}
