//! The ways to containers of other nodes: forwarding entries and neighbours of a VXLAN device.

use std::{collections::BTreeMap, io, net::IpAddr};

use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use rustix::io::Errno;

use crate::{
    links::read_addr,
    netlink::{CREATE, Message, REPLACE, Socket, attribute},
};

const GET_NEIGHBOUR: u16 = 30;
/// The attribute that names a device.
const DEVICE: u16 = 8;
const FAMILIES: [AddressFamily; 3] = [AddressFamily::Bridge, AddressFamily::Inet, AddressFamily::Inet6];

/// The address of a container's Ethernet device.
pub type Mac = [u8; 6];

/// The Ethernet address of a container with these addresses in a network; none without an address.
///
/// With an IPv4 address: `02:42` and its four bytes, as Docker did before its version 28. With an IPv6 address only:
/// `0a:42` and its last four bytes, so that two such addresses of a network must differ in these. Both are addresses
/// that are given locally (bit 1 of the first byte), and no group's (bit 0).
///
/// The engine must be told the address when it makes the container: from its version 28 on it draws one.
#[must_use]
pub fn mac_of(addrs: &[IpAddr]) -> Option<Mac> {
    let v4 = addrs.iter().find_map(|addr| if let IpAddr::V4(addr) = addr { Some(addr.octets()) } else { None });
    let v6 = addrs.iter().find_map(|addr| if let IpAddr::V6(addr) = addr { Some(addr.octets()) } else { None });
    match (v4, v6) {
        (Some([a, b, c, d]), _) => Some([0x02, 0x42, a, b, c, d]),
        (None, Some([.., a, b, c, d])) => Some([0x0a, 0x42, a, b, c, d]),
        (None, None) => None,
    }
}

/// The entries of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    /// The host that frames for an Ethernet address go to.
    forwarding: BTreeMap<Mac, IpAddr>,
    /// The Ethernet addresses of addresses.
    neighbours: BTreeMap<IpAddr, Mac>,
}

impl Entries {
    /// The entries for these peers.
    pub(crate) fn of<'a>(peers: impl Iterator<Item = (&'a Vec<IpAddr>, &'a IpAddr)>) -> Self {
        let mut entries = Self::default();
        for (addrs, at) in peers {
            if let Some(mac) = mac_of(addrs) {
                entries.forwarding.insert(mac, *at);
                entries.neighbours.extend(addrs.iter().map(|addr| (*addr, mac)));
            }
        }
        entries
    }

    /// The entries that the kernel has.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn look(socket: &mut Socket, device: u32) -> io::Result<Self> {
        let mut entries = Self::default();
        for family in FAMILIES {
            let mut asked = [0; 12];
            asked[0] = family.into();
            // A list of forwarding entries is of the device in the fixed part, one of neighbours of that in an
            // attribute.
            asked[4..8].copy_from_slice(&device.to_ne_bytes());
            let asked = Message::new(GET_NEIGHBOUR, 0, &asked).with(&attribute(DEVICE, &device.to_ne_bytes()));
            for body in socket.list(&asked)? {
                if let Some((found, entry)) = read(&body)
                    && found == device
                {
                    match entry {
                        Entry::Forwarding(mac, at) => drop(entries.forwarding.insert(mac, at)),
                        Entry::Neighbour(addr, mac) => drop(entries.neighbours.insert(addr, mac)),
                    }
                }
            }
        }
        Ok(entries)
    }

    /// Whether an event about their device tells that one of these entries is gone, or another one now.
    pub(crate) fn miss(&self, is_new: bool, body: &[u8]) -> bool {
        let Ok(message) = NeighbourMessage::parse(body) else { return false };
        let is_left = is_new && message.header.state == NeighbourState::Permanent;
        let (mac, addr) = parts(&message);
        if message.header.family == AddressFamily::Bridge {
            let wanted = mac.and_then(|mac| self.forwarding.get(&mac));
            return wanted.is_some() && !(is_left && wanted == addr.as_ref());
        }
        let wanted = addr.and_then(|addr| self.neighbours.get(&addr));
        wanted.is_some() && !(is_left && wanted == mac.as_ref())
    }

    /// Makes these entries of a device, which has others, into the wanted ones.
    ///
    /// # Errors
    /// The socket's, or the kernel's first refusal. Then the kernel has to be looked at again.
    pub(crate) fn become_these(&self, socket: &mut Socket, device: u32, wanted: &Self) -> io::Result<()> {
        let mut requests = Vec::new();
        let removed = self.forwarding.iter().filter(|(mac, _)| !wanted.forwarding.contains_key(*mac));
        requests.extend(removed.map(|(mac, at)| remove(forwarding(device, *mac, *at))));
        let removed = self.neighbours.iter().filter(|(addr, _)| !wanted.neighbours.contains_key(*addr));
        requests.extend(removed.map(|(addr, mac)| remove(neighbour(device, *addr, *mac))));
        let put = wanted.forwarding.iter().filter(|(mac, at)| self.forwarding.get(*mac) != Some(at));
        requests.extend(put.map(|(mac, at)| replace(forwarding(device, *mac, *at))));
        let put = wanted.neighbours.iter().filter(|(addr, mac)| self.neighbours.get(*addr) != Some(mac));
        requests.extend(put.map(|(addr, mac)| replace(neighbour(device, *addr, *mac))));
        for outcome in socket.request(&requests)? {
            match outcome {
                // The entry is gone, as it is to be.
                Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOENT)) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

/// The device that an event is about.
pub(crate) fn device_of(body: &[u8]) -> Option<u32> {
    body.get(4..)?.first_chunk().map(|index| u32::from_ne_bytes(*index))
}

fn remove(message: NeighbourMessage) -> Message {
    Message::route(&RouteNetlinkMessage::DelNeighbour(message), 0)
}

fn replace(message: NeighbourMessage) -> Message {
    Message::route(&RouteNetlinkMessage::NewNeighbour(message), CREATE | REPLACE)
}

fn destination(addr: IpAddr) -> NeighbourAttribute {
    NeighbourAttribute::Destination(match addr {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    })
}

fn message(family: AddressFamily, device: u32, mac: Mac, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![destination(addr), NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    message
}

fn forwarding(device: u32, mac: Mac, at: IpAddr) -> NeighbourMessage {
    let mut message = message(AddressFamily::Bridge, device, mac, at);
    message.header.flags = NeighbourFlags::Own;
    message
}

fn neighbour(device: u32, addr: IpAddr, mac: Mac) -> NeighbourMessage {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message(family, device, mac, addr)
}

enum Entry {
    Forwarding(Mac, IpAddr),
    Neighbour(IpAddr, Mac),
}

/// An entry that the kernel tells of, and its device; none for one that is not permanent.
fn read(body: &[u8]) -> Option<(u32, Entry)> {
    let message = NeighbourMessage::parse(body).ok()?;
    let (mac, addr) = parts(&message);
    let is_permanent = message.header.state == NeighbourState::Permanent;
    let entry = match message.header.family {
        AddressFamily::Bridge if is_permanent => Entry::Forwarding(mac?, addr?),
        AddressFamily::Inet | AddressFamily::Inet6 if is_permanent => Entry::Neighbour(addr?, mac?),
        _ => return None,
    };
    Some((message.header.ifindex, entry))
}

fn parts(message: &NeighbourMessage) -> (Option<Mac>, Option<IpAddr>) {
    let (mut mac, mut addr) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => addr = Some((*found).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => addr = Some((*found).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => addr = read_addr(bytes),
            _ => {}
        }
    }
    (mac, addr)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ethernet_addresses_follow_from_addresses() {
        let [v4, v6]: [IpAddr; 2] = ["10.20.0.112".parse().unwrap(), "fd77::1:2".parse().unwrap()];
        assert_eq!(mac_of(&[v6, v4]), Some([0x02, 0x42, 10, 20, 0, 112]));
        assert_eq!(mac_of(&[v6]), Some([0x0a, 0x42, 0, 1, 0, 2]));
        assert_eq!(mac_of(&[]), None);
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(mac: Mac, addr: IpAddr, device: u32) {
            let body = |message: NeighbourMessage| {
                let mut body = vec![0; message.buffer_len()];
                message.emit(&mut body);
                body
            };
            let found = read(&body(forwarding(device, mac, addr)));
            prop_assert!(matches!(found, Some((d, Entry::Forwarding(m, a))) if (d, m, a) == (device, mac, addr)));
            let found = read(&body(neighbour(device, addr, mac)));
            prop_assert!(matches!(found, Some((d, Entry::Neighbour(a, m))) if (d, m, a) == (device, mac, addr)));
            let addrs = vec![addr];
            let entries = Entries::of([(&addrs, &addr)].into_iter());
            let mac = mac_of(&addrs).unwrap();
            for told in [body(forwarding(device, mac, addr)), body(neighbour(device, addr, mac))] {
                prop_assert!(!entries.miss(true, &told), "it is there");
                prop_assert!(entries.miss(false, &told), "it is gone");
                prop_assert_eq!(device_of(&told), Some(device));
            }
            let other = body(neighbour(device, addr, mac.map(|byte| !byte)));
            prop_assert!(entries.miss(true, &other), "it is another one");
        }

        #[test]
        fn any_bytes_are_an_entry_or_none(bytes: Vec<u8>) {
            let _ = (read(&bytes), Entries::default().miss(true, &bytes), device_of(&bytes));
        }
    }
}
