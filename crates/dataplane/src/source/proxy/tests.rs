use super::*;

fn header_of(client: &str, asked: &str) -> Vec<u8> {
    header(client.parse().unwrap(), asked.parse().unwrap())
}

#[test]
fn a_header_has_the_client_and_the_address_that_it_asked() {
    let start = [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21];
    let v4 = [0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 0xc3, 0x50, 0x1f, 0x90];
    assert_eq!(header_of("203.0.113.7:50000", "10.0.0.1:8080"), [&start[..], &v4].concat());
    assert_eq!(header_of("[::ffff:203.0.113.7]:50000", "[::ffff:10.0.0.1]:8080"), [&start[..], &v4].concat());
    let v6 = header_of("[2001:db8::7]:1", "[2001:db8::1]:2");
    assert_eq!(v6.get(13..16), Some(&[0x21, 0, 36][..]));
    assert_eq!(
        (v6.len(), v6.get(16..20), v6.get(48..)),
        (52, Some(&[0x20, 1, 0xd, 0xb8][..]), Some(&[0, 1, 0, 2][..]))
    );
    // Families that differ become IPv6.
    let mixed = header_of("203.0.113.7:1", "[2001:db8::1]:2");
    assert_eq!((mixed.len(), mixed.get(26..32)), (52, Some(&[0xff, 0xff, 203, 0, 113, 7][..])));
}
