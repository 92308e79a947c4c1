//! The knowledge of the data plane: the messages of swarmd, and the values that follow from them for the forwarder. The
//! session with swarmd changes it; connections read the values without a lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use swarm_model::{IngressSource, NodeId, PortProtocol, ServiceId, TaskId};
use swarm_wire::endpoints::{TableError, TableUpdate, TableVersion};
use swarm_wire::{
    NodeIdentity,
    endpoints::{EndpointRecord, EndpointState, EndpointTable, PublishedPort, Record, TableReceiver},
};
use tokio::sync::{Notify, watch};

use crate::{
    endpoint::{Drains, Endpoint, Lease, Standing},
    protocol::{Configuration, Identity, LocalTask, Stats, ToData},
    remote::Remote,
    route::{Candidate, Port, Route, Way},
    source::Sources,
    voice::{About, Voice, Warnings},
};

/// A task of this node that links may ask for.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Of its container.
    pub(crate) addr: IpAddr,
    /// All that its service publishes.
    pub(crate) ports: Arc<[PublishedPort]>,
    /// The address that the service wants to see.
    pub(crate) source: IngressSource,
}

/// The knowledge of the data plane.
pub(crate) struct Plane {
    state: Mutex<State>,
    served: ArcSwap<BTreeMap<TaskId, Served>>,
    /// Something changed that listeners go by.
    pub(crate) changed: Notify,
    /// Something changed that connections go by.
    rebuilt: watch::Sender<()>,
    /// The tasks of this node changed, or the configuration.
    pub(crate) served_changed: Notify,
    pub(crate) sources: Sources,
    pub(crate) remote: Arc<dyn Remote>,
    pub(crate) voice: Voice,
    pub(crate) warnings: Warnings,
    pub(crate) drains: Arc<Drains>,
}

/// The content of swarmd's messages.
#[derive(Default)]
struct State {
    configuration: Option<Configuration>,
    identity: Option<Identity>,
    locals: BTreeMap<TaskId, IpAddr>,
    receiver: TableReceiver,
    endpoints: BTreeMap<TaskId, Arc<Endpoint>>,
    ports: BTreeMap<(PortProtocol, u16), Arc<Port>>,
    /// Tasks that have connections of the process before this one.
    elsewhere: BTreeMap<TaskId, Lease>,
}

/// The values that listeners go by.
pub(crate) struct Wanted {
    pub(crate) configuration: Configuration,
    pub(crate) ports: Vec<Arc<Port>>,
}

impl Plane {
    /// A data plane that knows nothing yet.
    pub(crate) fn new(remote: Arc<dyn Remote>) -> Self {
        let voice = Voice::default();
        Self {
            state: Mutex::default(),
            served: ArcSwap::default(),
            changed: Notify::new(),
            rebuilt: watch::Sender::new(()),
            served_changed: Notify::new(),
            sources: Sources::default(),
            remote,
            warnings: Warnings::new(voice.clone()),
            drains: Arc::new(Drains::new(voice.clone())),
            voice,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table that it has.
    pub(crate) fn version(&self) -> Option<TableVersion> {
        self.state().receiver.table().version()
    }

    /// Takes how to listen.
    pub(crate) fn configure(&self, configuration: Configuration) {
        let mut state = self.state();
        state.configuration = Some(configuration);
        self.rebuild(&mut state);
    }

    /// Takes the node's certificate and key. One that is of no use is a warning, and the one before stays.
    pub(crate) fn identify(&self, identity: Identity) {
        let taken = NodeIdentity::new(&*identity.certificate, identity.key.clone(), &*identity.trusted)
            .map_err(|e| e.to_string())
            .and_then(|node| self.remote.set_identity(node).map_err(|e| e.to_string()));
        match taken {
            Ok(()) => {
                self.state().identity = Some(identity);
                self.warnings.set(About::Identity, None);
            }
            Err(e) => {
                let text = format!("links to other nodes: this node's certificate and key are of no use: {e}");
                self.warnings.set(About::Identity, Some(text));
            }
        }
    }

    /// Takes all tasks of this node.
    pub(crate) fn set_locals(&self, tasks: Vec<LocalTask>) {
        let mut state = self.state();
        state.locals = tasks.into_iter().map(|local| (local.task, local.addr)).collect();
        self.rebuild(&mut state);
    }

    /// Takes a task of this node.
    pub(crate) fn put_local(&self, local: LocalTask) {
        let mut state = self.state();
        state.locals.insert(local.task, local.addr);
        self.rebuild(&mut state);
    }

    /// A task of this node has ended.
    pub(crate) fn remove_local(&self, task: TaskId) {
        let mut state = self.state();
        state.locals.remove(&task);
        self.rebuild(&mut state);
    }

    /// Takes changes of the table. Returns what it is now, if an update is complete; connections go by it already.
    ///
    /// # Errors
    /// [`TableError`]; the table is as before.
    pub(crate) fn change(&self, update: &TableUpdate) -> Result<Option<TableVersion>, TableError> {
        let mut state = self.state();
        if state.receiver.take(update)?.is_none() {
            return Ok(None);
        }
        self.rebuild(&mut state);
        Ok(state.receiver.table().version())
    }

    /// Counters of the endpoints in the table.
    pub(crate) fn stats(&self) -> Stats {
        let endpoints = self.state().endpoints.values().filter_map(|endpoint| endpoint.stats()).collect();
        Stats { endpoints, sources: self.sources.stats() }
    }

    /// The ports that are to be listened on; none before swarmd configured them.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let state = self.state();
        let configuration = state.configuration.clone()?;
        Some(Wanted { configuration, ports: state.ports.values().cloned().collect() })
    }

    /// A task of this node that links may ask for.
    pub(crate) fn served(&self, task: TaskId) -> Option<Served> {
        self.served.load().get(&task).cloned()
    }

    /// Ready at each change of what connections go by.
    pub(crate) fn rebuilt(&self) -> watch::Receiver<()> {
        self.rebuilt.subscribe()
    }

    /// The addresses of the tasks of this node whose services want to see the client's address.
    pub(crate) fn addrs_by_client(&self) -> BTreeSet<IpAddr> {
        let served = self.served.load();
        served.values().filter(|served| served.source == IngressSource::Client).map(|served| served.addr).collect()
    }

    /// The messages that bring the next process to the same knowledge.
    pub(crate) fn said(&self) -> Vec<ToData> {
        let state = self.state();
        let locals = state.locals.iter().map(|(task, addr)| LocalTask { task: *task, addr: *addr }).collect();
        let mut said = vec![ToData::LocalTasks(locals)];
        said.extend(state.configuration.clone().map(ToData::Configure));
        said.extend(state.identity.clone().map(ToData::Identity));
        let table = state.receiver.table();
        if table.version().is_some() {
            said.extend(table.to_updates().into_iter().map(ToData::Table));
        }
        said
    }

    /// The tasks in the table that have connections.
    pub(crate) fn tasks_in_use(&self) -> BTreeSet<TaskId> {
        let state = self.state();
        state.endpoints.values().filter(|endpoint| endpoint.has_connections()).map(|endpoint| endpoint.task).collect()
    }

    /// Takes which tasks have connections of the process before this one: none of them is drained.
    pub(crate) fn set_elsewhere(&self, tasks: &BTreeSet<TaskId>) {
        let mut state = self.state();
        state.elsewhere.retain(|task, _| tasks.contains(task));
        for task in tasks {
            if let Some(endpoint) = state.endpoints.get(task).cloned() {
                state.elsewhere.entry(*task).or_insert_with(|| endpoint.begin_linked());
            }
        }
    }

    /// Brings everything that connections read to what swarmd said.
    fn rebuild(&self, state: &mut State) {
        let State { configuration, locals, receiver, endpoints, ports, .. } = state;
        let own = configuration.as_ref().map(|configuration| configuration.node);
        let table = receiver.table();
        // Endpoints first: what is not open from here on gets no connection, whichever route one has read.
        let mut candidates: BTreeMap<ServiceId, Vec<Candidate>> = BTreeMap::new();
        let mut opened: BTreeMap<ServiceId, Vec<Arc<Endpoint>>> = BTreeMap::new();
        let mut served = BTreeMap::new();
        let mut present = BTreeSet::new();
        for record in endpoint_records(table) {
            present.insert(record.task);
            let endpoint = endpoints
                .entry(record.task)
                .or_insert_with(|| Arc::new(Endpoint::new(record.task, Arc::clone(&self.drains))));
            let local = locals.get(&record.task).copied().filter(|_| own == Some(record.node));
            let way = match (own, local) {
                (_, Some(addr)) => Some(Way::Local(addr)),
                (Some(own), None) if own != record.node => Some(Way::Remote(record.node)),
                _ => None,
            };
            if endpoint.stand(standing(record, own, way)) {
                opened.entry(record.service).or_default().push(Arc::clone(endpoint));
            }
            if let (EndpointState::In, Some(way)) = (record.state, way) {
                let candidate = Candidate { endpoint: Arc::clone(endpoint), way };
                candidates.entry(record.service).or_default().push(candidate);
            }
            if let (Some(addr), Some(service)) = (local, table.service(record.service)) {
                let ports = Arc::from(&*service.ports);
                let (endpoint, source) = (Arc::clone(endpoint), service.source);
                served.insert(record.task, Served { endpoint, addr, ports, source });
            }
        }
        // A task of this node that is not in the table serves no more, or not yet: swarmd need not wait for it.
        for task in locals.keys().filter(|task| !present.contains(task)) {
            endpoints.entry(*task).or_insert_with(|| Arc::new(Endpoint::new(*task, Arc::clone(&self.drains))));
        }
        endpoints.retain(|task, endpoint| {
            let (is_present, is_local) = (present.contains(task), locals.contains_key(task));
            if !is_present {
                endpoint.stand(if is_local { Standing::Ended } else { Standing::Gone });
            }
            is_present || is_local
        });
        for (service, opened) in opened {
            let turns = candidates.get(&service).into_iter().flatten().map(|c| c.endpoint.turns()).max().unwrap_or(0);
            opened.iter().for_each(|endpoint| endpoint.join_at(turns));
        }
        self.served.store(Arc::new(served));
        route(table, candidates, ports);
        self.remote.set_peers(peers(table, own));
        self.changed.notify_one();
        self.rebuilt.send_replace(());
        self.served_changed.notify_one();
    }
}

fn endpoint_records(table: &EndpointTable) -> impl Iterator<Item = &EndpointRecord> {
    table.records().filter_map(|record| match record {
        Record::Endpoint(endpoint) => Some(endpoint),
        Record::Node(_) | Record::Service(_) => None,
    })
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

/// Gives each port of the table its route, and takes the others back.
fn route(
    table: &EndpointTable,
    mut candidates: BTreeMap<ServiceId, Vec<Candidate>>,
    ports: &mut BTreeMap<(PortProtocol, u16), Arc<Port>>,
) {
    let mut present = BTreeSet::new();
    for record in table.records() {
        let Record::Service(service) = record else { continue };
        let candidates: Arc<[Candidate]> = candidates.remove(&service.id).unwrap_or_default().into();
        for port in &service.ports {
            let key = (port.protocol, port.published);
            let (candidates, source) = (Arc::clone(&candidates), service.source);
            let route = Route { port: *port, candidates, source, is_published: true };
            present.insert(key);
            match ports.get(&key) {
                Some(known) => known.set_route(route),
                None => drop(ports.insert(key, Arc::new(Port::new(route)))),
            }
        }
    }
    ports.retain(|key, port| {
        let is_present = present.contains(key);
        if !is_present {
            port.withdraw();
        }
        is_present
    });
}

/// The nodes that may have links to this one.
fn peers(table: &EndpointTable, own: Option<NodeId>) -> BTreeMap<NodeId, SocketAddr> {
    let nodes = table.records().filter_map(|record| match record {
        Record::Node(node) => Some((node.id, node.data_addr)),
        Record::Service(_) | Record::Endpoint(_) => None,
    });
    nodes.filter(|(id, _)| Some(*id) != own).collect()
}
