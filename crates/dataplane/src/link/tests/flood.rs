//! Tests of peers that mean harm: each is refused and counted, and the traffic of others is not harmed.

use swarm_wire::DataTls;

use super::*;
use crate::link::{
    frame::Frame,
    mux::{STREAMS_MAX, UNANSWERED_MAX, flow::WINDOW_BYTES_MIN},
};

/// Whether a stream carries bytes.
async fn check(pair: &mut (LinkStream, LinkStream)) {
    let (ours, theirs) = pair;
    ours.write_all(b"x").await.unwrap();
    assert_eq!(soon(theirs.read_u8()).await.unwrap(), b'x');
}

/// A node that speaks to `to` with its own words.
async fn rogue(ca: &Ca, node: u128, to: &Node) -> swarm_wire::DataStream {
    let tls = DataTls::new(identity(ca, node)).unwrap();
    let mut stream = tls.connect(to.addr, to.id).await.unwrap().stream;
    driver::welcome(&mut stream).await.unwrap();
    stream
}

async fn say(stream: &mut swarm_wire::DataStream, frames: &[Frame]) -> std::io::Result<()> {
    for frame in frames {
        for part in frame.parts() {
            stream.write_all(part).await?;
        }
    }
    stream.flush().await
}

/// Waits until the peer has closed the connection.
async fn closed(stream: &mut swarm_wire::DataStream) {
    let mut bytes = Vec::new();
    let _ = soon(stream.read_to_end(&mut bytes)).await;
}

#[tokio::test]
async fn garbage_on_the_port_is_refused() {
    let (_ca, a, mut b) = pair().await;
    let mut good = a.stream_to(&mut b).await;
    for text in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0x16, 3, 1, 0xff, 0xff, 1], &[]] {
        let mut tcp = TcpStream::connect(b.addr).await.unwrap();
        let _ = tcp.write_all(text).await;
        let _ = tcp.shutdown().await;
        let mut rest = Vec::new();
        let _ = soon(tcp.read_to_end(&mut rest)).await;
    }
    until(|| b.links.counters().handshakes == 4).await;
    check(&mut good).await;
}

#[tokio::test]
async fn half_open_handshakes_do_not_keep_nodes_out() {
    let ca = Ca::create().unwrap();
    let [a, mut b] = nodes(&ca).await;
    let mut silent = Vec::new();
    for _ in 0..listen::HANDSHAKES_MAX + 50 {
        silent.push(TcpStream::connect(b.addr).await.unwrap());
    }
    let mut good = a.stream_to(&mut b).await;
    check(&mut good).await;
    until(|| b.links.counters().floods >= 50).await;
    let first = &mut silent[0];
    assert!(soon(first.read_u8()).await.is_err());
}

#[tokio::test]
async fn a_peer_that_opens_streams_without_end_is_refused_more() {
    let ca = Ca::create().unwrap();
    let [a, mut b, _c] = nodes(&ca).await;
    let mut good = a.stream_to(&mut b).await;
    let mut rogue = rogue(&ca, 3, &b).await;
    let content = encode_request(&request()).unwrap();
    let opens = |from: usize, to: usize| -> Vec<_> {
        (from..to).map(|n| Frame::open(2 * n as u32 + 1, content.clone())).collect()
    };
    // So many that nobody has looked at.
    say(&mut rogue, &opens(0, UNANSWERED_MAX + 100)).await.unwrap();
    until(|| b.links.counters().streams == 100).await;
    check(&mut good).await;
    // Others get theirs looked at meanwhile.
    let opening = tokio::spawn({
        let (links, node) = (a.links.clone(), b.id);
        async move { links.open(node, request()).await }
    });
    let mut open = Vec::new();
    let other = loop {
        let incoming = soon(b.incoming.recv()).await.unwrap();
        if incoming.from == a.id {
            break incoming.accept();
        }
        open.push(incoming.accept());
    };
    opening.await.unwrap().unwrap();
    assert_eq!(open.len(), UNANSWERED_MAX);
    // So many that are open.
    let mut at = UNANSWERED_MAX + 100;
    while open.len() < STREAMS_MAX {
        let amount = (STREAMS_MAX - open.len()).min(UNANSWERED_MAX);
        say(&mut rogue, &opens(at, at + amount)).await.unwrap();
        at += amount;
        for _ in 0..amount {
            open.push(soon(b.incoming.recv()).await.unwrap().accept());
        }
    }
    let before = b.links.counters().streams;
    say(&mut rogue, &opens(at, at + 1)).await.unwrap();
    until(|| b.links.counters().streams == before + 1).await;
    assert!(b.incoming.try_recv().is_err());
    check(&mut good).await;
    drop(other);
}

#[tokio::test]
async fn a_peer_that_ignores_its_credit_is_cut_off() {
    let ca = Ca::create().unwrap();
    let [a, mut b, _c] = nodes(&ca).await;
    let mut good = a.stream_to(&mut b).await;
    let mut rogue = rogue(&ca, 3, &b).await;
    say(&mut rogue, &[Frame::open(1, encode_request(&request()).unwrap())]).await.unwrap();
    let mut stream = soon(b.incoming.recv()).await.unwrap().accept();
    let half = Bytes::from(vec![1; WINDOW_BYTES_MIN as usize / 2]);
    let _ =
        say(&mut rogue, &[Frame::data(1, half.clone()), Frame::data(1, half), Frame::data(1, Bytes::from("x"))]).await;
    closed(&mut rogue).await;
    assert_eq!(b.links.counters().rules, 1);
    let mut bytes = Vec::new();
    let error = soon(stream.read_to_end(&mut bytes)).await.unwrap_err();
    assert!(error.to_string().contains("more than it had credit for"), "{error}");
    check(&mut good).await;
}

#[tokio::test]
async fn a_peer_that_breaks_other_rules_is_cut_off() {
    let ca = Ca::create().unwrap();
    let [a, mut b, _c] = nodes(&ca).await;
    let mut good = a.stream_to(&mut b).await;
    let content = encode_request(&request()).unwrap();
    let cases = [
        vec![Frame::data(1, Bytes::from("x"))],
        vec![Frame::open(2, content.clone())],
        vec![Frame::open(3, content.clone()), Frame::open(1, content.clone())],
        vec![Frame::open(1, content.clone()), Frame::fin(1)],
        vec![Frame::accept(2)],
        vec![Frame::open(1, Bytes::from("nonsense"))],
    ];
    for (n, frames) in cases.into_iter().enumerate() {
        let mut rogue = rogue(&ca, 3, &b).await;
        let _ = say(&mut rogue, &frames).await;
        closed(&mut rogue).await;
        assert_eq!(b.links.counters().rules, n as u64 + 1);
        check(&mut good).await;
    }
}

#[tokio::test]
async fn a_peer_that_asks_without_end_and_does_not_read_is_cut_off() {
    let ca = Ca::create().unwrap();
    let [a, mut b, _c] = nodes(&ca).await;
    let mut good = a.stream_to(&mut b).await;
    let mut rogue = rogue(&ca, 3, &b).await;
    let content = encode_request(&request()).unwrap();
    let mut n = 0;
    let flood = async {
        loop {
            let opens: Vec<_> = (n..n + 512).map(|n| Frame::open(2 * n + 1, content.clone())).collect();
            n += 512;
            if say(&mut rogue, &opens).await.is_err() {
                break;
            }
        }
    };
    let mut refused = 0_u64;
    let refusing = async {
        while let Some(incoming) = b.incoming.recv().await {
            refused += 1;
            incoming.refuse("no such task".to_owned());
        }
    };
    // The flood ends when its link is cut off.
    soon(async {
        tokio::select! {
            () = flood => {}
            () = refusing => {}
        }
    })
    .await;
    assert!(refused > 0);
    assert_eq!(b.links.counters().rules, 1);
    check(&mut good).await;
}

#[tokio::test]
async fn one_peer_has_a_bounded_number_of_links() {
    let ca = Ca::create().unwrap();
    let [a, mut b, _c] = nodes(&ca).await;
    let mut good = a.stream_to(&mut b).await;
    let mut links = Vec::new();
    let tls = DataTls::new(identity(&ca, 3)).unwrap();
    while b.links.counters().nodes == 0 {
        assert!(links.len() < 100, "no end of links");
        let mut stream = tls.connect(b.addr, b.id).await.unwrap().stream;
        let _ = driver::welcome(&mut stream).await;
        links.push(stream);
    }
    assert_eq!(links.len(), 9);
    check(&mut good).await;
}
