//! Tests that changes one by one lead to the same as everything at once.

use std::{net::SocketAddr, sync::Mutex};

use proptest::prelude::*;
use swarm_model::{IngressChoice, IngressSource, PortProtocol};
use swarm_wire::{
    BoxedStream, NodeIdentity, TlsError,
    agent::Shared,
    endpoints::{NodeRecord, Record, RecordHash, TableChange, TableUpdate, TableVersion},
};
use tokio::{net::TcpListener, sync::watch};

use super::*;
use crate::{
    control::hear,
    link::Silent,
    plane::Plane,
    protocol::{Configuration, LocalTask},
    remote::{OpenError, OpenRequest, Opening, Probing, Remote},
};

/// Keeps the peers that were set last.
#[derive(Default)]
struct Links(Mutex<BTreeMap<NodeId, SocketAddr>>);

impl Remote for Links {
    fn send_ethernet(&self, _: NodeId, _: u32, _: u64, _: bytes::Bytes) {}

    fn take_ethernet(&self, _: crate::link::EthernetSink) {}

    fn dropped_ethernet(&self) -> u64 {
        0
    }

    fn open(&self, _: NodeId, _: OpenRequest) -> Opening<'_> {
        let refused = OpenError::Refused { reason: "no node is there".to_owned() };
        Box::pin(async { Err::<BoxedStream, _>(refused) })
    }

    fn set_identity(&self, _: NodeIdentity) -> Result<(), TlsError> {
        Ok(())
    }

    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        *self.0.lock().unwrap() = peers;
    }

    fn listen(&self, _: TcpListener) {}

    fn retire(&self) {}

    fn probe(&self, _: NodeId) -> Probing<'_> {
        Box::pin(async { Err("no node is there".to_owned()) })
    }

    fn silent(&self) -> watch::Receiver<Silent> {
        watch::Sender::default().subscribe()
    }
}

/// A data plane, and the records of the table that it was told.
struct Node {
    plane: Plane,
    links: Arc<Links>,
    records: BTreeMap<RecordKey, Shared<Record>>,
    /// The ports that listeners have open when they do only as they are told.
    open: BTreeSet<PortKey>,
}

impl Node {
    fn new() -> Self {
        let links = Arc::new(Links::default());
        let plane = Plane::new(Arc::clone(&links) as Arc<dyn Remote>);
        Self { plane, links, records: BTreeMap::new(), open: BTreeSet::new() }
    }

    /// Another node that gets at once what this one was told.
    fn at_once(&self) -> Self {
        let mut other = Self::new();
        self.plane.said().into_iter().for_each(|message| hear(&other.plane, message));
        other.listen();
        other
    }

    fn listen(&mut self) {
        let Some(wanted) = self.plane.wanted() else { return };
        if wanted.configuration.is_some() {
            self.open.clear();
        }
        for (key, port) in wanted.ports {
            if port.is_some() {
                self.open.insert(key)
            } else {
                self.open.remove(&key)
            };
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Configure(node) => self.plane.configure(Configuration {
                node: *node,
                ingress: Vec::new(),
                data_addr: ([127, 0, 0, 1], 7946).into(),
                net_socket: None,
            }),
            Step::PutLocal(task, host) => self.plane.put_local(local(*task, *host)),
            Step::RemoveLocal(task) => self.plane.remove_local(*task),
            Step::SetLocals(tasks) => {
                self.plane.set_locals(tasks.iter().map(|(task, host)| local(*task, *host)).collect());
            }
            Step::Table(is_full, changes) => self.change(*is_full, changes),
        }
        self.listen();
    }

    /// Says changes of the table; the data plane refuses those that contradict it.
    fn change(&mut self, is_full: bool, changes: &[TableChange]) {
        let mut next = if is_full { BTreeMap::new() } else { self.records.clone() };
        for change in changes {
            match change {
                TableChange::Put(record) => drop(next.insert(record.open().unwrap().key(), record.clone())),
                TableChange::Remove(key) => drop(next.remove(key)),
            }
        }
        let digest = next.values().fold(0, |digest, record| RecordHash::of(record).added_to(digest));
        let version = TableVersion { revision: 1, digest };
        let update = TableUpdate { full: is_full, complete: true, version, changes: changes.to_vec() };
        if self.plane.change(&update).is_ok() {
            self.records = next;
        }
    }

    /// All that connections go by, as text.
    fn shown(&self) -> Vec<String> {
        let state = self.plane.state();
        let open = format!("open {:?}", self.open);
        let ports = state.followed.ports.iter().map(|(key, port)| {
            let route = port.route();
            let [all, locals] = [&route.candidates, &route.locals].map(|candidates| {
                let mut ways: Vec<_> = candidates.iter().map(|c| (c.endpoint.task, c.way)).collect();
                ways.sort_by_key(|(task, _)| *task);
                ways
            });
            format!("port {key:?}: {:?} {:?} {} {all:?} {locals:?}", route.port, route.ingress, route.is_published)
        });
        let served = self.plane.served.load_full();
        let served = served
            .iter()
            .map(|(task, served)| format!("served {task}: {} {:?} {:?}", served.addr, served.ports, served.source));
        let endpoints = state.followed.endpoints.iter().map(|(task, placed)| {
            let lease = placed.endpoint.begin_linked();
            format!("endpoint {task}: open {} gone {} {:?}", lease.is_open(), lease.is_gone(), placed.service)
        });
        let services = state.followed.services.keys().map(|id| format!("service {id}"));
        let peers = format!("peers {:?}", self.links.0.lock().unwrap());
        ports.chain(served).chain(endpoints).chain(services).chain([peers, open]).collect()
    }
}

fn local(task: TaskId, host: u8) -> LocalTask {
    LocalTask { task, addr: [127, 0, 0, host].into() }
}

#[derive(Clone, Debug)]
enum Step {
    Configure(NodeId),
    PutLocal(TaskId, u8),
    RemoveLocal(TaskId),
    SetLocals(Vec<(TaskId, u8)>),
    Table(bool, Vec<TableChange>),
}

fn any_node() -> impl Strategy<Value = NodeId> {
    (1..4_u128).prop_map(NodeId)
}

fn any_service() -> impl Strategy<Value = ServiceId> {
    (1..4_u128).prop_map(ServiceId)
}

fn any_task() -> impl Strategy<Value = TaskId> {
    (1..7_u128).prop_map(TaskId)
}

fn any_record() -> impl Strategy<Value = Record> {
    let node = any_node().prop_map(|id| NodeRecord { id, data_addr: ([10, 0, 0, id.0 as u8], 7946).into() });
    let port = (1..5_u16, prop_oneof![Just(PortProtocol::Tcp), Just(PortProtocol::Udp)])
        .prop_map(|(published, protocol)| PublishedPort { protocol, published, target: 80 });
    let source = prop_oneof![Just(IngressSource::Client), Just(IngressSource::Node)];
    let choice = prop_oneof![2 => Just(IngressChoice::Any), 1 => Just(IngressChoice::OnlyLocal)];
    let ingress = (source, choice).prop_map(|(source, choice)| Ingress { source, choice, ..Ingress::default() });
    let service = (any_service(), prop::collection::vec(port, 0..3), ingress)
        .prop_map(|(id, ports, ingress)| ServiceRecord { id, name: "web".to_owned(), ports, ingress });
    let state = prop_oneof![2 => Just(EndpointState::In), 1 => Just(EndpointState::Draining)];
    let endpoint = (any_task(), any_service(), any_node(), state)
        .prop_map(|(task, service, node, state)| EndpointRecord { task, service, node, state });
    prop_oneof![
        2 => node.prop_map(Record::Node),
        3 => service.prop_map(Record::Service),
        5 => endpoint.prop_map(Record::Endpoint),
    ]
}

fn any_change() -> impl Strategy<Value = TableChange> {
    let key = prop_oneof![
        1 => any_node().prop_map(RecordKey::Node),
        1 => any_service().prop_map(RecordKey::Service),
        3 => any_task().prop_map(RecordKey::Endpoint),
    ];
    prop_oneof![
        4 => any_record().prop_map(|record| TableChange::Put(Shared::new(&record).unwrap())),
        1 => key.prop_map(TableChange::Remove),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let locals = prop::collection::vec((any_task(), 1..4_u8), 0..4);
    prop_oneof![
        1 => prop_oneof![4 => Just(NodeId(1)), 1 => Just(NodeId(2))].prop_map(Step::Configure),
        3 => (any_task(), 1..4_u8).prop_map(|(task, host)| Step::PutLocal(task, host)),
        2 => any_task().prop_map(Step::RemoveLocal),
        1 => locals.prop_map(Step::SetLocals),
        9 => (Just(false), prop::collection::vec(any_change(), 1..4)).prop_map(|(full, c)| Step::Table(full, c)),
        1 => (Just(true), prop::collection::vec(any_change(), 0..6)).prop_map(|(full, c)| Step::Table(full, c)),
    ]
}

proptest! {
    #[test]
    fn changes_one_by_one_lead_to_the_same_as_all_at_once(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut node = Node::new();
        // Most differences need nodes and services that are there.
        let nodes = [1, 2, 3].map(|id| Record::Node(NodeRecord {
            id: NodeId(id),
            data_addr: ([10, 0, 0, id as u8], 7946).into(),
        }));
        let services = [1, 2].map(|id| Record::Service(ServiceRecord {
            id: ServiceId(id),
            name: "web".to_owned(),
            ports: vec![PublishedPort { protocol: PortProtocol::Tcp, published: id as u16, target: 80 }],
            ingress: Ingress::default(),
        }));
        let records = nodes.into_iter().chain(services);
        let puts: Vec<_> = records.map(|record| TableChange::Put(Shared::new(&record).unwrap())).collect();
        let begin = [Step::Configure(NodeId(1)), Step::Table(true, puts)];
        for step in begin.iter().chain(&steps) {
            node.take(step);
            prop_assert_eq!(node.shown(), node.at_once().shown(), "after {:?}", step);
        }
    }
}
