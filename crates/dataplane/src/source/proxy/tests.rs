//! Tests of headers of the PROXY protocol.

use proptest::prelude::*;
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::*;

fn ends_of(client: &str, asked: &str) -> Ends {
    Ends { client: client.parse().unwrap(), asked: asked.parse().unwrap() }
}

#[test]
fn a_header_has_the_client_and_the_address_that_it_asked() {
    let start = [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21];
    let v4 = [0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 0xc3, 0x50, 0x1f, 0x90];
    for ends in
        [ends_of("203.0.113.7:50000", "10.0.0.1:8080"), ends_of("[::ffff:203.0.113.7]:50000", "[::ffff:10.0.0.1]:8080")]
    {
        assert_eq!(ends.to_v2(), [&start[..], &v4].concat());
        assert_eq!(ends.to_v1(), b"PROXY TCP4 203.0.113.7 10.0.0.1 50000 8080\r\n");
    }
    let ends = ends_of("[2001:db8::7]:1", "[2001:db8::1]:2");
    let v6 = ends.to_v2();
    assert_eq!(v6.get(13..16), Some(&[0x21, 0, 36][..]));
    assert_eq!(
        (v6.len(), v6.get(16..20), v6.get(48..)),
        (52, Some(&[0x20, 1, 0xd, 0xb8][..]), Some(&[0, 1, 0, 2][..]))
    );
    assert_eq!(ends.to_v1(), b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n");
    // Families that differ become IPv6.
    let mixed = ends_of("203.0.113.7:1", "[2001:db8::1]:2").to_v2();
    assert_eq!((mixed.len(), mixed.get(26..32)), (52, Some(&[0xff, 0xff, 203, 0, 113, 7][..])));
}

/// The header that bytes begin with, and its length, as a stream shows it: more and more of the bytes.
fn read(bytes: &[u8]) -> Option<(usize, Option<Ends>)> {
    let len = (1..=bytes.len()).find_map(|len| length(&bytes[..len]).transpose())?.ok()?;
    Some((len, decode(&bytes[..len]).ok()?))
}

#[test]
fn a_proxy_may_name_no_client() {
    let v2 = |version, family, rest: &[u8]| {
        [&SIGNATURE[..], &[version, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
    };
    // The proxy for itself, also with addresses; a client without an address; one with the address of a file.
    let nameless = [v2(0x20, 0, b""), v2(0x20, 0x11, &[1; 12]), v2(0x21, 0, b"abc"), v2(0x21, 0x31, &[1; 216])];
    let text = ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff:f...f:ffff 1 2 3\r\n"].map(|text| text.as_bytes().to_vec());
    for header in nameless.into_iter().chain(text) {
        assert_eq!(read(&header), Some((header.len(), None)), "{header:?}");
    }
    // Further fields follow the addresses.
    let more = v2(0x21, 0x11, &[&[203, 0, 113, 7, 10, 0, 0, 1, 0, 1, 0, 2][..], b"\x04\0\x01x"].concat());
    assert_eq!(read(&more), Some((more.len(), Some(ends_of("203.0.113.7:1", "10.0.0.1:2")))));
}

#[test]
fn a_header_that_is_wrong_is_refused() {
    for wrong in [
        "GET / HTTP/1.1\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
        "\r\n\r\n\0\r\nQUIT\n\x22\x11\0\0",
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b12345678901",
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\x7f\x71",
    ] {
        assert_eq!(read(wrong.as_bytes()), None, "{wrong:?}");
    }
    assert_eq!(read(&[START_V1, &[b'1'; 200]].concat()), None);
}

/// Two connected sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (one, other) = tokio::join!(connect, listener.accept());
    (one.unwrap(), other.unwrap().0)
}

#[tokio::test]
async fn nothing_after_the_header_is_taken_off_the_stream() {
    let ends = ends_of("203.0.113.7:50000", "10.0.0.1:8080");
    for header in [ends.to_v1(), ends.to_v2()] {
        // At once, and in two parts at each place.
        for at in 0..=header.len() {
            let (mut proxy, mut own) = pair().await;
            let sending = async {
                let (first, second) = header.split_at(at);
                proxy.write_all(first).await.unwrap();
                proxy.write_all(second).await.unwrap();
                proxy.write_all(b"question").await.unwrap();
            };
            let (accepted, ()) = tokio::join!(accept(&mut own), sending);
            assert_eq!(accepted.unwrap(), Some(ends));
            let mut question = [0; 8];
            own.read_exact(&mut question).await.unwrap();
            assert_eq!(&question, b"question");
        }
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let (mut proxy, mut own) = pair().await;
    proxy.write_all(b"PROXY TCP4 ").await.unwrap();
    tokio::time::pause();
    assert_eq!(accept(&mut own).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    tokio::time::resume();
    let (proxy, mut own) = pair().await;
    drop(proxy);
    assert_eq!(accept(&mut own).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

fn any_ends() -> impl Strategy<Value = Ends> {
    (any::<SocketAddr>(), any::<SocketAddr>()).prop_map(|(client, asked)| Ends {
        client: SocketAddr::new(client.ip(), client.port()),
        asked: SocketAddr::new(asked.ip(), asked.port()),
    })
}

proptest! {
    #[test]
    fn a_header_is_read_as_it_was_written(ends in any_ends(), rest: Vec<u8>) {
        let same = |read: SocketAddr, written: SocketAddr| {
            (read.ip().to_canonical(), read.port()) == (written.ip().to_canonical(), written.port())
        };
        for header in [ends.to_v1(), ends.to_v2()] {
            let (len, found) = read(&[&header[..], &rest].concat()).unwrap();
            let found = found.unwrap();
            prop_assert_eq!(len, header.len());
            prop_assert!(same(found.client, ends.client) && same(found.asked, ends.asked), "{:?}", found);
        }
    }

    #[test]
    fn any_bytes_are_a_header_or_refused(start in 0..3_usize, bytes: Vec<u8>) {
        let start = [b"".as_slice(), START_V1, &SIGNATURE][start];
        if let Some((len, _)) = read(&[start, &bytes].concat()) {
            prop_assert!(len <= start.len() + bytes.len() && len <= HEADER_BYTES_MAX);
        }
    }

    #[test]
    fn damage_of_a_header_is_noticed_or_is_another_header(ends in any_ends(), at: prop::sample::Index, byte: u8) {
        for mut header in [ends.to_v1(), ends.to_v2()] {
            let at = at.index(header.len());
            header[at] = byte;
            let _ = read(&header);
        }
    }
}
