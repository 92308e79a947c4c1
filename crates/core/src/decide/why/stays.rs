//! Which tasks run on although they are to go, and why.

use std::sync::Arc;

use swarm_model::{
    Availability, Cause, DesiredState, Service, Task, TaskState, Timestamp, UpdateOrder, format_duration,
};

use super::{RECENT_NS, limit::Limit, nodes, task::failed_before};
use crate::{
    State,
    decide::{
        rolling::{self, is_driven_out, is_leaving, order},
        slots::{self, Kinship, Place, Slot},
    },
};

/// A task that is not made ready, or does not run, for so long is worth a word: 10 s.
const SLOW_NS: i64 = 10_000_000_000;

const SECOND_NS: i64 = 1_000_000_000;

/// Tasks of a service that run although they are to go.
#[derive(Default)]
pub(crate) struct Staying {
    pub(crate) tasks: Vec<Stay>,
    /// A task of the service that waits for a node.
    pub(crate) waiting: Option<Arc<Task>>,
    /// What lets more of them go, if a limit keeps one.
    pub(crate) fix: Option<String>,
    /// What that limit says.
    pub(super) limit: Option<String>,
}

/// A task that runs although it is to go.
pub(crate) struct Stay {
    pub(crate) task: Arc<Task>,
    /// Why it is left.
    pub(crate) reason: String,
    /// Whether more than the order of things keeps it.
    pub(super) is_held: bool,
    /// Whether the limit of tasks that may be away does.
    pub(super) is_limited: bool,
}

/// The tasks of a service that run where they are not to stay, or not as the service is now, and why each of them is
/// left: what is to come instead waits for a node, or its turn does not come.
pub(crate) fn why_staying(state: &State, service: &Service, now: Timestamp) -> Staying {
    let (places, kinship) = (slots::of(state, service), Kinship::default());
    let mut limit = Limit::used_up(state, service, &places, now);
    // A place where nothing runs holds nobody up, but is away where a limit counts.
    let mut holds_up = places.iter().filter(|(_, slot)| limit.is_some() || !slot.waits_for_node());
    let waits = holds_up.find_map(|(place, slot)| waiting(slot).map(|task| (*place, task)));
    let delay = places.iter().find_map(|(place, slot)| {
        let until = rolling::delayed_until(state, service, &kinship, slot, now)?;
        let left = format_duration(nodes::whole_seconds(until.since_ns(now)).max(SECOND_NS));
        Some(format!("the delay after {} lasts another {left}", name(state, service, *place)))
    });
    let is_to_go = |task: &&Arc<Task>| {
        let serves = task.holds_resources() && !service.spec.mode.is_job();
        serves && (is_leaving(state, task) || kinship.is_dirty(state, service, task))
    };
    let is_slow = |task: &&Arc<Task>| {
        let comes = task.holds_resources() && !is_to_go(task) && matches!(task.cause, Cause::Update | Cause::Move);
        let waits_its_turn = task.status.state == TaskState::Ready && task.desired == DesiredState::Ready;
        let is_on_its_way = task.status.state < TaskState::Running && !waits_its_turn;
        comes && is_on_its_way && now.since_ns(task.status_applied_at) >= SLOW_NS
    };
    let slow = places.iter().find_map(|(place, slot)| Some((*place, slot.live().find(is_slow)?)));
    let is_paused = service.update.as_ref().is_some_and(|update| update.state.is_paused());
    let mut told = Staying { waiting: waits.map(|(_, task)| task.clone()), ..Staying::default() };
    for (place, slot) in &places {
        let Some(first) = slot.live().find(is_to_go) else { continue };
        let heir = slot.live().find(|task| task.holds_resources() && !is_to_go(task));
        // What takes over is on its way; if it is made ready, it waits for the other one to go.
        let slow_heir = heir.filter(is_slow);
        if heir.is_some_and(|heir| heir.status.state != TaskState::Ready) && slow_heir.is_none() {
            continue;
        }
        // What starts first asks for nothing before it runs.
        let asks = (heir.is_some() || order(service) == UpdateOrder::StopFirst) && !is_driven_out(state, first, now);
        let limited = limit.as_mut().filter(|_| asks).is_some_and(|limit| limit.keeps(state, slot));
        if heir.is_some() && !limited && slow_heir.is_none() {
            continue;
        }
        let other = waits.filter(|(other, _)| other != place).map(|(other, _)| name(state, service, other));
        let slow = slow.filter(|(other, _)| other != place);
        let mut is_limited = false;
        let (is_held, reason) = if let Some(heir) = waiting(slot) {
            (true, heir.status.err.as_deref().unwrap_or("what is to come waits for a node").to_owned())
        } else if let Some(node) = slot.live().find_map(|task| paused_node(state, task)) {
            (true, format!("{node} is paused and takes nothing new"))
        } else if slot.has_given_up(service) {
            (true, "what was to come failed for good".to_owned())
        } else if slow_heir.is_some() {
            (true, "what takes over from it does not run yet".to_owned())
        } else if is_paused && !is_leaving(state, first) {
            (true, "its update is paused".to_owned())
        } else {
            let limit = limit.as_ref().filter(|_| limited).map(Limit::explain);
            is_limited = limit.is_some();
            let waits = other.map(|other| format!("{other} waits for a node"));
            let slow = || slow.map(|(other, _)| format!("{} does not run yet", name(state, service, other)));
            let turn = waits.or_else(slow).map(|other| format!("its turn does not come while {other}"));
            match (turn, limit) {
                (Some(turn), Some(limit)) => (true, format!("{turn}: {limit}")),
                (Some(text), None) | (None, Some(text)) => (true, text),
                (None, None) => (delay.is_some(), delay.clone().unwrap_or_else(|| "its turn does not come".to_owned())),
            }
        };
        let stays = slot.live().filter(is_to_go);
        told.tasks.extend(stays.map(|task| Stay { task: task.clone(), reason: reason.clone(), is_held, is_limited }));
    }
    let mut limited = told.tasks.iter().filter(|stay| stay.is_limited).peekable();
    if let Some(limit) = limit.filter(|_| limited.peek().is_some()) {
        told.limit = Some(limit.in_short());
        // If what is to come fails, it is no help that more goes for it.
        let recently = |task: &&Arc<Task>| now.since_ns(task.status_applied_at) < RECENT_NS;
        let fails = |slot: &Slot| slot.live().any(|task| failed_before(slot, task).any(|task| recently(&task)));
        if !places.values().any(fails) {
            let kept: Vec<&Task> = limited.map(|stay| &*stay.task).collect();
            told.fix = limit.fix(state, service, &kept, now);
        }
    }
    told
}

/// The task of a place that waits for a node.
fn waiting(slot: &Slot) -> Option<&Arc<Task>> {
    slot.live().find(|task| task.status.state == TaskState::Pending)
}

/// The name of the node of a global service's task, if it is paused.
fn paused_node(state: &State, task: &Task) -> Option<String> {
    let node = state.node(task.node.filter(|_| task.slot == 0)?)?;
    (node.spec.availability == Availability::Pause).then(|| nodes::name(state, node.id))
}

pub(super) fn name(state: &State, service: &Service, place: Place) -> String {
    match place {
        Place::Number(number) => format!("{}.{number}", service.spec.name),
        Place::Node(node) => format!("{}.{}", service.spec.name, nodes::name(state, node)),
    }
}
