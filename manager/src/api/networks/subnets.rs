//! Which subnet a new network gets.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use swarm_core::State;
use swarm_docker_api::ApiError;
use swarm_model::{NetworkSubnet, ObjectKind, OverlaySettings};

/// Prefix length of a subnet of IPv6 addresses.
const SUBNET_SIZE_V6: u8 = 64;
/// Subnets of IPv6 addresses that are tried: with 2^56 of them, not one is hardly ever taken.
const TRIES: u128 = 16;

/// The next subnet of the cluster's pools.
///
/// # Errors
/// 400: all are taken.
pub(super) fn next(state: &State, overlay: &OverlaySettings) -> Result<NetworkSubnet, ApiError> {
    let pools = Pools::new(overlay);
    let networks =
        || state.objects(ObjectKind::Network).filter_map(|object| Some((object, object.content.as_network()?)));
    // The subnet that was given last is that of the newest network with one of the pools. Swarm gives the first one to the
    // network ingress, so that people expect the second one first.
    let given = networks().filter_map(|(object, network)| {
        let subnet = network.subnets.iter().filter(|subnet| subnet.is_chosen).find_map(|subnet| as_v4(subnet.range))?;
        Some((object.created_at, object.id, pools.number(subnet)?))
    });
    let last = given.max().map_or(0, |(.., number)| number);
    let mut taken: Vec<Ipv4Net> =
        networks().flat_map(|(_, network)| network.subnets.iter().filter_map(|subnet| as_v4(subnet.range))).collect();
    taken.sort_unstable_by_key(Ipv4Net::network);
    let next = pools.free(&taken, last + 1, pools.count()).or_else(|| pools.free(&taken, 0, last + 1));
    next.map(|range| chosen(range.into())).ok_or_else(|| {
        let names: Vec<String> = pools.pools.iter().map(ToString::to_string).collect();
        ApiError::bad_request(format!(
            "no subnet of size {} is free in the address pools of the swarm ({}): name a subnet, or remove networks that no \
             service uses",
            pools.size,
            names.join(", ")
        ))
    })
}

fn chosen(range: IpNet) -> NetworkSubnet {
    NetworkSubnet { is_chosen: true, ..NetworkSubnet::new(range) }
}

const fn as_v4(range: IpNet) -> Option<Ipv4Net> {
    match range {
        IpNet::V4(range) => Some(range),
        IpNet::V6(_) => None,
    }
}

/// The cluster's pools, and the subnets in them. The subnets are numbered, those of the first pool first.
struct Pools {
    pools: Vec<Ipv4Net>,
    /// Prefix length of a subnet.
    size: u8,
}

impl Pools {
    fn new(overlay: &OverlaySettings) -> Self {
        let size = u8::try_from(overlay.subnet_size_or_default()).unwrap_or(u8::MAX);
        let fits = |pool: &Ipv4Net| pool.prefix_len() <= size;
        Self { pools: overlay.pools().into_iter().filter(fits).collect(), size: size.min(32) }
    }

    fn count_in(&self, pool: &Ipv4Net) -> u64 {
        1 << (self.size - pool.prefix_len())
    }

    fn count(&self) -> u64 {
        self.pools.iter().map(|pool| self.count_in(pool)).sum()
    }

    /// The number of the subnet that a range begins in.
    fn number(&self, range: Ipv4Net) -> Option<u64> {
        let mut first = 0;
        for pool in &self.pools {
            if pool.contains(&range.network()) {
                return Some(first + self.offset(pool, range.network()));
            }
            first += self.count_in(pool);
        }
        None
    }

    fn offset(&self, pool: &Ipv4Net, addr: Ipv4Addr) -> u64 {
        u64::from(addr.to_bits() - pool.network().to_bits()) >> (32 - self.size)
    }

    /// The first subnet that overlaps no taken one, from a number up to another one. The taken ones are in order.
    fn free(&self, taken: &[Ipv4Net], from: u64, to: u64) -> Option<Ipv4Net> {
        let mut first = 0;
        for pool in &self.pools {
            let end = first + self.count_in(pool);
            let mut number = from.max(first);
            while number < end.min(to) {
                let offset = u32::try_from((number - first) << (32 - self.size)).ok()?;
                let addr = Ipv4Addr::from_bits(pool.network().to_bits() + offset);
                let subnet = Ipv4Net::new(addr, self.size).ok()?;
                let Some(blocking) = overlapping(taken, subnet) else { return Some(subnet) };
                // A large network blocks many subnets at once.
                number = match pool.contains(&blocking.broadcast()) {
                    true => first + self.offset(pool, blocking.broadcast()) + 1,
                    false => end,
                };
            }
            first = end;
        }
        None
    }
}

/// The taken subnet that overlaps this one. The taken ones are in order and do not overlap each other.
fn overlapping(taken: &[Ipv4Net], subnet: Ipv4Net) -> Option<Ipv4Net> {
    let behind = taken.partition_point(|other| other.network() <= subnet.broadcast());
    taken.get(behind.checked_sub(1)?).copied().filter(|other| other.broadcast() >= subnet.network())
}

/// A subnet of fd00::/8 for unique local addresses, chosen at random so that those of two clusters differ (RFC 4193).
///
/// # Errors
/// 400: none was found that is free.
pub(super) fn unique_local(state: &State, random: u128) -> Result<NetworkSubnet, ApiError> {
    let subnet = |number: u128| {
        let bits = 0xfd << 120 | (random.wrapping_add(number) << 72 >> 8);
        let range = Ipv6Net::new(Ipv6Addr::from_bits(bits), SUBNET_SIZE_V6).ok()?;
        Some(chosen(range.into()))
    };
    (0..TRIES).filter_map(subnet).find(|subnet| state.network_overlapping(subnet).is_none()).ok_or_else(|| {
        ApiError::bad_request("no subnet of fd00::/8 was found that no other network has: name an IPv6 subnet")
    })
}

#[cfg(test)]
mod tests;
