//! Which process of a host programmes a network's device: nodes that share an engine share its bridges.
//!
//! The one that listens on the abstract socket of the device has it. Such a socket is of a network namespace, and goes
//! with its process. Others connect to it, so that the process that has the device knows of them, and leaves the device
//! in place when its own node leaves the network.

use std::{
    io::{self, Read},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

use crate::{protocol::DATA_PORT, socket::check_peer};

/// The part of a name that tells devices apart: the number of the VXLAN, with the port if that is not the usual one.
fn suffix(vni: u32, port: u16) -> String {
    if port == DATA_PORT { vni.to_string() } else { format!("{vni}-{port:x}") }
}

/// The name of a VXLAN device; at most 15 bytes for numbers below 2^24.
pub(crate) fn device_name(vni: u32, port: u16) -> String {
    format!("vx{}", suffix(vni, port))
}

/// The name of the TAP device of an encrypted network, as long.
pub(crate) fn tap_name(vni: u32, port: u16) -> String {
    format!("vt{}", suffix(vni, port))
}

/// The number and the port that the name of a TAP device tells; none for other devices.
pub(crate) fn numbers_of_tap(name: &str) -> Option<(u32, u16)> {
    let rest = name.strip_prefix("vt")?;
    match rest.split_once('-') {
        Some((vni, port)) => Some((vni.parse().ok()?, u16::from_str_radix(port, 16).ok()?)),
        None => Some((rest.parse().ok()?, DATA_PORT)),
    }
}

/// The right to programme a device.
#[derive(Debug)]
pub(crate) struct Claim(UnixListener);

impl Claim {
    /// Takes the right, unless another process has it.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn take(vni: u32, port: u16) -> io::Result<Option<Self>> {
        match UnixListener::bind_addr(&addr(vni, port)?) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Some(Self(listener)))
            }
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether another process waits for the right.
    pub(crate) fn is_wanted(&self) -> bool {
        // A process that is gone has closed its connection.
        std::iter::from_fn(|| self.0.accept().ok()).any(|(stream, _)| is_open(&stream) && check_peer(&stream).is_ok())
    }
}

/// The place of a process that waits for a device.
#[derive(Debug)]
pub(crate) struct Waiting(UnixStream);

impl Waiting {
    /// Shows the process that has the right that another one waits.
    ///
    /// # Errors
    /// The socket's: the right has become free. `PermissionDenied` when a process of another user took the name.
    pub(crate) fn begin(vni: u32, port: u16) -> io::Result<Self> {
        let stream = UnixStream::connect_addr(&addr(vni, port)?)?;
        check_peer(&stream).map_err(|e| {
            let text = format!("the name of its abstract socket, @swarmd-net-{}, is taken: {e}", suffix(vni, port));
            io::Error::new(e.kind(), text)
        })?;
        Ok(Self(stream))
    }

    /// Whether the process that it was shown to is there.
    pub(crate) fn holds(&self) -> bool {
        is_open(&self.0)
    }
}

/// Nothing is ever sent on these connections.
fn is_open(mut stream: &UnixStream) -> bool {
    let read = stream.set_nonblocking(true).and_then(|()| stream.read(&mut [0]));
    matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

fn addr(vni: u32, port: u16) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("swarmd-net-{}", suffix(vni, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_all_devices_fit() {
        assert_eq!(device_name(4097, DATA_PORT), "vx4097");
        assert_eq!(device_name(4097, 4790), "vx4097-12b6");
        assert!(device_name(0xff_ffff, u16::MAX).len() <= 15);
        for (vni, port) in [(4097, DATA_PORT), (0xff_ffff, u16::MAX)] {
            assert_eq!(numbers_of_tap(&tap_name(vni, port)), Some((vni, port)));
        }
        assert_eq!(["vx4097", "vtprobe", "vt", "vt1-"].map(numbers_of_tap), [None; 4]);
    }
}
