//! Published ports: chosen, kept, refused, released, and taken through a snapshot.

use std::sync::Arc;

use swarm_core::{ENTRY_VERSION, Entry, FEATURE_LEVEL_MIN, Op, Outcome, Refusal, State, Tx, apply};
use swarm_model::{
    EndpointSpec, PortConfig, PortProtocol, PublishMode, PublishedPort, ServiceId, ServiceSpec, Timestamp,
};

#[derive(Default)]
struct World {
    state: State,
}

impl World {
    fn apply(&mut self, txs: Vec<Tx>) -> Vec<Outcome> {
        let index = self.state.revision() + 1;
        let entry = Entry { v: ENTRY_VERSION, at: Timestamp::from_millis(index as i64), txs };
        apply(&mut self.state, index, &entry).0
    }

    /// What a proposer makes of a change.
    fn propose(&self, op: Op) -> Result<Tx, Refusal> {
        Tx::new(vec![op]).with_ports(&self.state)
    }

    fn op(&mut self, op: Op) -> Outcome {
        let tx = self.propose(op)?;
        self.apply(vec![tx]).pop().expect("one transaction")
    }

    fn ports(&self, service: u128) -> Vec<(u16, u16)> {
        let service = self.state.service(ServiceId(service)).expect("the service is there");
        service.ports.iter().map(|port| (port.published, port.target)).collect()
    }
}

fn port(published_port: u16, target_port: u16, publish_mode: PublishMode) -> PortConfig {
    PortConfig { published_port, target_port, publish_mode, ..PortConfig::default() }
}

fn ingress(published: u16, target: u16) -> PortConfig {
    port(published, target, PublishMode::Ingress)
}

fn spec(name: &str, ports: &[PortConfig]) -> Arc<ServiceSpec> {
    let endpoint = EndpointSpec { ports: ports.to_vec(), ..EndpointSpec::default() };
    Arc::new(ServiceSpec { name: name.into(), endpoint_spec: Some(endpoint), ..ServiceSpec::default() })
}

fn create(service: u128, ports: &[PortConfig]) -> Op {
    let spec = spec(&format!("s{service}"), ports);
    Op::CreateService { service: ServiceId(service), spec, registry_auth: None }
}

fn update(service: u128, ports: &[PortConfig]) -> Op {
    let spec = spec(&format!("s{service}"), ports);
    Op::UpdateService { service: ServiceId(service), spec, registry_auth: None, alike: None }
}

fn roll_back(service: u128) -> Op {
    Op::RollBack { service: ServiceId(service), keep_previous: true, message: "by hand".into(), to: None }
}

#[test]
fn numbers_that_are_left_open_are_the_lowest_free_ones_and_stay() {
    let mut world = World::default();
    world.op(create(1, &[ingress(30_001, 80)])).unwrap();
    world.op(create(2, &[ingress(0, 80), ingress(9000, 81), ingress(0, 82)])).unwrap();
    assert_eq!(world.ports(2), [(30_000, 80), (9000, 81), (30_002, 82)]);
    // One is added, one goes, the others stay.
    world.op(update(2, &[ingress(0, 83), ingress(0, 82), ingress(9000, 81)])).unwrap();
    assert_eq!(world.ports(2), [(30_000, 83), (30_002, 82), (9000, 81)]);
    world.op(roll_back(2)).unwrap();
    assert_eq!(world.ports(2), [(30_000, 80), (9000, 81), (30_002, 82)]);
    world.op(update(2, &[])).unwrap();
    assert!(world.ports(2).is_empty());
    world.op(create(3, &[ingress(9000, 80)])).unwrap();
    world.op(Op::RemoveService { service: ServiceId(3) }).unwrap();
    world.op(create(4, &[ingress(9000, 80)])).unwrap();
}

#[test]
fn a_port_of_another_service_is_refused_by_name() {
    let mut world = World::default();
    world.op(create(1, &[ingress(9000, 80), ingress(0, 80)])).unwrap();
    world.op(create(2, &[port(8000, 80, PublishMode::Host)])).unwrap();
    let cases = [
        (ingress(9000, 1), "'9000' is already in use by service 's1'", "an ingress port"),
        (ingress(30_000, 1), "'30000' is already in use by service 's1'", "an ingress port"),
        (port(9000, 1, PublishMode::Host), "'9000' is already in use by service 's1'", "an ingress port"),
        (ingress(8000, 1), "'8000' is already in use by service 's2'", "a host-published port"),
    ];
    for (port, name, mode) in cases {
        for op in [create(3, std::slice::from_ref(&port)), update(2, &[port])] {
            if matches!(op, Op::UpdateService { .. }) && name.contains("s2") {
                continue;
            }
            let Err(Refusal::Invalid(text)) = world.op(op) else { panic!("it is refused") };
            assert!(text.contains(name) && text.ends_with(mode), "{text}");
        }
    }
    world.op(create(3, &[port(8000, 80, PublishMode::Host)])).unwrap();
    let udp = PortConfig { protocol: PortProtocol::Udp, ..ingress(9000, 80) };
    world.op(create(4, &[udp])).unwrap();
}

#[test]
fn of_two_proposals_with_the_same_number_one_is_made_anew() {
    let mut world = World::default();
    let txs = [1, 2].map(|service| world.propose(create(service, &[ingress(0, 80)])).unwrap());
    let outcomes = world.apply(txs.to_vec());
    assert_eq!(outcomes[0], Ok(()));
    assert!(matches!(outcomes[1], Err(Refusal::Stale(_))), "{outcomes:?}");
    assert!(world.state.service(ServiceId(2)).is_none(), "the transaction fell as a whole");
    world.op(create(2, &[ingress(0, 80)])).unwrap();
    assert_eq!(world.ports(2), [(30_001, 80)]);
    // A number that both users named is theirs to change.
    let txs = [3, 4].map(|service| world.propose(create(service, &[ingress(9000, 80)])).unwrap());
    assert!(matches!(world.apply(txs.to_vec())[1], Err(Refusal::Invalid(_))));
}

#[test]
fn the_numbers_can_run_out() {
    let mut world = World::default();
    let all: Vec<_> = (30_000..=32_767).map(|number| ingress(number, number)).collect();
    world.op(create(1, &all)).unwrap();
    let Err(Refusal::Invalid(text)) = world.op(create(2, &[ingress(0, 80)])) else { panic!("there is none") };
    assert!(text.contains("no tcp port between 30000 and 32767 is free for port 80"), "{text}");
}

#[test]
fn ports_come_through_a_snapshot_and_need_their_feature_level() {
    let mut world = World::default();
    world.op(create(1, &[ingress(0, 80)])).unwrap();
    let copy = State::import(world.state.export());
    assert_eq!(copy.service(ServiceId(1)), world.state.service(ServiceId(1)));
    world.state = copy;
    world.op(create(2, &[ingress(0, 80)])).unwrap();
    assert_eq!(world.ports(2), [(30_001, 80)]);
    let port = PublishedPort { protocol: PortProtocol::Tcp, published: 1, target: 1 };
    assert!(Op::SetPorts { service: ServiceId(1), ports: [port].into() }.feature_level() > FEATURE_LEVEL_MIN);
}
