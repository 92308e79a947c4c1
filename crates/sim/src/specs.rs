//! Services at random: every policy that an operator can choose.

use swarm_model::{
    EndpointSpec, FailureAction, HealthConfig, Placement, PlacementPreference, PortConfig, PublishMode,
    ResourceReservations, Resources, RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, SpreadOver,
    UpdateConfig, UpdateOrder,
};

use crate::{engine::Kind, rng::Rng};

const SECOND_NS: i64 = 1_000_000_000;

/// Replicas that a service may have.
const REPLICAS_MAX: u64 = 14;

/// Values of the label `zone`, which nodes may have.
pub(crate) const ZONES: [&str; 3] = ["a", "b", "c"];

/// A service of this name.
pub(crate) fn service(rng: &mut Rng, name: String, global: bool) -> ServiceSpec {
    let mut spec = ServiceSpec { name, ..ServiceSpec::default() };
    spec.mode = if global { ServiceMode::Global } else { ServiceMode::Replicated { replicas: replicas(rng) } };
    spec.task_template.container_spec.image = image(rng);
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

/// How many replicas a service gets.
pub(crate) fn replicas(rng: &mut Rng) -> u64 {
    rng.between(0, REPLICAS_MAX)
}

/// An image; two in three do what they should.
pub(crate) fn image(rng: &mut Rng) -> String {
    let bad = rng.per_mille(330);
    let kind = if bad { rng.pick(&Kind::ALL).map_or("good", |(_, name)| name) } else { "good" };
    format!("app:v{}-{kind}", rng.below(1_000_000))
}

/// New policies of restarts, updates and rollbacks.
pub(crate) fn policies(rng: &mut Rng, spec: &mut ServiceSpec) {
    let any = [RestartCondition::Any, RestartCondition::Any, RestartCondition::OnFailure, RestartCondition::None];
    let condition = rng.pick(&any).copied().unwrap_or_default();
    let max_attempts = if rng.per_mille(200) { rng.between(1, 4) } else { 0 };
    let window_ns = if rng.per_mille(300) { rng.between(5, 120) as i64 * SECOND_NS } else { 0 };
    // Without a delay a bad image keeps everybody busy.
    let shortest = u64::from(!rng.per_mille(30));
    let delay_ns = rng.per_mille(700).then(|| rng.between(shortest, 15) as i64 * SECOND_NS);
    let policy = RestartPolicy { condition, delay_ns, max_attempts, window_ns, ..RestartPolicy::default() };
    spec.task_template.restart_policy = rng.per_mille(800).then_some(policy);
    spec.update_config = rng.per_mille(800).then(|| update(rng, true));
    spec.rollback_config = rng.per_mille(500).then(|| update(rng, false));
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
        let spread = SpreadOver { spread_descriptor: "node.labels.zone".into() };
        placement.preferences.push(PlacementPreference { spread: Some(spread), ..PlacementPreference::default() });
    }
    if rng.per_mille(400) {
        placement.max_replicas = rng.between(1, 3);
    }
    placement
}
