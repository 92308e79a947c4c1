//! The messages between swarmd, its data plane and `swarmd net`, over a Unix socket that `swarmd net` listens on
//! (`swarm_wire::channel`).
//!
//! `swarmd net` greets with [`FromNet::Hello`]. The first message to it is [`ToNet::Hello`], which names the caller.
//!
//! swarmd then says everything that it knows: its configuration, each network and then its peers, services and refused
//! addresses, each container; at last [`ToNet::Complete`]. After that it says changes. When a new connection of swarmd
//! comes, the old one is closed. The words of swarmd hold while it is away.
//!
//! The data plane asks for one thing on each connection: the sockets of a container's resolver
//! ([`crate::resolver_sockets`]), or a queue of the device of an encrypted network ([`crate::switch_queue`]).

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use swarm_model::{NodeId, ObjectId, ServiceId};
use swarm_wire::networks::Subnet;

/// Version of these messages. Fields and messages may be added without a new one.
pub const NET_PROTOCOL: u16 = 1;
/// The UDP port of VXLAN.
pub const DATA_PORT: u16 = 4789;
/// The folder where the Docker Engine shows the network namespaces of its containers.
pub const SANDBOXES: &str = "/run/docker/netns";

/// The address that containers ask for names, of each container's own.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// A message to `swarmd net`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToNet {
    /// The first message of each connection.
    Hello {
        /// [`NET_PROTOCOL`].
        protocol: u16,
        /// The caller.
        caller: Caller,
    },
    /// The first message of swarmd after its greeting; again when it changes.
    Configure(Configuration),
    /// All is said. Networks, their content, and containers of earlier connections that this one has not put are
    /// removed.
    Complete,
    /// The node takes part in a network. The device waits for the bridge, which the engine makes. What was said of the
    /// network's peers and services stays.
    PutNetwork(LocalNetwork),
    /// The node has left a network: its device is removed. The bridge is the engine's.
    RemoveNetwork(ObjectId),
    /// The way to a container of another node. An encrypted network needs none: the data plane knows it.
    PutPeer {
        /// The network, which was put before.
        network: ObjectId,
        /// The addresses of the container: at most one of each address family. They name the peer.
        addrs: Vec<IpAddr>,
        /// The data address of its node.
        at: IpAddr,
    },
    /// A container of another node is gone.
    RemovePeer {
        /// The network.
        network: ObjectId,
        /// The same addresses as it was put with.
        addrs: Vec<IpAddr>,
    },
    /// The virtual addresses of a service, and the tasks that new connections go to.
    PutService {
        /// The network, which was put before.
        network: ObjectId,
        /// The service.
        service: ServiceId,
        /// Its virtual addresses.
        virtual_addrs: Vec<IpAddr>,
        /// The addresses of its tasks. A virtual address without a task of its address family refuses connections.
        backends: Vec<IpAddr>,
    },
    /// The virtual addresses of a service are gone.
    RemoveService {
        /// The network.
        network: ObjectId,
        /// The service.
        service: ServiceId,
    },
    /// A container ended without a stop in order: connections to it are reset.
    PutGone {
        /// The network, which was put before.
        network: ObjectId,
        /// Its address.
        addr: IpAddr,
    },
    /// An address may be used again.
    RemoveGone {
        /// The network.
        network: ObjectId,
        /// The address.
        addr: IpAddr,
    },
    /// A container that is to be started, or that runs.
    PutContainer(LocalContainer),
    /// A container has ended, or does not concern this node any more.
    RemoveContainer(String),
    /// Answered by [`FromNet::Synced`] when the kernel has what was said before: devices with their peers, and the
    /// tables of the containers whose namespaces are there. Of what the kernel refused a warning or
    /// [`FromNet::NotReady`] tells.
    Sync(u64),
    /// Asks whether a subnet may be used on this host: answered by [`FromNet::Subnet`].
    CheckSubnet(IpNet),
    /// Ends the process.
    Stop {
        /// Whether devices and tables go with it: the node has left its cluster.
        remove: bool,
    },
}

/// A caller of `swarmd net`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// swarmd, which says how things are to be.
    Swarmd,
    /// The data plane, which wants the sockets of a container's resolver.
    Resolver {
        /// The container, as in [`LocalContainer::id`].
        container: String,
    },
    /// The data plane, which carries the frames of an encrypted network between nodes.
    Switch {
        /// The network, as in [`LocalNetwork::id`].
        network: ObjectId,
    },
}

/// The place of a node in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The node.
    pub node: NodeId,
    /// The cluster: devices carry `swarmd:` and this text as their alias.
    pub cluster: String,
    /// The address of this host for packets of other nodes.
    pub data_addr: IpAddr,
    /// The folder where the engine shows the network namespaces of its containers.
    #[serde(default = "sandboxes")]
    pub sandboxes: PathBuf,
}

fn data_port() -> u16 {
    DATA_PORT
}

fn sandboxes() -> PathBuf {
    SANDBOXES.into()
}

/// A network as the node has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNetwork {
    /// The network.
    pub id: ObjectId,
    /// The number of its VXLAN, below 2^24.
    pub vni: u32,
    /// The UDP port of packets between nodes: the same on each node of the cluster.
    #[serde(default = "data_port")]
    pub data_port: u16,
    /// The name of its bridge, at most 15 bytes.
    pub bridge: String,
    /// The largest packet of its containers, in bytes.
    pub mtu: u32,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// Whether it reaches other nodes by a device.
    pub has_device: bool,
    /// Whether that is a TAP device, whose frames the data plane encrypts; else it is a VXLAN device.
    #[serde(default)]
    pub encrypted: bool,
}

/// A container of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalContainer {
    /// Its id at the engine, or any other name that tells it from the others.
    pub id: String,
    /// Its addresses, and the network of each.
    pub addrs: Vec<(ObjectId, IpAddr)>,
    /// Its network namespace: a file of [`Configuration::sandboxes`], or `/proc/<pid>/ns/net`. None before the start:
    /// it is found by its addresses as soon as it has one.
    pub sandbox: Option<PathBuf>,
}

/// A message of `swarmd net`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromNet {
    /// The first message.
    Hello {
        /// [`NET_PROTOCOL`].
        protocol: u16,
        /// Version of the program, for people.
        program: String,
        /// The parts of the kernel that it can use.
        abilities: Abilities,
    },
    /// The tables of a container are in its namespace: said for each new namespace, and to each new connection of
    /// swarmd.
    Ready {
        /// The container.
        container: String,
    },
    /// The tables of a container cannot be loaded. It is tried again.
    NotReady {
        /// The container.
        container: String,
        /// Why.
        reason: String,
    },
    /// Answer to [`ToNet::Sync`].
    Synced(u64),
    /// Answer to [`ToNet::CheckSubnet`].
    Subnet {
        /// The subnet.
        subnet: IpNet,
        /// A route of this host that overlaps it, such as `10.33.0.0/24 dev lan0`; or the reason why it cannot be told.
        overlap: Result<Option<String>, String>,
    },
    /// The warnings of this node, for people: all of them; said whenever they change.
    Warnings(Vec<NetWarning>),
    /// Answer to [`Caller::Resolver`]: two descriptors follow, of a UDP and of a TCP socket.
    Resolver,
    /// Answer to [`Caller::Switch`]: a descriptor follows, of a queue of the network's TAP device.
    Switch,
    /// The caller gets nothing. The connection ends.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Something that does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetWarning {
    /// The network that it is about, if it is about one.
    pub network: Option<ObjectId>,
    /// The thing that does not work, and the reason.
    pub text: String,
}

/// The parts of the kernel that can be used; for each one that cannot, the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// VXLAN devices: networks between nodes.
    pub vxlan: Result<(), String>,
    /// TAP devices: encrypted networks between nodes.
    pub tun: Result<(), String>,
    /// Tables of nftables: virtual addresses.
    pub nft: Result<(), String>,
    /// Network namespaces of containers can be entered: virtual addresses, resolvers.
    pub setns: Result<(), String>,
}
