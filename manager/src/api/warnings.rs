//! The warnings of nodes that concern a service, found by their cause.

use swarm_core::State;
use swarm_docker_api::view::ServiceWarningView;
use swarm_model::{NodeState, Service, WarningCause};

use super::plan::node_name;

/// Warnings in one answer: a cause that all nodes share is as clear from some of them.
const WARNINGS_MAX: usize = 10;

/// The warnings of nodes that concern the published ports of a service, and how many more there are.
pub(super) fn of_service(state: &State, service: &Service) -> (Vec<ServiceWarningView>, u64) {
    if service.ports.is_empty() {
        return Default::default();
    }
    let nodes = state.nodes().filter(|node| node.status.state != NodeState::Down);
    let mut all = nodes.flat_map(|node| {
        let warnings = node.description.iter().flat_map(|described| &described.warnings);
        let warnings = warnings.filter(|warning| concerns(state, service, &warning.cause));
        warnings.map(|warning| ServiceWarningView {
            node_id: node.id.to_string(),
            node: node_name(state, node.id),
            warning: warning.clone(),
        })
    });
    let shown = all.by_ref().take(WARNINGS_MAX).collect();
    (shown, all.count() as u64)
}

fn concerns(state: &State, service: &Service, cause: &WarningCause) -> bool {
    match cause {
        WarningCause::PortTaken(port) | WarningCause::PortRight(port) | WarningCause::PortFailed(port) => {
            service.ports.iter().any(|own| (own.protocol, own.published) == (port.protocol, port.published))
        }
        // Connections of any service may fail for it.
        WarningCause::DataPort | WarningCause::Descriptors | WarningCause::Identity => true,
        WarningCause::Peer(peer) => {
            let mut tasks = state.tasks_of_service(service.id);
            tasks.any(|task| task.node == Some(*peer) && !task.status.state.is_terminal())
        }
        // `service endpoints` shows the sources.
        WarningCause::ClientAddress | WarningCause::Network => false,
    }
}
