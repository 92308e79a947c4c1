//! Published ports of services, at random. The generator is not that of the operators' other choices.

use swarm_model::{PortConfig, PortProtocol, PublishMode, ServiceSpec};

use crate::rng::Rng;

/// Ports that services name: few, so that they are taken at times, by the choice of the cluster too.
const NAMED: [u16; 8] = [9000, 9001, 9002, 9003, 9004, 9005, 30_000, 30_001];

/// Longest grace of a stop that a service asks for, in seconds.
const GRACE_S_MAX: u64 = 20;

/// Gives a new service ports that all nodes open, or does not. Returns how that is counted.
pub(crate) fn publish(rng: &mut Rng, spec: &mut ServiceSpec) -> Option<&'static str> {
    let choice = rng.below(100);
    let number = *rng.pick(&NAMED)?;
    let (udp, two, asks) = (rng.per_mille(200), rng.per_mille(200), rng.per_mille(500));
    let grace_ns = rng.between(1, GRACE_S_MAX) as i64 * 1_000_000_000;
    if spec.mode.is_job() {
        return None;
    }
    let (published_port, name) = match choice {
        0..25 => (number, "publish ports"),
        25..50 => (0, "publish free ports"),
        _ => return None,
    };
    if asks {
        spec.task_template.container_spec.stop_grace_period_ns = Some(grace_ns);
    }
    let protocol = if udp { PortProtocol::Udp } else { PortProtocol::Tcp };
    let port = PortConfig { protocol, target_port: 8080, published_port, ..PortConfig::default() };
    let ports = &mut spec.endpoint_spec.get_or_insert_default().ports;
    ports.push(port.clone());
    if two {
        ports.push(PortConfig { target_port: 8081, published_port: 0, ..port });
    }
    Some(name)
}

/// Changes the ports of a service at times: it gets others, or none.
pub(crate) fn change(rng: &mut Rng, spec: &mut ServiceSpec) -> Option<&'static str> {
    if !rng.per_mille(120) {
        return None;
    }
    let is_ingress = |port: &PortConfig| port.publish_mode == PublishMode::Ingress;
    let had = spec.ports().iter().any(is_ingress);
    if let Some(endpoint) = &mut spec.endpoint_spec {
        endpoint.ports.retain(|port| !is_ingress(port));
    }
    publish(rng, spec).or(had.then_some("withdraw ports"))
}
