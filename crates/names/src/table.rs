//! The names of the networks of a node, as a value: a clone costs nothing, a change costs what it changes.

mod network;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use imbl::OrdMap;
use rand::{Rng, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use swarm_model::{ObjectId, ServiceId, TaskId};
use swarm_wire::networks::{NetworkEndpointRecord, NetworkRecord, NetworkServiceRecord};

use network::{Found, Network};

/// Seconds that a client may keep a virtual address.
const VIRTUAL_ADDR_TTL_S: u32 = 5;
/// Seconds that a client may keep an address of a task or a container: such addresses come and go.
const ADDR_TTL_S: u32 = 0;

/// A container of this node that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerNames {
    /// The engine's id of the container.
    pub container: String,
    /// The networks of the container, in the order in which its names are looked up.
    pub networks: Vec<ContainerNetwork>,
    /// The task that the container runs; none for a standalone container. The names of a task's container are shown
    /// while the task is `In`.
    pub task: Option<TaskId>,
    /// Whether the container can use virtual addresses.
    pub virtual_addrs: VirtualAddrs,
    /// The resolvers that the container's spec names; none for the resolvers of the host.
    pub nameservers: Vec<IpAddr>,
}

/// A container's part in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerNetwork {
    /// The network.
    pub network: ObjectId,
    /// Addresses of the container there.
    pub addrs: Vec<IpAddr>,
    /// Names of the container there: its name, its host name, its aliases. The name comes first: it is the name of the
    /// container's addresses.
    pub names: Vec<String>,
}

/// Whether a container can use virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtualAddrs {
    /// Virtual addresses work in no container of this node. Names of services stand for the tasks.
    Missing,
    /// The container's kernel table is not loaded yet. No virtual address is told.
    Loading,
    /// The container's kernel table is loaded.
    Loaded,
}

/// A question of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// The name in lower case, without the dot at its end.
    pub name: &'a str,
    /// The records that are asked for.
    pub kind: Kind,
}

/// Records of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Addresses of both families.
    Any,
    /// The name of an address.
    Ptr(IpAddr),
    /// Records that no name of a network has.
    Other,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The table has no such container.
    NoContainer,
    /// The table is not complete yet, or the virtual addresses of the container do not work yet.
    Unready,
    /// The addresses of the name, in an order by chance; none for a name that has no such records.
    Addrs {
        /// The addresses.
        addrs: Vec<IpAddr>,
        /// Seconds that the client may keep them.
        ttl_s: u32,
    },
    /// The name of the address.
    Name {
        /// The name, without the dot at its end.
        name: String,
        /// Seconds that the client may keep it.
        ttl_s: u32,
    },
    /// There is no such name.
    Missing,
    /// The container's networks do not have the name: these resolvers are to be asked, or those of the host when there
    /// are none.
    Forward(Vec<IpAddr>),
}

/// The names of the networks of a node.
///
/// Records may come in any order: the answers follow from the records that are there. No answer shows a task that is
/// not `In`.
#[derive(Clone, Debug, Default)]
pub struct NamesTable {
    networks: OrdMap<ObjectId, Arc<Network>>,
    containers: OrdMap<Arc<str>, Arc<ContainerNames>>,
}

impl NamesTable {
    /// Puts a network, in place of the record before. The network is not ready before [`Self::set_ready`] says so.
    pub fn put_network(&mut self, record: NetworkRecord) {
        self.change(record.id, |network| network.put_record(record));
    }

    /// Removes a network with its services, tasks and attached containers.
    pub fn remove_network(&mut self, network: ObjectId) {
        self.change(network, Network::remove_records);
    }

    /// Says whether all records of a network are there. Questions of its containers get no answer before.
    pub fn set_ready(&mut self, network: ObjectId, is_ready: bool) {
        self.change(network, |network| network.set_ready(is_ready));
    }

    /// Whether a network has its record and all other records.
    pub fn is_ready(&self, network: ObjectId) -> bool {
        self.networks.get(&network).is_some_and(|network| network.is_ready())
    }

    /// Puts a service of a network, in place of the record before.
    pub fn put_service(&mut self, network: ObjectId, record: NetworkServiceRecord) {
        self.change(network, |network| network.put_service(record));
    }

    /// Removes a service from a network.
    pub fn remove_service(&mut self, network: ObjectId, service: ServiceId) {
        self.change(network, |network| network.remove_service(service));
    }

    /// Puts a task or an attached container of a network, in place of the record before.
    pub fn put_endpoint(&mut self, network: ObjectId, record: NetworkEndpointRecord) {
        self.change(network, |network| network.put_task(record));
    }

    /// Removes a task or an attached container from a network.
    pub fn remove_endpoint(&mut self, network: ObjectId, task: TaskId) {
        self.change(network, |network| network.remove_task(task));
    }

    /// Puts a container of this node, in place of its record before.
    pub fn put_container(&mut self, container: ContainerNames) {
        let id: Arc<str> = container.container.as_str().into();
        let container = Arc::new(container);
        if let Some(before) = self.containers.insert(Arc::clone(&id), Arc::clone(&container)) {
            if before.networks == container.networks && before.task == container.task {
                return;
            }
            self.leave_networks(&before);
        }
        for part in &container.networks {
            self.change(part.network, |network| network.put_container(&id, container.task, part));
        }
    }

    /// Removes a container of this node.
    pub fn remove_container(&mut self, container: &str) {
        if let Some(before) = self.containers.remove(container) {
            self.leave_networks(&before);
        }
    }

    /// The container of this node that has an address in a network.
    pub fn container_at(&self, network: ObjectId, addr: IpAddr) -> Option<&str> {
        self.networks.get(&network)?.container_at(addr)
    }

    /// The answer to a question of a container. `random` decides the order of addresses.
    pub fn answer(&self, container: &str, question: Question<'_>, random: &mut impl Rng) -> Answer {
        let Some(container) = self.containers.get(container) else { return Answer::NoContainer };
        let mut networks = Vec::with_capacity(container.networks.len());
        for part in &container.networks {
            match self.networks.get(&part.network).filter(|network| network.is_ready()) {
                Some(network) => networks.push(&**network),
                None => return Answer::Unready,
            }
        }
        if let Kind::Ptr(addr) = question.kind {
            return name_of(&networks, addr).unwrap_or_else(|| elsewhere(container, &networks));
        }
        let use_virtual_addrs = container.virtual_addrs != VirtualAddrs::Missing;
        match find(&networks, question.name, use_virtual_addrs) {
            Some(found) if found.is_virtual && container.virtual_addrs == VirtualAddrs::Loading => Answer::Unready,
            Some(found) => addresses(found, question.kind, random),
            None => elsewhere(container, &networks),
        }
    }

    fn leave_networks(&mut self, container: &ContainerNames) {
        for part in &container.networks {
            self.change(part.network, |network| network.remove_container(&container.container));
        }
    }

    /// Changes a network, which appears with the first record of it and disappears with the last.
    fn change(&mut self, id: ObjectId, change: impl FnOnce(&mut Network)) {
        let network = Arc::make_mut(self.networks.entry(id).or_default());
        change(network);
        if network.is_empty() {
            self.networks.remove(&id);
        }
    }
}

/// The first network that shows addresses for the name decides. A service decides as well when its tasks are not `In`:
/// its name must not become the name of another container for a moment.
fn find(networks: &[&Network], name: &str, use_virtual_addrs: bool) -> Option<Found> {
    let plain = networks.iter().map(|network| (*network, Some(name)));
    let qualified = networks.iter().map(|network| (*network, network.strip_name(name)));
    let mut known = None;
    for (network, name) in plain.chain(qualified) {
        let Some(found) = name.and_then(|name| network.find(name, use_virtual_addrs)) else { continue };
        if found.is_service || !found.addrs.is_empty() {
            return Some(found);
        }
        known.get_or_insert(found);
    }
    known
}

/// The name of an address of the networks. An address of their subnets is never asked of other resolvers, which
/// cannot know it.
fn name_of(networks: &[&Network], addr: IpAddr) -> Option<Answer> {
    let found = networks.iter().find_map(|network| network.name_of(addr));
    if let Some((name, is_virtual)) = found {
        return Some(Answer::Name { name, ttl_s: if is_virtual { VIRTUAL_ADDR_TTL_S } else { ADDR_TTL_S } });
    }
    networks.iter().any(|network| network.has_addr(addr)).then_some(Answer::Missing)
}

/// The answer for a name that no network of the container has.
fn elsewhere(container: &ContainerNames, networks: &[&Network]) -> Answer {
    if !networks.is_empty() && networks.iter().all(|network| network.is_internal()) {
        return Answer::Missing;
    }
    Answer::Forward(container.nameservers.clone())
}

fn addresses(found: Found, kind: Kind, random: &mut impl Rng) -> Answer {
    let mut addrs = found.addrs;
    match kind {
        Kind::A => addrs.retain(IpAddr::is_ipv4),
        Kind::Aaaa => addrs.retain(IpAddr::is_ipv6),
        Kind::Any => {}
        Kind::Ptr(_) | Kind::Other => addrs.clear(),
    }
    // The same container may be known from two records.
    addrs.sort_unstable();
    addrs.dedup();
    addrs.shuffle(random);
    Answer::Addrs { addrs, ttl_s: if found.is_virtual && !found.is_of_tasks { VIRTUAL_ADDR_TTL_S } else { ADDR_TTL_S } }
}
