//! Services at random: every policy that an operator can choose.

use serde_json::{Value, json};
use swarm_model::{
    EndpointSpec, FailureAction, GenericResource, HealthConfig, ObjectId, Placement, PlacementPreference, PortConfig,
    PublishMode, ReplicatedJob, ResourceReservations, Resources, RestartCondition, RestartPolicy, ServiceMode,
    ServiceSpec, SpreadOver, UpdateConfig, UpdateOrder,
};

use crate::{engine::Kind, rng::Rng};

/// The kind of generic resource that nodes have and services reserve.
pub(crate) const GPU: &str = "gpu";

const SECOND_NS: i64 = 1_000_000_000;

/// Replicas that a service may have.
const REPLICAS_MAX: u64 = 14;

/// Values of the label `zone`, which nodes may have.
pub(crate) const ZONES: [&str; 3] = ["a", "b", "c"];

/// How the tasks of a service are counted, and what is counted when one is made.
pub(crate) fn mode(rng: &mut Rng) -> (ServiceMode, &'static str) {
    match rng.below(100) {
        0..12 => (ServiceMode::Global, "create global service"),
        12..24 => {
            let concurrent = rng.between(1, 5);
            let total = rng.between(concurrent, REPLICAS_MAX);
            let job = ReplicatedJob { max_concurrent: Some(concurrent), total_completions: Some(total) };
            (ServiceMode::ReplicatedJob(job), "create replicated job")
        }
        24..28 => (ServiceMode::GlobalJob, "create global job"),
        _ => (ServiceMode::Replicated { replicas: replicas(rng) }, "create replicated service"),
    }
}

/// A service of this name.
pub(crate) fn service(rng: &mut Rng, name: String, mode: ServiceMode) -> ServiceSpec {
    let mut spec = ServiceSpec { name, mode, ..ServiceSpec::default() };
    spec.task_template.container_spec.image = image(rng, spec.mode.is_job());
    settings(rng, &mut spec);
    if rng.per_mille(300) {
        let test = vec!["CMD".to_owned(), "true".to_owned()];
        spec.task_template.container_spec.healthcheck = Some(HealthConfig { test, ..HealthConfig::default() });
    }
    policies(rng, &mut spec);
    if rng.per_mille(500) {
        spec.task_template.resources = Some(resources(rng));
    }
    if rng.per_mille(400) {
        spec.task_template.placement = Some(placement(rng));
    }
    if rng.per_mille(200) {
        // Few ports, so that services get into each other's way.
        let published_port = u16::try_from(rng.between(8000, 8003)).unwrap_or(8000);
        let port =
            PortConfig { target_port: 80, published_port, publish_mode: PublishMode::Host, ..PortConfig::default() };
        spec.endpoint_spec = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
    }
    spec
}

/// The number of secrets in a simulated swarm. Their ids count from 1.
pub(crate) const SECRETS: u128 = 3;

/// The secrets that a service names, by the number of the service. Every second service names none.
pub(crate) fn secrets(number: u64) -> Vec<Value> {
    let named: &[u128] = match number % 8 {
        1 => &[1],
        3 => &[2, 1],
        5 => &[3],
        7 => &[1, 2, 3],
        _ => &[],
    };
    let reference = |id: &u128| json!({"SecretID": ObjectId(*id).to_string(), "SecretName": format!("secret{id}")});
    named.iter().map(reference).collect()
}

/// How many replicas a service gets.
pub(crate) fn replicas(rng: &mut Rng) -> u64 {
    rng.between(0, REPLICAS_MAX)
}

/// An image; two in three do what they should: the task of a job ends, that of a service does not.
pub(crate) fn image(rng: &mut Rng, job: bool) -> String {
    let bad = rng.per_mille(330);
    let good = if job { "work" } else { "good" };
    let kind = if bad { rng.pick(&Kind::ALL).map_or(good, |(_, name)| name) } else { good };
    format!("app:v{}-{kind}", rng.below(1_000_000))
}

/// New settings (`swarmd.*`); those that the mode cannot have, or not together, are left out.
pub(crate) fn settings(rng: &mut Rng, spec: &mut ServiceSpec) {
    let is_job = spec.mode.is_job();
    let is_replicated = matches!(spec.mode, ServiceMode::Replicated { .. });
    let most = rng.pick(&["1", "2", "25%", "50%"]).copied().unwrap_or("1").to_owned();
    let deadline = format!("{}s", rng.between(5, 60));
    let prefer = format!("node.labels.zone=={}", rng.pick(&ZONES).copied().unwrap_or("a"));
    spec.labels.clear();
    for (name, value, possible) in [
        ("max-unavailable", most, !is_job),
        ("placement", "pack".into(), true),
        ("placement.prefer", prefer, true),
        ("rebalance", "true".into(), is_replicated),
        ("restart.backoff", "true".into(), true),
        ("update.deadline", deadline, !is_job),
    ] {
        let is_refused = name == "rebalance" && spec.labels.contains_key("swarmd.placement");
        if rng.per_mille(180) && possible && !is_refused {
            spec.labels.insert(format!("swarmd.{name}"), value);
        }
    }
}

/// New policies of restarts, updates and rollbacks.
pub(crate) fn policies(rng: &mut Rng, spec: &mut ServiceSpec) {
    let any = [RestartCondition::Any, RestartCondition::Any, RestartCondition::OnFailure, RestartCondition::None];
    let condition = rng.pick(&any).copied().unwrap_or_default();
    let max_attempts = if rng.per_mille(200) { rng.between(1, 4) } else { 0 };
    let window_ns = rng.per_mille(300).then(|| rng.between(5, 120) as i64 * SECOND_NS);
    // Without a delay a bad image keeps everybody busy; what is learned from it is soon the same again.
    let none = rng.per_mille(20);
    let delay_ns = rng.per_mille(900).then(|| if none { 0 } else { rng.between(1, 60) as i64 * SECOND_NS });
    let policy = RestartPolicy { condition, delay_ns, max_attempts, window_ns, ..RestartPolicy::default() };
    spec.task_template.restart_policy = rng.per_mille(800).then_some(policy);
    if !spec.mode.is_job() {
        spec.update_config = rng.per_mille(800).then(|| update(rng, true));
        spec.rollback_config = rng.per_mille(500).then(|| update(rng, false));
    }
}

fn update(rng: &mut Rng, rolls_back: bool) -> UpdateConfig {
    let actions = [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback];
    let actions = if rolls_back { &actions[..] } else { &actions[..2] };
    UpdateConfig {
        parallelism: rng.below(5),
        delay_ns: rng.below(8) as i64 * SECOND_NS,
        failure_action: rng.pick(actions).copied().unwrap_or_default(),
        monitor_ns: rng.per_mille(500).then(|| rng.below(20) as i64 * SECOND_NS),
        max_failure_ratio: rng.below(4) as f32 / 4.0,
        order: if rng.per_mille(500) { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
        ..UpdateConfig::default()
    }
}

fn resources(rng: &mut Rng) -> Resources {
    let reservations = ResourceReservations {
        nano_cpus: rng.below(4) as i64 * SECOND_NS / 2,
        memory_bytes: rng.below(4) as i64 * (256 << 20),
        generic_resources: if rng.per_mille(250) { vec![gpus(rng.between(1, 2))] } else { Vec::new() },
        ..ResourceReservations::default()
    };
    Resources { reservations: Some(reservations), ..Resources::default() }
}

/// Constraints, preferences and limits per node.
pub(crate) fn placement(rng: &mut Rng) -> Placement {
    let mut placement = Placement::default();
    if rng.per_mille(500) {
        let operator = if rng.per_mille(600) { "==" } else { "!=" };
        let zone = rng.pick(&ZONES).copied().unwrap_or("a");
        placement.constraints.push(format!("node.labels.zone{operator}{zone}"));
    }
    if rng.per_mille(300) {
        let spread = SpreadOver { spread_descriptor: "node.labels.zone".into(), ..SpreadOver::default() };
        placement.preferences.push(PlacementPreference { spread: Some(spread), ..PlacementPreference::default() });
    }
    if rng.per_mille(400) {
        placement.max_replicas = rng.between(1, 3);
    }
    placement
}

fn gpus(count: u64) -> GenericResource {
    GenericResource::Discrete { kind: GPU.into(), value: count as i64 }
}

/// The generic resources of a node: none, a number of them, or some with names.
pub(crate) fn offered(rng: &mut Rng) -> Vec<GenericResource> {
    let count = rng.between(1, 4);
    let named = |number| GenericResource::Named { kind: GPU.into(), value: format!("gpu{number}") };
    match rng.below(4) {
        0 => vec![gpus(count)],
        1 => (0..count).map(named).collect(),
        _ => Vec::new(),
    }
}
