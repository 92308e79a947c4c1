//! Operators: what people do to a cluster, at random.

use std::sync::Arc;

use serde_json::Value;
use swarm_agent::Input;
use swarm_core::{ENTRY_VERSION, Guard, Op, Tx};
use swarm_model::{
    Availability, Cluster, ClusterSpec, JoinTokens, Labels, NodeId, NodeResources, NodeRole, NodeSpec, NodeState,
    ObjectContent, ObjectId, PlacementStrategy, Redacted, RootCa, SecretContent, Service, ServiceId, ServiceMode,
    ServiceSpec, Settings, validate_service_spec,
};

use crate::{
    engine::Engine,
    event::Event,
    host::Host,
    log::Origin,
    ports,
    specs::{self, ZONES},
    world::World,
};

/// Mean time between two operations.
const OPERATION_EVERY_MS: u64 = 8_000;

/// Services at a time; then some are removed.
const SERVICES_MAX: usize = 16;

impl World {
    /// The cluster object, as `swarm init` makes it.
    pub(crate) fn found(&mut self) {
        let mut spec = ClusterSpec::default();
        spec.orchestration.task_history_retention_limit = i64::try_from(self.rng.between(1, 5)).ok();
        // The default is 2 s; some are content with Swarm's 5 s, or with less.
        let seconds = self.rng.pick(&[2, 5, 5, 10]).copied().unwrap_or(2);
        spec.dispatcher.heartbeat_period_ns = seconds * 1_000_000_000;
        spec.fill_defaults();
        let cluster = Cluster {
            id: self.id(),
            version: 0,
            created_at: self.wall(),
            updated_at: self.wall(),
            spec: Arc::new(spec),
            root_ca: Arc::new(RootCa::default()),
            join_tokens: Arc::new(JoinTokens { worker: Redacted::default(), manager: Redacted::default() }),
            removed_nodes: Default::default(),
            former_roots: Default::default(),
            unlock_key: None,
            overlay: Default::default(),
            root_rotation: None,
        };
        let level = Op::RaiseFeatureLevel { level: ENTRY_VERSION };
        let secrets = (1..=specs::SECRETS).map(|number| Op::CreateObject {
            id: ObjectId(number),
            name: format!("secret{number}"),
            labels: Labels::new(),
            content: Arc::new(ObjectContent::Secret(SecretContent {
                data: b"s3cret".to_vec().into(),
                templating: None,
            })),
        });
        let ops = [level, Op::CreateCluster(Arc::new(cluster))].into_iter().chain(secrets);
        self.commit_now(vec![Tx::new(ops.collect())]);
    }

    /// A machine joins the cluster. Its certificate is issued at once; its agent starts a little later.
    pub(crate) fn join(&mut self) {
        self.named += 1;
        let node: NodeId = self.id();
        let cpus = self.rng.pick(&[2, 2, 4, 8]).copied().unwrap_or(4);
        let generic_resources = specs::offered(&mut self.rng);
        let resources = NodeResources { nano_cpus: cpus * 1_000_000_000, memory_bytes: cpus << 30, generic_resources };
        let admit = Op::AdmitNode {
            node,
            role: NodeRole::Worker,
            cert_expires_at: self.wall().plus_ns(ClusterSpec::NODE_CERT_EXPIRY_DEFAULT_NS),
            manager_addr: None,
            availability: Availability::Active,
        };
        let mut spec = NodeSpec::default();
        if let Some(zone) = self.rng.pick(&["a", "a", "b", "c", ""]).filter(|zone| !zone.is_empty()) {
            spec.labels.insert("zone".into(), (*zone).into());
        }
        self.commit_now(vec![Tx::new(vec![
            admit,
            Op::UpdateNode { node, spec: Arc::new(spec), drain_deadline: None },
        ])]);
        self.hosts.insert(node, Host::new(format!("host{}", self.named), Engine::new(resources)));
        let delay = self.rng.between(10, 3_000);
        self.after(delay, Event::Start { node });
    }

    /// One operation, and the time of the next.
    pub(crate) fn operate(&mut self) {
        if self.healed {
            return self.tidy();
        }
        let next = self.rng.between(1, 2 * OPERATION_EVERY_MS);
        self.after(next, Event::Operate);
        let services: Vec<Arc<Service>> = self.log.state.services().cloned().collect();
        let nodes: Vec<NodeId> = self.hosts.iter().filter(|(_, host)| !host.gone).map(|(node, _)| *node).collect();
        let few = services.len() < 4;
        let choice = if few { 0 } else { self.rng.below(100) };
        let service = self.rng.pick(&services).cloned();
        let node = self.rng.pick(&nodes).copied();
        match (choice, service, node) {
            (0..14, ..) if services.len() < SERVICES_MAX => self.create(),
            (0..20, Some(service), _) => {
                let id = service.id;
                self.submit("remove service", Tx::new(vec![Op::RemoveService { service: id }]));
            }
            (20..30, Some(service), _) => {
                let replicas = specs::replicas(&mut self.rng);
                self.change("scale", &service, |_, spec| match &mut spec.mode {
                    ServiceMode::Replicated { replicas: current } => *current = replicas,
                    ServiceMode::ReplicatedJob(job) => job.total_completions = Some(replicas),
                    ServiceMode::Global | ServiceMode::GlobalJob => {}
                });
            }
            (30..46, Some(service), _) => self.change("update", &service, |rng, spec| {
                spec.task_template.container_spec.image = specs::image(rng, spec.mode.is_job());
            }),
            (46..49, Some(service), _) => self.change("change settings", &service, specs::settings),
            (49..51, Some(service), _) if can_be_even(&service) => {
                let op = Op::SetRebalance { service: service.id, asked: true };
                self.submit("rebalance", Tx::new(vec![op]).guard(as_seen(&service)));
            }
            (49..53, Some(service), _) => self.change("change policies", &service, specs::policies),
            (53..57, Some(service), _) => self.change("change constraints", &service, |rng, spec| {
                spec.task_template.placement = Some(specs::placement(rng));
            }),
            (57..61, Some(service), _) => self.change("force update", &service, |_, spec| {
                spec.task_template.force_update += 1;
                let secrets = specs::secrets(spec.task_template.force_update);
                let extra = &mut spec.task_template.container_spec.extra;
                // To name none is the same as to have none, in two ways.
                match secrets.is_empty() {
                    true if spec.task_template.force_update % 8 == 3 => {
                        drop(extra.insert("Secrets".into(), Value::Null))
                    }
                    true => drop(extra.remove("Secrets")),
                    false => drop(extra.insert("Secrets".into(), secrets.into())),
                }
            }),
            (61..67, Some(service), _) if service.previous.is_some() => {
                let message = "manually requested rollback".into();
                let op = Op::RollBack { service: service.id, keep_previous: true, message, to: None };
                self.submit("roll back", Tx::new(vec![op]).guard(as_seen(&service)));
            }
            (67..74, _, Some(node)) => self.set_availability(node, Availability::Drain),
            (74..78, _, Some(node)) => self.set_availability(node, Availability::Pause),
            (78..90, ..) => self.activate_one(),
            (90..94, _, Some(node)) => self.label(node),
            (94..97, ..) => {
                self.counts.operation("join node");
                self.join();
            }
            (97.., _, Some(node)) if nodes.len() as u32 > self.options.nodes => self.remove_node(node),
            _ => {}
        }
    }

    fn submit(&mut self, name: &'static str, tx: Tx) {
        self.note(|| format!("operator: {name}"));
        // No other operation has this moment. Drawn at random it would change what is drawn after it.
        let Ok(tx) = tx.with_ports(&self.log.state) else {
            return self.counts.other("operations refused or unknown");
        };
        let tx = tx.stamped(&self.log.state, self.now_ms.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.propose(vec![tx], Origin::Operator(name));
    }

    fn create(&mut self) {
        self.named += 1;
        let (mode, name) = specs::mode(&mut self.rng);
        let mut spec = specs::service(&mut self.rng, format!("s{}", self.named), mode);
        let secrets = specs::secrets(self.named);
        if !secrets.is_empty() {
            self.counts.operation("use secrets");
            spec.task_template.container_spec.extra.insert("Secrets".into(), secrets.into());
        }
        let service: ServiceId = self.id();
        if let Some(name) = ports::publish(&mut self.side, &mut spec) {
            self.counts.operation(name);
        }
        if let Some(spec) = self.valid(spec) {
            self.submit(name, Tx::new(vec![Op::CreateService { service, spec, registry_auth: None }]));
        }
    }

    /// What the API would let through.
    fn valid(&mut self, spec: ServiceSpec) -> Option<Arc<ServiceSpec>> {
        match validate_service_spec(&spec) {
            Ok(()) => {
                for key in spec.labels.keys() {
                    self.counts.setting(key);
                }
                if !spec.task_template.reservations().generic_resources.is_empty() {
                    self.counts.operation("reserve generic resources");
                }
                Some(Arc::new(spec))
            }
            Err(error) => {
                self.complain(format!("the simulator made a bad spec: {error}: {spec:?}"));
                None
            }
        }
    }

    fn change(
        &mut self,
        name: &'static str,
        service: &Service,
        change: impl FnOnce(&mut crate::rng::Rng, &mut ServiceSpec),
    ) {
        let mut spec = ServiceSpec::clone(&service.spec);
        change(&mut self.rng, &mut spec);
        if let Some(name) = ports::change(&mut self.side, &mut spec) {
            self.counts.operation(name);
        }
        if let Some(spec) = self.valid(spec) {
            let op = Op::update_service(&self.log.state, service, spec, None);
            self.submit(name, Tx::new(vec![op]).guard(as_seen(service)));
        }
    }

    fn node_spec(&self, node: NodeId) -> Option<NodeSpec> {
        self.log.state.node(node).map(|node| NodeSpec::clone(&node.spec))
    }

    fn set_availability(&mut self, node: NodeId, availability: Availability) {
        let Some(mut spec) = self.node_spec(node) else { return };
        // Somebody looks after a cluster: most of it stays in use.
        let out = self.log.state.nodes().filter(|n| n.spec.availability != Availability::Active).count();
        if availability != Availability::Active && out * 4 > self.hosts.len() {
            return;
        }
        spec.availability = availability;
        let name = match availability {
            Availability::Active => "activate node",
            Availability::Pause => "pause node",
            Availability::Drain => "drain node",
        };
        // Half of the drains go by the services' policies, for a while.
        let by_policy = availability == Availability::Drain && node.0.is_multiple_of(2);
        let timeout_s = 10 + i64::from(node.0 as u8) * 5;
        let drain_deadline = by_policy.then(|| self.wall().plus_ns(timeout_s * 1_000_000_000));
        self.submit(name, Tx::new(vec![Op::UpdateNode { node, spec: Arc::new(spec), drain_deadline }]));
    }

    fn activate_one(&mut self) {
        let idle = |node: &&Arc<swarm_model::Node>| node.spec.availability != Availability::Active;
        let idle: Vec<NodeId> = self.log.state.nodes().filter(idle).map(|node| node.id).collect();
        if let Some(node) = self.rng.pick(&idle).copied() {
            self.set_availability(node, Availability::Active);
        }
    }

    fn label(&mut self, node: NodeId) {
        let Some(mut spec) = self.node_spec(node) else { return };
        let zone = self.rng.pick(&ZONES).copied().unwrap_or("a");
        if spec.labels.get("zone").is_some_and(|found| found == zone) {
            spec.labels.remove("zone");
        } else {
            spec.labels.insert("zone".into(), zone.into());
        }
        let drain_deadline = self.log.state.node(node).and_then(|node| node.drain_deadline);
        self.submit("label node", Tx::new(vec![Op::UpdateNode { node, spec: Arc::new(spec), drain_deadline }]));
    }

    /// A node leaves by itself, or its machine is lost for good and it is removed by force.
    fn remove_node(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if self.rng.per_mille(500) && host.worker.is_some() {
            let boot = host.boot;
            return self.hear(node, boot, Input::Leave);
        }
        host.gone = true;
        self.kill_agent(node, false);
        self.submit("leave and remove node", Tx::new(vec![Op::RemoveNode { node, force: true }]));
    }

    /// A node has left: its machine has no containers any more, and an operator may remove it once it is down.
    pub(crate) fn host_left(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.gone = true;
        let left = host.engine.containers.len();
        if left > 0 {
            self.complain(format!("node {node} says that it left with {left} containers still there"));
        }
        self.kill_agent(node, true);
        self.submit("leave and remove node", Tx::new(vec![Op::RemoveNode { node, force: false }]));
    }

    /// At the end all nodes take tasks again, and those that are lost for good are removed.
    fn tidy(&mut self) {
        if self.leader.is_none() {
            return self.after(1_000, Event::Operate);
        }
        let mut waits = false;
        let nodes: Vec<Arc<swarm_model::Node>> = self.log.state.nodes().cloned().collect();
        for node in nodes {
            if self.hosts.get(&node.id).is_none_or(|host| host.gone) {
                self.submit("leave and remove node", Tx::new(vec![Op::RemoveNode { node: node.id, force: true }]));
                waits = true;
            } else if node.spec.availability != Availability::Active {
                let spec = NodeSpec { availability: Availability::Active, ..NodeSpec::clone(&node.spec) };
                let op = Op::UpdateNode { node: node.id, spec: Arc::new(spec), drain_deadline: None };
                self.submit("activate node", Tx::new(vec![op]));
                waits = true;
            }
            waits |= node.status.state != NodeState::Ready;
        }
        if waits {
            self.after(10_000, Event::Operate);
        }
    }
}

/// Whether the API lets a service be rebalanced.
fn can_be_even(service: &Service) -> bool {
    matches!(service.spec.mode, ServiceMode::Replicated { .. })
        && Settings::of(&service.spec.labels).strategy == PlacementStrategy::Spread
}

/// The service is as the operator saw it.
fn as_seen(service: &Service) -> Guard {
    Guard::Service { service: service.id, version: service.version }
}
