//! Published ports: which service has which, and which numbers the cluster chooses.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use imbl::OrdMap;
use swarm_model::{PortProtocol, PublishMode, PublishedPort, Service, ServiceId, ServiceSpec};

use crate::{
    Event, Op, Outcome, Refusal, State, Tx,
    apply::{earlier, not_found},
};

/// The numbers that the cluster chooses from (swarm-behaviour §1.7).
const CHOSEN: RangeInclusive<u16> = 30_000..=32_767;

/// The services that publish a port, with the mode. Follows from the services.
pub(crate) type PortIndex = OrdMap<(PortProtocol, u16, ServiceId), Published>;

/// The nodes on which a service publishes a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// On the nodes of its tasks.
    Host,
    /// On all nodes.
    Ingress,
}

impl State {
    /// Notes the ports of a service: as it was, and as it is from now on.
    pub(crate) fn index_ports(&mut self, old: Option<&Service>, new: Option<&Service>) {
        if let Some(service) = old {
            for (protocol, number, _) in published(service) {
                self.ports.remove(&(protocol, number, service.id));
            }
        }
        if let Some(service) = new {
            for (protocol, number, mode) in published(service) {
                self.ports.insert((protocol, number, service.id), mode);
            }
        }
    }

    /// The services with this port.
    fn publishers(&self, protocol: PortProtocol, number: u16) -> impl Iterator<Item = (ServiceId, Published)> {
        let range = (protocol, number, ServiceId(0))..=(protocol, number, ServiceId(u128::MAX));
        self.ports.range(range).map(|((.., service), mode)| (*service, *mode))
    }

    /// Refuses a port of a service that another service has.
    fn refuse_other(&self, service: ServiceId, protocol: PortProtocol, number: u16, mode: Published) -> Outcome {
        let clashes = |theirs: Published| theirs == Published::Ingress || mode == Published::Ingress;
        let mut others =
            self.publishers(protocol, number).filter(|(other, theirs)| *other != service && clashes(*theirs));
        let Some((other, theirs)) = others.next() else { return Ok(()) };
        let name = self.service(other).map(|other| other.spec.name.clone()).unwrap_or_default();
        let theirs = if theirs == Published::Host { "a host-published" } else { "an ingress" };
        Err(Refusal::Invalid(format!(
            "port '{number}' is already in use by service '{name}' ({other}) as {theirs} port"
        )))
    }
}

/// The ports of a service: those that its spec names, and those that the cluster chose.
fn published(service: &Service) -> impl Iterator<Item = (PortProtocol, u16, Published)> {
    let chosen = service.ports.iter().map(|port| (port.protocol, port.published, Published::Ingress));
    named(&service.spec).chain(chosen)
}

/// The ports that a spec names.
fn named(spec: &ServiceSpec) -> impl Iterator<Item = (PortProtocol, u16, Published)> {
    let ports = spec.ports().iter().filter(|port| port.published_port != 0);
    ports.map(|port| (port.protocol, port.published_port, mode(port.publish_mode)))
}

fn mode(mode: PublishMode) -> Published {
    match mode {
        PublishMode::Host => Published::Host,
        PublishMode::Ingress => Published::Ingress,
    }
}

/// No two services publish the same port, unless both do it in host mode: the scheduler keeps those apart
/// (swarm-behaviour §1.7).
pub(crate) fn check(state: &State, service: ServiceId, spec: &ServiceSpec) -> Outcome {
    named(spec).try_for_each(|(protocol, number, mode)| state.refuse_other(service, protocol, number, mode))
}

/// Gives up the ports that the spec asks for no more.
pub(crate) fn release(service: &mut Service) {
    let is_asked_for = |port: &PublishedPort| service.spec.ports().iter().any(|asked| port.is_asked_for(asked));
    if !service.ports.iter().all(is_asked_for) {
        service.ports = service.ports.iter().copied().filter(is_asked_for).collect();
    }
}

/// Stores the ports of a service ([`Op::SetPorts`]).
pub(crate) fn set(state: &mut State, id: ServiceId, ports: &Arc<[PublishedPort]>, events: &mut Vec<Event>) -> Outcome {
    let old = state.service(id).cloned().ok_or_else(|| not_found("service", id))?;
    for port in ports.iter() {
        let (protocol, number) = (port.protocol, port.published);
        let is_named = named(&old.spec).any(|(theirs, named, _)| (theirs, named) == (protocol, number));
        // A number that the user named was refused with the spec. One that the proposer chose is chosen anew.
        let taken = |_| Refusal::Stale(format!("port {number}/{} was taken meanwhile", protocol.as_str()));
        let refused = state.refuse_other(id, protocol, number, Published::Ingress);
        if is_named { refused? } else { refused.map_err(taken)? }
    }
    let new = Arc::new(Service { ports: ports.clone(), ..Service::clone(&old) });
    state.index_ports(Some(&old), Some(&new));
    state.services.insert(id, new);
    events.push(Event::Service(id));
    Ok(())
}

impl Tx {
    /// The same, with the ports of the service whose spec it sets ([`Op::SetPorts`]), if they are other ones than the service
    /// has. A number that the spec leaves open stays as it is, or is the lowest free one.
    ///
    /// # Errors
    /// No number is free.
    pub fn with_ports(mut self, state: &State) -> Result<Self, Refusal> {
        let Some((service, spec)) = self.ops.iter().find_map(|op| spec_of(state, op)) else { return Ok(self) };
        let before = state.service(service).map(|service| service.ports.clone()).unwrap_or_default();
        let ports = choose(state, service, &spec, &before)?;
        if !ports.iter().all(|port| before.contains(port)) {
            self.ops.push(Op::SetPorts { service, ports: ports.into() });
        }
        Ok(self)
    }
}

/// The spec that a change sets.
pub(crate) fn spec_of(state: &State, op: &Op) -> Option<(ServiceId, Arc<ServiceSpec>)> {
    match op {
        Op::CreateService { service, spec, .. } | Op::UpdateService { service, spec, .. } => {
            Some((*service, spec.clone()))
        }
        Op::RollBack { service, to, .. } => {
            let target = earlier(state.service(*service)?, *to).ok()?;
            Some((*service, target.spec))
        }
        _ => None,
    }
}

/// The ports that all nodes are to open for a spec.
fn choose(
    state: &State,
    service: ServiceId,
    spec: &ServiceSpec,
    before: &[PublishedPort],
) -> Result<Vec<PublishedPort>, Refusal> {
    let mut taken: BTreeSet<(PortProtocol, u16)> =
        named(spec).map(|(protocol, number, _)| (protocol, number)).collect();
    let mut ports = Vec::new();
    for port in spec.ports().iter().filter(|port| port.publish_mode == PublishMode::Ingress) {
        let protocol = port.protocol;
        let kept = || before.iter().find(|kept| kept.is_asked_for(port)).map(|kept| kept.published);
        let is_free = |number: &u16| {
            !taken.contains(&(protocol, *number))
                && state.publishers(protocol, *number).all(|(other, _)| other == service)
        };
        let published = match port.published_port {
            0 => kept()
                .filter(|number| !taken.contains(&(protocol, *number)))
                .or_else(|| CHOSEN.into_iter().find(is_free)),
            number => Some(number),
        };
        let published = published.ok_or_else(|| {
            let (first, last) = CHOSEN.into_inner();
            Refusal::Invalid(format!(
                "no {} port between {first} and {last} is free for port {}: name a published port",
                protocol.as_str(),
                port.target_port
            ))
        })?;
        taken.insert((protocol, published));
        ports.push(PublishedPort { protocol, published, target: port.target_port });
    }
    Ok(ports)
}
