//! Answers of the table.

mod model;

use std::net::IpAddr;

use rand::{SeedableRng, rngs::StdRng};
use swarm_model::{NodeId, ObjectId, ServiceId, TaskId};
use swarm_wire::networks::{NetworkEndpointRecord, NetworkEndpointState, NetworkRecord, NetworkServiceRecord, Subnet};

use super::*;

const FRONT: ObjectId = ObjectId(1);
const BACK: ObjectId = ObjectId(2);
const WEB: ServiceId = ServiceId(1);

pub(super) fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A network with the subnet `10.N.0.0/16`.
pub(super) fn network(id: ObjectId, name: &str, internal: bool) -> NetworkRecord {
    NetworkRecord {
        id,
        name: name.into(),
        vni: 4096 + u32::try_from(id.0).unwrap(),
        subnets: vec![Subnet {
            range: format!("10.{}.0.0/16", id.0).parse().unwrap(),
            gateway: addr(&format!("10.{}.0.1", id.0)),
        }],
        mtu: None,
        internal,
        encrypted: false,
    }
}

pub(super) fn service(id: ServiceId, name: &str, aliases: &[&str], virtual_addrs: &[&str]) -> NetworkServiceRecord {
    NetworkServiceRecord {
        id,
        name: name.into(),
        aliases: aliases.iter().map(ToString::to_string).collect(),
        virtual_addrs: virtual_addrs.iter().map(|text| addr(text)).collect(),
    }
}

pub(super) fn task_name(task: u128, service: &str) -> String {
    format!("{service}.{task}.{}", TaskId(task))
}

/// Task N of service `web` at the addresses, with a name of its own and the host name `hostN`.
fn task(task: u128, addrs: &[&str], state: NetworkEndpointState) -> NetworkEndpointRecord {
    NetworkEndpointRecord {
        task: TaskId(task),
        service: Some(WEB),
        node: NodeId(1),
        addrs: addrs.iter().map(|text| addr(text)).collect(),
        names: vec![task_name(task, "Web"), format!("host{task}")],
        state,
    }
}

pub(super) fn container(id: &str, networks: &[(ObjectId, &str, &[&str])]) -> ContainerNames {
    ContainerNames {
        container: id.into(),
        networks: networks
            .iter()
            .map(|(network, at, names)| ContainerNetwork {
                network: *network,
                addrs: vec![addr(at)],
                names: names.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        task: None,
        virtual_addrs: VirtualAddrs::Loaded,
        nameservers: vec![],
    }
}

/// Two networks; `web` with a virtual address and two tasks in the first; container `c` in both.
fn table() -> NamesTable {
    let mut table = NamesTable::default();
    table.put_network(network(FRONT, "front", false));
    table.put_network(network(BACK, "back.end", true));
    table.set_ready(FRONT, true);
    table.set_ready(BACK, true);
    table.put_service(FRONT, service(WEB, "Web", &["www"], &["10.1.0.250"]));
    table.put_endpoint(FRONT, task(1, &["10.1.0.11", "fd00::11"], NetworkEndpointState::In));
    table.put_endpoint(FRONT, task(2, &["10.1.0.12"], NetworkEndpointState::In));
    table.put_container(container("c", &[(FRONT, "10.1.0.5", &["shell"]), (BACK, "10.2.0.5", &["shell", "tool"])]));
    table
}

fn ask(table: &NamesTable, name: &str, kind: Kind) -> Answer {
    let mut answer = table.answer("c", Question { name, kind }, &mut StdRng::seed_from_u64(1));
    if let Answer::Addrs { addrs, .. } = &mut answer {
        addrs.sort();
    }
    answer
}

fn addrs(texts: &[&str], ttl_s: u32) -> Answer {
    Answer::Addrs { addrs: texts.iter().map(|text| addr(text)).collect(), ttl_s }
}

#[test]
fn a_service_stands_for_its_virtual_address_and_its_tasks_for_themselves() {
    let table = table();
    for name in ["web", "www", "web.front", "www.front"] {
        assert_eq!(ask(&table, name, Kind::A), addrs(&["10.1.0.250"], 5), "{name}");
        assert_eq!(ask(&table, name, Kind::Aaaa), addrs(&[], 5), "{name}");
        assert_eq!(ask(&table, name, Kind::Other), addrs(&[], 5), "{name}");
    }
    for name in ["tasks.web", "tasks.www", "tasks.web.front"] {
        assert_eq!(ask(&table, name, Kind::A), addrs(&["10.1.0.11", "10.1.0.12"], 0), "{name}");
        assert_eq!(ask(&table, name, Kind::Aaaa), addrs(&["fd00::11"], 0), "{name}");
        assert_eq!(ask(&table, name, Kind::Any), addrs(&["10.1.0.11", "10.1.0.12", "fd00::11"], 0), "{name}");
    }
    let full = task_name(1, "web");
    for name in ["web.1", &full, "host1", "host1.front"] {
        assert_eq!(ask(&table, name, Kind::A), addrs(&["10.1.0.11"], 0), "{name}");
    }
    for name in ["shell.back.end", "tool"] {
        assert_eq!(ask(&table, name, Kind::A), addrs(&["10.2.0.5"], 0), "{name}");
    }
    // The first network comes first, and a network's name alone is no name.
    assert_eq!(ask(&table, "shell", Kind::A), addrs(&["10.1.0.5"], 0));
    for name in ["web.back.end", "front", ".front", "webfront", "tasks.shell", "tasks.web.1", "example.com", ""] {
        assert_eq!(ask(&table, name, Kind::A), Answer::Forward(vec![]), "{name}");
    }
}

#[test]
fn a_service_with_no_task_keeps_its_virtual_address() {
    let mut table = table();
    table.put_endpoint(FRONT, task(1, &["10.1.0.11"], NetworkEndpointState::Draining));
    table.put_endpoint(FRONT, task(2, &["10.1.0.12"], NetworkEndpointState::Gone));
    table.put_endpoint(FRONT, task(3, &["10.1.0.13"], NetworkEndpointState::Starting));
    assert_eq!(ask(&table, "web", Kind::A), addrs(&["10.1.0.250"], 5));
    for name in ["tasks.web", "web.1", "host2", "web.3"] {
        assert_eq!(ask(&table, name, Kind::A), addrs(&[], 0), "{name}");
    }
}

#[test]
fn names_of_services_stand_for_tasks_where_virtual_addresses_are_missing() {
    let mut table = table();
    let asker = container("c", &[(FRONT, "10.1.0.5", &[])]);
    table.put_container(ContainerNames { virtual_addrs: VirtualAddrs::Loading, ..asker.clone() });
    assert_eq!(ask(&table, "web", Kind::A), Answer::Unready);
    assert_eq!(ask(&table, "tasks.web", Kind::A), addrs(&["10.1.0.11", "10.1.0.12"], 0));
    table.put_container(ContainerNames { virtual_addrs: VirtualAddrs::Missing, ..asker.clone() });
    assert_eq!(ask(&table, "web", Kind::A), addrs(&["10.1.0.11", "10.1.0.12"], 0));
    table.put_container(asker);
    assert_eq!(ask(&table, "web", Kind::A), addrs(&["10.1.0.250"], 5));
    // dnsrr
    table.put_service(FRONT, service(WEB, "web", &[], &[]));
    assert_eq!(ask(&table, "web", Kind::A), addrs(&["10.1.0.11", "10.1.0.12"], 0));
}

#[test]
fn a_name_goes_to_the_service_before_any_container() {
    let mut table = table();
    table.put_container(container("x", &[(FRONT, "10.1.0.66", &["web", "tasks.web", "host1"])]));
    assert_eq!(ask(&table, "web", Kind::A), addrs(&["10.1.0.250"], 5));
    assert_eq!(ask(&table, "tasks.web", Kind::A), addrs(&["10.1.0.11", "10.1.0.12"], 0));
    assert_eq!(ask(&table, "host1", Kind::A), addrs(&["10.1.0.11"], 0));
    // A service of task names keeps its name when its tasks are not `In`, and a task does not.
    table.put_service(FRONT, service(WEB, "web", &[], &[]));
    table.put_endpoint(FRONT, task(1, &["10.1.0.11"], NetworkEndpointState::Draining));
    table.put_endpoint(FRONT, task(2, &["10.1.0.12"], NetworkEndpointState::Draining));
    assert_eq!(ask(&table, "web", Kind::A), addrs(&[], 0));
    assert_eq!(ask(&table, "host1", Kind::A), addrs(&["10.1.0.66"], 0));
    table.remove_container("x");
    assert_eq!(ask(&table, "host1", Kind::A), addrs(&[], 0));
}

#[test]
fn addresses_have_names() {
    let mut table = table();
    let name = |text: String, ttl_s| Answer::Name { name: text, ttl_s };
    let ptr = |table: &NamesTable, text| ask(table, "", Kind::Ptr(addr(text)));
    assert_eq!(ptr(&table, "10.1.0.250"), name("Web.front".into(), 5));
    assert_eq!(ptr(&table, "10.1.0.11"), name(format!("{}.front", task_name(1, "Web")), 0));
    assert_eq!(ptr(&table, "fd00::11"), name(format!("{}.front", task_name(1, "Web")), 0));
    assert_eq!(ptr(&table, "10.2.0.5"), name("shell.back.end".into(), 0));
    assert_eq!(ptr(&table, "10.1.0.77"), Answer::Missing);
    assert_eq!(ptr(&table, "192.0.2.1"), Answer::Forward(vec![]));
    table.put_endpoint(FRONT, task(1, &["10.1.0.11"], NetworkEndpointState::Draining));
    assert_eq!(ptr(&table, "10.1.0.11"), Answer::Missing);
}

#[test]
fn nothing_is_answered_before_all_networks_are_ready() {
    let mut table = table();
    assert!(table.is_ready(BACK));
    table.set_ready(BACK, false);
    assert!(!table.is_ready(BACK));
    assert_eq!(ask(&table, "web", Kind::A), Answer::Unready);
    table.set_ready(BACK, true);
    assert_ne!(ask(&table, "web", Kind::A), Answer::Unready);
    table.remove_network(BACK);
    assert!(!table.is_ready(BACK));
    assert_eq!(ask(&table, "web", Kind::A), Answer::Unready);
    table.put_network(network(BACK, "back", true));
    table.set_ready(BACK, true);
    assert_eq!(ask(&table, "tool", Kind::A), addrs(&["10.2.0.5"], 0));
    table.remove_container("c");
    assert_eq!(ask(&table, "web", Kind::A), Answer::NoContainer);
}

#[test]
fn other_names_are_forwarded_unless_all_networks_are_internal() {
    let mut table = table();
    let resolvers = vec![addr("192.0.2.53")];
    table.put_container(ContainerNames {
        nameservers: resolvers.clone(),
        ..container("c", &[(BACK, "10.2.0.5", &[]), (FRONT, "10.1.0.5", &[])])
    });
    assert_eq!(ask(&table, "nothing", Kind::A), Answer::Forward(resolvers));
    table.put_container(container("c", &[(BACK, "10.2.0.5", &[])]));
    assert_eq!(ask(&table, "nothing", Kind::A), Answer::Missing);
    assert_eq!(ask(&table, "example.com", Kind::Other), Answer::Missing);
}

#[test]
fn a_container_of_a_task_is_shown_with_the_task() {
    let mut table = table();
    let runner = container("runner", &[(FRONT, "10.1.0.11", &["runner"])]);
    table.put_container(runner.clone());
    assert_eq!(ask(&table, "runner", Kind::A), addrs(&["10.1.0.11"], 0));
    table.put_container(ContainerNames { task: Some(TaskId(1)), ..runner });
    assert_eq!(ask(&table, "runner", Kind::A), addrs(&["10.1.0.11"], 0));
    table.put_endpoint(FRONT, task(1, &["10.1.0.11"], NetworkEndpointState::Draining));
    assert_eq!(ask(&table, "runner", Kind::A), addrs(&[], 0));
}

#[test]
fn a_container_that_two_records_name_has_its_address_once() {
    let mut table = table();
    let attached = task(9, &["10.1.0.5"], NetworkEndpointState::In);
    let attached = NetworkEndpointRecord { service: None, names: vec!["shell".into()], ..attached };
    table.put_endpoint(FRONT, attached);
    assert_eq!(ask(&table, "shell", Kind::A), addrs(&["10.1.0.5"], 0));
}

#[test]
fn a_container_is_found_by_its_address() {
    let mut table = table();
    assert_eq!(table.container_at(BACK, addr("10.2.0.5")), Some("c"));
    assert_eq!(table.container_at(FRONT, addr("10.2.0.5")), None);
    assert_eq!(table.container_at(FRONT, addr("10.1.0.11")), None);
    table.put_container(container("c", &[(BACK, "10.2.0.6", &[])]));
    assert_eq!(table.container_at(BACK, addr("10.2.0.5")), None);
    assert_eq!(table.container_at(BACK, addr("10.2.0.6")), Some("c"));
}

#[test]
fn each_task_comes_first_in_some_answers() {
    let table = table();
    let mut random = StdRng::seed_from_u64(7);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let question = Question { name: "tasks.web", kind: Kind::A };
        let Answer::Addrs { addrs, .. } = table.answer("c", question, &mut random) else { panic!("no addresses") };
        seen.insert(addrs[0]);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_table_that_lost_everything_keeps_nothing() {
    let mut table = table();
    table.remove_container("c");
    table.remove_network(FRONT);
    table.remove_network(BACK);
    assert!(table.networks.is_empty() && table.containers.is_empty());
}
