use proptest::prelude::*;
use swarm_net::netlink::{attribute, nested, text};

use super::*;

fn network(addr: &str, prefix: u8) -> Network {
    Network { addr: addr.parse().unwrap(), prefix }
}

#[test]
fn a_network_has_the_addresses_that_begin_alike() {
    let cases = [
        ("172.17.0.1", 16, "172.17.255.254", true),
        ("172.17.0.1", 16, "172.18.0.1", false),
        ("172.17.0.1", 32, "172.17.0.1", true),
        ("172.17.0.1", 32, "172.17.0.2", false),
        ("172.17.0.1", 0, "8.8.8.8", true),
        ("172.17.0.1", 0, "2001:db8::1", false),
        ("fd00:24::1", 64, "fd00:24::ffff:1", true),
        ("fd00:24::1", 64, "fd00:25::1", false),
        ("fd00:24::1", 128, "fd00:24::1", true),
        ("fd00:24::1", 0, "2001:db8::1", true),
    ];
    for (addr, prefix, other, is_in) in cases {
        assert_eq!(network(addr, prefix).contains(other.parse().unwrap()), is_in, "{addr}/{prefix} {other}");
    }
    let all = |prefix, addr: &str| network("10.1.2.3", prefix).is_for_all(addr.parse().unwrap());
    assert!(all(24, "10.1.2.255") && all(24, "10.1.2.0"));
    assert!(!all(24, "10.1.2.4") && !all(24, "10.1.3.255") && !all(31, "10.1.2.3") && !all(32, "10.1.2.3"));
}

/// A device as the kernel tells of it.
fn link(number: u32, kind: Option<&str>, controller: Option<u32>) -> Vec<u8> {
    let mut body = vec![0; LINK_FIXED_BYTES];
    body[4..8].copy_from_slice(&number.to_ne_bytes());
    body.extend(kind.iter().flat_map(|kind| nested(LINK_INFO, &[text(INFO_KIND, kind)])));
    body.extend(controller.iter().flat_map(|controller| attribute(LINK_CONTROLLER, &controller.to_ne_bytes())));
    body
}

#[test]
fn a_bridge_with_a_device_to_the_outside_is_no_network_of_containers() {
    let mut links = Links::default();
    let all = [
        link(1, None, None),
        link(2, None, Some(10)),
        link(3, Some("veth"), Some(10)),
        link(10, Some("bridge"), None),
        link(4, Some("veth"), Some(11)),
        link(5, Some("vxlan"), Some(11)),
        link(11, Some("bridge"), None),
        link(12, Some("bridge"), None),
        link(6, Some("bond"), Some(13)),
        link(13, Some("bridge"), None),
    ];
    all.iter().for_each(|body| links.take(body));
    assert_eq!(links.container_bridges(), [11, 12].into());
}

#[test]
fn the_own_end_of_a_device_is_this_hosts() {
    let mut body = vec![0; ADDRESS_FIXED_BYTES];
    (body[1], body[4]) = (30, 9);
    body.extend(attribute(ADDRESS_ADDRESS, &[10, 0, 0, 2]));
    assert_eq!(address(&body), Some((9, network("10.0.0.2", 30))));
    body.extend(attribute(ADDRESS_LOCAL, &[10, 0, 0, 1]));
    assert_eq!(address(&body), Some((9, network("10.0.0.1", 30))));
}

proptest! {
    #[test]
    fn any_entry_is_read(body in prop::collection::vec(any::<u8>(), 0..64), addr in any::<u128>(), prefix in any::<u8>()) {
        Links::default().take(&body);
        let _ = address(&body);
        for own in [IpAddr::V4(Ipv4Addr::from_bits(addr as u32)), IpAddr::V6(Ipv6Addr::from_bits(addr))] {
            let network = Network { addr: own, prefix };
            prop_assert!(network.contains(own));
            let _ = network.is_for_all(own);
        }
    }
}
