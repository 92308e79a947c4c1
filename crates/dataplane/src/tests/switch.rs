//! Encrypted networks between hosts, each with a `swarmd net` and a data plane in a network namespace of its own.

mod place;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use swarm_net::testing::is_skipped_without_tap;

use self::place::{Cluster, Container, PORT};
use crate::{
    protocol::SwitchStats,
    testing::{eventually, until},
};

/// Bytes that nothing else sends.
const MARKER: &[u8] = b"a-marker-that-nobody-may-read";
/// A stream that the kernel cuts into segments of 64 KB.
const STREAM_BYTES: usize = 4 << 20;

/// Sends a stream full of markers from one container to another, and its length back.
async fn send_stream(from: &Container, to: &Container, v6: bool) {
    let listener = to.netns.within(|| TcpListener::bind(("::", PORT)).unwrap());
    let reading = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(&(received.len() as u64).to_be_bytes()).unwrap();
        received
    });
    let addr = if v6 { to.v6 } else { to.v4 };
    let mut stream = from.connect(addr).await;
    let sent = MARKER.repeat(STREAM_BYTES / MARKER.len());
    let (answer, count) = from.netns.within(|| {
        stream.write_all(&sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        (u64::from_be_bytes(answer), sent.len())
    });
    assert_eq!(answer, count as u64);
    assert!(reading.join().unwrap() == sent);
}

/// A connection between two containers, and a way to see that bytes pass both ways.
struct Talk(TcpStream, TcpStream);

impl Talk {
    async fn begin(from: &Container, to: &Container) -> Self {
        let listener = to.netns.within(|| TcpListener::bind(("::", PORT)).unwrap());
        let client = from.connect(to.v4).await;
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        }
        Self(client, server)
    }

    fn goes_on(&self) {
        let Self(client, server) = self;
        for (mut from, mut to) in [(client, server), (server, client)] {
            from.write_all(MARKER).unwrap();
            let mut received = [0; MARKER.len()];
            to.read_exact(&mut received).unwrap();
            assert_eq!(received, MARKER);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_reach_each_other_and_nobody_reads_along() {
    if is_skipped_without_tap() {
        return;
    }
    let cluster = Cluster::start(2).await;
    let [a, b] = &cluster.hosts[..] else { panic!("two hosts") };
    let capture = cluster.capture();
    send_stream(&a.container, &b.container, false).await;
    send_stream(&b.container, &a.container, true).await;
    // The capture works: it shows a marker that is sent in the clear.
    let shown = b"a marker that everybody may read";
    a.send_in_clear(b, shown);
    let seen = capture.until_seen(shown).await;
    assert!(seen.len() > 2 * STREAM_BYTES, "the streams passed here: {} bytes", seen.len());
    assert!(!seen.windows(MARKER.len()).any(|bytes| bytes == MARKER), "the marker is in the clear");
    for host in [a, b] {
        assert!(!host.netns.has_link("vx4097") && host.netns.has_link("vt4097"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_a_node_may_not_send_are_dropped_and_counted() {
    if is_skipped_without_tap() {
        return;
    }
    let mut cluster = Cluster::start(3).await;
    cluster.hosts[2].container.datagram(&cluster.hosts[1].container).await;
    // The third host's container takes the addresses of the first one's.
    let [a, b, c] = &mut cluster.hosts[..] else { panic!("three hosts") };
    c.container.pose_as(&a.container);
    let before = b.stats().await;
    assert_eq!(before, SwitchStats::default());
    eventually(async || {
        c.container.send(b"forged", &b.container);
        let now = b.stats().await;
        if now.forged > 0 { Ok(()) } else { Err(now) }
    })
    .await;
    assert!(!b.container.datagrams().contains(&b"forged".to_vec()), "a forged datagram came through");
    // A node that has left the network gets nothing of it.
    b.leave_network().await;
    eventually(async || {
        a.container.send(b"?", &b.container);
        let now = b.stats().await;
        if now.foreign > 0 { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_without_a_device_is_warned_of_until_it_has_one() {
    if is_skipped_without_tap() {
        return;
    }
    let mut cluster = Cluster::start(1).await;
    let host = &mut cluster.hosts[0];
    until(|| host.netns.has_link("vt4097")).await;
    host.end_net();
    host.netns.run("ip link del vt4097");
    host.warned(|warnings| warnings.iter().any(|text| text.contains("encrypted network net: nothing passes"))).await;
    host.begin_net().await;
    host.warned(<[String]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_survive_both_processes() {
    if is_skipped_without_tap() {
        return;
    }
    let mut cluster = Cluster::start(2).await;
    let [a, b] = &mut cluster.hosts[..] else { panic!("two hosts") };
    let talk = Talk::begin(&a.container, &b.container).await;
    talk.goes_on();
    b.end_net();
    talk.goes_on();
    b.begin_net().await;
    talk.goes_on();
    b.end_data();
    b.begin_data(false).await;
    cluster.tell().await;
    talk.goes_on();
    // The next data plane takes over, and the one before ends.
    cluster.hosts[0].begin_data(true).await;
    talk.goes_on();
    // Somebody removes the device.
    cluster.hosts[0].netns.run("ip link del vt4097");
    talk.goes_on();
}
