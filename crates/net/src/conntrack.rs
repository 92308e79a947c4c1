//! Connections that the kernel tracks in a container's namespace.
//!
//! A flow of UDP stays with the task that it was first sent to as long as packets come. So it is forgotten when that
//! task leaves its service: the next packet goes to another one. So is a flow to a virtual address that began before
//! there was a table, and went to nobody.

use std::{collections::BTreeSet, io, net::IpAddr};

use crate::{
    links::read_addr,
    netlink::{Message, Socket, attribute, find, find_in},
};

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const GENERIC_BYTES: usize = 4;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
const NESTED: u16 = 0x8000;
const UDP: u8 = 17;

/// Flows that are to go elsewhere: those to these virtual addresses that do not go to one of these tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) vips: BTreeSet<IpAddr>,
    pub(crate) backends: BTreeSet<IpAddr>,
}

/// A flow of UDP.
struct Flow<'a> {
    original: &'a [u8],
    id: Option<&'a [u8]>,
    /// The address that packets were sent to.
    to: IpAddr,
    /// The address that they went to, and that answers come from.
    served_by: IpAddr,
}

impl<'a> Flow<'a> {
    /// Reads an entry; none for other protocols, and for malformed ones.
    fn read(body: &'a [u8]) -> Option<Self> {
        let attributes = body.get(GENERIC_BYTES..)?;
        let original = find(attributes, ORIGINAL)?;
        if find_in(original, &[PROTOCOL, 1])? != [UDP] {
            return None;
        }
        let reply = find_in(attributes, &[REPLY, ADDRESSES])?;
        let addrs = find(original, ADDRESSES)?;
        // 1 and 2 are the source and the destination of IPv4, 3 and 4 those of IPv6.
        let to = find(addrs, 2).or_else(|| find(addrs, 4)).and_then(read_addr)?;
        let served_by = find(reply, 1).or_else(|| find(reply, 3)).and_then(read_addr)?;
        Some(Self { original, id: find(attributes, ID), to, served_by })
    }
}

/// Forgets flows of UDP that are to go elsewhere.
///
/// # Errors
/// The kernel's.
pub(crate) fn forget(socket: &mut Socket, moved: &[Moved]) -> io::Result<()> {
    for family in [2_u8, 10] {
        let is_of_family = |moved: &&Moved| moved.vips.iter().any(|vip| vip.is_ipv4() == (family == 2));
        let moved: Vec<_> = moved.iter().filter(is_of_family).collect();
        if moved.is_empty() {
            continue;
        }
        let bodies = socket.list(&Message::new(GET, 0, &[family, 0, 0, 0]))?;
        let flows = bodies.iter().filter_map(|body| Flow::read(body));
        let is_moved =
            |flow: &Flow<'_>| moved.iter().any(|m| m.vips.contains(&flow.to) && !m.backends.contains(&flow.served_by));
        let requests: Vec<_> = flows
            .filter(is_moved)
            .map(|flow| {
                let message = Message::new(DELETE, 0, &[family, 0, 0, 0]);
                let message = message.with(&attribute(ORIGINAL | NESTED, flow.original));
                flow.id.into_iter().fold(message, |message, id| message.with(&attribute(ID, id)))
            })
            .collect();
        for outcome in socket.request(&requests)? {
            match outcome {
                // The flow ended by itself.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                outcome => outcome?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_flow_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), lens: [u8; 6]) {
            let mut bytes = bytes;
            // Lengths and kinds that are near the truth lead further into the reader.
            for (at, len) in [4, 8, 12, 24, 28, 36].into_iter().zip(lens) {
                if let Some(target) = bytes.get_mut(at..at + 4) {
                    target.copy_from_slice(&[len % 64, 0, len % 5, 0]);
                }
            }
            let _ = Flow::read(&bytes);
        }
    }
}
