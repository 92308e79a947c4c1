//! Sockets that are bound to an address of somebody else.

use std::{io, net::SocketAddr, os::fd::AsFd};

use nix::sys::socket::{setsockopt, sockopt::IpTransparent};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::forward::prepare;

/// Connects from an address, and from its port if that is free.
///
/// # Errors
/// The system's: it needs the right `CAP_NET_ADMIN`, or there is no connection.
pub(super) async fn tcp(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let mut ports = ports(from);
    loop {
        let (from, is_last) = ports.next().map_or((from, true), |from| (from, from.port() == 0));
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        prepare(&socket)?;
        allow(&socket)?;
        let connected = match socket.bind(from) {
            Ok(()) => socket.connect(to).await,
            Err(e) => Err(e),
        };
        match connected {
            Err(e) if !is_last && is_taken(&e) => {}
            connected => return connected,
        }
    }
}

/// A socket that sends from an address, and from its port if that is free, to one peer, and receives from it.
///
/// # Errors
/// As [`tcp`].
pub(super) fn udp(from: SocketAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut ports = ports(from);
    loop {
        let (from, is_last) = ports.next().map_or((from, true), |from| (from, from.port() == 0));
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
        allow(&socket)?;
        let connected = bind(&socket, &from).and_then(|()| connect(&socket, &to)).map_err(io::Error::from);
        match connected {
            Ok(()) => return UdpSocket::from_std(socket.into()),
            Err(e) if !is_last && is_taken(&e) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether this process may use addresses of others.
///
/// # Errors
/// The system's.
pub(super) fn check_right() -> io::Result<()> {
    allow(&TcpSocket::new_v4()?)
}

fn ports(from: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let own = (from.port() != 0).then_some(from);
    own.into_iter().chain([SocketAddr::new(from.ip(), 0)])
}

fn allow(socket: &impl AsFd) -> io::Result<()> {
    // A connection that has just ended does not keep its port from the next one.
    sockopt::set_socket_reuseaddr(socket, true)?;
    // The option of IPv4 is that of IPv6 as well, on a socket of either.
    Ok(setsockopt(socket, IpTransparent, &true)?)
}

/// Whether another port may do: this one is taken, or needs a right.
fn is_taken(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL | Errno::ACCESS))
}
