//! Frames of Ethernet on links.

use std::sync::Mutex;

use super::*;

type Seen = Arc<Mutex<Vec<(NodeId, u32, Vec<u8>)>>>;

/// The frames that a node gets from now on.
fn seen_by(node: &Node) -> Seen {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    node.links.take_ethernet(Box::new(move |from, network, frame| {
        kept.lock().unwrap().push((from, network, frame.to_vec()));
        if frame == b"forged" { Err("it is forged") } else { Ok(()) }
    }));
    seen
}

fn frame(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

#[tokio::test]
async fn frames_wait_for_the_first_link_and_keep_their_order() {
    let (_ca, a, b) = pair().await;
    let seen = seen_by(&b);
    for number in 0..1000 {
        a.links.send_ethernet(b.id, 7, 1, frame(number));
    }
    let long = Bytes::from(vec![9; frame::ETHERNET_BYTES_MAX]);
    a.links.send_ethernet(b.id, 8, 1, long.clone());
    until(|| seen.lock().unwrap().len() == 1001).await;
    let expected = (0..1000).map(|number| (a.id, 7, frame(number).to_vec())).chain([(a.id, 8, long.to_vec())]);
    assert!(seen.lock().unwrap().iter().cloned().eq(expected));
    assert_eq!(a.links.dropped_ethernet(), 0);
}

#[tokio::test]
async fn frames_that_a_peer_may_not_send_are_counted() {
    let (_ca, a, b) = pair().await;
    let seen = seen_by(&b);
    for bytes in [&b"forged"[..], b"good", b"forged"] {
        a.links.send_ethernet(b.id, 7, 1, Bytes::copy_from_slice(bytes));
    }
    until(|| seen.lock().unwrap().len() == 3).await;
    until(|| b.links.counters().ethernet == 2).await;
    assert_eq!(a.links.count(b.id), 1, "the link carries on");
}

#[tokio::test]
async fn frames_without_a_way_are_dropped_and_counted() {
    let ca = Ca::create().unwrap();
    let [a, b] = nodes(&ca).await;
    a.links.send_ethernet(NodeId(99), 7, 1, frame(1));
    assert_eq!(a.links.dropped_ethernet(), 1, "the node has no address");
    let gone = (b.id, b.addr);
    drop(b);
    until(|| std::net::TcpListener::bind(gone.1).is_ok()).await;
    a.links.send_ethernet(gone.0, 7, 1, frame(1));
    until(|| a.links.dropped_ethernet() == 2).await;
    a.links.send_ethernet(gone.0, 7, 1, Bytes::from(vec![0; frame::ETHERNET_BYTES_MAX + 1]));
    assert_eq!(a.links.dropped_ethernet(), 3, "it is too long");
}

#[tokio::test]
async fn a_flood_for_a_slow_node_is_dropped_and_holds_nobody_up() {
    let (_ca, a, mut b) = pair().await;
    let streams = a.stream_to(&mut b).await;
    let seen = seen_by(&b);
    // On a runtime with one thread nothing is sent before the flood is over.
    let big = Bytes::from(vec![0; 60_000]);
    for _ in 0..100 {
        a.links.send_ethernet(b.id, 7, 1, big.clone());
    }
    let dropped = a.links.dropped_ethernet() as usize;
    assert!((80..100).contains(&dropped), "{dropped} of 100 are dropped");
    let (mut ours, mut theirs) = streams;
    ours.write_all(b"x").await.unwrap();
    assert_eq!(soon(theirs.read_u8()).await.unwrap(), b'x');
    until(|| seen.lock().unwrap().len() == 100 - dropped).await;
}

#[tokio::test]
async fn a_link_that_carries_frames_does_not_end() {
    let (_ca, a, b) = pair().await;
    let seen = seen_by(&b);
    a.links.send_ethernet(b.id, 7, 1, frame(0));
    until(|| a.links.count(b.id) == 1 && !seen.lock().unwrap().is_empty()).await;
    tokio::time::pause();
    let begin = Instant::now();
    while begin.elapsed() < 2 * driver::IDLE_MAX {
        a.links.send_ethernet(b.id, 7, 1, frame(1));
        tokio::time::advance(driver::IDLE_MAX / 400).await;
        assert_eq!((a.links.count(b.id), b.links.count(a.id)), (1, 1), "after {:?}", begin.elapsed());
    }
    // A link ends when no frames pass any more.
    until(|| (a.links.count(b.id), b.links.count(a.id)) == (0, 0)).await;
}
