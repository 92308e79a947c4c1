//! A cluster for the benchmarks: nodes and services, made through `apply` like any other.

use std::{sync::Arc, time::Duration};

use swarm_core::{Context, Dirty, ENTRY_TXS_MAX, ENTRY_VERSION, Entry, Event, Op, Plan, State, Tx, apply, decide};
use swarm_model::{
    Availability, Cluster, ClusterId, ClusterSpec, Id, JoinTokens, NodeDescription, NodeId, NodeRole, NodeSpec,
    NodeState, NodeStatus, Placement, Redacted, ResourceReservations, Resources, RootCa, ServiceId, ServiceMode,
    ServiceSpec, Timestamp,
};

/// The allocator of swarmd, with huge pages as swarmd has them once its state is large.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a task reserves is counted in this much CPU and memory.
pub(crate) const UNIT: (i64, i64) = (50_000_000, 64 << 20);

/// A state that grows by entries, with what they made dirty.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) dirty: Dirty,
    pub(crate) now: Timestamp,
    pub(crate) decisions: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_millis(1_000_000_000);
        let mut world = Self { state: State::default(), dirty: Dirty::default(), now, decisions: 0 };
        let mut spec = ClusterSpec::default();
        spec.fill_defaults();
        let cluster = Cluster {
            id: ClusterId(1),
            version: 0,
            created_at: now,
            updated_at: now,
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
        world.commit(vec![Tx::new(vec![level, Op::CreateCluster(Arc::new(cluster))])]);
        world
    }

    /// Applies one entry, all of whose transactions are to hold.
    pub(crate) fn commit(&mut self, txs: Vec<Tx>) -> Vec<Event> {
        let index = self.state.revision() + 1;
        let (outcomes, events) = apply(&mut self.state, index, &Entry { v: ENTRY_VERSION, at: self.now, txs });
        assert!(outcomes.iter().all(Result::is_ok), "a change fell: {:?}", outcomes.iter().find(|o| o.is_err()));
        events.iter().for_each(|event| self.dirty.mark(event));
        events
    }

    /// Applies many transactions in entries of the size that the log takes.
    pub(crate) fn commit_all(&mut self, txs: Vec<Tx>) {
        let mut txs = txs.into_iter().peekable();
        while txs.peek().is_some() {
            self.commit(txs.by_ref().take(ENTRY_TXS_MAX).collect());
        }
    }

    /// Decides what is dirty, a piece after another, each applied as the log would bring it. Returns how many seconds each
    /// decision took.
    pub(crate) fn decide_all(&mut self, mut look: impl FnMut(&Plan)) -> Vec<f64> {
        let mut left = std::mem::take(&mut self.dirty);
        let mut seconds = Vec::new();
        while !left.is_empty() {
            let start = cpu_seconds();
            let plan = decide(&self.state, &left, &Context::at(self.now, self.decisions));
            seconds.push(cpu_seconds() - start);
            self.decisions += 1;
            assert!(plan.refused.is_empty(), "a plan that its own clone refused: {:?}", plan.refused.first());
            look(&plan);
            left = plan.unfinished;
            self.commit_all(plan.txs);
        }
        seconds
    }

    /// A ready node with room for so many units.
    pub(crate) fn add_node(&mut self, number: usize, units: i64, labels: &[(&str, String)]) -> NodeId {
        let node = NodeId::make(self.now, number as u128);
        let mut description = NodeDescription { hostname: format!("node-{number}"), ..NodeDescription::default() };
        description.platform.os = "linux".into();
        description.platform.architecture = "x86_64".into();
        description.resources.nano_cpus = units * UNIT.0;
        description.resources.memory_bytes = units * UNIT.1;
        let admit = Op::AdmitNode {
            node,
            role: NodeRole::Worker,
            cert_expires_at: self.now,
            manager_addr: None,
            availability: Availability::Active,
        };
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let update =
            Op::UpdateNode { node, spec: NodeSpec { labels, ..NodeSpec::default() }.into(), drain_deadline: None };
        let status = ready();
        let report = Op::ReportNode { node, status, description: Some(description.into()) };
        self.commit(vec![Tx::new(vec![admit]), Tx::new(vec![update]), Tx::new(vec![report])]);
        node
    }

    /// A service whose tasks reserve so many units each.
    pub(crate) fn add_service(
        &mut self,
        number: usize,
        replicas: u64,
        units: i64,
        constraints: &[String],
    ) -> ServiceId {
        let mut spec = ServiceSpec { name: format!("service-{number}"), ..ServiceSpec::default() };
        spec.mode = ServiceMode::Replicated { replicas };
        spec.task_template.container_spec.image = "hello:1".into();
        let reservations =
            ResourceReservations { nano_cpus: units * UNIT.0, memory_bytes: units * UNIT.1, ..Default::default() };
        spec.task_template.resources = Some(Resources { reservations: Some(reservations), ..Resources::default() });
        if !constraints.is_empty() {
            spec.task_template.placement =
                Some(Placement { constraints: constraints.to_vec(), ..Placement::default() });
        }
        let service = ServiceId::make(self.now, number as u128);
        self.commit(vec![Tx::new(vec![Op::CreateService { service, spec: Arc::new(spec), registry_auth: None }])]);
        service
    }
}

/// Seconds that this process has used of processors: other work on the machine does not count.
pub(crate) fn cpu_seconds() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("Linux has this clock");
    Duration::from(time).as_secs_f64()
}

/// The status of a node that is well.
pub(crate) fn ready() -> NodeStatus {
    NodeStatus { state: NodeState::Ready, engine_reachable: true, ..NodeStatus::default() }
}

/// Prints one figure as `cargo xtask bench` reads it.
#[expect(clippy::print_stdout, reason = "a program whose output is its figures")]
pub(crate) fn print(name: &str, value: f64, unit: &str, params: &str) {
    println!("{{\"name\":\"{name}\",\"value\":{value},\"unit\":\"{unit}\",\"params\":{{{params}}}}}");
}
