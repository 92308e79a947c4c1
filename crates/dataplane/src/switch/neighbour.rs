//! The questions of containers for the Ethernet address of a neighbour (ARP, and neighbour discovery of IPv6). They do not leave
//! the node: the answers are known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use swarm_net::Mac;

use super::packet::{ARP, IPV6, Packet, frame, number};

/// Ethernet, and addresses of six and of four bytes.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The receiver's check that no router passed the packet on.
const HOPS: u8 = 255;
/// An answer that this node asked for, which replaces an entry.
const SOLICITED_AND_OVERRIDE: u8 = 0x60;
/// The option with the address of the link layer, of eight bytes.
const OPTION_TARGET: [u8; 2] = [2, 1];

/// A question, and the parts of it that the answer repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The address whose owner is asked for.
    pub(super) wanted: IpAddr,
    asker: Mac,
    asker_addr: IpAddr,
}

fn v4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?))
}

fn v6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?))
}

impl Question {
    /// Reads a question; none for any other frame. A container that asks whether its own address is taken gets no answer.
    pub(super) fn read(packet: &Packet<'_>) -> Option<Self> {
        let content = packet.content;
        let (wanted, asker_addr): (IpAddr, IpAddr) = match packet.kind {
            ARP if content.starts_with(&ARP_ETHERNET_IPV4) && number(content, 6)? == ARP_REQUEST => {
                (v4(content, 24)?.into(), v4(content, 14)?.into())
            }
            IPV6 if content.get(6..8)? == [ICMPV6, HOPS] && content.get(40..42)? == [SOLICITATION, 0] => {
                (v6(content, 48)?.into(), v6(content, 8)?.into())
            }
            _ => return None,
        };
        (!asker_addr.is_unspecified()).then_some(Self { wanted, asker: packet.from, asker_addr })
    }

    /// The frame that answers.
    pub(super) fn answer(&self, owner: Mac) -> Option<Vec<u8>> {
        match (self.wanted, self.asker_addr) {
            (IpAddr::V4(wanted), IpAddr::V4(asker)) => {
                let reply = ARP_REPLY.to_be_bytes();
                let (wanted, asker) = (wanted.octets(), asker.octets());
                let content = [&ARP_ETHERNET_IPV4[..], &reply, &owner, &wanted, &self.asker, &asker].concat();
                Some(frame(self.asker, owner, ARP, &content))
            }
            (IpAddr::V6(wanted), IpAddr::V6(asker)) => {
                let (wanted, asker) = (wanted.octets(), asker.octets());
                let flags = [SOLICITED_AND_OVERRIDE, 0, 0, 0];
                let mut message = [&[ADVERTISEMENT, 0, 0, 0][..], &flags, &wanted, &OPTION_TARGET, &owner].concat();
                // A message has 32 bytes.
                let len = message.len() as u16;
                let sum = checksum(&[&wanted, &asker, &[0, 0], &len.to_be_bytes(), &[0, 0, 0, ICMPV6], &message]);
                message.splice(2..4, sum.to_be_bytes());
                let head = [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[ICMPV6, HOPS], &wanted, &asker].concat();
                Some(frame(self.asker, owner, IPV6, &[head, message].concat()))
            }
            _ => None,
        }
    }
}

/// The checksum of the internet, over parts of an even number of bytes each.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let sum: u32 = words.map(|word| u32::from(number(word, 0).unwrap_or_default())).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests;
