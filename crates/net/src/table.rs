//! The tables of a container: virtual addresses, refused addresses, and the ports of its resolver.
//!
//! In the words of `nft`, for IPv4 (the table for IPv6 has no resolver):
//! ```text
//! table ip swarmd {
//!   map vips { type ipv4_addr : verdict; elements = { 10.20.0.250 : goto <network>-<service> } }
//!   map resolver { type inet_proto : inet_service; elements = { tcp : 40001, udp : 40002 } }
//!   set refused { type ipv4_addr; elements = { 10.20.0.9 } }
//!   chain out {
//!     type nat hook output priority -110; policy accept;
//!     ip daddr 127.0.0.11 th dport 53 dnat to :meta l4proto map @resolver
//!     ip daddr vmap @vips
//!   }
//!   chain <network>-<service> { dnat to numgen random mod 2 map { 0 : 10.20.0.112, 1 : 10.20.0.122 } }
//!   chain refuse {
//!     type filter hook output priority 0; policy accept;
//!     ip daddr @refused meta l4proto tcp reject with tcp reset
//!     ip daddr @refused reject with icmp type host-unreachable
//!   }
//! }
//! ```
//! Only new connections come by a chain for NAT, so that open ones stay with their task.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use crate::{
    conntrack::{self, Moved},
    netlink::Message,
    nft::{Batch, DataType, Family, Hook, Tables, Value, expression},
    protocol::RESOLVER,
    state::State,
};

/// The name of the tables.
const TABLE: &str = "swarmd";
const VIPS: &str = "vips";
const RESOLVER_PORTS: &str = "resolver";
const REFUSED: &str = "refused";
const OUT: &str = "out";
const REFUSE: &str = "refuse";
const HOOK_OUTPUT: u32 = 3;
/// Before Docker's own chain for names, which has -100.
const PRIORITY_OUT: i32 = -110;
const DNS: u16 = 53;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// How often changes are made anew because somebody else makes changes.
const CHANGE_TRIES: usize = 20;

/// The ports of a resolver, in the container's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResolverPorts {
    pub(crate) udp: u16,
    pub(crate) tcp: u16,
}

/// The content of a container's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    v4: Side,
    v6: Side,
    resolver: Option<ResolverPorts>,
}

/// The content for one address family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Side {
    /// By the names of their chains.
    services: BTreeMap<String, Service>,
    refused: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Service {
    vips: BTreeSet<IpAddr>,
    backends: BTreeSet<IpAddr>,
}

impl Table {
    /// Of a container in these networks.
    pub(crate) fn of(
        state: &State,
        networks: &BTreeSet<swarm_model::ObjectId>,
        resolver: Option<ResolverPorts>,
    ) -> Self {
        let mut table = Self { resolver, ..Self::default() };
        // Of two services with one virtual address, which there is for a moment at most, the first one has it.
        let mut taken = BTreeSet::new();
        for (id, network) in networks.iter().filter_map(|id| state.networks.get(id).map(|network| (id, network))) {
            for addr in &network.gone {
                table.side_of(addr).refused.insert(*addr);
            }
            for (service, record) in &network.services {
                let chain = format!("{id}-{service}");
                for is_v4 in [true, false] {
                    let of_family = |addrs: &[IpAddr]| -> BTreeSet<IpAddr> {
                        addrs.iter().copied().filter(|addr| addr.is_ipv4() == is_v4).collect()
                    };
                    let (mut vips, backends) = (of_family(&record.virtual_addrs), of_family(&record.backends));
                    vips.retain(|vip| taken.insert(*vip));
                    let side = if is_v4 { &mut table.v4 } else { &mut table.v6 };
                    match (vips.is_empty(), backends.is_empty()) {
                        (true, _) => {}
                        (false, true) => side.refused.extend(vips),
                        (false, false) => drop(side.services.insert(chain.clone(), Service { vips, backends })),
                    }
                }
            }
        }
        table
    }

    /// A table with each kind of rule, to try whether the kernel takes it.
    pub(crate) fn sample() -> Self {
        let [a, b] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        let service = Service { vips: [a].into(), backends: [b].into() };
        let v4 = Side { services: [("sample".to_owned(), service)].into(), refused: [b].into() };
        Self { v4, v6: Side::default(), resolver: Some(ResolverPorts { udp: 1, tcp: 1 }) }
    }

    fn side_of(&mut self, addr: &IpAddr) -> &mut Side {
        if addr.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    /// The flows of UDP that may have to begin anew after a change; before the first one it is not known which do.
    fn moved(before: Option<&Self>, wanted: &Self) -> Vec<Moved> {
        let empty = Self::default();
        let before = before.unwrap_or(&empty);
        let mut moved = Vec::new();
        for (before, after) in [(&before.v4, &wanted.v4), (&before.v6, &wanted.v6)] {
            for (chain, service) in &after.services {
                if before.services.get(chain) != Some(service) {
                    let Service { vips, backends } = service.clone();
                    moved.push(Moved { vips, backends });
                }
            }
            for (_, service) in before.services.iter().filter(|(chain, _)| !after.services.contains_key(*chain)) {
                moved.push(Moved { vips: service.vips.clone(), backends: BTreeSet::new() });
            }
        }
        moved
    }
}

fn bytes(addr: &IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn all_bytes<'a>(addrs: impl IntoIterator<Item = &'a IpAddr>) -> Vec<Vec<u8>> {
    addrs.into_iter().map(bytes).collect()
}

fn ports(resolver: Option<ResolverPorts>) -> Vec<(Vec<u8>, Value)> {
    let element = |protocol: u8, port: u16| (vec![protocol], Value::Bytes(port.to_be_bytes().to_vec()));
    resolver.iter().flat_map(|ports| [element(TCP, ports.tcp), element(UDP, ports.udp)]).collect()
}

/// A table without content.
fn skeleton(batch: &mut Batch<'_>, family: Family) {
    let addr = addr_type(family);
    batch.remove_table();
    batch.add_table();
    batch.add_set(VIPS, addr, Some(DataType::Verdict));
    batch.add_set(REFUSED, addr, None);
    batch.add_chain(OUT, Some(Hook { kind: "nat", hook: HOOK_OUTPUT, priority: PRIORITY_OUT }));
    batch.add_chain(REFUSE, Some(Hook { kind: "filter", hook: HOOK_OUTPUT, priority: 0 }));
    if family == Family::Ip {
        batch.add_set(RESOLVER_PORTS, DataType::Protocol, Some(DataType::Port));
        batch.add_rule(
            OUT,
            &[
                expression::destination(family),
                expression::is(&RESOLVER.octets()),
                expression::destination_port(),
                expression::is(&DNS.to_be_bytes()),
                expression::protocol(),
                expression::map(Some(RESOLVER_PORTS), 0),
                expression::to_port(family),
            ],
        );
    }
    batch.add_rule(OUT, &[expression::destination(family), expression::go_by(VIPS)]);
    let refused = || [expression::destination(family), expression::is_in(REFUSED)];
    let tcp = [expression::protocol(), expression::is(&[TCP]), expression::reset()];
    batch.add_rule(REFUSE, &[&refused()[..], &tcp].concat());
    batch.add_rule(REFUSE, &[&refused()[..], &[expression::unreachable(family)]].concat());
}

fn addr_type(family: Family) -> DataType {
    match family {
        Family::Ip => DataType::Ipv4,
        Family::Ip6 => DataType::Ipv6,
    }
}

/// The changes from one content to another.
fn change(batch: &mut Batch<'_>, family: Family, before: &Side, wanted: &Side) {
    let (old, new) = (&before.services, &wanted.services);
    let is_same_way = |chain: &String, vip: &IpAddr, services: &BTreeMap<String, Service>| {
        services.get(chain).is_some_and(|service| service.vips.contains(vip))
    };
    let ways = |services: &BTreeMap<String, Service>| -> Vec<(String, IpAddr)> {
        services.iter().flat_map(|(chain, s)| s.vips.iter().map(move |vip| (chain.clone(), *vip))).collect()
    };
    let removed: Vec<_> =
        ways(old).iter().filter(|(chain, vip)| !is_same_way(chain, vip, new)).map(|(_, vip)| bytes(vip)).collect();
    batch.remove_keys(VIPS, &removed);
    for chain in old.keys().filter(|chain| !new.contains_key(*chain)) {
        batch.flush_chain(chain);
        batch.remove_chain(chain);
    }
    for (chain, service) in new {
        match old.get(chain) {
            Some(before) if before.backends == service.backends => continue,
            Some(_) => batch.flush_chain(chain),
            None => batch.add_chain(chain, None),
        }
        let backends = (0_u32..).zip(&service.backends);
        // The kernel draws numbers in the order of bytes of this machine.
        let elements: Vec<_> =
            backends.map(|(n, addr)| (n.to_ne_bytes().to_vec(), Value::Bytes(bytes(addr)))).collect();
        let map = batch.add_anonymous_map(DataType::Integer, addr_type(family), &elements);
        let random = expression::random(elements.len() as u32);
        batch.add_rule(chain, &[random, expression::map(None, map), expression::to_address(family)]);
    }
    let added: Vec<_> = ways(new)
        .into_iter()
        .filter(|(chain, vip)| !is_same_way(chain, vip, old))
        .map(|(chain, vip)| (bytes(&vip), Value::Goto(chain)))
        .collect();
    batch.add_elements(VIPS, &added);
    batch.remove_keys(REFUSED, &all_bytes(before.refused.difference(&wanted.refused)));
    batch.add_keys(REFUSED, &all_bytes(wanted.refused.difference(&before.refused)));
}

fn change_ports(batch: &mut Batch<'_>, before: Option<ResolverPorts>, wanted: Option<ResolverPorts>) {
    if before != wanted {
        let keys = ports(before).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        batch.remove_keys(RESOLVER_PORTS, &keys);
        batch.add_elements(RESOLVER_PORTS, &ports(wanted));
    }
}

/// The tables of a namespace, as they were loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    tables: Tables,
    /// The content that the kernel has while the generation is this one.
    known: Option<(u32, Table)>,
    /// Whether there is a table for IPv6: only where it has content, for kernels without IPv6.
    has_v6: bool,
}

impl Loaded {
    /// Of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open() -> io::Result<Self> {
        let mut tables = Tables::open()?;
        let has_v6 = tables.has(Family::Ip6, TABLE)?;
        Ok(Self { tables, known: None, has_v6 })
    }

    /// The ports that an earlier process set for the resolver: its sockets may be in use.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn resolver_ports(&mut self) -> io::Result<Option<ResolverPorts>> {
        let (mut udp, mut tcp) = (None, None);
        for (key, value) in self.tables.elements(Family::Ip, TABLE, RESOLVER_PORTS)? {
            let port = value.first_chunk().map(|port| u16::from_be_bytes(*port));
            match key.first() {
                Some(&UDP) => udp = port,
                Some(&TCP) => tcp = port,
                _ => {}
            }
        }
        Ok(udp.zip(tcp).map(|(udp, tcp)| ResolverPorts { udp, tcp }))
    }

    /// Whether nobody changed anything since it was loaded. It takes some microseconds.
    pub(crate) fn is_untouched(&mut self) -> bool {
        let generation = self.tables.generation();
        self.tables.socket.rest();
        matches!((&self.known, generation), (Some((known, _)), Ok(found)) if *known == found)
    }

    /// Makes the kernel have this content: by the differences, if nobody else changed anything since the last load.
    /// Flows of UDP that go to no task of their service begin anew.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn load(&mut self, wanted: &Table) -> io::Result<()> {
        for _ in 0..CHANGE_TRIES {
            let generation = self.tables.generation()?;
            let before = self.known.as_ref().filter(|(known, _)| *known == generation).map(|(_, table)| table);
            let has_v6 = wanted.v6 != Side::default() || self.has_v6;
            let messages = self.messages(before, wanted, has_v6);
            if messages.is_empty() {
                return Ok(());
            }
            match self.tables.change(generation, messages) {
                // Somebody else was quicker.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    self.forget_generation();
                    return Err(e);
                }
                Ok(next) => {
                    self.has_v6 = has_v6;
                    let before = self.known.replace((next, wanted.clone()));
                    let moved = Table::moved(before.as_ref().map(|(_, table)| table), wanted);
                    return conntrack::forget(&mut self.tables.socket, &moved);
                }
            }
        }
        Err(io::Error::other("another program keeps changing the tables of the container"))
    }

    /// The next load is of everything.
    fn forget_generation(&mut self) {
        if let Some((generation, _)) = &mut self.known {
            *generation = 0;
        }
    }

    fn messages(&self, before: Option<&Table>, wanted: &Table, has_v6: bool) -> Vec<Message> {
        let empty = Table::default();
        let from = before.unwrap_or(&empty);
        let mut batch = Batch::new(Family::Ip, TABLE);
        if before.is_none() {
            skeleton(&mut batch, Family::Ip);
        }
        change(&mut batch, Family::Ip, &from.v4, &wanted.v4);
        change_ports(&mut batch, from.resolver, wanted.resolver);
        let mut messages = batch.into_messages();
        if has_v6 {
            let mut batch = Batch::new(Family::Ip6, TABLE);
            if before.is_none() || !self.has_v6 {
                skeleton(&mut batch, Family::Ip6);
            }
            change(&mut batch, Family::Ip6, &from.v6, &wanted.v6);
            messages.extend(batch.into_messages());
        }
        messages
    }

    /// Removes the tables.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        let mut messages = Vec::new();
        for family in [Family::Ip, Family::Ip6] {
            if family == Family::Ip || self.has_v6 {
                let mut batch = Batch::new(family, TABLE);
                batch.remove_table();
                messages.extend(batch.into_messages());
            }
        }
        self.known = None;
        for _ in 0..CHANGE_TRIES {
            let generation = self.tables.generation()?;
            match self.tables.change(generation, messages.clone()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done.map(drop),
            }
        }
        Err(io::Error::other("another program keeps changing the tables of the container"))
    }
}
