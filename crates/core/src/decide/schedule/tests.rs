//! The lazy order is that of a walk over all nodes for each task.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use swarm_model::{
    Availability, Cause, DesiredState, Id, Node, NodeDescription, NodeId, NodeRole, NodeSpec, NodeState, NodeStatus,
    PlacementStrategy, ServiceId, ServiceSpec, Settings, TaskId, TaskState, TaskStatus, Timestamp,
};

use super::*;
use crate::{ENTRY_VERSION, Entry, Event, NewTask, Op, Tx, apply};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

/// For each task in turn, the best of these nodes.
fn walk(state: &State, request: &Request<'_>, count: usize, among: &dyn Fn(NodeId) -> bool) -> Vec<NodeId> {
    let mut claims = BTreeMap::new();
    let descriptors = spread_descriptors(&request.service.spec);
    std::iter::from_fn(|| {
        let nodes: Vec<&Node> = state.nodes().map(|node| &**node).collect();
        let node = best(state, request, &claims, &descriptors, nodes, among)?;
        *claims.entry(node).or_insert(0) += 1;
        Some(node)
    })
    .take(count)
    .collect()
}

fn best(
    state: &State,
    request: &Request<'_>,
    claims: &BTreeMap<NodeId, u32>,
    descriptors: &[String],
    nodes: Vec<&Node>,
    among: &dyn Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let of_service = active_of_service(state, request.service);
    let claims_of = |node: &Node| claims.get(&node.id).copied().unwrap_or(0);
    let tasks_of = |node: &Node| of_service.get(&node.id).copied().unwrap_or(0) + claims_of(node);
    if let Some((descriptor, deeper)) = descriptors.split_first() {
        let mut branches: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
        for node in nodes {
            branches.entry(label(descriptor, node)).or_default().push(node);
        }
        let mut branches: Vec<_> = branches.into_iter().collect();
        branches.sort_by_key(|(name, nodes)| (nodes.iter().map(|node| tasks_of(node)).sum::<u32>(), *name));
        return branches.into_iter().find_map(|(_, nodes)| best(state, request, claims, deeper, nodes, among));
    }
    let settings = Settings::of(&request.service.spec.labels);
    let failures = recent_failures(state, request.service);
    let rank = |node: &Node| {
        let (load, claims) = (state.load(node.id), claims_of(node));
        let first = (failures.get(&node.id).map_or(0, |found| found.count), filter::missed(&settings.prefer, node));
        let active = i64::from(load.active + claims);
        match settings.strategy {
            PlacementStrategy::Spread => (first, i64::from(tasks_of(node)), active, node.id),
            PlacementStrategy::Pack => {
                let asked = request.asked.cloned().unwrap_or_default();
                (first, -(load.reserved_share_ppm(&asked, claims) as i64), -active, node.id)
            }
        }
    };
    let can = |node: &&Node| {
        among(node.id) && request.check(node, &state.load(node.id), tasks_of(node), claims_of(node)).is_ok()
    };
    nodes.into_iter().filter(can).min_by_key(|node| rank(node)).map(|node| node.id)
}

#[derive(Clone, Debug)]
struct Machine {
    cpus: i64,
    zone: Option<u8>,
    disk: u8,
    gpus: i64,
    is_ready: bool,
    /// Tasks of the services, and whether each of them failed.
    tasks: Vec<(usize, bool)>,
}

fn machine() -> impl Strategy<Value = Machine> {
    let tasks = prop::collection::vec((0..4_usize, prop::bool::weighted(0.7)), 0..12);
    (1..6_i64, prop::option::of(0..3_u8), 0..2_u8, 0..3_i64, prop::bool::weighted(0.9), tasks)
        .prop_map(|(cpus, zone, disk, gpus, is_ready, tasks)| Machine { cpus, zone, disk, gpus, is_ready, tasks })
}

fn service() -> impl Strategy<Value = serde_json::Value> {
    let spreads =
        prop::sample::select(vec![vec![], vec!["node.labels.zone"], vec!["node.labels.zone", "node.labels.disk"]]);
    let constraint = prop::sample::select(vec![
        vec![],
        vec!["node.labels.disk==d1"],
        vec!["node.labels.zone!=z0", "node.role==worker"],
    ]);
    let labels = prop::sample::select(vec![
        serde_json::json!({}),
        serde_json::json!({"swarmd.placement": "pack"}),
        serde_json::json!({"swarmd.placement.prefer": "node.labels.disk==d1,node.labels.zone!=z2"}),
        serde_json::json!({"swarmd.placement": "pack", "swarmd.placement.prefer": "node.labels.zone==z1"}),
    ]);
    (spreads, constraint, labels, 0..3_i64, 0..2_i64, 0..3_u64, prop::bool::weighted(0.2)).prop_map(
        |(spreads, constraints, labels, halves, gpus, max_replicas, port)| {
            let spread = |s: &&str| serde_json::json!({"Spread": {"SpreadDescriptor": s}});
            let http = serde_json::json!({"TargetPort": 80, "PublishedPort": 80, "PublishMode": "host"});
            let generic = match gpus {
                0 => serde_json::json!([]),
                n => serde_json::json!([{"DiscreteResourceSpec": {"Kind": "gpu", "Value": n}}]),
            };
            serde_json::json!({
                "Labels": labels,
                "EndpointSpec": {"Ports": if port { vec![http] } else { vec![] }},
                "TaskTemplate": {
                    "Resources": {"Reservations": {"NanoCPUs": halves * 500_000_000, "GenericResources": generic}},
                    "Placement": {
                        "Constraints": constraints,
                        "Preferences": spreads.iter().map(spread).collect::<Vec<_>>(),
                        "MaxReplicas": max_replicas * 2,
                    },
                },
            })
        },
    )
}

fn commit(state: &mut State, ops: Vec<Op>) {
    let index = state.revision() + 1;
    let txs = ops.into_iter().map(|op| Tx::new(vec![op])).collect();
    apply(state, index, &Entry { v: ENTRY_VERSION, at: NOW, txs });
}

/// One task of a service on a node. It falls where there is no room for it, which is just as well.
fn add_task(state: &mut State, number: u32, service: ServiceId, place: Place) -> TaskId {
    let id = TaskId::make(NOW, u128::from(number));
    let service = state.service(service).expect("made before").clone();
    let task = NewTask { id, slot: number, place, addrs: Default::default() };
    commit(
        state,
        vec![Op::CreateTasks {
            service: service.id,
            spec_version: service.spec_version,
            desired: DesiredState::Running,
            cause: Cause::Fill,
            beside: None,
            restarts: 0,
            start_at: None,
            tasks: vec![task],
        }],
    );
    id
}

fn build(machines: &[Machine], services: &[serde_json::Value]) -> State {
    let mut state = State::default();
    for (number, service) in services.iter().enumerate() {
        let mut spec: ServiceSpec = serde_json::from_value(service.clone()).expect("valid");
        spec.name = format!("s{number}");
        let create = Op::CreateService { service: ServiceId(number as u128), spec: spec.into(), registry_auth: None };
        commit(&mut state, vec![create]);
    }
    let mut made = 0;
    for (number, machine) in machines.iter().enumerate() {
        let node = NodeId::make(NOW, number as u128);
        let mut labels = swarm_model::Labels::new();
        labels.insert("disk".into(), format!("d{}", machine.disk));
        labels.extend(machine.zone.map(|zone| ("zone".to_owned(), format!("z{zone}"))));
        let mut description = NodeDescription::default();
        description.resources.nano_cpus = machine.cpus * 1_000_000_000;
        description.resources.generic_resources = serde_json::from_value(serde_json::json!(
            [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": machine.gpus}}]
        ))
        .expect("valid");
        let state_of = if machine.is_ready { NodeState::Ready } else { NodeState::Unknown };
        let status = NodeStatus { state: state_of, engine_reachable: true, ..NodeStatus::default() };
        commit(
            &mut state,
            vec![
                Op::AdmitNode {
                    node,
                    role: NodeRole::Worker,
                    cert_expires_at: NOW,
                    manager_addr: None,
                    availability: Availability::Active,
                },
                Op::UpdateNode { node, spec: NodeSpec { labels, ..NodeSpec::default() }.into(), drain_deadline: None },
                Op::ReportNode { node, status, description: Some(Arc::new(description)) },
            ],
        );
        for (service, failed) in &machine.tasks {
            made += 1;
            let task = add_task(&mut state, made, ServiceId((service % services.len()) as u128), Place::On(node));
            if *failed {
                let status = TaskStatus::new(TaskState::Failed, NOW);
                let stop = Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![task] };
                commit(&mut state, vec![Op::ReportTasks { node, reports: vec![(task, status)] }, stop]);
            }
        }
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn takes_the_nodes_that_a_walk_over_all_takes(
        machines in prop::collection::vec(machine(), 0..80),
        services in prop::collection::vec(service(), 1..5),
        rounds in prop::collection::vec((0..5_usize, 1..25_usize), 1..6),
    ) {
        let mut state = build(&machines, &services);
        let mut fleet = Fleet::new(&state, &BTreeSet::new());
        let mut made = 1_000_000;
        for (service, count) in rounds {
            let service = state.service(ServiceId((service % services.len()) as u128)).expect("made before").clone();
            let request = Request::new(&service);
            let places = place(&mut fleet, &state, &service, count);
            let found: Vec<NodeId> =
                places.iter().filter_map(|place| if let Place::On(node) = place { Some(*node) } else { None }).collect();
            prop_assert_eq!(&found, &walk(&state, &request, count, &|_| true));
            for node in found {
                made += 1;
                let task = add_task(&mut state, made, service.id, Place::On(node));
                prop_assert!(state.task(task).is_some(), "there is room for what was placed");
                let touched = Event::Task { task, service: service.id, slot: 1, node: Some(node), reported: None };
                fleet.touch_all(&state, &[touched]);
            }
        }
    }

    #[test]
    fn takes_nodes_that_were_not_heard_from_only_when_no_other_takes_a_task(
        machines in prop::collection::vec(machine(), 1..40),
        service in service(),
        is_unheard in prop::collection::vec(any::<bool>(), 40),
        count in 1..60_usize,
    ) {
        let state = build(&machines, &[service]);
        let unheard: BTreeSet<NodeId> = state.nodes().zip(is_unheard).filter(|(_, is)| *is).map(|(n, _)| n.id).collect();
        let service = state.service(ServiceId(0)).expect("made before").clone();
        let places = place(&mut Fleet::new(&state, &unheard), &state, &service, count);
        let found: Vec<NodeId> =
            places.iter().filter_map(|place| if let Place::On(node) = place { Some(*node) } else { None }).collect();
        let request = Request::new(&service);
        let heard = walk(&state, &request, count, &|node| !unheard.contains(&node));
        prop_assert_eq!(&found[..heard.len()], &heard);
        prop_assert!(found[heard.len()..].iter().all(|node| unheard.contains(node)));
        let others = walk(&state, &request, count - heard.len(), &|node| unheard.contains(&node));
        prop_assert_eq!(found.len(), heard.len() + others.len());
    }
}
