//! Tests of the endpoint table.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use swarm_model::{Ingress, IngressSource, PortProtocol};

use super::*;

fn node(id: u128) -> Record {
    Record::Node(NodeRecord { id: NodeId(id), data_addr: ([10, 0, 0, id as u8], 7946).into() })
}

fn service(id: u128, published: u16) -> Record {
    let ports = vec![PublishedPort { protocol: PortProtocol::Tcp, published, target: 80 }];
    Record::Service(ServiceRecord { id: ServiceId(id), name: format!("s{id}"), ports, ingress: Ingress::default() })
}

fn endpoint(task: u128, service: u128, node: u128, state: EndpointState) -> Record {
    Record::Endpoint(EndpointRecord { task: TaskId(task), service: ServiceId(service), node: NodeId(node), state })
}

fn put(record: Record) -> TableChange {
    TableChange::Put(Shared::new(&record).unwrap())
}

/// The sender's table: only its records, which are looked through for everything.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model(BTreeMap<RecordKey, Record>);

impl Model {
    fn of(table: &EndpointTable) -> Self {
        Self(table.records().map(|record| (record.key(), record.clone())).collect())
    }

    fn change(&mut self, change: &TableChange) {
        match change {
            TableChange::Put(shared) => {
                let record = shared.open().unwrap();
                self.0.insert(record.key(), record);
            }
            TableChange::Remove(key) => drop(self.0.remove(key)),
        }
    }

    fn version(&self, revision: u64) -> TableVersion {
        let add = |digest, record| RecordHash::of(&Shared::new(record).unwrap()).added_to(digest);
        TableVersion { revision, digest: self.0.values().fold(0, add) }
    }

    fn endpoints(&self) -> impl Iterator<Item = EndpointRecord> {
        self.0.values().filter_map(|record| match record {
            Record::Endpoint(endpoint) => Some(*endpoint),
            _ => None,
        })
    }

    fn ports(&self) -> impl Iterator<Item = (ServiceId, PublishedPort)> {
        self.0.values().flat_map(|record| match record {
            Record::Service(service) => service.ports.iter().map(|port| (service.id, *port)).collect(),
            _ => Vec::new(),
        })
    }

    fn is_consistent(&self) -> bool {
        let mut published = BTreeSet::new();
        self.ports().all(|(_, port)| {
            port.published != 0 && port.target != 0 && published.insert((port.protocol, port.published))
        }) && self.endpoints().all(|endpoint| {
            let needed = [RecordKey::Service(endpoint.service), RecordKey::Node(endpoint.node)];
            needed.iter().all(|key| self.0.contains_key(key))
        })
    }
}

/// An update of a sender whose digest is right.
fn update(receiver: &TableReceiver, full: bool, revision: u64, changes: Vec<TableChange>) -> TableUpdate {
    let mut next = if full { Model::default() } else { Model::of(receiver.table()) };
    changes.iter().for_each(|change| next.change(change));
    TableUpdate { full, complete: true, version: next.version(revision), changes }
}

fn holder(records: Vec<Record>) -> TableReceiver {
    let mut receiver = TableReceiver::default();
    let first = update(&receiver, true, 1, records.into_iter().map(put).collect());
    assert!(receiver.take(&first).unwrap().is_some());
    receiver
}

#[test]
fn an_update_is_applied_whole_or_not_at_all() {
    let mut receiver = holder(vec![node(1), service(1, 9000), endpoint(1, 1, 1, EndpointState::In)]);
    let draining = update(&receiver, false, 2, vec![put(endpoint(1, 1, 1, EndpointState::Draining))]);
    let mut wrong = draining.clone();
    wrong.version.digest ^= 1;
    assert!(matches!(receiver.take(&wrong), Err(TableError::Differs { .. })));
    assert_eq!(receiver.table().endpoint(TaskId(1)).unwrap().state, EndpointState::In);
    assert_eq!(receiver.take(&draining).unwrap(), Some(BTreeSet::from([RecordKey::Endpoint(TaskId(1))])));
    assert_eq!(receiver.table().endpoint(TaskId(1)).unwrap().state, EndpointState::Draining);
    let gone = update(&receiver, false, 3, vec![TableChange::Remove(RecordKey::Endpoint(TaskId(1)))]);
    assert_eq!(receiver.take(&gone).unwrap(), Some(BTreeSet::from([RecordKey::Endpoint(TaskId(1))])));
    assert_eq!((receiver.table().endpoint(TaskId(1)), receiver.table().version()), (None, Some(gone.version)));
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let cases = [
        (service(2, 9000), "port 9000/tcp belongs to service"),
        (endpoint(2, 7, 1, EndpointState::In), "which is not there"),
        (endpoint(2, 1, 7, EndpointState::In), "which is not there"),
        (service(2, 0), "has a port of 0"),
    ]
    .map(|(record, reason)| (put(record), reason));
    let removals = [RecordKey::Node(NodeId(1)), RecordKey::Service(ServiceId(1))];
    let removals = removals.map(|key| (TableChange::Remove(key), "which is not there"));
    for (change, reason) in cases.into_iter().chain(removals) {
        let mut receiver = holder(vec![node(1), service(1, 9000), endpoint(1, 1, 1, EndpointState::In)]);
        let bad = update(&receiver, false, 2, vec![change]);
        let error = receiver.take(&bad).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert_eq!(receiver.table().version().unwrap().revision, 1);
    }
}

#[test]
fn a_table_comes_over_in_parts() {
    let records = (1..=TABLE_BATCH_MAX as u128 + 5).map(node).collect();
    let whole = holder(records);
    let updates = whole.table().to_updates();
    assert_eq!(updates.iter().map(|u| (u.full, u.complete)).collect::<Vec<_>>(), [(true, false), (false, true)]);
    let mut other = TableReceiver::default();
    assert!(other.take(&updates[0]).unwrap().is_none());
    assert_eq!(other.table().version(), None);
    assert!(other.take(&updates[1]).unwrap().is_some());
    assert_eq!(other.table().version(), whole.table().version());
    // A difference without a table before it, and the second part alone.
    assert!(matches!(TableReceiver::default().take(&updates[1]), Err(TableError::NoTable)));
    assert_eq!(holder(Vec::new()).table().to_updates().len(), 1);
}

proptest! {
    #[test]
    fn any_bytes_are_an_update_or_refused(bytes: Vec<u8>) {
        if let Ok(update) = rmp_serde::from_slice::<TableUpdate>(&bytes) {
            let _ = TableReceiver::default().take(&update);
        }
        let _ = rmp_serde::from_slice::<Record>(&bytes);
    }

    #[test]
    fn damage_of_a_byte_is_refused_or_changes_nothing_but_the_revision(at: prop::sample::Index, byte: u8) {
        let whole = holder(vec![node(1), service(1, 9000), endpoint(1, 1, 1, EndpointState::In)]);
        let mut bytes = rmp_serde::to_vec_named(&whole.table().to_updates()[0]).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(update) = rmp_serde::from_slice::<TableUpdate>(&bytes) {
            let mut other = TableReceiver::default();
            if let Ok(Some(_)) = other.take(&update) {
                prop_assert!(other.table().records().eq(whole.table().records()));
            }
        }
    }
}

#[test]
fn a_service_that_wants_nothing_special_is_written_as_before() {
    let has_ingress =
        |record: &Record| Shared::new(record).unwrap().bytes().windows(7).any(|bytes| bytes == b"ingress");
    let plain = service(1, 80);
    assert!(!has_ingress(&plain));
    assert_eq!(Shared::new(&plain).unwrap().open().unwrap(), plain);
    let Record::Service(known) = service(1, 80) else { panic!("it is a service") };
    let proxied = Record::Service(ServiceRecord {
        ingress: Ingress { source: IngressSource::Proxy, ..Ingress::default() },
        ..known
    });
    assert!(has_ingress(&proxied));
    assert_eq!(Shared::new(&proxied).unwrap().open().unwrap(), proxied);
}

/// A change of few records, so that they often meet: of a node, a service with up to two ports, or an endpoint.
fn any_change() -> impl Strategy<Value = TableChange> {
    let port =
        (prop_oneof![9 => 1..4_u16, 1 => Just(0)], prop_oneof![Just(PortProtocol::Tcp), Just(PortProtocol::Udp)])
            .prop_map(|(published, protocol)| PublishedPort { protocol, published, target: 80 });
    let service = (1..4_u128, prop::collection::vec(port, 0..3)).prop_map(|(id, ports)| match service(id, 1) {
        Record::Service(known) => Record::Service(ServiceRecord { ports, ..known }),
        other => other,
    });
    let state = prop_oneof![Just(EndpointState::In), Just(EndpointState::Draining)];
    let endpoint = (1..6_u128, 1..4_u128, 1..3_u128, state).prop_map(|(task, s, n, state)| endpoint(task, s, n, state));
    let key = prop_oneof![
        (1..3_u128).prop_map(|id| RecordKey::Node(NodeId(id))),
        (1..4_u128).prop_map(|id| RecordKey::Service(ServiceId(id))),
        (1..6_u128).prop_map(|id| RecordKey::Endpoint(TaskId(id))),
    ];
    prop_oneof![
        2 => (1..3_u128).prop_map(|id| put(node(id))),
        2 => service.prop_map(put),
        4 => endpoint.prop_map(put),
        3 => key.prop_map(TableChange::Remove),
    ]
}

/// A message as it comes: whether it is of a full table, whether it is complete, whether its digest is right.
fn any_message() -> impl Strategy<Value = (bool, bool, bool, Vec<TableChange>)> {
    let often = |percent: u32| prop::bool::weighted(f64::from(percent) / 100.0);
    (often(15), often(75), often(90), prop::collection::vec(any_change(), 0..5))
}

/// Compares all that a table shows with the records alone.
fn check_shown(table: &EndpointTable, model: &Model) {
    assert_eq!(Model::of(table), *model);
    for id in 0..6 {
        let of_service = model.endpoints().filter(|e| e.service == ServiceId(id)).map(|e| e.task);
        assert!(table.endpoints_of(ServiceId(id)).eq(of_service));
        let of_node = model.endpoints().filter(|e| e.node == NodeId(id)).map(|e| e.task);
        assert!(table.endpoints_on(NodeId(id)).eq(of_node));
    }
    for number in 0..5 {
        for protocol in [PortProtocol::Tcp, PortProtocol::Udp] {
            let mut ports = model.ports().filter(|(_, port)| (port.protocol, port.published) == (protocol, number));
            assert_eq!(table.service_at(protocol, number), ports.next().map(|(service, _)| service));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_receiver_does_as_one_that_copies_the_table_and_checks_all_of_it(
        messages in prop::collection::vec(any_message(), 1..24),
    ) {
        let mut receiver = TableReceiver::default();
        let (mut model, mut next, mut version) = (Model::default(), None::<Model>, None);
        for (revision, (full, complete, is_right, changes)) in (1..).zip(messages) {
            let begun = match (full, next.take()) {
                (true, _) => Some(Model::default()),
                (false, Some(begun)) => Some(begun),
                (false, None) => version.is_some().then(|| model.clone()),
            };
            let led = begun.map(|mut led| {
                changes.iter().for_each(|change| led.change(change));
                led
            });
            let mut told = led.as_ref().map(|led| led.version(revision)).unwrap_or_default();
            told.digest ^= u64::from(!is_right);
            let taken = receiver.take(&TableUpdate { full, complete, version: told, changes });
            match led {
                None => prop_assert!(matches!(taken, Err(TableError::NoTable)), "{:?}", taken),
                Some(led) if !complete => {
                    prop_assert_eq!(taken.unwrap(), None);
                    next = Some(led);
                }
                Some(_) if !is_right => {
                    prop_assert!(matches!(taken, Err(TableError::Differs { .. })), "{:?}", taken);
                }
                Some(led) if !led.is_consistent() => {
                    prop_assert!(matches!(taken, Err(TableError::Contradiction(_))), "{:?}", taken);
                }
                Some(led) => {
                    let keys = model.0.keys().chain(led.0.keys());
                    let changed: BTreeSet<_> = keys.filter(|key| model.0.get(key) != led.0.get(key)).copied().collect();
                    prop_assert_eq!(taken.unwrap(), Some(changed));
                    (model, version) = (led, Some(told));
                }
            }
            prop_assert_eq!(receiver.table().version(), version);
            check_shown(receiver.table(), &model);
        }
    }
}
