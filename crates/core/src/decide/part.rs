//! A look at a part of the places of a service.
//!
//! An event touches one place of a service. Often that place alone tells what is to be done there, and no other place is
//! looked at: a report costs the same, however many tasks the service has. A look at all places of a large service is cut
//! into parts, one for each piece of a plan.

use std::collections::BTreeSet;

use swarm_model::{Service, ServiceId, ServiceMode, Settings};

use super::{
    Planner, rebalance, replicated, rolling,
    slots::{self, Stranded},
};
use crate::{Op, State};

/// The places that a look at a service is confined to.
#[derive(Debug)]
pub(super) struct Part {
    /// By their slots.
    pub(super) numbers: BTreeSet<u32>,
    /// Those for the next piece.
    pub(super) rest: BTreeSet<u32>,
    /// Whether each number that the service wants has a place, and there is no other. If not, the service has as many
    /// places as it wants all the same, and some that are going.
    pub(super) is_exact: bool,
    /// Whether the service has more places than a piece looks at.
    is_large: bool,
    /// Whether something was done that concerns all places: they are looked at in the next piece.
    pub(super) concerns_all: bool,
}

impl Part {
    /// The part for a look at these places, or at all places where `places` is none. None if the look has to see all places
    /// at once.
    pub(super) fn new(
        state: &State,
        stranded: &Stranded,
        id: ServiceId,
        places: Option<BTreeSet<u32>>,
        places_max: usize,
    ) -> Option<Self> {
        let highest = state.highest_slot(id)?;
        let is_large = highest as usize > places_max;
        let (mut numbers, is_exact) = match state.service(id) {
            None => (places.or_else(|| is_large.then(|| numbers(state, id).collect()))?, false),
            Some(service) => {
                let replicas = service.spec.replicas().filter(|_| is_local(state, service, stranded))?;
                let is_exact = u64::from(highest) == replicas && state.tasks_of_slot(id, 0).next().is_none();
                let has_all = || match is_exact {
                    true => numbers(state, id).count() as u64 == replicas,
                    false => replicated::kept(state, service).count() as u64 == replicas,
                };
                let comes_in_parts =
                    || is_large && slots::unsettled(state, service, stranded, places_max).is_none() && has_all();
                (places.or_else(|| comes_in_parts().then(|| numbers(state, id).collect()))?, is_exact)
            }
        };
        if is_exact {
            numbers.split_off(&(highest + 1)); // They are gone.
        }
        let rest = numbers.iter().nth(places_max).copied().map(|from| numbers.split_off(&from)).unwrap_or_default();
        Some(Self { numbers, rest, is_exact, is_large, concerns_all: false })
    }
}

/// The slots of a service.
fn numbers(state: &State, id: ServiceId) -> impl Iterator<Item = u32> {
    let mut last = None;
    state.task_slots_of_service(id).filter(move |slot| last.replace(*slot) != Some(*slot))
}

/// Whether what is to be done at a place of the service follows from that place: there is no limit on how many may be away
/// or under way that others count for as well, and no wish that they be even.
fn is_local(state: &State, service: &Service, stranded: &Stranded) -> bool {
    let ServiceMode::Replicated { .. } = service.spec.mode else { return false };
    let rolls = service.update.as_ref().is_some_and(|update| update.state.is_active() || update.state.is_paused());
    let is_free = rolling::config(service).parallelism == 0;
    let is_drained = |slot: &u32| {
        state.tasks_of_slot(service.id, *slot).any(|task| task.is_live() && rolling::is_leaving(state, task))
    };
    let drains_in_turn =
        || service.spec.update_config.is_some() && stranded.slots_of(state, service.id).iter().any(is_drained);
    (is_free || !rolls && !drains_in_turn())
        && Settings::of(&service.spec.labels).max_unavailable.is_none()
        && !rebalance::is_wanted(service)
}

/// After a look that was confined to a part: whether some of these, which it did, concern all places. Then those of a small
/// service are looked at at once.
pub(super) fn follow(planner: &mut Planner, service: ServiceId, known: usize) {
    let concerns_all = |op: &Op| matches!(op, Op::SetUpdate { .. } | Op::RollBack { .. });
    if !planner.plan.txs[known..].iter().flat_map(|tx| &tx.ops).any(concerns_all) {
        return;
    }
    match &mut planner.part {
        Some(part) if part.is_large => part.concerns_all = true,
        _ => planner.widen(service),
    }
}
