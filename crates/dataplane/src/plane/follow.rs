//! Follows what changed, at the cost of what changed: only the endpoints, routes and served tasks that a change touches
//! are made anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use imbl::OrdMap;
use swarm_model::{Ingress, NodeId, ServiceId, TaskId};
use swarm_wire::endpoints::{EndpointRecord, EndpointState, EndpointTable, PublishedPort, RecordKey, ServiceRecord};

use super::Served;
use crate::{
    endpoint::{Drains, Endpoint, Standing},
    limits::Limits,
    protocol::ServiceStats,
    route::{Candidate, Candidates, Port, PortKey, Route, Way},
};

/// The knowledge that everything follows from.
pub(super) struct Known<'a> {
    /// The node of this data plane; none before swarmd said it.
    pub(super) own: Option<NodeId>,
    /// The tasks of this node that can be connected to.
    pub(super) locals: &'a BTreeMap<TaskId, IpAddr>,
    pub(super) table: &'a EndpointTable,
    pub(super) drains: &'a Arc<Drains>,
}

/// The parts of the knowledge that changed.
#[derive(Default)]
pub(super) struct Changed {
    /// Tasks whose records changed, or that came to this node, or ended on it.
    tasks: BTreeSet<TaskId>,
    /// Services whose records changed.
    services: BTreeSet<ServiceId>,
    /// Whether a record of a node changed.
    pub(super) are_nodes_others: bool,
}

impl Changed {
    /// Records changed.
    pub(super) fn of(keys: impl IntoIterator<Item = RecordKey>) -> Self {
        let mut changed = Self::default();
        for key in keys {
            match key {
                RecordKey::Node(_) => changed.are_nodes_others = true,
                RecordKey::Service(service) => drop(changed.services.insert(service)),
                RecordKey::Endpoint(task) => drop(changed.tasks.insert(task)),
            }
        }
        changed
    }

    /// These tasks came to this node, or ended on it.
    pub(super) fn of_tasks(tasks: impl IntoIterator<Item = TaskId>) -> Self {
        Self { tasks: tasks.into_iter().collect(), ..Self::default() }
    }
}

/// The consequences that others have to hear of.
#[derive(Default)]
pub(super) struct Effects {
    /// The ports that came or went, or on which this node is to listen and was not before, or the other way round.
    pub(super) ports: BTreeSet<PortKey>,
    /// A task of this node came or went, or its service changed.
    pub(super) are_served_others: bool,
}

/// The values that connections go by.
#[derive(Default)]
pub(super) struct Followed {
    endpoints: BTreeMap<TaskId, Placed>,
    services: BTreeMap<ServiceId, Service>,
    ports: BTreeMap<PortKey, Arc<Port>>,
    served: OrdMap<TaskId, Served>,
}

/// An endpoint, with the service that it was of in the table that was followed last.
struct Placed {
    endpoint: Arc<Endpoint>,
    service: Option<ServiceId>,
}

/// A service in the table that was followed last.
#[derive(Default)]
struct Service {
    ports: Vec<PublishedPort>,
    candidates: Candidates,
    /// The candidates of this node.
    locals: Candidates,
    ingress: Arc<Ingress>,
    limits: Arc<Limits>,
}

impl Service {
    fn put(&mut self, candidate: Candidate) {
        match candidate.way {
            Way::Local(_) => self.locals.put(candidate.clone()),
            Way::Remote(_) => self.locals.remove(candidate.endpoint.task),
        }
        self.candidates.put(candidate);
    }

    fn remove(&mut self, task: TaskId) {
        self.candidates.remove(task);
        self.locals.remove(task);
    }
}

impl Followed {
    /// The endpoints in the table, and the tasks of this node.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values().map(|placed| &placed.endpoint)
    }

    /// An endpoint.
    pub(super) fn endpoint(&self, task: TaskId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&task).map(|placed| &placed.endpoint)
    }

    /// The published ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = PortKey> {
        self.ports.keys().copied()
    }

    /// A published port, if this node is to listen on it.
    pub(super) fn port(&self, key: PortKey) -> Option<&Arc<Port>> {
        self.ports.get(&key).filter(|port| port.route().is_for_this_node())
    }

    /// Counters of the services in the table.
    pub(super) fn service_stats(&self) -> impl Iterator<Item = ServiceStats> {
        self.services.iter().filter_map(|(id, service)| service.limits.stats(*id))
    }

    /// The tasks of this node that links may ask for.
    pub(super) fn served(&self) -> &OrdMap<TaskId, Served> {
        &self.served
    }

    /// Follows a change.
    pub(super) fn follow(&mut self, known: &Known<'_>, changed: Changed) -> Effects {
        let Changed { mut tasks, mut services, .. } = changed;
        // The tasks of this node are served as their service says.
        for service in &services {
            tasks.extend(known.table.endpoints_of(*service).filter(|task| known.locals.contains_key(task)));
        }
        let mut effects = Effects::default();
        // Endpoints first: no connection begins from here on with one that is closed, whichever route it has read.
        for task in tasks {
            services.extend(self.endpoints.get(&task).and_then(|placed| placed.service));
            effects.are_served_others |= self.place(known, task);
            services.extend(known.table.endpoint(task).map(|record| record.service));
        }
        effects.ports = self.route(known.table, &services);
        effects
    }

    /// Brings an endpoint to its place. Returns whether the task is served otherwise than before.
    fn place(&mut self, known: &Known<'_>, task: TaskId) -> bool {
        let record = known.table.endpoint(task);
        let is_local = known.locals.contains_key(&task);
        let local = known.locals.get(&task).copied().filter(|_| record.is_some_and(|r| known.own == Some(r.node)));
        let way = match (known.own, local, record) {
            (_, Some(addr), _) => Some(Way::Local(addr)),
            (Some(own), None, Some(record)) if own != record.node => Some(Way::Remote(record.node)),
            _ => None,
        };
        let standing = match record {
            Some(record) => standing(record, known.own, way),
            // A task of this node that is not in the table serves no more, or not yet: swarmd need not wait for it.
            None if is_local => Standing::Ended,
            None => Standing::Gone,
        };
        let service = record.map(|record| record.service);
        let (endpoint, before) = if record.is_some() || is_local {
            let new = || Placed { endpoint: Arc::new(Endpoint::new(task, Arc::clone(known.drains))), service };
            let placed = self.endpoints.entry(task).or_insert_with(new);
            (Arc::clone(&placed.endpoint), std::mem::replace(&mut placed.service, service))
        } else {
            let Some(placed) = self.endpoints.remove(&task) else { return false };
            (placed.endpoint, placed.service)
        };
        let has_opened = endpoint.stand(standing);
        let way = way.filter(|_| standing == Standing::Open);
        if let Some(before) = before.filter(|before| way.is_none() || service != Some(*before))
            && let Some(before) = self.services.get_mut(&before)
        {
            before.remove(task);
        }
        if let (Some(way), Some(service)) = (way, service) {
            let service = self.services.entry(service).or_default();
            if has_opened {
                endpoint.join_at(service.candidates.turns());
            }
            service.put(Candidate { endpoint: Arc::clone(&endpoint), way });
        }
        match (local, service.and_then(|service| known.table.service(service))) {
            (Some(addr), Some(service)) => {
                let (ports, source) = (Arc::from(&*service.ports), service.ingress.source);
                self.served.insert(task, Served { endpoint, addr, ports, source });
                true
            }
            _ => self.served.remove(&task).is_some(),
        }
    }

    /// Gives the ports of these services their routes, and takes the ports back that no service has. Returns the
    /// ports that this node listens on otherwise than before.
    fn route(&mut self, table: &EndpointTable, services: &BTreeSet<ServiceId>) -> BTreeSet<PortKey> {
        let mut others = BTreeSet::new();
        for id in services {
            for port in self.services.get(id).into_iter().flat_map(|service| &service.ports) {
                let key = (port.protocol, port.published);
                let is_free = table.service_at(port.protocol, port.published).is_none();
                if is_free && let Some(port) = self.ports.remove(&key) {
                    port.withdraw();
                    others.insert(key);
                }
            }
        }
        for id in services {
            match table.service(*id) {
                Some(record) => self.route_service(record, &mut others),
                None => drop(self.services.remove(id)),
            }
        }
        others
    }

    fn route_service(&mut self, record: &ServiceRecord, others: &mut BTreeSet<PortKey>) {
        let service = self.services.entry(record.id).or_default();
        service.ports.clone_from(&record.ports);
        if *service.ingress != record.ingress {
            service.ingress = Arc::new(record.ingress.clone());
        }
        for port in &record.ports {
            let (candidates, locals) = (service.candidates.clone(), service.locals.clone());
            let (ingress, limits) = (Arc::clone(&service.ingress), Arc::clone(&service.limits));
            let route = Route { port: *port, candidates, locals, ingress, limits, is_published: true };
            let key = (port.protocol, port.published);
            match self.ports.get(&key) {
                Some(known) => {
                    if known.route().is_for_this_node() != route.is_for_this_node() {
                        others.insert(key);
                    }
                    known.set_route(route);
                }
                None => {
                    self.ports.insert(key, Arc::new(Port::new(route)));
                    others.insert(key);
                }
            }
        }
    }
}

/// Whether an endpoint gets connections from here.
fn standing(record: &EndpointRecord, own: Option<NodeId>, way: Option<Way>) -> Standing {
    match record.state {
        EndpointState::In if way.is_some() => Standing::Open,
        EndpointState::Draining if own == Some(record.node) && way.is_some() => Standing::Draining,
        EndpointState::Draining if own == Some(record.node) => Standing::Ended,
        EndpointState::Draining => Standing::Closed,
        EndpointState::In => Standing::Gone,
    }
}

#[cfg(test)]
mod tests;
