//! Whether a connection may be made from an address that somebody says is the client's.

use std::net::IpAddr;

use super::networks::Networks;

/// Why an address is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The address names no single host.
    NotUnicast,
    /// The address names any host that uses it.
    Loopback,
    /// The address has a meaning on one link only.
    LinkLocal,
    /// The address is one of this host.
    Own,
    /// A container of this host may have it.
    Container,
}

/// Checks an address that is claimed to be a client's.
///
/// # Errors
/// Why it is not used.
pub(super) fn check(addr: IpAddr, networks: &Networks) -> Result<(), Unfit> {
    let addr = addr.to_canonical();
    let (is_link_local, is_reserved) = match addr {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[0] == 0 || v4.octets()[0] >= 240),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_unspecified()),
    };
    if addr.is_loopback() {
        Err(Unfit::Loopback)
    } else if is_link_local {
        Err(Unfit::LinkLocal)
    } else if is_reserved || addr.is_multicast() || networks.own.iter().any(|own| own.is_for_all(addr)) {
        Err(Unfit::NotUnicast)
    } else if networks.is_own(addr) {
        Err(Unfit::Own)
    } else if networks.containers.iter().any(|network| network.contains(addr)) {
        Err(Unfit::Container)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
