//! Filters: which nodes can take a task, and the text for when none can (swarm-behaviour §5.2, §5.6).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use swarm_model::{
    Availability, Constraint, ConstraintKey, Node, NodeId, NodeState, Operator, Platform, PortProtocol,
    ResourceReservations, Service, ServiceId, ServiceSpec,
};

use super::{Candidate, plugins};
use crate::{Place, State, state::host_ports};

/// What the tasks of a service ask of a node.
pub(super) struct Request {
    pub(super) service: ServiceId,
    pub(super) spec: Arc<ServiceSpec>,
    reservations: ResourceReservations,
    constraints: Vec<Constraint>,
    platforms: Vec<Platform>,
    ports: Vec<(PortProtocol, u16)>,
    max_replicas: u64,
}

/// The filters, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Filter {
    Ready,
    Resources,
    Plugins,
    Constraints,
    Platform,
    HostPort,
    MaxReplicas,
}

impl Request {
    pub(super) fn new(service: &Service) -> Self {
        let spec = service.spec.clone();
        let placement = spec.task_template.placement.clone().unwrap_or_default();
        Self {
            service: service.id,
            reservations: spec.task_template.reservations(),
            constraints: parse(&placement.constraints),
            platforms: placement.platforms,
            ports: host_ports(&spec).collect(),
            max_replicas: placement.max_replicas,
            spec,
        }
    }

    /// Whether the candidate can take one more task; if not, the first filter that says so.
    pub(super) fn check(&self, candidate: &Candidate) -> Result<(), Filter> {
        let Candidate { node, load, claims } = candidate;
        let (capacity, platform) = match &node.description {
            Some(d) => (&d.resources, &d.platform),
            None => return Err(Filter::Ready),
        };
        let ready = node.status.state == NodeState::Ready
            && node.status.engine_reachable
            && node.spec.availability == Availability::Active;
        let checks = [
            (Filter::Ready, ready),
            (Filter::Resources, load.has_room(capacity, &times(&self.reservations, claims + 1))),
            (Filter::Plugins, plugins::has_plugins(&self.spec, node)),
            (Filter::Constraints, self.constraints.iter().all(|c| holds(c, node))),
            (Filter::Platform, self.platforms.is_empty() || self.platforms.iter().any(|p| same_platform(p, platform))),
            (Filter::HostPort, self.ports.is_empty() || *claims == 0 && load.ports_free(self.ports.iter().copied())),
            (
                Filter::MaxReplicas,
                self.max_replicas == 0 || u64::from(load.active_of(self.service) + claims) < self.max_replicas,
            ),
        ];
        match checks.into_iter().find(|(_, passes)| !passes) {
            None => Ok(()),
            Some((filter, _)) => Err(filter),
        }
    }
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

fn times(asked: &ResourceReservations, count: u32) -> ResourceReservations {
    use swarm_model::GenericResource;
    let count = i64::from(count);
    ResourceReservations {
        nano_cpus: asked.nano_cpus.saturating_mul(count),
        memory_bytes: asked.memory_bytes.saturating_mul(count),
        generic_resources: crate::state::generic_counts(&asked.generic_resources)
            .into_iter()
            .map(|(kind, value)| GenericResource::Discrete { kind: kind.into(), value: value.saturating_mul(count) })
            .collect(),
    }
}

/// Whether a node meets the constraints of a service.
pub(in crate::decide) fn constraints_hold(spec: &ServiceSpec, node: &Node) -> bool {
    let placement = spec.task_template.placement.as_ref();
    placement.is_none_or(|placement| parse(&placement.constraints).iter().all(|c| holds(c, node)))
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

/// Why the next task finds no node, given those that the round placed already.
pub(super) fn explain(state: &State, request: &Request, placed: &[Place]) -> Arc<str> {
    let mut claims: BTreeMap<NodeId, u32> = BTreeMap::new();
    for place in placed {
        if let Place::On(node) = place {
            *claims.entry(*node).or_insert(0) += 1;
        }
    }
    let mut counts: BTreeMap<Filter, u32> = BTreeMap::new();
    for node in state.nodes() {
        let mut candidate = Candidate::new(state, node);
        candidate.claims = claims.get(&node.id).copied().unwrap_or(0);
        if let Err(filter) = request.check(&candidate) {
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
        Filter::HostPort => format!("host-mode port already in use on {nodes}"),
        Filter::MaxReplicas => "max replicas per node limit exceed".to_owned(),
    }
}
