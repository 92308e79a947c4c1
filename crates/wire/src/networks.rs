//! The networks of the cluster, as the nodes that take part in them are told: their subnets, their services with virtual
//! addresses, and the addresses of their tasks.
//!
//! A node is told of a network while it has a task or an attached container there, and of no other network.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use swarm_model::{NodeId, ObjectId, ServiceId, TaskId};

use crate::{
    agent::Shared,
    endpoints::{TABLE_BATCH_MAX, TableVersion},
};

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// The network.
    pub id: ObjectId,
    /// Its name, which is a domain of names in its containers.
    pub name: String,
    /// The number of its VXLAN; other networks of the cluster have other numbers.
    pub vni: u32,
    /// Its subnets: at most one of each address family.
    pub subnets: Vec<Subnet>,
    /// The largest packet of its containers, in bytes; none for the largest that the underlay lets pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether its containers reach nothing but each other.
    #[serde(default)]
    pub internal: bool,
    /// Whether frames between nodes are encrypted.
    #[serde(default)]
    pub encrypted: bool,
}

/// A subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The addresses.
    pub range: IpNet,
    /// The address of the network's bridge: the same on each node.
    pub gateway: IpAddr,
}

/// A service with tasks in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkServiceRecord {
    /// The service.
    pub id: ServiceId,
    /// Its name.
    pub name: String,
    /// Further names of the service in this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Its virtual addresses: at most one of each address family; none where its names stand for its tasks (`dnsrr`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_addrs: Vec<IpAddr>,
}

/// A task in a network, or an attached container, which has no service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkEndpointRecord {
    /// The task, or the attachment.
    pub task: TaskId,
    /// Its service; none of an attached container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// The node that it runs on.
    pub node: NodeId,
    /// Its addresses: at most one of each address family.
    pub addrs: Vec<IpAddr>,
    /// Names of its own, such as `web.1.0x3…` and its host name.
    pub names: Vec<String>,
    /// The stage that it has reached.
    pub state: NetworkEndpointState,
}

/// The stage that a task in a network has reached. An address that nobody has has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkEndpointState {
    /// The task has its address and can be reached there. No name shows it yet.
    Starting,
    /// Names and virtual addresses show the task.
    In,
    /// The task is to stop. No name shows it any more; connections that it has go on.
    Draining,
    /// The task ended without a stop in order. Connections to its address are to be reset.
    Gone,
}

/// A node with tasks in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNodeRecord {
    /// The node.
    pub id: NodeId,
    /// The address at which it takes packets of other nodes.
    pub data_addr: IpAddr,
    /// The id of its engine. Containers of one engine reach each other without packets between nodes.
    pub engine: String,
}

/// A record of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Member {
    /// A node that has tasks in the network.
    Node(NetworkNodeRecord),
    /// A service.
    Service(NetworkServiceRecord),
    /// A task.
    Endpoint(NetworkEndpointRecord),
}

impl Member {
    /// Names it.
    pub fn key(&self) -> MemberKey {
        match self {
            Self::Node(node) => MemberKey::Node(node.id),
            Self::Service(service) => MemberKey::Service(service.id),
            Self::Endpoint(endpoint) => MemberKey::Endpoint(endpoint.task),
        }
    }
}

/// Names a record of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MemberKey {
    /// Of a node.
    Node(NodeId),
    /// Of a service.
    Service(ServiceId),
    /// Of a task.
    Endpoint(TaskId),
}

/// A change of one record of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MemberChange {
    /// The network has it, like this.
    Put(Shared<Member>),
    /// The network has it no more.
    Remove(MemberKey),
}

/// Changes of the records of a network. Updates are applied in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkUpdate {
    /// The network.
    pub network: ObjectId,
    /// Whether this begins with no records: those that no message up to the next `complete` puts are not there.
    pub full: bool,
    /// Whether the change ends here; only then do the records hold.
    pub complete: bool,
    /// The version of the records after the change.
    pub version: TableVersion,
    /// The changes.
    pub changes: Vec<MemberChange>,
}

impl NetworkUpdate {
    /// Updates that carry these changes, each with at most [`TABLE_BATCH_MAX`]; at least one.
    pub fn batches(network: ObjectId, full: bool, version: TableVersion, changes: &[MemberChange]) -> Vec<Self> {
        let update = |changes: &[MemberChange]| Self {
            network,
            full: false,
            complete: false,
            version,
            changes: changes.to_vec(),
        };
        let mut updates: Vec<_> = changes.chunks(TABLE_BATCH_MAX).map(update).collect();
        if updates.is_empty() {
            updates.push(update(&[]));
        }
        updates.first_mut().into_iter().for_each(|first| first.full = full);
        updates.last_mut().into_iter().for_each(|last| last.complete = true);
        updates
    }
}

/// The records of a network that a node holds. Updates change them when they are whole.
#[derive(Clone, Debug, Default)]
pub struct Members {
    members: BTreeMap<MemberKey, Member>,
    version: TableVersion,
    /// The changes of an update that is still arriving, and whether it begins with no records.
    arriving: Option<(bool, Vec<MemberChange>)>,
    is_whole: bool,
}

impl Members {
    /// Whether all records have come once.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// A record.
    pub fn get(&self, key: MemberKey) -> Option<&Member> {
        self.members.get(&key)
    }

    /// A task.
    pub fn endpoint(&self, task: TaskId) -> Option<&NetworkEndpointRecord> {
        match self.get(MemberKey::Endpoint(task)) {
            Some(Member::Endpoint(endpoint)) => Some(endpoint),
            _ => None,
        }
    }

    /// The tasks.
    pub fn endpoints(&self) -> impl Iterator<Item = &NetworkEndpointRecord> {
        let tasks = MemberKey::Endpoint(TaskId(0))..;
        self.members.range(tasks).filter_map(|(_, member)| match member {
            Member::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        })
    }

    /// Takes a message. Returns the records that changed, each as it was before, once an update is whole.
    ///
    /// # Errors
    /// A record cannot be read. The rest of the update, and each difference that follows, would be of no use: the holder needs
    /// all records anew.
    pub fn take(&mut self, update: &NetworkUpdate) -> io::Result<Vec<(MemberKey, Option<Member>)>> {
        let arriving = match self.arriving.take() {
            Some(arriving) if !update.full => self.arriving.insert(arriving),
            _ => self.arriving.insert((update.full, Vec::new())),
        };
        arriving.1.extend(update.changes.iter().cloned());
        if !update.complete {
            return Ok(Vec::new());
        }
        let (is_full, changes) = self.arriving.take().unwrap_or_default();
        let mut opened = Vec::with_capacity(changes.len());
        for change in changes {
            opened.push(match change {
                MemberChange::Put(member) => {
                    let member = member.open()?;
                    (member.key(), Some(member))
                }
                MemberChange::Remove(key) => (key, None),
            });
        }
        let mut left: BTreeSet<MemberKey> =
            if is_full { self.members.keys().copied().collect() } else { BTreeSet::new() };
        let mut changed = Vec::with_capacity(opened.len());
        for (key, member) in opened {
            left.remove(&key);
            let before = match member {
                Some(member) if self.members.get(&key) == Some(&member) => continue,
                Some(member) => self.members.insert(key, member),
                None => self.members.remove(&key),
            };
            changed.push((key, before));
        }
        changed.extend(left.into_iter().map(|key| (key, self.members.remove(&key))));
        (self.version, self.is_whole) = (update.version, self.is_whole || is_full);
        Ok(changed)
    }

    /// All records, as updates that begin with none.
    pub fn to_updates(&self, network: ObjectId) -> Vec<NetworkUpdate> {
        // A record that was read can be written.
        let puts = self.members.values().filter_map(|member| Shared::new(member).ok()).map(MemberChange::Put);
        NetworkUpdate::batches(network, true, self.version, &puts.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests;
