//! What tests share: a state to play with, and consensus without a network or a disk.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use swarm_consensus::{Committed, Observer, ProposeError, Role};
use swarm_core::{ENTRY_VERSION, Entry, Event, NewTask, Op, Place, State, Tx, apply};
use swarm_model::{
    Availability, Cause, Cluster, ClusterId, ClusterSpec, DesiredState, JoinTokens, Labels, NetworkAddr,
    NetworkContent, NetworkSubnet, NodeDescription, NodeId, NodeRole, NodeState, NodeStatus, ObjectContent, ObjectId,
    Redacted, RootCa, ServiceId, ServiceSpec, TaskId, Timestamp,
};
use tokio::sync::watch;

use crate::{
    feed::{AssignmentKey, Changes, lock},
    raft::Raft,
};

pub(crate) const CLUSTER: ClusterId = ClusterId(77);

/// Ids that tests can foretell.
pub(crate) fn task_id(n: u32) -> TaskId {
    TaskId(u128::from(n) + 1)
}

pub(crate) fn cluster() -> Cluster {
    let mut spec = ClusterSpec::default();
    spec.fill_defaults();
    Cluster {
        id: CLUSTER,
        version: 0,
        created_at: Timestamp::ZERO,
        updated_at: Timestamp::ZERO,
        spec: Arc::new(spec),
        root_ca: Arc::new(RootCa::default()),
        join_tokens: Arc::new(JoinTokens { worker: Redacted::default(), manager: Redacted::default() }),
        removed_nodes: Default::default(),
        former_roots: Default::default(),
        unlock_key: None,
        overlay: Default::default(),
        root_rotation: None,
    }
}

pub(crate) fn description(hostname: &str) -> NodeDescription {
    let mut description = NodeDescription { hostname: hostname.to_owned(), ..NodeDescription::default() };
    description.resources.nano_cpus = 4_000_000_000;
    description.resources.memory_bytes = 8 << 30;
    description
}

pub(crate) fn admit(node: NodeId) -> Op {
    Op::AdmitNode {
        node,
        role: NodeRole::Worker,
        cert_expires_at: Timestamp(i64::MAX),
        manager_addr: None,
        availability: Availability::Active,
    }
}

pub(crate) fn ready(node: NodeId) -> Op {
    Op::ReportNode {
        node,
        status: NodeStatus { state: NodeState::Ready, engine_reachable: true, ..NodeStatus::default() },
        description: Some(Arc::new(description(&format!("host{}", node.0)))),
    }
}

pub(crate) fn service_spec(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "hello:1".to_owned();
    spec
}

/// Makes a network of the addresses 10.0.1.0/24.
pub(crate) fn network(id: ObjectId) -> Op {
    network_of(id, "net", 1, false)
}

/// Makes a network of the addresses 10.0.N.0/24.
pub(crate) fn network_of(id: ObjectId, name: &str, n: u32, attachable: bool) -> Op {
    let content = NetworkContent {
        vni: 4096 + n,
        data_port: NetworkContent::DATA_PORT_DEFAULT,
        subnets: vec![NetworkSubnet::new(format!("10.0.{n}.0/24").parse().expect("a subnet"))],
        internal: false,
        attachable,
        encrypted: false,
        mtu: None,
        options: Default::default(),
    };
    let content = Arc::new(ObjectContent::Network(content));
    Op::CreateObject { id, name: name.into(), labels: Labels::new(), content }
}

/// Gives a node a task with the id [`task_id`]`(n)`, which has the address 10.0.1.(n + 10) in a network.
pub(crate) fn task_in(state: &State, service: ServiceId, n: u32, node: NodeId, network: ObjectId) -> Op {
    let addr = NetworkAddr { network, addr: format!("10.0.1.{}", n + 10).parse().expect("an address") };
    Op::CreateTasks {
        service,
        spec_version: state.service(service).expect("it was made").spec_version,
        desired: DesiredState::Running,
        cause: Cause::Fill,
        beside: None,
        start_at: None,
        restarts: 0,
        tasks: vec![NewTask { id: task_id(n), slot: n, place: Place::On(node), addrs: [addr].into() }],
    }
}

/// A state, changed by entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) state: State,
    services: u128,
    events: Vec<Event>,
}

impl World {
    /// A cluster of so many ready nodes, with the ids from 1.
    pub(crate) fn new(nodes: u128) -> Self {
        let mut world = Self::default();
        world.apply(Op::RaiseFeatureLevel { level: ENTRY_VERSION });
        world.apply(Op::CreateCluster(Arc::new(cluster())));
        for node in (1..=nodes).map(NodeId) {
            world.apply(admit(node));
            world.apply(ready(node));
        }
        world
    }

    pub(crate) fn apply(&mut self, op: Op) {
        let index = self.state.revision() + 1;
        let at = Timestamp(i64::try_from(index).expect("small"));
        let (outcomes, events) =
            apply(&mut self.state, index, &Entry { v: ENTRY_VERSION, at, txs: vec![Tx::new(vec![op])] });
        assert_eq!(outcomes, [Ok(())]);
        self.events.extend(events);
    }

    /// What changed of what a node is assigned, since this was asked last.
    pub(crate) fn changes(&mut self, node: NodeId) -> Changes {
        let mut changes = Changes::default();
        let keys = self.events.drain(..).filter_map(|event| AssignmentKey::of(&event, &self.state));
        keys.filter(|(of, _)| *of == node).for_each(|(_, key)| changes.add(key));
        changes
    }

    pub(crate) fn service(&mut self, name: &str) -> ServiceId {
        self.service_with(name, |_| {})
    }

    pub(crate) fn service_with(&mut self, name: &str, change: impl FnOnce(&mut ServiceSpec)) -> ServiceId {
        self.services += 1;
        let service = ServiceId(self.services);
        let mut spec = service_spec(name);
        change(&mut spec);
        self.apply(Op::CreateService { service, spec: Arc::new(spec), registry_auth: None });
        service
    }

    pub(crate) fn credentials(&mut self, service: ServiceId, auth: Redacted) {
        let spec = self.state.service(service).expect("it was made").spec.clone();
        self.apply(Op::UpdateService { service, spec, registry_auth: Some(auth), alike: None });
    }

    /// Gives a node a task with the id [`task_id`]`(n)`.
    pub(crate) fn task(&mut self, service: ServiceId, n: u32, node: NodeId) -> TaskId {
        self.create_task(service, n, Place::On(node))
    }

    /// The same, but the task has to wait for room on its node.
    pub(crate) fn waiting_task(&mut self, service: ServiceId, n: u32, node: NodeId) -> TaskId {
        self.create_task(service, n, Place::PendingOn(node, "too few resources".into()))
    }

    fn create_task(&mut self, service: ServiceId, n: u32, place: Place) -> TaskId {
        let spec_version = self.state.service(service).expect("it was made").spec_version;
        self.apply(Op::CreateTasks {
            service,
            spec_version,
            desired: DesiredState::Running,
            cause: Cause::Fill,
            beside: None,
            start_at: None,
            restarts: 0,
            tasks: vec![NewTask { id: task_id(n), slot: n + 1, place, addrs: Default::default() }],
        });
        task_id(n)
    }
}

/// Consensus of one, in memory: what is proposed is applied at once.
pub(crate) struct FakeRaft {
    inner: Mutex<Inner>,
    observer: Arc<dyn Observer>,
    role: watch::Sender<Role>,
    settled: watch::Sender<bool>,
}

#[derive(Default)]
struct Inner {
    state: State,
    entries: Vec<Vec<Tx>>,
    failures: VecDeque<ProposeError>,
    leader_contact: Duration,
}

impl FakeRaft {
    /// A leader with this state.
    pub(crate) fn new(state: State, observer: Arc<dyn Observer>) -> Arc<Self> {
        observer.restored(&Arc::new(state.clone()));
        let inner = Mutex::new(Inner { state, ..Inner::default() });
        Arc::new(Self {
            inner,
            observer,
            role: watch::Sender::new(Role::Leader { term: 1 }),
            settled: watch::Sender::new(true),
        })
    }

    pub(crate) fn state(&self) -> State {
        lock(&self.inner).state.clone()
    }

    /// All that was proposed and committed.
    pub(crate) fn entries(&self) -> Vec<Vec<Tx>> {
        lock(&self.inner).entries.clone()
    }

    /// The next proposal fails like this.
    pub(crate) fn fail_next(&self, error: ProposeError) {
        lock(&self.inner).failures.push_back(error);
    }

    /// Whether all that is in the log is applied.
    pub(crate) fn set_settled(&self, settled: bool) {
        self.settled.send_replace(settled);
    }

    pub(crate) fn set_role(&self, role: Role) {
        self.role.send_replace(role);
    }

    /// So long ago the leader was last heard.
    pub(crate) fn set_leader_contact(&self, contact: Duration) {
        lock(&self.inner).leader_contact = contact;
    }

    /// Commits one operation of "somebody else".
    pub(crate) fn commit(&self, op: Op) {
        let committed = self.apply(vec![Tx::new(vec![op])]).expect("no failure was asked for");
        assert_eq!(committed.outcomes, [Ok(())]);
    }

    fn apply(&self, txs: Vec<Tx>) -> Result<Committed, ProposeError> {
        let leads = matches!(*self.role.borrow(), Role::Leader { .. });
        let mut inner = lock(&self.inner);
        if !leads {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let index = inner.state.revision() + 1;
        let at = Timestamp(i64::try_from(index).expect("small"));
        let entry = Entry { v: ENTRY_VERSION, at, txs };
        let (outcomes, events) = apply(&mut inner.state, index, &entry);
        inner.entries.push(entry.txs);
        self.observer.applied(&Arc::new(inner.state.clone()), &events);
        Ok(Committed { index, outcomes })
    }
}

impl Raft for FakeRaft {
    fn propose(&self, txs: Vec<Tx>) -> BoxFuture<'_, Result<Committed, ProposeError>> {
        let failure = lock(&self.inner).failures.pop_front();
        Box::pin(async move { failure.map_or_else(|| self.apply(txs), Err) })
    }

    fn write(&self, txs: Vec<Tx>) -> BoxFuture<'_, Result<Committed, ProposeError>> {
        self.propose(txs)
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<State, ProposeError>> {
        Box::pin(async move { Ok(self.state()) })
    }

    fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { drop(self.settled.subscribe().wait_for(|settled| *settled).await) })
    }

    fn leader_contact(&self) -> Option<Duration> {
        Some(lock(&self.inner).leader_contact)
    }
}
