use super::place::*;
use crate::{
    protocol::{LocalNetwork, ToNet},
    switch_queue,
    testing::is_skipped_without_tap,
};

const TAP: &str = "vt4097";

fn encrypted() -> ToNet {
    ToNet::PutNetwork(LocalNetwork { encrypted: true, ..network() })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_network_has_a_tap_device_that_stays() {
    if is_skipped_without_tap() {
        return;
    }
    let mut host = Host::new("192.0.2.1").await;
    let mut swarmd = host.swarmd().await;
    swarmd.sync().await;
    assert!(host.netns.has_link(DEVICE));
    swarmd.say(encrypted()).await;
    swarmd.sync().await;
    assert!(!host.netns.has_link(DEVICE), "the device of the network in clear text goes");
    let is_settled = |host: &Host| {
        let link = host.netns.try_run(&format!("ip -d link show {TAP}")).unwrap_or_default();
        [
            "tun type tap",
            "persist on user ",
            "alias swarmd:c1",
            "mtu 1450",
            &format!("master {BRIDGE}"),
            "multi_queue",
            ",UP",
        ]
        .iter()
        .all(|part| link.contains(part))
    };
    assert!(is_settled(&host), "{}", host.netns.run(&format!("ip -d link show {TAP}")));
    // Two data planes of one host have a queue each.
    let socket = host.socket();
    let one = soon(switch_queue(&socket, NETWORK)).await.unwrap();
    let two = soon(switch_queue(&socket, NETWORK)).await.unwrap();
    drop((one, two));
    // A caller that comes early waits.
    let other = swarm_model::ObjectId(0x78);
    let waiting = tokio::spawn(async move { switch_queue(&socket, other).await });
    let put = LocalNetwork { id: other, vni: 4098, bridge: "sw4098".to_owned(), encrypted: true, ..network() };
    swarmd.say(ToNet::PutNetwork(put)).await;
    swarmd.sync().await;
    assert!(!waiting.is_finished());
    host.netns.run("ip link add sw4098 type bridge");
    soon(waiting).await.unwrap().unwrap();
    // The device outlives the process and its queues.
    drop(swarmd);
    host.start_again().await;
    assert!(is_settled(&host));
    for damage in [
        format!("ip link set {TAP} nomaster"),
        format!("ip link set {TAP} down"),
        format!("ip link set {TAP} mtu 1400"),
        format!("ip link del {TAP}"),
    ] {
        let mut swarmd = host.swarmd().await;
        swarmd.say(encrypted()).await;
        swarmd.sync().await;
        host.netns.run(&damage);
        until(|| is_settled(&host)).await;
    }
    let mut swarmd = host.swarmd().await;
    swarmd.say(ToNet::RemoveNetwork(NETWORK)).await;
    swarmd.sync().await;
    assert!(!host.netns.has_link(TAP) && host.netns.has_link(BRIDGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_an_earlier_process_left_are_removed() {
    if is_skipped_without_tap() {
        return;
    }
    let mut host = Host::new("192.0.2.1").await;
    let mut swarmd = host.swarmd().await;
    swarmd.say(encrypted()).await;
    swarmd.sync().await;
    drop(swarmd);
    let _swarmd = host.start_again_without_networks().await;
    until(|| !host.netns.has_link(TAP)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_tap_devices_says_so_and_makes_no_other_device() {
    if is_skipped_without_tap() {
        return;
    }
    let mut host = Host::new("192.0.2.1").await;
    host.start_again_without("tun").await;
    let mut swarmd = host.swarmd().await;
    swarmd.sync().await;
    assert!(host.netns.has_link(DEVICE), "networks in clear text need none");
    swarmd.say(encrypted()).await;
    swarmd.warned(|warnings| warnings == ["SWARMD_WITHOUT says that there is no tun"]).await;
    assert!(!host.netns.has_link(DEVICE) && !host.netns.has_link(TAP));
    let error = soon(switch_queue(&host.socket(), NETWORK)).await.unwrap_err();
    assert!(error.to_string().contains("there is no tun"), "{error}");
}
