use std::{io::Read, net::IpAddr};

use swarm_model::{ObjectId, ServiceId};

use super::place::*;
use crate::protocol::{FromNet, ToNet};

const WEB: ServiceId = ServiceId(7);

fn service(virtual_addrs: &[&str], backends: &[&Container]) -> ToNet {
    ToNet::PutService {
        network: NETWORK,
        service: WEB,
        virtual_addrs: virtual_addrs.iter().map(|addr| ip(addr)).collect(),
        backends: backends.iter().flat_map(|backend| [backend.v4, backend.v6]).collect(),
    }
}

fn vip() -> IpAddr {
    ip("10.77.0.250")
}

fn vip_v6() -> IpAddr {
    ip("fd77::250")
}

/// A host with a client and two containers that serve.
async fn serving_host() -> (Host, Container, Container, Container) {
    let host = Host::new("192.0.2.1").await;
    let (client, one, two) = (host.container(10), host.container(11), host.container(12));
    one.serve();
    two.serve();
    (host, client, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_address_leads_to_all_tasks() {
    if is_skipped() {
        return;
    }
    let (host, client, one, two) = serving_host().await;
    let mut swarmd = host.swarmd().await;
    swarmd.say(service(&["10.77.0.250", "fd77::250"], &[&one, &two])).await;
    for container in [&client, &one] {
        swarmd.say(ToNet::PutContainer(container.record(Some(container.show())))).await;
    }
    swarmd.sync().await;
    client.reaches(one.v4).await;
    client.reaches(two.v6).await;
    let both = ["c11".to_owned(), "c12".to_owned()].into();
    assert_eq!(client.answering(vip(), 60), both);
    assert_eq!(client.answering(vip_v6(), 60), both);
    // A task calls its own service, and gets itself as well.
    assert_eq!(one.answering(vip(), 60), both);

    // An open connection stays with its task; new ones go to others.
    let (id, mut open) = client.connect(vip()).unwrap();
    let (left, other) = if id == "c11" { (&two, "c12") } else { (&one, "c11") };
    swarmd.say(service(&["10.77.0.250", "fd77::250"], &[left])).await;
    swarmd.sync().await;
    assert_eq!(client.answering(vip(), 20), [other.to_owned()].into());
    open.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let quiet = open.read(&mut [0]).unwrap_err();
    assert_eq!(quiet.kind(), std::io::ErrorKind::WouldBlock, "the connection stands");

    // Without a task the address refuses at once.
    swarmd.say(service(&["10.77.0.250", "fd77::250"], &[])).await;
    swarmd.sync().await;
    for addr in [vip(), vip_v6()] {
        assert_eq!(client.connect(addr).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
    swarmd.say(ToNet::RemoveService { network: NETWORK, service: WEB }).await;
    swarmd.sync().await;
    assert_ne!(client.connect(vip()).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_task_that_is_gone_are_reset() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let (client, one) = (host.container(10), host.container(11));
    one.serve();
    let mut swarmd = host.swarmd().await;
    swarmd.say(ToNet::PutContainer(client.record(Some(client.show())))).await;
    swarmd.sync().await;
    client.reaches(one.v4).await;
    let (_, mut open) = client.connect(one.v4).unwrap();
    swarmd.say(ToNet::PutGone { network: NETWORK, addr: one.v4 }).await;
    swarmd.sync().await;
    // The reset comes with the next packet that is sent.
    let ended = client.netns.within(|| {
        use std::io::Write;
        open.write_all(b"x").and_then(|()| open.read(&mut [0]).map(drop))
    });
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(client.connect(one.v4).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    // Its other address is not gone.
    client.reaches(one.v6).await;
    swarmd.say(ToNet::RemoveGone { network: NETWORK, addr: one.v4 }).await;
    swarmd.sync().await;
    client.connect(one.v4).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_of_udp_moves_when_its_task_leaves() {
    if is_skipped() {
        return;
    }
    let mut host = Host::new("192.0.2.1").await;
    let (client, one, two) = (host.container(10), host.container(11), host.container(12));
    one.serve();
    two.serve();
    let mut swarmd = host.swarmd().await;
    swarmd.say(service(&["10.77.0.250"], &[&one, &two])).await;
    swarmd.say(ToNet::PutContainer(client.record(Some(client.show())))).await;
    swarmd.sync().await;
    client.reaches(one.v4).await;
    let socket = client.udp();
    let first = client.ask(&socket, vip());
    assert_eq!((0..20).filter(|_| client.ask(&socket, vip()) != first).count(), 0, "a flow stays with its task");
    let (left, other) = if first == "c11" { (&two, "c12") } else { (&one, "c11") };
    swarmd.say(service(&["10.77.0.250"], &[left])).await;
    swarmd.sync().await;
    assert_eq!(client.ask(&socket, vip()), other);

    // The flow moves as well when another process sees the task leave.
    host.start_again().await;
    let moved_to = if other == "c11" { &two } else { &one };
    let mut swarmd = host.swarmd().await;
    swarmd.say(service(&["10.77.0.250"], &[moved_to])).await;
    swarmd.say(ToNet::PutContainer(client.record(Some(client.show_again())))).await;
    swarmd.sync().await;
    assert_eq!(client.ask(&socket, vip()), moved_to.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_found_by_its_address_before_swarmd_knows_its_namespace() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let (one, other) = (host.container(11), host.container(12));
    one.serve();
    let mut swarmd = host.swarmd().await;
    swarmd.say(service(&["10.77.0.250"], &[&one])).await;
    let mut client = host.container(10);
    // The engine gives the address after it has shown the namespace.
    client.netns.run(&format!("ip addr del {}/24 dev eth0", client.v4));
    client.netns.run(&format!("ip addr del {}/64 dev eth0", client.v6));
    swarmd.say(ToNet::PutContainer(client.record(None))).await;
    swarmd.sync().await;
    other.show();
    client.show();
    client.netns.run(&format!("ip addr add {}/24 dev eth0", client.v4));
    swarmd.ready(&client).await;
    assert_eq!(client.reaches(vip()).await, "c11");
    assert!(!other.has_table(), "the namespace of another container is left alone");

    // Started again it has another namespace.
    client.unmount();
    host.netns.run(&format!("ip link del {}", client.end));
    drop(client);
    client = host.container(10);
    client.rename("z10");
    client.show();
    swarmd.ready(&client).await;
    assert_eq!(client.reaches(vip()).await, "c11");

    // The same when swarmd has named the one before.
    let sandbox = client.show_again();
    swarmd.say(ToNet::PutContainer(client.record(Some(sandbox)))).await;
    swarmd.sync().await;
    client.unmount();
    host.netns.run(&format!("ip link del {}", client.end));
    drop(client);
    client = host.container(10);
    client.rename("y10");
    client.show();
    swarmd.ready(&client).await;
    assert_eq!(client.reaches(vip()).await, "c11");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_no_containers_is_refused() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let mut swarmd = host.swarmd().await;
    let client = host.container(10);
    let outside = client.netns.path();
    swarmd.say(ToNet::PutContainer(client.record(Some(outside)))).await;
    let reason = swarmd
        .hear_of(|message| match message {
            FromNet::NotReady { reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("is no network namespace of a container"), "{reason}");
    assert!(!client.has_table());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_services_are_changed_one_by_one() {
    if is_skipped() {
        return;
    }
    let (host, client, one, two) = serving_host().await;
    let mut swarmd = host.swarmd().await;
    for n in 0..1000_u16 {
        let [high, low] = n.to_be_bytes();
        let virtual_addrs = vec![IpAddr::from([10, 78, high, low])];
        let backends = (1..=10).map(|last| IpAddr::from([10, 79, low, last])).collect();
        let service = ServiceId(1000 + u128::from(n));
        swarmd.say(ToNet::PutService { network: NETWORK, service, virtual_addrs, backends }).await;
    }
    swarmd.say(service(&["10.77.0.250"], &[&one])).await;
    swarmd.say(ToNet::PutContainer(client.record(Some(client.show())))).await;
    swarmd.sync().await;
    assert_eq!(client.reaches(vip()).await, "c11");
    let began = std::time::Instant::now();
    swarmd.say(service(&["10.77.0.250"], &[&two])).await;
    swarmd.sync().await;
    println!("one change among 1000 services: {:?}", began.elapsed());
    assert_eq!(client.answering(vip(), 10), ["c12".to_owned()].into());
    // Of a network that is not this container's nothing is there.
    swarmd.say(ToNet::RemoveNetwork(NETWORK)).await;
    swarmd.say(ToNet::PutNetwork(crate::protocol::LocalNetwork { id: ObjectId(9), vni: 9, ..network() })).await;
    swarmd.sync().await;
    client.connect(vip()).unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_sync_means_that_all_tables_are_loaded() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let mut swarmd = host.swarmd().await;
    for round in 0..5 {
        let containers: Vec<_> = (10..20).map(|last| host.container(last)).collect();
        for container in &containers {
            swarmd.say(ToNet::PutContainer(container.record(Some(container.show())))).await;
        }
        swarmd.sync().await;
        assert!(containers.iter().all(Container::has_table), "round {round}");
        for container in containers {
            swarmd.say(ToNet::RemoveContainer(container.id.clone())).await;
            container.hide();
            host.netns.run(&format!("ip link del {}", container.end));
        }
        swarmd.sync().await;
    }
}
