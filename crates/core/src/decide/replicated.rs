//! Replicated services: so many tasks, no more and no less (swarm-behaviour §3.2).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_model::{DesiredState, NodeId, Service, ServiceId, Task, TaskId, TaskState, Timestamp};

use super::{
    Planner, reap,
    restart::{self, Start, Verdict},
    schedule,
};
use crate::{Guard, NewTask, Op, Place, State, Tx, apply::apply_tx};

/// Tasks made by one transaction: one node that changed lets so many fall.
const CREATE_BATCH_MAX: usize = 256;

type Slots = BTreeMap<u32, Vec<Arc<Task>>>;

/// Looks at one service.
pub(super) fn reconcile(planner: &mut Planner, service: &Service, replicas: u64) {
    let tasks: Vec<Arc<Task>> = planner.state.tasks_of_service(service.id).cloned().collect();
    reap::orphans(planner, service.id, &tasks);
    scale_down(planner, service, replicas);
    fill(planner, service, replicas);
    promote(planner, service.id);
    let gone: Vec<TaskId> =
        slots(&planner.state, service.id).values().flat_map(|slot| reap::slot(planner, service, slot)).collect();
    if !gone.is_empty() {
        planner.push(Tx::new(vec![Op::DeleteTasks { tasks: gone }]));
    }
}

fn slots(state: &State, service: ServiceId) -> Slots {
    let mut slots = Slots::new();
    for task in state.tasks_of_service(service) {
        slots.entry(task.slot).or_default().push(task.clone());
    }
    slots
}

/// Whether a slot counts: it has a task that is meant to live, or its newest one is not to be restarted.
fn is_taken(service: &Service, slot: &[Arc<Task>]) -> bool {
    slot.iter().any(|task| task.desired.is_live())
        || slot
            .iter()
            .rfind(|task| task.desired != DesiredState::Remove)
            .is_some_and(|newest| !restart::allowed(&service.spec, slot, newest))
}

/// Takes away the slots that are too many, those first that matter least.
fn scale_down(planner: &mut Planner, service: &Service, replicas: u64) {
    let mut taken: Slots = slots(&planner.state, service.id);
    taken.retain(|_, slot| is_taken(service, slot));
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    if taken.len() <= replicas {
        return;
    }
    let surplus = keep_order(&taken).split_off(replicas);
    let tasks = surplus.iter().flat_map(|slot| &taken[slot]).map(|task| task.id).collect();
    let tx = Tx::new(vec![Op::SetDesired { desired: DesiredState::Remove, tasks }]);
    planner.push(tx.guard(Guard::Service { service: service.id, version: service.version }));
}

/// The slots in the order in which they are kept (swarm-behaviour §3.2): running ones first; then so that what goes
/// first are slots without a node of their own and those on the nodes that hold most of this service.
fn keep_order(slots: &Slots) -> Vec<u32> {
    let live =
        |slot: &[Arc<Task>]| -> Vec<Arc<Task>> { slot.iter().filter(|task| task.desired.is_live()).cloned().collect() };
    let runs = |slot: &[Arc<Task>]| slot.iter().any(|t| t.desired.is_live() && t.status.state == TaskState::Running);
    let mut order: Vec<u32> = slots.keys().copied().collect();
    order.sort_by_key(|slot| (!runs(&slots[slot]), *slot));
    let mut seen: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut rank: BTreeMap<u32, u32> = BTreeMap::new();
    for slot in &order {
        let ordinal = match live(&slots[slot]).as_slice() {
            [task] => task.node.map(|node| {
                let count = seen.entry(node).or_insert(0);
                *count += 1;
                *count
            }),
            _ => None,
        };
        rank.insert(*slot, ordinal.unwrap_or(u32::MAX));
    }
    order.sort_by_key(|slot| rank[slot]);
    order
}

/// A task that needs a node.
enum Need {
    /// A slot that has none.
    New { slot: u32 },
    /// A task that cannot go on.
    Replace { old: Arc<Task>, start_at: Option<Timestamp> },
    /// A task that waits for a node.
    Pending(Arc<Task>),
}

/// Replaces what cannot go on, fills the slots that are missing, and places what waits: all in one go, so that the
/// scheduler sees them together.
fn fill(planner: &mut Planner, service: &Service, replicas: u64) {
    let slots = slots(&planner.state, service.id);
    let mut needs: Vec<Need> = Vec::new();
    let mut leave: Vec<TaskId> = Vec::new();
    for slot in slots.values() {
        for task in slot.iter().filter(|task| task.desired.is_live()) {
            match restart::judge(&planner.state, &service.spec, slot, task, planner.now) {
                Verdict::Fine if task.status.state == TaskState::Pending => needs.push(Need::Pending(task.clone())),
                Verdict::Fine => {}
                Verdict::Later(at) => planner.wake(service.id, at),
                Verdict::Leave => leave.push(task.id),
                Verdict::Replace { start_at } => needs.push(Need::Replace { old: task.clone(), start_at }),
            }
        }
    }
    if !leave.is_empty() {
        planner.push(Tx::new(vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks: leave }]));
    }
    let taken = slots.iter().filter(|(_, slot)| is_taken(service, slot)).count();
    let missing = usize::try_from(replicas).unwrap_or(usize::MAX).saturating_sub(taken);
    let free = (1..=u32::MAX).filter(|slot| slots.get(slot).is_none_or(|tasks| !is_taken(service, tasks)));
    needs.extend(free.take(missing).map(|slot| Need::New { slot }));
    if needs.is_empty() {
        return;
    }

    let places = schedule::place(&without_replaced(&planner.state, &needs), service, needs.len());
    let mut new = Vec::new();
    for (need, place) in needs.into_iter().zip(places) {
        match need {
            Need::New { slot } => new.push(NewTask { id: planner.task_id(), slot, place }),
            Need::Replace { old, start_at } => replace(planner, service, &old, start_at, place),
            Need::Pending(task) => settle(planner, &task, place),
        }
    }
    for batch in new.chunks(CREATE_BATCH_MAX) {
        create(planner, service, batch.to_vec());
    }
}

/// The state as the scheduler is to see it: what is being replaced no longer counts in the spread.
fn without_replaced(state: &State, needs: &[Need]) -> State {
    let replaced = |need: &Need| match need {
        Need::Replace { old, .. } => Some(old.id),
        Need::New { .. } | Need::Pending(_) => None,
    };
    let tasks = needs.iter().filter_map(replaced).collect();
    let mut scratch = state.clone();
    let tx = Tx::new(vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks }]);
    apply_tx(&mut scratch, &tx, &mut Vec::new()).expect("raising a desired state cannot fail");
    scratch
}

/// Guards for the nodes that were chosen: none of them has changed since.
fn on_same_nodes<'a>(state: &State, mut tx: Tx, places: impl Iterator<Item = &'a Place>) -> Tx {
    let nodes: BTreeSet<NodeId> =
        places.filter_map(|place| if let Place::On(node) = place { Some(*node) } else { None }).collect();
    for node in nodes.into_iter().filter_map(|id| state.node(id)) {
        tx = tx.guard(Guard::NodeEpoch { node: node.id, epoch: node.epoch });
    }
    tx
}

fn create(planner: &mut Planner, service: &Service, tasks: Vec<NewTask>) {
    let tx = Tx::default().guard(Guard::Service { service: service.id, version: service.version });
    let mut tx = on_same_nodes(&planner.state, tx, tasks.iter().map(|task| &task.place));
    tx.ops.push(Op::CreateTasks {
        service: service.id,
        spec_version: service.spec_version,
        desired: DesiredState::Running,
        start_at: None,
        tasks,
    });
    planner.push(tx);
}

fn replace(planner: &mut Planner, service: &Service, old: &Task, start_at: Option<Timestamp>, place: Place) {
    // A replacement that has to wait is prepared meanwhile.
    let desired = if start_at.is_some() { DesiredState::Ready } else { DesiredState::Running };
    let mut tx = on_same_nodes(&planner.state, Tx::default(), std::iter::once(&place));
    let task = NewTask { id: planner.task_id(), slot: old.slot, place };
    tx.ops = vec![
        Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![old.id] },
        Op::CreateTasks {
            service: service.id,
            spec_version: service.spec_version,
            desired,
            start_at,
            tasks: vec![task],
        },
    ];
    planner.push(tx);
}

fn settle(planner: &mut Planner, task: &Task, place: Place) {
    if matches!(&place, Place::Pending(reason) if task.status.err.as_ref() == Some(reason)) {
        return;
    }
    let mut tx = on_same_nodes(&planner.state, Tx::default(), std::iter::once(&place));
    tx.ops.push(Op::PlaceTask { task: task.id, place });
    planner.push(tx);
}

/// Lets prepared tasks run whose time has come.
fn promote(planner: &mut Planner, id: ServiceId) {
    let mut due = Vec::new();
    for slot in slots(&planner.state, id).values() {
        for task in slot.iter().filter(|t| t.desired == DesiredState::Ready && !t.status.state.is_terminal()) {
            match restart::start(&planner.state, slot, task, planner.now) {
                Start::Now => due.push(task.id),
                Start::At(at) => planner.wake(id, at),
            }
        }
    }
    if !due.is_empty() {
        planner.push(Tx::new(vec![Op::SetDesired { desired: DesiredState::Running, tasks: due }]));
    }
}
