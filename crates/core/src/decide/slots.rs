//! The places of a service: numbered slots of a replicated service, nodes of a global one.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use swarm_model::{
    DesiredState, NodeId, Service, ServiceId, ServiceMode, Settings, Task, TaskId, TaskState, UpdateState,
};

use super::{rebalance, restart, rolling, schedule};
use crate::State;

/// Places are looked up one by one if they are at most this part of the tasks; else a walk over all is cheaper.
const UNSETTLED_PART: usize = 4;

/// A place of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A numbered slot, on whatever node.
    Number(u32),
    /// A node.
    Node(NodeId),
}

impl Place {
    /// The number that its tasks carry.
    pub(super) fn slot(self) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::Node(_) => 0,
        }
    }
}

/// The tasks of one place, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(pub(super) Vec<Arc<Task>>);

impl Slot {
    /// Those that are meant to live: one, or an old and a new one in an update that starts first.
    pub(super) fn live(&self) -> impl DoubleEndedIterator<Item = &Arc<Task>> {
        self.0.iter().filter(|task| task.desired.is_live())
    }

    /// Whether it counts: it has a task that is meant to live, its part of a job is done, or its newest task is not to
    /// be restarted.
    pub(super) fn is_taken(&self, service: &Service) -> bool {
        self.live().next().is_some()
            || service.job.is_some() && self.has_completed()
            || self.finished(service).is_some_and(|task| is_let_be(service, task))
    }

    /// Whether one of its tasks has completed, also one that was told to stop a moment before.
    pub(super) fn has_completed(&self) -> bool {
        self.0.iter().any(|t| t.status.state == TaskState::Complete && t.desired != DesiredState::Remove)
    }

    /// The newest task, if it has ended and is not to be restarted.
    pub(super) fn finished(&self, service: &Service) -> Option<&Arc<Task>> {
        let newest = self.0.iter().rfind(|task| task.desired != DesiredState::Remove)?;
        (!newest.desired.is_live() && !restart::allowed(&service.spec, self, newest)).then_some(newest)
    }

    /// Whether its newest task failed, and is not to be restarted.
    pub(super) fn has_given_up(&self, service: &Service) -> bool {
        self.finished(service).is_some_and(|task| task.status.state != TaskState::Shutdown)
    }

    /// Whether its tasks that are meant to live wait for a node, and nothing of an earlier one is left on a node.
    pub(super) fn waits_for_node(&self) -> bool {
        self.live().next().is_some()
            && self.live().all(|task| task.status.state == TaskState::Pending)
            && !self.0.iter().any(|task| task.holds_resources())
    }

    /// Whether all its tasks are to be removed, or it has none.
    pub(super) fn is_going(&self) -> bool {
        self.0.iter().all(|task| task.desired == DesiredState::Remove)
    }

    /// Whether one of its tasks runs and is meant to.
    pub(super) fn runs(&self) -> bool {
        self.live().any(|task| task.status.state == TaskState::Running)
    }
}

/// Whether a task that is not to be restarted is let be. A rollback does not let such a task of its own be: it always
/// converges (swarm-behaviour §4.6), unless it did what it was to do; one from before it replaces in its turn.
pub(super) fn is_let_be(service: &Service, task: &Task) -> bool {
    !service.rolls_back() || task.spec_version != service.spec_version || restart::did_its_part(&service.spec, task)
}

/// The places of a service that a reconciler has to look at.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// All of them, or those that are not settled.
    pub(super) shown: BTreeMap<Place, Slot>,
    /// How many are left out because they are settled: one task each, which runs as it is wanted, where it may. If there
    /// are such, then each number that the service wants has a place, shown or settled, and there is no other.
    pub(super) settled: usize,
}

/// What is on nodes that take no tasks: only there can a task that runs as it is wanted need anything. Made once for all
/// services that a decision looks at, so that what each of them costs follows from its own tasks alone.
#[derive(Debug)]
pub(super) struct Stranded {
    nodes: Vec<NodeId>,
    /// Their tasks by service, once they are asked for. What came there since does not run, so its slot is not settled.
    tasks: OnceCell<Vec<(ServiceId, TaskId)>>,
    /// The slots of the service that was asked for last: a decision asks for each several times in a row.
    last: RefCell<Option<(ServiceId, Rc<[u32]>)>>,
}

impl Stranded {
    pub(super) fn new(state: &State) -> Self {
        Self { nodes: state.loads.not_ready().collect(), tasks: OnceCell::new(), last: RefCell::default() }
    }

    /// The slots of a service that have such tasks.
    pub(super) fn slots_of(&self, state: &State, service: ServiceId) -> Rc<[u32]> {
        let mut last = self.last.borrow_mut();
        if let Some((_, slots)) = last.as_ref().filter(|(of, _)| *of == service) {
            return slots.clone();
        }
        let tasks = self.tasks.get_or_init(|| {
            let mut tasks: Vec<_> = self.nodes.iter().flat_map(|node| state.task_ids_of_node(*node)).collect();
            tasks.sort_unstable();
            tasks
        });
        let from = tasks.partition_point(|(other, _)| *other < service);
        let tasks = tasks[from..].iter().take_while(|(other, _)| *other == service);
        let slots: Rc<[u32]> = tasks.filter_map(|(_, id)| state.slot_of(*id)).collect();
        *last = Some((service, slots.clone()));
        slots
    }
}

impl Slots {
    /// All that there is to look at, so many places of it one by one at most.
    pub(super) fn new(state: &State, service: &Service, stranded: &Stranded, places_max: usize) -> Self {
        unsettled(state, service, stranded, places_max)
            .unwrap_or_else(|| Self { shown: of(state, service), settled: 0 })
    }

    /// These places. What the others are is not told.
    pub(super) fn at(state: &State, service: ServiceId, numbers: &BTreeSet<u32>) -> Self {
        Self { shown: at(state, service, numbers.iter().copied()), settled: 0 }
    }
}

fn at(state: &State, service: ServiceId, numbers: impl Iterator<Item = u32>) -> BTreeMap<Place, Slot> {
    let slot = |number: u32| Slot(state.tasks_of_slot(service, number).cloned().collect());
    numbers.map(|number| (Place::Number(number), slot(number))).collect()
}

/// The places that are not settled, if it is cheap to tell and the others make no difference: no update is under way
/// that looks at all, no limit counts those that run, no delay follows a move.
pub(super) fn unsettled(state: &State, service: &Service, stranded: &Stranded, places_max: usize) -> Option<Slots> {
    let ServiceMode::Replicated { replicas } = service.spec.mode else { return None };
    let rolls = service.update.as_ref().is_some_and(|update| update.state.is_active() || update.state.is_paused());
    let counts_all = rolls
        || rolling::config(service).delay_ns > 0
        || Settings::of(&service.spec.labels).max_unavailable.is_some()
        || rebalance::is_wanted(service);
    let tasks = state.tasks_of_only_spec(service.id, service.spec_version)?;
    let is_complete = state.highest_slot(service.id).is_some_and(|highest| u64::from(highest) == replicas)
        && state.tasks_of_slot(service.id, 0).next().is_none();
    let shown_max = (tasks / UNSETTLED_PART).min(places_max);
    if counts_all || !is_complete || stranded.nodes.len() > shown_max {
        return None;
    }
    let mut numbers: BTreeSet<u32> = state.unsettled_slots(service.id).take(shown_max + 1).collect();
    numbers.extend(stranded.slots_of(state, service.id).iter());
    if numbers.len() > shown_max {
        return None;
    }
    let shown = at(state, service.id, numbers.into_iter());
    // A settled place has just one task.
    let settled = tasks - shown.values().map(|slot| slot.0.len()).sum::<usize>();
    if (settled + shown.len()) as u64 != replicas {
        return None;
    }
    debug_assert!(are_settled(state, service, &shown, settled), "a place of {} was left out", service.id);
    Some(Slots { shown, settled })
}

/// Whether the places that are not shown are so many, and each as [`Slots::settled`] says.
fn are_settled(state: &State, service: &Service, shown: &BTreeMap<Place, Slot>, settled: usize) -> bool {
    let all = of(state, service);
    let mut others = all.iter().filter(|(place, _)| !shown.contains_key(place)).map(|(_, slot)| slot.0.as_slice());
    let is_settled = |tasks: &[Arc<Task>]| {
        let [task] = tasks else { return false };
        let is_ready = task.node.and_then(|node| state.loads.get(node)).is_some_and(|load| load.is_ready);
        is_ready
            && task.desired == DesiredState::Running
            && task.status.state == TaskState::Running
            && task.spec_version == service.spec_version
    };
    all.len() == shown.len() + settled && others.all(is_settled)
}

/// All places of a service that have tasks. Of a job only those of its present execution: earlier ones are history.
pub(super) fn of(state: &State, service: &Service) -> BTreeMap<Place, Slot> {
    group(service, state.tasks_of_service(service.id).filter(|task| task.iteration == service.iteration()))
}

/// The same with the earlier executions of a job.
pub(super) fn with_history(state: &State, service: &Service) -> BTreeMap<Place, Slot> {
    group(service, state.tasks_of_service(service.id))
}

fn group<'a>(service: &Service, tasks: impl Iterator<Item = &'a Arc<Task>>) -> BTreeMap<Place, Slot> {
    if !service.spec.mode.is_global() {
        return each(tasks).collect(); // They come in order, which makes a map fast.
    }
    let mut slots: BTreeMap<Place, Slot> = BTreeMap::new();
    for task in tasks {
        slots.entry(place_of(service, task)).or_default().0.push(task.clone());
    }
    slots
}

/// The places of a replicated service that count: from this slot on, and then those before it.
pub(super) fn taken_from(state: &State, service: &Service, slot: u32) -> impl Iterator<Item = Slot> {
    let tasks = state.tasks_of_slots(service.id, slot..u32::MAX).chain(state.tasks_of_slots(service.id, 0..slot));
    each(tasks).map(|(_, slot)| slot).filter(|slot| slot.is_taken(service))
}

/// The places of a service that is not global, from its tasks, one after the other.
pub(super) fn each<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> impl Iterator<Item = (Place, Slot)> {
    let mut tasks = tasks.peekable();
    std::iter::from_fn(move || {
        let mut slot = Slot(vec![tasks.next()?.clone()]);
        let number = slot.0[0].slot;
        while let Some(task) = tasks.next_if(|task| task.slot == number) {
            slot.0.push(task.clone());
        }
        Some((Place::Number(number), slot))
    })
}

/// The place of a task.
pub(super) fn place_of(service: &Service, task: &Task) -> Place {
    match task.node {
        Some(node) if service.spec.mode.is_global() => Place::Node(node),
        _ => Place::Number(task.slot),
    }
}

/// Whether a task does not run what its service wants now (swarm-behaviour §4.1). Only the task template and the
/// endpoint count; a change of placement alone leaves a task be whose node still fits.
pub(super) fn is_dirty(state: &State, service: &Service, task: &Task) -> bool {
    Kinship::default().is_dirty(state, service, task)
}

/// How the spec versions that tasks of a service have are akin to what it wants now. To compare specs is dear: a look at
/// all places of a service does it once for each version.
#[derive(Debug, Default)]
pub(super) struct Kinship(RefCell<BTreeMap<u64, Kin>>);

#[derive(Clone, Copy, Debug)]
enum Kin {
    Same,
    /// The same, but for the nodes that it may run on.
    Elsewhere,
    Other,
}

impl Kinship {
    /// See [`is_dirty`]; of one state and one service.
    pub(super) fn is_dirty(&self, state: &State, service: &Service, task: &Task) -> bool {
        if task.spec_version == service.spec_version {
            // It was let be where an update said, and that is taken back. What was made since, the enforcer sees to.
            let is_taken_back = service
                .update
                .as_ref()
                .is_some_and(|u| u.state == UpdateState::RollbackStarted && task.created_at < u.started_at);
            return is_taken_back && fits(state, service, task) == Some(false);
        }
        let tasks_of = |version| state.canonical_tasks(service.id, version);
        let compare = || match (tasks_of(task.spec_version), tasks_of(service.spec_version)) {
            (Some(old), Some(new)) if old == new => Kin::Same,
            (Some(old), Some(new)) if old.differ_only_in_placement(new) => Kin::Elsewhere,
            _ => Kin::Other,
        };
        match *self.0.borrow_mut().entry(task.spec_version).or_insert_with(compare) {
            Kin::Same => fits(state, service, task) == Some(false),
            Kin::Elsewhere => fits(state, service, task) != Some(true),
            Kin::Other => true,
        }
    }
}

/// Whether the node of a task, if it has one, meets the constraints of its service.
fn fits(state: &State, service: &Service, task: &Task) -> Option<bool> {
    let node = state.node(task.node?)?;
    Some(schedule::constraints_hold(&service.spec, node))
}
