//! What the engine's descriptions of containers mean.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status, ContainerSummary,
    ContainerSummaryStateEnum as SummaryState, EndpointSettings, HealthStatusEnum,
};
use swarm_model::{PortProtocol, PortStatus, Timestamp};

use super::{LABEL_NODE, LABEL_TASK};
use crate::executor::{ContainerRequest, Exited, Health, Listed, Observed, Running};

/// Whether a container is that of the task: the name alone proves nothing.
pub(super) fn is_ours(container: &ContainerInspectResponse, request: &ContainerRequest) -> bool {
    let labels = container.config.as_ref().and_then(|c| c.labels.as_ref());
    labels.is_some_and(|l| {
        l.get(LABEL_NODE) == Some(&request.node.id.to_string())
            && l.get(LABEL_TASK) == Some(&request.task.id.to_string())
    })
}

pub(super) fn inspected(container: &ContainerInspectResponse) -> Observed {
    let id = container.id.clone().unwrap_or_default();
    let empty = ContainerState::default();
    let state = container.state.as_ref().unwrap_or(&empty);
    let started_at = state.started_at.as_deref().map_or(Timestamp::ZERO, time);
    match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => Observed::Running(Running {
            id,
            started_at,
            pid: state.pid.unwrap_or_default(),
            health: health(state),
            ports: ports(container),
            addr: addr(container),
            sandbox: sandbox(container),
        }),
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => Observed::Exited(Exited {
            id,
            started_at,
            exit_code: state.exit_code.unwrap_or_default(),
            oom_killed: state.oom_killed.unwrap_or_default(),
            error: state.error.clone().unwrap_or_default(),
        }),
        Some(Status::CREATED | Status::EMPTY) | None => Observed::Created { id },
    }
}

/// A time of the engine; zero for one that cannot be read, and for the year 1, which stands for never.
fn time(text: &str) -> Timestamp {
    let time = text.parse::<jiff::Timestamp>().ok();
    time.and_then(|t| i64::try_from(t.as_nanosecond()).ok()).map_or(Timestamp::ZERO, Timestamp)
}

fn health(state: &ContainerState) -> Health {
    match state.health.as_ref().and_then(|h| h.status) {
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
        Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => Health::None,
    }
}

/// Ports that are bound on the host. One that is bound for IPv4 and IPv6 counts once.
fn ports(container: &ContainerInspectResponse) -> Vec<PortStatus> {
    let bound = container.network_settings.as_ref().and_then(|n| n.ports.as_ref());
    let mut ports: Vec<_> = bound
        .into_iter()
        .flatten()
        .flat_map(|(target, bindings)| {
            let bindings = bindings.iter().flatten();
            bindings.filter_map(move |b| port_status(target, b.host_port.as_deref()?))
        })
        .collect();
    ports.sort_by_key(|p| (p.target_port, p.protocol, p.published_port));
    ports.dedup();
    ports
}

/// The file of a container's network namespace.
fn sandbox(container: &ContainerInspectResponse) -> Option<PathBuf> {
    let key = container.network_settings.as_ref()?.sandbox_key.as_deref()?;
    (!key.is_empty()).then(|| key.into())
}

/// The address of a container. One in the host's network is reached at the loopback address.
fn addr(container: &ContainerInspectResponse) -> Option<IpAddr> {
    let mode = container.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
    if mode == Some("host") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let networks = container.network_settings.as_ref()?.networks.as_ref()?;
    let read = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
    let first =
        |addr: fn(&EndpointSettings) -> &Option<String>| networks.values().find_map(|network| read(addr(network)));
    first(|network| &network.ip_address).or_else(|| first(|network| &network.global_ipv6_address))
}

/// From a key like `80/tcp` and a port number.
fn port_status(target: &str, published: &str) -> Option<PortStatus> {
    let (port, protocol) = target.split_once('/').unwrap_or((target, "tcp"));
    let protocol = match protocol {
        "tcp" => PortProtocol::Tcp,
        "udp" => PortProtocol::Udp,
        "sctp" => PortProtocol::Sctp,
        _ => return None,
    };
    Some(PortStatus { protocol, target_port: port.parse().ok()?, published_port: published.parse().ok()? })
}

pub(super) fn listed(container: &ContainerSummary) -> Listed {
    let id = container.id.clone().unwrap_or_default();
    let task = container.labels.as_ref().and_then(|l| l.get(LABEL_TASK)?.parse().ok());
    let state = match container.state {
        Some(SummaryState::RUNNING | SummaryState::PAUSED | SummaryState::RESTARTING | SummaryState::STOPPING) => {
            let health = listed_health(container.status.as_deref().unwrap_or_default());
            Observed::Running(Running { id, health, ..Running::default() })
        }
        Some(SummaryState::EXITED | SummaryState::DEAD | SummaryState::REMOVING) => {
            Observed::Exited(Exited { id, ..Exited::default() })
        }
        Some(SummaryState::CREATED | SummaryState::EMPTY) | None => Observed::Created { id },
    };
    Listed { task, state }
}

/// From a text like `Up 3 minutes (healthy)`; engines before API 1.52 say it nowhere else.
fn listed_health(status: &str) -> Health {
    match status.rsplit_once('(').map(|(_, health)| health) {
        Some("healthy)") => Health::Healthy,
        Some("unhealthy)") => Health::Unhealthy,
        Some("health: starting)") => Health::Starting,
        _ => Health::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_engine() {
        assert_eq!(listed_health("Up 2 hours"), Health::None);
        assert_eq!(listed_health("Up 2 hours (healthy)"), Health::Healthy);
        assert_eq!(listed_health("Up 1 second (health: starting)"), Health::Starting);
        assert_eq!(listed_health("Up 2 hours (unhealthy)"), Health::Unhealthy);
        assert_eq!(listed_health("Up 2 hours (Paused)"), Health::None);
        let port = PortStatus { protocol: PortProtocol::Udp, target_port: 53, published_port: 5353 };
        assert_eq!(port_status("53/udp", "5353"), Some(port));
        assert_eq!(port_status("x/udp", "5353"), None);
        assert_eq!(port_status("53/foo", "5353"), None);
        assert_eq!(time("1970-01-01T00:00:01.000000005Z"), Timestamp(1_000_000_005));
        assert_eq!(time("0001-01-01T00:00:00Z"), Timestamp::ZERO, "never");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text: String) {
            let _ = time(&text);
        }
    }
}
