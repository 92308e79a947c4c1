//! The network that a user asks for.

use std::net::IpAddr;

use ipnet::IpNet;
use swarm_core::State;
use swarm_docker_api::{
    ApiError, parse_bool,
    view::{IpamConfigView, IpamView, NetworkRequest, SWARM_SCOPE, VXLAN_OPTION},
};
use swarm_model::{
    Labels, NetworkContent, NetworkSubnet, OVERLAY_DRIVER, OverlaySettings, PREDEFINED_NETWORKS, validate_network,
};

use super::subnets;

/// The VXLANs that the cluster chooses from, and that users may name. The first one of Swarm's is 4097 as well.
const VNIS: std::ops::RangeInclusive<u32> = 4097..=(1 << 24) - 1;
/// The driver option for frames that are encrypted between nodes.
const ENCRYPTED_OPTION: &str = "encrypted";
/// The driver option for the largest packet, in bytes.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// The driver option for IPv6 addresses, in place of the field.
const IPV6_OPTION: &str = "com.docker.network.enable_ipv6";
/// Labels that Swarm keeps for its own networks.
const RESERVED_LABELS: &[&str] = &["com.docker.swarm.internal", "com.docker.swarm.predefined"];

/// A network that a user asks for, as far as it can be judged without the others.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Its name.
    pub(super) name: String,
    /// Its labels.
    pub(super) labels: Labels,
    /// The subnets that the user named.
    subnets: Vec<NetworkSubnet>,
    /// Whether it is to have IPv6 addresses.
    has_v6: bool,
    /// The VXLAN that the user named.
    vni: Option<u32>,
    mtu: Option<u32>,
    internal: bool,
    attachable: bool,
    /// None for what the cluster does by default.
    encrypted: Option<bool>,
    options: Labels,
}

impl Wanted {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 for what cannot be, 403 for what is reserved, 501 for what a swarm of this version has not.
    pub(super) fn read(request: NetworkRequest) -> Result<Self, ApiError> {
        validate_network(&request.name, &request.labels).map_err(|error| ApiError::bad_request(error.to_string()))?;
        refuse_reserved(&request)?;
        refuse_unavailable(&request)?;
        let options = Options::read(&request.options)?;
        let has_v6 = request.enable_ipv6.unwrap_or(options.has_v6);
        let subnets = request.ipam.map(|ipam| read_subnets(&ipam)).transpose()?.unwrap_or_default();
        if let Some(subnet) = subnets.iter().find(|subnet| subnet.range.addr().is_ipv6()).filter(|_| !has_v6) {
            return Err(ApiError::bad_request(format!(
                "subnet {} has IPv6 addresses, and the network has none: set EnableIPv6 (--ipv6)",
                subnet.range
            )));
        }
        let Options { vni, mtu, encrypted, .. } = options;
        let NetworkRequest { name, labels, internal, attachable, options, .. } = request;
        Ok(Self { name, labels, subnets, has_v6, vni, mtu, internal, attachable, encrypted, options })
    }

    /// The network, with what the cluster chooses.
    ///
    /// # Errors
    /// 400: it does not fit beside the networks that there are.
    pub(super) fn choose(
        &self,
        state: &State,
        overlay: &OverlaySettings,
        random: u128,
    ) -> Result<NetworkContent, ApiError> {
        for subnet in &self.subnets {
            if let Some(other) = state.network_overlapping(subnet) {
                return Err(ApiError::bad_request(format!(
                    "subnet {} overlaps a subnet of network {}: choose another one",
                    subnet.range, other.name
                )));
            }
        }
        let mut subnets = self.subnets.clone();
        if !subnets.iter().any(|subnet| subnet.range.addr().is_ipv4()) {
            subnets.push(subnets::next(state, overlay)?);
        }
        if self.has_v6 && !subnets.iter().any(|subnet| subnet.range.addr().is_ipv6()) {
            subnets.push(subnets::unique_local(state, random)?);
        }
        subnets.sort_by_key(|subnet| subnet.range.addr().is_ipv6());
        let mut options = self.options.clone();
        let encrypted = self.encrypted.unwrap_or(overlay.encrypt_networks);
        if encrypted && self.encrypted.is_none() {
            // `network inspect` shows the option as if the user had given it.
            options.insert(ENCRYPTED_OPTION.to_owned(), String::new());
        }
        let content = NetworkContent {
            vni: self.choose_vni(state)?,
            data_port: data_port(overlay)?,
            subnets,
            internal: self.internal,
            attachable: self.attachable,
            encrypted,
            mtu: self.mtu,
            options,
        };
        content.validate().map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(content)
    }

    fn choose_vni(&self, state: &State) -> Result<u32, ApiError> {
        if let Some(vni) = self.vni {
            return match state.network_of_vni(vni) {
                None => Ok(vni),
                Some(_) => Err(ApiError::bad_request(format!(
                    "VXLAN {vni} is that of another network: name another one in {VXLAN_OPTION}, or leave the option out"
                ))),
            };
        }
        let mut vnis = VNIS;
        vnis.find(|vni| state.network_of_vni(*vni).is_none())
            .ok_or_else(|| ApiError::bad_request("all VXLANs are taken: remove networks that no service uses"))
    }
}

/// The cluster's port; what is no port number comes from a hand-made state.
fn data_port(overlay: &OverlaySettings) -> Result<u16, ApiError> {
    let port = overlay.data_path_port_or_default();
    u16::try_from(port).map_err(|_| ApiError::bad_request(format!("the data path port {port} is no port")))
}

fn refuse_reserved(request: &NetworkRequest) -> Result<(), ApiError> {
    let name = request.name.as_str();
    if name == "default" || PREDEFINED_NETWORKS.contains(&name) {
        return Err(ApiError::forbidden(format!("operation is not permitted on predefined {name} network")));
    }
    match RESERVED_LABELS.iter().find(|label| request.labels.contains_key(**label)) {
        None => Ok(()),
        Some(label) => Err(ApiError::forbidden(format!(
            "label {label} is for internally created predefined networks and cannot be applied by users"
        ))),
    }
}

/// Refuses kinds of networks that a swarm of this version has not.
fn refuse_unavailable(request: &NetworkRequest) -> Result<(), ApiError> {
    let NetworkRequest { driver, scope, .. } = request;
    if !matches!(driver.as_str(), "" | OVERLAY_DRIVER) {
        return Err(ApiError::not_implemented(format!(
            "network driver '{driver}' is not available for networks of the swarm: take {OVERLAY_DRIVER}, or make a network \
             of that driver on each node, without the scope {SWARM_SCOPE}"
        )));
    }
    if !matches!(scope.as_str(), "" | SWARM_SCOPE) {
        return Err(ApiError::bad_request(format!(
            "scope '{scope}' does not fit the driver {OVERLAY_DRIVER}, whose networks span nodes: leave the scope out"
        )));
    }
    if request.ingress {
        return Err(ApiError::not_implemented(
            "published ports need no network, so that there is none to make for them: leave Ingress (--ingress) out",
        ));
    }
    if request.config_only {
        return Err(ApiError::not_implemented(format!(
            "a network that is only a configuration (--config-only) belongs to one node: leave the driver {OVERLAY_DRIVER} \
             and the scope {SWARM_SCOPE} out"
        )));
    }
    if let Some(from) = request.config_from.as_ref().filter(|from| !from.network.is_empty()) {
        return Err(ApiError::not_implemented(format!(
            "a network of the swarm takes no configuration from another network ('{}'): leave ConfigFrom (--config-from) out, \
             and name its subnet and its options",
            from.network
        )));
    }
    if request.enable_ipv4 == Some(false) {
        return Err(ApiError::not_implemented(
            "a network of the swarm without IPv4 addresses is not available: leave EnableIPv4 (--ipv4) out",
        ));
    }
    Ok(())
}

/// The options of the driver that say something.
#[derive(Default)]
struct Options {
    vni: Option<u32>,
    mtu: Option<u32>,
    has_v6: bool,
    encrypted: Option<bool>,
}

impl Options {
    fn read(given: &Labels) -> Result<Self, ApiError> {
        let mut options = Self::default();
        for (name, value) in given {
            match name.as_str() {
                VXLAN_OPTION => options.vni = Some(read_vni(value)?),
                MTU_OPTION => options.mtu = Some(read_mtu(value)?).filter(|mtu| *mtu > 0),
                IPV6_OPTION => options.has_v6 = parse_bool(IPV6_OPTION, Some(value))?,
                // Docker takes the option without a value for one that is set.
                ENCRYPTED_OPTION => {
                    options.encrypted = Some(value.is_empty() || parse_bool(ENCRYPTED_OPTION, Some(value))?);
                }
                _ => {
                    return Err(ApiError::not_implemented(format!(
                        "network option '{name}' is not available: possible are {ENCRYPTED_OPTION}, {MTU_OPTION} and {VXLAN_OPTION}"
                    )));
                }
            }
        }
        Ok(options)
    }
}

fn read_vni(value: &str) -> Result<u32, ApiError> {
    value.parse().ok().filter(|vni| VNIS.contains(vni)).ok_or_else(|| {
        let (first, last) = VNIS.into_inner();
        ApiError::bad_request(format!("invalid {VXLAN_OPTION} '{value}': one number from {first} to {last}"))
    })
}

fn read_mtu(value: &str) -> Result<u32, ApiError> {
    value.parse().map_err(|_| ApiError::bad_request(format!("invalid {MTU_OPTION} '{value}': a number of bytes")))
}

fn read_subnets(ipam: &IpamView) -> Result<Vec<NetworkSubnet>, ApiError> {
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return Err(ApiError::not_implemented(format!(
            "IPAM driver '{}' is not available: the managers choose addresses, leave it out",
            ipam.driver
        )));
    }
    if let Some(option) = ipam.options.iter().flat_map(Labels::keys).next() {
        return Err(ApiError::not_implemented(format!("IPAM option '{option}' is not available: leave it out")));
    }
    ipam.config.iter().filter(|config| **config != IpamConfigView::default()).map(read_subnet).collect()
}

fn read_subnet(config: &IpamConfigView) -> Result<NetworkSubnet, ApiError> {
    if config.subnet.is_empty() {
        return Err(ApiError::bad_request(
            "a gateway, an IP range and auxiliary addresses need the subnet that they are in: name it",
        ));
    }
    let range = read_range("subnet", &config.subnet)?;
    let mut subnet = NetworkSubnet { range, ..NetworkSubnet::new(range) };
    if !config.gateway.is_empty() {
        subnet.gateway = read_addr("gateway", &config.gateway)?;
    }
    if !config.ip_range.is_empty() {
        let part = read_range("IP range", &config.ip_range)?;
        if part != part.trunc() {
            return Err(ApiError::bad_request(format!(
                "{part} is an address in an IP range: the IP range is {}",
                part.trunc()
            )));
        }
        subnet.ip_range = Some(part);
    }
    for (name, addr) in &config.aux_addresses {
        subnet.reserved.insert(name.clone(), read_addr(&format!("auxiliary address {name}"), addr)?);
    }
    Ok(subnet)
}

fn read_range(what: &str, text: &str) -> Result<IpNet, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!("invalid {what} '{text}': an address with a prefix length, such as 10.20.0.0/24"))
    })
}

fn read_addr(what: &str, text: &str) -> Result<IpAddr, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request(format!("invalid {what} '{text}': an IP address")))
}
