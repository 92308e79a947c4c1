//! Tests of the endpoint table.

use proptest::prelude::*;
use swarm_model::{IngressSource, PortProtocol};

use super::*;

fn node(id: u128) -> Record {
    Record::Node(NodeRecord { id: NodeId(id), data_addr: ([10, 0, 0, id as u8], 7946).into() })
}

fn service(id: u128, published: u16) -> Record {
    let ports = vec![PublishedPort { protocol: PortProtocol::Tcp, published, target: 80 }];
    Record::Service(ServiceRecord { id: ServiceId(id), name: format!("s{id}"), ports, source: IngressSource::Client })
}

fn endpoint(task: u128, service: u128, node: u128, state: EndpointState) -> Record {
    Record::Endpoint(EndpointRecord { task: TaskId(task), service: ServiceId(service), node: NodeId(node), state })
}

fn put(record: Record) -> TableChange {
    TableChange::Put(Shared::new(&record).unwrap())
}

/// An update of a sender whose digest is right.
fn update(receiver: &TableReceiver, full: bool, revision: u64, changes: Vec<TableChange>) -> TableUpdate {
    let mut next = if full { EndpointTable::new() } else { receiver.table.clone() };
    changes.iter().for_each(|change| next.change(change).unwrap());
    TableUpdate { full, complete: true, version: TableVersion { revision, ..next.version }, changes }
}

fn holder(records: Vec<Record>) -> TableReceiver {
    let mut receiver = TableReceiver::default();
    let first = update(&receiver, true, 1, records.into_iter().map(put).collect());
    assert!(receiver.take(&first).unwrap());
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
    assert!(receiver.take(&draining).unwrap());
    assert_eq!(receiver.table().endpoint(TaskId(1)).unwrap().state, EndpointState::Draining);
    let gone = update(&receiver, false, 3, vec![TableChange::Remove(RecordKey::Endpoint(TaskId(1)))]);
    assert!(receiver.take(&gone).unwrap());
    assert_eq!((receiver.table().endpoint(TaskId(1)), receiver.table().version()), (None, Some(gone.version)));
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let cases = [
        (service(2, 9000), "port 9000/tcp belongs to service"),
        (endpoint(2, 7, 1, EndpointState::In), "which is not there"),
        (endpoint(2, 1, 7, EndpointState::In), "which is not there"),
        (service(2, 0), "has a port of 0"),
    ];
    for (record, reason) in cases {
        let mut receiver = holder(vec![node(1), service(1, 9000)]);
        let bad = update(&receiver, false, 2, vec![put(record)]);
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
    assert!(!other.take(&updates[0]).unwrap());
    assert_eq!(other.table().version(), None);
    assert!(other.take(&updates[1]).unwrap());
    assert_eq!(other.table().version(), whole.table().version());
    // A difference without a table before it, and the second part alone.
    assert!(matches!(TableReceiver::default().take(&updates[1]), Err(TableError::NoTable)));
    let empty = EndpointTable { is_known: true, ..EndpointTable::new() };
    assert_eq!(empty.to_updates().len(), 1);
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
            if let Ok(true) = other.take(&update) {
                prop_assert!(other.table().records().eq(whole.table().records()));
            }
        }
    }
}

#[test]
fn a_service_that_wants_nothing_special_is_written_as_before() {
    let has_source = |record: &Record| Shared::new(record).unwrap().bytes().windows(6).any(|bytes| bytes == b"source");
    let plain = service(1, 80);
    assert!(!has_source(&plain));
    assert_eq!(Shared::new(&plain).unwrap().open().unwrap(), plain);
    let Record::Service(known) = service(1, 80) else { panic!("it is a service") };
    let proxied = Record::Service(ServiceRecord { source: IngressSource::Proxy, ..known });
    assert!(has_source(&proxied));
    assert_eq!(Shared::new(&proxied).unwrap().open().unwrap(), proxied);
}
