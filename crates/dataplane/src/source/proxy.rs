//! The PROXY protocol, version 2: a header that tells a task who its client is.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection of somebody else.
const PROXY: u8 = 0x21;
const TCP_IPV4: u8 = 0x11;
const TCP_IPV6: u8 = 0x21;

/// The header of a TCP connection of a client to an address.
pub(super) fn header(client: SocketAddr, asked: SocketAddr) -> Vec<u8> {
    let (family, addrs) = match (client.ip().to_canonical(), asked.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(asked)) => (TCP_IPV4, [client.octets(), asked.octets()].concat()),
        (client, asked) => (TCP_IPV6, [octets_v6(client), octets_v6(asked)].concat()),
    };
    let ports = [client.port().to_be_bytes(), asked.port().to_be_bytes()].concat();
    let len = (addrs.len() + ports.len()) as u16;
    [&SIGNATURE[..], &[PROXY, family], &len.to_be_bytes(), &addrs, &ports].concat()
}

fn octets_v6(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

#[cfg(test)]
mod tests;
