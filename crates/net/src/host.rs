//! The links of this host: the devices of networks, their bridges, and the ends of containers on these.

mod queue;
pub(crate) mod tend;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use imbl::OrdMap;
use ipnet::IpNet;
use rustix::io::Errno;
use swarm_model::ObjectId;

pub(crate) use self::queue::ToCaller;
use crate::{
    claim::{Claim, Waiting, device_name, numbers_of_tap, tap_name},
    links::{self, Change, Link, Vxlan},
    netlink::{Part, Socket},
    peers::{self, Entries},
    protocol::{Configuration, LocalNetwork},
    reports::About,
    routes,
    state::{Network, State},
    tap,
};

/// Kinds of events.
pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const DELETED_LINK: u16 = 17;
pub(crate) const NEW_NEIGHBOUR: u16 = 28;
pub(crate) const DELETED_NEIGHBOUR: u16 = 29;

/// The end of a container's link on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) network: ObjectId,
    /// Its index on this host.
    pub(crate) outer: u32,
    /// The index of the other end, in the container.
    pub(crate) inner: u32,
}

/// The ends of the containers of this node, by the ids of these.
pub(crate) type Ends = BTreeMap<String, Vec<End>>;

/// The links of this host.
#[derive(Debug)]
pub(crate) struct Host {
    socket: Socket,
    devices: BTreeMap<ObjectId, Device>,
    /// The bridges that were made again here: the engine does not know them as its own, and leaves them.
    remade: BTreeMap<ObjectId, String>,
    links: Vec<Link>,
    /// Whether links may be others than those that were found last.
    is_in_doubt: bool,
    /// Whether peers came or left since the sizes of packets were checked.
    has_other_peers: bool,
    kinds: Kinds,
    /// Callers that want a queue of the TAP device of a network.
    callers: Vec<(ObjectId, ToCaller)>,
}

/// The kinds of devices that there can be; for each one that cannot, the reason.
#[derive(Clone, Debug)]
pub(crate) struct Kinds {
    /// For networks that are not encrypted.
    pub(crate) vxlan: Result<(), String>,
    /// For encrypted ones.
    pub(crate) tap: Result<(), String>,
}

/// The right to a device.
#[derive(Debug)]
enum Right {
    Own(Claim),
    /// Another process of this host has it.
    Another(Option<Waiting>),
}

/// The device of a network.
#[derive(Debug)]
struct Device {
    right: Right,
    vxlan: Vxlan,
    /// Whether it is a TAP device, which has the numbers of the network's VXLAN.
    is_tap: bool,
    alias: String,
    /// Its index; none before it was found or made.
    index: Option<u32>,
    /// The entries that the kernel has; none when they have to be looked at.
    entries: Option<Entries>,
    /// The peers that these are for.
    peers: OrdMap<Vec<IpAddr>, IpAddr>,
}

fn alias(configuration: &Configuration) -> String {
    format!("swarmd:{}", configuration.cluster)
}

fn vxlan_of(configuration: &Configuration, network: &LocalNetwork) -> Vxlan {
    Vxlan { id: network.vni, port: network.data_port, local: configuration.data_addr }
}

impl Device {
    fn new(configuration: &Configuration, network: &LocalNetwork) -> Self {
        Self {
            right: Right::Another(None),
            vxlan: vxlan_of(configuration, network),
            is_tap: network.encrypted,
            alias: alias(configuration),
            index: None,
            entries: None,
            peers: OrdMap::new(),
        }
    }

    fn name(&self) -> String {
        let name = if self.is_tap { tap_name } else { device_name };
        name(self.vxlan.id, self.vxlan.port)
    }

    /// Whether this process has the right to it. Tries to get it.
    fn claim(&mut self) -> io::Result<bool> {
        let (vni, port) = (self.vxlan.id, self.vxlan.port);
        if let Right::Another(waiting) = &mut self.right {
            if let Some(claim) = Claim::take(vni, port)? {
                (self.right, self.entries) = (Right::Own(claim), None);
                tracing::info!("this process has the device {} from now on", self.name());
                return Ok(true);
            }
            if !waiting.as_ref().is_some_and(Waiting::holds) {
                *waiting = match Waiting::begin(vni, port) {
                    Ok(begun) => Some(begun),
                    Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(e),
                    // The right has become free: it is tried for again.
                    Err(_) => None,
                };
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// The same when the node is leaving: a right that cannot be got is somebody else's.
    fn has_right(&mut self) -> bool {
        self.claim().unwrap_or(false)
    }

    /// Whether the process of another node waits for the right that this process has.
    fn is_wanted_elsewhere(&self) -> bool {
        matches!(&self.right, Right::Own(claim) if claim.is_wanted())
    }

    /// Whether a link with its name is that of the cluster. A process may have died before it gave the alias, or is about to
    /// give it: the process of another node of this host, whose data address is another one.
    fn is_ours(&self, link: &Link) -> bool {
        match &link.alias {
            Some(alias) => *alias == self.alias,
            None if self.is_tap => link.is_tun,
            None => link.vxlan.is_some_and(|found| (found.id, found.port) == (self.vxlan.id, self.vxlan.port)),
        }
    }

    /// Says that another program has the number.
    fn collision(&self, link: Option<&Link>) -> String {
        let Vxlan { id, port, .. } = self.vxlan;
        if self.is_tap {
            return format!("the name {} is that of a device of another program; remove that device", self.name());
        }
        let user = match link.and_then(|link| link.alias.as_deref()) {
            Some(alias) if alias.starts_with("swarmd:") => format!("another cluster on this host ({alias})"),
            _ => "another program (Docker Swarm?)".to_owned(),
        };
        format!("VXLAN id {id} on port {port} is used by {user}; choose --data-path-port")
    }
}

/// Says why a device cannot be made, for people.
pub(crate) fn describe(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => "overlay networks: no permission to make network devices (needs \
                                              CAP_NET_ADMIN); tasks with networks are not placed here"
            .to_owned(),
        Some(Errno::OPNOTSUPP) => "kernel has no VXLAN: networks use the slower user-space link".to_owned(),
        _ => format!("overlay networks: the kernel refused a change: {error}"),
    }
}

/// The same of a TAP device.
pub(crate) fn describe_tap(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "encrypted networks: no permission to make TAP devices (needs CAP_NET_ADMIN and /dev/net/tun)".to_owned()
        }
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
            format!("encrypted networks: this node has no TAP devices (/dev/net/tun: {error})")
        }
        _ => format!("encrypted networks: the kernel refused a TAP device (/dev/net/tun: {error})"),
    }
}

impl Host {
    /// Of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open(kinds: Kinds) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::open(Part::Route)?,
            devices: BTreeMap::new(),
            remade: BTreeMap::new(),
            links: Vec::new(),
            is_in_doubt: true,
            has_other_peers: false,
            kinds,
            callers: Vec::new(),
        })
    }

    /// The links may be others.
    pub(crate) fn doubt_links(&mut self) {
        self.is_in_doubt = true;
    }

    /// Links and entries may be others.
    pub(crate) fn doubt_all(&mut self) {
        self.is_in_doubt = true;
        self.devices.values_mut().for_each(|device| device.entries = None);
    }

    /// Takes an event of the kernel.
    pub(crate) fn note(&mut self, kind: u16, body: &[u8]) {
        match kind {
            // Of many kinds of links; a look costs little.
            NEW_LINK | DELETED_LINK => self.is_in_doubt = true,
            NEW_NEIGHBOUR | DELETED_NEIGHBOUR => {
                let index = peers::device_of(body);
                for device in self.devices.values_mut().filter(|device| index.is_some() && device.index == index) {
                    if device.entries.as_ref().is_some_and(|entries| entries.miss(kind == NEW_NEIGHBOUR, body)) {
                        device.entries = None;
                    }
                }
            }
            _ => {}
        }
    }

    /// Makes the links as they are to be. Returns what does not work.
    pub(crate) fn settle(&mut self, state: &State, ends: &Ends) -> BTreeMap<About, String> {
        let mut warnings = BTreeMap::new();
        let Some(configuration) = &state.configuration else { return warnings };
        if self.is_in_doubt {
            match links::links(&mut self.socket) {
                Ok(found) => (self.links, self.is_in_doubt) = (found, false),
                Err(e) => {
                    warnings.insert(About::Kernel, describe(&e));
                    return warnings;
                }
            }
        }
        self.leave(state, configuration);
        for (id, network) in &state.networks {
            let settled = self.settle_network(*id, network, configuration, ends);
            if let Some(text) = settled.unwrap_or_else(|e| Some(describe(&e))) {
                warnings.insert(About::Device(*id), text);
                self.is_in_doubt = true;
            }
        }
        self.answer_callers();
        warnings
    }

    /// Removes the devices that are not wanted any more.
    fn leave(&mut self, state: &State, configuration: &Configuration) {
        let is_wanted = |id: &ObjectId, device: &Device| {
            let network = state.networks.get(id).filter(|network| network.local.has_device);
            network.is_some_and(|network| {
                device.vxlan == vxlan_of(configuration, &network.local)
                    && device.is_tap == network.local.encrypted
                    && device.alias == alias(configuration)
            })
        };
        let left: Vec<_> =
            self.devices.iter().filter(|(id, device)| !is_wanted(id, device)).map(|(id, _)| *id).collect();
        for id in left {
            let Some(mut device) = self.devices.remove(&id) else { continue };
            // Another node of this host that waits for the right goes on with the device. One that had the right may have left it
            // to this node a moment ago: the last node removes the device.
            if let Right::Another(waiting) = &mut device.right {
                *waiting = None;
            }
            if device.has_right() && !device.is_wanted_elsewhere() {
                self.remove_link(&device);
            }
        }
        let left: Vec<_> = self.remade.keys().filter(|id| !state.networks.contains_key(*id)).copied().collect();
        for bridge in left.iter().filter_map(|id| self.remade.remove(id)).collect::<Vec<_>>() {
            self.remove_bridge(&bridge);
        }
    }

    /// Removes a bridge that was made again here, unless it has ports.
    fn remove_bridge(&mut self, name: &str) {
        if let Err(e) = self.look_again() {
            tracing::warn!("cannot remove the bridge {name}: {e}");
        }
        let Some(index) = self.link(name).map(|link| link.index) else { return };
        if !self.links.iter().any(|link| link.bridge == Some(index))
            && let Err(e) = links::remove(&mut self.socket, index)
        {
            tracing::warn!("cannot remove the bridge {name}: {e}");
        }
        self.is_in_doubt = true;
    }

    fn remove_link(&mut self, device: &Device) {
        let name = device.name();
        if let Some(link) = self.links.iter().find(|link| link.name == name && device.is_ours(link)) {
            if let Err(e) = links::remove(&mut self.socket, link.index) {
                tracing::warn!("cannot remove the device {name}: {e}");
            }
            self.is_in_doubt = true;
        }
    }

    fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    fn look_again(&mut self) -> io::Result<()> {
        self.links = links::links(&mut self.socket)?;
        Ok(())
    }

    /// Returns what does not work.
    fn settle_network(
        &mut self,
        id: ObjectId,
        network: &Network,
        configuration: &Configuration,
        ends: &Ends,
    ) -> io::Result<Option<String>> {
        let ends: Vec<_> = ends.values().flatten().filter(|end| end.network == id).copied().collect();
        let Some(bridge) = self.settle_bridge(&network.local, &alias(configuration), &ends)? else { return Ok(None) };
        if !network.local.has_device {
            return Ok(None);
        }
        // An encrypted network never gets a VXLAN device: its frames would go in clear text.
        let kind = if network.local.encrypted { &self.kinds.tap } else { &self.kinds.vxlan };
        if let Err(missing) = kind {
            return Ok(Some(missing.clone()));
        }
        // Taken out while the links are changed, and put back in any case.
        let mut device = self.devices.remove(&id).unwrap_or_else(|| Device::new(configuration, &network.local));
        let settled = self.settle_device(&mut device, network, bridge);
        self.devices.insert(id, device);
        settled
    }

    /// The index of a network's bridge; none while it is not there. The engine makes it; one that is removed under
    /// containers is made again, with the ends of these.
    fn settle_bridge(&mut self, network: &LocalNetwork, alias: &str, ends: &[End]) -> io::Result<Option<u32>> {
        let is_of = |end: &End, link: &Link| link.index == end.outer && link.is_veth && link.peer == Some(end.inner);
        if self.link(&network.bridge).is_none() {
            // Containers that have ended since have no ends any more.
            if !ends.iter().any(|end| self.links.iter().any(|link| is_of(end, link))) {
                return Ok(None);
            }
            tracing::warn!("the bridge {} of the network {} was removed: it is made again", network.bridge, network.id);
            let made = Change::default().name(&network.bridge).mtu(network.mtu).up().make_bridge(&mut self.socket);
            if let Err(e) = made
                && e.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(e);
            }
            self.look_again()?;
            let Some(index) = self.link(&network.bridge).map(|link| link.index) else { return Ok(None) };
            Change::of(index).alias(alias).apply(&mut self.socket)?;
            self.look_again()?;
        }
        let Some(link) = self.link(&network.bridge) else { return Ok(None) };
        let (bridge, is_remade) = (link.index, link.alias.as_deref() == Some(alias));
        if is_remade {
            self.remade.insert(network.id, network.bridge.clone());
            for subnet in &network.subnets {
                let addr = IpNet::new(subnet.gateway, subnet.range.prefix_len()).map_err(io::Error::other)?;
                match links::give(&mut self.socket, bridge, addr) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    given => given?,
                }
            }
        }
        for end in ends {
            let is_loose = |link: &&mut Link| is_of(end, link) && link.bridge != Some(bridge);
            if let Some(link) = self.links.iter_mut().find(is_loose) {
                Change::of(end.outer).bridge(bridge).up().apply(&mut self.socket)?;
                link.bridge = Some(bridge);
            }
        }
        Ok(Some(bridge))
    }

    fn settle_device(&mut self, device: &mut Device, network: &Network, bridge: u32) -> io::Result<Option<String>> {
        let name = device.name();
        let found = self.link(&name).cloned();
        let has_right = device.claim()?;
        if let Some(link) = &found
            && !device.is_ours(link)
        {
            return Ok(Some(device.collision(Some(link))));
        }
        if !has_right {
            return Ok(None);
        }
        let found = match found {
            Some(link) if !device.is_tap && link.vxlan != Some(device.vxlan) => {
                links::remove(&mut self.socket, link.index)?;
                None
            }
            found => found,
        };
        let mtu = network.local.mtu;
        let index = match found {
            Some(link) => {
                let is_settled = link.mtu == mtu
                    && link.bridge == Some(bridge)
                    && link.is_up
                    && link.alias.as_deref() == Some(&device.alias);
                if !is_settled {
                    let change = Change::of(link.index).alias(&device.alias).mtu(mtu).bridge(bridge).up();
                    change.apply(&mut self.socket)?;
                    self.is_in_doubt = true;
                }
                if device.index != Some(link.index) {
                    device.entries = None;
                }
                link.index
            }
            None if device.is_tap => {
                // The device is persistent, and stays when this queue closes. The data plane asks for a queue of its own.
                tap::open(&name, true).map_err(|e| io::Error::other(describe_tap(&e)))?;
                self.look_again()?;
                let index = self.link(&name).map(|link| link.index).ok_or(io::ErrorKind::NotFound)?;
                Change::of(index).alias(&device.alias).mtu(mtu).bridge(bridge).up().apply(&mut self.socket)?;
                self.is_in_doubt = true;
                index
            }
            None => {
                let made = Change::default().name(&name).mtu(mtu).bridge(bridge).up();
                match made.make_vxlan(&mut self.socket, device.vxlan) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                        self.look_again()?;
                        let is_there = |link: &&Link| {
                            link.vxlan.is_some_and(|v| v.id == device.vxlan.id && v.port == device.vxlan.port)
                        };
                        return Ok(Some(device.collision(self.links.iter().find(is_there))));
                    }
                    made => made?,
                }
                self.look_again()?;
                let index = self.link(&name).map(|link| link.index).ok_or(io::ErrorKind::NotFound)?;
                Change::of(index).alias(&device.alias).apply(&mut self.socket)?;
                device.entries = Some(Entries::default());
                // The alias is seen at the next look.
                self.is_in_doubt = true;
                device.peers = OrdMap::new();
                index
            }
        };
        device.index = Some(index);
        // A TAP device needs no entries: the data plane finds the node of a frame.
        if !device.is_tap {
            self.settle_entries(device, index, &network.peers)?;
        }
        Ok(None)
    }

    fn settle_entries(
        &mut self,
        device: &mut Device,
        index: u32,
        peers: &OrdMap<Vec<IpAddr>, IpAddr>,
    ) -> io::Result<()> {
        let found = match device.entries.take() {
            Some(entries) if device.peers.ptr_eq(peers) => {
                device.entries = Some(entries);
                return Ok(());
            }
            Some(entries) => entries,
            None => Entries::look(&mut self.socket, index)?,
        };
        let wanted = Entries::of(peers.iter());
        found.become_these(&mut self.socket, index, &wanted)?;
        device.entries = Some(wanted);
        self.has_other_peers = true;
        device.peers = peers.clone();
        Ok(())
    }

    /// Whether sizes of packets may be others than at the last check.
    pub(crate) fn has_other_peers(&self) -> bool {
        self.has_other_peers
    }

    /// The networks whose packets are too large for the way to a node.
    pub(crate) fn check_sizes(&mut self, state: &State) -> BTreeMap<About, String> {
        self.has_other_peers = false;
        let mut warnings = BTreeMap::new();
        for (id, device) in &self.devices {
            let Some(network) = state.networks.get(id) else { continue };
            let hosts: BTreeSet<_> = device.peers.values().copied().collect();
            let found = hosts.into_iter().find_map(|at| {
                let mtu = routes::mtu_to(&mut self.socket, at, &self.links).ok().flatten()?;
                routes::too_small(network.local.mtu, mtu, at)
            });
            warnings.extend(found.map(|text| (About::Size(*id), text)));
        }
        warnings
    }

    /// A route that a subnet overlaps.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn overlap(&mut self, subnet: IpNet, state: &State) -> io::Result<Option<String>> {
        let bridges: Vec<_> = state.networks.values().map(|network| network.local.bridge.clone()).collect();
        routes::overlap(&mut self.socket, subnet, &bridges)
    }

    /// Removes the devices of the cluster that no network has: an earlier process of this node left them.
    pub(crate) fn remove_strays(&mut self, configuration: &Configuration) -> io::Result<()> {
        self.look_again()?;
        let (alias, names): (_, BTreeSet<_>) =
            (alias(configuration), self.devices.values().map(Device::name).collect());
        for link in &self.links {
            let numbers = link.vxlan.map(|vxlan| (vxlan.id, vxlan.port)).or_else(|| numbers_of_tap(&link.name));
            let Some((vni, port)) = numbers.filter(|_| link.alias.as_ref() == Some(&alias)) else { continue };
            // Another process of this host may have it.
            if !names.contains(&link.name) && Claim::take(vni, port)?.is_some() {
                links::remove(&mut self.socket, link.index)?;
            }
        }
        self.is_in_doubt = true;
        Ok(())
    }

    /// Removes all devices, but for those that another process waits for.
    pub(crate) fn remove_all(&mut self) {
        if let Err(e) = self.look_again() {
            tracing::warn!("cannot remove the devices of this node: {e}");
        }
        for device in std::mem::take(&mut self.devices).into_values() {
            if let Right::Own(claim) = &device.right
                && !claim.is_wanted()
            {
                self.remove_link(&device);
            }
        }
        for bridge in std::mem::take(&mut self.remade).into_values() {
            self.remove_bridge(&bridge);
        }
    }
}
