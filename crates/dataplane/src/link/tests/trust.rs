//! Tests of who may have links, and for how long.

use super::*;

/// Waits until a stream fails because its link was cut.
async fn cut(stream: &mut LinkStream) -> String {
    let error = soon(stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    error.to_string()
}

#[tokio::test]
async fn a_removed_node_loses_its_links_at_once_and_gets_no_new_ones() {
    let ca = Ca::create().unwrap();
    let [a, mut b, c] = nodes(&ca).await;
    let (mut ours, mut theirs) = a.stream_to(&mut b).await;
    b.links.set_peers([(c.id, c.addr)].into());
    let reason = cut(&mut theirs).await;
    assert!(reason.contains("no longer in the table"), "{reason}");
    // The peer is told why.
    let reason = cut(&mut ours).await;
    assert!(reason.contains("no longer in the table"), "{reason}");
    let error = a.links.open(b.id, request()).await.unwrap_err();
    assert!(error.to_string().contains("not in the table"), "{error}");
    assert!(b.links.counters().nodes >= 1, "{:?}", b.links.counters());
}

#[tokio::test]
async fn a_renewed_certificate_counts_for_new_links_and_leaves_the_old_ones() {
    let (ca, a, mut b) = pair().await;
    let (mut ours, mut theirs) = a.stream_to(&mut b).await;
    a.links.set_identity(identity(&ca, 1)).unwrap();
    let (newer, _newer) = a.stream_to(&mut b).await;
    assert_eq!(a.links.count(b.id), 2, "the old link takes no new streams");
    ours.write_all(b"x").await.unwrap();
    assert_eq!(theirs.read_u8().await.unwrap(), b'x');
    drop((ours, theirs));
    until(|| a.links.count(b.id) == 1).await;
    drop(newer);
}

#[tokio::test]
async fn a_replaced_root_cuts_the_links_of_who_has_no_certificate_of_it() {
    let (old, new) = (Ca::create().unwrap(), Ca::create().unwrap());
    let [a, mut b, mut c] = nodes(&old).await;
    let both = format!("{}{}", old.cert_pem(), new.cert_pem());
    let (mut to_b, _b) = a.stream_to(&mut b).await;
    // While both roots count nothing ends.
    let renewed = identity(&new, 1);
    a.links.set_identity(renewed.trusting(&both).unwrap()).unwrap();
    for (node, links) in [(2, &b.links), (3, &c.links)] {
        links.set_identity(identity(&old, node).trusting(&both).unwrap()).unwrap();
    }
    let (mut to_c, _c) = a.stream_to(&mut c).await;
    to_b.write_all(b"x").await.unwrap();
    // Then only the new one counts: both peers have certificates of the old one.
    a.links.set_identity(renewed).unwrap();
    for stream in [&mut to_b, &mut to_c] {
        let reason = cut(stream).await;
        assert!(reason.contains("no longer trusted"), "{reason}");
    }
    let error = a.links.open(c.id, request()).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable(_)), "{error}");
    // With a new certificate the peer is back.
    c.links.set_identity(identity(&new, 3)).unwrap();
    let _ = a.stream_to(&mut c).await;
}

#[tokio::test]
async fn strangers_are_refused_and_counted() {
    let ca = Ca::create().unwrap();
    let [a, b] = nodes(&ca).await;
    let other = Ca::create().unwrap();
    let foreign = identity(&other, 1);
    let intruder = NodeIdentity::new(foreign.cert_pem(), foreign.key_pem().clone(), ca.cert_pem()).unwrap();
    let (links, _incoming) = Links::new();
    links.set_identity(intruder).unwrap();
    links.set_peers([(b.id, b.addr)].into());
    let error = links.open(b.id, request()).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable(_)), "{error}");
    until(|| b.links.counters().certificates == 1).await;
    // A node of the cluster that is not in the table.
    let unknown = Node::new(&ca, 9).await;
    unknown.links.set_peers([(b.id, b.addr)].into());
    let error = unknown.links.open(b.id, request()).await.unwrap_err();
    assert!(error.to_string().contains("refuses the link"), "{error}");
    assert_eq!(b.links.counters().nodes, 1);
    assert_eq!(a.links.counters(), LinkCounters::default());
}

#[tokio::test]
async fn another_call_replaces_the_listener() {
    let (_ca, a, mut b) = pair().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    b.links.listen(listener);
    until(|| std::net::TcpListener::bind(b.addr).is_ok()).await;
    a.links.set_peers([(b.id, addr)].into());
    let streams = a.stream_to(&mut b).await;
    b.links.retire();
    until(|| std::net::TcpStream::connect(addr).is_err()).await;
    // A stream that is open goes on.
    let (mut ours, mut theirs) = streams;
    ours.write_all(b"still there").await.unwrap();
    let mut read = [0; 11];
    theirs.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"still there");
}

#[tokio::test]
async fn a_link_that_its_peer_leaves_takes_no_more_streams_and_another_process_does() {
    let (_ca, a, mut b) = pair().await;
    let before = a.stream_to(&mut b).await;
    b.links.retire();
    // The next process has an address of its own here; it would have the socket.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    b.links.listen(listener);
    a.links.set_peers([(b.id, addr)].into());
    let mut after = Vec::new();
    while a.links.count(b.id) < 2 {
        after.push(a.stream_to(&mut b).await);
    }
    drop((before, after));
}
