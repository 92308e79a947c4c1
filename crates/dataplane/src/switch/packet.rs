//! Ethernet frames as a TAP device has them: a header of virtio-net, which names the work that the kernel left undone, and the
//! frame.

use std::ops::Range;

use swarm_net::Mac;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of the header of virtio-net.
pub(super) const VIRTIO_BYTES: usize = 10;
/// Bytes of the header of Ethernet.
const ETHERNET_BYTES: usize = 14;
/// The longest frame with its header.
pub(super) const FRAME_BYTES_MAX: usize = u16::MAX as usize;

/// The flags of virtio-net: the checksum is to be computed, or was found right.
const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_IS_RIGHT: u8 = 2;
/// The kernel sends the frame as it is.
const NOT_CUT: u8 = 0;
/// The kernel cuts the frame before it sends it: into TCP segments over IPv4, UDP fragments, TCP segments over IPv6, or UDP
/// segments.
const CUTS: [u8; 4] = [1, 3, 4, 5];
/// A flag beside the kinds of cuts: TCP says that the path is congested.
const CONGESTION: u8 = 0x80;

/// Kinds of content.
pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const ARP: u16 = 0x0806;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A frame with its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) to: Mac,
    pub(super) from: Mac,
    pub(super) kind: u16,
    /// The content after the header of Ethernet.
    pub(super) content: &'a [u8],
}

fn mac(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..at + 6)?.try_into().ok()
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

impl<'a> Packet<'a> {
    /// Reads a frame; none for one that is cut off.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let frame = bytes.get(VIRTIO_BYTES..)?;
        let (to, from, kind) = (mac(frame, 0)?, mac(frame, 6)?, number(frame, 12)?);
        Some(Self { to, from, kind, content: frame.get(ETHERNET_BYTES..)? })
    }

    /// Whether it is for more than one receiver.
    pub(super) fn is_for_many(&self) -> bool {
        self.to[0] & 1 == 1
    }

    /// A number that frames of one flow have in common: of one connection of TCP, or of one pair of sockets of UDP; else of one
    /// pair of containers.
    pub(super) fn flow(&self) -> u64 {
        match self.parts() {
            Some((addrs, protocol, ports)) => {
                let parts = [addrs, &[protocol], ports].concat();
                xxh3_64(&parts)
            }
            None => xxh3_64(&[self.to, self.from].concat()),
        }
    }

    /// The addresses, the protocol and the ports.
    fn parts(&self) -> Option<(&[u8], u8, &[u8])> {
        let (addrs, protocol, after): (Range<usize>, u8, usize) = match self.kind {
            IPV4 => {
                let words = usize::from(self.content.first()? & 0xf);
                // Only the first fragment has ports.
                let is_whole = number(self.content, 6)? & 0x3fff == 0;
                let protocol = *self.content.get(9)?;
                (12..20, if is_whole { protocol } else { 0 }, words * 4)
            }
            IPV6 => (8..40, *self.content.get(6)?, 40),
            _ => return None,
        };
        let ports = if matches!(protocol, TCP | UDP) { self.content.get(after..after + 4)? } else { &[] };
        Some((self.content.get(addrs)?, protocol, ports))
    }
}

/// Whether the kernel can be given a frame that another node sent: the header of virtio-net fits to it. The kernel checks
/// more.
pub(super) fn is_fit(bytes: &[u8]) -> bool {
    let [flags, cut, h0, h1, s0, s1, c0, c1, o0, o1, frame @ ..] = bytes else { return false };
    let [header, segment, start, offset] =
        [[h0, h1], [s0, s1], [c0, c1], [o0, o1]].map(|[a, b]| usize::from(u16::from_ne_bytes([*a, *b])));
    let is_cut = cut & !CONGESTION != NOT_CUT;
    let cut_is_fit = !is_cut || CUTS.contains(&(cut & !CONGESTION)) && segment > 0 && header <= frame.len();
    let checksum_is_fit = flags & NEEDS_CHECKSUM == 0 || start + offset + 2 <= frame.len();
    bytes.len() <= FRAME_BYTES_MAX
        && frame.len() >= ETHERNET_BYTES
        && flags & !(NEEDS_CHECKSUM | CHECKSUM_IS_RIGHT) == 0
        && cut_is_fit
        && checksum_is_fit
}

/// A frame that is whole as it is.
pub(super) fn frame(to: Mac, from: Mac, kind: u16, content: &[u8]) -> Vec<u8> {
    [&[0; VIRTIO_BYTES][..], &to, &from, &kind.to_be_bytes(), content].concat()
}

#[cfg(test)]
mod tests;
