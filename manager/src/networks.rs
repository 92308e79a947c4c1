//! The records of each network as the state has it: which services, tasks and nodes are in it ([`swarm_wire::networks`]).
//!
//! A record follows from the state alone. After an entry only the records are made anew that its events name.

use std::collections::{BTreeMap, BTreeSet};

use swarm_core::{Event, State};
use swarm_model::{Attachment, NetworkAddr, NodeId, NodeState, ObjectId, Service, ServiceId, Task, TaskId, TaskState};
use swarm_wire::{
    endpoints::TableVersion,
    networks::{
        Member, MemberChange, MemberKey, NetworkEndpointRecord, NetworkEndpointState, NetworkNodeRecord,
        NetworkServiceRecord, NetworkUpdate,
    },
};

use crate::{
    endpoints,
    versioned::{Since, Versioned},
};

/// The records of all networks.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    tables: BTreeMap<ObjectId, Table>,
    /// The networks that a service has records in.
    of_service: BTreeMap<ServiceId, BTreeSet<ObjectId>>,
    /// The networks that a task or an attachment has records in, and its node.
    of_task: BTreeMap<TaskId, (NodeId, BTreeSet<ObjectId>)>,
}

/// The records of a network.
#[derive(Clone, Debug, Default)]
struct Table {
    records: Versioned<MemberKey, Member>,
    /// How many tasks and attachments with records each node has.
    nodes: BTreeMap<NodeId, usize>,
}

/// The records that a change concerns, by network.
type Touched = BTreeMap<ObjectId, BTreeSet<MemberKey>>;

impl Networks {
    /// The records of a state.
    pub fn of(state: &State) -> Self {
        let mut networks = Self::default();
        let mut touched = Touched::new();
        for service in state.services() {
            networks.touch_service(state, service.id, &mut touched);
        }
        for task in state.tasks().filter(|task| !task.addrs.is_empty()) {
            networks.touch_task(state, task.id, &mut touched);
        }
        for attachment in state.attachments() {
            networks.touch_attachment(state, attachment.id, &mut touched);
        }
        networks.look_at(state, touched);
        networks
    }

    /// Takes what an entry changed. Returns the networks whose records are other ones now.
    pub fn follow(&mut self, state: &State, events: &[Event]) -> Vec<ObjectId> {
        let mut touched = Touched::new();
        for event in events {
            match *event {
                Event::Task { task, .. } => self.touch_task(state, task, &mut touched),
                Event::Service(service) => self.touch_service(state, service, &mut touched),
                Event::Node(node) => self.touch_node(state, node, &mut touched),
                Event::Attachment { attachment, .. } => self.touch_attachment(state, attachment, &mut touched),
                Event::Cluster | Event::Object(_) | Event::Room(_) => {}
            }
        }
        self.look_at(state, touched)
    }

    /// The nodes with tasks or attached containers in a network.
    pub fn nodes(&self, network: ObjectId) -> impl Iterator<Item = NodeId> + '_ {
        self.tables.get(&network).into_iter().flat_map(|table| table.nodes.keys().copied())
    }

    /// Notes the records of a task, and those of its node.
    fn touch_task(&mut self, state: &State, id: TaskId, touched: &mut Touched) {
        let now = state.task(id).filter(|task| !task.addrs.is_empty() && !task.status.state.is_terminal());
        let now = now.and_then(|task| Some((task.node?, task.addrs.iter().map(|at| at.network).collect())));
        self.touch_endpoint(id, now, touched);
    }

    /// Notes the record of an attachment, and that of its node.
    fn touch_attachment(&mut self, state: &State, id: TaskId, touched: &mut Touched) {
        let now = state.attachment(id).map(|attachment| (attachment.node, [attachment.network].into()));
        self.touch_endpoint(id, now, touched);
    }

    /// Notes the records of a task or an attachment, which is on this node and in these networks now, and those of its node.
    fn touch_endpoint(&mut self, id: TaskId, now: Option<(NodeId, BTreeSet<ObjectId>)>, touched: &mut Touched) {
        let before = self.of_task.get(&id).cloned();
        if now.is_none() && before.is_none() {
            return;
        }
        for (_, network) in
            before.iter().chain(&now).flat_map(|(node, of): &(_, BTreeSet<_>)| of.iter().map(move |n| (node, n)))
        {
            touched.entry(*network).or_default().insert(MemberKey::Endpoint(id));
        }
        if before == now {
            return;
        }
        for (node, network) in before.iter().flat_map(|(node, of)| of.iter().map(move |network| (*node, *network))) {
            let nodes = &mut self.tables.entry(network).or_default().nodes;
            let is_last = nodes.get_mut(&node).is_none_or(|tasks| {
                *tasks -= 1;
                *tasks == 0
            });
            if is_last {
                nodes.remove(&node);
                touched.entry(network).or_default().insert(MemberKey::Node(node));
            }
        }
        for (node, network) in now.iter().flat_map(|(node, of)| of.iter().map(move |network| (*node, *network))) {
            let tasks = self.tables.entry(network).or_default().nodes.entry(node).or_default();
            *tasks += 1;
            if *tasks == 1 {
                touched.entry(network).or_default().insert(MemberKey::Node(node));
            }
        }
        match now {
            Some(now) => drop(self.of_task.insert(id, now)),
            None => drop(self.of_task.remove(&id)),
        }
    }

    fn touch_service(&mut self, state: &State, id: ServiceId, touched: &mut Touched) {
        let now: BTreeSet<ObjectId> =
            state.service(id).map(|service| service.spec.network_ids().collect()).unwrap_or_default();
        let before = self.of_service.remove(&id).unwrap_or_default();
        for network in before.union(&now) {
            touched.entry(*network).or_default().insert(MemberKey::Service(id));
        }
        if !now.is_empty() {
            self.of_service.insert(id, now);
        }
    }

    /// A node that comes or goes changes its own record, and the stages of its tasks.
    fn touch_node(&mut self, state: &State, node: NodeId, touched: &mut Touched) {
        let tasks = state.tasks_of_node(node).map(|task| task.id);
        for id in tasks.chain(state.attachments_of_node(node).map(|attachment| attachment.id)) {
            for network in self.of_task.get(&id).iter().flat_map(|(_, networks)| networks) {
                let keys = touched.entry(*network).or_default();
                keys.extend([MemberKey::Node(node), MemberKey::Endpoint(id)]);
            }
        }
    }

    /// Makes records anew. Returns the networks whose records are other ones now.
    fn look_at(&mut self, state: &State, touched: Touched) -> Vec<ObjectId> {
        let mut changed = Vec::new();
        for (network, keys) in touched {
            let table = self.tables.entry(network).or_default();
            let before = table.records.version();
            let records: Vec<_> =
                keys.into_iter().map(|key| (key, record(state, network, key, &table.nodes))).collect();
            table.records.set(state.revision(), records);
            if table.records.version() != before {
                changed.push(network);
            }
            if table.records.is_empty() && table.nodes.is_empty() {
                self.tables.remove(&network);
            }
        }
        changed
    }

    /// The version of the records of a network.
    pub fn version(&self, network: ObjectId) -> TableVersion {
        self.tables.get(&network).map(|table| table.records.version()).unwrap_or_default()
    }

    /// The updates that bring a holder of a version of a network's records to the present one: none if it has that.
    pub fn since(&self, network: ObjectId, held: Option<TableVersion>) -> Vec<NetworkUpdate> {
        let Some(table) = self.tables.get(&network) else {
            let is_empty = held == Some(TableVersion::default());
            let all = || NetworkUpdate::batches(network, true, TableVersion::default(), &[]);
            return if is_empty { Vec::new() } else { all() };
        };
        let (full, changes): (bool, Vec<MemberChange>) = match table.records.since(held) {
            Since::Nothing => return Vec::new(),
            Since::Changed(changes) => {
                let change =
                    |(key, record): (_, Option<_>)| record.map_or(MemberChange::Remove(key), MemberChange::Put);
                (false, changes.into_iter().map(change).collect())
            }
            Since::All(records) => (true, records.into_iter().map(MemberChange::Put).collect()),
        };
        NetworkUpdate::batches(network, full, table.records.version(), &changes)
    }
}

/// A record as the state has it; none if there is to be none.
fn record(state: &State, network: ObjectId, key: MemberKey, nodes: &BTreeMap<NodeId, usize>) -> Option<Member> {
    match key {
        MemberKey::Node(node) => node_record(state, node).filter(|_| nodes.contains_key(&node)).map(Member::Node),
        MemberKey::Service(service) => service_record(state.service(service)?, network).map(Member::Service),
        MemberKey::Endpoint(id) => match state.attachment(id) {
            Some(attachment) => Some(Member::Endpoint(attached(state, attachment))),
            None => endpoint(state, state.task(id)?, network).map(Member::Endpoint),
        },
    }
}

/// A node that is down takes no packets.
fn node_record(state: &State, id: NodeId) -> Option<NetworkNodeRecord> {
    let data_addr = endpoints::node_record(state, id)?.data_addr.ip();
    let engine = state.node(id)?.description.as_ref()?.engine_id.clone();
    Some(NetworkNodeRecord { id, data_addr, engine })
}

fn service_record(service: &Service, network: ObjectId) -> Option<NetworkServiceRecord> {
    let attachments = &service.spec.task_template.networks;
    let attachment = attachments.iter().find(|attachment| attachment.target.parse() == Ok(network))?;
    let virtual_addrs = service.virtual_addrs.iter().filter(|at| at.network == network);
    Some(NetworkServiceRecord {
        id: service.id,
        name: service.spec.name.clone(),
        aliases: attachment.aliases.clone(),
        virtual_addrs: virtual_addrs.map(|at| at.addr).collect(),
    })
}

/// A task is in its networks from the moment that it has a node until it has ended.
fn endpoint(state: &State, task: &Task, network: ObjectId) -> Option<NetworkEndpointRecord> {
    let of_network = |at: &&NetworkAddr| at.network == network;
    let addrs: Vec<_> = task.addrs.iter().filter(of_network).map(|at| at.addr).collect();
    let node = task.node.filter(|_| !addrs.is_empty() && !task.status.state.is_terminal())?;
    let is_down = state.node(node).is_none_or(|node| node.status.state == NodeState::Down);
    let stage = match task.status.state {
        _ if is_down => NetworkEndpointState::Gone,
        _ if !task.desired.is_live() => NetworkEndpointState::Draining,
        TaskState::Running => NetworkEndpointState::In,
        _ => NetworkEndpointState::Starting,
    };
    let service = state.spec(task.service, task.spec_version).map(|spec| spec.spec.name.clone()).unwrap_or_default();
    let names = match task.number() {
        Some(number) => vec![format!("{service}.{number}.{}", task.id), format!("{service}.{number}")],
        None => vec![format!("{service}.{node}.{}", task.id), format!("{service}.{node}")],
    };
    Some(NetworkEndpointRecord { task: task.id, service: Some(task.service), node, addrs, names, state: stage })
}

fn attached(state: &State, attachment: &Attachment) -> NetworkEndpointRecord {
    let is_down = state.node(attachment.node).is_none_or(|node| node.status.state == NodeState::Down);
    NetworkEndpointRecord {
        task: attachment.id,
        service: None,
        node: attachment.node,
        addrs: attachment.addrs.to_vec(),
        names: attachment.names.to_vec(),
        state: match attachment.is_running {
            _ if is_down => NetworkEndpointState::Gone,
            true => NetworkEndpointState::In,
            false => NetworkEndpointState::Starting,
        },
    }
}

#[cfg(test)]
mod tests;
