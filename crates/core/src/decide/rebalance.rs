//! Rebalancing: tasks move to nodes that came, or came back (`swarmd.rebalance`, `swarmctl service rebalance`).
//!
//! A move is made only if the scheduler itself would now put the task on a node that has at least two tasks of the
//! service fewer. So each move makes the spread more even, and the moves end.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use swarm_model::{Cause, DesiredState, NodeId, RestartCondition, Service, ServiceMode, Settings, TaskId, TaskState};

use super::{
    Planner,
    budget::Budget,
    fill, rolling,
    schedule::{self, Constraints, Fleet},
    slots::{self, Place as SlotPlace, Slot},
};
use crate::{Event, Op, Place, State, Tx, apply::apply_tx};

/// Moves begun in one look, and nodes looked at for each: bounds the time of a decision. The rest follows when these
/// have moved.
const MOVES_MAX: usize = 16;

/// Whether the tasks of a service are to be kept even.
pub(super) fn is_wanted(service: &Service) -> bool {
    matches!(service.spec.mode, ServiceMode::Replicated { .. })
        && (service.rebalance || Settings::of(&service.spec.labels).rebalance)
}

/// Begins as many moves as there is room for. `idle` says that nothing is under way: then there being none to make means
/// that the service is even.
pub(super) fn advance(planner: &mut Planner, service: &Service, room: usize, mut budget: Budget, idle: bool) {
    if !is_wanted(service) {
        return;
    }
    let order = rolling::order(service);
    let mut moves = 0;
    while moves < room.min(MOVES_MAX) {
        let slots = planner.slots(service);
        debug_assert_eq!(slots.settled, 0, "of what is to be even no place is left out");
        let slots = &slots.shown;
        let Some((place, node)) = next(planner, service, slots) else { break };
        if !budget.take_for_move(&planner.state, &slots[&place], order) {
            break;
        }
        let mut replacement = rolling::replacement(planner, &slots[&place], place, Cause::Move, order);
        replacement.to = Some(node);
        fill::place(planner, service, vec![fill::Need::Replace(replacement)]);
        moves += 1;
    }
    if service.rebalance && idle && moves == 0 {
        planner.push_for(service, Tx::new(vec![Op::SetRebalance { service: service.id, asked: false }]));
    } else if let Some(at) = schedule::forgets_at(&planner.state, service) {
        // A node that comes last for now may then be the one to move to.
        planner.wake(service.id, at);
    }
}

/// Whether one of these nodes, which have more room than before, may take a task of the service from a fuller one.
pub(super) fn gains(state: &State, service: &Service, nodes: &BTreeSet<NodeId>) -> bool {
    let counts = schedule::active_of_service(state, service);
    let fullest = counts.values().copied().max().unwrap_or(0);
    let emptier = |id: &NodeId| counts.get(id).copied().unwrap_or(0) + 2 <= fullest;
    let constraints = Constraints::of(&service.spec);
    nodes.iter().filter(|id| emptier(id)).any(|id| state.node(*id).is_some_and(|node| constraints.hold(node)))
}

/// The next place to move, and the node that it moves to.
fn next(planner: &Planner, service: &Service, slots: &BTreeMap<SlotPlace, Slot>) -> Option<(SlotPlace, NodeId)> {
    let state = &planner.state;
    if service.spec.task_template.restart().condition == RestartCondition::None {
        return None; // Its tasks are to be started once and never again.
    }
    // What is about to be taken over no longer counts.
    let leaving: Vec<TaskId> = slots.values().flat_map(|slot| slot.live().rev().skip(1)).map(|task| task.id).collect();
    let (view, _) = without(state, leaving);
    let counts = schedule::active_of_service(&view, service);
    let count = |node: &NodeId| counts.get(node).copied().unwrap_or(0);
    // The newest task of the place, running and wanted as it is: a move that failed is not tried again.
    let mut candidates: BTreeMap<NodeId, (SlotPlace, TaskId)> = BTreeMap::new();
    for (place, slot) in slots.iter().rev() {
        let Some(task) = slot.0.last() else { continue };
        let settled = slot.live().count() == 1 && task.desired == DesiredState::Running;
        let runs = task.status.state == TaskState::Running && !slots::is_dirty(state, service, task);
        if let (true, Some(node)) = (settled && runs, task.node) {
            candidates.insert(node, (*place, task.id));
        }
    }
    let mut fullest: Vec<NodeId> = candidates.keys().copied().collect();
    fullest.sort_by_key(|node| (Reverse(count(node)), *node));
    let mut fleet = Fleet::new(&view);
    fullest.into_iter().take(MOVES_MAX).find_map(|from| {
        let (place, task) = candidates[&from];
        let (there, events) = without(&view, vec![task]);
        fleet.touch_all(&there, &events);
        let found = schedule::place(&mut fleet, &there, service, 1).pop();
        fleet.touch_all(&view, &events);
        let Some(Place::On(to)) = found else { return None };
        let better = count(&to) + 2 <= count(&from);
        // It has to fit beside all that is still there.
        let fits = matches!(schedule::place_on(state, service, to), Place::On(_));
        (better && fits).then_some((place, to))
    })
}

/// The state as if these tasks were to stop, and what is not as it was.
fn without(state: &State, tasks: Vec<TaskId>) -> (State, Vec<Event>) {
    let (mut view, mut events) = (state.clone(), Vec::new());
    let tx = Tx::new(vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks }]);
    apply_tx(&mut view, &tx, &mut events).expect("raising a desired state cannot fail");
    (view, events)
}
