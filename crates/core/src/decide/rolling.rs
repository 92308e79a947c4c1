//! Rolling replacement: how an update and a drain take over a service place by place.
//!
//! What is under way follows from the tasks: a place with an old and a new task is being taken over, whatever for.
//! Stop-first, the new task is prepared (image pulled, container created) while the old one runs; then the old one
//! stops, and the new one runs once it has. Start-first, the new one runs beside the old one.

use std::{collections::BTreeSet, sync::Arc};

use swarm_model::{
    Availability, Cause, DesiredState, NodeState, RestartCondition, Service, ServiceMode, Task, TaskId, TaskState,
    Timestamp, UpdateConfig, UpdateOrder, mutant::mutant,
};

use super::{
    Planner,
    budget::Budget,
    fill::{self, Need, Replacement},
    global, rebalance, restart,
    schedule::Constraints,
    slots::{self, Kinship, Place, Slot},
    update::{self, is_of_update},
};
use crate::{DRAIN_DEADLINES_LEVEL, State, state::host_ports};

/// The policy in force: that of the spec which the service is on its way to.
pub(super) fn config(service: &Service) -> UpdateConfig {
    let config = if service.rolls_back() { &service.spec.rollback_config } else { &service.spec.update_config };
    config.clone().unwrap_or_else(UpdateConfig::when_absent)
}

/// The order in force. On its one node, the new task of a global service could never open a port that the old one
/// holds: such a service is updated stop-first, whatever it says.
pub(super) fn order(service: &Service) -> UpdateOrder {
    let fixed_port = host_ports(&service.spec).next().is_some();
    if service.spec.mode == ServiceMode::Global && fixed_port { UpdateOrder::StopFirst } else { config(service).order }
}

/// Takes an update and a drain one step further: counts failures, finishes places, begins the next ones. Returns the
/// service as it is afterwards: with another stamp if the update failed and is rolled back, and nothing else is done.
pub(super) fn advance(planner: &mut Planner, service: &Arc<Service>) -> Arc<Service> {
    let current = |planner: &Planner| planner.state.service(service.id).cloned().expect("nothing removes it here");
    let known = service.stamp;
    update::count_failures(planner, service);
    let service = current(planner);
    if service.stamp != known {
        return service;
    }
    finish(planner, &service);
    place_waiting(planner, &service);
    roll(planner, &service);
    current(planner)
}

/// Whether a task is to leave its node, which the operator drains. A node that is down is no longer drained, but lost.
pub(super) fn is_leaving(state: &State, task: &Task) -> bool {
    task.node
        .and_then(|id| state.node(id))
        .is_some_and(|node| node.spec.availability == Availability::Drain && node.status.state != NodeState::Down)
}

/// From when on a task that is to leave its node does so whatever the policies of its service say.
fn leaves_from(state: &State, task: &Task) -> Option<Timestamp> {
    if state.feature_level() < DRAIN_DEADLINES_LEVEL || !is_leaving(state, task) {
        return None;
    }
    state.node(task.node?)?.emptied_from()
}

/// Whether a task is to leave its node now, whatever the policies of its service say.
pub(super) fn is_driven_out(state: &State, task: &Task, now: Timestamp) -> bool {
    leaves_from(state, task).is_some_and(|from| from <= now)
}

/// The order in force in one place. A task that is driven out does not stay until its successor runs.
pub(super) fn order_in(state: &State, service: &Service, slot: &Slot, now: Timestamp) -> UpdateOrder {
    let is_driven_out = slot.live().any(|task| is_driven_out(state, task, now));
    if is_driven_out { UpdateOrder::StopFirst } else { order(service) }
}

/// The one of several tasks in a place that is to stay: the newest of those that are what the service wants, where it
/// wants them. One that failed, or found no node, is dropped when the other one need not leave, or no longer.
fn successor<'a>(state: &State, service: &Service, slot: &'a Slot) -> Option<&'a Arc<Task>> {
    let clean = |task: &&Arc<Task>| !slots::is_dirty(state, service, task);
    let stays = |task: &&Arc<Task>| clean(task) && !is_leaving(state, task);
    let placed = slot.live().rfind(|task| stays(task) && task.holds_resources());
    // All of them are to leave: the one that serves is kept until there is another way out.
    placed
        .or_else(|| slot.live().rfind(stays))
        .or_else(|| slot.live().rfind(|task| clean(task) && task.status.state == TaskState::Running))
}

/// What was prepared in a place beside the task that serves, and will not be started any more.
fn outdated<'a>(state: &'a State, service: &'a Service, slot: &'a Slot) -> impl Iterator<Item = TaskId> {
    let waits = |task: &&Arc<Task>| task.desired == DesiredState::Ready;
    let serves = slot.live().any(|task| !waits(&task) && state.serves(task));
    slot.live().filter(waits).filter(move |task| serves && slots::is_dirty(state, service, task)).map(|task| task.id)
}

/// Whether a task only waits for the one before it to stop.
fn is_prepared(task: &Task, now: Timestamp) -> bool {
    task.desired == DesiredState::Ready
        && (TaskState::Ready..=TaskState::Running).contains(&task.status.state)
        && task.start_at.unwrap_or_default() <= now
}

/// Where a new task runs beside an old one, or is prepared to take over, the old one goes.
fn finish(planner: &mut Planner, service: &Service) {
    let mut done = Vec::new();
    let slots = planner.slots(service);
    let slots = &slots.shown;
    if slots.values().all(|slot| slot.live().count() < 2) {
        return; // To ask for the budget is a look at all places.
    }
    let mut budget = Budget::of(planner, service);
    // A place that waits for room, which what is prepared may be holding.
    let waits = |slot: &Slot| !slot.runs() && slot.live().any(|task| task.status.state == TaskState::Pending);
    for slot in slots.values().filter(|slot| slot.live().count() > 1) {
        // What was prepared for a spec that is out of date by now would hold its room until the place's turn comes.
        let known = done.len();
        done.extend(outdated(&planner.state, service, slot));
        let Some(keep) = successor(&planner.state, service, slot) else { continue };
        let stop_first = || order_in(&planner.state, service, slot, planner.now) == UpdateOrder::StopFirst;
        let takes_over = keep.status.state == TaskState::Running || is_prepared(keep, planner.now) && stop_first();
        // On a node that is silent it may be lost, and the other one is all that serves in its place.
        let other_serves = || slot.live().any(|task| task.id != keep.id && planner.state.serves(task));
        if !takes_over || !planner.state.is_on_ready_node(keep) && other_serves() {
            continue;
        }
        if budget.take(&planner.state, slot, |task| task.id != keep.id) {
            let goes = slot.live().map(|task| task.id).filter(|id| *id != keep.id && !done[known..].contains(id));
            let goes: Vec<TaskId> = goes.collect();
            done.extend(goes);
        } else if keep.status.state != TaskState::Running && slots.values().any(waits) {
            done.push(keep.id);
        }
    }
    budget.stop(planner, service, &done);
}

/// Finds nodes for new tasks that wait for one, before other places have their turn: a task that has a node now is under
/// way, and one that has none holds nobody up.
fn place_waiting(planner: &mut Planner, service: &Service) {
    let is_active = service.update.as_ref().is_some_and(|update| update.state.is_active());
    if !is_active || config(service).parallelism == 0 {
        return;
    }
    let slots = planner.slots(service);
    let waiting = slots.shown.values().filter(|slot| slot.waits_for_node()).flat_map(Slot::live);
    let is_new = |task: &&Arc<Task>| !slots::is_dirty(&planner.state, service, task);
    let needs: Vec<Need> = waiting.filter(is_new).map(|task| Need::Pending(task.clone(), None)).collect();
    if !needs.is_empty() {
        fill::place(planner, service, needs);
    }
}

/// What one place means for an update, or for a drain.
#[derive(Clone, Copy)]
enum Stage {
    /// Nothing to do.
    Clean,
    /// Still has what is to be replaced.
    Stale,
    /// Its new task, or what took over from that, has not run yet.
    UnderWay,
    /// Its new task runs, or ran, since then; the delay and the watch count from there.
    Reached(Timestamp),
}

impl Stage {
    /// Whether the place counts as one of those that may be under way at a time; if so because of the delay after it,
    /// until when.
    fn is_busy(self, config: &UpdateConfig, now: Timestamp) -> (bool, Option<Timestamp>) {
        match self {
            Self::Clean | Self::Stale => (false, None),
            Self::UnderWay => (true, None),
            Self::Reached(at) => {
                let until = Some(at.plus_ns(config.delay_ns)).filter(|until| *until > now);
                (until.is_some(), until)
            }
        }
    }
}

/// A place in the eyes of a drain.
fn stage_of_move(state: &State, service: &Service, kinship: &Kinship, slot: &Slot, now: Timestamp) -> Stage {
    let clean = |task: &Arc<Task>| !kinship.is_dirty(state, service, task);
    // What has ended there is for the restart policy to judge.
    if slot.live().any(|task| !task.status.state.is_terminal() && is_leaving(state, task)) {
        let has_successor = slot.live().any(|task| clean(task) && !is_leaving(state, task));
        // If the successor failed for good, the old task stays, or nothing would run. It does not stay on a node that is to
        // be empty.
        let stays = || slot.has_given_up(service) && !slot.live().any(|task| is_driven_out(state, task, now));
        return match has_successor {
            true => Stage::UnderWay,
            false if stays() => Stage::Clean,
            false => Stage::Stale,
        };
    }
    match slot.live().next_back() {
        Some(newest) if newest.cause == Cause::Move || slot.live().count() > 1 && slot.live().all(clean) => {
            newest.reached_at.map_or(Stage::UnderWay, Stage::Reached)
        }
        _ => Stage::Clean,
    }
}

/// An update and a drain wait for the delay of the policy after each place that they have finished. Until when they wait
/// for this place; none if they do not.
pub(super) fn delayed_until(
    state: &State,
    service: &Service,
    kinship: &Kinship,
    slot: &Slot,
    now: Timestamp,
) -> Option<Timestamp> {
    let config = config(service);
    if config.delay_ns == 0 {
        return None;
    }
    let of_move = stage_of_move(state, service, kinship, slot, now);
    let of_update = stage_of_update(state, service, kinship, slot, now);
    [of_move, of_update].into_iter().filter_map(|stage| stage.is_busy(&config, now).1).max()
}

impl update::Progress {
    fn add(&mut self, stage: Stage, is_busy: bool) {
        if let Stage::Reached(at) = stage {
            self.last_reached = self.last_reached.max(Some(at));
        }
        self.places += u64::from(is_busy || matches!(stage, Stage::Stale));
    }
}

/// The task that the update which is under way, or the last one, made in a place.
fn last_made<'a>(service: &Service, slot: &'a Slot) -> Option<&'a Arc<Task>> {
    let update = service.update.as_ref()?;
    slot.0.iter().rfind(|task| is_of_update(service, update, task))
}

/// A place in the eyes of an update.
fn stage_of_update(state: &State, service: &Service, kinship: &Kinship, slot: &Slot, now: Timestamp) -> Stage {
    let dirty = |task: &Arc<Task>| kinship.is_dirty(state, service, task);
    // One that was dropped before it could take over made no difference, also one that was to come instead of one that
    // failed, or was to have another one come instead but that its node took none: the place begins anew.
    let was_dropped = |task: &Task| {
        let ended_by_itself = task.status.state.is_terminal() && task.status.state != TaskState::Shutdown;
        let is_over = ended_by_itself && !restart::allowed(&service.spec, slot, task);
        !task.desired.is_live() && !is_over && slot.live().next().is_some() && slot.live().all(dirty)
    };
    let heir = slot.0.iter().rfind(|task| task.spec_version == service.spec_version);
    if let Some(task) = last_made(service, slot).filter(|_| !heir.is_some_and(|heir| was_dropped(heir))) {
        return match task.reached_at {
            // Lost while it is watched, it is about to have a successor that is the update's as well.
            Some(_) if restart::is_silent(state, task) && update::is_watched(service, task, now) => Stage::UnderWay,
            Some(at) => Stage::Reached(at),
            None if slot.live().any(|task| task.reached_at.is_none() && !dirty(task)) => Stage::UnderWay,
            None => Stage::Clean,
        };
    }
    let is_dirty = match slot.live().count() {
        0 => slot.finished(service).is_some_and(dirty),
        _ => slot.live().any(dirty),
    };
    let paused_node = slot.live().filter_map(|task| task.node).any(|id| {
        // A paused node takes nothing new: a global service's task there stays as it is (swarm-behaviour §3.3).
        slot.0.iter().all(|task| task.slot == 0)
            && state.node(id).is_none_or(|node| node.spec.availability != Availability::Active)
    });
    if !is_dirty || paused_node {
        Stage::Clean
    } else if slot.live().any(|task| !dirty(task)) {
        // Something else made what is to stay: a restart, or what was there before a rollback half-way. The old one
        // goes when it can take over.
        Stage::UnderWay
    } else {
        Stage::Stale
    }
}

/// The same, where what misses its deadline holds the other places up no longer.
fn stage_of_update_now(planner: &mut Planner, service: &Service, kinship: &Kinship, slot: &Slot) -> Stage {
    let stage = stage_of_update(&planner.state, service, kinship, slot, planner.now);
    let deadline = || last_made(service, slot).and_then(|task| update::deadline(service, task));
    if let (Stage::UnderWay, Some(at)) = (stage, deadline()) {
        if at <= planner.now {
            return Stage::Clean;
        }
        planner.wake(service.id, at);
    }
    stage
}

/// Adds the places that a look leaves out, where it matters how far they are: an update is over when the last one is
/// done. Returns whether all is known that there is to know.
fn add_others(
    planner: &mut Planner,
    service: &Service,
    config: &UpdateConfig,
    kinship: &Kinship,
    progress: &mut update::Progress,
) -> bool {
    let Some(part) = &planner.part else { return true };
    let is_active = service.update.as_ref().is_some_and(|update| update.state.is_active());
    if progress.places > 0 {
        progress.places += part.rest.len() as u64;
        return true;
    }
    if !part.rest.is_empty() || !is_active {
        return false;
    }
    let state = planner.state.clone();
    // Begun anywhere, the walk soon finds a place that is not done, if there are some: those that are done lie together.
    let from = planner.random() % u64::from(state.highest_slot(service.id).unwrap_or(0) + 1);
    for slot in slots::taken_from(&state, service, u32::try_from(from).unwrap_or(0)) {
        let stage = stage_of_update_now(planner, service, kinship, &slot);
        progress.add(stage, stage.is_busy(config, planner.now).0);
        if progress.places > 0 {
            break; // One is enough.
        }
    }
    true
}

/// Begins the next places, as many as the policy allows at a time.
fn roll(planner: &mut Planner, service: &Arc<Service>) {
    let slots = planner.slots(service);
    let slots = &slots.shown;
    let config = config(service);
    let paused = service.update.as_ref().is_some_and(|update| update.state.is_paused());
    let mut stale: Vec<(Place, Cause)> = Vec::new();
    let mut begun: Vec<(Place, Cause)> = Vec::new();
    let mut idle: Vec<(Place, Cause)> = Vec::new();
    let mut under_way: Vec<Place> = Vec::new();
    let mut progress = update::Progress::default();
    let constraints = Constraints::of(&service.spec);
    let wanted =
        |place: &Place, slot: &Slot| slot.is_taken(service) && !global::is_retired(planner, &constraints, *place);
    let places: Vec<(&Place, &Slot)> = slots.iter().filter(|(place, slot)| wanted(place, slot)).collect();
    let kinship = Kinship::default();
    let mut driven_out: BTreeSet<Place> = BTreeSet::new();
    for (place, slot) in places {
        let deadline = slot.live().filter_map(|task| leaves_from(&planner.state, task)).min();
        match deadline {
            Some(at) if at <= planner.now => drop(driven_out.insert(*place)),
            Some(Timestamp::MAX) | None => {}
            Some(at) => planner.wake(service.id, at),
        }
        let of_move = stage_of_move(&planner.state, service, &kinship, slot, planner.now);
        let of_update = match paused {
            true => Stage::Clean,
            false => stage_of_update_now(planner, service, &kinship, slot),
        };
        let (moves, move_until) = of_move.is_busy(&config, planner.now);
        let (updates, update_until) = of_update.is_busy(&config, planner.now);
        [move_until, update_until].into_iter().flatten().for_each(|until| planner.wake(service.id, until));
        progress.add(of_update, updates);
        match (of_update, of_move) {
            // Nothing runs there that an update could take away: it takes nobody's turn, or all would wait for a place
            // that has no node.
            (Stage::Stale, _) if slot.waits_for_node() => idle.push((*place, Cause::Update)),
            (Stage::UnderWay, _) if slot.waits_for_node() => {}
            // An update that replaces the task anyway takes it off its node as well.
            (Stage::Stale, _) => stale.push((*place, Cause::Update)),
            (_, Stage::Stale) if !updates => stale.push((*place, Cause::Move)),
            // Under way already, it takes nobody else's turn.
            (_, Stage::Stale) => begun.push((*place, Cause::Move)),
            _ if (moves || updates) && !mutant("uncounted-update") => under_way.push(*place),
            _ => {}
        }
    }
    // Without a policy of its own a service is drained all at once, as in Swarm.
    let has_policy = service.spec.update_config.is_some();
    let at_once = |(place, cause): &(Place, Cause)| driven_out.contains(place) || *cause == Cause::Move && !has_policy;
    let is_limited = config.parallelism > 0 && stale.iter().any(|place| !at_once(place));
    if planner.part.is_some() && is_limited {
        return planner.widen(service.id); // How many others are under way is for a look at all to say.
    }
    if !paused && add_others(planner, service, &config, &kinship, &mut progress) {
        update::track(planner, service, &config, &progress);
    }
    let service = planner.state.service(service.id).cloned().expect("nothing removes it here");

    let room = match config.parallelism {
        0 => usize::MAX,
        parallelism => usize::try_from(parallelism).unwrap_or(usize::MAX).saturating_sub(under_way.len() + begun.len()),
    };
    let has_stale = !stale.is_empty() || !begun.is_empty() || !idle.is_empty();
    if !has_stale && !rebalance::is_wanted(&service) {
        return; // Nothing asks for the budget.
    }
    // What does not run anyway comes first.
    stale.sort_by_key(|(place, _)| slots[place].runs());
    let (all, mut some): (Vec<_>, Vec<_>) = stale.into_iter().partition(at_once);
    // A place that an update begins for a drain takes a turn as well.
    let taken = all.iter().filter(|(_, cause)| *cause == Cause::Update).count();
    some.truncate(room.saturating_sub(taken));
    let mut needs = Vec::new();
    let mut ends: Vec<TaskId> = Vec::new();
    // What is being prepared will take a task away when it is ready: no more is prepared than may then go.
    let mut budget = Budget::of(planner, &service);
    for slot in under_way.iter().map(|place| &slots[place]).filter(|slot| slot.live().count() > 1) {
        budget.take_for_move(&planner.state, slot, order_in(&planner.state, &service, slot, planner.now));
    }
    let never_again = service.spec.task_template.restart().condition == RestartCondition::None;
    for (place, cause) in all.into_iter().chain(begun).chain(idle).chain(some) {
        let slot = &slots[&place];
        // It is to be started once and never again, not elsewhere either (swarm-behaviour §3.5).
        let ends_here = cause == Cause::Move && (never_again || slot.has_given_up(&service));
        let order = order_in(&planner.state, &service, slot, planner.now);
        let order_of_end = if ends_here { UpdateOrder::StopFirst } else { order };
        if !budget.take_for_move(&planner.state, slot, order_of_end) {
            continue;
        }
        if ends_here {
            ends.extend(slot.live().map(|task| task.id));
        } else {
            let is_watched = slot.live().any(|task| update::is_watched(&service, task, planner.now));
            let cause = if is_watched { Cause::Update } else { cause };
            needs.push(Need::Replace(replacement(planner, slot, place, cause, order)));
        }
    }
    budget.stop(planner, &service, &ends);
    fill::place(planner, &service, needs);
    if !has_stale {
        rebalance::advance(planner, &service, room, budget, under_way.is_empty());
    }
}

/// The task that takes a place over.
pub(super) fn replacement(
    planner: &Planner,
    slot: &Slot,
    place: Place,
    cause: Cause,
    order: UpdateOrder,
) -> Replacement {
    let has_ended = slot.live().all(|task| task.status.state.is_terminal());
    // The task that serves while the new one comes; others in the place are left of an update that was cut short.
    let serving = slot.live().find(|task| planner.state.serves(task));
    let serves = serving.or_else(|| slot.live().find(|task| task.status.state == TaskState::Running));
    let kept = match order {
        // What only waits for a node would be one more that does.
        UpdateOrder::StartFirst if !has_ended => {
            serves.or_else(|| slot.live().find(|task| task.status.state != TaskState::Pending))
        }
        UpdateOrder::StartFirst => None,
        UpdateOrder::StopFirst => serves,
    };
    let starts_first = kept.is_some() && order == UpdateOrder::StartFirst;
    Replacement {
        place,
        to: None,
        old: slot.live().filter(|task| kept.is_none_or(|kept| kept.id != task.id)).map(|task| task.id).collect(),
        kept: kept.map(|task| task.id),
        cause,
        start_at: if starts_first { None } else { Some(planner.now) },
        restarts: 0,
    }
}

/// The task in whose place a waiting one is prepared, and which runs until it can take over. One that was made to start
/// first, by a policy that has changed since, is no other.
pub(super) fn kept_beside(planner: &Planner, service: &Service, slot: &Slot, waiting: &Task) -> Option<TaskId> {
    let takes_over = order_in(&planner.state, service, slot, planner.now) == UpdateOrder::StopFirst
        && successor(&planner.state, service, slot).is_some_and(|task| task.id == waiting.id);
    // What waits itself holds no room, and may find its node in the same look.
    let is_there = |task: &&Arc<Task>| task.id != waiting.id && task.status.state != TaskState::Pending;
    slot.live().find(|task| takes_over && is_there(task)).map(|task| task.id)
}
