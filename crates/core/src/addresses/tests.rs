use std::collections::BTreeMap;

use swarm_model::{
    Cause, DesiredState, Labels, NetworkAttachment, NetworkContent, NodeId, NodeRole, TaskState, TaskStatus,
};

use super::*;
use crate::{Entry, NewTask, Object, Place, apply, entry::ENTRY_VERSION};

const NETWORK: ObjectId = ObjectId(7);
pub(crate) const NODE: NodeId = NodeId(1);
const SECOND_NS: i64 = 1_000_000_000;

/// A state with a node and a network of addresses 10.0.1.2 to 10.0.1.6.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) time: Timestamp,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self { state: State::default(), time: Timestamp(1) };
        world.apply(Op::RaiseFeatureLevel { level: ENTRY_VERSION }).expect("a level");
        let admit = Op::AdmitNode {
            node: NODE,
            role: NodeRole::Worker,
            cert_expires_at: Timestamp(i64::MAX),
            manager_addr: None,
            availability: Default::default(),
        };
        world.apply(admit).expect("a node");
        world.apply(create(NETWORK, "net", network(4097, "10.0.1.0/29"))).expect("a network");
        world
    }

    pub(crate) fn apply(&mut self, op: Op) -> Outcome {
        self.apply_tx(Tx::new(vec![op]))
    }

    fn apply_tx(&mut self, tx: Tx) -> Outcome {
        let entry = Entry { v: ENTRY_VERSION, at: self.time, txs: vec![tx] };
        let index = self.state.revision() + 1;
        apply(&mut self.state, index, &entry).0.remove(0)
    }

    fn service(&mut self, id: u128, mode: EndpointMode) -> Outcome {
        let tx = Tx::new(vec![Op::CreateService {
            service: ServiceId(id),
            spec: spec(id, mode).into(),
            registry_auth: None,
        }]);
        let tx = tx.with_virtual_addrs(&self.state)?;
        self.apply_tx(tx)
    }

    fn choose(&self, service: u128) -> Result<String, Exhausted> {
        let chosen = Choice::default().next(&self.state, ServiceId(service), std::iter::once(NETWORK), self.time)?;
        Ok(chosen.iter().map(|at| at.addr.to_string()).collect())
    }

    fn task(&mut self, service: u128, id: u128, addr: &str) -> Outcome {
        let addrs: Arc<[NetworkAddr]> = [NetworkAddr { network: NETWORK, addr: ip(addr) }].into();
        let spec_version = self.state.service(ServiceId(service)).expect("a service").spec_version;
        self.apply(Op::CreateTasks {
            service: ServiceId(service),
            spec_version,
            desired: DesiredState::Running,
            cause: Cause::Fill,
            beside: None,
            start_at: None,
            restarts: 0,
            tasks: vec![NewTask { id: TaskId(id), slot: id as u32, place: Place::On(NODE), addrs }],
        })
    }

    fn end(&mut self, id: u128) {
        let status = TaskStatus::new(TaskState::Failed, self.time);
        self.apply(Op::EndTasks { status, tasks: vec![TaskId(id)] }).expect("the end of a task");
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn create(id: ObjectId, name: &str, network: NetworkContent) -> Op {
    let content = Arc::new(ObjectContent::Network(network));
    Op::CreateObject { id, name: name.into(), labels: Labels::new(), content }
}

pub(crate) fn network(vni: u32, range: &str) -> NetworkContent {
    NetworkContent {
        vni,
        data_port: 4789,
        subnets: vec![NetworkSubnet::new(range.parse().expect("a subnet"))],
        internal: false,
        attachable: false,
        encrypted: false,
        mtu: None,
        options: BTreeMap::new(),
    }
}

fn spec(id: u128, mode: EndpointMode) -> ServiceSpec {
    let mut spec = ServiceSpec { name: format!("s{id}"), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "image".into();
    spec.task_template.networks = vec![NetworkAttachment { target: NETWORK.to_string(), ..Default::default() }];
    spec.endpoint_spec.get_or_insert_default().mode = Some(mode);
    spec
}

#[test]
fn the_next_address_is_chosen_and_one_that_was_given_back_rests() {
    let mut world = World::new();
    world.service(1, EndpointMode::Dnsrr).expect("a service");
    world.service(2, EndpointMode::Dnsrr).expect("a service");
    for (task, addr) in [(1, "10.0.1.2"), (2, "10.0.1.3"), (3, "10.0.1.4")] {
        assert_eq!(world.choose(1).expect("free"), addr);
        world.task(1, task, addr).expect("free");
    }
    world.end(1);
    assert_eq!(world.choose(1).expect("free"), "10.0.1.5", "the next one, although a lower one is free");
    world.task(1, 4, "10.0.1.5").expect("free");
    world.task(1, 5, "10.0.1.6").expect("free");
    // The service itself can have its address again at once, another one after a rest.
    assert_eq!(world.choose(1).expect("free"), "10.0.1.2");
    let full = world.choose(2).expect_err("all taken, or at rest");
    assert_eq!(
        &*full.reason,
        "network net has no free address in 10.0.1.0/29: 4 of 6 are taken and 1 were given back less than 60 s ago"
    );
    let until = full.until.expect("an address comes free");
    world.time = until.plus_ns(-SECOND_NS);
    assert!(world.choose(2).is_err());
    world.time = until;
    assert_eq!(world.choose(2).expect("rested"), "10.0.1.2");
}

#[test]
fn nobody_gets_an_address_that_somebody_has() {
    let mut world = World::new();
    world.service(1, EndpointMode::Vip).expect("a service");
    let service = world.state.service(ServiceId(1)).expect("made").clone();
    assert_eq!(service.virtual_addrs.iter().map(|at| at.addr.to_string()).collect::<Vec<_>>(), ["10.0.1.2"]);
    assert!(matches!(world.task(1, 1, "10.0.1.2"), Err(Refusal::Stale(_))), "it is the service's");
    assert!(matches!(world.task(1, 1, "10.0.9.2"), Err(Refusal::Stale(_))), "it is in no subnet");
    world.task(1, 1, "10.0.1.3").expect("free");
    assert!(matches!(world.task(1, 2, "10.0.1.3"), Err(Refusal::Stale(_))), "it is another task's");
    let addrs: Arc<[NetworkAddr]> = [NetworkAddr { network: NETWORK, addr: ip("10.0.1.3") }].into();
    let set = Op::SetVirtualAddrs { service: ServiceId(1), addrs };
    assert!(matches!(world.apply(set), Err(Refusal::Stale(_))));
    assert_eq!(world.state.service(ServiceId(1)), Some(&service));
}

#[test]
fn a_service_keeps_its_virtual_address_until_its_spec_names_the_network_no_more() {
    let mut world = World::new();
    world.service(1, EndpointMode::Vip).expect("a service");
    let update = |world: &mut World, spec: ServiceSpec| {
        let op = Op::UpdateService {
            service: ServiceId(1),
            spec: spec.into(),
            registry_auth: None,
            alike: Some(Default::default()),
        };
        let tx = Tx::new(vec![op]).stamped(&world.state, world.state.revision() + 1_000);
        let tx = tx.with_virtual_addrs(&world.state).expect("free addresses");
        world.apply_tx(tx).expect("an update");
        world.state.service(ServiceId(1)).expect("there").virtual_addrs.len()
    };
    let mut changed = spec(1, EndpointMode::Vip);
    changed.labels.insert("a".into(), "b".into());
    assert_eq!(update(&mut world, changed), 1);
    assert_eq!(update(&mut world, spec(1, EndpointMode::Dnsrr)), 0);
    assert_eq!(world.state.addresses.held.len(), 0);
    assert_eq!(update(&mut world, spec(1, EndpointMode::Vip)), 1);
    world.apply(Op::RemoveService { service: ServiceId(1) }).expect("an end");
    assert_eq!(world.state.addresses.held.len(), 0);
}

#[test]
fn networks_have_numbers_and_subnets_of_their_own() {
    let mut world = World::new();
    let same_vni = world.apply(create(ObjectId(8), "a", network(4097, "10.0.2.0/24")));
    assert!(matches!(same_vni, Err(Refusal::Stale(_))), "{same_vni:?}");
    let overlaps = world.apply(create(ObjectId(8), "a", network(4098, "10.0.0.0/16")));
    assert!(matches!(&overlaps, Err(Refusal::Stale(text)) if text.contains("network net")), "{overlaps:?}");
    world.apply(create(ObjectId(8), "a", network(4098, "10.0.2.0/24"))).expect("another network");
    world.service(1, EndpointMode::Vip).expect("a service");
    let key = |id| ObjectKey { kind: ObjectKind::Network, id };
    let in_use = world.apply(Op::RemoveObject { object: key(NETWORK) });
    assert!(matches!(&in_use, Err(Refusal::Invalid(text)) if text.contains("s1")), "{in_use:?}");
    world.apply(Op::RemoveService { service: ServiceId(1) }).expect("an end");
    world.apply(Op::RemoveObject { object: key(NETWORK) }).expect("nobody uses it");
    assert_eq!(world.state.network_of_vni(4097), None);
    assert!(world.state.addresses.freed.is_empty() && world.state.addresses.last.is_empty());
}

#[test]
fn a_snapshot_leads_to_the_same_choices() {
    let mut world = World::new();
    world.service(1, EndpointMode::Vip).expect("a service");
    world.task(1, 1, "10.0.1.3").expect("free");
    world.task(1, 2, "10.0.1.4").expect("free");
    world.end(1);
    let pieces: Vec<Object> = world.state.export().collect();
    let bytes = pieces.iter().map(|piece| rmp_serde::to_vec_named(piece).expect("a piece"));
    let read = State::import(bytes.map(|bytes| rmp_serde::from_slice(&bytes).expect("a piece")));
    let shown = |state: &State| {
        let Addresses { held, freed, last, vnis } = state.addresses.clone();
        (held, freed, last, vnis)
    };
    assert_eq!(shown(&read), shown(&world.state));
}
