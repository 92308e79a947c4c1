//! Networks across nodes.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    Invalid, Labels, ObjectId, ServiceSpec,
    validate::{validate_labels, validate_service_name},
};

/// The driver of the networks of the cluster; there is no other one.
pub const OVERLAY_DRIVER: &str = "overlay";
/// The networks that every engine has of its own. A task joins one of them by its name.
pub const PREDEFINED_NETWORKS: &[&str] = &["bridge", "host", "none"];
/// The network that stands for published ports, which need no network. Nobody can make it, join it or remove it.
pub const INGRESS_NETWORK: &str = "ingress";
/// The label of a network of the engine that stands for a network of the cluster. Its value is the id of that network.
pub const NETWORK_ID_LABEL: &str = "com.docker.swarm.network.id";
/// The label of such a network of the engine that has the name of the network of the cluster.
pub const NETWORK_NAME_LABEL: &str = "com.docker.swarm.network.name";

/// Subnets of one address family that a network can have. Each node has one bridge for it, with one address of each family.
const SUBNETS_OF_FAMILY_MAX: usize = 1;
/// Longest prefix of a subnet of IPv4 addresses: the bridge and one container need two of the four.
const PREFIX_V4_MAX: u8 = 30;
/// Longest prefix of a subnet of IPv6 addresses.
const PREFIX_V6_MAX: u8 = 126;
/// The smallest MTU: IPv6 asks for as much.
const MTU_MIN: u32 = 1280;
/// The largest MTU that a device takes.
const MTU_MAX: u32 = 65_535;

/// The content of a network. All of it is chosen when the network is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkContent {
    /// The number of its VXLAN, which no other network of the cluster has.
    pub vni: u32,
    /// The UDP port of packets between nodes: that of the cluster.
    #[serde(default = "data_port_default")]
    pub data_port: u16,
    /// Its subnets: at most one of each address family, IPv4 first.
    pub subnets: Vec<NetworkSubnet>,
    /// Whether its containers reach nothing but each other.
    #[serde(default)]
    pub internal: bool,
    /// Whether containers that are no tasks may be attached.
    #[serde(default)]
    pub attachable: bool,
    /// Whether frames between nodes are encrypted.
    #[serde(default)]
    pub encrypted: bool,
    /// The largest packet, in bytes; none for the largest that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The driver's options, as the user gave them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSubnet {
    /// The subnet.
    pub range: IpNet,
    /// The address of the network's bridge, the same on each node.
    pub gateway: IpAddr,
    /// The part of the subnet that tasks get their addresses from; none for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
    /// Addresses that nobody gets, by the names that the user gave them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, IpAddr>,
    /// Whether the cluster chose it: from its pools, or at random.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_chosen: bool,
}

// serde passes a reference.
fn is_false(value: &bool) -> bool {
    !value
}

/// An address in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkAddr {
    /// The network.
    pub network: ObjectId,
    /// The address.
    pub addr: IpAddr,
}

fn data_port_default() -> u16 {
    NetworkContent::DATA_PORT_DEFAULT
}

impl NetworkContent {
    /// The UDP port of packets between nodes, unless the cluster has another one.
    pub const DATA_PORT_DEFAULT: u16 = 4789;

    /// Checks that its parts fit together.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.subnets.is_empty() {
            return Err(Invalid("a network needs a subnet".into()));
        }
        for (at, subnet) in self.subnets.iter().enumerate() {
            subnet.validate()?;
            let is_same_family = |other: &&NetworkSubnet| is_v4(other.range.addr()) == is_v4(subnet.range.addr());
            if self.subnets[..at].iter().filter(is_same_family).count() >= SUBNETS_OF_FAMILY_MAX {
                let text = "a network has one subnet of each address family: leave this one out, or make it a network of its own";
                return Err(Invalid(format!("subnet {}: {text}", subnet.range)));
            }
        }
        match self.mtu {
            Some(mtu) if !(MTU_MIN..=MTU_MAX).contains(&mtu) => {
                Err(Invalid(format!("an MTU is from {MTU_MIN} to {MTU_MAX}: this is {mtu}")))
            }
            _ => Ok(()),
        }
    }

    /// The subnet that an address belongs to.
    pub fn subnet_of(&self, addr: IpAddr) -> Option<&NetworkSubnet> {
        self.subnets.iter().find(|subnet| subnet.range.contains(&addr))
    }
}

impl NetworkSubnet {
    /// A subnet whose bridge has the first address.
    pub fn new(range: IpNet) -> Self {
        let range = range.trunc();
        let (gateway, reserved) = (range.network(), BTreeMap::new());
        let mut subnet = Self { range, gateway, ip_range: None, reserved, is_chosen: false };
        subnet.gateway = subnet.addr(bits(range.network()).saturating_add(1));
        subnet
    }

    fn validate(&self) -> Result<(), Invalid> {
        let range = self.range;
        let longest = if is_v4(range.addr()) { PREFIX_V4_MAX } else { PREFIX_V6_MAX };
        if range != range.trunc() {
            return Err(Invalid(format!("{range} is an address in a subnet: the subnet is {}", range.trunc())));
        }
        if range.prefix_len() > longest {
            return Err(Invalid(format!("subnet {range} is too small: the prefix is at most /{longest}")));
        }
        if !self.is_host(self.gateway) {
            return Err(Invalid(format!("gateway {} is no address of a host in subnet {range}", self.gateway)));
        }
        if let Some(part) = self.ip_range.filter(|part| !range.contains(part)) {
            return Err(Invalid(format!("IP range {part} is not within subnet {range}")));
        }
        match self.reserved.iter().find(|(_, addr)| !range.contains(*addr)) {
            Some((name, addr)) => Err(Invalid(format!("auxiliary address {name}={addr} is not within subnet {range}"))),
            None => Ok(()),
        }
    }

    /// The first and the last address that can be given to a task or to a service.
    pub fn usable(&self) -> (IpAddr, IpAddr) {
        let part = self.ip_range.unwrap_or(self.range);
        let (mut first, mut last) = (bits(part.network()), bits(part.broadcast()));
        // The first and the last address of a subnet of IPv4 mean the subnet and all of its hosts. Of a subnet of IPv6 the first
        // address means its routers.
        if first == bits(self.range.network()) {
            first += 1;
        }
        if is_v4(self.range.addr()) && last == bits(self.range.broadcast()) {
            last -= 1;
        }
        (self.addr(first), self.addr(last))
    }

    /// Whether nobody gets this address: the bridge has it, or the user reserved it.
    pub fn is_reserved(&self, addr: IpAddr) -> bool {
        addr == self.gateway || self.reserved.values().any(|reserved| *reserved == addr)
    }

    /// Whether the address is one of a host of the subnet.
    pub fn is_host(&self, addr: IpAddr) -> bool {
        let is_edge = addr == self.range.network() || is_v4(addr) && addr == self.range.broadcast();
        self.range.contains(&addr) && !is_edge
    }

    /// The address of this subnet's family with these bits.
    pub fn addr(&self, bits: u128) -> IpAddr {
        match self.range {
            IpNet::V4(_) => IpAddr::from(u32::try_from(bits).unwrap_or(u32::MAX).to_be_bytes()),
            IpNet::V6(_) => IpAddr::from(bits.to_be_bytes()),
        }
    }
}

/// Checks the name and the labels of a network. A name is a part of the names that containers ask for.
///
/// # Errors
/// The first rule that they break.
pub fn validate_network(name: &str, labels: &Labels) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid("name must be provided".into()));
    }
    validate_service_name(name)?;
    validate_labels(labels)
}

/// The bits of an address, as a number.
pub fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

const fn is_v4(addr: IpAddr) -> bool {
    addr.is_ipv4()
}

impl ServiceSpec {
    /// The networks of the cluster that its tasks join, in their order. The engine's own networks have no ids.
    pub fn network_ids(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.task_template.networks.iter().filter_map(|network| network.target.parse().ok())
    }
}

#[cfg(test)]
mod tests;
