//! The program that has a port, as far as the system tells.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use swarm_model::PortProtocol;

/// States of sockets in the system's tables that take connections or datagrams.
const TCP_LISTENING: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

/// The program that has a port on an address: its name and process id. None where the system does not tell: for
/// sockets of other users, or of processes that cannot be seen from here.
pub(crate) fn holder_of(protocol: PortProtocol, port: u16, addr: IpAddr) -> Option<String> {
    let (files, state): ([&str; 2], _) = match protocol {
        PortProtocol::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], TCP_LISTENING),
        PortProtocol::Udp => (["/proc/net/udp", "/proc/net/udp6"], UDP_UNCONNECTED),
        PortProtocol::Sctp => return None,
    };
    let inodes: Vec<_> = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| inodes(&text, state, port, addr))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let has_it = |path: &Path| inodes.iter().any(|inode| path.as_os_str() == inode.as_str());
        files.find(|file| fs::read_link(file.path()).is_ok_and(|path| has_it(&path)))?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(format!("{} (pid {pid})", name.trim_end()))
    })
}

/// The inodes of sockets, in a table of the system, that stand in the way of this address and port.
fn inodes(table: &str, state: &str, port: u16, addr: IpAddr) -> Vec<u64> {
    let sockets = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (found, found_port) = address(fields.nth(1)?)?;
        let is_in_the_way = found == addr || found.is_unspecified() || addr.is_unspecified();
        let is_it = found_port == port && is_in_the_way && fields.nth(1)? == state;
        if is_it { fields.nth(5)?.parse().ok() } else { None }
    });
    sockets.collect()
}

/// An address as the system's tables have it: words in the order of this machine, in hexadecimal digits.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (addr, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(addr.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let addr = match addr.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?)).to_canonical()
        }
        _ => return None,
    };
    Some((addr, port))
}

#[cfg(test)]
mod tests;
