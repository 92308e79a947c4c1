//! The networks of this node: which tasks are in them, here and on other nodes. `swarmd net`, which makes the devices and
//! tables, and the data plane, which answers the questions for names, are told what changes.
//!
//! A new connection to a process is told all networks and containers. Networks and containers that an earlier agent had named
//! and that are not there any more go only when this agent knows all of its tasks: an agent that was started anew takes nothing
//! away.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use swarm_dataplane::protocol::{ContainerNames, ContainerNetwork, ToData, VirtualAddrs};
use swarm_model::{
    NetworkContent, NodeId, NodeWarning, ObjectId, ObjectKey, ObjectKind, ServiceId, TaskId, TaskState, WarningCause,
};
use swarm_net::protocol::{Abilities, FromNet, LocalContainer, LocalNetwork, NetWarning, ToNet};
use swarm_wire::networks::{Member, MemberKey, Members, NetworkEndpointState, NetworkRecord, NetworkUpdate, Subnet};

use super::{Now, Output, Worker, tasks::Entry};
use crate::{
    executor::{Observed, Running},
    network,
};

/// An event of `swarmd net`.
#[derive(Clone, Debug, PartialEq)]
pub enum NetInput {
    /// The agent is connected to `swarmd net`, which can use these parts of the kernel.
    Up(Abilities),
    /// The agent is not connected, for this reason.
    Down(String),
    /// `swarmd net` sent a message.
    Says(FromNet),
}

/// The worker's knowledge of networks.
#[derive(Debug, Default)]
pub(super) struct Networks {
    /// Whether a task was in a network: until then neither process is needed.
    is_needed: bool,
    /// The parts of the kernel that can be used, while `swarmd net` is connected.
    abilities: Option<Abilities>,
    /// Why it is not connected.
    reason: String,
    /// Whether it was told since it was connected that all is said.
    is_complete: bool,
    /// The same of the data plane.
    names_are_complete: bool,
    tables: BTreeMap<ObjectId, Table>,
    /// The containers of tasks in networks, by their tasks.
    containers: BTreeMap<TaskId, LocalContainer>,
    /// The containers whose virtual addresses work.
    loaded: BTreeSet<String>,
    warnings: Vec<NetWarning>,
}

/// The records of a network, and what follows from them for this node.
#[derive(Debug, Default)]
struct Table {
    members: Members,
    of_service: BTreeMap<ServiceId, BTreeSet<TaskId>>,
    /// The tasks on other engines: their addresses, and the data addresses of their nodes.
    peers: BTreeMap<TaskId, (Vec<IpAddr>, IpAddr)>,
    /// The addresses of tasks that ended without a stop in order.
    gone: BTreeMap<TaskId, Vec<IpAddr>>,
    /// The virtual addresses of services, and the addresses of the tasks behind them.
    services: BTreeMap<ServiceId, (Vec<IpAddr>, Vec<IpAddr>)>,
}

/// The tasks and services that changed records concern.
#[derive(Default)]
struct Touched {
    tasks: BTreeSet<TaskId>,
    services: BTreeSet<ServiceId>,
}

impl Table {
    /// Follows which tasks a service has. Returns what is to be looked at.
    fn touch(&mut self, changed: Vec<(MemberKey, Option<Member>)>) -> Touched {
        let mut touched = Touched::default();
        for (key, before) in changed {
            match key {
                MemberKey::Endpoint(task) => {
                    touched.tasks.insert(task);
                    // An attached container has no service.
                    if let Some(Member::Endpoint(before)) = before
                        && let Some(service) = before.service
                    {
                        touched.services.insert(service);
                        if let Some(tasks) = self.of_service.get_mut(&service)
                            && tasks.remove(&task)
                            && tasks.is_empty()
                        {
                            self.of_service.remove(&service);
                        }
                    }
                    if let Some(service) = self.members.endpoint(task).and_then(|endpoint| endpoint.service) {
                        touched.services.insert(service);
                        self.of_service.entry(service).or_default().insert(task);
                    }
                }
                MemberKey::Service(service) => drop(touched.services.insert(service)),
                MemberKey::Node(node) => {
                    let of_node = self.members.endpoints().filter(|endpoint| endpoint.node == node);
                    touched.tasks.extend(of_node.map(|endpoint| endpoint.task));
                }
            }
        }
        touched
    }

    /// The data address of a node on another engine; none of a node whose containers are reached without it.
    fn way_to(&self, node: NodeId, own: NodeId, own_engine: &str) -> Option<IpAddr> {
        match self.members.get(MemberKey::Node(node)) {
            Some(Member::Node(found)) if node != own && (found.engine != own_engine || own_engine.is_empty()) => {
                Some(found.data_addr)
            }
            _ => None,
        }
    }

    /// The virtual addresses of a service, and the addresses of the tasks behind them.
    fn behind(&self, service: ServiceId) -> Option<(Vec<IpAddr>, Vec<IpAddr>)> {
        let Some(Member::Service(record)) = self.members.get(MemberKey::Service(service)) else { return None };
        let tasks = self.of_service.get(&service).into_iter().flatten();
        let endpoints = tasks.filter_map(|task| self.members.endpoint(*task));
        let shown = endpoints.filter(|endpoint| endpoint.state == NetworkEndpointState::In);
        let backends = shown.flat_map(|endpoint| endpoint.addrs.iter().copied()).collect();
        Some((record.virtual_addrs.clone(), backends)).filter(|(addrs, _)| !addrs.is_empty())
    }
}

impl Networks {
    /// The warnings about networks.
    pub(super) fn warnings(&self) -> impl Iterator<Item = NodeWarning> {
        let warning = |warning: &NetWarning| NodeWarning { cause: WarningCause::Network, text: warning.text.clone() };
        self.warnings.iter().map(warning)
    }

    /// Whether virtual addresses work in a container.
    pub(super) fn virtual_addrs(&self, container: &str) -> VirtualAddrs {
        match &self.abilities {
            Some(abilities) if abilities.nft.is_err() || abilities.setns.is_err() => VirtualAddrs::Missing,
            _ if self.loaded.contains(container) => VirtualAddrs::Loaded,
            _ => VirtualAddrs::Loading,
        }
    }

    /// Virtual addresses do not work in a container any more.
    pub(super) fn unload(&mut self, container: &str) {
        self.loaded.remove(container);
    }

    pub(super) fn tell(&self, out: &mut Vec<Output>, messages: impl IntoIterator<Item = ToNet>) {
        if self.abilities.is_some() {
            out.extend(messages.into_iter().map(Output::Net));
        }
    }
}

impl Worker {
    /// The managers changed the records of a network.
    pub(super) fn network_changed(&mut self, now: Now, update: NetworkUpdate, out: &mut Vec<Output>) {
        let network = update.network;
        if !self.objects.contains_key(&ObjectKey { kind: ObjectKind::Network, id: network }) {
            tracing::warn!(%network, "the managers told of a network that no task of this node is in");
            return;
        }
        let table = self.networks.tables.entry(network).or_default();
        let changed = match table.members.take(&update) {
            Ok(changed) => changed,
            // A manager of another version: the next session begins with all records.
            Err(error) => {
                return self.hang_up(now, format!("records of network {network} cannot be read: {error}"), out);
            }
        };
        let touched = table.touch(changed);
        if self.data.is_up() {
            out.push(Output::Data(ToData::Members(update)));
        }
        self.follow_records(network, touched, out);
    }

    /// Finds what changed records mean for the devices and tables of this node.
    fn follow_records(&mut self, network: ObjectId, touched: Touched, out: &mut Vec<Output>) {
        let (own, own_engine) = (self.options.node.id, self.engine.engine_id.clone());
        let Some(table) = self.networks.tables.get_mut(&network) else { return };
        let mut messages = Vec::new();
        for task in touched.tasks {
            let endpoint = table.members.endpoint(task);
            let is_gone = endpoint.is_some_and(|found| found.state == NetworkEndpointState::Gone);
            let here = endpoint.filter(|_| !is_gone);
            let peer = here.and_then(|found| Some((found.addrs.clone(), table.way_to(found.node, own, &own_engine)?)));
            let gone = endpoint.filter(|_| is_gone).map(|found| found.addrs.clone());
            if table.peers.get(&task) != peer.as_ref() {
                let before = table.peers.remove(&task);
                let is_other = |addrs: &Vec<IpAddr>| peer.as_ref().is_none_or(|(now, _)| now != addrs);
                if let Some((addrs, _)) = before.filter(|(addrs, _)| is_other(addrs)) {
                    messages.push(ToNet::RemovePeer { network, addrs });
                }
                if let Some((addrs, at)) = peer {
                    table.peers.insert(task, (addrs.clone(), at));
                    messages.push(ToNet::PutPeer { network, addrs, at });
                }
            }
            if table.gone.get(&task) != gone.as_ref() {
                let before = table.gone.remove(&task).unwrap_or_default();
                messages.extend(before.into_iter().map(|addr| ToNet::RemoveGone { network, addr }));
                if let Some(addrs) = gone {
                    messages.extend(addrs.iter().map(|addr| ToNet::PutGone { network, addr: *addr }));
                    table.gone.insert(task, addrs);
                }
            }
        }
        for service in touched.services {
            let now = table.behind(service);
            if table.services.get(&service) == now.as_ref() {
                continue;
            }
            match now {
                Some((virtual_addrs, backends)) => {
                    table.services.insert(service, (virtual_addrs.clone(), backends.clone()));
                    messages.push(ToNet::PutService { network, service, virtual_addrs, backends });
                }
                None => {
                    table.services.remove(&service);
                    messages.push(ToNet::RemoveService { network, service });
                }
            }
        }
        self.networks.tell(out, messages);
    }

    /// `swarmd net` or the connection to it changed.
    pub(super) fn net_input(&mut self, now: Now, input: NetInput, out: &mut Vec<Output>) {
        match input {
            NetInput::Up(abilities) => {
                self.networks.abilities = Some(abilities);
                self.networks.is_complete = false;
                self.networks.loaded.clear();
                self.say_networks(out);
                self.pump_all(now, out);
                self.answer_asked(out);
            }
            NetInput::Down(reason) => {
                (self.networks.abilities, self.networks.reason) = (None, reason);
                self.networks.warnings.clear();
                self.tell(out);
            }
            NetInput::Says(FromNet::Ready { container }) => {
                if self.networks.loaded.insert(container.clone()) {
                    self.say_names(&container, out);
                }
            }
            NetInput::Says(FromNet::NotReady { container, reason }) => {
                tracing::warn!(%container, %reason, "virtual addresses do not work in a container yet");
            }
            NetInput::Says(FromNet::Warnings(warnings)) => {
                for warning in warnings.iter().filter(|warning| !self.networks.warnings.contains(warning)) {
                    tracing::warn!("{}", warning.text);
                }
                self.networks.warnings = warnings;
                self.tell(out);
            }
            NetInput::Says(FromNet::Refused { reason }) => tracing::warn!(%reason, "swarmd net refused a request"),
            NetInput::Says(
                FromNet::Hello { .. }
                | FromNet::Synced(_)
                | FromNet::Subnet { .. }
                | FromNet::Resolver
                | FromNet::Switch,
            ) => {}
        }
    }

    /// Tells a new connection to `swarmd net` all networks and containers.
    fn say_networks(&self, out: &mut Vec<Output>) {
        let mut messages = Vec::new();
        for (id, content) in self.known_networks() {
            messages.push(ToNet::PutNetwork(local_network(id, content)));
            let Some(table) = self.networks.tables.get(&id) else { continue };
            let peers = table.peers.values().cloned();
            messages.extend(peers.map(|(addrs, at)| ToNet::PutPeer { network: id, addrs, at }));
            let gone = table.gone.values().flatten();
            messages.extend(gone.map(|addr| ToNet::PutGone { network: id, addr: *addr }));
            let services = table.services.iter().map(|(service, behind)| (*service, behind.clone()));
            messages.extend(services.map(|(service, (virtual_addrs, backends))| ToNet::PutService {
                network: id,
                service,
                virtual_addrs,
                backends,
            }));
        }
        let containers = self.networks.containers.values().chain(self.attachments.containers().values());
        messages.extend(containers.cloned().map(ToNet::PutContainer));
        self.networks.tell(out, messages);
    }

    /// Tells a new connection to the data plane all networks and containers.
    pub(super) fn say_all_names(&mut self, out: &mut Vec<Output>) {
        self.networks.names_are_complete = false;
        for (id, content) in self.known_networks() {
            out.push(Output::Data(ToData::PutNetwork(self.record(id, content))));
            let members = self.networks.tables.get(&id).map(|table| &table.members);
            let whole = members.filter(|members| members.is_whole()).map(|members| members.to_updates(id));
            out.extend(whole.into_iter().flatten().map(|update| Output::Data(ToData::Members(update))));
        }
        for task in self.networks.containers.keys() {
            out.extend(self.names_of(*task).map(|names| Output::Data(ToData::PutContainer(names))));
        }
        for container in self.attachments.containers().keys() {
            out.extend(self.attached_names(container).map(|names| Output::Data(ToData::PutContainer(names))));
        }
    }

    /// Once this agent knows the tasks of the node, their containers and their networks, both processes are told that this is
    /// all: networks and containers that an earlier agent had named go. Looked at after each step.
    pub(super) fn say_that_all_is_said(&mut self, out: &mut Vec<Output>) {
        let are_whole = || {
            self.known_networks()
                .all(|(id, _)| self.networks.tables.get(&id).is_some_and(|table| table.members.is_whole()))
        };
        let is_due = !self.networks.is_complete && self.networks.abilities.is_some();
        let names_are_due = !self.networks.names_are_complete && self.data.is_up();
        let are_unknown = || self.has_unknown_containers() || !self.attachments.are_known();
        if !(is_due || names_are_due) || !self.synced || are_unknown() || !are_whole() {
            return;
        }
        if is_due {
            self.networks.is_complete = true;
            self.networks.tell(out, [ToNet::Complete]);
        }
        if names_are_due {
            self.networks.names_are_complete = true;
            let networks = self.known_networks().map(|(id, _)| id).collect();
            let of_tasks = self.networks.containers.values().map(|container| container.id.clone());
            let containers = of_tasks.chain(self.attachments.containers().keys().cloned()).collect();
            out.push(Output::Data(ToData::KeepNames { networks, containers }));
        }
    }

    /// The networks that the managers have told the node of.
    fn known_networks(&self) -> impl Iterator<Item = (ObjectId, &NetworkContent)> {
        let networks = self.objects.iter().filter(|(key, _)| key.kind == ObjectKind::Network);
        networks.filter_map(|(key, object)| Some((key.id, object.content.as_network()?)))
    }

    /// The managers have told the node of an object, which may be a network.
    pub(super) fn learn_network(&mut self, key: ObjectKey, out: &mut Vec<Output>) {
        let Some(content) = self.objects.get(&key).and_then(|object| object.content.as_network()).cloned() else {
            return;
        };
        if !self.networks.is_needed {
            self.networks.is_needed = true;
            out.push(Output::NeedNet);
            self.need_data(out);
        }
        self.networks.tell(out, [ToNet::PutNetwork(local_network(key.id, &content))]);
        if self.data.is_up() {
            out.push(Output::Data(ToData::PutNetwork(self.record(key.id, &content))));
        }
        self.answer_asked(out);
    }

    /// The node is to have an object no more, which may be a network.
    pub(super) fn leave_network(&mut self, key: ObjectKey, out: &mut Vec<Output>) {
        if key.kind != ObjectKind::Network {
            return;
        }
        self.networks.tables.remove(&key.id);
        self.networks.tell(out, [ToNet::RemoveNetwork(key.id)]);
        if self.data.is_up() {
            out.push(Output::Data(ToData::RemoveNetwork(key.id)));
        }
        self.keep_networks(out);
    }

    /// Has the engine's parts of networks removed that no task of this node is in. Before the managers have said all, they may
    /// be those of tasks that run.
    pub(super) fn keep_networks(&self, out: &mut Vec<Output>) {
        if self.synced && self.options.has_networks {
            out.push(Output::KeepNetworks(self.known_networks().map(|(id, _)| id).collect()));
        }
    }

    fn record(&self, id: ObjectId, content: &NetworkContent) -> NetworkRecord {
        let key = ObjectKey { kind: ObjectKind::Network, id };
        NetworkRecord {
            id,
            name: self.objects.get(&key).map(|object| object.name.clone()).unwrap_or_default(),
            vni: content.vni,
            subnets: subnets(content),
            mtu: content.mtu,
            internal: content.internal,
            encrypted: content.encrypted,
        }
    }

    /// Follows the container of a task that is in networks: from before its start until it has ended.
    pub(super) fn follow_container(&mut self, task: TaskId, out: &mut Vec<Output>) {
        let Some(entry) = self.tasks.get(&task).filter(|entry| !entry.task.assigned.addrs.is_empty()) else { return };
        let (id, sandbox) = match &entry.observed {
            Observed::Created { id } if is_to_run(entry) => (id, None),
            Observed::Running(running) => (&running.id, self.sandbox(running)),
            // Most often it runs on: nothing was seen of its end.
            Observed::Unknown => return,
            _ => return self.part_with_container(task, out),
        };
        let addrs = entry.task.assigned.addrs.iter().map(|at| (at.network, at.addr)).collect();
        let now = LocalContainer { id: id.clone(), addrs, sandbox };
        let before = self.networks.containers.get(&task);
        // A listing does not say the process id.
        if before.is_some_and(|known| *known == now || known.id == now.id && now.sandbox.is_none()) {
            return;
        }
        let is_new = before.is_none_or(|known| known.id != now.id);
        if is_new {
            self.part_with_container(task, out);
        }
        self.networks.tell(out, [ToNet::PutContainer(now.clone())]);
        self.networks.containers.insert(task, now);
        if is_new && self.data.is_up() {
            out.extend(self.names_of(task).map(|names| Output::Data(ToData::PutContainer(names))));
        }
    }

    /// The network namespace of a container, where it is known. One that `swarmd net` does not see in the folder of the engine's
    /// namespaces is found by the process, which needs more rights.
    fn sandbox(&self, running: &Running) -> Option<PathBuf> {
        self.sandbox_of(running.sandbox.clone(), running.pid)
    }

    /// The same of a container with this file and this process id.
    pub(super) fn sandbox_of(&self, file: Option<PathBuf>, pid: i64) -> Option<PathBuf> {
        let is_seen = |file: &PathBuf| file.parent() == Some(&*self.options.sandboxes);
        let of_process = || (pid > 0).then(|| format!("/proc/{pid}/ns/net").into());
        file.filter(is_seen).or_else(of_process)
    }

    /// The container of a task has ended, or the task is forgotten.
    pub(super) fn part_with_container(&mut self, task: TaskId, out: &mut Vec<Output>) {
        let Some(container) = self.networks.containers.remove(&task) else { return };
        self.networks.loaded.remove(&container.id);
        self.networks.tell(out, [ToNet::RemoveContainer(container.id.clone())]);
        if self.data.is_up() {
            out.push(Output::Data(ToData::RemoveContainer(container.id)));
        }
    }

    /// Tells the data plane anew of a container.
    fn say_names(&self, container: &str, out: &mut Vec<Output>) {
        let task = self.networks.containers.iter().find(|(_, known)| known.id == container).map(|(task, _)| *task);
        let names = task.map_or_else(|| self.attached_names(container), |task| self.names_of(task));
        if let Some(names) = names.filter(|_| self.data.is_up()) {
            out.push(Output::Data(ToData::PutContainer(names)));
        }
    }

    /// The names of a task's container, and the networks whose names it can ask for.
    fn names_of(&self, task: TaskId) -> Option<ContainerNames> {
        let container = self.networks.containers.get(&task)?;
        let assigned = &self.tasks.get(&task)?.task.assigned;
        let spec = &self.specs.get(&(assigned.service, assigned.spec_version))?.spec;
        let slot = assigned.slot.map_or_else(|| self.options.node.id.to_string(), |slot| slot.to_string());
        let name = format!("{}.{slot}.{task}", spec.service_name);
        let mut networks: Vec<ContainerNetwork> = Vec::new();
        for (network, addr) in &container.addrs {
            match networks.iter_mut().find(|known| known.network == *network) {
                Some(known) => known.addrs.push(*addr),
                None => {
                    networks.push(ContainerNetwork { network: *network, addrs: vec![*addr], names: vec![name.clone()] })
                }
            }
        }
        let dns = spec.task.container_spec.dns_config.as_ref();
        let nameservers = dns.iter().flat_map(|dns| &dns.nameservers).filter_map(|addr| addr.parse().ok()).collect();
        let virtual_addrs = self.networks.virtual_addrs(&container.id);
        Some(ContainerNames { container: container.id.clone(), networks, task: Some(task), virtual_addrs, nameservers })
    }

    /// Why the container of a task cannot be started yet: it would be in no network.
    pub(super) fn lacks_networks(&self, task: TaskId) -> Option<String> {
        let entry = self.tasks.get(&task)?;
        if !self.options.has_networks || entry.task.assigned.addrs.is_empty() {
            return None;
        }
        let networks: Vec<_> = entry.task.assigned.addrs.iter().map(|at| at.network).collect();
        self.lacks_net(&networks)
    }

    /// Why this node cannot be in one of these networks, for people.
    pub(super) fn lacks_net(&self, networks: &[ObjectId]) -> Option<String> {
        match &self.networks.abilities {
            None if self.networks.reason.is_empty() => Some("waits for swarmd net, which makes networks".into()),
            None => Some(format!("waits for swarmd net, which makes networks: {}", self.networks.reason)),
            Some(abilities) => {
                self.known_networks().filter(|(id, _)| networks.contains(id)).find_map(|(id, content)| {
                    // An encrypted network is never carried by a VXLAN, in clear text.
                    if !content.encrypted {
                        let reason = abilities.vxlan.as_ref().err()?;
                        return Some(format!("this node cannot be in networks across nodes: {reason}"));
                    }
                    let (reason, name) = (abilities.tun.as_ref().err()?, self.record(id, content).name);
                    Some(format!("this node cannot be in the encrypted network {name}: {reason}"))
                })
            }
        }
    }
}

/// Whether the container that was made for a task is to be started, or is about to be.
fn is_to_run(entry: &Entry) -> bool {
    let task = &entry.task;
    task.assigned.desired.is_live() && !task.leaving && task.status.state >= TaskState::Starting
}

fn local_network(id: ObjectId, content: &NetworkContent) -> LocalNetwork {
    LocalNetwork {
        id,
        vni: content.vni,
        data_port: content.data_port,
        bridge: network::bridge(content),
        mtu: network::mtu(content),
        subnets: subnets(content),
        has_device: true,
        encrypted: content.encrypted,
    }
}

fn subnets(content: &NetworkContent) -> Vec<Subnet> {
    content.subnets.iter().map(|subnet| Subnet { range: subnet.range, gateway: subnet.gateway }).collect()
}
