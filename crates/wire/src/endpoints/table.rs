//! The endpoint table with its indexes. A difference costs the records that it changes: it is applied in place, only
//! the changed records are checked, and a difference that is refused is undone.

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{NodeId, PortProtocol, ServiceId, TaskId};

use super::{
    EndpointRecord, NodeRecord, Record, RecordHash, RecordKey, ServiceRecord, TableChange, TableError, TableUpdate,
    TableVersion, batches,
};
use crate::agent::Shared;

/// A record as it was sent, and as it was read.
pub(super) type Entry = (Shared<Record>, Record);

/// A table that a node holds.
#[derive(Clone, Debug, Default)]
pub struct EndpointTable {
    version: TableVersion,
    records: BTreeMap<RecordKey, Entry>,
    /// The services that publish a port. While a difference is applied, a port may belong to several.
    published: BTreeMap<(PortProtocol, u16), Vec<ServiceId>>,
    by_service: BTreeMap<ServiceId, BTreeSet<TaskId>>,
    by_node: BTreeMap<NodeId, BTreeSet<TaskId>>,
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

    /// The keys of the records, in the order of the records.
    pub fn keys(&self) -> impl Iterator<Item = RecordKey> {
        self.records.keys().copied()
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

    /// The service that publishes a port.
    pub fn service_at(&self, protocol: PortProtocol, published: u16) -> Option<ServiceId> {
        self.published.get(&(protocol, published))?.first().copied()
    }

    /// The endpoints of a service.
    pub fn endpoints_of(&self, service: ServiceId) -> impl Iterator<Item = TaskId> {
        self.by_service.get(&service).into_iter().flatten().copied()
    }

    /// The endpoints on a node.
    pub fn endpoints_on(&self, node: NodeId) -> impl Iterator<Item = TaskId> {
        self.by_node.get(&node).into_iter().flatten().copied()
    }

    /// The whole table as messages: they bring another holder to the same table.
    pub fn to_updates(&self) -> Vec<TableUpdate> {
        let puts: Vec<_> = self.records.values().map(|(shared, _)| TableChange::Put(shared.clone())).collect();
        batches(true, self.version, puts)
    }

    /// Makes these records as given; none removes a record. Returns the keys of the records that are others now.
    ///
    /// # Errors
    /// [`TableError::Differs`] and [`TableError::Contradiction`]; the table is as before.
    pub(super) fn apply(
        &mut self,
        changes: BTreeMap<RecordKey, Option<Entry>>,
        version: TableVersion,
    ) -> Result<BTreeSet<RecordKey>, TableError> {
        let before = self.version;
        let mut log = Vec::new();
        for (key, entry) in changes {
            if self.records.get(&key).map(|(shared, _)| shared) != entry.as_ref().map(|(shared, _)| shared) {
                log.push((key, self.replace(key, entry)));
            }
        }
        if let Err(error) = self.check(log.iter().map(|(key, _)| *key), version) {
            for (key, entry) in log {
                self.replace(key, entry);
            }
            self.version = before;
            return Err(error);
        }
        (self.version.revision, self.is_known) = (version.revision, true);
        Ok(log.into_iter().map(|(key, _)| key).collect())
    }

    /// Replaces a record, with what the indexes and the digest have of it. Returns the record that was there.
    fn replace(&mut self, key: RecordKey, entry: Option<Entry>) -> Option<Entry> {
        let before = self.records.remove(&key);
        if let Some((shared, record)) = &before {
            self.version.digest = RecordHash::of(shared).taken_from(self.version.digest);
            self.forget(record);
        }
        if let Some((shared, record)) = entry {
            self.version.digest = RecordHash::of(&shared).added_to(self.version.digest);
            self.index(&record);
            self.records.insert(key, (shared, record));
        }
        before
    }

    fn index(&mut self, record: &Record) {
        match record {
            Record::Node(_) => {}
            Record::Service(service) => {
                for port in &service.ports {
                    self.published.entry((port.protocol, port.published)).or_default().push(service.id);
                }
            }
            Record::Endpoint(endpoint) => {
                self.by_service.entry(endpoint.service).or_default().insert(endpoint.task);
                self.by_node.entry(endpoint.node).or_default().insert(endpoint.task);
            }
        }
    }

    fn forget(&mut self, record: &Record) {
        match record {
            Record::Node(_) => {}
            Record::Service(service) => {
                for port in &service.ports {
                    let key = (port.protocol, port.published);
                    if let Some(services) = self.published.get_mut(&key) {
                        services.retain(|id| *id != service.id);
                        if services.is_empty() {
                            self.published.remove(&key);
                        }
                    }
                }
            }
            Record::Endpoint(EndpointRecord { task, service, node, .. }) => {
                remove_from(&mut self.by_service, *service, *task);
                remove_from(&mut self.by_node, *node, *task);
            }
        }
    }

    /// Whether the table is the sender's, each changed endpoint has its service and its node, each changed port has one
    /// service, and no endpoint needs a record that was removed.
    fn check(&self, changed: impl Iterator<Item = RecordKey>, version: TableVersion) -> Result<(), TableError> {
        if self.version.digest != version.digest {
            return Err(TableError::Differs { found: self.version.digest, expected: version.digest });
        }
        for key in changed {
            self.check_record(key).map_err(TableError::Contradiction)?;
        }
        Ok(())
    }

    fn check_record(&self, key: RecordKey) -> Result<(), String> {
        match (key, self.get(key)) {
            (_, Some(Record::Service(service))) => self.check_ports(service),
            (_, Some(Record::Endpoint(EndpointRecord { task, service, node, .. }))) => {
                if self.service(*service).is_none() {
                    return Err(format!("task {task} is of service {service}, which is not there"));
                }
                if self.node(*node).is_none() {
                    return Err(format!("task {task} is on node {node}, which is not there"));
                }
                Ok(())
            }
            (RecordKey::Service(service), _) => match self.endpoints_of(service).next() {
                Some(task) => Err(format!("task {task} is of service {service}, which is not there")),
                None => Ok(()),
            },
            (RecordKey::Node(node), None) => match self.endpoints_on(node).next() {
                Some(task) => Err(format!("task {task} is on node {node}, which is not there")),
                None => Ok(()),
            },
            (RecordKey::Node(_), Some(_)) | (RecordKey::Endpoint(_), _) => Ok(()),
        }
    }

    fn check_ports(&self, service: &ServiceRecord) -> Result<(), String> {
        for port in &service.ports {
            let (number, protocol) = (port.published, port.protocol.as_str());
            if number == 0 || port.target == 0 {
                return Err(format!("service {} has a port of 0", service.id));
            }
            if let Some([one, other, ..]) = self.published.get(&(port.protocol, number)).map(Vec::as_slice) {
                return Err(format!("port {number}/{protocol} belongs to service {one} and to service {other}"));
            }
        }
        Ok(())
    }
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<TaskId>>, key: K, task: TaskId) {
    if let Some(tasks) = index.get_mut(&key) {
        tasks.remove(&task);
        if tasks.is_empty() {
            index.remove(&key);
        }
    }
}
