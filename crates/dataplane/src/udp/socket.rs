//! Sockets for datagrams.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
        sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo},
    },
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use tokio::{io::Interest, net::UdpSocket};

use super::FlowKey;

/// Datagrams that wait to be read: some hundred large ones, so that a burst is not lost while the processor is busy.
const RECEIVE_BYTES: usize = 1 << 20;

/// A socket that clients send to. It tells which address was asked, and answers from there: one that is bound to all
/// addresses would answer from any.
pub(crate) struct PublicSocket {
    socket: UdpSocket,
    is_ipv4: bool,
    port: u16,
}

impl PublicSocket {
    /// Opens a socket.
    ///
    /// # Errors
    /// The system's: the port is taken, or may not be opened.
    pub(crate) fn open(addr: SocketAddr, is_v6_only: bool) -> io::Result<Self> {
        let socket = socket(addr)?;
        if addr.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, is_v6_only)?;
        }
        // The system may allow less.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BYTES);
        bind(&socket, &addr)?;
        Self::of(UdpSocket::from_std(socket.into())?, addr)
    }

    /// A socket that another process opened.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn inherit(socket: OwnedFd, addr: SocketAddr) -> io::Result<Self> {
        Self::of(UdpSocket::from_std(socket.into())?, addr)
    }

    fn of(socket: UdpSocket, addr: SocketAddr) -> io::Result<Self> {
        if addr.is_ipv4() {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket, is_ipv4: addr.is_ipv4(), port: addr.port() })
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Reads a datagram: its length, the client, and the address that it asked.
    pub(super) fn try_recv(&self, target: &mut [u8]) -> io::Result<(usize, FlowKey)> {
        self.socket.try_io(Interest::READABLE, || {
            let mut parts = [IoSliceMut::new(target)];
            let mut control = cmsg_space!(libc::in6_pktinfo);
            let fd = self.socket.as_raw_fd();
            let received = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
            let client = received.address.as_ref().and_then(addr_of);
            let asked = received.cmsgs()?.find_map(|message| match message {
                // The first address is that of the interface, which may have several.
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes())),
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
                _ => None,
            });
            let (Some(client), Some(asked)) = (client, asked) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram without addresses"));
            };
            Ok((received.bytes, FlowKey { client, asked: SocketAddr::new(asked, self.port) }))
        })
    }

    /// Sends an answer to a client, from the address that it asked.
    pub(super) async fn answer(&self, key: &FlowKey, datagram: &[u8]) -> io::Result<()> {
        let to = SockaddrStorage::from(key.client);
        let parts = [IoSlice::new(datagram)];
        let (v4, v6);
        let from = match (key.asked.ip(), self.is_ipv4) {
            (IpAddr::V4(addr), true) => {
                let source = libc::in_addr { s_addr: u32::from_ne_bytes(addr.octets()) };
                v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            (addr, _) => {
                let source = match addr {
                    IpAddr::V4(addr) => addr.to_ipv6_mapped(),
                    IpAddr::V6(addr) => addr,
                };
                let ipi6_addr = libc::in6_addr { s6_addr: source.octets() };
                v6 = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        let fd = self.socket.as_raw_fd();
        let send = || Ok(sendmsg(fd, &parts, &[from], MsgFlags::empty(), Some(&to))?);
        self.socket.async_io(Interest::WRITABLE, send).await.map(drop)
    }
}

impl AsFd for PublicSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn addr_of(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())))
}

/// A socket that sends to a task, and receives from it alone.
pub(super) fn connect(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(addr)?;
    rustix::net::connect(&socket, &addr)?;
    UdpSocket::from_std(socket.into())
}

fn socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(family, SocketType::DGRAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?)
}
