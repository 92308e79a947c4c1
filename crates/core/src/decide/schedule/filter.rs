//! Filters: which nodes can take a task, and the text for when none can (swarm-behaviour §5.2, §5.6).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use swarm_model::{
    Constraint, ConstraintKey, EngineNeed, Node, NodeId, Operator, Platform, PortProtocol, ResourceReservations,
    Service, ServiceSpec,
};

use super::plugins;
use crate::{
    NodeLoad, Place, State,
    state::{host_ports, is_active, offered, reserved},
};

/// What the tasks of a service ask of a node.
pub(super) struct Request<'a> {
    pub(super) service: &'a Service,
    /// What each task reserves; none if nothing.
    pub(super) asked: Option<&'a ResourceReservations>,
    /// What it asks of the node itself.
    pub(super) traits: Traits,
    ports: Vec<(PortProtocol, u16)>,
    max_replicas: u64,
}

/// What a service asks of a node itself, whatever its tasks hold: this does not change while a decision is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    drivers: Vec<plugins::Driver>,
    constraints: Vec<Constraint>,
    platforms: Vec<Platform>,
    engine: Option<EngineNeed>,
}

/// The filters, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    Ready,
    Resources,
    Plugins,
    Constraints,
    Platform,
    Engine,
    HostPort,
    MaxReplicas,
}

impl<'a> Request<'a> {
    pub(super) fn new(service: &'a Service) -> Self {
        let spec = &service.spec;
        let placement = spec.task_template.placement.as_ref();
        Self {
            service,
            asked: reserved(spec).filter(|asked| **asked != ResourceReservations::default()),
            traits: Traits {
                drivers: plugins::drivers(spec),
                constraints: placement.map_or(Vec::new(), |placement| parse(&placement.constraints)),
                platforms: placement.map_or(Vec::new(), |placement| placement.platforms.clone()),
                engine: spec.engine_need(),
            },
            ports: host_ports(spec).collect(),
            max_replicas: spec.max_replicas_per_node(),
        }
    }

    /// Whether a node can take one more task, beside `claims` that it got in this round and `of_service` active ones
    /// of the service in all; if not, the first filter that says so.
    pub(super) fn check(&self, node: &Node, load: &NodeLoad, of_service: u32, claims: u32) -> Result<(), Filter> {
        let pass = |filter, passes: bool| if passes { Ok(()) } else { Err(filter) };
        pass(Filter::Ready, load.is_ready)?;
        pass(Filter::Resources, self.has_resources(|| offered(node), load, claims))?;
        self.traits.suit(node)?;
        pass(Filter::HostPort, self.has_ports(load, claims))?;
        pass(Filter::MaxReplicas, self.allows(of_service))
    }

    /// The filters that look at what its tasks hold of it.
    pub(super) fn has_place(
        &self,
        state: &State,
        (id, load): (NodeId, &NodeLoad),
        of_service: u32,
        claims: u32,
    ) -> bool {
        let offered = || state.node(id).map_or(&[][..], |node| offered(node));
        self.has_resources(offered, load, claims) && self.has_ports(load, claims) && self.allows(of_service)
    }

    fn has_resources<'n>(
        &self,
        offered: impl FnOnce() -> &'n [swarm_model::GenericResource],
        load: &NodeLoad,
        claims: u32,
    ) -> bool {
        self.asked.is_none_or(|asked| {
            let offered = if asked.generic_resources.is_empty() { &[] } else { offered() };
            load.has_room(offered, asked, claims + 1)
        })
    }

    fn has_ports(&self, load: &NodeLoad, claims: u32) -> bool {
        self.ports.is_empty() || claims == 0 && load.ports_free(self.ports.iter().copied())
    }

    /// How many tasks of the service are active on a node, if there is a limit to them.
    pub(super) fn active_on(&self, state: &State, node: NodeId) -> u32 {
        if self.max_replicas == 0 { 0 } else { active_of_service_on(state, self.service, node) }
    }

    fn allows(&self, of_service: u32) -> bool {
        self.max_replicas == 0 || u64::from(of_service) < self.max_replicas
    }
}

impl Traits {
    /// Whether nothing is asked.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The filters that look at the node alone.
    pub(super) fn suit(&self, node: &Node) -> Result<(), Filter> {
        if !plugins::has_all(&self.drivers, node) {
            return Err(Filter::Plugins);
        }
        if !self.constraints.iter().all(|constraint| holds(constraint, node)) {
            return Err(Filter::Constraints);
        }
        let has_platform = node
            .description
            .as_ref()
            .is_some_and(|d| self.platforms.iter().any(|wanted| same_platform(wanted, &d.platform)));
        if !self.platforms.is_empty() && !has_platform {
            return Err(Filter::Platform);
        }
        let version = node.description.as_ref().map_or("", |description| &description.engine.engine_version);
        if self.engine.is_none_or(|need| need.is_met_by(version)) { Ok(()) } else { Err(Filter::Engine) }
    }
}

/// How many of these constraints a node does not meet.
pub(super) fn missed(constraints: &[Constraint], node: &Node) -> u32 {
    constraints.iter().map(|constraint| u32::from(!holds(constraint, node))).sum()
}

/// Constraints were checked when the spec was accepted; one that no longer parses matches nothing.
fn parse(texts: &[String]) -> Vec<Constraint> {
    texts
        .iter()
        .map(|text| {
            Constraint::parse(text).unwrap_or_else(|_| Constraint {
                key: ConstraintKey::Unknown(text.clone()),
                operator: Operator::Equal,
                value: String::new(),
            })
        })
        .collect()
}

/// The constraints of a service, parsed once for all nodes that are asked.
pub(in crate::decide) struct Constraints(Vec<Constraint>);

impl Constraints {
    pub(in crate::decide) fn of(spec: &ServiceSpec) -> Self {
        Self(spec.task_template.placement.as_ref().map_or(Vec::new(), |placement| parse(&placement.constraints)))
    }

    /// Whether a node meets them.
    pub(in crate::decide) fn hold(&self, node: &Node) -> bool {
        self.0.iter().all(|constraint| holds(constraint, node))
    }
}

/// Whether a node meets the constraints of a service.
pub(in crate::decide) fn constraints_hold(spec: &ServiceSpec, node: &Node) -> bool {
    Constraints::of(spec).hold(node)
}

/// Values compare without regard to case; a missing label is an empty text (swarm-behaviour §5.6).
fn holds(constraint: &Constraint, node: &Node) -> bool {
    let description = node.description.as_deref();
    let id;
    let found = match &constraint.key {
        ConstraintKey::NodeId => {
            id = node.id.to_string();
            &id
        }
        ConstraintKey::Hostname => node.hostname(),
        ConstraintKey::Role => node.role.as_str(),
        ConstraintKey::Os => description.map_or("", |d| &d.platform.os),
        ConstraintKey::Arch => description.map_or("", |d| &d.platform.architecture),
        ConstraintKey::NodeLabel(key) => node.spec.labels.get(key).map_or("", String::as_str),
        ConstraintKey::EngineLabel(key) => {
            description.and_then(|d| d.engine.labels.get(key)).map_or("", String::as_str)
        }
        ConstraintKey::Ip => {
            let matches = ip_matches(&constraint.value, &node.status.addr);
            return matches.is_some_and(|m| m == (constraint.operator == Operator::Equal));
        }
        ConstraintKey::Unknown(_) => return false,
    };
    found.eq_ignore_ascii_case(&constraint.value) == (constraint.operator == Operator::Equal)
}

/// Whether an address is the given one, or in the given network; none if that is malformed.
fn ip_matches(value: &str, addr: &str) -> Option<bool> {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let (network, prefix) = match value.split_once('/') {
        Some((network, prefix)) => (network.parse().ok()?, Some(prefix.parse::<u32>().ok()?)),
        None => (value.parse().ok()?, None),
    };
    let (network, width) = bits(network);
    let prefix = prefix.unwrap_or(width);
    if prefix > width {
        return None;
    }
    let Ok(addr) = addr.parse() else { return Some(false) };
    let (addr, addr_width) = bits(addr);
    let same = prefix == 0 || (network ^ addr) >> (128 - prefix) == 0;
    Some(width == addr_width && same)
}

/// Empty matches anything; Docker and Go name the same architectures differently.
fn same_platform(wanted: &Platform, found: &Platform) -> bool {
    let arch = |name: &str| match name {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_lowercase(),
    };
    let same = |a: &str, b: &str| a.is_empty() || a == b;
    same(&wanted.os.to_lowercase(), &found.os.to_lowercase())
        && same(&arch(&wanted.architecture), &arch(&found.architecture))
}

/// How many tasks of the service are active on each node.
pub(in crate::decide) fn active_of_service(state: &State, service: &Service) -> BTreeMap<NodeId, u32> {
    let mut counts = BTreeMap::new();
    for node in state.active_nodes_of_service(service.id) {
        *counts.entry(node).or_insert(0) += 1;
    }
    counts
}

/// How many tasks of the service are active on a node.
pub(super) fn active_of_service_on(state: &State, service: &Service, node: NodeId) -> u32 {
    state.tasks_of_service_on(service.id, node).filter(|task| is_active(task)).count() as u32
}

/// Why the next task finds no node, given those that the round placed already.
pub(super) fn explain(state: &State, request: &Request<'_>, placed: &[Place]) -> Arc<str> {
    let mut claims: BTreeMap<NodeId, u32> = BTreeMap::new();
    for place in placed {
        if let Place::On(node) = place {
            *claims.entry(*node).or_insert(0) += 1;
        }
    }
    let of_service = active_of_service(state, request.service);
    let mut counts: BTreeMap<Filter, u32> = BTreeMap::new();
    for (node, load) in state.nodes().filter_map(|node| Some((node, state.loads.get(node.id)?))) {
        let claims = claims.get(&node.id).copied().unwrap_or(0);
        let of_service = of_service.get(&node.id).copied().unwrap_or(0) + claims;
        if let Err(filter) = request.check(node, load, of_service, claims) {
            *counts.entry(filter).or_insert(0) += 1;
        }
    }
    let mut reasons: Vec<(Filter, u32)> = counts.into_iter().collect();
    reasons.sort_by_key(|(filter, count)| (std::cmp::Reverse(*count), *filter));
    let reasons: Vec<String> = reasons.into_iter().map(|(filter, count)| reason(filter, count)).collect();
    if reasons.is_empty() {
        "no suitable node".into()
    } else {
        format!("no suitable node ({})", reasons.join("; ")).into()
    }
}

pub(super) fn reason(filter: Filter, count: u32) -> String {
    let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    match filter {
        Filter::Ready => format!("{nodes} not available for new tasks"),
        Filter::Resources => format!("insufficient resources on {nodes}"),
        Filter::Plugins => format!("missing plugin on {nodes}"),
        Filter::Constraints => format!("scheduling constraints not satisfied on {nodes}"),
        Filter::Platform => format!("unsupported platform on {nodes}"),
        Filter::Engine => format!("Docker Engine too old on {nodes}"),
        Filter::HostPort => format!("host-mode port already in use on {nodes}"),
        Filter::MaxReplicas => "max replicas per node limit exceed".to_owned(),
    }
}
