//! Replicated services: so many tasks, no more and no less (swarm-behaviour §3.2).

use std::{collections::BTreeMap, ops::RangeInclusive};

use swarm_model::{DesiredState, NodeId, Service, ServiceMode, TaskId};

use super::{
    Planner,
    fill::{self, Need},
    slots::{Place, Slot},
};
use crate::{Op, State};

/// Takes away the slots that are too many, those first that matter least. Of a large service nothing else is looked at
/// in the same piece.
pub(super) fn scale_down(planner: &mut Planner, service: &Service, replicas: u64) {
    let highest = planner.state.highest_slot(service.id).map_or(0, u64::from);
    if planner.part.is_some() || highest <= replicas && planner.state.tasks_of_slot(service.id, 0).next().is_none() {
        return; // It has no more than it wants.
    }
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let taken: Vec<(bool, Kept)> = kept(&planner.state, service).collect();
    if taken.len() <= replicas {
        return;
    }
    let surplus = keep_order(taken).split_off(replicas);
    // A task that was told in the piece before is not told again: there would always be another piece.
    let told = |number: &u32| -> Vec<TaskId> {
        let tasks = planner.state.tasks_of_slot(service.id, *number);
        tasks.filter(|task| task.desired != DesiredState::Remove).map(|task| task.id).collect()
    };
    // A piece takes the last ones.
    let mut tasks: Vec<TaskId> = surplus.iter().rev().take(planner.left()).rev().flat_map(told).collect();
    let last = tasks.split_off(tasks.len().saturating_sub(planner.left()));
    planner.push_each(Some(service), &last, |tasks| Op::SetDesired { desired: DesiredState::Remove, tasks });
    if !tasks.is_empty() || surplus.len() > last.len() {
        planner.cut();
    }
    planner.is_cut |= highest > planner.places_max() as u64;
}

/// What tells which slots are kept.
pub(super) struct Kept {
    number: u32,
    /// The node of its task, if there is just one that is meant to live.
    node: Option<NodeId>,
}

/// The places that count, each with whether it runs. Of a large service most are settled, or go since an earlier piece:
/// to look at each task of theirs would make a piece long.
pub(super) fn kept(state: &State, service: &Service) -> impl Iterator<Item = (bool, Kept)> {
    let id = service.id;
    state.slots_of_service(id).filter_map(move |(number, settled_on)| {
        if settled_on.is_some() {
            return Some((true, Kept { number, node: settled_on }));
        }
        if state.tasks_of_slot(id, number).all(|task| task.desired == DesiredState::Remove) {
            return None;
        }
        let slot = Slot(state.tasks_of_slot(id, number).cloned().collect());
        slot.is_taken(service).then(|| (slot.runs(), Kept::of(&slot)))
    })
}

impl Kept {
    fn of(slot: &Slot) -> Self {
        let mut live = slot.live();
        let node = live.next().and_then(|task| task.node).filter(|_| live.next().is_none());
        Self { number: slot.0[0].slot, node }
    }
}

/// The slots in the order in which they are kept (swarm-behaviour §3.2): running ones first; then so that what goes
/// first are slots without a node of their own and those on the nodes that hold most of this service.
fn keep_order(slots: Vec<(bool, Kept)>) -> Vec<u32> {
    let (running, others): (Vec<_>, Vec<_>) = slots.into_iter().partition(|(runs, _)| *runs);
    let mut seen: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut ranked: Vec<(u32, u32)> = Vec::with_capacity(running.len() + others.len());
    for (_, Kept { number, node }) in running.into_iter().chain(others) {
        let ordinal = node.map_or(u32::MAX, |node| {
            let count = seen.entry(node).or_insert(0);
            *count += 1;
            *count
        });
        ranked.push((ordinal, number));
    }
    ranked.sort_by_key(|(ordinal, _)| *ordinal);
    ranked.into_iter().map(|(_, number)| number).collect()
}

/// Replaces what cannot go on and fills the slots that are missing, the lowest numbers first. Slots that have nothing
/// but history and are not filled are forgotten.
pub(super) fn fill(planner: &mut Planner, service: &Service, replicas: u64) {
    let mut needs = fill::restarts(planner, service);
    let slots = planner.slots(service);
    let (slots, settled) = (&slots.shown, slots.settled);
    let taken = |place: &Place| slots.get(place).is_some_and(|slot| slot.is_taken(service));
    let empty = slots.keys().filter(|p| !taken(p)).count();
    let missing = match &planner.part {
        Some(part) if part.is_exact => empty,
        Some(_) if slots.values().all(|slot| slot.is_taken(service) || slot.is_going()) => 0,
        // Which number comes in the place of this one is for a look at all to say.
        Some(_) => return planner.widen(service.id),
        None => {
            let present = settled + slots.len() - empty;
            usize::try_from(replicas).unwrap_or(usize::MAX).saturating_sub(present)
        }
    };
    // What the piece does not take is left to the next one, and so is what of the others is to be forgotten.
    let (is_last, missing) = (missing <= planner.left(), missing.min(planner.left()));
    let free: Vec<Place> = if settled > 0 || planner.part.is_some() {
        slots.keys().copied().filter(|p| !taken(p)).take(missing).collect()
    } else {
        (1..=u32::MAX).map(Place::Number).filter(|p| !taken(p)).take(missing).collect()
    };
    let is_dead = |place: &Place| is_last && !taken(place) && free.last().is_none_or(|last| place > last);
    let dead = slots.iter().filter(|(place, _)| is_dead(place)).flat_map(|(_, slot)| &slot.0);
    let dead: Vec<TaskId> = dead.filter(|t| t.desired != DesiredState::Remove).map(|t| t.id).collect();
    planner.push_each(Some(service), &dead, |tasks| Op::SetDesired { desired: DesiredState::Remove, tasks });
    needs.extend(free.into_iter().map(Need::New));
    fill::place(planner, service, needs);
    if !is_last {
        planner.cut();
    }
}

/// The slots that a service grows by, if that is all that there is to do for now: it was just made, or it has a task in
/// each slot so far and lacks more than a piece takes. What is there is looked at when the last piece comes: a walk
/// over it for each would cost the square of what the service grows by.
pub(super) fn grows_by(planner: &Planner, service: &Service) -> Option<RangeInclusive<u32>> {
    let (state, ServiceMode::Replicated { replicas }) = (&planner.state, &service.spec.mode) else { return None };
    let replicas = u32::try_from(*replicas).unwrap_or(u32::MAX);
    if service.update.is_some() || service.rebalance {
        return None;
    }
    let Some(highest) = state.highest_slot(service.id) else { return Some(1..=replicas) };
    let is_complete = state.tasks_of_only_spec(service.id, service.spec_version) == Some(highest as usize)
        && state.tasks_of_slot(service.id, 0).next().is_none();
    let missing = replicas.checked_sub(highest)? as usize;
    let is_much = missing > planner.left() || missing > 0 && highest as usize > planner.places_max();
    (is_complete && is_much).then_some(highest + 1..=replicas)
}

/// Makes the tasks of these slots, as many as the piece takes.
pub(super) fn grow(planner: &mut Planner, service: &Service, slots: RangeInclusive<u32>) {
    let count = slots.clone().count().min(planner.left());
    if count > 0 {
        let last = *slots.start() + (count - 1) as u32;
        fill::place_more(planner, service, *slots.start()..=last);
    }
    if count < slots.clone().count() {
        planner.cut();
    } else if *slots.start() as usize > planner.places_max() {
        planner.is_cut = true; // What was there before has its look in the next piece.
    }
}
