//! Routes of this host: which one a subnet would overlap, and how large packets to another host may be.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType},
};

use crate::{
    links::{Link, links},
    netlink::{Message, Socket},
};

const GET_ROUTE: u16 = 26;
/// Length of the fixed part of messages about routes.
const ROUTE_BYTES: usize = 12;
/// The table of the host's own addresses.
const TABLE_LOCAL: u32 = 255;
/// The bytes that VXLAN adds to a packet: the headers of Ethernet (14), VXLAN (8), UDP (8) and IPv4 (20) or IPv6 (40).
const OVERHEAD_IPV4_BYTES: u32 = 50;
const OVERHEAD_IPV6_BYTES: u32 = 70;

/// A route of this host that a subnet overlaps, as `10.33.0.0/24 dev lan0`. Default routes do not count, nor do routes
/// of these bridges for that very subnet.
///
/// # Errors
/// The kernel's.
pub(crate) fn overlap(socket: &mut Socket, subnet: IpNet, bridges: &[String]) -> io::Result<Option<String>> {
    let links = links(socket)?;
    let mut asked = [0; ROUTE_BYTES];
    asked[0] = family(subnet.addr()).into();
    let subnet = subnet.trunc();
    for body in socket.list(&Message::new(GET_ROUTE, 0, &asked))? {
        let Ok(route) = RouteMessage::parse(body.as_slice()) else { continue };
        let Some((range, device)) = read(&route) else { continue };
        let name = device.and_then(|index| links.iter().find(|link| link.index == index)).map(|link| &link.name);
        let is_own = range == subnet && name.is_some_and(|name| bridges.contains(name));
        if !is_own && (range.contains(&subnet) || subnet.contains(&range)) {
            return Ok(Some(match name {
                Some(name) => format!("{range} dev {name}"),
                None => range.to_string(),
            }));
        }
    }
    Ok(None)
}

/// The range of a route to other hosts, and its device.
fn read(route: &RouteMessage) -> Option<(IpNet, Option<u32>)> {
    let (mut range, mut device, mut table) = (None, None, u32::from(route.header.table));
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => {
                range = IpNet::new(addr_of(addr)?, route.header.destination_prefix_length).ok();
            }
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Table(found) => table = *found,
            _ => {}
        }
    }
    let range = range.filter(|range| range.prefix_len() > 0)?;
    // Each link has these.
    let is_of_each_link = range.addr().is_multicast() || is_link_local(range.addr());
    (route.header.kind == RouteType::Unicast && table != TABLE_LOCAL && !is_of_each_link).then_some((range, device))
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

fn addr_of(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

fn family(addr: IpAddr) -> AddressFamily {
    if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The largest packet to another host, in bytes; none where there is no route.
///
/// # Errors
/// The kernel's.
pub(crate) fn mtu_to(socket: &mut Socket, addr: IpAddr, links: &[Link]) -> io::Result<Option<u32>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(addr);
    message.header.destination_prefix_length = if addr.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(match addr {
        IpAddr::V4(addr) => RouteAddress::Inet(addr),
        IpAddr::V6(addr) => RouteAddress::Inet6(addr),
    }));
    let body = match socket.get(&Message::route(&RouteNetlinkMessage::GetRoute(message), 0)) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
            return Ok(None);
        }
        body => body?,
    };
    let Ok(route) = RouteMessage::parse(body.as_slice()) else { return Ok(None) };
    let (mut of_route, mut of_link) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Metrics(metrics) => {
                let mtu = |metric: &RouteMetric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None };
                of_route = metrics.iter().find_map(mtu);
            }
            RouteAttribute::Oif(index) => {
                of_link = links.iter().find(|link| link.index == *index).map(|link| link.mtu);
            }
            _ => {}
        }
    }
    Ok(of_route.or(of_link))
}

/// Says that packets of a network do not fit into those of the route to a host; none if they do.
pub(crate) fn too_small(network_mtu: u32, route_mtu: u32, to: IpAddr) -> Option<String> {
    let overhead = if to.is_ipv4() { OVERHEAD_IPV4_BYTES } else { OVERHEAD_IPV6_BYTES };
    let needed = network_mtu.saturating_add(overhead);
    (needed > route_mtu).then(|| {
        let fitting = route_mtu.saturating_sub(overhead);
        format!(
            "packets of {network_mtu} bytes need {needed} bytes between nodes, and the route to {to} lets {route_mtu} \
             pass: larger ones vanish; give the network an MTU of at most {fitting}, or the route one of {needed}"
        )
    })
}
