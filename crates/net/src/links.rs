//! Links of a network namespace: looked at, made, changed.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use crate::netlink::{CREATE, EXCLUSIVE, Message, Socket};

const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
/// Length of the fixed parts of messages about links and addresses.
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) mtu: u32,
    pub(crate) is_up: bool,
    /// The bridge that it is a port of.
    pub(crate) bridge: Option<u32>,
    /// The other end of a pair, by its index in its own namespace.
    pub(crate) peer: Option<u32>,
    pub(crate) is_veth: bool,
    pub(crate) vxlan: Option<Vxlan>,
    /// Whether it is a TAP or a TUN device.
    pub(crate) is_tun: bool,
}

/// The settings of a VXLAN device that cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vxlan {
    pub(crate) id: u32,
    pub(crate) port: u16,
    pub(crate) local: IpAddr,
}

impl Vxlan {
    /// As the kernel tells it. A device without an address of its own has the unspecified one.
    fn read(data: &[InfoVxlan]) -> Self {
        let mut vxlan = Self { id: 0, port: 0, local: Ipv4Addr::UNSPECIFIED.into() };
        for info in data {
            match info {
                InfoVxlan::Id(id) => vxlan.id = *id,
                InfoVxlan::Port(port) => vxlan.port = *port,
                InfoVxlan::Local(addr) => vxlan.local = (*addr).into(),
                InfoVxlan::Local6(addr) => vxlan.local = (*addr).into(),
                _ => {}
            }
        }
        vxlan
    }

    fn info(self) -> Vec<InfoVxlan> {
        let local = match self.local {
            IpAddr::V4(addr) => InfoVxlan::Local(addr),
            IpAddr::V6(addr) => InfoVxlan::Local6(addr),
        };
        let fixed = [InfoVxlan::Learning(false), InfoVxlan::Proxy(true)];
        [InfoVxlan::Id(self.id), InfoVxlan::Port(self.port), local].into_iter().chain(fixed).collect()
    }
}

impl Link {
    /// Reads the body of a message; none for one that is malformed.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let message = LinkMessage::parse(body).inspect_err(|e| tracing::debug!("a link is left out: {e}")).ok()?;
        let is_up = message.header.flags.contains(LinkFlags::Up);
        let mut link = Self { index: message.header.index, is_up, ..Self::default() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.bridge = Some(index),
                LinkAttribute::Link(index) => link.peer = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(InfoKind::Veth) => link.is_veth = true,
                            LinkInfo::Kind(InfoKind::Tun) => link.is_tun = true,
                            LinkInfo::Data(InfoData::Vxlan(data)) => link.vxlan = Some(Vxlan::read(&data)),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Some(link)
    }
}

/// The links of the socket's namespace.
///
/// # Errors
/// The kernel's.
pub(crate) fn links(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let bodies = socket.list(&Message::new(GET_LINK, 0, &[0; LINK_BYTES]))?;
    Ok(bodies.iter().filter_map(|body| Link::read(body)).collect())
}

/// The addresses of the socket's namespace, each with the index of its link.
///
/// # Errors
/// The kernel's.
pub(crate) fn addresses(socket: &mut Socket) -> io::Result<Vec<(u32, IpNet)>> {
    let bodies = socket.list(&Message::new(GET_ADDRESS, 0, &[0; ADDRESS_BYTES]))?;
    let read = |body: &Vec<u8>| {
        let message = AddressMessage::parse(body.as_slice()).ok()?;
        let (mut addr, mut local) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Address(found) => addr = Some(found),
                AddressAttribute::Local(found) => local = Some(found),
                _ => {}
            }
        }
        // The address of a link to one other host is that host's.
        let net = IpNet::new(local.or(addr)?, message.header.prefix_len).ok()?;
        Some((message.header.index, net))
    };
    Ok(bodies.iter().filter_map(read).collect())
}

/// A link that is to be made or changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    message: LinkMessage,
}

impl Change {
    /// Of the link with this index.
    pub(crate) fn of(index: u32) -> Self {
        let mut change = Self::default();
        change.message.header.index = index;
        change
    }

    fn with(mut self, attribute: LinkAttribute) -> Self {
        self.message.attributes.push(attribute);
        self
    }

    pub(crate) fn name(self, name: &str) -> Self {
        self.with(LinkAttribute::IfName(name.to_owned()))
    }

    pub(crate) fn alias(self, alias: &str) -> Self {
        self.with(LinkAttribute::IfAlias(alias.to_owned()))
    }

    pub(crate) fn mtu(self, mtu: u32) -> Self {
        self.with(LinkAttribute::Mtu(mtu))
    }

    pub(crate) fn bridge(self, index: u32) -> Self {
        self.with(LinkAttribute::Controller(index))
    }

    pub(crate) fn up(mut self) -> Self {
        self.message.header.flags |= LinkFlags::Up;
        self.message.header.change_mask |= LinkFlags::Up;
        self
    }

    /// Makes a VXLAN device.
    ///
    /// # Errors
    /// The kernel's; `AlreadyExists` for a name that is in use, or a number that is on this port.
    pub(crate) fn make_vxlan(self, socket: &mut Socket, vxlan: Vxlan) -> io::Result<()> {
        let data = InfoData::Vxlan(vxlan.info());
        self.make(socket, vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(data)])
    }

    /// Makes a bridge.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn make_bridge(self, socket: &mut Socket) -> io::Result<()> {
        self.make(socket, vec![LinkInfo::Kind(InfoKind::Bridge)])
    }

    fn make(self, socket: &mut Socket, info: Vec<LinkInfo>) -> io::Result<()> {
        let message = self.with(LinkAttribute::LinkInfo(info)).message;
        socket.request_one(Message::route(&RouteNetlinkMessage::NewLink(message), CREATE | EXCLUSIVE))
    }

    /// Changes the link.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn apply(self, socket: &mut Socket) -> io::Result<()> {
        socket.request_one(Message::route(&RouteNetlinkMessage::SetLink(self.message), 0))
    }
}

/// Removes a link.
///
/// # Errors
/// The kernel's.
pub(crate) fn remove(socket: &mut Socket, index: u32) -> io::Result<()> {
    socket.request_one(Message::route(&RouteNetlinkMessage::DelLink(Change::of(index).message), 0))
}

/// Gives a link an address, usable at once.
///
/// # Errors
/// The kernel's.
pub(crate) fn give(socket: &mut Socket, index: u32, addr: IpNet) -> io::Result<()> {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = addr.prefix_len();
    message.attributes = vec![AddressAttribute::Local(addr.addr()), AddressAttribute::Address(addr.addr())];
    match addr {
        IpNet::V4(_) => message.header.family = AddressFamily::Inet,
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    socket.request_one(Message::route(&RouteNetlinkMessage::NewAddress(message), CREATE | EXCLUSIVE))
}

/// An address of 16 or 4 bytes.
pub(crate) fn read_addr(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk().map(|b: &[u8; 4]| Ipv4Addr::from(*b).into()),
        16 => bytes.first_chunk().map(|b: &[u8; 16]| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_link_or_none(bytes: Vec<u8>) {
            let _ = Link::read(&bytes);
        }
    }
}
