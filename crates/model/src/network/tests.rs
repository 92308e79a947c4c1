use super::*;

fn subnet(range: &str) -> NetworkSubnet {
    NetworkSubnet::new(range.parse().expect("a subnet"))
}

fn network(subnets: &[&str]) -> NetworkContent {
    NetworkContent {
        vni: 4097,
        data_port: 4789,
        subnets: subnets.iter().map(|range| subnet(range)).collect(),
        internal: false,
        attachable: false,
        encrypted: false,
        mtu: None,
        options: BTreeMap::new(),
    }
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_subnet_has_a_bridge_and_addresses_for_tasks() {
    let plain = subnet("10.0.1.0/24");
    assert_eq!(plain.gateway, addr("10.0.1.1"));
    assert_eq!(plain.usable(), (addr("10.0.1.1"), addr("10.0.1.254")));
    let part = NetworkSubnet { ip_range: "10.0.1.128/25".parse().ok(), ..plain };
    assert_eq!(part.usable(), (addr("10.0.1.128"), addr("10.0.1.254")));
    let six = subnet("fd00:1::/64");
    assert_eq!(six.gateway, addr("fd00:1::1"));
    assert_eq!(six.usable(), (addr("fd00:1::1"), addr("fd00:1::ffff:ffff:ffff:ffff")));
    assert!(six.is_reserved(six.gateway) && !six.is_reserved(addr("fd00:1::2")));
}

#[test]
fn subnets_that_do_not_fit_are_refused_by_name() {
    for valid in [&["10.0.1.0/24"][..], &["10.0.1.0/30"], &["fd00:1::/64"], &["10.0.1.0/24", "fd00:1::/64"]] {
        assert_eq!(network(valid).validate(), Ok(()), "{valid:?}");
    }
    let refused = |network: NetworkContent, part: &str| {
        let error = network.validate().expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(network(&[]), "needs a subnet");
    refused(network(&["10.0.1.0/24", "10.0.2.0/24"]), "subnet 10.0.2.0/24");
    refused(network(&["10.0.1.0/31"]), "10.0.1.0/31 is too small");
    let changed = |change: fn(&mut NetworkSubnet)| {
        let mut network = network(&["10.0.1.0/24"]);
        network.subnets.iter_mut().for_each(change);
        network
    };
    refused(changed(|subnet| subnet.range = "10.0.1.7/24".parse().expect("a subnet")), "the subnet is 10.0.1.0/24");
    refused(changed(|subnet| subnet.gateway = addr("10.0.2.1")), "gateway 10.0.2.1");
    refused(changed(|subnet| subnet.gateway = addr("10.0.1.255")), "gateway 10.0.1.255");
    refused(changed(|subnet| subnet.ip_range = "10.0.0.0/16".parse().ok()), "IP range 10.0.0.0/16");
    refused(
        changed(|subnet| {
            subnet.reserved.insert("router".into(), addr("10.0.3.1"));
        }),
        "auxiliary address router=10.0.3.1",
    );
    refused(NetworkContent { mtu: Some(100), ..network(&["10.0.1.0/24"]) }, "this is 100");
}
