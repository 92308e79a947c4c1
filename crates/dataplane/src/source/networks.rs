//! The networks of this host, as the kernel has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use swarm_net::netlink::{Message, Part, Socket, find};

const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const LINK_FIXED_BYTES: usize = 16;
const LINK_CONTROLLER: u16 = 10;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const ADDRESS_FIXED_BYTES: usize = 8;
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) addr: IpAddr,
    /// In bits.
    pub(super) prefix: u8,
}

impl Network {
    /// Whether an address is of this network.
    pub(super) fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(own), IpAddr::V4(addr)) => (own.to_bits() ^ addr.to_bits()) & self.mask_v4() == 0,
            (IpAddr::V6(own), IpAddr::V6(addr)) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(self.prefix.into())).unwrap_or(0);
                (own.to_bits() ^ addr.to_bits()) & mask == 0
            }
            _ => false,
        }
    }

    /// Whether an address stands for all hosts of this network: its first or its last one.
    pub(super) fn is_for_all(&self, addr: IpAddr) -> bool {
        // Networks of two addresses or one have none of these; nor has IPv6.
        let IpAddr::V4(v4) = addr else { return false };
        let host = v4.to_bits() & !self.mask_v4();
        self.prefix < 31 && self.contains(addr) && (host == 0 || host == !self.mask_v4())
    }

    fn mask_v4(&self) -> u32 {
        u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix.into())).unwrap_or(0)
    }
}

/// The addresses and networks that claimed addresses are compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Networks {
    /// The host's addresses.
    pub(super) own: Vec<Network>,
    /// The networks of bridges that nothing outside is connected to: those of containers.
    pub(super) containers: Vec<Network>,
}

impl Networks {
    /// Whether the host has this address.
    pub(super) fn is_own(&self, addr: IpAddr) -> bool {
        self.own.iter().any(|own| own.addr == addr)
    }

    /// Asks the kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn look() -> io::Result<Self> {
        let mut socket = Socket::open(Part::Route)?;
        let mut links = Links::default();
        let bodies = socket.list(&Message::new(GET_LINK, 0, &[0; LINK_FIXED_BYTES]))?;
        bodies.iter().for_each(|body| links.take(body));
        let bridges = links.container_bridges();
        let mut networks = Self::default();
        for body in socket.list(&Message::new(GET_ADDRESS, 0, &[0; ADDRESS_FIXED_BYTES]))? {
            if let Some((device, network)) = address(&body) {
                networks.own.push(network);
                if bridges.contains(&device) {
                    networks.containers.push(network);
                }
            }
        }
        Ok(networks)
    }
}

#[derive(Default)]
struct Links {
    bridges: BTreeSet<u32>,
    /// The bridges that have ports to the outside.
    outside: BTreeMap<u32, bool>,
}

impl Links {
    fn take(&mut self, body: &[u8]) {
        let Some(number) = body.get(4..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_ne_bytes) else {
            return;
        };
        let rest = body.get(LINK_FIXED_BYTES..).unwrap_or_default();
        let kind = find(rest, LINK_INFO).and_then(|info| find(info, INFO_KIND));
        let kind = kind.map(|kind| kind.strip_suffix(&[0]).unwrap_or(kind));
        if kind == Some(b"bridge") {
            self.bridges.insert(number);
        }
        let controller = find(rest, LINK_CONTROLLER).and_then(|value| value.first_chunk()).copied();
        if let Some(controller) = controller.map(u32::from_ne_bytes) {
            *self.outside.entry(controller).or_default() |= is_outside(kind);
        }
    }

    /// A bridge with a device to the outside is the host's own way into its network, not a network of containers.
    fn container_bridges(&self) -> BTreeSet<u32> {
        self.bridges.iter().filter(|bridge| !self.outside.get(bridge).copied().unwrap_or_default()).copied().collect()
    }
}

/// Whether a device of this kind leads out of the host. Devices of hardware have no kind.
fn is_outside(kind: Option<&[u8]>) -> bool {
    matches!(kind, None | Some(b"bond" | b"team" | b"vlan"))
}

/// The device and the address that an entry names.
fn address(body: &[u8]) -> Option<(u32, Network)> {
    let prefix = *body.get(1)?;
    let device = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let rest = body.get(ADDRESS_FIXED_BYTES..)?;
    // Of two addresses, the other one is the far end of the device.
    let bytes = find(rest, ADDRESS_LOCAL).or_else(|| find(rest, ADDRESS_ADDRESS))?;
    let addr = match bytes.len() {
        4 => Ipv4Addr::from(*bytes.first_chunk::<4>()?).into(),
        16 => Ipv6Addr::from(*bytes.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some((device, Network { addr, prefix }))
}

#[cfg(test)]
mod tests;
