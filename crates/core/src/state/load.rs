//! What the tasks of a node hold of it.

use std::collections::BTreeMap;

use imbl::OrdMap;
use swarm_model::{
    GenericResource, NodeResources, PortProtocol, PublishMode, ResourceReservations, ServiceId, ServiceSpec, Task,
};

/// What the tasks of one node hold of it (swarm-behaviour §5.1): resources and ports from assignment to the end of
/// the container, a place in the spread only while the task is meant to live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Reserved billionths of a CPU.
    pub nano_cpus: i64,
    /// Reserved bytes of memory.
    pub memory_bytes: i64,
    /// Reserved counts of generic resources by kind.
    pub generic: OrdMap<String, i64>,
    /// Published host-mode ports, with how many tasks hold each: one, but for an old and a new task that overlap.
    pub ports: OrdMap<(PortProtocol, u16), u32>,
    /// Tasks that are meant to live and have not ended.
    pub active: u32,
    /// The same by service.
    pub active_by_service: OrdMap<ServiceId, u32>,
}

/// The counted part of reservations or capacities, by kind. Named pieces count one each.
pub(crate) fn generic_counts(resources: &[GenericResource]) -> BTreeMap<&str, i64> {
    let mut counts = BTreeMap::new();
    for resource in resources {
        match resource {
            GenericResource::Discrete { kind, value } => *counts.entry(kind.as_str()).or_default() += value,
            GenericResource::Named { kind, .. } => *counts.entry(kind.as_str()).or_default() += 1,
        }
    }
    counts
}

/// The fixed host-mode ports that a task of this spec opens.
pub(crate) fn host_ports(spec: &ServiceSpec) -> impl Iterator<Item = (PortProtocol, u16)> + '_ {
    spec.ports()
        .iter()
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}

impl NodeLoad {
    /// Whether the reservations fit beside what is held.
    pub fn has_room(&self, capacity: &NodeResources, asked: &ResourceReservations) -> bool {
        let available = generic_counts(&capacity.generic_resources);
        (asked.nano_cpus == 0 || self.nano_cpus.saturating_add(asked.nano_cpus) <= capacity.nano_cpus)
            && (asked.memory_bytes == 0
                || self.memory_bytes.saturating_add(asked.memory_bytes) <= capacity.memory_bytes)
            && generic_counts(&asked.generic_resources).into_iter().all(|(kind, count)| {
                let held = self.generic.get(kind).copied().unwrap_or(0);
                held.saturating_add(count) <= available.get(kind).copied().unwrap_or(0)
            })
    }

    /// Whether more is held than the node has: it shrank.
    pub fn exceeds(&self, capacity: &NodeResources) -> bool {
        let available = generic_counts(&capacity.generic_resources);
        (self.nano_cpus > 0 && self.nano_cpus > capacity.nano_cpus)
            || (self.memory_bytes > 0 && self.memory_bytes > capacity.memory_bytes)
            || self.generic.iter().any(|(kind, held)| *held > available.get(kind.as_str()).copied().unwrap_or(0))
    }

    /// Whether none of these ports is held.
    pub fn ports_free(&self, mut ports: impl Iterator<Item = (PortProtocol, u16)>) -> bool {
        ports.all(|port| !self.ports.contains_key(&port))
    }

    /// Tasks of a service that are meant to live.
    pub fn active_of(&self, service: ServiceId) -> u32 {
        self.active_by_service.get(&service).copied().unwrap_or(0)
    }

    /// Adds what a task of this spec holds.
    pub(crate) fn add(&mut self, task: &Task, spec: &ServiceSpec) {
        if task.is_live() {
            self.active += 1;
            *self.active_by_service.entry(task.service).or_insert(0) += 1;
        }
        if task.holds_resources() {
            self.reserve(&spec.task_template.reservations(), 1);
            for port in host_ports(spec) {
                *self.ports.entry(port).or_insert(0) += 1;
            }
        }
    }

    /// Takes back what [`NodeLoad::add`] added for the same task.
    pub(crate) fn remove(&mut self, task: &Task, spec: &ServiceSpec) {
        if task.is_live() {
            self.active -= 1;
            decrement(&mut self.active_by_service, task.service);
        }
        if task.holds_resources() {
            self.reserve(&spec.task_template.reservations(), -1);
            for port in host_ports(spec) {
                decrement(&mut self.ports, port);
            }
        }
    }

    fn reserve(&mut self, asked: &ResourceReservations, sign: i64) {
        self.nano_cpus += sign * asked.nano_cpus;
        self.memory_bytes += sign * asked.memory_bytes;
        for (kind, count) in generic_counts(&asked.generic_resources) {
            let held = self.generic.entry(kind.to_owned()).or_insert(0);
            *held += sign * count;
            if *held == 0 {
                self.generic.remove(kind);
            }
        }
    }
}

fn decrement<K: Ord + Clone>(counts: &mut OrdMap<K, u32>, key: K) {
    let count = counts.get_mut(&key).expect("what was added is taken back once");
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
    }
}
