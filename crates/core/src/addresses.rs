//! Addresses in the networks of the cluster: who has which, and which are chosen next.
//!
//! The proposer of a task or of a service chooses its addresses. `apply` only checks that nobody has them. The next address
//! is chosen, not the lowest free one. An address that was given back rests, because nodes may still send packets for the
//! one who had it there; to give it away at once is how connections reach the wrong container (moby#25985).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use swarm_model::{
    Attachment, EndpointMode, NamedObject, NetworkAddr, NetworkSubnet, ObjectContent, ObjectId, ObjectKey, ObjectKind,
    Service, ServiceId, ServiceSpec, Task, TaskId, Timestamp, bits,
};

use crate::{Event, Op, Outcome, Refusal, State, Tx, apply::not_found, ports::spec_of};

/// How long an address rests after it was given back.
pub const ADDRESS_REST_NS: i64 = 60 * 1_000_000_000;

/// The addresses of the networks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    /// The addresses that somebody has. Follows from the tasks and the services.
    held: OrdMap<NetworkAddr, Holder>,
    /// Addresses that were given back and that nobody has had since.
    freed: OrdMap<NetworkAddr, Freed>,
    /// The address that was given last, of each network and address family.
    last: OrdMap<(ObjectId, bool), IpAddr>,
    /// The networks, by the numbers of their VXLANs. Follows from the objects.
    vnis: OrdMap<u32, ObjectId>,
}

/// How an address was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// When (the cluster's clock).
    at: Timestamp,
    /// The service that had it, or whose task had it. The service itself can have it again at once. An attachment stands
    /// here with its own id, which no service has.
    by: ServiceId,
}

impl Freed {
    fn rests(&self, service: ServiceId, now: Timestamp) -> bool {
        self.by != service && self.at.plus_ns(ADDRESS_REST_NS) > now
    }
}

/// The one who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Task(TaskId),
    Service(ServiceId),
    Attachment(TaskId),
}

/// A fact about an address that does not follow from the tasks and services: a part of snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AddressNote {
    /// Of all addresses of its network and family, this address was given last.
    Last(NetworkAddr),
    /// Nobody has had this address since it was given back.
    Freed(NetworkAddr, Freed),
}

impl Addresses {
    fn take(&mut self, addrs: &[NetworkAddr], holder: Holder) {
        for at in addrs {
            self.held.insert(*at, holder);
            self.freed.remove(at);
            self.last.insert((at.network, at.addr.is_ipv6()), at.addr);
        }
    }

    fn give_back(&mut self, addrs: &[NetworkAddr], holder: Holder, freed: Freed) {
        for at in addrs {
            if self.held.get(at) == Some(&holder) {
                self.held.remove(at);
                self.freed.insert(*at, freed);
            }
        }
    }

    /// The facts about addresses that a snapshot has to hold.
    pub(crate) fn notes(&self) -> impl Iterator<Item = AddressNote> + '_ {
        let last = self.last.iter().map(|((network, _), addr)| NetworkAddr { network: *network, addr: *addr });
        last.map(AddressNote::Last).chain(self.freed.iter().map(|(at, freed)| AddressNote::Freed(*at, *freed)))
    }

    /// Takes a fact of a snapshot. All tasks and services of the snapshot come first.
    pub(crate) fn restore(&mut self, note: &AddressNote) {
        match note {
            AddressNote::Last(at) => drop(self.last.insert((at.network, at.addr.is_ipv6()), at.addr)),
            AddressNote::Freed(at, freed) => drop(self.freed.insert(*at, *freed)),
        }
    }

    /// Notes a network that was made or removed.
    pub(crate) fn index_network(&mut self, id: ObjectId, content: &ObjectContent, is_there: bool) {
        let Some(network) = content.as_network() else { return };
        if is_there {
            self.vnis.insert(network.vni, id);
            return;
        }
        self.vnis.remove(&network.vni);
        for is_v6 in [false, true] {
            self.last.remove(&(id, is_v6));
        }
        let of_network: Vec<NetworkAddr> = self.freed.range(all_of(id)).map(|(at, _)| *at).collect();
        for at in &of_network {
            self.freed.remove(at);
        }
    }
}

impl State {
    /// Lets the addresses follow a task, as it was and as it is. A task has its addresses until it has ended.
    pub(crate) fn follow_task_addrs(&mut self, old: Option<&Task>, new: Option<&Task>) {
        let of = |task: Option<&Task>| task.filter(|task| task.holds_resources()).map(|task| task.addrs.clone());
        let (was, is) = (of(old).unwrap_or_default(), of(new).unwrap_or_default());
        let Some(task) = old.or(new).filter(|_| was != is) else { return };
        self.addresses.give_back(&was, Holder::Task(task.id), Freed { at: self.time, by: task.service });
        self.addresses.take(&is, Holder::Task(task.id));
    }

    /// Lets the addresses follow a service, as it was and as it is.
    pub(crate) fn follow_service_addrs(&mut self, old: Option<&Service>, new: Option<&Service>) {
        let of = |service: Option<&Service>| service.map(|service| service.virtual_addrs.clone()).unwrap_or_default();
        let (was, is) = (of(old), of(new));
        let Some(id) = old.or(new).map(|service| service.id).filter(|_| was != is) else { return };
        self.addresses.give_back(&was, Holder::Service(id), Freed { at: self.time, by: id });
        self.addresses.take(&is, Holder::Service(id));
    }

    /// Lets the addresses follow an attachment, as it was and as it is.
    pub(crate) fn follow_attachment_addrs(&mut self, old: Option<&Attachment>, new: Option<&Attachment>) {
        let of = |attachment: Option<&Attachment>| attachment.map(Attachment::network_addrs).unwrap_or_default();
        let (was, is) = (of(old), of(new));
        let Some(id) = old.or(new).map(|attachment| attachment.id).filter(|_| was != is) else { return };
        self.addresses.give_back(&was, Holder::Attachment(id), Freed { at: self.time, by: ServiceId(id.0) });
        self.addresses.take(&is, Holder::Attachment(id));
    }

    /// The addresses for a new attachment: those that are asked for, and the next ones of the other families. An address
    /// that is asked for may rest still: it is asked for by the container that had it, or by a person.
    ///
    /// # Errors
    /// The network is not there or has no free address, or cannot give an address that is asked for.
    pub fn choose_attachment_addrs(
        &self,
        id: TaskId,
        network: ObjectId,
        asked: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Refusal> {
        let key = ObjectKey { kind: ObjectKind::Network, id: network };
        let object = self.object(key).ok_or_else(|| not_found("network", network))?;
        let subnets = object.content.as_network().map(|content| &content.subnets[..]).unwrap_or_default();
        for addr in asked {
            let refuse = |reason: &str| {
                let ranges: Vec<String> = subnets.iter().map(|subnet| subnet.range.to_string()).collect();
                let (name, ranges) = (&object.name, ranges.join(" and "));
                Err(Refusal::Invalid(format!("address {addr} of network {name} ({ranges}) cannot be given: {reason}")))
            };
            let Some(subnet) = subnets.iter().find(|subnet| subnet.range.contains(addr)) else {
                return refuse("it is in none of its subnets");
            };
            if !subnet.is_host(*addr) || subnet.is_reserved(*addr) {
                return refuse("it is reserved");
            }
            if self.addresses.held.contains_key(&NetworkAddr { network, addr: *addr }) {
                return refuse("Address already in use");
            }
        }
        let is_of = |subnet: &NetworkSubnet, addr: &IpAddr| subnet.range.contains(addr);
        if let Some(subnet) = subnets.iter().find(|of| asked.iter().filter(|addr| is_of(of, addr)).count() > 1) {
            return Err(Refusal::Invalid(format!("two addresses of subnet {} are asked for: give one", subnet.range)));
        }
        let asked_of = |subnet| asked.iter().find(|addr| is_of(subnet, addr)).copied();
        if subnets.iter().all(|subnet| asked_of(subnet).is_some()) {
            return Ok(subnets.iter().filter_map(asked_of).collect());
        }
        let next = Choice::default().next(self, ServiceId(id.0), std::iter::once(network), self.time);
        let next = next.map_err(|full| Refusal::Invalid(full.reason.to_string()))?;
        let of = |subnet| asked_of(subnet).or_else(|| next.iter().map(|at| at.addr).find(|addr| is_of(subnet, addr)));
        Ok(subnets.iter().filter_map(of).collect())
    }

    /// Whether nobody has these addresses, and their networks have them.
    pub(crate) fn check_addrs(&self, addrs: &[NetworkAddr]) -> Outcome {
        addrs.iter().try_for_each(|at| {
            if self.addresses.held.contains_key(at) {
                return Err(Refusal::Stale(format!("address {} was given meanwhile", at.addr)));
            }
            match self.subnet(*at) {
                Some(_) => Ok(()),
                None => Err(Refusal::Stale(format!("network {} has no address {}", at.network, at.addr))),
            }
        })
    }

    fn subnet(&self, at: NetworkAddr) -> Option<&NetworkSubnet> {
        let key = ObjectKey { kind: ObjectKind::Network, id: at.network };
        self.object(key)?.content.as_network()?.subnet_of(at.addr)
    }

    /// A network must fit beside the others: with a number of its own, and with subnets that none of them has. The proposer has
    /// looked for both, and refused what its user chose.
    pub(crate) fn check_network(&self, content: &ObjectContent) -> Outcome {
        let Some(new) = content.as_network() else { return Ok(()) };
        if self.addresses.vnis.contains_key(&new.vni) {
            return Err(Refusal::Stale(format!("VXLAN {} was given meanwhile", new.vni)));
        }
        match new.subnets.iter().find_map(|subnet| Some((subnet, self.network_overlapping(subnet)?))) {
            None => Ok(()),
            Some((subnet, other)) => {
                Err(Refusal::Stale(format!("network {} got a part of subnet {} meanwhile", other.name, subnet.range)))
            }
        }
    }

    /// A network that has an address in common with a subnet.
    pub fn network_overlapping(&self, subnet: &NetworkSubnet) -> Option<&Arc<NamedObject>> {
        self.objects(ObjectKind::Network).find(|other| {
            let theirs = other.content.as_network().map(|network| &network.subnets[..]).unwrap_or_default();
            theirs.iter().any(|their| overlap(subnet, their))
        })
    }

    /// The network whose VXLAN has this number.
    pub fn network_of_vni(&self, vni: u32) -> Option<ObjectId> {
        self.addresses.vnis.get(&vni).copied()
    }

    /// How the addresses of a subnet are used up, for people.
    fn use_of(&self, network: ObjectId, subnet: &NetworkSubnet) -> String {
        let name =
            self.object(ObjectKey { kind: ObjectKind::Network, id: network }).map(|network| network.name.as_str());
        let (first, last) = subnet.usable();
        let range = NetworkAddr { network, addr: first }..=NetworkAddr { network, addr: last };
        let (held, resting) =
            (self.addresses.held.range(range.clone()).count(), self.addresses.freed.range(range).count());
        let all = bits(last) - bits(first) + 1;
        format!(
            "network {} has no free address in {}: {held} of {all} are taken and {resting} were given back less than {} s ago",
            name.unwrap_or_default(),
            subnet.range,
            ADDRESS_REST_NS / 1_000_000_000
        )
    }
}

/// All addresses of a network, in their order: those of IPv4 come first.
fn all_of(network: ObjectId) -> RangeInclusive<NetworkAddr> {
    let first = NetworkAddr { network, addr: Ipv4Addr::UNSPECIFIED.into() };
    let last = NetworkAddr { network, addr: Ipv6Addr::from_bits(u128::MAX).into() };
    first..=last
}

/// Whether two subnets have an address in common.
pub fn overlap(one: &NetworkSubnet, other: &NetworkSubnet) -> bool {
    one.range.contains(&other.range) || other.range.contains(&one.range)
}

/// Chooses addresses for the tasks and services of one proposal.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// The addresses that this proposal has chosen.
    chosen: BTreeSet<NetworkAddr>,
    /// The last one of each network and address family.
    last: OrdMap<(ObjectId, bool), IpAddr>,
    /// The networks without a free address for a service. A proposal takes addresses and gives none back, so that many tasks
    /// that wait cost one search.
    exhausted: BTreeMap<(ServiceId, ObjectId), Exhausted>,
}

/// A network has no free address.
#[derive(Clone, Debug)]
pub(crate) struct Exhausted {
    /// The reason, for people.
    pub(crate) reason: Arc<str>,
    /// When an address that rests can be given again, if there is one.
    pub(crate) until: Option<Timestamp>,
}

/// A search for an address.
struct Search<'a> {
    state: &'a State,
    /// The service that is to have it, or whose task is.
    service: ServiceId,
    network: ObjectId,
    subnet: &'a NetworkSubnet,
    now: Timestamp,
}

impl Choice {
    /// An address of each family in each network.
    pub(crate) fn next(
        &mut self,
        state: &State,
        service: ServiceId,
        networks: impl Iterator<Item = ObjectId>,
        now: Timestamp,
    ) -> Result<Arc<[NetworkAddr]>, Exhausted> {
        let mut addrs = Vec::new();
        for network in networks {
            if let Some(known) = self.exhausted.get(&(service, network)) {
                return Err(known.clone());
            }
            let Some(object) = state.object(ObjectKey { kind: ObjectKind::Network, id: network }) else { continue };
            for subnet in object.content.as_network().map(|network| &network.subnets[..]).unwrap_or_default() {
                let search = Search { state, service, network, subnet, now };
                let Some(addr) = self.free(&search) else {
                    let ends = state
                        .addresses
                        .freed
                        .range(all_of(network))
                        .map(|(_, freed)| freed.at.plus_ns(ADDRESS_REST_NS));
                    let until = ends.filter(|until| *until > now).min();
                    let exhausted = Exhausted { reason: state.use_of(network, subnet).into(), until };
                    self.exhausted.insert((service, network), exhausted.clone());
                    return Err(exhausted);
                };
                addrs.push(NetworkAddr { network, addr });
            }
        }
        for at in &addrs {
            self.chosen.insert(*at);
            self.last.insert((at.network, at.addr.is_ipv6()), at.addr);
        }
        Ok(addrs.into())
    }

    /// The next address of a subnet that can be given.
    fn free(&self, search: &Search<'_>) -> Option<IpAddr> {
        let (first, last) = search.subnet.usable();
        let (first, last) = (bits(first), bits(last));
        let key = (search.network, search.subnet.range.addr().is_ipv6());
        let newest = self.last.get(&key).or_else(|| search.state.addresses.last.get(&key)).map(|addr| bits(*addr));
        let from = newest.map(|newest| newest + 1).filter(|from| (first..=last).contains(from)).unwrap_or(first);
        self.free_in(search, from, last).or_else(|| self.free_in(search, first, from.checked_sub(1)?))
    }

    /// The first address that can be given, from one to another.
    fn free_in(&self, search: &Search<'_>, from: u128, to: u128) -> Option<IpAddr> {
        if from > to {
            return None;
        }
        let addresses = &search.state.addresses;
        let at = |bits| NetworkAddr { network: search.network, addr: search.subnet.addr(bits) };
        // Both stand in the order of the addresses, so one walk along them finds the first gap.
        let mut held = addresses.held.range(at(from)..=at(to)).map(|(at, _)| bits(at.addr)).peekable();
        let rests =
            |at: &NetworkAddr| addresses.freed.get(at).is_some_and(|freed| freed.rests(search.service, search.now));
        (from..=to).find_map(|candidate| {
            while held.next_if(|taken| *taken < candidate).is_some() {}
            let at = at(candidate);
            let is_taken = held.peek() == Some(&candidate) || self.chosen.contains(&at);
            (!is_taken && !search.subnet.is_reserved(at.addr) && !rests(&at)).then_some(at.addr)
        })
    }
}

/// Gives back the virtual addresses in networks that the spec names no more, and all of them where names stand for tasks.
pub(crate) fn release(service: &mut Service) {
    let wanted: BTreeSet<ObjectId> = virtual_networks(&service.spec).collect();
    if !service.virtual_addrs.iter().all(|at| wanted.contains(&at.network)) {
        service.virtual_addrs =
            service.virtual_addrs.iter().copied().filter(|at| wanted.contains(&at.network)).collect();
    }
}

/// The networks in which a service has virtual addresses.
fn virtual_networks(spec: &ServiceSpec) -> impl Iterator<Item = ObjectId> + '_ {
    let mode = spec.endpoint_spec.as_ref().and_then(|endpoint| endpoint.mode).unwrap_or_default();
    spec.network_ids().filter(move |_| mode == EndpointMode::Vip)
}

/// Stores the virtual addresses of a service ([`Op::SetVirtualAddrs`]).
pub(crate) fn set(state: &mut State, id: ServiceId, addrs: &Arc<[NetworkAddr]>, events: &mut Vec<Event>) -> Outcome {
    let old = state.service(id).cloned().ok_or_else(|| not_found("service", id))?;
    let new: Vec<NetworkAddr> = addrs.iter().copied().filter(|at| !old.virtual_addrs.contains(at)).collect();
    state.check_addrs(&new)?;
    let service = Arc::new(Service { virtual_addrs: addrs.clone(), ..Service::clone(&old) });
    state.follow_service_addrs(Some(&old), Some(&service));
    state.services.insert(id, service);
    events.push(Event::Service(id));
    Ok(())
}

impl Tx {
    /// The same, with the virtual addresses of the service whose spec it sets ([`Op::SetVirtualAddrs`]), if they are other
    /// ones than the service has.
    ///
    /// # Errors
    /// A network has no free address.
    pub fn with_virtual_addrs(mut self, state: &State) -> Result<Self, Refusal> {
        let Some((service, spec)) = self.ops.iter().find_map(|op| spec_of(state, op)) else { return Ok(self) };
        let before = state.service(service).map(|service| service.virtual_addrs.clone()).unwrap_or_default();
        let mut choice = Choice::default();
        let mut addrs = Vec::new();
        for network in virtual_networks(&spec) {
            let kept = before.iter().filter(|at| at.network == network).copied().collect::<Vec<_>>();
            if kept.is_empty() {
                let chosen = choice.next(state, service, std::iter::once(network), state.time());
                addrs.extend(chosen.map_err(|full| Refusal::Invalid(full.reason.to_string()))?.iter().copied());
            }
            addrs.extend(kept);
        }
        if !addrs.iter().all(|at| before.contains(at)) {
            self.ops.push(Op::SetVirtualAddrs { service, addrs: addrs.into() });
        }
        Ok(self)
    }
}

#[cfg(test)]
pub(crate) mod tests;
