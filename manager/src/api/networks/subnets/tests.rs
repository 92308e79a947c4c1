use proptest::prelude::*;

use super::*;

fn overlay(pools: &[&str], size: u32) -> OverlaySettings {
    OverlaySettings {
        addr_pools: pools.iter().map(ToString::to_string).collect(),
        subnet_size: size,
        data_path_port: 0,
        encrypt_networks: false,
    }
}

fn range(text: &str) -> Ipv4Net {
    text.parse().expect("a subnet")
}

fn free(pools: &Pools, taken: &[&str], from: u64) -> Option<String> {
    let taken: Vec<Ipv4Net> = taken.iter().map(|text| range(text)).collect();
    pools.free(&taken, from, pools.count()).map(|subnet| subnet.to_string())
}

#[test]
fn subnets_are_numbered_through_all_pools() {
    let pools = Pools::new(&overlay(&["10.1.0.0/24", "10.9.0.0/25"], 26));
    assert_eq!(pools.count(), 6);
    for (number, subnet) in [(0, "10.1.0.0/26"), (3, "10.1.0.192/26"), (4, "10.9.0.0/26"), (5, "10.9.0.64/26")] {
        assert_eq!(free(&pools, &[], number).as_deref(), Some(subnet));
        assert_eq!(pools.number(range(subnet)), Some(number));
    }
    assert_eq!(pools.number(range("10.2.0.0/26")), None);
    assert_eq!(free(&pools, &[], 6), None);
}

#[test]
fn taken_subnets_are_stepped_over_whatever_their_size() {
    let pools = Pools::new(&OverlaySettings::default());
    assert_eq!(pools.count(), 1 << 16);
    assert_eq!(free(&pools, &["10.0.1.0/24", "10.0.2.128/30"], 1).as_deref(), Some("10.0.3.0/24"));
    assert_eq!(free(&pools, &["10.0.0.0/12"], 1).as_deref(), Some("10.16.0.0/24"));
    assert_eq!(free(&pools, &["0.0.0.0/1"], 0), None);
    let two = Pools::new(&overlay(&["10.0.0.0/24", "192.168.0.0/24"], 24));
    assert_eq!(free(&two, &["0.0.0.0/1"], 0).as_deref(), Some("192.168.0.0/24"));
}

proptest! {
    #[test]
    fn a_subnet_that_is_free_is_found_as_one_by_one(
        taken in prop::collection::btree_set((0_u32..64, 26_u8..=32), 0..12),
        from in 0_u64..20,
    ) {
        let pools = Pools::new(&overlay(&["10.0.0.0/26", "10.0.1.0/27"], 29));
        let mut ranges: Vec<Ipv4Net> = Vec::new();
        for (host, size) in taken {
            let base = if host % 2 == 0 { 0x0a00_0000 } else { 0x0a00_0100 };
            let range = Ipv4Net::new(Ipv4Addr::from_bits(base + host), size).expect("a size").trunc();
            if !ranges.iter().any(|other| other.contains(&range) || range.contains(other)) {
                ranges.push(range);
            }
        }
        ranges.sort_unstable_by_key(Ipv4Net::network);
        let all = [("10.0.0.0/26"), ("10.0.1.0/27")].map(range);
        let all: Vec<Ipv4Net> = all.iter().flat_map(|pool| pool.subnets(29).expect("a size")).collect();
        let is_free = |subnet: &&Ipv4Net| !ranges.iter().any(|other| other.contains(*subnet) || subnet.contains(other));
        let expected = all.iter().skip(usize::try_from(from).expect("few")).find(is_free).copied();
        prop_assert_eq!(pools.free(&ranges, from, pools.count()), expected);
    }
}
