//! The endpoint table as the state has it: who serves the published ports ([`swarm_wire::endpoints`]).
//!
//! A record follows from the state alone. After an entry only the records are made anew that its events name. So a change
//! costs what it is, on each manager, and a new leader has the table of the one before.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use swarm_core::{Event, State};
use swarm_model::{NodeId, NodeState, PublishMode, ServiceId, Settings, Task, TaskId, TaskState, mutant::mutant};
use swarm_wire::endpoints::{
    EndpointRecord, EndpointState, NodeRecord, Record, RecordKey, ServiceRecord, TableChange, TableUpdate,
    TableVersion, batches,
};

use crate::versioned::{Since, Versioned};

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    records: Versioned<RecordKey, Record>,
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
        self.records.version()
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
                        || self.left.contains_key(&task) || self.records.get(RecordKey::Endpoint(task)).is_some();
                    if publishes(state, service) || is_known() {
                        keys.insert(RecordKey::Endpoint(task));
                    }
                }
                Event::Service(service) => {
                    let had_ports = self.records.get(RecordKey::Service(service)).is_some();
                    if had_ports != publishes(state, service) {
                        keys.extend(keys_of_service(state, service));
                    } else if had_ports {
                        keys.insert(RecordKey::Service(service));
                    }
                }
                Event::Node(node) => {
                    let key = RecordKey::Node(node);
                    if self.records.get(key).is_some() != node_record(state, node).is_some() {
                        keys.extend(state.tasks_of_node(node).map(|task| RecordKey::Endpoint(task.id)));
                    }
                    keys.insert(key);
                }
                Event::Cluster | Event::Object(_) | Event::Room(_) | Event::Attachment { .. } => {}
            }
        }
        if !keys.is_empty() {
            self.look_at(state, keys);
        }
    }

    /// Makes records anew.
    fn look_at(&mut self, state: &State, keys: BTreeSet<RecordKey>) {
        let mut records = Vec::with_capacity(keys.len());
        for key in keys {
            let record = record(state, key);
            if let RecordKey::Endpoint(task) = key {
                self.note_left(state, task, record.as_ref());
            }
            records.push((key, record));
        }
        self.records.set(state.revision(), records);
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
        match self.records.get(RecordKey::Endpoint(task))?.open() {
            Ok(Record::Endpoint(endpoint)) => Some(endpoint.state),
            _ => None,
        }
    }

    /// The updates that bring a holder of a table to this one: none if it has this one, a difference if the table that it has is
    /// remembered, else the whole table.
    pub fn since(&self, held: Option<TableVersion>) -> Vec<TableUpdate> {
        match self.records.since(held) {
            Since::Nothing => Vec::new(),
            Since::Changed(changes) => {
                let change = |(key, record): (_, Option<_>)| record.map_or(TableChange::Remove(key), TableChange::Put);
                batches(false, self.version(), changes.into_iter().map(change).collect())
            }
            Since::All(records) => batches(true, self.version(), records.into_iter().map(TableChange::Put).collect()),
        }
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
pub(crate) fn node_record(state: &State, node: NodeId) -> Option<NodeRecord> {
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
