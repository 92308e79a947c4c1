//! Networks.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};
use swarm_model::{
    Cluster, INGRESS_NETWORK, Labels, NamedObject, NetworkContent, NetworkSubnet, OVERLAY_DRIVER, PREDEFINED_NETWORKS,
};

use super::{DriverView, Time, Version, is_default};
use crate::{ApiError, Filters};

/// The scope of the networks that belong to the swarm.
pub const SWARM_SCOPE: &str = "swarm";
/// The driver option that names the VXLAN of a network.
pub const VXLAN_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// The filters of a list of networks.
pub const NETWORK_FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

/// The label that Swarm gives to the networks that it makes for the engine's own networks.
const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";
/// The driver that chooses addresses; there is no other one.
const IPAM_DRIVER: &str = "default";

/// A network that is to be made: the body of `POST /networks/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkRequest {
    /// Name.
    pub name: String,
    /// Driver; empty for the default one.
    pub driver: String,
    /// `swarm` or `local`; empty for the one that fits the driver.
    pub scope: String,
    /// Whether it has IPv4 addresses; none means that it has.
    #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    /// Whether it has IPv6 addresses; none means that it has not.
    #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    /// Its addresses; none leaves them to the cluster.
    #[serde(rename = "IPAM", skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamView>,
    /// Whether its containers reach nothing but each other.
    pub internal: bool,
    /// Whether containers that are no tasks may be attached.
    pub attachable: bool,
    /// Whether it is to carry published ports.
    pub ingress: bool,
    /// Whether it is only the configuration of other networks.
    pub config_only: bool,
    /// The network whose configuration it takes.
    pub config_from: Option<ConfigReference>,
    /// Options of the driver.
    pub options: Labels,
    /// Labels.
    pub labels: Labels,
}

/// Response of `POST /networks/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateNetworkResponse {
    /// Id of the new network.
    pub id: String,
    /// For people; always empty.
    pub warning: String,
}

/// Response of `POST /networks/prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PruneNetworksResponse {
    /// The names of the networks that were removed; null if there are none.
    pub networks_deleted: Option<Vec<String>>,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkView {
    /// Name.
    pub name: String,
    /// Id.
    pub id: String,
    /// When it was made.
    pub created: Time,
    /// `swarm`, or `local` for a network of the engine.
    pub scope: String,
    /// Driver.
    pub driver: String,
    /// Whether it has IPv4 addresses.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Whether it has IPv6 addresses.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its addresses.
    #[serde(rename = "IPAM")]
    pub ipam: IpamView,
    /// Whether its containers reach nothing but each other.
    pub internal: bool,
    /// Whether containers that are no tasks may be attached.
    pub attachable: bool,
    /// Whether it stands for published ports.
    pub ingress: bool,
    /// The network whose configuration it took.
    pub config_from: ConfigReference,
    /// Whether it is only the configuration of other networks.
    pub config_only: bool,
    /// Its containers on this node, by their ids; null where nobody looked.
    pub containers: Option<BTreeMap<String, NetworkContainerView>>,
    /// Options of the driver.
    #[serde(deserialize_with = "or_default")]
    pub options: Labels,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: Labels,
    /// The nodes that run tasks in it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<NetworkPeerView>,
    /// The services in it, by their names; only when it was asked for with `verbose=true`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, NetworkServiceView>,
}

/// The addresses of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamView {
    /// The driver that chooses addresses.
    pub driver: String,
    /// Its options.
    pub options: Option<Labels>,
    /// The subnets.
    #[serde(deserialize_with = "or_default")]
    pub config: Vec<IpamConfigView>,
}

/// A subnet of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfigView {
    /// The subnet, in CIDR form.
    #[serde(skip_serializing_if = "is_default")]
    pub subnet: String,
    /// The part of it that containers get their addresses from, in CIDR form.
    #[serde(rename = "IPRange", skip_serializing_if = "is_default")]
    pub ip_range: String,
    /// The address of the bridge.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: String,
    /// Addresses that no container gets, by their names.
    #[serde(rename = "AuxiliaryAddresses", deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// Names a network that holds a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigReference {
    /// Its name; empty for none.
    pub network: String,
}

/// A container in a network, as the engine shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkContainerView {
    /// Name.
    pub name: String,
    /// Id of its place in the network.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Link-layer address.
    pub mac_address: String,
    /// Address with prefix length.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// Address with prefix length; empty if there is none.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// A node in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkPeerView {
    /// Host name.
    pub name: String,
    /// Address.
    #[serde(rename = "IP")]
    pub ip: String,
}

/// A service in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkServiceView {
    /// Its virtual address; empty if names stand for its tasks.
    #[serde(rename = "VIP")]
    pub vip: String,
    /// Its published ports, for people.
    pub ports: Vec<String>,
    /// Of Docker's own load balancer; always 0.
    #[serde(rename = "LocalLBIndex")]
    pub local_lb_index: u32,
    /// Its tasks that have an address.
    pub tasks: Vec<NetworkTaskView>,
}

/// A task in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkTaskView {
    /// Name.
    pub name: String,
    /// Id of its place in the network, which is that of the task.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Address.
    #[serde(rename = "EndpointIP")]
    pub endpoint_ip: String,
    /// `Host IP`: the address of its node.
    pub info: BTreeMap<String, String>,
}

/// A network with the addresses that a task has in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachmentView {
    /// The network.
    pub network: Arc<AttachedNetworkView>,
    /// The addresses with their prefix lengths.
    pub addresses: Vec<String>,
}

/// A network as tasks show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AttachedNetworkView {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Log index of the last change.
    pub version: Version,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// What the user asked for.
    pub spec: NetworkSpecView,
    /// The driver with the options that it works with.
    pub driver_state: DriverView,
    /// Its addresses.
    #[serde(rename = "IPAMOptions")]
    pub ipam_options: IpamOptionsView,
}

/// The spec of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSpecView {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// The driver with the options that the user gave.
    pub driver_configuration: DriverView,
    /// Whether it has IPv6 addresses.
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "is_default")]
    pub ipv6_enabled: bool,
    /// Whether its containers reach nothing but each other.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// Whether containers that are no tasks may be attached.
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    /// The addresses that the user asked for.
    #[serde(rename = "IPAMOptions")]
    pub ipam_options: IpamOptionsView,
    /// Always `swarm`.
    pub scope: String,
}

/// The addresses of a network, as tasks show them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamOptionsView {
    /// The driver that chooses addresses.
    pub driver: DriverView,
    /// The subnets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<IpamRangeView>,
}

/// A subnet of a network, as tasks show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamRangeView {
    /// The subnet, in CIDR form.
    #[serde(skip_serializing_if = "is_default")]
    pub subnet: String,
    /// The part of it that containers get their addresses from, in CIDR form.
    #[serde(skip_serializing_if = "is_default")]
    pub range: String,
    /// The address of the bridge.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: String,
}

/// Go writes null for an empty list or map.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl NetworkView {
    /// Shows a network of the swarm.
    pub fn new(object: &NamedObject, content: &NetworkContent) -> Self {
        Self {
            name: object.name.clone(),
            id: object.id.to_string(),
            created: object.created_at.into(),
            scope: SWARM_SCOPE.into(),
            driver: OVERLAY_DRIVER.into(),
            enable_ipv4: has_family(content, true),
            enable_ipv6: has_family(content, false),
            ipam: IpamView::new(content.subnets.iter().map(IpamConfigView::from).collect()),
            internal: content.internal,
            attachable: content.attachable,
            options: driver_options(content),
            labels: object.labels.clone(),
            ..Self::default()
        }
    }

    /// The network `ingress`, which stands for published ports. It needs no addresses, and has the id of the cluster.
    pub fn ingress(cluster: &Cluster) -> Self {
        Self {
            name: INGRESS_NETWORK.into(),
            id: cluster.id.to_string(),
            created: cluster.created_at.into(),
            scope: SWARM_SCOPE.into(),
            driver: OVERLAY_DRIVER.into(),
            enable_ipv4: true,
            ipam: IpamView::new(Vec::new()),
            ingress: true,
            ..Self::default()
        }
    }

    /// A network that every engine has, as services name it. Its id is its name.
    pub fn predefined(cluster: &Cluster, name: &str) -> Self {
        Self {
            name: name.into(),
            id: name.into(),
            created: cluster.created_at.into(),
            scope: SWARM_SCOPE.into(),
            driver: if name == "none" { "null" } else { name }.into(),
            enable_ipv4: true,
            ipam: IpamView::new(Vec::new()),
            labels: [(PREDEFINED_LABEL.into(), "true".into())].into(),
            ..Self::default()
        }
    }

    /// Whether a list that is filtered so shows it. `is_used` says whether somebody uses it.
    ///
    /// # Errors
    /// 400: a filter has a value that it cannot have.
    pub fn matches(&self, filters: &Filters, is_used: bool) -> Result<bool, ApiError> {
        let is_builtin = self.ingress || PREDEFINED_NETWORKS.contains(&self.name.as_str());
        let is_dangling = !is_builtin && !is_used;
        filters.check_values("type", &["builtin", "custom"])?;
        filters.check_values("dangling", &["0", "1", "false", "true"])?;
        let dangling = if is_dangling { ["1", "true"] } else { ["0", "false"] };
        Ok(filters.has("driver", &self.driver)
            && filters.has_match("id", &self.id)
            && filters.has_match("name", &self.name)
            && filters.has_labels("label", &self.labels)
            && filters.has("scope", &self.scope)
            && filters.has("type", if is_builtin { "builtin" } else { "custom" })
            && dangling.iter().any(|value| filters.has("dangling", value)))
    }
}

fn has_family(content: &NetworkContent, is_v4: bool) -> bool {
    content.subnets.iter().any(|subnet| subnet.range.addr().is_ipv4() == is_v4)
}

/// The options of a driver, with those that the cluster chose.
fn driver_options(content: &NetworkContent) -> Labels {
    let mut options = content.options.clone();
    options.insert(VXLAN_OPTION.into(), content.vni.to_string());
    options
}

impl IpamView {
    fn new(config: Vec<IpamConfigView>) -> Self {
        Self { driver: IPAM_DRIVER.into(), options: None, config }
    }
}

impl From<&NetworkSubnet> for IpamConfigView {
    fn from(subnet: &NetworkSubnet) -> Self {
        Self {
            subnet: subnet.range.to_string(),
            ip_range: subnet.ip_range.map(|part| part.to_string()).unwrap_or_default(),
            gateway: subnet.gateway.to_string(),
            aux_addresses: subnet.reserved.iter().map(|(name, addr)| (name.clone(), addr.to_string())).collect(),
        }
    }
}

impl From<&NetworkSubnet> for IpamRangeView {
    fn from(subnet: &NetworkSubnet) -> Self {
        let IpamConfigView { subnet, ip_range, gateway, .. } = subnet.into();
        Self { subnet, range: ip_range, gateway }
    }
}

impl AttachedNetworkView {
    /// Shows a network of the swarm.
    pub fn new(object: &NamedObject, content: &NetworkContent) -> Self {
        let driver = |name: &str, options| DriverView { name: name.into(), options };
        let ipam_options = |subnets: &mut dyn Iterator<Item = &NetworkSubnet>| IpamOptionsView {
            driver: driver(IPAM_DRIVER, Labels::new()),
            configs: subnets.map(IpamRangeView::from).collect(),
        };
        Self {
            id: object.id.to_string(),
            version: Version { index: object.version },
            created_at: object.created_at.into(),
            updated_at: object.updated_at.into(),
            spec: NetworkSpecView {
                name: object.name.clone(),
                labels: object.labels.clone(),
                driver_configuration: driver(OVERLAY_DRIVER, content.options.clone()),
                ipv6_enabled: has_family(content, false),
                internal: content.internal,
                attachable: content.attachable,
                ipam_options: ipam_options(&mut content.subnets.iter().filter(|subnet| !subnet.is_chosen)),
                scope: SWARM_SCOPE.into(),
            },
            driver_state: driver(OVERLAY_DRIVER, driver_options(content)),
            ipam_options: ipam_options(&mut content.subnets.iter()),
        }
    }
}
