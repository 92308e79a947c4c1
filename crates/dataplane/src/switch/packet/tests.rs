use proptest::{collection::vec, prelude::*};

use super::*;

const ONE: Mac = [2, 0x42, 10, 0, 0, 1];
const TWO: Mac = [2, 0x42, 10, 0, 0, 2];

/// A packet of IPv4 with ports, whose other bytes are these.
fn ipv4(protocol: u8, addrs: [u8; 8], ports: [u8; 4], fragment: u16, other: u8) -> Vec<u8> {
    let mut content = vec![0x45, 0, 0, 28, other, other, 0, 0, 64, protocol, other, other];
    content[6..8].copy_from_slice(&fragment.to_be_bytes());
    content.extend(addrs);
    content.extend(ports);
    frame(TWO, ONE, IPV4, &content)
}

fn flow(frame: &[u8]) -> u64 {
    Packet::read(frame).unwrap().flow()
}

#[test]
fn a_frame_is_read_as_it_was_written() {
    let bytes = frame(TWO, ONE, ARP, b"abc");
    assert!(is_fit(&bytes));
    let packet = Packet::read(&bytes).unwrap();
    assert_eq!(packet, Packet { to: TWO, from: ONE, kind: ARP, content: b"abc" });
    assert!(!packet.is_for_many());
    assert!(Packet::read(&frame([0xff; 6], ONE, ARP, b"")).unwrap().is_for_many());
}

#[test]
fn the_headers_that_the_kernel_would_refuse_are_unfit() {
    let whole = ipv4(TCP, [1; 8], [1; 4], 0, 0);
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = whole.clone();
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        is_fit(&bytes)
    };
    // A segment of TCP whose checksum is to be computed, from byte 34 on.
    assert!(with(&[(0, 1), (1, 1), (2, 20), (4, 100), (6, 34), (8, 2)]));
    assert!(with(&[(0, 2), (1, 0x81), (4, 1)]));
    assert!(!with(&[(0, 4)]), "an unknown flag");
    assert!(!with(&[(1, 2), (4, 1)]), "an unknown cut");
    assert!(!with(&[(1, 1)]), "segments of nothing");
    assert!(!with(&[(0, 1), (6, 200)]), "a checksum outside of the frame");
    assert!(!with(&[(1, 1), (2, 200), (4, 1)]), "a header longer than the frame");
    assert!(!is_fit(&whole[..VIRTIO_BYTES + ETHERNET_BYTES - 1]));
}

#[test]
fn a_flow_is_one_connection() {
    let [addrs, ports] = [[10, 0, 0, 1, 10, 0, 0, 2], [1, 2, 3, 4, 0, 0, 0, 0]];
    let ports: [u8; 4] = ports[..4].try_into().unwrap();
    let one = flow(&ipv4(TCP, addrs, ports, 0, 1));
    assert_eq!(one, flow(&ipv4(TCP, addrs, ports, 0, 2)));
    assert_ne!(one, flow(&ipv4(TCP, addrs, [1, 2, 3, 5], 0, 1)));
    assert_ne!(one, flow(&ipv4(UDP, addrs, ports, 0, 1)));
    // Fragments have no ports, but for the first one: all go the same way.
    let (first, second) = (ipv4(UDP, addrs, ports, 0x2000, 1), ipv4(UDP, addrs, [9; 4], 0x0010, 1));
    assert_eq!(flow(&first), flow(&second));
}

proptest! {
    #[test]
    fn any_bytes_are_a_packet_or_none(bytes in vec(any::<u8>(), 0..200), kind in 0_usize..3) {
        let mut bytes = bytes;
        // The kinds that lead further into the reader.
        if let Some(target) = bytes.get_mut(22..24) {
            target.copy_from_slice(&[IPV4, IPV6, ARP][kind].to_be_bytes());
        }
        let packet = Packet::read(&bytes);
        prop_assert_eq!(packet.is_some(), bytes.len() >= VIRTIO_BYTES + ETHERNET_BYTES);
        let _ = packet.map(|packet| (packet.flow(), packet.is_for_many()));
        prop_assert!(!is_fit(&bytes) || packet.is_some());
    }
}
