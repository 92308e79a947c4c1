//! The endpoint table: who serves the published ports of the cluster. Managers keep it and send each node the difference;
//! a node's data plane opens the ports and forwards connections by it.
//!
//! The table has records of three kinds: nodes, services with published ports, and endpoints, which are tasks that serve.
//! A digest over all records proves after each update that both sides hold the same table.

use std::{collections::BTreeMap, io, net::SocketAddr};

use serde::{Deserialize, Serialize};
pub use swarm_model::PublishedPort;
use swarm_model::{IngressSource, NodeId, ServiceId, TaskId};
use thiserror::Error;

use crate::agent::Shared;

/// Changes in one message; more follow in further messages.
pub const TABLE_BATCH_MAX: usize = 4096;

/// A node that tasks with published ports can run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node.
    pub id: NodeId,
    /// The address at which its data plane takes connections of other nodes.
    pub data_addr: SocketAddr,
}

/// A service with published ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The service.
    pub id: ServiceId,
    /// Its name, for people.
    pub name: String,
    /// Its ports; none is 0.
    pub ports: Vec<PublishedPort>,
    /// The address that its tasks see connections come from.
    #[serde(default, skip_serializing_if = "IngressSource::is_default")]
    pub source: IngressSource,
}

/// A task that serves the ports of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// The task.
    pub task: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// The node that it runs on.
    pub node: NodeId,
    /// Whether it gets new connections.
    pub state: EndpointState,
}

/// Whether an endpoint gets new connections. A task that does not serve yet, or no more, has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointState {
    /// The endpoint gets new connections.
    In,
    /// The endpoint is to stop: it gets no new connections and keeps those that it has.
    Draining,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A node.
    Node(NodeRecord),
    /// A service.
    Service(ServiceRecord),
    /// An endpoint.
    Endpoint(EndpointRecord),
}

impl Record {
    /// Names it.
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Node(node) => RecordKey::Node(node.id),
            Self::Service(service) => RecordKey::Service(service.id),
            Self::Endpoint(endpoint) => RecordKey::Endpoint(endpoint.task),
        }
    }
}

/// Names a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordKey {
    /// Of a node.
    Node(NodeId),
    /// Of a service.
    Service(ServiceId),
    /// Of an endpoint.
    Endpoint(TaskId),
}

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TableChange {
    /// The table has it, like this.
    Put(Shared<Record>),
    /// The table has it no more.
    Remove(RecordKey),
}

/// Changes of the table. Updates are applied in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableUpdate {
    /// Whether this begins a full table: a record that no message up to the next `complete` puts is not in it.
    pub full: bool,
    /// Whether the full table or the difference ends here; only then do `version` and all records hold.
    pub complete: bool,
    /// The version of the table after the update.
    pub version: TableVersion,
    /// The changes.
    pub changes: Vec<TableChange>,
}

/// Names the content of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableVersion {
    /// Log index of the last change.
    pub revision: u64,
    /// [`RecordHash`]es of all records, added up.
    pub digest: u64,
}

/// Part of a digest: a number that follows from the bytes of a record as they are sent. So a program that does not know
/// all fields of a record comes to the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHash(u64);

impl RecordHash {
    /// Of a record.
    pub fn of<T>(record: &Shared<T>) -> Self {
        let hash = record
            .bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        // Without a mix, changes of two records could cancel each other in the sum.
        let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed ^ (mixed >> 31))
    }

    /// The digest with the record in the table.
    pub fn added_to(self, digest: u64) -> u64 {
        digest.wrapping_add(self.0)
    }

    /// The digest without the record.
    pub fn taken_from(self, digest: u64) -> u64 {
        digest.wrapping_sub(self.0)
    }
}

/// Why an update was refused. The table is as it was before the first message of the update; a full one is needed.
#[derive(Debug, Error)]
pub enum TableError {
    /// A record cannot be read.
    #[error("a record cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The table would differ from the sender's.
    #[error("the digest is {found:016x} and should be {expected:016x}")]
    Differs {
        /// Of the table after the update.
        found: u64,
        /// As the sender has it.
        expected: u64,
    },
    /// A difference came to a holder without a table.
    #[error("a difference came before a full table")]
    NoTable,
    /// Records contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// A table that a node holds.
#[derive(Clone, Debug, Default)]
pub struct EndpointTable {
    version: TableVersion,
    records: BTreeMap<RecordKey, (Shared<Record>, Record)>,
    /// Whether a full table ever came.
    is_known: bool,
}

impl EndpointTable {
    /// An empty table. It is not known: nothing has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The version of the table; none before the first full table.
    pub fn version(&self) -> Option<TableVersion> {
        self.is_known.then_some(self.version)
    }

    /// The records, ordered by kind.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values().map(|(_, record)| record)
    }

    /// Whether a service has published ports.
    pub fn has_services(&self) -> bool {
        self.records.range(RecordKey::Service(ServiceId(0))..).next().is_some()
    }

    /// A record.
    pub fn get(&self, key: RecordKey) -> Option<&Record> {
        self.records.get(&key).map(|(_, record)| record)
    }

    /// An endpoint.
    pub fn endpoint(&self, task: TaskId) -> Option<&EndpointRecord> {
        match self.get(RecordKey::Endpoint(task)) {
            Some(Record::Endpoint(endpoint)) => Some(endpoint),
            _ => None,
        }
    }

    /// A service.
    pub fn service(&self, id: ServiceId) -> Option<&ServiceRecord> {
        match self.get(RecordKey::Service(id)) {
            Some(Record::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&NodeRecord> {
        match self.get(RecordKey::Node(id)) {
            Some(Record::Node(node)) => Some(node),
            _ => None,
        }
    }

    /// The whole table as messages: what brings another holder to the same table.
    pub fn to_updates(&self) -> Vec<TableUpdate> {
        let puts: Vec<_> = self.records.values().map(|(shared, _)| TableChange::Put(shared.clone())).collect();
        batches(true, self.version, puts)
    }
}

/// Updates that carry these changes, each with at most [`TABLE_BATCH_MAX`]; at least one.
pub fn batches(full: bool, version: TableVersion, changes: Vec<TableChange>) -> Vec<TableUpdate> {
    let mut updates: Vec<_> = changes
        .chunks(TABLE_BATCH_MAX)
        .map(|chunk| TableUpdate { full: false, complete: false, version, changes: chunk.to_vec() })
        .collect();
    if updates.is_empty() {
        updates.push(TableUpdate { version, ..TableUpdate::default() });
    }
    updates.first_mut().into_iter().for_each(|first| first.full = full);
    updates.last_mut().into_iter().for_each(|last| last.complete = true);
    updates
}

/// Takes updates and applies them when they are complete, or not at all.
#[derive(Clone, Debug, Default)]
pub struct TableReceiver {
    table: EndpointTable,
    /// The table that the messages so far lead to, while an update is not complete.
    next: Option<EndpointTable>,
}

impl TableReceiver {
    /// The last complete table.
    pub fn table(&self) -> &EndpointTable {
        &self.table
    }

    /// Takes a message. Returns whether it completed an update.
    ///
    /// # Errors
    /// [`TableError`]; the rest of the update is refused as well, with [`TableError::NoTable`] or by its digest.
    pub fn take(&mut self, update: &TableUpdate) -> Result<bool, TableError> {
        let mut next = match (update.full, self.next.take()) {
            (true, _) => EndpointTable { is_known: true, ..EndpointTable::default() },
            (false, Some(next)) => next,
            (false, None) if self.table.is_known => self.table.clone(),
            (false, None) => return Err(TableError::NoTable),
        };
        for change in &update.changes {
            next.change(change)?;
        }
        if !update.complete {
            self.next = Some(next);
            return Ok(false);
        }
        if next.version.digest != update.version.digest {
            return Err(TableError::Differs { found: next.version.digest, expected: update.version.digest });
        }
        next.version.revision = update.version.revision;
        next.check()?;
        self.table = next;
        Ok(true)
    }
}

impl EndpointTable {
    fn change(&mut self, change: &TableChange) -> Result<(), TableError> {
        let digest = &mut self.version.digest;
        let before = match change {
            TableChange::Put(shared) => {
                let record = shared.open()?;
                *digest = RecordHash::of(shared).added_to(*digest);
                self.records.insert(record.key(), (shared.clone(), record))
            }
            TableChange::Remove(key) => self.records.remove(key),
        };
        if let Some((shared, _)) = before {
            *digest = RecordHash::of(&shared).taken_from(*digest);
        }
        Ok(())
    }

    /// Whether each endpoint has its service and its node, and each port one service.
    fn check(&self) -> Result<(), TableError> {
        let contradiction = |text: String| Err(TableError::Contradiction(text));
        let mut published = BTreeMap::new();
        for record in self.records() {
            match record {
                Record::Node(_) => {}
                Record::Service(service) => {
                    for port in &service.ports {
                        let (number, protocol) = (port.published, port.protocol.as_str());
                        if number == 0 || port.target == 0 {
                            return contradiction(format!("service {} has a port of 0", service.id));
                        }
                        if let Some(other) = published.insert((number, protocol), service.id) {
                            return contradiction(format!(
                                "port {number}/{protocol} belongs to service {other} and to service {}",
                                service.id
                            ));
                        }
                    }
                }
                Record::Endpoint(EndpointRecord { task, service, node, .. }) => {
                    if self.service(*service).is_none() {
                        return contradiction(format!("task {task} is of service {service}, which is not there"));
                    }
                    if self.node(*node).is_none() {
                        return contradiction(format!("task {task} is on node {node}, which is not there"));
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
