//! The knowledge of the data plane: the messages of swarmd, and the values that follow from them for the forwarder. The
//! session with swarmd changes it; connections read the values without a lock.

mod follow;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use imbl::OrdMap;
use swarm_model::{IngressSource, NodeId, NodeWarning, ObjectId, TaskId, WarningCause};
use swarm_wire::{
    NodeIdentity,
    endpoints::{
        EndpointTable, PublishedPort, Record, RecordKey, TableError, TableReceiver, TableUpdate, TableVersion,
    },
    networks::{NetworkRecord, NetworkUpdate},
};
use tokio::sync::{Notify, watch};

use self::follow::{Changed, Followed, Known};
use crate::{
    endpoint::{Drains, Endpoint, Lease},
    names::Names,
    protocol::{Configuration, Identity, LocalTask, Stats, ToData},
    remote::Remote,
    route::{Port, PortKey},
    source::Sources,
    switch::Switch,
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
    served: ArcSwap<OrdMap<TaskId, Served>>,
    /// The ports that listeners go by changed, or the configuration.
    pub(crate) changed: Notify,
    /// The tasks of this node that links may ask for changed.
    rebuilt: watch::Sender<()>,
    /// The tasks of this node changed, or the configuration.
    pub(crate) served_changed: Notify,
    pub(crate) sources: Sources,
    pub(crate) remote: Arc<dyn Remote>,
    pub(crate) voice: Voice,
    pub(crate) warnings: Arc<Warnings>,
    pub(crate) drains: Arc<Drains>,
    pub(crate) names: Names,
    pub(crate) switch: Switch,
}

/// The content of swarmd's messages.
#[derive(Default)]
struct State {
    configuration: Option<Configuration>,
    identity: Option<Identity>,
    locals: BTreeMap<TaskId, IpAddr>,
    receiver: TableReceiver,
    followed: Followed,
    /// The ports that changed since listeners asked.
    ports: BTreeSet<PortKey>,
    /// Whether the configuration changed since listeners asked.
    is_configured_anew: bool,
    /// Tasks that have connections of the process before this one.
    elsewhere: BTreeMap<TaskId, Lease>,
}

/// The values that listeners go by, as far as they changed.
pub(crate) struct Wanted {
    /// How to listen, if that changed: on all ports anew.
    pub(crate) configuration: Option<Configuration>,
    /// The ports that changed; none for one that nobody is to listen on.
    pub(crate) ports: Vec<(PortKey, Option<Arc<Port>>)>,
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
            names: Names::default(),
            switch: Switch::new(Arc::clone(&remote)),
            remote,
            warnings: Arc::new(Warnings::new(voice.clone())),
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
        self.names.set_net_socket(configuration.net_socket.clone());
        self.switch.set_node(configuration.node);
        let mut state = self.state();
        let node = configuration.node;
        let before = state.configuration.replace(configuration);
        state.is_configured_anew = true;
        if before.is_none_or(|before| before.node != node) {
            // Each task may be one of this node now, or one of another.
            let locals = state.locals.keys().map(|task| RecordKey::Endpoint(*task));
            let changed = Changed::of(state.receiver.table().keys().chain(locals));
            self.follow(&mut state, changed);
        }
        self.changed.notify_one();
        self.served_changed.notify_one();
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
                let cause = WarningCause::Identity;
                self.warnings.set(About::Identity, Some(NodeWarning { cause, text }));
            }
        }
    }

    /// Takes all tasks of this node.
    pub(crate) fn set_locals(&self, tasks: Vec<LocalTask>) {
        let mut state = self.state();
        let locals: BTreeMap<_, _> = tasks.into_iter().map(|local| (local.task, local.addr)).collect();
        let is_other = |task: &&TaskId| locals.get(task) != state.locals.get(task);
        let changed = Changed::of_tasks(locals.keys().chain(state.locals.keys()).filter(is_other).copied());
        state.locals = locals;
        self.follow(&mut state, changed);
    }

    /// Takes a task of this node.
    pub(crate) fn put_local(&self, local: LocalTask) {
        let mut state = self.state();
        state.locals.insert(local.task, local.addr);
        self.follow(&mut state, Changed::of_tasks([local.task]));
    }

    /// A task of this node has ended.
    pub(crate) fn remove_local(&self, task: TaskId) {
        let mut state = self.state();
        state.locals.remove(&task);
        self.follow(&mut state, Changed::of_tasks([task]));
    }

    /// Takes changes of the table. Returns what it is now, if an update is complete; connections go by it already.
    ///
    /// # Errors
    /// [`TableError`]; the table is as before.
    pub(crate) fn change(&self, update: &TableUpdate) -> Result<Option<TableVersion>, TableError> {
        let mut state = self.state();
        let Some(changed) = state.receiver.take(update)? else { return Ok(None) };
        self.follow(&mut state, Changed::of(changed));
        Ok(state.receiver.table().version())
    }

    /// Takes a network in which this node takes part.
    pub(crate) fn put_network(&self, record: NetworkRecord) {
        self.switch.put_network(&record, self.names.net_socket(), &self.warnings);
        self.names.put_network(record);
    }

    /// The node has left a network.
    pub(crate) fn remove_network(&self, network: ObjectId) {
        self.switch.remove_network(network);
        self.names.remove_network(network);
    }

    /// Takes changes of the members of a network.
    pub(crate) fn change_members(&self, update: &NetworkUpdate) {
        self.names.change(update, |members, changed| self.switch.change(update.network, members, changed));
    }

    /// Other networks and containers than these are gone.
    pub(crate) fn keep_networks(&self, networks: &[ObjectId], containers: &[String]) {
        for network in self.names.keep(networks, containers) {
            self.switch.remove_network(network);
        }
    }

    /// Counters of the endpoints and services in the table.
    pub(crate) fn stats(&self) -> Stats {
        let state = self.state();
        let served = self.served.load();
        let source = |task| served.get(&task).map(|served| self.sources.shown(served.source, served.addr));
        let endpoints =
            state.followed.endpoints().filter_map(|endpoint| endpoint.stats(source(endpoint.task))).collect();
        Stats {
            endpoints,
            services: state.followed.service_stats().collect(),
            sources: self.sources.stats(),
            switch: self.switch.stats(),
        }
    }

    /// The ports to listen on that changed since the last call; none before swarmd said how to listen.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let mut state = self.state();
        let configuration = state.configuration.clone()?;
        let keys = std::mem::take(&mut state.ports);
        let configuration = std::mem::take(&mut state.is_configured_anew).then_some(configuration);
        let keys = if configuration.is_some() { state.followed.ports().collect() } else { keys };
        let ports = keys.into_iter().map(|key| (key, state.followed.port(key).cloned())).collect();
        Some(Wanted { configuration, ports })
    }

    /// The node of this data plane; none before swarmd said it.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.state().configuration.as_ref().map(|configuration| configuration.node)
    }

    /// A task of this node that links may ask for.
    pub(crate) fn served(&self, task: TaskId) -> Option<Served> {
        self.served.load().get(&task).cloned()
    }

    /// Ready at each change of the tasks of this node that links may ask for.
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
        said.extend(self.names.said());
        said
    }

    /// The tasks in the table that have connections.
    pub(crate) fn tasks_in_use(&self) -> BTreeSet<TaskId> {
        let state = self.state();
        state.followed.endpoints().filter(|endpoint| endpoint.has_connections()).map(|endpoint| endpoint.task).collect()
    }

    /// Takes which tasks have connections of the process before this one: none of them is drained.
    pub(crate) fn set_elsewhere(&self, tasks: &BTreeSet<TaskId>) {
        let mut state = self.state();
        state.elsewhere.retain(|task, _| tasks.contains(task));
        for task in tasks {
            if let Some(endpoint) = state.followed.endpoint(*task).cloned() {
                state.elsewhere.entry(*task).or_insert_with(|| endpoint.begin_linked());
            }
        }
    }

    /// Brings the values that connections read to what swarmd said.
    fn follow(&self, state: &mut State, changed: Changed) {
        let State { configuration, locals, receiver, followed, ports, .. } = state;
        let own = configuration.as_ref().map(|configuration| configuration.node);
        let known = Known { own, locals, table: receiver.table(), drains: &self.drains };
        let are_peers_others = changed.are_nodes_others;
        let effects = followed.follow(&known, changed);
        if effects.are_served_others {
            self.served.store(Arc::new(followed.served().clone()));
            self.rebuilt.send_replace(());
            self.served_changed.notify_one();
        }
        if are_peers_others {
            self.remote.set_peers(peers(receiver.table(), own));
        }
        if !effects.ports.is_empty() {
            ports.extend(effects.ports);
            self.changed.notify_one();
        }
    }
}

/// The nodes that may have links to this one.
fn peers(table: &EndpointTable, own: Option<NodeId>) -> BTreeMap<NodeId, SocketAddr> {
    let nodes = table.records().filter_map(|record| match record {
        Record::Node(node) => Some((node.id, node.data_addr)),
        Record::Service(_) | Record::Endpoint(_) => None,
    });
    nodes.filter(|(id, _)| Some(*id) != own).collect()
}
