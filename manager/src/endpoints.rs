//! The endpoint table as the state has it: who serves the published ports ([`swarm_wire::endpoints`]).
//!
//! A record follows from the state alone. After an entry only the records are made anew that its events name. So a change
//! costs what it is, on each manager, and a new leader has the table of the one before.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use swarm_core::{Event, State};
use swarm_model::{NodeId, NodeState, PublishMode, ServiceId, Settings, Task, TaskId, TaskState, mutant::mutant};
use swarm_wire::{
    agent::Shared,
    endpoints::{
        EndpointRecord, EndpointState, NodeRecord, Record, RecordHash, RecordKey, ServiceRecord, TableChange,
        TableUpdate, TableVersion, batches,
    },
};

/// Changed records that are remembered. A node that was away for longer gets the whole table: beside so many changes it
/// is not much larger.
const CHANGES_MAX: usize = 16_384;

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    records: BTreeMap<RecordKey, Shared<Record>>,
    version: TableVersion,
    /// The earlier versions of the table, the oldest first, each with the records that the next change made anew.
    changes: VecDeque<(TableVersion, Vec<RecordKey>)>,
    /// Number of the records that `changes` names.
    changed: usize,
    /// The tasks that got connections before and get none now: the revision without them. Until they have ended.
    left: BTreeMap<TaskId, u64>,
}

impl Endpoints {
    /// The table of a state.
    pub fn of(state: &State) -> Self {
        let mut table = Self::default();
        let nodes = state.nodes().map(|node| RecordKey::Node(node.id));
        let services = state.services().filter(|service| !service.ports.is_empty());
        let keys = nodes.chain(services.flat_map(|service| keys_of_service(state, service.id))).collect();
        table.look_at(state, keys);
        // Tasks that may have got connections before: which nodes have heard that they get none now is not known.
        let running = state.tasks().filter(|task| task.status.state == TaskState::Running);
        let left = running.filter(|task| {
            let spec = state.spec(task.service, task.spec_version).map(|version| &version.spec);
            let had_ports =
                spec.is_some_and(|spec| spec.ports().iter().any(|port| port.publish_mode == PublishMode::Ingress));
            had_ports && table.endpoint_state(task.id) != Some(EndpointState::In)
        });
        table.left = left.map(|task| (task.id, state.revision())).collect();
        table
    }

    /// The version of the table.
    pub fn version(&self) -> TableVersion {
        self.version
    }

    /// The revision of the table from which on a task gets no new connections, if it got some before and has not ended.
    pub fn left_at(&self, task: TaskId) -> Option<u64> {
        self.left.get(&task).copied()
    }

    /// Takes what an entry changed.
    pub fn follow(&mut self, state: &State, events: &[Event]) {
        let mut keys = BTreeSet::new();
        for event in events {
            match *event {
                Event::Task { task, service, .. } => {
                    let is_known =
                        || self.left.contains_key(&task) || self.records.contains_key(&RecordKey::Endpoint(task));
                    if publishes(state, service) || is_known() {
                        keys.insert(RecordKey::Endpoint(task));
                    }
                }
                Event::Service(service) => {
                    let had_ports = self.records.contains_key(&RecordKey::Service(service));
                    if had_ports != publishes(state, service) {
                        keys.extend(keys_of_service(state, service));
                    } else if had_ports {
                        keys.insert(RecordKey::Service(service));
                    }
                }
                Event::Node(node) => {
                    let key = RecordKey::Node(node);
                    if self.records.contains_key(&key) != node_record(state, node).is_some() {
                        keys.extend(state.tasks_of_node(node).map(|task| RecordKey::Endpoint(task.id)));
                    }
                    keys.insert(key);
                }
                Event::Cluster | Event::Object(_) | Event::Room(_) => {}
            }
        }
        if !keys.is_empty() {
            self.look_at(state, keys);
        }
    }

    /// Makes records anew.
    fn look_at(&mut self, state: &State, keys: BTreeSet<RecordKey>) {
        let (before, mut changed) = (self.version, Vec::new());
        for key in keys {
            let record = record(state, key);
            if let RecordKey::Endpoint(task) = key {
                self.note_left(state, task, record.as_ref());
            }
            // A record of ids, numbers and texts can always be encoded.
            let now = record.and_then(|record| Shared::new(&record).ok());
            let old = match now {
                None => self.records.remove(&key),
                Some(ref now) if self.records.get(&key) == Some(now) => continue,
                Some(now) => {
                    self.version.digest = RecordHash::of(&now).added_to(self.version.digest);
                    let old = self.records.insert(key, now);
                    changed.push(key);
                    old
                }
            };
            if let Some(old) = old {
                self.version.digest = RecordHash::of(&old).taken_from(self.version.digest);
                if changed.last() != Some(&key) {
                    changed.push(key);
                }
            }
        }
        if changed.is_empty() {
            return;
        }
        self.version.revision = state.revision();
        self.changed += changed.len();
        self.changes.push_back((before, changed));
        while self.changed > CHANGES_MAX
            && let Some((_, keys)) = self.changes.pop_front()
        {
            self.changed -= keys.len();
        }
    }

    /// Notes when a task leaves the balance, until it has ended. It may leave before it is to stop: its service goes first,
    /// or its node is down for a while.
    fn note_left(&mut self, state: &State, id: TaskId, now: Option<&Record>) {
        let is_in = matches!(now, Some(Record::Endpoint(endpoint)) if endpoint.state == EndpointState::In);
        let has_ended = state.task(id).is_none_or(|task| task.status.state > TaskState::Running);
        if has_ended || is_in {
            self.left.remove(&id);
        } else if self.endpoint_state(id) == Some(EndpointState::In) {
            self.left.insert(id, state.revision());
        }
    }

    fn endpoint_state(&self, task: TaskId) -> Option<EndpointState> {
        match self.records.get(&RecordKey::Endpoint(task))?.open() {
            Ok(Record::Endpoint(endpoint)) => Some(endpoint.state),
            _ => None,
        }
    }

    /// The updates that bring a holder of a table to this one: none if it has this one, a difference if the table that it has is
    /// remembered, else the whole table.
    pub fn since(&self, held: Option<TableVersion>) -> Vec<TableUpdate> {
        let Some(held) = held else { return self.whole() };
        if held == self.version {
            return Vec::new();
        }
        let Some(at) = self.changes.iter().position(|(before, _)| *before == held) else { return self.whole() };
        let keys: BTreeSet<RecordKey> = self.changes.iter().skip(at).flat_map(|(_, keys)| keys).copied().collect();
        let changes = keys.into_iter().map(|key| match self.records.get(&key) {
            Some(record) => TableChange::Put(record.clone()),
            None => TableChange::Remove(key),
        });
        batches(false, self.version, changes.collect())
    }

    fn whole(&self) -> Vec<TableUpdate> {
        batches(true, self.version, self.records.values().cloned().map(TableChange::Put).collect())
    }
}

fn publishes(state: &State, service: ServiceId) -> bool {
    state.service(service).is_some_and(|service| !service.ports.is_empty())
}

fn keys_of_service(state: &State, service: ServiceId) -> impl Iterator<Item = RecordKey> {
    let tasks = state.tasks_of_service(service).map(|task| RecordKey::Endpoint(task.id));
    std::iter::once(RecordKey::Service(service)).chain(tasks)
}

/// A record as the state has it; none if there is to be none.
fn record(state: &State, key: RecordKey) -> Option<Record> {
    match key {
        RecordKey::Node(node) => node_record(state, node).map(Record::Node),
        RecordKey::Service(service) => {
            let service = state.service(service).filter(|service| !service.ports.is_empty())?;
            let (name, ports) = (service.spec.name.clone(), service.ports.to_vec());
            let ingress = Settings::of(&service.spec.labels).ingress;
            Some(Record::Service(ServiceRecord { id: service.id, name, ports, ingress }))
        }
        RecordKey::Endpoint(task) => endpoint(state, state.task(task)?).map(Record::Endpoint),
    }
}

/// A node that is down serves nobody.
fn node_record(state: &State, node: NodeId) -> Option<NodeRecord> {
    let node = state.node(node).filter(|node| node.status.state != NodeState::Down)?;
    let data = node.description.as_ref()?.data_address?;
    let addr = data.addr.or_else(|| node.status.addr.parse().ok())?;
    Some(NodeRecord { id: node.id, data_addr: SocketAddr::new(addr, data.port) })
}

/// A task that runs serves; one that is to stop gets no new connections.
pub(crate) fn endpoint(state: &State, task: &Task) -> Option<EndpointRecord> {
    let has_ended = task.status.state > TaskState::Running && !mutant("keep-ended-endpoint");
    if task.status.state < TaskState::Running || has_ended || !publishes(state, task.service) {
        return None;
    }
    let node = node_record(state, task.node?)?.id;
    let state = if task.desired.is_live() { EndpointState::In } else { EndpointState::Draining };
    Some(EndpointRecord { task: task.id, service: task.service, node, state })
}

#[cfg(test)]
mod tests;
