//! The addresses that tasks see, in a network of its own: a host with a bridge, a container and a client.

mod network;

use std::net::{IpAddr, SocketAddr};

use swarm_model::{IngressSource, TaskId};
use swarm_wire::endpoints::EndpointState;
use tokio::io::AsyncReadExt;

use self::network::{
    CLIENT, CLIENT_V6, GATEWAY, GATEWAY_V6, Network, TASK, TASK_V6, in_a_network, run, without_rights,
};
use super::host::{Host, OWN, PORT, Swarmd, TARGET, Table, Task, WEB, fresh_addr, tcp, udp};
use crate::{
    protocol::{Configuration, IngressAddr, LocalTask, SourceStats, Stats, ToData},
    remote::OpenRequest,
    testing::{eventually, soon, until, wanted},
};

const FAR: [u8; 4] = [203, 0, 113, 9];
const ONE: TaskId = TaskId(1);
const SIX: TaskId = TaskId(6);

/// A data plane in the network, with a task that has an IPv4 address, or one that has an IPv6 address.
async fn start(table: &mut Table, task: TaskId) -> (Host, Swarmd) {
    let host = Host::start_showing_clients(GATEWAY).await;
    let mut swarmd = host.swarmd(&[]).await;
    let addr = if task == SIX { TASK_V6 } else { TASK };
    let ingress = [GATEWAY, GATEWAY_V6].map(|addr| IngressAddr { addr, is_optional: false }).to_vec();
    swarmd.say(ToData::Configure(Configuration { ingress, ..host.configuration() })).await;
    swarmd.say(ToData::LocalTasks(vec![LocalTask { task, addr }])).await;
    table.endpoint(task, OWN, EndpointState::In);
    swarmd.apply(table).await;
    (host, swarmd)
}

/// The addresses that the task says it saw, of a connection of the client, and the client's own.
async fn seen(network: &Network, node: IpAddr) -> (IpAddr, SocketAddr, SocketAddr) {
    let (own, said) = network.ask(SocketAddr::new(node, PORT)).await;
    let seen: SocketAddr = said.parse().unwrap();
    (seen.ip(), seen, own)
}

/// Waits until the task sees an address.
async fn until_seen(network: &Network, node: IpAddr, addr: IpAddr) {
    eventually(async || wanted(seen(network, node).await.0, |seen| *seen == addr)).await;
}

/// The address that the task says it saw, of a connection that came over a link.
async fn seen_over_link(host: &Host, client: SocketAddr) -> SocketAddr {
    let request = OpenRequest { task: ONE, port: tcp(PORT), client, asked: ([192, 0, 2, 2], PORT).into() };
    let (mut own, answered) = host.arrive(request).await;
    soon(answered).await.unwrap().unwrap();
    let mut said = String::new();
    soon(own.read_to_string(&mut said)).await.unwrap();
    said.parse().unwrap()
}

#[test]
fn a_task_sees_the_client() {
    in_a_network("tests::source::a_task_sees_the_client", |network| async move {
        let (host, mut swarmd) = start(&mut Table::new(), ONE).await;
        network.serve(TASK);
        until_seen(&network, GATEWAY, CLIENT).await;
        // Its port as well, again and again.
        for _ in 0..20 {
            let (_, seen, own) = seen(&network, GATEWAY).await;
            assert_eq!(seen, own);
        }
        // A client of another node, twice from one port.
        let far = SocketAddr::from((FAR, 5000));
        assert_eq!(seen_over_link(&host, far).await, far);
        assert_eq!(seen_over_link(&host, far).await.ip(), far.ip());
        // Addresses that no client has, or one of the other family.
        let before = swarmd.stats().await.sources;
        for claimed in ["10.87.0.2:1", "127.0.0.1:1", "169.254.1.1:1", "198.51.100.1:1", "224.0.0.1:1", "0.0.0.0:1"] {
            assert_eq!(seen_over_link(&host, claimed.parse().unwrap()).await.ip(), network::BRIDGE, "{claimed}");
        }
        assert_eq!(seen_over_link(&host, "[2001:db8:9::1]:1".parse().unwrap()).await.ip(), network::BRIDGE);
        assert_eq!(seen(&network, GATEWAY_V6).await.0, network::BRIDGE);
        let after = swarmd.stats().await.sources;
        let plainly = (after.unfit - before.unfit, after.other_family - before.other_family);
        assert_eq!((plainly, after.client), ((6, 2), before.client));
        assert!(swarmd.warnings.is_empty(), "{:?}", swarmd.warnings);
    });
}

#[test]
fn a_task_sees_the_client_over_ipv6() {
    in_a_network("tests::source::a_task_sees_the_client_over_ipv6", |network| async move {
        let (_host, _swarmd) = start(&mut Table::new(), SIX).await;
        network.serve(TASK_V6);
        until_seen(&network, GATEWAY_V6, CLIENT_V6).await;
        let (_, seen, own) = seen(&network, GATEWAY_V6).await;
        assert_eq!(seen, own);
    });
}

#[test]
fn a_node_without_the_right_says_so() {
    without_rights("tests::source::a_node_without_the_right_says_so", || async {
        let host = Host::start_showing_clients(fresh_addr()).await;
        let task = Task::start(1).await;
        let mut swarmd = host.swarmd(&[&task]).await;
        let mut table = Table::new();
        table.endpoint(task.id, OWN, EndpointState::In);
        swarmd.apply(&mut table).await;
        let text = "source addresses: the node's own is shown to tasks (needs CAP_NET_ADMIN); use the PROXY protocol for \
                    the client's";
        swarmd.warned(|warnings| warnings == [text]).await;
        assert_eq!(host.named().await.0, "t001");
        let stats = swarmd.stats().await;
        assert_eq!(stats.sources, SourceStats { untested: 1, ..SourceStats::default() });
        assert_eq!(stats.endpoints[0].source, Some(IngressSource::Node));
    });
}

#[test]
fn datagrams_show_the_client() {
    in_a_network("tests::source::datagrams_show_the_client", |network| async move {
        let mut table = Table::new();
        table.service(WEB, vec![udp(PORT)]);
        let (_host, _swarmd) = start(&mut table, ONE).await;
        network.serve_datagrams(TASK);
        eventually(async || {
            let seen = network.ask_by_datagram(SocketAddr::new(GATEWAY, PORT)).await;
            wanted(seen, |(own, said)| said.parse() == Ok(*own))
        })
        .await;
    });
}

#[test]
fn a_service_may_want_the_nodes_address_or_a_header() {
    in_a_network("tests::source::a_service_may_want_the_nodes_address_or_a_header", |network| async move {
        let mut table = Table::new();
        let (host, mut swarmd) = start(&mut table, ONE).await;
        network.serve(TASK);
        until_seen(&network, GATEWAY, CLIENT).await;
        let before = swarmd.stats().await;
        let source = |stats: &Stats| stats.endpoints.first().and_then(|endpoint| endpoint.source);
        assert_eq!(source(&before), Some(IngressSource::Client));
        table.ingress.source = IngressSource::Node;
        table.service(WEB, vec![tcp(PORT)]);
        swarmd.apply(&mut table).await;
        assert_eq!(seen(&network, GATEWAY).await.0, network::BRIDGE);
        assert_eq!(source(&swarmd.stats().await), Some(IngressSource::Node));
        table.ingress.source = IngressSource::Proxy;
        table.service(WEB, vec![tcp(PORT)]);
        swarmd.apply(&mut table).await;
        assert_eq!(source(&swarmd.stats().await), Some(IngressSource::Proxy));
        network.serve_bytes(SocketAddr::new(TASK, TARGET + 1));
        table.service(WEB, vec![swarm_wire::endpoints::PublishedPort { target: TARGET + 1, ..tcp(PORT) }]);
        swarmd.apply(&mut table).await;
        let (own, said) = network.ask(SocketAddr::new(GATEWAY, PORT)).await;
        let SocketAddr::V4(v4) = own else { panic!("{own}") };
        let addrs = [v4.ip().octets(), [198, 51, 100, 1]].concat();
        let expected = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addrs].concat();
        let ports = [v4.port().to_be_bytes(), PORT.to_be_bytes()].concat();
        assert_eq!(said, format!("{:?}", [expected, ports].concat()));
        assert_eq!(swarmd.stats().await.sources, before.sources);
        drop(host);
    });
}

#[test]
fn rules_that_are_removed_are_put_back() {
    in_a_network("tests::source::rules_that_are_removed_are_put_back", |network| async move {
        let (_host, mut swarmd) = start(&mut Table::new(), ONE).await;
        network.serve(TASK);
        until_seen(&network, GATEWAY, CLIENT).await;
        let table = table_of(&nft_tables());
        let removals: [&[&str]; 7] = [
            &["nft", "flush", "ruleset"],
            &["nft", "flush", "table", "inet", &table],
            &["nft", "delete", "table", "inet", &table],
            &["ip", "rule", "del", "priority", "57"],
            &["ip", "route", "flush", "table", "5357"],
            &["ip", "-6", "rule", "del", "priority", "57"],
            &["nft", "add", "rule", "inet", &table, "replies", "counter"],
        ];
        for removal in removals {
            run(removal);
            // Connections go on at every moment, and show the client again.
            seen(&network, GATEWAY).await;
            until_seen(&network, GATEWAY, CLIENT).await;
            until(|| is_told(&table)).await;
        }
        assert!(swarmd.stats().await.sources.client > 0 && swarmd.warnings.is_empty());
    });
}

#[test]
fn a_task_whose_answers_are_dropped_sees_the_node() {
    in_a_network("tests::source::a_task_whose_answers_are_dropped_sees_the_node", |network| async move {
        let (_host, mut swarmd) = start(&mut Table::new(), ONE).await;
        network.serve(TASK);
        until_seen(&network, GATEWAY, CLIENT).await;
        run(&["nft", "add", "table", "ip", "firewall"]);
        let chain = "{ type filter hook input priority 0; policy accept; }";
        run(&["nft", "add", "chain", "ip", "firewall", "input", chain]);
        run(&[
            "nft",
            "add",
            "rule",
            "ip",
            "firewall",
            "input",
            "iifname",
            "br0",
            "ip",
            "daddr",
            "!=",
            "10.87.0.1",
            "drop",
        ]);
        until_seen(&network, GATEWAY, network::BRIDGE).await;
        // Without a try from the client's address each time.
        let before = swarmd.stats().await.sources.untested;
        assert_eq!(seen(&network, GATEWAY).await.0, network::BRIDGE);
        assert_eq!(swarmd.stats().await.sources.untested, before + 1);
        run(&["nft", "delete", "table", "ip", "firewall"]);
        until_seen(&network, GATEWAY, CLIENT).await;
    });
}

#[test]
fn the_last_node_of_a_host_leaves_nothing() {
    in_a_network("tests::source::the_last_node_of_a_host_leaves_nothing", |network| async move {
        run(&["nft", "add", "table", "inet", "swarmdust"]);
        let (host, mut swarmd) = start(&mut Table::new(), ONE).await;
        network.serve(TASK);
        until_seen(&network, GATEWAY, CLIENT).await;
        let table = table_of(&nft_tables());
        // Another node of the host.
        run(&["nft", "add", "table", "inet", "swarmd-other1other2"]);
        let next = host.take_over().await;
        soon(host.process).await.unwrap().unwrap();
        assert!(is_told(&table), "the table does not outlive a hand-over");
        until_seen(&network, GATEWAY, CLIENT).await;
        drop(swarmd);
        (swarmd, _) = next.greet().await;
        swarmd.say(ToData::Stop).await;
        soon(next.process).await.unwrap().unwrap();
        assert_eq!(nft_tables(), ["table inet swarmdust", "table inet swarmd-other1other2"]);
        assert!(run(&["ip", "rule"]).contains("5357"));
        run(&["nft", "delete", "table", "inet", "swarmd-other1other2"]);
        let (host, _swarmd) = start(&mut Table::new(), ONE).await;
        until_seen(&network, GATEWAY, CLIENT).await;
        host.stop.cancel();
        soon(host.process).await.unwrap().unwrap();
        assert_eq!(nft_tables(), ["table inet swarmdust"]);
        for family in ["-4", "-6"] {
            assert!(!run(&["ip", family, "rule"]).contains("5357"));
            assert_eq!(run(&["ip", family, "route", "show", "table", "all", "type", "local", "default"]), "");
        }
    });
}

fn nft_tables() -> Vec<String> {
    run(&["nft", "list", "tables"]).lines().map(str::to_owned).collect()
}

/// The name of the node's table.
fn table_of(tables: &[String]) -> String {
    let name =
        tables.iter().find_map(|table| table.strip_prefix("table inet ").filter(|name| name.contains("swarmd-")));
    name.unwrap().to_owned()
}

/// Whether the kernel is told everything, and nothing twice.
fn is_told(table: &str) -> bool {
    let rules = run(&["nft", "list", "ruleset"]);
    let rule = "meta mark 0x00000000 socket transparent 1 meta mark set 0x00005357";
    let has_table = rules.contains(table) && rules.matches(rule).count() == 1 && !rules.contains("counter");
    let has_policy = ["-4", "-6"].iter().all(|family| {
        let rules = run(&["ip", family, "rule"]);
        let routes = run(&["ip", family, "route", "show", "table", "all", "type", "local", "default"]);
        rules.matches("fwmark 0x5357 lookup 5357").count() == 1 && routes.matches("table 5357").count() == 1
    });
    has_table && has_policy
}
