//! What a node can take, and what its tasks hold of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_model::{
    Availability, GenericResource, Node, NodeState, PortProtocol, PublishMode, ResourceReservations, ServiceSpec, Task,
};

/// What one node can take, and what its tasks hold of it (swarm-behaviour §5.1): resources and ports from assignment
/// to the end of the container, a place in the spread only while the task is meant to live.
///
/// Small and flat: a change copies a row of neighbours, and the scheduler reads one for each task that it places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// The node's epoch.
    pub(crate) epoch: u64,
    /// Whether the node takes new tasks: ready, its engine answers, available.
    pub(crate) is_ready: bool,
    /// Billionths of a CPU that it has.
    pub(crate) capacity_nano_cpus: i64,
    /// Bytes of memory that it has.
    pub(crate) capacity_memory_bytes: i64,
    /// Reserved billionths of a CPU.
    pub nano_cpus: i64,
    /// Reserved bytes of memory.
    pub memory_bytes: i64,
    /// Tasks that are meant to live and have not ended.
    pub active: u32,
    /// What few tasks hold.
    pieces: Option<Arc<Pieces>>,
}

/// Ports and generic resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pieces {
    /// Published host-mode ports, with how many tasks hold each: one, but for an old and a new task that overlap.
    ports: BTreeMap<(PortProtocol, u16), u32>,
    /// Counted generic resources by kind.
    counts: BTreeMap<String, i64>,
    /// Named ones, by kind and name.
    named: BTreeSet<(String, String)>,
}

/// Whether a task counts in the spread and for the limit of tasks per node.
pub(crate) fn is_active(task: &Task) -> bool {
    task.is_live()
}

/// The fixed host-mode ports that a task of this spec opens.
pub(crate) fn host_ports(spec: &ServiceSpec) -> impl Iterator<Item = (PortProtocol, u16)> + '_ {
    spec.ports()
        .iter()
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}

/// What a task of this spec reserves; none if that is nothing.
pub(crate) fn reserved(spec: &ServiceSpec) -> Option<&ResourceReservations> {
    spec.task_template.resources.as_ref().and_then(|resources| resources.reservations.as_ref())
}

/// The generic resources that a node has.
pub(crate) fn offered(node: &Node) -> &[GenericResource] {
    node.description.as_ref().map_or(&[], |d| &d.resources.generic_resources)
}

impl NodeLoad {
    /// Whether so many of what a task reserves fit beside what is held. `offered` is what the node has of generic
    /// resources.
    pub(crate) fn has_room(&self, offered: &[GenericResource], asked: &ResourceReservations, times: u32) -> bool {
        let fits = |held: i64, asked: i64, capacity: i64| {
            asked == 0 || held.saturating_add(asked.saturating_mul(i64::from(times))) <= capacity
        };
        fits(self.nano_cpus, asked.nano_cpus, self.capacity_nano_cpus)
            && fits(self.memory_bytes, asked.memory_bytes, self.capacity_memory_bytes)
            && (asked.generic_resources.is_empty()
                || asked_by_kind(&asked.generic_resources)
                    .into_iter()
                    .all(|(kind, count)| count.saturating_mul(i64::from(times)) <= self.free_of(offered, kind)))
    }

    /// How much of a kind of generic resource is not held.
    fn free_of(&self, offered: &[GenericResource], wanted: &str) -> i64 {
        let free = |resource: &GenericResource| match resource {
            GenericResource::Discrete { kind, value } if kind == wanted => *value,
            GenericResource::Named { kind, value } if kind == wanted && !self.holds_named(kind, value) => 1,
            GenericResource::Discrete { .. } | GenericResource::Named { .. } => 0,
        };
        let held = self.pieces.as_ref().and_then(|pieces| pieces.counts.get(wanted)).copied().unwrap_or(0);
        offered.iter().map(free).sum::<i64>() - held
    }

    fn holds_named(&self, kind: &str, value: &str) -> bool {
        let key = || (kind.to_owned(), value.to_owned());
        self.pieces.as_ref().is_some_and(|pieces| !pieces.named.is_empty() && pieces.named.contains(&key()))
    }

    /// The pieces that a task gets for what it reserves of generic resources: the first free names, or a count
    /// (swarm-behaviour §5.7). [`NodeLoad::has_room`] was asked before.
    pub(crate) fn choose(&self, offered: &[GenericResource], asked: &[GenericResource]) -> Vec<GenericResource> {
        let mut chosen = Vec::new();
        for (wanted, count) in asked_by_kind(asked) {
            let free_names = offered.iter().filter(|resource| match resource {
                GenericResource::Named { kind, value } => kind == wanted && !self.holds_named(kind, value),
                GenericResource::Discrete { .. } => false,
            });
            let known = chosen.len();
            chosen.extend(free_names.take(usize::try_from(count).unwrap_or(0)).cloned());
            if chosen.len() == known && count > 0 {
                chosen.push(GenericResource::Discrete { kind: wanted.to_owned(), value: count });
            }
        }
        chosen
    }

    /// Whether a task holds of something of which more is held than the node has: the node shrank.
    pub(crate) fn is_overdrawn_by(&self, task: &Task, spec: &ServiceSpec, offered: &[GenericResource]) -> bool {
        let nothing = ResourceReservations::default();
        let asked = reserved(spec).unwrap_or(&nothing);
        let count_of = |wanted: &str| -> i64 {
            let count = |resource: &GenericResource| match resource {
                GenericResource::Discrete { kind, value } if kind == wanted => *value,
                GenericResource::Discrete { .. } | GenericResource::Named { .. } => 0,
            };
            offered.iter().map(count).sum()
        };
        let is_short = |resource: &GenericResource| match resource {
            GenericResource::Discrete { kind, .. } => {
                let held = self.pieces.as_ref().and_then(|pieces| pieces.counts.get(kind)).copied().unwrap_or(0);
                held > count_of(kind)
            }
            GenericResource::Named { .. } => !offered.contains(resource),
        };
        (asked.nano_cpus > 0 && self.nano_cpus > self.capacity_nano_cpus)
            || (asked.memory_bytes > 0 && self.memory_bytes > self.capacity_memory_bytes)
            || task.generic_resources.iter().any(is_short)
    }

    /// The host-mode ports that are held, with how many tasks hold each.
    pub fn ports(&self) -> impl Iterator<Item = (PortProtocol, u16, u32)> + '_ {
        self.pieces.iter().flat_map(|pieces| pieces.ports.iter().map(|((protocol, port), n)| (*protocol, *port, *n)))
    }

    /// Whether none of these ports is held.
    pub(crate) fn ports_free(&self, mut ports: impl Iterator<Item = (PortProtocol, u16)>) -> bool {
        self.pieces.as_ref().is_none_or(|pieces| ports.all(|port| !pieces.ports.contains_key(&port)))
    }

    /// The larger of the reserved shares of CPU and memory, in millionths: how full the node is.
    pub(crate) fn reserved_share_ppm(&self, extra: &ResourceReservations, times: u32) -> u64 {
        let share = |held: i64, extra: i64, capacity: i64| {
            let held = i128::from(held) + i128::from(extra) * i128::from(times);
            if capacity <= 0 { 0 } else { u64::try_from(held * 1_000_000 / i128::from(capacity)).unwrap_or(0) }
        };
        share(self.nano_cpus, extra.nano_cpus, self.capacity_nano_cpus).max(share(
            self.memory_bytes,
            extra.memory_bytes,
            self.capacity_memory_bytes,
        ))
    }

    /// Takes over what the node itself says: whether it takes tasks, and what it has.
    pub(super) fn follow(&mut self, node: &Node) {
        let description = node.description.as_ref();
        self.epoch = node.epoch;
        self.is_ready = description.is_some()
            && node.status.state == NodeState::Ready
            && node.status.engine_reachable
            && node.spec.availability == Availability::Active;
        self.capacity_nano_cpus = description.map_or(0, |d| d.resources.nano_cpus);
        self.capacity_memory_bytes = description.map_or(0, |d| d.resources.memory_bytes);
    }

    /// Adds what a task of this spec holds.
    pub(crate) fn add(&mut self, task: &Task, spec: &ServiceSpec) {
        if is_active(task) {
            self.active += 1;
        }
        if task.holds_resources() {
            self.reserve(task, spec, 1);
        }
    }

    /// Takes back what [`NodeLoad::add`] added for the same task.
    pub(crate) fn remove(&mut self, task: &Task, spec: &ServiceSpec) {
        if is_active(task) {
            self.active -= 1;
        }
        if task.holds_resources() {
            self.reserve(task, spec, -1);
        }
    }

    fn reserve(&mut self, task: &Task, spec: &ServiceSpec, sign: i64) {
        if let Some(asked) = reserved(spec) {
            self.nano_cpus += sign * asked.nano_cpus;
            self.memory_bytes += sign * asked.memory_bytes;
        }
        if host_ports(spec).next().is_none() && task.generic_resources.is_empty() {
            return;
        }
        let pieces = Arc::make_mut(self.pieces.get_or_insert_default());
        for port in host_ports(spec) {
            let count = pieces.ports.entry(port).or_insert(0);
            *count = count.checked_add_signed(sign as i32).expect("what was added is taken back once");
            if *count == 0 {
                pieces.ports.remove(&port);
            }
        }
        for resource in task.generic_resources.iter() {
            match resource {
                GenericResource::Discrete { kind, value } => {
                    let held = pieces.counts.entry(kind.clone()).or_insert(0);
                    *held += sign * value;
                    if *held == 0 {
                        pieces.counts.remove(kind);
                    }
                }
                GenericResource::Named { kind, value } if sign > 0 => {
                    pieces.named.insert((kind.clone(), value.clone()));
                }
                GenericResource::Named { kind, value } => {
                    pieces.named.remove(&(kind.clone(), value.clone()));
                }
            }
        }
        if *pieces == Pieces::default() {
            self.pieces = None;
        }
    }
}

/// How much is asked of each kind; a name in a reservation counts one.
fn asked_by_kind(asked: &[GenericResource]) -> BTreeMap<&str, i64> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for resource in asked {
        let (kind, value) = match resource {
            GenericResource::Discrete { kind, value } => (kind, *value),
            GenericResource::Named { kind, .. } => (kind, 1),
        };
        let count = counts.entry(kind).or_default();
        *count = count.saturating_add(value);
    }
    counts
}
