use proptest::{collection::vec, prelude::*};

use super::*;
use crate::switch::packet::IPV4;

const ASKER: Mac = [2, 0x42, 10, 0, 0, 1];
const OWNER: Mac = [2, 0x42, 10, 0, 0, 2];
const ALL: Mac = [0xff; 6];

fn arp(kind: u16, from: [u8; 4], wanted: [u8; 4]) -> Vec<u8> {
    let content = [&ARP_ETHERNET_IPV4[..], &kind.to_be_bytes(), &ASKER, &from, &[0; 6], &wanted, &[0; 18]].concat();
    frame(ALL, ASKER, ARP, &content)
}

fn solicitation(from: Ipv6Addr, wanted: Ipv6Addr) -> Vec<u8> {
    let head = [0x60, 0, 0, 0, 0, 32, ICMPV6, HOPS];
    let content = [
        &head[..],
        &from.octets(),
        &[0xff; 16],
        &[SOLICITATION, 0, 0, 0, 0, 0, 0, 0],
        &wanted.octets(),
        &[1, 1],
        &ASKER,
    ];
    frame([0x33, 0x33, 0xff, 0, 0, 2], ASKER, IPV6, &content.concat())
}

fn question(bytes: &[u8]) -> Option<Question> {
    Question::read(&Packet::read(bytes).unwrap())
}

#[test]
fn a_question_of_ipv4_is_answered() {
    let asked = question(&arp(ARP_REQUEST, [10, 0, 0, 1], [10, 0, 0, 2])).unwrap();
    assert_eq!(asked.wanted, IpAddr::from([10, 0, 0, 2]));
    let answer = asked.answer(OWNER).unwrap();
    let packet = Packet::read(&answer).unwrap();
    assert_eq!((packet.to, packet.from, packet.kind), (ASKER, OWNER, ARP));
    let rest = [&OWNER[..], &[10, 0, 0, 2], &ASKER, &[10, 0, 0, 1]].concat();
    assert_eq!(packet.content, [&[0, 1, 8, 0, 6, 4, 0, 2][..], &rest].concat());
}

#[test]
fn a_question_of_ipv6_is_answered() {
    let (asker, wanted) = ("fd77::1".parse().unwrap(), "fd77::2".parse().unwrap());
    let asked = question(&solicitation(asker, wanted)).unwrap();
    assert_eq!(asked.wanted, IpAddr::from(wanted));
    let answer = asked.answer(OWNER).unwrap();
    let packet = Packet::read(&answer).unwrap();
    assert_eq!((packet.to, packet.from, packet.kind), (ASKER, OWNER, IPV6));
    let (head, message) = packet.content.split_at(40);
    assert_eq!(head, [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &wanted.octets(), &asker.octets()].concat());
    assert_eq!((message.len(), message[0], message[4]), (32, 136, 0x60));
    assert_eq!(message[8..], [&wanted.octets()[..], &[2, 1], &OWNER].concat());
    // A sum over all with the checksum is zero.
    let pseudo = [&head[8..], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
    assert_eq!(checksum(&[&pseudo, message]), 0);
}

#[test]
fn a_container_that_looks_for_its_own_address_is_left_alone() {
    assert_eq!(question(&arp(ARP_REQUEST, [0; 4], [10, 0, 0, 1])), None);
    assert_eq!(question(&solicitation(Ipv6Addr::UNSPECIFIED, "fd77::1".parse().unwrap())), None);
    assert_eq!(question(&arp(ARP_REPLY, [10, 0, 0, 1], [10, 0, 0, 2])), None);
}

proptest! {
    #[test]
    fn any_bytes_are_a_question_or_none(content in vec(any::<u8>(), 0..100), kind in 0_usize..3, begin in 0_usize..3) {
        let mut content = content;
        let begins: [(usize, &[u8]); 3] = [(0, &[]), (0, &[0, 1, 8, 0, 6, 4, 0, 1]), (6, &[ICMPV6, HOPS])];
        let (at, begin) = begins[begin];
        if let Some(target) = content.get_mut(at..at + begin.len()) {
            target.copy_from_slice(begin);
        }
        if let Some(asked) = question(&frame(ALL, ASKER, [ARP, IPV4, IPV6][kind], &content)) {
            let answer = asked.answer(OWNER).unwrap();
            prop_assert_eq!(Packet::read(&answer).unwrap().to, ASKER);
        }
    }
}
