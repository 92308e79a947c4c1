//! The state: an immutable value, one per log index.

mod by_node;
mod load;
mod objects;
mod rows;
mod snapshot;
mod specs;
mod table;
mod tasks;

use std::{
    num::NonZeroU128,
    ops::{Bound, Range, RangeInclusive},
    sync::Arc,
};

use by_node::ByNode;
use imbl::OrdMap;
use objects::Objects;
use swarm_model::{Cluster, Node, NodeId, Service, ServiceId, Task, TaskId, Timestamp};

pub use load::NodeLoad;
pub(crate) use load::{host_ports, is_active, offered, reserved};
pub(crate) use rows::NOT_READY;
use rows::Rows;
pub use snapshot::Object;
use specs::Specs;
use table::{Table, Value};

use crate::{FEATURE_LEVEL_MIN, addresses::Addresses, attachments::Attachments, ports::PortIndex};

/// The message in the status of a node that left by itself.
pub const NODE_LEFT: &str = "the node left the swarm";

/// Everything that the managers agree on. A clone costs nothing; only [`apply`](crate::apply) changes it.
///
/// The objects are the first group of fields; the rest are indexes, which follow from the objects and are not part
/// of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) revision: u64,
    pub(crate) time: Timestamp,
    /// Zero until it was raised for the first time.
    pub(crate) feature_level: u16,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(crate) services: OrdMap<ServiceId, Arc<Service>>,
    objects: Objects,
    /// Containers that are no tasks, in networks.
    pub(crate) attachments: Attachments,
    specs: Specs,
    /// By service, slot and id: a look at a service walks along its tasks.
    tasks: Table<TaskKey, Seat>,

    /// Service names in lower case.
    pub(crate) service_names: OrdMap<String, ServiceId>,
    /// The services that publish a port.
    pub(crate) ports: PortIndex,
    /// Addresses in networks: those that somebody has, and, as a part of a snapshot, which were given last and given back.
    pub(crate) addresses: Addresses,
    /// How many tasks refer to a spec version.
    spec_refs: Table<(ServiceId, u64), usize>,
    /// Where a task is in `tasks`.
    task_keys: Table<TaskId, (ServiceId, u32)>,
    by_node: ByNode,
    /// Tasks that wait for a node and are meant to live.
    pending: Table<(ServiceId, TaskId), ()>,
    /// Tasks that failed or were rejected.
    failed: Table<(ServiceId, TaskId), ()>,
    /// Slots that have anything but one task which runs and is meant to.
    /// A bit each, [`SLOTS_OF_ROW`] side by side: every new task sets one, and unsets it when it runs.
    unsettled: Table<(ServiceId, u32), u64>,
    /// A row for each node.
    pub(crate) loads: Rows,
}

/// Slots whose bits stand in one row of an index.
const SLOTS_OF_ROW: u32 = u64::BITS;

/// Service, slot, id.
type TaskKey = (ServiceId, u32, TaskId);

/// A task in the table.
#[derive(Clone, Debug)]
struct Seat {
    task: Arc<Task>,
    /// The node on which it is active, if it is: a walk that counts the tasks of a service need not look at each.
    /// No id is zero, it has the time of its making.
    active_on: Option<NonZeroU128>,
}

impl Value for Seat {
    fn touch(&self) -> usize {
        self.task.touch()
    }
}

impl Seat {
    fn new(task: Arc<Task>) -> Self {
        let node = task.node.filter(|_| is_active(&task));
        Self { active_on: node.and_then(|node| NonZeroU128::new(node.0)), task }
    }
}

impl State {
    /// Log index of the last entry that was applied; 0 for the empty state.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Cluster time: the latest time of all entries.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The newest version that entries may have: all managers know it.
    pub fn feature_level(&self) -> u16 {
        self.feature_level.max(FEATURE_LEVEL_MIN)
    }

    /// The cluster object; none before `swarm init`.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// All nodes, in order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// What a node can take, and what its tasks hold of it.
    pub fn load(&self, node: NodeId) -> NodeLoad {
        self.loads.get(node).cloned().unwrap_or_default()
    }

    /// All services, in order of their ids.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// A service.
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// A service by its name, without regard to case.
    pub fn service_by_name(&self, name: &str) -> Option<&Arc<Service>> {
        self.service_names.get(&name.to_lowercase()).and_then(|id| self.services.get(id))
    }

    /// All tasks, in order of their ids: the oldest first.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.task_keys.iter().map(|(id, _)| self.indexed(*id))
    }

    /// A task.
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        let (service, slot) = *self.task_keys.get(&id)?;
        self.tasks.get(&(service, slot, id)).map(|seat| &seat.task)
    }

    /// The slot of a task.
    pub(crate) fn slot_of(&self, id: TaskId) -> Option<u32> {
        self.task_keys.get(&id).map(|(_, slot)| *slot)
    }

    /// The highest slot of a service that has a task.
    pub(crate) fn highest_slot(&self, service: ServiceId) -> Option<u32> {
        let ((found, slot, _), _) = self.tasks.last_to(&(service, u32::MAX, TaskId(u128::MAX)))?;
        (*found == service).then_some(*slot)
    }

    /// The id of the newest task.
    pub(crate) fn newest_task(&self) -> Option<TaskId> {
        self.task_keys.last().map(|(id, _)| *id)
    }

    /// The tasks of a service by slot, within a slot the oldest first; also those that are left of a removed service.
    pub fn tasks_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.seats_of_service(service).map(|seat| &seat.task)
    }

    /// The nodes of the active tasks of a service, in the order of the tasks.
    pub(crate) fn active_nodes_of_service(&self, service: ServiceId) -> impl Iterator<Item = NodeId> + '_ {
        self.seats_of_service(service).filter_map(|seat| seat.active_on).map(|node| NodeId(node.get()))
    }

    /// The slots of the tasks of a service, in order.
    pub(crate) fn task_slots_of_service(&self, service: ServiceId) -> impl Iterator<Item = u32> + '_ {
        self.tasks.range(keys_of_service(service)).map(|((_, slot, _), _)| *slot)
    }

    /// The slots of a service that have tasks, in order; with its node where a slot has just one task, which runs and is
    /// meant to: then the task itself need not be looked at.
    pub(crate) fn slots_of_service(&self, service: ServiceId) -> impl Iterator<Item = (u32, Option<NodeId>)> + '_ {
        let mut unsettled = self.unsettled_slots(service).peekable();
        let mut last = None;
        self.tasks.range(keys_of_service(service)).filter_map(move |((_, slot, _), seat)| {
            if last.replace(*slot) == Some(*slot) {
                return None;
            }
            while unsettled.next_if(|other| other < slot).is_some() {}
            let is_settled = unsettled.peek() != Some(slot);
            Some((*slot, seat.active_on.filter(|_| is_settled).map(|node| NodeId(node.get()))))
        })
    }

    fn seats_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Seat> {
        self.tasks.range(keys_of_service(service)).map(|(_, seat)| seat)
    }

    /// The tasks of some slots of a service, as [`State::tasks_of_service`].
    pub(crate) fn tasks_of_slots(&self, service: ServiceId, slots: Range<u32>) -> impl Iterator<Item = &Arc<Task>> {
        let range = (service, slots.start, TaskId(0))..(service, slots.end, TaskId(0));
        self.tasks.range(range).map(|(_, seat)| &seat.task)
    }

    /// The tasks of one slot, the oldest first.
    pub fn tasks_of_slot(&self, service: ServiceId, slot: u32) -> impl Iterator<Item = &Arc<Task>> {
        let range = (service, slot, TaskId(0))..=(service, slot, TaskId(u128::MAX));
        self.tasks.range(range).map(|(_, seat)| &seat.task)
    }

    /// The tasks that a node was given, the oldest first.
    pub fn tasks_of_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.by_node.of(node).map(|(id, _)| self.indexed(id))
    }

    /// The ids of the tasks that a node was given, with their services.
    pub(crate) fn task_ids_of_node(&self, node: NodeId) -> impl Iterator<Item = (ServiceId, TaskId)> + '_ {
        self.by_node.of(node).map(|(id, service)| (service, id))
    }

    /// The tasks of a service that a node was given, the oldest first.
    pub(crate) fn tasks_of_service_on(&self, service: ServiceId, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.by_node.of(node).filter(move |(_, of)| *of == service).map(|(id, _)| self.indexed(id))
    }

    /// How many tasks a service has, if they are all of this spec version.
    pub(crate) fn tasks_of_only_spec(&self, service: ServiceId, version: u64) -> Option<usize> {
        let mut counts = self.spec_refs.range((service, 0)..=(service, u64::MAX));
        match (counts.next(), counts.next()) {
            (Some(((_, found), count)), None) if *found == version => Some(*count),
            _ => None,
        }
    }

    /// The slots of a service that have anything but one task which runs and is meant to.
    pub(crate) fn unsettled_slots(&self, service: ServiceId) -> impl Iterator<Item = u32> + '_ {
        let rows = self.unsettled.range((service, 0)..=(service, u32::MAX));
        rows.flat_map(|((_, row), bits)| {
            let (row, bits) = (*row, *bits);
            (0..SLOTS_OF_ROW).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| row * SLOTS_OF_ROW + bit)
        })
    }

    /// The tasks of a service that wait for a node, the oldest first.
    pub fn pending_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.pending.range((service, TaskId(0))..=(service, TaskId(u128::MAX))).map(|((_, id), ())| self.indexed(*id))
    }

    /// The tasks of a service that failed or were rejected, the oldest first.
    pub(crate) fn failed_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.failed.range((service, TaskId(0))..=(service, TaskId(u128::MAX))).map(|((_, id), ())| self.indexed(*id))
    }

    /// The services that have tasks waiting for a node.
    pub fn services_with_pending(&self) -> impl Iterator<Item = ServiceId> + '_ {
        let next = |from| self.pending.range((from, Bound::Unbounded)).next().map(|(key, ())| *key);
        distinct(next, |(service, _)| (*service, TaskId(u128::MAX))).map(|(service, _)| service)
    }

    /// The services that tasks refer to, those that were removed included.
    pub fn services_with_tasks(&self) -> impl Iterator<Item = ServiceId> + '_ {
        let next = |from| self.tasks.range((from, Bound::Unbounded)).next().map(|(key, _)| *key);
        distinct(next, |(service, ..)| (*service, u32::MAX, TaskId(u128::MAX))).map(|(service, ..)| service)
    }

    fn indexed(&self, id: TaskId) -> &Arc<Task> {
        self.task(id).expect("an index names only tasks that exist")
    }
}

fn keys_of_service(service: ServiceId) -> RangeInclusive<TaskKey> {
    (service, 0, TaskId(0))..=(service, u32::MAX, TaskId(u128::MAX))
}

/// The first key of each group: after one, the search goes on behind the last key that its group can have.
fn distinct<K: Ord + Copy>(
    next: impl Fn(Bound<K>) -> Option<K>,
    last_of_group: impl Fn(&K) -> K,
) -> impl Iterator<Item = K> {
    let mut from = Bound::Unbounded;
    std::iter::from_fn(move || {
        let found = next(from)?;
        from = Bound::Excluded(last_of_group(&found));
        Some(found)
    })
}
