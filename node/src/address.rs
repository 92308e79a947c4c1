//! Which address a node listens on, and which one it tells the others (swarm-behaviour §8.5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, anyhow, bail};

/// The managers' port.
pub(crate) const PORT_DEFAULT: u16 = 2377;

/// An address of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Name of the interface.
    pub(crate) name: String,
    /// One of its addresses.
    pub(crate) ip: IpAddr,
}

/// The addresses of this machine's interfaces that are up.
pub(crate) fn interfaces() -> Result<Vec<Interface>> {
    let found = nix::ifaddrs::getifaddrs().context("cannot list the network interfaces")?;
    Ok(found
        .filter(|i| i.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP))
        .filter_map(|i| {
            let address = i.address?;
            let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (_, Some(v6)) => IpAddr::V6(v6.ip()),
                _ => return None,
            };
            Some(Interface { name: i.interface_name, ip })
        })
        .collect())
}

/// Reads an address to listen on: an IP with or without a port.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr> {
    let (host, port) = split_port(text)?;
    let ip =
        host.parse().map_err(|_| anyhow!("an IP address is wanted, with or without a port, such as 0.0.0.0:2377"))?;
    Ok(SocketAddr::new(ip, port.unwrap_or(PORT_DEFAULT)))
}

/// The address that other nodes reach this one by. `wanted` is an IP or the name of an interface, with or without a
/// port; without it the node's only usable address is taken. The port is that of `listen` unless `wanted` has one.
pub(crate) fn advertise(wanted: Option<&str>, listen: SocketAddr, interfaces: &[Interface]) -> Result<SocketAddr> {
    let Some(wanted) = wanted.map(str::trim).filter(|w| !w.is_empty()) else {
        let ip = if listen.ip().is_unspecified() { the_only(interfaces)? } else { listen.ip() };
        return Ok(SocketAddr::new(ip, listen.port()));
    };
    let (host, port) = split_port(wanted)?;
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
            bail!("advertise address must be a non-zero IP address or network interface (with optional port number)")
        }
        Ok(ip) => ip,
        Err(_) => address_of(host, interfaces)?,
    };
    Ok(SocketAddr::new(ip, port.unwrap_or(listen.port())))
}

/// The address of overlay traffic: an IP or the name of an interface.
pub(crate) fn data_path(wanted: &str, interfaces: &[Interface]) -> Result<IpAddr> {
    match wanted.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
            bail!("{wanted} must be a non-zero IP address or network interface")
        }
        Ok(ip) => Ok(ip),
        Err(_) => address_of(wanted, interfaces),
    }
}

/// The address of a manager as a person writes it: `HOST`, `HOST:PORT`, `[IPv6]:PORT`.
pub(crate) fn with_port(text: &str) -> Result<String> {
    let form =
        || format!("{text:?} is not the address of a manager; one is written HOST:PORT, such as 192.168.1.5:2377");
    let (host, port) = split_port(text.trim()).with_context(form)?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        bail!(form());
    }
    let port = port.unwrap_or(PORT_DEFAULT);
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Splits off a port. IPv6 addresses with a port are in brackets.
fn split_port(text: &str) -> Result<(&str, Option<u16>)> {
    let number = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(anyhow!("{text:?} is not a port, which is a number from 1 to 65535")),
        Ok(port) => Ok(Some(port)),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').context("the bracket of the IPv6 address is not closed")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, number(port)?)),
            None if rest.is_empty() => Ok((host, None)),
            None => bail!("{rest:?} after the IPv6 address is not a port"),
        };
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => Ok((host, number(port)?)),
        _ => Ok((text, None)),
    }
}

/// The address of one interface; IPv4 is preferred.
fn address_of(name: &str, interfaces: &[Interface]) -> Result<IpAddr> {
    let of = |v4: bool| -> Vec<IpAddr> {
        interfaces.iter().filter(|i| i.name == name && i.ip.is_ipv4() == v4).map(|i| i.ip).collect()
    };
    let (v4, v6) = (of(true), of(false).into_iter().filter(is_usable).collect::<Vec<_>>());
    match (v4.as_slice(), v6.as_slice()) {
        ([ip], _) | ([], [ip]) => Ok(*ip),
        ([a, b, ..], _) => bail!("interface {name} has more than one IPv4 address ({a} and {b})"),
        ([], [a, b, ..]) => bail!("interface {name} has more than one IPv6 address ({a} and {b})"),
        ([], []) if interfaces.iter().any(|i| i.name == name) => {
            bail!("interface {name} has no usable IPv4 or IPv6 address")
        }
        ([], []) => bail!("{name:?} is neither an IP address nor a network interface of this machine that is up"),
    }
}

/// The only address that other machines can be meant to use.
fn the_only(interfaces: &[Interface]) -> Result<IpAddr> {
    let usable = |v4: bool| -> Vec<&Interface> {
        interfaces.iter().filter(|i| i.ip.is_ipv4() == v4 && is_usable(&i.ip) && !is_docker(&i.name)).collect()
    };
    let v4 = usable(true);
    let candidates = if v4.is_empty() { usable(false) } else { v4 };
    match candidates.as_slice() {
        [] => bail!("could not find the system's IP address"),
        [one] => Ok(one.ip),
        [a, b, ..] if a.name == b.name => bail!(
            "could not choose an IP address to advertise since this system has multiple addresses on interface {} ({} \
             and {})",
            a.name,
            a.ip,
            b.ip
        ),
        [a, b, ..] => bail!(
            "could not choose an IP address to advertise since this system has multiple addresses on different \
             interfaces ({} on {} and {} on {})",
            a.ip,
            a.name,
            b.ip,
            b.name
        ),
    }
}

fn is_usable(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || *v4 == Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

/// Bridges of Docker's networks and the host's ends of containers' interfaces.
fn is_docker(name: &str) -> bool {
    let bridge = name.strip_prefix("br-").is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    bridge || name.starts_with("docker") || name.starts_with("veth")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTEN: &str = "0.0.0.0:2377";

    fn machine(addresses: &[(&str, &str)]) -> Vec<Interface> {
        addresses.iter().map(|(name, ip)| Interface { name: (*name).to_owned(), ip: ip.parse().unwrap() }).collect()
    }

    fn choose(wanted: Option<&str>, listen: &str, machine: &[Interface]) -> Result<String, String> {
        advertise(wanted, parse_listen(listen).unwrap(), machine).map(|a| a.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_only_address_is_taken() {
        let host = machine(&[
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("eth0", "10.1.2.3"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::5"),
            ("docker0", "172.17.0.1"),
            ("docker_gwbridge", "172.18.0.1"),
            ("br-0123456789ab", "172.19.0.1"),
            ("veth1", "169.254.3.4"),
        ]);
        assert_eq!(choose(None, LISTEN, &host), Ok("10.1.2.3:2377".to_owned()));
        assert_eq!(choose(None, "0.0.0.0:5000", &host), Ok("10.1.2.3:5000".to_owned()));
        assert_eq!(choose(None, "127.0.0.2:2377", &host), Ok("127.0.0.2:2377".to_owned()));
        let v6 = machine(&[("lo", "127.0.0.1"), ("eth0", "2001:db8::5"), ("eth0", "fe80::1")]);
        assert_eq!(choose(None, LISTEN, &v6), Ok("[2001:db8::5]:2377".to_owned()));
    }

    #[test]
    fn ambiguity_is_an_error_that_names_both() {
        let one = machine(&[("eth0", "10.0.0.1"), ("eth0", "10.0.0.2")]);
        let text = choose(None, LISTEN, &one).unwrap_err();
        assert_eq!(
            text,
            "could not choose an IP address to advertise since this system has multiple addresses on interface eth0 \
             (10.0.0.1 and 10.0.0.2)"
        );
        let two = machine(&[("eth0", "10.0.0.1"), ("eth1", "10.0.0.2")]);
        let text = choose(None, LISTEN, &two).unwrap_err();
        assert!(text.contains("different interfaces (10.0.0.1 on eth0 and 10.0.0.2 on eth1)"), "{text}");
        let text = choose(None, LISTEN, &machine(&[("lo", "127.0.0.1")])).unwrap_err();
        assert_eq!(text, "could not find the system's IP address");
    }

    #[test]
    fn addresses_and_interfaces_can_be_named() {
        let host = machine(&[("eth0", "10.0.0.1"), ("eth1", "10.0.0.2"), ("eth1", "2001:db8::2"), ("lo", "127.0.0.1")]);
        for (wanted, expected) in [
            ("192.0.2.7", "192.0.2.7:2377"),
            ("192.0.2.7:4000", "192.0.2.7:4000"),
            ("eth1", "10.0.0.2:2377"),
            ("eth0:99", "10.0.0.1:99"),
            ("lo", "127.0.0.1:2377"),
            ("2001:db8::9", "[2001:db8::9]:2377"),
            ("[2001:db8::9]:7", "[2001:db8::9]:7"),
        ] {
            assert_eq!(choose(Some(wanted), LISTEN, &host), Ok(expected.to_owned()), "{wanted}");
        }
        for (wanted, expected) in [
            ("0.0.0.0", "non-zero"),
            ("eth7", "eth7"),
            ("10.0.0.1:0", "not a port"),
            ("10.0.0.1:70000", "70000"),
            ("[::1", "bracket"),
        ] {
            let text = choose(Some(wanted), LISTEN, &host).unwrap_err();
            assert!(text.contains(expected), "{wanted}: {text}");
        }
    }

    #[test]
    fn managers_are_found_with_and_without_a_port() {
        assert_eq!(with_port("m1.example").unwrap(), "m1.example:2377");
        assert_eq!(with_port(" 10.0.0.1:99 ").unwrap(), "10.0.0.1:99");
        assert_eq!(with_port("fd00::1").unwrap(), "[fd00::1]:2377");
        assert!(with_port("").is_err());
        assert!(with_port("http://x/").is_err());
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(interfaces().unwrap().iter().any(|i| i.ip.is_loopback()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\[|[0-9.:]{0,12})\\PC{0,12}") {
            let host = machine(&[("eth0", "10.0.0.1")]);
            let _ = advertise(Some(&text), LISTEN.parse().unwrap(), &host);
            let _ = parse_listen(&text);
            let _ = with_port(&text);
        }
    }
}
