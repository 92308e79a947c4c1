//! Replicated services: so many tasks, no more and no less (swarm-behaviour §3.2).

use std::collections::BTreeMap;

use swarm_model::{DesiredState, NodeId, Service, TaskId};

use super::{
    Planner,
    fill::{self, Need},
    slots::{Place, Slot},
};
use crate::Op;

/// Takes away the slots that are too many, those first that matter least.
pub(super) fn scale_down(planner: &mut Planner, service: &Service, replicas: u64) {
    let slots = planner.slots(service);
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    if slots.shown.len() + slots.settled <= replicas {
        return;
    }
    let mut taken = slots.shown.clone();
    taken.retain(|_, slot| slot.is_taken(service));
    if taken.len() <= replicas {
        return;
    }
    let surplus = keep_order(&taken).split_off(replicas);
    let tasks: Vec<TaskId> = surplus.iter().flat_map(|place| &taken[place].0).map(|task| task.id).collect();
    planner.push_each(Some(service), &tasks, |tasks| Op::SetDesired { desired: DesiredState::Remove, tasks });
}

/// The slots in the order in which they are kept (swarm-behaviour §3.2): running ones first; then so that what goes
/// first are slots without a node of their own and those on the nodes that hold most of this service.
fn keep_order(slots: &BTreeMap<Place, Slot>) -> Vec<Place> {
    let mut order: Vec<Place> = slots.keys().copied().collect();
    order.sort_by_key(|place| (!slots[place].runs(), *place));
    let mut seen: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut rank: BTreeMap<Place, u32> = BTreeMap::new();
    for place in &order {
        let mut live = slots[place].live();
        let ordinal = match (live.next().and_then(|task| task.node), live.next()) {
            (Some(node), None) => {
                let count = seen.entry(node).or_insert(0);
                *count += 1;
                *count
            }
            _ => u32::MAX,
        };
        rank.insert(*place, ordinal);
    }
    order.sort_by_key(|place| rank[place]);
    order
}

/// Replaces what cannot go on and fills the slots that are missing, the lowest numbers first. Slots that have nothing
/// but history and are not filled are forgotten.
pub(super) fn fill(planner: &mut Planner, service: &Service, replicas: u64) {
    let mut needs = fill::restarts(planner, service);
    let slots = planner.slots(service);
    let (slots, settled) = (&slots.shown, slots.settled);
    let taken = |place: &Place| slots.get(place).is_some_and(|slot| slot.is_taken(service));
    let present = settled + slots.keys().filter(|p| taken(p)).count();
    let missing = usize::try_from(replicas).unwrap_or(usize::MAX).saturating_sub(present);
    let free: Vec<Place> = if settled > 0 {
        slots.keys().copied().filter(|p| !taken(p)).take(missing).collect()
    } else {
        (1..=u32::MAX).map(Place::Number).filter(|p| !taken(p)).take(missing).collect()
    };
    let is_dead = |place: &Place| !taken(place) && free.last().is_none_or(|last| place > last);
    let dead = slots.iter().filter(|(place, _)| is_dead(place)).flat_map(|(_, slot)| &slot.0);
    let dead: Vec<TaskId> = dead.filter(|t| t.desired != DesiredState::Remove).map(|t| t.id).collect();
    planner.push_each(Some(service), &dead, |tasks| Op::SetDesired { desired: DesiredState::Remove, tasks });
    needs.extend(free.into_iter().map(Need::New));
    fill::place(planner, service, needs);
}

/// The same for a service that has no tasks at all.
pub(super) fn fill_new(planner: &mut Planner, service: &Service) {
    let slots = 1..=u32::try_from(service.spec.replicas().unwrap_or(0)).unwrap_or(u32::MAX);
    if !slots.is_empty() {
        fill::place_first(planner, service, slots);
    }
}
