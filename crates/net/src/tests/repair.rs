use std::time::{Duration, Instant};

use super::{
    overlay::{Connected, connected_hosts},
    place::*,
};
use crate::protocol::ToNet;

/// Longest time until something is back: two seconds, and more for machines that are busy. A look that follows no event
/// comes much later.
const REPAIR_MAX: Duration = Duration::from_secs(10);

async fn repaired(condition: impl FnMut() -> bool) {
    let began = Instant::now();
    until(condition).await;
    assert!(began.elapsed() < REPAIR_MAX, "it took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_removed_comes_back() {
    if is_skipped() {
        return;
    }
    let Connected { a, b: _b, one, two, at_a, at_b } = connected_hosts().await;
    one.reaches(two.v4).await;
    // The process repairs without swarmd.
    drop((at_a, at_b));
    let fdb = || a.netns.try_run(&format!("bridge fdb show dev {DEVICE}")).unwrap_or_default();
    let neighbours = || a.netns.try_run(&format!("ip neigh show dev {DEVICE}")).unwrap_or_default();
    let is_whole = || {
        fdb().contains("02:42:0a:4d:00:0c dst 192.0.2.2")
            && neighbours().contains("10.77.0.12 lladdr 02:42:0a:4d:00:0c PERMANENT")
    };
    let forgotten = format!("bridge fdb del 02:42:0a:4d:00:0c dev {DEVICE} dst 192.0.2.2 self");
    let down = format!("ip link set {DEVICE} down\nip link set {DEVICE} up");
    let neighbour = format!("ip neigh del 10.77.0.12 dev {DEVICE}");
    let elsewhere = format!("bridge fdb replace 02:42:0a:4d:00:0c dev {DEVICE} dst 192.0.2.9 self permanent");
    let another = format!("ip neigh replace 10.77.0.12 lladdr 02:42:00:00:00:01 dev {DEVICE} nud permanent");
    for damage in [forgotten, neighbour, elsewhere, another, format!("ip link del {DEVICE}"), down] {
        assert!(is_whole());
        a.netns.run(&damage);
        repaired(is_whole).await;
        assert_eq!(one.reaches(two.v4).await, "c12", "after {damage}");
    }
    let master = |link: &str| a.netns.try_run(&format!("ip link show {link}")).unwrap_or_default().contains(BRIDGE);
    for (damage, link) in
        [(format!("ip link set {DEVICE} nomaster"), DEVICE), (format!("ip link set {} nomaster", one.end), &one.end)]
    {
        a.netns.run(&damage);
        repaired(|| master(link)).await;
        assert_eq!(one.reaches(two.v4).await, "c12", "after {damage}");
    }
    a.netns.run(&format!("ip link set {DEVICE} mtu 1400"));
    repaired(|| a.netns.run(&format!("ip link show {DEVICE}")).contains("mtu 1450")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_removed_under_a_container_comes_back_with_its_ports() {
    if is_skipped() {
        return;
    }
    let Connected { a, b, one, two, mut at_a, mut at_b } = connected_hosts().await;
    one.reaches(two.v4).await;
    a.netns.run(&format!("ip link del {BRIDGE}"));
    repaired(|| a.netns.has_link(BRIDGE)).await;
    assert_eq!(one.reaches(two.v4).await, "c12");
    let addrs = a.netns.run(&format!("ip addr show {BRIDGE}"));
    assert!(addrs.contains("10.77.0.1/24") && addrs.contains("fd77::1/64"), "{addrs}");

    // The engine does not know it as its own. It goes with the network, when it has no ports any more.
    a.netns.run(&format!("ip link del {}", one.end));
    at_a.say(ToNet::RemoveNetwork(NETWORK)).await;
    at_a.sync().await;
    assert!(!a.netns.has_link(BRIDGE) && !a.netns.has_link(DEVICE));

    // Without a container a bridge that is removed is the engine's matter.
    b.netns.run(&format!("ip link del {BRIDGE}"));
    at_b.sync().await;
    assert!(!b.netns.has_link(BRIDGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_removed_in_a_container_come_back() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let client = host.container(10);
    let mut swarmd = host.swarmd().await;
    swarmd.say(ToNet::PutGone { network: NETWORK, addr: ip("10.77.0.99") }).await;
    swarmd.say(ToNet::PutContainer(client.record(Some(client.show())))).await;
    swarmd.sync().await;
    drop(swarmd);
    let is_refused = || {
        let tried = client.connect(ip("10.77.0.99"));
        tried.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    assert!(is_refused());
    client.netns.within(|| {
        let mut tables = crate::nft::Tables::open().unwrap();
        let mut batch = crate::nft::Batch::new(crate::nft::Family::Ip, "swarmd");
        batch.remove_table();
        let generation = tables.generation().unwrap();
        tables.change(generation, batch.into_messages()).unwrap();
    });
    repaired(is_refused).await;
}
