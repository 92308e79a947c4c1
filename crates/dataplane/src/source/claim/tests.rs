use proptest::prelude::*;

use super::{super::networks::Network, *};

fn networks() -> Networks {
    let network = |addr: &str, prefix| Network { addr: addr.parse().unwrap(), prefix };
    let containers = vec![network("172.17.0.1", 16), network("fd00:24::1", 64)];
    let outside = [network("10.1.2.3", 24), network("2001:db8:1::3", 64), network("127.0.0.1", 8), network("::1", 128)];
    Networks { own: outside.into_iter().chain(containers.clone()).collect(), containers }
}

#[test]
fn only_addresses_that_one_host_elsewhere_can_have_are_used() {
    let cases = [
        ("203.0.113.7", Ok(())),
        ("10.1.2.4", Ok(())),
        ("192.168.0.1", Ok(())),
        ("2001:db8:1::4", Ok(())),
        ("fd00:25::1", Ok(())),
        ("::ffff:203.0.113.7", Ok(())),
        ("0.0.0.0", Err(Unfit::NotUnicast)),
        ("0.1.2.3", Err(Unfit::NotUnicast)),
        ("224.0.0.1", Err(Unfit::NotUnicast)),
        ("239.255.255.250", Err(Unfit::NotUnicast)),
        ("240.0.0.1", Err(Unfit::NotUnicast)),
        ("255.255.255.255", Err(Unfit::NotUnicast)),
        ("10.1.2.255", Err(Unfit::NotUnicast)),
        ("10.1.2.0", Err(Unfit::NotUnicast)),
        ("::", Err(Unfit::NotUnicast)),
        ("ff02::1", Err(Unfit::NotUnicast)),
        ("127.0.0.1", Err(Unfit::Loopback)),
        ("127.9.9.9", Err(Unfit::Loopback)),
        ("::1", Err(Unfit::Loopback)),
        ("::ffff:127.0.0.1", Err(Unfit::Loopback)),
        ("169.254.169.254", Err(Unfit::LinkLocal)),
        ("fe80::1", Err(Unfit::LinkLocal)),
        ("febf::1", Err(Unfit::LinkLocal)),
        ("10.1.2.3", Err(Unfit::Own)),
        ("172.17.0.1", Err(Unfit::Own)),
        ("2001:db8:1::3", Err(Unfit::Own)),
        ("::ffff:10.1.2.3", Err(Unfit::Own)),
        ("172.17.200.9", Err(Unfit::Container)),
        ("fd00:24::99", Err(Unfit::Container)),
    ];
    for (addr, expected) in cases {
        assert_eq!(check(addr.parse().unwrap(), &networks()), expected, "{addr}");
    }
}

proptest! {
    #[test]
    fn what_is_used_is_no_address_of_a_forbidden_kind(bits in any::<u128>(), kind in 0..3) {
        let networks = networks();
        let addr: IpAddr = match kind {
            0 => std::net::Ipv4Addr::from_bits(bits as u32).into(),
            1 => std::net::Ipv6Addr::from_bits(bits).into(),
            _ => std::net::Ipv4Addr::from_bits(bits as u32).to_ipv6_mapped().into(),
        };
        if check(addr, &networks).is_ok() {
            let addr = addr.to_canonical();
            prop_assert!(!addr.is_loopback() && !addr.is_multicast() && !addr.is_unspecified());
            prop_assert!(!networks.is_own(addr) && !networks.containers.iter().any(|network| network.contains(addr)));
            match addr {
                IpAddr::V4(v4) => prop_assert!(!v4.is_link_local() && !v4.is_broadcast()),
                IpAddr::V6(v6) => prop_assert!(!v6.is_unicast_link_local()),
            }
        }
    }
}
