//! Tasks for the places that need one: replaces what cannot go on, fills what is empty, places what waits. All needs
//! of a service in one go, so that the scheduler sees them together.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use swarm_model::{Cause, DesiredState, NodeId, Service, Task, TaskId, TaskState, TaskStatus, Timestamp, UpdateOrder};

use super::{
    Planner,
    budget::Budget,
    restart::{self, Verdict},
    rolling::{self, is_driven_out, is_leaving},
    schedule,
    slots::{self, Place as SlotPlace, Slot},
    update,
};
use crate::{Event, Guard, NewTask, Op, Place, State, Tx, apply::apply_tx};

/// Tasks made by one transaction: one node that changed lets so many fall.
const CREATE_BATCH_MAX: usize = 256;

/// A task that needs a node.
pub(super) enum Need {
    /// A place that has none.
    New(SlotPlace),
    /// Tasks that cannot go on, or are to be replaced.
    Replace(Replacement),
    /// A task that waits for a node, and the one that serves in its place meanwhile.
    Pending(Arc<Task>, Option<TaskId>),
}

/// A task that takes over from others.
pub(super) struct Replacement {
    pub(super) place: SlotPlace,
    /// The node that it is for, if that is chosen already.
    pub(super) to: Option<NodeId>,
    /// What it takes over from, and what stops at once.
    pub(super) old: Vec<TaskId>,
    /// The task that it takes over from, and which stays until the new one runs or is prepared.
    pub(super) kept: Option<TaskId>,
    pub(super) cause: Cause,
    /// When it may run; none for at once. One that has to wait is prepared meanwhile.
    pub(super) start_at: Option<Timestamp>,
    /// Restarts in a row that led to it.
    pub(super) restarts: u32,
}

/// What the restart policy makes of the tasks of a service, and the tasks that wait.
pub(super) fn restarts(planner: &mut Planner, service: &Service) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut leave = Vec::new();
    let mut superseded: Vec<TaskId> = Vec::new();
    for (place, slot) in &planner.slots(service).shown {
        // One new task takes over from all of them, where an old and a new one fall together.
        let mut is_replaced = false;
        for task in slot.live() {
            match restart::judge(&planner.state, &service.spec, slot, task, planner.now) {
                Verdict::Fine if task.status.state == TaskState::Pending => {
                    let kept = rolling::kept_beside(planner, service, slot, task);
                    needs.push(Need::Pending(task.clone(), kept));
                }
                Verdict::Fine => {}
                Verdict::Later(at) => planner.wake(service.id, at),
                // An update has its successor in the place already, or what it was to take over from runs on.
                Verdict::Replace { .. } if is_replaced || is_spare(&planner.state, slot, task, service) => {
                    leave.push(task.id);
                }
                Verdict::Leave => leave.push(task.id),
                Verdict::Replace { start_at, restarts } => {
                    is_replaced = true;
                    let others = || slot.live().filter(|other| other.id != task.id);
                    let (waiting, there): (Vec<_>, Vec<_>) =
                        others().partition(|other| other.status.state == TaskState::Pending);
                    // One attempt is enough where a task is to leave its node.
                    let goes = |other: &&Arc<Task>| is_driven_out(&planner.state, other, planner.now);
                    let (driven_out, there): (Vec<_>, Vec<_>) = there.into_iter().partition(goes);
                    let kept = there.first().map(|other| other.id);
                    let order = rolling::order_in(&planner.state, service, slot, planner.now);
                    let waits = order == UpdateOrder::StopFirst && (kept.is_some() || !driven_out.is_empty());
                    // What only waits, for an update that was overtaken, waits for nothing any more.
                    superseded.extend(waiting.iter().map(|other| other.id));
                    needs.push(Need::Replace(Replacement {
                        place: *place,
                        to: None,
                        old: std::iter::once(task).chain(waiting).chain(driven_out).map(|old| old.id).collect(),
                        kept,
                        cause: match update::is_watched(service, task, planner.now) {
                            true => Cause::Update, // It did not fail, its node is lost.
                            false => Cause::Restart,
                        },
                        // Beside one that serves it is prepared first, whatever became of the one before.
                        start_at: start_at.or(waits.then_some(planner.now)),
                        restarts,
                    }));
                }
            }
        }
    }
    needs.retain(|need| !matches!(need, Need::Pending(task, _) if superseded.contains(&task.id)));
    if !leave.is_empty() {
        let budget = Budget::of(planner, service);
        budget.stop(planner, service, &leave);
    }
    needs
}

/// Whether another task of the place does without this one: its successor, or one that serves and need not go.
fn is_spare(state: &State, slot: &Slot, task: &Task, service: &Service) -> bool {
    let current = |task: &Task| task.spec_version == service.spec_version;
    slot.live().filter(|other| other.id != task.id).any(|other| {
        let succeeds = current(other) && (other.id > task.id || !current(task));
        let serves = other.status.state == TaskState::Running
            && !slots::is_dirty(state, service, other)
            && !is_leaving(state, other);
        succeeds || serves
    })
}

/// Finds nodes for all of these.
pub(super) fn place(planner: &mut Planner, service: &Service, mut needs: Vec<Need>) {
    let mut by_version: BTreeMap<u64, Vec<Need>> = BTreeMap::new();
    let is_earlier =
        |need: &mut Need| matches!(need, Need::Pending(task, _) if task.spec_version != service.spec_version);
    for need in needs.extract_if(.., is_earlier) {
        if let Need::Pending(task, _) = &need {
            by_version.entry(task.spec_version).or_default().push(need);
        }
    }
    for (version, needs) in by_version {
        let wanted = schedule::asked_by(&planner.state, service, version).into_owned();
        place_in_parts(planner, service, &wanted, needs);
    }
    place_in_parts(planner, service, service, needs);
}

/// Finds nodes for as many as the piece takes. More than it takes come in parts: what waits first, for it may go on to
/// wait, which changes nothing.
fn place_in_parts(planner: &mut Planner, service: &Service, wanted: &Service, needs: Vec<Need>) {
    if needs.len() <= planner.left() {
        return place_alike(planner, service, wanted, needs);
    }
    let (waiting, mut others): (Vec<_>, Vec<_>) = needs.into_iter().partition(|need| matches!(need, Need::Pending(..)));
    place_alike(planner, service, wanted, waiting);
    while !others.is_empty() {
        if planner.is_full() {
            return planner.cut();
        }
        let rest = others.split_off(others.len().min(planner.left()));
        place_alike(planner, service, wanted, others);
        others = rest;
    }
}

/// Finds nodes for what asks for them as `wanted` does, which is the service or what it was.
fn place_alike(planner: &mut Planner, service: &Service, wanted: &Service, needs: Vec<Need>) {
    if needs.is_empty() {
        return;
    }
    if planner.is_full() {
        return planner.cut();
    }
    let free = needs.iter().filter(|need| node_of(need).is_none()).count();
    let mut places = free_places(planner, wanted, &needs, free.min(planner.left()));
    if let Some(place @ Place::Pending(_)) = places.last().cloned() {
        // No node takes another one.
        places.resize(free, place);
    }
    let mut places = places.into_iter();
    let replaces = |need: &Need| matches!(need, Need::Replace(_));
    let budget = needs.iter().any(replaces).then(|| Budget::of(planner, service));
    let mut new = Vec::with_capacity(needs.len());
    let mut stuck = Vec::new();
    let mut is_cut = false;
    for need in needs {
        let place = match node_of(&need) {
            Some(node) => schedule::place_on(&planner.state, wanted, node),
            None => match places.next() {
                Some(place) => place,
                None => {
                    is_cut = true;
                    continue;
                }
            },
        };
        match need {
            Need::New(at) => new.push(new_task(planner, wanted, at.slot(), place)),
            need if !matches!(place, Place::On(_)) && gives_way(planner, service, &need).is_some() => {
                stuck.push((need, place));
            }
            Need::Replace(replacement) => {
                let budget = budget.as_ref().expect("one of the needs replaces");
                replace(planner, service, budget, replacement, place);
            }
            Need::Pending(task, _) => settle(planner, wanted, &task, place),
        }
    }
    create_all(planner, service, new, Planner::push_for);
    make_room(planner, service, wanted, stuck);
    if is_cut {
        planner.cut();
    }
}

/// Makes the first tasks of a service, or more where each slot has one, and finds nodes for them.
pub(super) fn place_more(planner: &mut Planner, service: &Service, slots: RangeInclusive<u32>) {
    let mut fleet = planner.take_fleet();
    let places = schedule::place_more(&mut fleet, &planner.state, service, slots.clone().count());
    planner.fleet = Some(fleet);
    let new = slots.zip(places).map(|(slot, place)| new_task(planner, service, slot, place)).collect();
    create_all(planner, service, new, Planner::push_more);
}

fn new_task(planner: &mut Planner, wanted: &Service, slot: u32, place: Place) -> NewTask {
    let (place, addrs) = planner.addressed(wanted, place, slot);
    NewTask { id: planner.task_id(), slot, place, addrs }
}

/// Makes new tasks, in transactions that fit an entry.
fn create_all(planner: &mut Planner, service: &Service, new: Vec<NewTask>, push: fn(&mut Planner, &Service, Tx)) {
    let mut create = |tasks: Vec<NewTask>| {
        let mut tx = on_same_nodes(&planner.state, Tx::default(), tasks.iter().map(|task| &task.place));
        tx.ops = vec![Op::CreateTasks {
            service: service.id,
            spec_version: service.spec_version,
            desired: service.goal(),
            cause: Cause::Fill,
            beside: None,
            start_at: None,
            restarts: 0,
            tasks,
        }];
        push(planner, service, tx);
    };
    if (1..=CREATE_BATCH_MAX).contains(&new.len()) {
        return create(new);
    }
    let mut new = new.into_iter();
    while new.len() > 0 {
        create(new.by_ref().take(CREATE_BATCH_MAX).collect());
    }
}

/// The node that a task is for, of a global service or one that moves.
fn node_of(need: &Need) -> Option<NodeId> {
    match need {
        Need::Replace(Replacement { to: Some(node), .. }) => Some(*node),
        Need::New(place) | Need::Replace(Replacement { place, .. }) => match place {
            SlotPlace::Node(node) => Some(*node),
            SlotPlace::Number(_) => None,
        },
        Need::Pending(task, _) => task.node,
    }
}

/// Places for the tasks that may go anywhere.
fn free_places(planner: &mut Planner, service: &Service, needs: &[Need], count: usize) -> Vec<Place> {
    if count == 0 {
        return Vec::new();
    }
    let mut fleet = planner.take_fleet();
    // Where the number of tasks on a node is limited, each counts until it was told to stop.
    let is_limited = service.spec.max_replicas_per_node() > 0;
    let places = if is_limited || needs.iter().all(|need| matches!(need, Need::New(_))) {
        schedule::place(&mut fleet, &planner.state, service, count)
    } else {
        let (view, events) = without_replaced(planner, service, needs);
        fleet.touch_all(&view, &events);
        let places = schedule::place(&mut fleet, &view, service, count);
        fleet.touch_all(&view, &events);
        places
    };
    planner.fleet = Some(fleet);
    places
}

/// The task that is to stop before the new one runs, and so may stop before it is prepared where there is no room for
/// both.
fn gives_way(planner: &Planner, service: &Service, need: &Need) -> Option<TaskId> {
    let is_due = |start_at: Option<Timestamp>| start_at.is_some_and(|start_at| start_at <= planner.now);
    let (kept, is_due) = match need {
        Need::New(_) => (None, false),
        Need::Replace(replacement) => (replacement.kept, is_due(replacement.start_at)),
        Need::Pending(task, kept) => (*kept, task.desired != DesiredState::Ready || is_due(task.start_at)),
    };
    let is_driven_out =
        |id| planner.state.task(id).is_some_and(|task| is_driven_out(&planner.state, task, planner.now));
    kept.filter(|id| is_due && (rolling::order(service) == UpdateOrder::StopFirst || is_driven_out(*id)))
}

/// What found no node while the task before it runs. Where that one's end would make the room, it stops first, as in
/// Swarm. Elsewhere it runs on, for without it nothing would run; but a drain that no policy holds back empties its
/// node.
fn make_room(planner: &mut Planner, service: &Service, wanted: &Service, stuck: Vec<(Need, Place)>) {
    if stuck.is_empty() {
        return;
    }
    let serves = |(need, _): &(Need, Place)| {
        let kept = gives_way(planner, service, need).and_then(|kept| planner.state.task(kept));
        kept.is_some_and(|task| planner.state.serves(task))
    };
    // What does not serve takes nothing away, and its place may have counted for ended: from now on it is wanted.
    let (serving, others): (Vec<_>, Vec<_>) = stuck.into_iter().partition(serves);
    let mut view = planner.state.clone();
    for stuck in [others, serving].into_iter().filter(|stuck| !stuck.is_empty()) {
        make_room_for(planner, service, wanted, &mut view, stuck);
    }
}

fn make_room_for(
    planner: &mut Planner,
    service: &Service,
    wanted: &Service,
    view: &mut State,
    stuck: Vec<(Need, Place)>,
) {
    let slots = planner.slots(service);
    let mut budget = Budget::of(planner, service);
    for (mut need, place) in stuck {
        let kept = gives_way(planner, service, &need).expect("only such needs come here");
        let leaves = planner.state.task(kept).is_some_and(|task| match service.spec.update_config {
            None => is_leaving(&planner.state, task),
            Some(_) => is_driven_out(&planner.state, task, planner.now),
        });
        let stops = leaves || fits_instead(view, wanted, &need, kept, planner.task_id());
        let slot = planner.state.task(kept).and_then(|task| slots.shown.get(&slots::place_of(service, task)));
        if stops && !slot.is_none_or(|slot| budget.take(&planner.state, slot, |_| true)) {
            continue; // Its end is what the new one needs, and has to wait.
        }
        match &mut need {
            Need::Replace(replacement) if stops => replacement.old.extend(replacement.kept.take()),
            Need::Pending(..) if stops => {
                let op = Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![kept] };
                let tx = budget.guard(&planner.state, service, Tx::new(vec![op]));
                planner.push_for(service, tx);
            }
            _ => {}
        }
        match need {
            Need::Replace(replacement) => replace(planner, service, &budget, replacement, place),
            Need::Pending(task, _) => settle(planner, wanted, &task, place),
            Need::New(_) => {}
        }
    }
}

/// Whether a task of the service would fit where this one is, if that ended. If so the view is afterwards as if it had,
/// so that what is asked next does not count on the same room.
fn fits_instead(view: &mut State, service: &Service, need: &Need, kept: TaskId, id: TaskId) -> bool {
    let Some(node) = view.task(kept).and_then(|task| task.node) else { return false };
    let mut next = view.clone();
    let mut tasks = vec![kept];
    if let Need::Replace(replacement) = need {
        tasks.extend(&replacement.old);
    }
    let status = TaskStatus::new(TaskState::Shutdown, view.time());
    let mut ops =
        vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks }, Op::EndTasks { status, tasks: vec![kept] }];
    apply_tx(&mut next, &Tx::new(ops.clone()), &mut Vec::new()).expect("ending a task cannot fail");
    let place = schedule::place_on(&next, service, node);
    if !matches!(place, Place::On(_)) {
        return false;
    }
    match need {
        Need::Replace(replacement) => {
            let task = NewTask { id, slot: replacement.place.slot(), place, addrs: Arc::default() };
            ops.push(create(service, replacement, DesiredState::Ready, task));
        }
        Need::Pending(task, _) => ops.push(Op::PlaceTask { task: task.id, place, addrs: Arc::default() }),
        Need::New(_) => {}
    }
    apply_tx(view, &Tx::new(ops), &mut Vec::new()).is_ok()
}

/// The state as the scheduler is to see it: what is being replaced no longer counts in the spread. And what is not as
/// it was.
fn without_replaced(planner: &Planner, service: &Service, needs: &[Need]) -> (State, Vec<Event>) {
    let replaced = |need: &Need| {
        let stopped = if let Need::Replace(replacement) = need { replacement.old.clone() } else { Vec::new() };
        stopped.into_iter().chain(gives_way(planner, service, need))
    };
    // What is on a node that takes no tasks counts only for the labels that a service is spread over.
    let is_spread = !schedule::Preferences::of(service).are_flat();
    let counts = |id: &TaskId| {
        let node = planner.state.task(*id).and_then(|task| task.node);
        is_spread || node.and_then(|node| planner.state.loads.get(node)).is_some_and(|load| load.is_ready)
    };
    let tasks: Vec<TaskId> = needs.iter().flat_map(replaced).filter(counts).collect();
    let (mut view, mut events) = (planner.state.clone(), Vec::new());
    if !tasks.is_empty() {
        let tx = Tx::new(vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks }]);
        apply_tx(&mut view, &tx, &mut events).expect("raising a desired state cannot fail");
    }
    (view, events)
}

/// Guards for the nodes that were chosen: none of them has changed since.
fn on_same_nodes<'a>(state: &State, mut tx: Tx, places: impl ExactSizeIterator<Item = &'a Place>) -> Tx {
    let mut nodes: Vec<NodeId> = Vec::with_capacity(places.len());
    nodes.extend(places.filter_map(|place| if let Place::On(node) = place { Some(*node) } else { None }));
    nodes.sort_unstable();
    nodes.dedup();
    let guard = |id: NodeId| Some(Guard::NodeEpoch { node: id, epoch: state.loads.get(id)?.epoch });
    // One more comes, for the service.
    tx.guards.reserve_exact(nodes.len() + 1);
    tx.guards.extend(nodes.into_iter().filter_map(guard));
    tx
}

/// Makes the task that takes over.
fn replace(planner: &mut Planner, service: &Service, budget: &Budget, replacement: Replacement, place: Place) {
    let desired = if replacement.start_at.is_some() { DesiredState::Ready } else { service.goal() };
    let task = new_task(planner, service, replacement.place.slot(), place);
    let mut tx = on_same_nodes(&planner.state, Tx::default(), std::iter::once(&task.place));
    if !replacement.old.is_empty() {
        tx.ops.push(Op::SetDesired { desired: DesiredState::Shutdown, tasks: replacement.old.clone() });
    }
    tx.ops.push(create(service, &replacement, desired, task));
    let tx = budget.guard(&planner.state, service, tx);
    planner.push_for(service, tx);
}

fn create(service: &Service, replacement: &Replacement, desired: DesiredState, task: NewTask) -> Op {
    Op::CreateTasks {
        service: service.id,
        spec_version: service.spec_version,
        desired,
        cause: replacement.cause,
        beside: replacement.kept,
        start_at: replacement.start_at,
        restarts: replacement.restarts,
        tasks: vec![task],
    }
}

fn settle(planner: &mut Planner, wanted: &Service, task: &Task, place: Place) {
    let (place, addrs) = planner.addressed(wanted, place, task.slot);
    let known = |reason: &Arc<str>| task.status.err.as_ref() == Some(reason);
    if matches!(&place, Place::Pending(reason) | Place::PendingOn(_, reason) if known(reason)) {
        return;
    }
    let mut tx = on_same_nodes(&planner.state, Tx::default(), std::iter::once(&place));
    tx.ops.push(Op::PlaceTask { task: task.id, place, addrs });
    planner.push(tx);
}
