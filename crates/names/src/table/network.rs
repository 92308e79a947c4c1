//! The records of a network, with their names and addresses in order.

use std::{net::IpAddr, sync::Arc};

use imbl::{OrdMap, OrdSet};
use swarm_model::{ServiceId, TaskId};
use swarm_wire::networks::{NetworkEndpointRecord, NetworkEndpointState, NetworkRecord, NetworkServiceRecord};

use super::ContainerNetwork;

/// Before the name of a service, it asks for the tasks of the service.
const TASKS_PREFIX: &str = "tasks.";

/// The records of a network.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    record: Option<Arc<NetworkRecord>>,
    is_complete: bool,
    services: OrdMap<ServiceId, Arc<NetworkServiceRecord>>,
    tasks: OrdMap<TaskId, Arc<NetworkEndpointRecord>>,
    containers: OrdMap<Arc<str>, Arc<LocalContainer>>,
    /// The tasks that are `In`, by service.
    members: OrdSet<(ServiceId, TaskId)>,
    /// Names in lower case, and the records that have them.
    names: OrdSet<(Arc<str>, Owner)>,
    /// Addresses, and the records that have them.
    addrs: OrdSet<(IpAddr, Owner)>,
}

/// A container of this node in the network.
#[derive(Debug)]
struct LocalContainer {
    task: Option<TaskId>,
    part: ContainerNetwork,
}

/// A record that has a name or an address. Of the owners of a name, those of the first rank that shows addresses count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// A service, by its name.
    Service(ServiceId),
    /// A service, by an alias.
    Alias(ServiceId),
    Task(TaskId),
    /// A container of this node.
    Container(Arc<str>),
}

impl Owner {
    const FIRST: Self = Self::Service(ServiceId(0));

    fn is_service(&self) -> bool {
        matches!(self, Self::Service(_) | Self::Alias(_))
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Service(_) => 0,
            Self::Alias(_) => 1,
            Self::Task(_) => 2,
            Self::Container(_) => 3,
        }
    }
}

/// A name that the network has.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its addresses, some of them perhaps twice.
    pub(super) addrs: Vec<IpAddr>,
    /// Whether the name is one of a service.
    pub(super) is_service: bool,
    /// Whether virtual addresses are among the addresses.
    pub(super) is_virtual: bool,
    /// Whether addresses of tasks or containers are among the addresses.
    pub(super) is_of_tasks: bool,
}

impl Network {
    pub(super) fn put_record(&mut self, record: NetworkRecord) {
        self.record = Some(Arc::new(record));
    }

    /// Removes the network, except for the containers of this node, which are told apart from networks.
    pub(super) fn remove_records(&mut self) {
        let before = std::mem::take(self);
        for (id, container) in before.containers {
            self.put_container(&id, container.task, &container.part);
        }
    }

    pub(super) fn set_ready(&mut self, is_ready: bool) {
        self.is_complete = is_ready;
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_complete && self.record.is_some()
    }

    pub(super) fn is_internal(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.internal)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.record.is_none()
            && !self.is_complete
            && self.services.is_empty()
            && self.tasks.is_empty()
            && self.containers.is_empty()
    }

    /// Whether an address lies in the network's subnets.
    pub(super) fn has_addr(&self, addr: IpAddr) -> bool {
        self.record.as_ref().is_some_and(|record| record.subnets.iter().any(|subnet| subnet.range.contains(&addr)))
    }

    pub(super) fn put_service(&mut self, record: NetworkServiceRecord) {
        self.remove_service(record.id);
        let id = record.id;
        self.index(Owner::Service(id), [record.name.as_str()], &record.virtual_addrs);
        self.index(Owner::Alias(id), record.aliases.iter().map(String::as_str), &[]);
        self.services.insert(id, Arc::new(record));
    }

    pub(super) fn remove_service(&mut self, id: ServiceId) {
        let Some(record) = self.services.remove(&id) else { return };
        self.forget(&Owner::Service(id), [record.name.as_str()], &record.virtual_addrs);
        self.forget(&Owner::Alias(id), record.aliases.iter().map(String::as_str), &[]);
    }

    pub(super) fn put_task(&mut self, record: NetworkEndpointRecord) {
        self.remove_task(record.task);
        let task = record.task;
        if record.state == NetworkEndpointState::In {
            self.members.extend(record.service.map(|service| (service, task)));
        }
        self.index(Owner::Task(task), names_of(&record), &record.addrs);
        self.tasks.insert(task, Arc::new(record));
    }

    pub(super) fn remove_task(&mut self, task: TaskId) {
        let Some(record) = self.tasks.remove(&task) else { return };
        if let Some(service) = record.service {
            self.members.remove(&(service, task));
        }
        self.forget(&Owner::Task(task), names_of(&record), &record.addrs);
    }

    pub(super) fn put_container(&mut self, id: &Arc<str>, task: Option<TaskId>, part: &ContainerNetwork) {
        self.remove_container(id);
        let owner = Owner::Container(Arc::clone(id));
        self.index(owner, part.names.iter().map(String::as_str), &part.addrs);
        self.containers.insert(Arc::clone(id), Arc::new(LocalContainer { task, part: part.clone() }));
    }

    pub(super) fn remove_container(&mut self, id: &str) {
        let Some((id, container)) = self.containers.remove_with_key(id) else { return };
        let part = &container.part;
        self.forget(&Owner::Container(id), part.names.iter().map(String::as_str), &part.addrs);
    }

    fn index<'a>(&mut self, owner: Owner, names: impl IntoIterator<Item = &'a str>, addrs: &[IpAddr]) {
        // A name of nothing would answer for the names of networks.
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            self.names.insert((name.to_ascii_lowercase().into(), owner.clone()));
        }
        for addr in addrs {
            self.addrs.insert((*addr, owner.clone()));
        }
    }

    fn forget<'a>(&mut self, owner: &Owner, names: impl IntoIterator<Item = &'a str>, addrs: &[IpAddr]) {
        for name in names {
            self.names.remove(&(name.to_ascii_lowercase().into(), owner.clone()));
        }
        for addr in addrs {
            self.addrs.remove(&(*addr, owner.clone()));
        }
    }

    /// The part of a name before the name of this network.
    pub(super) fn strip_name<'a>(&self, name: &'a str) -> Option<&'a str> {
        let network = self.record.as_ref()?.name.as_str();
        let (start, end) = name.split_at_checked(name.len().checked_sub(network.len())?)?;
        if !end.eq_ignore_ascii_case(network) {
            return None;
        }
        start.strip_suffix('.')
    }

    /// Finds a name in lower case.
    pub(super) fn find(&self, name: &str, use_virtual_addrs: bool) -> Option<Found> {
        if let Some(service) = name.strip_prefix(TASKS_PREFIX)
            && let Some(found) = self.find_owned(service, false, Owner::is_service)
        {
            return Some(found);
        }
        self.find_owned(name, use_virtual_addrs, |_| true)
    }

    fn find_owned(&self, name: &str, use_virtual_addrs: bool, may_own: impl Fn(&Owner) -> bool) -> Option<Found> {
        let mut found: Option<(u8, Found)> = None;
        for owner in self.owners(name).filter(|owner| may_own(owner)) {
            let rank = owner.rank();
            let (found_rank, found) = found.get_or_insert((rank, Found::default()));
            if rank > *found_rank {
                if found.is_service || !found.addrs.is_empty() {
                    break;
                }
                *found_rank = rank;
            }
            self.show(owner, use_virtual_addrs, found);
        }
        found.map(|(_, found)| found)
    }

    fn owners(&self, name: &str) -> impl Iterator<Item = &Owner> {
        let name: Arc<str> = name.into();
        self.names
            .range((Arc::clone(&name), Owner::FIRST)..)
            .take_while(move |(owned, _)| *owned == name)
            .map(|(_, owner)| owner)
    }

    /// Adds the addresses that an owner of a name shows.
    fn show(&self, owner: &Owner, use_virtual_addrs: bool, found: &mut Found) {
        let addrs = match owner {
            Owner::Service(id) | Owner::Alias(id) => {
                found.is_service = true;
                match self.services.get(id) {
                    Some(service) if use_virtual_addrs && !service.virtual_addrs.is_empty() => {
                        found.is_virtual = true;
                        found.addrs.extend_from_slice(&service.virtual_addrs);
                    }
                    _ => {
                        found.is_of_tasks = true;
                        found.addrs.extend(self.addrs_of_tasks(*id));
                    }
                }
                return;
            }
            Owner::Task(task) => self.task_in(*task).map(|task| task.addrs.as_slice()),
            Owner::Container(id) => self.container_in(id).map(|container| container.part.addrs.as_slice()),
        };
        found.is_of_tasks = true;
        found.addrs.extend(addrs.into_iter().flatten());
    }

    fn addrs_of_tasks(&self, service: ServiceId) -> impl Iterator<Item = IpAddr> {
        self.members
            .range((service, TaskId(0))..=(service, TaskId(u128::MAX)))
            .filter_map(|(_, task)| self.tasks.get(task))
            .flat_map(|task| task.addrs.iter().copied())
    }

    /// A task, if it is `In`.
    fn task_in(&self, task: TaskId) -> Option<&NetworkEndpointRecord> {
        self.tasks.get(&task).filter(|task| task.state == NetworkEndpointState::In).map(|task| &**task)
    }

    /// A container of this node, if it is standalone or its task is `In`.
    fn container_in(&self, id: &str) -> Option<&LocalContainer> {
        let container = self.containers.get(id)?;
        container.task.is_none_or(|task| self.task_in(task).is_some()).then_some(&**container)
    }

    /// The name of an address in this network, and whether the address is virtual.
    pub(super) fn name_of(&self, addr: IpAddr) -> Option<(String, bool)> {
        let network = &self.record.as_ref()?.name;
        self.owners_of_addr(addr).find_map(|owner| {
            let (name, is_virtual) = match owner {
                Owner::Service(id) => (self.services.get(id).map(|service| service.name.as_str()), true),
                // An alias has no addresses of its own.
                Owner::Alias(_) => (None, true),
                Owner::Task(task) => (self.task_in(*task).and_then(main_name), false),
                Owner::Container(id) => (
                    self.container_in(id).and_then(|container| container.part.names.first()).map(String::as_str),
                    false,
                ),
            };
            Some((format!("{}.{network}", name?), is_virtual))
        })
    }

    /// The container of this node that has an address.
    pub(super) fn container_at(&self, addr: IpAddr) -> Option<&str> {
        self.owners_of_addr(addr).find_map(|owner| match owner {
            Owner::Container(id) => Some(&**id),
            _ => None,
        })
    }

    fn owners_of_addr(&self, addr: IpAddr) -> impl Iterator<Item = &Owner> {
        self.addrs.range((addr, Owner::FIRST)..).take_while(move |(owned, _)| *owned == addr).map(|(_, owner)| owner)
    }
}

/// The names of a task: those of its record, and its name without its id, which is the name of its slot.
fn names_of(record: &NetworkEndpointRecord) -> impl Iterator<Item = &str> {
    let slot = full_name(record).and_then(|name| name.rsplit_once('.')).map(|(slot, _)| slot);
    record.names.iter().map(String::as_str).chain(slot)
}

/// The name of a task that ends in its id.
fn full_name(record: &NetworkEndpointRecord) -> Option<&str> {
    let id = record.task.to_string();
    let is_full = |name: &&String| name.strip_suffix(id.as_str()).is_some_and(|slot| slot.ends_with('.'));
    record.names.iter().find(is_full).map(String::as_str)
}

/// The name that stands for a task's addresses.
fn main_name(record: &NetworkEndpointRecord) -> Option<&str> {
    full_name(record).or_else(|| record.names.first().map(String::as_str))
}
