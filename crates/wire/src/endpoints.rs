//! The endpoint table: who serves the published ports of the cluster. Managers keep it and send each node the difference;
//! a node's data plane opens the ports and forwards connections by it.
//!
//! The table has records of three kinds: nodes, services with published ports, and endpoints, which are tasks that serve.
//! A digest over all records proves after each update that both sides hold the same table.

mod counters;
mod receiver;
mod table;

use std::{io, net::SocketAddr};

use serde::{Deserialize, Serialize};
pub use swarm_model::PublishedPort;
use swarm_model::{Ingress, NodeId, ServiceId, TaskId};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use self::{
    counters::{EndpointStats, ServiceStats},
    receiver::TableReceiver,
    table::EndpointTable,
};
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
    /// How connections find its tasks.
    #[serde(default, skip_serializing_if = "Ingress::is_default")]
    pub ingress: Ingress,
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
    /// Of all programs the same, "swarmd" in ASCII: a digest is compared with that of another program.
    const SEED: u64 = 0x7377_6172_6d64;

    /// The hash of a record. It is mixed well enough (XXH3) that changes of two records do not cancel each other in the sum.
    pub fn of<T>(record: &Shared<T>) -> Self {
        Self(xxh3_64_with_seed(record.bytes(), Self::SEED))
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

#[cfg(test)]
mod tests;
