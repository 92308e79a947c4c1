use std::time::Instant;

use super::place::*;
use crate::protocol::{FromNet, ToNet};

/// Two hosts that reach each other, by links with this MTU.
pub(super) async fn two_hosts(mtu: u32) -> (Host, Host) {
    let (a, b) = (Host::new("192.0.2.1").await, Host::new("192.0.2.2").await);
    a.netns.pair("lan0", &b.netns, "lan0");
    for (host, addr) in [(&a, "192.0.2.1/24"), (&b, "192.0.2.2/24")] {
        host.netns.run(&format!("ip addr add {addr} dev lan0"));
        host.netns.run(&format!("ip link set lan0 mtu {mtu} up"));
    }
    (a, b)
}

/// Two hosts whose containers know each other.
pub(super) struct Connected {
    pub(super) a: Host,
    pub(super) b: Host,
    /// The containers, of `a` and of `b`. Both serve.
    pub(super) one: Container,
    pub(super) two: Container,
    /// The connections of swarmd. That of `a` has put its container.
    pub(super) at_a: Swarmd,
    pub(super) at_b: Swarmd,
}

pub(super) async fn connected_hosts() -> Connected {
    let (a, b) = two_hosts(1500).await;
    let (one, two) = (a.container(11), b.container(12));
    let (mut at_a, mut at_b) = (a.swarmd().await, b.swarmd().await);
    at_a.say(two.peer(&b)).await;
    at_b.say(one.peer(&a)).await;
    at_a.say(ToNet::PutContainer(one.record(Some(one.show())))).await;
    at_a.sync().await;
    at_b.sync().await;
    one.serve();
    two.serve();
    Connected { a, b, one, two, at_a, at_b }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_two_hosts_reach_each_other() {
    if is_skipped() {
        return;
    }
    let Connected { a, b: _b, one, two, mut at_a, at_b: _at_b } = connected_hosts().await;
    assert_eq!(one.reaches(two.v4).await, "c12");
    assert_eq!(one.reaches(two.v6).await, "c12");
    assert_eq!(two.reaches(one.v4).await, "c11");
    let socket = one.udp();
    assert_eq!(one.ask(&socket, two.v4), "c12");
    let link = a.netns.run(&format!("ip -d link show {DEVICE}"));
    for part in ["alias swarmd:c1", "nolearning", "proxy", "mtu 1450", "dstport 4789", "local 192.0.2.1"] {
        assert!(link.contains(part), "{part} is missing: {link}");
    }

    // Without the peer there is no way.
    at_a.say(ToNet::RemovePeer { network: NETWORK, addrs: vec![two.v4, two.v6] }).await;
    at_a.sync().await;
    one.connect(two.v4).unwrap_err();
    assert!(!a.netns.run(&format!("bridge fdb show dev {DEVICE}")).contains("dst 192.0.2.2"));
    // The engine's bridge stays.
    at_a.say(ToNet::RemoveNetwork(NETWORK)).await;
    at_a.sync().await;
    assert!(!a.netns.has_link(DEVICE) && a.netns.has_link(BRIDGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_too_small_is_warned_of() {
    if is_skipped() {
        return;
    }
    let (a, b) = two_hosts(1400).await;
    let mut swarmd = a.swarmd().await;
    swarmd.say(ToNet::PutPeer { network: NETWORK, addrs: vec![ip("10.77.0.12")], at: b.addr }).await;
    swarmd.warned(|warnings| warnings.iter().any(|text| text.contains("1400") && text.contains("at most 1350"))).await;
    a.netns.run("ip link set lan0 mtu 1500");
    swarmd.warned(<[String]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_waits_for_its_bridge() {
    if is_skipped() {
        return;
    }
    let host = Host::in_netns(Netns::new(), "192.0.2.1").await;
    let mut swarmd = host.swarmd().await;
    swarmd.sync().await;
    assert!(!host.netns.has_link(DEVICE));
    host.netns.run(&format!("ip link add {BRIDGE} type bridge"));
    until(|| host.netns.has_link(DEVICE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_peers_are_quick_and_survive_the_process() {
    if is_skipped() {
        return;
    }
    let mut host = Host::new("192.0.2.1").await;
    let peers: Vec<_> = (0..1000_u16)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            ToNet::PutPeer {
                network: NETWORK,
                addrs: vec![ip(&format!("10.77.{}.{low}", high + 1))],
                at: ip("192.0.2.9"),
            }
        })
        .collect();
    let mut swarmd = host.swarmd().await;
    let began = Instant::now();
    for peer in &peers {
        swarmd.say(peer.clone()).await;
    }
    swarmd.sync().await;
    println!("1000 peers: {:?}", began.elapsed());
    let count = |what: &str| host.netns.run(what).lines().filter(|line| line.contains("02:42:0a:4d")).count();
    let (fdb, neighbours) = (format!("bridge fdb show dev {DEVICE}"), format!("ip neigh show dev {DEVICE}"));
    assert_eq!((count(&fdb), count(&neighbours)), (1000, 1000));

    // The next process finds the entries, and removes those that are not wanted any more.
    host.start_again().await;
    let mut swarmd = host.swarmd().await;
    for peer in &peers[..10] {
        swarmd.say(peer.clone()).await;
    }
    swarmd.sync().await;
    let count = |what: &str| host.netns.run(what).lines().filter(|line| line.contains("02:42:0a:4d")).count();
    assert_eq!((count(&fdb), count(&neighbours)), (10, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_with_the_same_number_is_named() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let mut first = host.swarmd().await;
    first.sync().await;
    let other = host.neighbour("192.0.2.1").await;
    let mut second = Swarmd::connect(&other.socket()).await;
    second.say(ToNet::Configure(other.configuration("c2"))).await;
    second.say(ToNet::PutNetwork(network())).await;
    let wanted =
        "VXLAN id 4097 on port 4789 is used by another cluster on this host (swarmd:c1); choose --data-path-port";
    second.warned(|warnings| warnings == [wanted.to_owned()]).await;
    // With another port there is room for both.
    second.say(ToNet::PutNetwork(crate::protocol::LocalNetwork { data_port: 4790, ..network() })).await;
    second.sync().await;
    assert!(host.netns.has_link(DEVICE) && host.netns.has_link("vx4097-12b6"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_with_the_same_number_is_named() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    host.netns.run("ip link add docker-vx type vxlan id 4097 dstport 4789");
    let mut swarmd = host.swarmd().await;
    let wanted = "VXLAN id 4097 on port 4789 is used by another program (Docker Swarm?); choose --data-path-port";
    swarmd.warned(|warnings| warnings == [wanted.to_owned()]).await;
    host.netns.run("ip link del docker-vx");
    swarmd.warned(<[String]>::is_empty).await;
    assert!(host.netns.has_link(DEVICE));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_on_a_host_the_second_takes_over() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let mut other = host.neighbour("192.0.2.1").await;
    let (peer, other_peer) = (ip("10.77.0.9"), ip("10.77.0.8"));
    let put = |addr| ToNet::PutPeer { network: NETWORK, addrs: vec![addr], at: ip("192.0.2.9") };
    let mut second = other.swarmd().await;
    second.say(put(peer)).await;
    second.sync().await;
    let mut first = host.swarmd().await;
    first.say(put(other_peer)).await;
    first.sync().await;
    let has = |addr| host.netns.run(&format!("ip neigh show dev {DEVICE}")).contains(&format!("{addr} "));
    assert!(has(peer) && !has(other_peer), "only one process programmes a device");
    other.end().await;
    until(|| has(other_peer) && !has(peer)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_another_node_of_the_host_has_keeps_its_device() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let other = host.neighbour("192.0.2.1").await;
    let mut first = host.swarmd().await;
    first.sync().await;
    let mut second = other.swarmd().await;
    second.sync().await;
    let index = || host.netns.run(&format!("ip -o link show {DEVICE}")).split(':').next().unwrap().to_owned();
    let before = index();
    first.say(ToNet::RemoveNetwork(NETWORK)).await;
    first.sync().await;
    assert_eq!(index(), before);
    // The last one removes it, as soon as it has the right to.
    until(|| host.netns.within(|| crate::claim::Claim::take(VNI, 4789).unwrap().is_none())).await;
    second.say(ToNet::RemoveNetwork(NETWORK)).await;
    second.sync().await;
    assert!(!host.netns.has_link(DEVICE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_that_a_route_overlaps_is_told() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    host.netns.run(
        "ip link add lan0 type bridge
         ip link set lan0 up
         ip addr add 10.33.0.5/24 dev lan0
         ip route add default via 10.33.0.1",
    );
    let mut swarmd = host.swarmd().await;
    let ten = ["10.33.0.0/16", "10.33.0.128/25", "10.34.0.0/16", "10.77.0.0/24", "10.77.0.0/25", "fd77:0:0:1::/64"];
    let mut told = Vec::new();
    for subnet in ten {
        let subnet = subnet.parse().unwrap();
        swarmd.say(ToNet::CheckSubnet(subnet)).await;
        let pick = |message| match message {
            FromNet::Subnet { subnet: of, overlap } if of == subnet => Some(overlap.unwrap()),
            _ => None,
        };
        told.push(swarmd.hear_of(pick).await);
    }
    let (lan, own) = (Some("10.33.0.0/24 dev lan0".to_owned()), Some(format!("10.77.0.0/24 dev {BRIDGE}")));
    assert_eq!(told, [lan.clone(), lan, None, None, own, None]);
}
