//! What keeps nodes from taking a task of a service: each requirement for itself, with the numbers.
//!
//! Whether a node fits is the scheduler's word. It is asked with one requirement at a time, on a state in which all
//! nodes answer and are active, so that it tells all that is in the way and not only the first thing.

use std::{collections::BTreeMap, sync::Arc};

use swarm_model::{
    Availability, Constraint, ConstraintKey, EngineNeed, Mount, Node, NodeId, NodeState, Operator, Placement, Service,
    ServiceId, ServiceMode, ServiceSpec, Timestamp, format_duration,
};

use super::{NodeRejection, Rejection, resources};
use crate::{NODE_LEFT, Op, Place, State, Tx, apply::apply_tx, decide::schedule, state::host_ports};

/// Nodes named for one requirement; a cluster has up to a thousand.
const NODES_MAX: usize = 20;
/// Nodes for which advice about the same requirement is given.
const FIXES_MAX: usize = 2;
/// Bytes in a MiB: advice about memory is rounded down to it, so that it holds.
const MIB: i64 = 1 << 20;

/// A node that only has to be active is the best there is: nothing of the service need change.
const READY_RANK: i64 = -1;

const READY: &str = "ready";
const RESOURCES: &str = "resources";

/// A service of which a task is to be placed.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) service: &'a Service,
    pub(super) planned: Planned,
}

/// What there is in a plan alone: there is no advice about it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Planned {
    /// Whether the service is: what does not exist cannot be updated.
    pub(crate) service: bool,
    /// The node that the plan drains.
    pub(crate) drained: Option<NodeId>,
}

impl Asker<'_> {
    /// How its spec is changed by flags of `service update`.
    fn change(self, flags: &str) -> String {
        match flags.strip_prefix("--constraint-rm ") {
            Some(constraint) if self.planned.service => format!("leave out `--constraint {constraint}`"),
            _ if self.planned.service => format!("make it with `{flags}`"),
            _ => format!("`swarmctl service update {flags} {}`", self.service.spec.name),
        }
    }
}

/// A requirement of a service, as a service that asks for nothing else.
struct Requirement {
    filter: &'static str,
    asked: String,
    alone: Arc<Service>,
    what: What,
}

enum What {
    Resource { kind: String, amount: i64 },
    Constraint { text: String, parsed: Option<Constraint> },
    Platform,
    Engine(EngineNeed),
    Driver { kind: &'static str },
    Port(swarm_model::PortProtocol, u16),
    MaxReplicas { needed: u64 },
}

/// The name by which people know a node.
pub(super) fn name(state: &State, id: NodeId) -> String {
    match state.node(id).map(|node| node.hostname()) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => id.to_string(),
    }
}

/// What keeps nodes from taking one more task, by requirement; all nodes, or the one that the task is for. What
/// would help is added to `advice`: that which the fewest other things stand in the way of.
pub(super) fn rejections(
    state: &State,
    asker: Asker<'_>,
    only: Option<NodeId>,
    now: Timestamp,
    advice: &mut Vec<String>,
) -> Vec<Rejection> {
    let service = asker.service;
    let requirements = requirements(state, service);
    let willing = all_ready(state);
    let nodes: Vec<&Arc<Node>> = state.nodes().filter(|node| only.is_none_or(|only| node.id == only)).collect();
    let mut rejections: Vec<Rejection> = Vec::new();
    let mut fixes: BTreeMap<usize, Vec<Fix>> = BTreeMap::new();
    for node in nodes {
        let mut helps = Vec::new();
        if let Some((found, fix)) = unready(node, now) {
            push(&mut rejections, READY, "a node that is up and active", state, node, found);
            helps.push(Fix { filter: READY, rank: READY_RANK, text: fix });
        }
        let is_ready = helps.is_empty();
        for requirement in &requirements {
            if matches!(schedule::place_on(&willing, &requirement.alone, node.id), Place::On(_)) {
                continue;
            }
            let (mut found, fix) = requirement.explain(state, asker, node);
            if !is_ready {
                // The scheduler says only the first thing of a node.
                found.push_str(", and is not available");
            }
            push(&mut rejections, requirement.filter, &requirement.asked, state, node, found);
            helps.push(fix);
        }
        // What is planned to leave a node is not to be helped by taking the plan back.
        if asker.planned.drained == Some(node.id) {
            continue;
        }
        let whole = schedule::place_on(&willing, service, node.id);
        let is_met = helps.iter().all(|fix| fix.filter == READY);
        if let (true, Place::PendingOn(_, reason)) = (is_met, whole) {
            // Something that has no numbers and that no setting of a node changes.
            helps.clear();
            push(&mut rejections, "other", "what the scheduler says", state, node, reason.to_string());
        }
        if !helps.is_empty() {
            fixes.entry(helps.len()).or_default().extend(helps);
        }
    }
    if state.nodes().next().is_none() {
        advice.push("add a node with `swarmctl swarm join`".to_owned());
    }
    let mut best = fixes.into_values().next().unwrap_or_default();
    best.sort_by_key(|fix| fix.rank);
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    best.retain(|fix| {
        let count = told.entry(fix.filter).or_default();
        *count += 1;
        // Of resources, what the next node lacks helps no one: the first lacks least.
        *count <= if fix.filter == RESOURCES { 1 } else { FIXES_MAX }
    });
    advice.extend(best.into_iter().map(|fix| fix.text));
    rejections.sort_by_key(|rejection| std::cmp::Reverse(rejection.nodes.len() + rejection.more_nodes));
    rejections
}

/// What a service asks for that some node which takes tasks does not have; of resources also the most that is free, on a
/// node that has the rest where there is one.
pub(super) fn unmet(state: &State, service: &Service) -> Vec<String> {
    let takes_tasks = |node: &&Arc<Node>| unready(node, state.time()).is_none();
    let nodes: Vec<&Arc<Node>> = state.nodes().filter(takes_tasks).collect();
    let meets = |node: &Node, requirement: &Requirement| {
        matches!(schedule::place_on(state, &requirement.alone, node.id), Place::On(_))
    };
    let requirements = requirements(state, service);
    let has_rest = |node: &Node| {
        let mut rest = requirements.iter().filter(|requirement| !matches!(requirement.what, What::Resource { .. }));
        rest.all(|requirement| meets(node, requirement))
    };
    let show = |requirement: &Requirement| match &requirement.what {
        What::Resource { kind, .. } => {
            let free = |node: &Node| resources::free(state, node, kind);
            match nodes.iter().max_by_key(|node| (has_rest(node), free(node))) {
                Some(most) => {
                    let amount = resources::show_amount(kind, free(most));
                    format!("{} (most free: {amount} on {})", requirement.asked, name(state, most.id))
                }
                None => requirement.asked.clone(),
            }
        }
        _ => requirement.asked.clone(),
    };
    let is_unmet = |requirement: &&Requirement| nodes.iter().any(|node| !meets(node, requirement));
    requirements.iter().filter(is_unmet).map(show).collect()
}

/// What would help, and how much is missing: the least comes first.
struct Fix {
    filter: &'static str,
    rank: i64,
    text: String,
}

fn push(rejections: &mut Vec<Rejection>, filter: &'static str, asked: &str, state: &State, node: &Node, found: String) {
    let index = rejections.iter().position(|known| (known.filter, known.asked.as_str()) == (filter, asked));
    let index = index.unwrap_or_else(|| {
        rejections.push(Rejection { filter, asked: asked.to_owned(), nodes: Vec::new(), more_nodes: 0 });
        rejections.len() - 1
    });
    let rejection = &mut rejections[index];
    if rejection.nodes.len() < NODES_MAX {
        rejection.nodes.push(NodeRejection { node: node.id, name: name(state, node.id), found });
    } else {
        rejection.more_nodes += 1;
    }
}

/// Why a node takes no tasks at all, and what would change that.
fn unready(node: &Node, now: Timestamp) -> Option<(String, String)> {
    let name = if node.hostname().is_empty() { node.id.to_string() } else { node.hostname().to_owned() };
    let since = format_duration(whole_seconds(now.since_ns(node.state_since)));
    let said = if node.status.message.is_empty() { String::new() } else { format!(": {}", node.status.message) };
    let answers = node.status.state == NodeState::Ready && node.description.is_some();
    if !answers && node.status.message == NODE_LEFT {
        let found = format!("left the swarm {since} ago");
        let fix = format!(
            "`swarmctl swarm join` on {name} brings it back as a new node; `swarmctl node rm {name}` forgets this one"
        );
        return Some((found, fix));
    }
    if !answers {
        let found = format!("has been {} for {since}{said}", node.status.state.as_str());
        return Some((found, format!("bring node {name} back: its swarmd must run and reach a manager")));
    }
    if node.spec.availability != Availability::Active {
        let is = if node.spec.availability == Availability::Pause { "paused" } else { "drained" };
        return Some((format!("is {is}"), format!("`swarmctl node update --availability active {name}`")));
    }
    if !node.status.engine_reachable {
        let found = format!("its container engine does not answer{said}");
        return Some((found, format!("start the container engine of node {name}")));
    }
    None
}

/// Whole seconds of a time; nobody reads more.
pub(super) fn whole_seconds(ns: i64) -> i64 {
    ns.max(0) / 1_000_000_000 * 1_000_000_000
}

/// The state as it would be if all nodes answered and were active.
fn all_ready(state: &State) -> State {
    let mut willing = state.clone();
    for node in state.nodes() {
        let spec = swarm_model::NodeSpec { availability: Availability::Active, ..(*node.spec).clone() };
        let status = swarm_model::NodeStatus { state: NodeState::Ready, engine_reachable: true, ..node.status.clone() };
        let change = Op::UpdateNode { node: node.id, spec: Arc::new(spec), drain_deadline: None };
        // A node that never reported has nothing to offer, but its labels may fit.
        let description = node.description.is_none().then(Arc::default);
        let report = Op::ReportNode { node: node.id, status, description };
        // A change that is refused leaves the node as it is: it then counts as one that does not fit.
        let _ = apply_tx(&mut willing, &Tx::new(vec![change, report]), &mut Vec::new());
    }
    willing
}

fn requirements(state: &State, service: &Service) -> Vec<Requirement> {
    let spec = &service.spec;
    let mut requirements = Vec::new();
    let mut add = |filter, asked: String, what, change: &dyn Fn(&mut ServiceSpec)| {
        let mut alone = asks_nothing(spec);
        change(&mut alone);
        let alone = Arc::new(Service { spec: Arc::new(alone), ..service.clone() });
        requirements.push(Requirement { filter, asked, alone, what });
    };
    let reserved = spec.task_template.reservations();
    for (kind, amount) in resources::asked(&reserved) {
        let asked = resources::show(&kind, amount);
        add(RESOURCES, asked, What::Resource { kind: kind.clone(), amount }, &|alone| {
            let mut only = reserved.clone();
            only.memory_bytes = if kind == "memory" { amount } else { 0 };
            only.nano_cpus = if kind == "CPUs" { amount } else { 0 };
            only.generic_resources.retain(|resource| match resource {
                swarm_model::GenericResource::Discrete { kind: k, .. }
                | swarm_model::GenericResource::Named { kind: k, .. } => *k == kind,
            });
            let resources = alone.task_template.resources.get_or_insert_default();
            resources.reservations = Some(only);
        });
    }
    let placement = spec.task_template.placement.clone().unwrap_or_default();
    for text in &placement.constraints {
        let what = What::Constraint { text: text.clone(), parsed: Constraint::parse(text).ok() };
        add("constraint", text.clone(), what, &|alone| {
            alone.task_template.placement = Some(Placement { constraints: vec![text.clone()], ..Placement::default() });
        });
    }
    if !placement.platforms.is_empty() {
        let names: Vec<String> = placement.platforms.iter().map(|p| format!("{}/{}", p.os, p.architecture)).collect();
        add("platform", names.join(" or "), What::Platform, &|alone| {
            let platforms = placement.platforms.clone();
            alone.task_template.placement = Some(Placement { platforms, ..Placement::default() });
        });
    }
    if let Some(need) = spec.engine_need() {
        add("engine", format!("Docker Engine {}", need.major), What::Engine(need), &|alone| {
            alone.task_template.container_spec.healthcheck.clone_from(&spec.task_template.container_spec.healthcheck);
            alone.task_template.container_spec.mounts.clone_from(&spec.task_template.container_spec.mounts);
            // Volume options name drivers, which are a requirement of their own.
            alone.task_template.container_spec.mounts.iter_mut().for_each(|mount| mount.volume_options = None);
        });
    }
    for (kind, driver) in schedule::named_drivers(spec) {
        let asked = format!("the {} driver {driver}", kind.to_lowercase());
        add("plugin", asked, What::Driver { kind }, &|alone| {
            if kind == "Log" {
                alone.task_template.log_driver.clone_from(&spec.task_template.log_driver);
            } else {
                let mounts = spec.task_template.container_spec.mounts.iter();
                alone.task_template.container_spec.mounts = mounts.filter(|m| is_of(m, &driver)).cloned().collect();
            }
        });
    }
    for (protocol, port) in host_ports(spec) {
        let asked = format!("port {port}/{}", protocol.as_str());
        add("host-port", asked, What::Port(protocol, port), &|alone| {
            alone.endpoint_spec.clone_from(&spec.endpoint_spec);
            let endpoint = alone.endpoint_spec.get_or_insert_default();
            endpoint.ports.retain(|p| (p.protocol, p.published_port) == (protocol, port));
        });
    }
    let max_replicas = spec.max_replicas_per_node();
    if max_replicas > 0 {
        let asked = format!("at most {max_replicas} of its tasks on a node");
        let needed = needed_on_each(state, service).max(max_replicas.saturating_add(1));
        add("max-replicas", asked, What::MaxReplicas { needed }, &|alone| {
            alone.task_template.placement = Some(Placement { max_replicas, ..Placement::default() });
        });
    }
    requirements
}

/// Whether a mount is a volume of a driver.
fn is_of(mount: &Mount, driver: &str) -> bool {
    let config = mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
    config.is_some_and(|config| config.name == driver)
}

/// How many tasks of a service each node has to take for all of them to have a place, if only the limit is in the way:
/// those that nodes have which take no more of it stay there.
fn needed_on_each(state: &State, service: &Service) -> u64 {
    let ServiceMode::Replicated { replicas } = service.spec.mode else { return 1 };
    let mut spec = (*service.spec).clone();
    spec.task_template.placement.get_or_insert_default().max_replicas = 0;
    let unlimited = Service { spec: Arc::new(spec), ..service.clone() };
    let (mut takers, mut elsewhere) = (0_u64, 0_u64);
    for node in state.nodes() {
        match schedule::place_on(state, &unlimited, node.id) {
            Place::On(_) => takers += 1,
            _ => elsewhere += state.tasks_of_service_on(service.id, node.id).filter(|t| t.is_live()).count() as u64,
        }
    }
    replicas.saturating_sub(elsewhere).div_ceil(takers.max(1))
}

/// A service that every ready node can take.
fn asks_nothing(spec: &ServiceSpec) -> ServiceSpec {
    ServiceSpec { name: spec.name.clone(), mode: spec.mode.clone(), ..ServiceSpec::default() }
}

impl Requirement {
    /// What a node that does not meet it has instead, and what would change that.
    fn explain(&self, state: &State, asker: Asker<'_>, node: &Node) -> (String, Fix) {
        let (service, own, node_name) = (asker.service, &asker.service.spec.name, name(state, node.id));
        let fix = |rank, text| Fix { filter: self.filter, rank, text };
        match &self.what {
            What::Resource { kind, amount } => {
                let has = resources::capacity(node).get(kind).copied().unwrap_or(0);
                let free = resources::free(state, node, kind);
                let show = |amount| resources::show_amount(kind, amount);
                let found = format!("{} free of {}", show(free), show(has));
                let missing = amount.saturating_sub(free);
                let less = match resources::flag(kind, free / MIB * MIB, free) {
                    Some(flag) => format!(", or {}", asker.change(&flag)),
                    None => String::new(),
                };
                let whole = resources::show(kind, missing);
                let text = if has < *amount {
                    format!("add a node that has {}{less}", self.asked)
                } else {
                    format!("free {whole} on {node_name}{less}")
                };
                // What could be freed comes before what is not there at all.
                (found, fix(missing.saturating_add(if has < *amount { i64::MAX / 2 } else { 0 }), text))
            }
            What::Constraint { text, parsed } => {
                let found = parsed.as_ref().map_or("is not understood".to_owned(), |c| found_value(c, node));
                let drop_it = asker.change(&format!("--constraint-rm '{text}'"));
                let text = match parsed {
                    Some(Constraint { key: ConstraintKey::NodeLabel(key), operator: Operator::Equal, value }) => {
                        format!("`swarmctl node update --label-add {key}={value} {node_name}`, or {drop_it}")
                    }
                    _ => drop_it,
                };
                (found, fix(0, text))
            }
            What::Platform => {
                let none = swarm_model::Platform::default();
                let has = node.description.as_ref().map_or(&none, |description| &description.platform);
                let has = format!("{}/{}", has.os, has.architecture);
                let text = format!("use an image for {has}, or add a node of {}", self.asked);
                (format!("is {has}"), fix(0, text))
            }
            What::Engine(need) => {
                let version = node.description.as_ref().map_or("", |description| &description.engine.engine_version);
                let text = format!("upgrade the engine of {node_name}, or leave {} out", need.flag);
                (format!("has {version}"), fix(0, text))
            }
            What::Driver { kind } => {
                let engine = node.description.as_ref().map(|description| &description.engine);
                let plugins = engine.into_iter().flat_map(|engine| &engine.plugins);
                let has: Vec<&str> = plugins.filter(|p| p.kind == *kind).map(|p| p.name.as_str()).collect();
                let found = if has.is_empty() { "has none".to_owned() } else { format!("has {}", has.join(", ")) };
                (found, fix(0, format!("install {} on {node_name}", self.asked)))
            }
            What::Port(protocol, port) => {
                let holding = holders(state, node, *protocol, *port);
                let names: Vec<&str> = holding.iter().map(|(_, name)| name.as_str()).collect();
                let names = names.join(" and ");
                let text = if holding.iter().all(|(holder, _)| *holder == service.id) {
                    let fewer =
                        if asker.planned.service { "want fewer".to_owned() } else { format!("scale {own} down") };
                    format!("each task of {own} needs {} of a node for itself: add a node, or {fewer}", self.asked)
                } else {
                    format!("free {} of {node_name}, which {names} holds, or publish another port of {own}", self.asked)
                };
                (format!("taken by {names}"), fix(0, text))
            }
            What::MaxReplicas { needed } => {
                let has = state.tasks_of_node(node.id).filter(|t| t.service == service.id && t.desired.is_live());
                let text = format!("{}, or add a node", asker.change(&format!("--replicas-max-per-node {needed}")));
                (format!("has {}", has.count()), fix(0, text))
            }
        }
    }
}

/// The tasks that hold a port of a node, by service and name.
fn holders(state: &State, node: &Node, protocol: swarm_model::PortProtocol, port: u16) -> Vec<(ServiceId, String)> {
    let mut holders = Vec::new();
    for task in state.tasks_of_node(node.id).filter(|task| task.holds_resources()) {
        let Some(spec) = state.spec(task.service, task.spec_version) else { continue };
        if host_ports(&spec.spec).any(|held| held == (protocol, port)) {
            let place = task.number().map_or_else(|| name(state, node.id), |number| number.to_string());
            holders.push((task.service, format!("{}.{place}", spec.spec.name)));
        }
    }
    holders
}

/// What a node has where a constraint looks.
fn found_value(constraint: &Constraint, node: &Node) -> String {
    let description = node.description.as_deref();
    let label = |value: Option<&String>| value.map_or("has no such label".to_owned(), |value| format!("has '{value}'"));
    match &constraint.key {
        ConstraintKey::NodeId => format!("is {}", node.id),
        ConstraintKey::Hostname => format!("is '{}'", node.hostname()),
        ConstraintKey::Ip => format!("is {}", node.status.addr),
        ConstraintKey::Role => format!("is a {}", node.role),
        ConstraintKey::Os => format!("is '{}'", description.map_or("", |d| &d.platform.os)),
        ConstraintKey::Arch => format!("is '{}'", description.map_or("", |d| &d.platform.architecture)),
        ConstraintKey::NodeLabel(key) => label(node.spec.labels.get(key)),
        ConstraintKey::EngineLabel(key) => label(description.and_then(|d| d.engine.labels.get(key))),
        ConstraintKey::Unknown(key) => format!("nothing is called {key}"),
    }
}
