//! Containers that are no tasks, in the engine's parts of networks across nodes.

use std::{collections::BTreeMap, net::IpAddr};

use bollard::{
    models::{
        ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummary, EndpointSettings, EventMessage,
        EventMessageTypeEnum, Network,
    },
    query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder},
};
use swarm_model::{NETWORK_ID_LABEL, ObjectId};

use super::{CHANGE_TIME_MAX, DockerExecutor, LABEL_TASK, READ_TIME_MAX, filters, missing_is_none, observe};
use crate::executor::{AttachedContainer, AttachedNetwork, ContainerEvent, EngineError};

/// Characters of the short id of a container, which is one of its names as Docker has it.
const SHORT_ID_CHARS: usize = 12;

/// Reads an event of the engine: a container that is no task may be in another network now, or have another name. The removal
/// of a container counts as well, because the engine does not disconnect a container that was never started.
pub(super) fn told(event: &EventMessage) -> Option<ContainerEvent> {
    let attributes = event.actor.as_ref()?.attributes.as_ref()?;
    let concerns_attached = match event.typ {
        Some(EventMessageTypeEnum::CONTAINER) => !attributes.contains_key(LABEL_TASK),
        _ => attributes.get("type").is_some_and(|driver| driver == "bridge"),
    };
    concerns_attached.then(|| ContainerEvent::NetworkChanged(attributes.get("container").cloned()))
}

impl DockerExecutor {
    /// The containers that are no tasks and are in a part of a network, or are made to be. Those that have ended are in none.
    pub(super) async fn attached_containers(&self) -> Result<Vec<AttachedContainer>, EngineError> {
        let label = filters([("label", vec![NETWORK_ID_LABEL.to_owned()])]);
        let options = ListNetworksOptionsBuilder::new().filters(&label.into_iter().collect()).build();
        let parts =
            self.call(&self.reads, READ_TIME_MAX, |d| async move { d.list_networks(Some(options)).await }).await?;
        let parts = Parts::of(parts);
        if parts.of_id.is_empty() {
            return Ok(Vec::new());
        }
        let only = filters([
            // A container that was not started yet has the name of the network alone.
            ("network", parts.of_id.keys().chain(parts.of_name.keys()).cloned().collect()),
            ("status", ["created", "running", "paused", "restarting"].map(str::to_owned).into()),
        ]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&only.into_iter().collect()).build();
        let listed =
            self.call(&self.reads, READ_TIME_MAX, |d| async move { d.list_containers(Some(options)).await }).await?;
        let mut found = Vec::new();
        let is_task = |container: &ContainerSummary| {
            container.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL_TASK))
        };
        for container in listed.into_iter().filter(|container| !is_task(container)) {
            // A container that went meanwhile is in no network.
            if let Some(container) = self.look(container.id.as_deref().unwrap_or_default()).await? {
                found.extend(attached(&container, &parts));
            }
        }
        Ok(found)
    }

    /// Disconnects a container from the engine's part of a network. One that is not connected is fine.
    pub(super) async fn disconnect(&self, network: ObjectId, container: String) -> Result<(), EngineError> {
        let Some(part) = self.network(network).await? else { return Ok(()) };
        let request = bollard::models::NetworkDisconnectRequest { container, force: Some(true) };
        self.call(&self.creates, CHANGE_TIME_MAX, |d| async move {
            missing_is_none(d.disconnect_network(&part.id, request).await)
        })
        .await
        .map(drop)
    }
}

/// The engine's parts of networks, by the engine's ids and names.
#[derive(Default)]
struct Parts {
    of_id: BTreeMap<String, ObjectId>,
    of_name: BTreeMap<String, ObjectId>,
}

impl Parts {
    fn of(networks: Vec<Network>) -> Self {
        let mut parts = Self::default();
        for part in networks {
            let network = part.labels.as_ref().and_then(|labels| labels.get(NETWORK_ID_LABEL)?.parse().ok());
            if let (Some(id), Some(name), Some(network)) = (part.id, part.name, network) {
                parts.of_id.insert(id, network);
                parts.of_name.insert(name, network);
            }
        }
        parts
    }

    /// The network of a container's endpoint, which stands under the engine's name or id of a part.
    fn network(&self, key: &str, endpoint: &EndpointSettings) -> Option<ObjectId> {
        match endpoint.network_id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => self.of_id.get(id).copied(),
            None => self.of_id.get(key).or_else(|| self.of_name.get(key)).copied(),
        }
    }
}

/// A container as it is in parts of networks; none if it is in none, or has ended.
fn attached(container: &ContainerInspectResponse, parts: &Parts) -> Option<AttachedContainer> {
    let id = container.id.clone()?;
    let status = container.state.as_ref().and_then(|state| state.status);
    let is_running = match status {
        Some(Status::RUNNING | Status::PAUSED | Status::STOPPING) => true,
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => return None,
        Some(Status::RESTARTING | Status::CREATED | Status::EMPTY) | None => false,
    };
    let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned();
    let endpoints = container.network_settings.as_ref()?.networks.as_ref()?;
    let networks: Vec<_> = endpoints
        .iter()
        .filter_map(|(key, endpoint)| {
            let network = parts.network(key, endpoint)?;
            let addrs = addrs(endpoint);
            (!addrs.is_empty()).then(|| AttachedNetwork { network, addrs, names: names(&id, &name, endpoint) })
        })
        .collect();
    let dns = container.host_config.as_ref().and_then(|config| config.dns.as_ref());
    let (pid, sandbox) = match observe::inspected(container) {
        crate::executor::Observed::Running(running) if is_running => (running.pid, running.sandbox),
        _ => (0, None),
    };
    (!networks.is_empty()).then(|| AttachedContainer {
        id,
        networks,
        is_running,
        pid,
        sandbox,
        nameservers: dns.into_iter().flatten().filter_map(|addr| addr.parse().ok()).collect(),
    })
}

/// The addresses that a container was made with, or has got.
fn addrs(endpoint: &EndpointSettings) -> Vec<IpAddr> {
    let read = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
    let made_with = endpoint.ipam_config.as_ref();
    let v4 = made_with.and_then(|config| read(&config.ipv4_address)).or_else(|| read(&endpoint.ip_address));
    let v6 = made_with.and_then(|config| read(&config.ipv6_address)).or_else(|| read(&endpoint.global_ipv6_address));
    v4.into_iter().chain(v6).collect()
}

/// The names of a container in a network: its own, its aliases, and its short id.
fn names(id: &str, name: &str, endpoint: &EndpointSettings) -> Vec<String> {
    let short: String = id.chars().take(SHORT_ID_CHARS).collect();
    let mut names = Vec::new();
    for name in std::iter::once(name).chain(endpoint.aliases.iter().flatten().map(String::as_str)).chain([&*short]) {
        if !name.is_empty() && !names.iter().any(|known: &String| known.eq_ignore_ascii_case(name)) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests;
