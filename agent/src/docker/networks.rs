//! The engine's part of networks across nodes: a bridge network for each, which the nodes of one engine share.

use std::{net::IpAddr, time::Duration};

use bollard::{
    errors::Error as BollardError,
    models::{
        EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
        NetworkingConfig,
    },
    query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder},
};
use swarm_model::{NETWORK_ID_LABEL, NETWORK_NAME_LABEL, NetworkContent, ObjectId};
use swarm_wire::agent::AssignedObject;
use tokio::time::sleep;

use super::{CHANGE_TIME_MAX, DockerExecutor, READ_TIME_MAX, filters};
use crate::{
    executor::{ContainerRequest, EngineError, EnginePart},
    network,
};

/// From this version of its API on (1.x), an engine takes a hardware address for each network, and makes random ones.
const MAC_ADDRESSES_SINCE: usize = 44;

/// Pause before it is looked again for a network that another node may be making.
const FIND_RETRY: Duration = Duration::from_millis(100);
/// How often it is looked.
const FIND_TRIES: usize = 30;

/// A task's place in a network.
pub(super) struct Attachment<'a> {
    id: ObjectId,
    name: &'a str,
    content: &'a NetworkContent,
    addrs: Vec<IpAddr>,
}

impl<'a> Attachment<'a> {
    /// A place in a network, without addresses.
    ///
    /// # Errors
    /// The object is no network, for people.
    pub(super) fn of(object: &'a AssignedObject) -> Result<Self, String> {
        let content = object.content.as_network().ok_or_else(|| format!("{} is no network", object.name))?;
        Ok(Self { id: object.id, name: &object.name, content, addrs: Vec::new() })
    }
}

/// The networks across nodes that the container of a task is in, in the order of its spec.
///
/// # Errors
/// The managers did not say all of it, for people.
pub(super) fn attachments(request: &ContainerRequest) -> Result<Vec<Attachment<'_>>, String> {
    let wanted = request.spec.task.networks.iter().filter_map(|network| network.target.parse::<ObjectId>().ok());
    wanted
        .map(|id| {
            let object = request.objects.iter().find(|object| object.id == id);
            let (object, content) = object
                .and_then(|object| Some((object, object.content.as_network()?)))
                .ok_or_else(|| format!("network {id} did not arrive at the node"))?;
            let addrs: Vec<_> = request.task.addrs.iter().filter(|at| at.network == id).map(|at| at.addr).collect();
            if addrs.is_empty() {
                return Err(format!("the task was given no address in network {}", object.name));
            }
            Ok(Attachment { id, name: &object.name, content, addrs })
        })
        .collect()
}

/// A container's addresses in a network.
fn endpoint(attachment: &Attachment<'_>, says_mac: bool) -> EndpointSettings {
    let of_family = |is_v4| attachment.addrs.iter().find(|addr| addr.is_ipv4() == is_v4).map(ToString::to_string);
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: of_family(true),
            ipv6_address: of_family(false),
            ..EndpointIpamConfig::default()
        }),
        mac_address: swarm_net::mac_of(&attachment.addrs).filter(|_| says_mac).map(mac_text),
        ..EndpointSettings::default()
    }
}

fn mac_text(mac: swarm_net::Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn create_request(name: String, attachment: &Attachment<'_>) -> NetworkCreateRequest {
    let content = attachment.content;
    let config = content.subnets.iter().map(|subnet| {
        let longest = if subnet.gateway.is_ipv4() { 32 } else { 128 };
        IpamConfig {
            subnet: Some(subnet.range.to_string()),
            gateway: Some(subnet.gateway.to_string()),
            // The engine itself hands out nothing: a container that is started there by hand would get the address of a task.
            ip_range: Some(format!("{}/{longest}", subnet.gateway)),
            ..IpamConfig::default()
        }
    });
    let options = [
        ("com.docker.network.bridge.name", network::bridge(content)),
        ("com.docker.network.driver.mtu", network::mtu(content).to_string()),
    ];
    let labels = [(NETWORK_ID_LABEL, attachment.id.to_string()), (NETWORK_NAME_LABEL, attachment.name.to_owned())];
    NetworkCreateRequest {
        name,
        driver: Some("bridge".into()),
        internal: Some(content.internal),
        enable_ipv6: Some(content.subnets.iter().any(|subnet| subnet.gateway.is_ipv6())),
        ipam: Some(Ipam { driver: Some("default".into()), config: Some(config.collect()), ..Ipam::default() }),
        options: Some(options.map(|(key, value)| (key.to_owned(), value)).into()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
        ..NetworkCreateRequest::default()
    }
}

/// A network that another node with this engine has removed meanwhile is provided again.
pub(super) fn or_provide_again(error: EngineError) -> EngineError {
    match error {
        EngineError::Fatal(reason) if reason.starts_with("network ") && reason.ends_with(" not found") => {
            EngineError::Temporary(reason)
        }
        other => other,
    }
}

impl DockerExecutor {
    fn takes_mac(&self) -> Result<bool, EngineError> {
        Ok(self.client()?.client_version().minor_version >= MAC_ADDRESSES_SINCE)
    }

    /// The engine's part of a network, if it has one.
    pub(super) async fn network(&self, id: ObjectId) -> Result<Option<EnginePart>, EngineError> {
        let label = filters([("label", vec![format!("{NETWORK_ID_LABEL}={id}")])]);
        let options = ListNetworksOptionsBuilder::new().filters(&label.into_iter().collect()).build();
        let found =
            self.call(&self.reads, READ_TIME_MAX, |d| async move { d.list_networks(Some(options)).await }).await?;
        let takes_mac = self.takes_mac()?;
        Ok(found.into_iter().find_map(|network| Some(EnginePart { id: network.id?, name: network.name?, takes_mac })))
    }

    /// The engine's part of a network, which is made if it is not there.
    pub(super) async fn provide_network(&self, attachment: &Attachment<'_>) -> Result<EnginePart, EngineError> {
        // One at a time: two tasks of a network may come together.
        let one = self.networks.lock().await;
        if let Some(found) = self.network(attachment.id).await? {
            return Ok(found);
        }
        let by_name = filters([("name", vec![attachment.name.to_owned()])]);
        let options = ListNetworksOptionsBuilder::new().filters(&by_name.into_iter().collect()).build();
        let alike =
            self.call(&self.reads, READ_TIME_MAX, |d| async move { d.list_networks(Some(options)).await }).await?;
        let is_taken = alike.iter().any(|other| other.name.as_deref() == Some(attachment.name));
        // A network of this host has the name already: calls by a name that two have would fail.
        let name = if is_taken { format!("{}.{}", attachment.name, attachment.id) } else { attachment.name.to_owned() };
        let request = create_request(name.clone(), attachment);
        let made = self.call(&self.creates, CHANGE_TIME_MAX, |d| async move { d.create_network(request).await }).await;
        let reason = match made {
            Ok(made) => return Ok(EnginePart { id: made.id, name, takes_mac: self.takes_mac()? }),
            Err(EngineError::Fatal(reason)) => reason,
            Err(error) => return Err(error),
        };
        drop(one);
        // Another node with this engine may be making it: the engine lists it only when that is done.
        for _ in 0..FIND_TRIES {
            if let Some(found) = self.network(attachment.id).await? {
                return Ok(found);
            }
            sleep(FIND_RETRY).await;
        }
        Err(EngineError::Fatal(format!("network {}: {reason}", attachment.name)))
    }

    /// The engine's ids of the networks that a container is made with, each with the container's addresses there.
    pub(super) async fn provide_networks(
        &self,
        request: &ContainerRequest,
    ) -> Result<Vec<(String, EndpointSettings)>, EngineError> {
        let says_mac = self.takes_mac()?;
        let mut endpoints = Vec::new();
        for attachment in attachments(request).map_err(EngineError::Fatal)? {
            let network = self.provide_network(&attachment).await?.id;
            endpoints.push((network, endpoint(&attachment, says_mac)));
        }
        Ok(endpoints)
    }

    /// Connects a container that was made in its first network to the others.
    pub(super) async fn connect_networks(
        &self,
        container: &str,
        endpoints: Vec<(String, EndpointSettings)>,
    ) -> Result<(), EngineError> {
        for (network, endpoint) in endpoints.into_iter().skip(1) {
            let request = NetworkConnectRequest { container: container.to_owned(), endpoint_config: Some(endpoint) };
            let id = network.as_str();
            let connected = self
                .call(&self.creates, CHANGE_TIME_MAX, |d| async move {
                    match d.connect_network(id, request).await {
                        // An earlier run of this agent has connected the container.
                        Err(BollardError::DockerResponseServerError { status_code: 403, message })
                            if message.contains("already exists") =>
                        {
                            Ok(())
                        }
                        result => result,
                    }
                })
                .await;
            connected?;
        }
        Ok(())
    }

    /// Whether a container is in a network, or is made to be. The engine itself removes a network under a container that was not
    /// started yet.
    async fn has_containers(&self, network: &str, name: &str) -> Result<bool, EngineError> {
        let only = filters([
            // A container that is no task, and that was not started yet, has the name alone.
            ("network", vec![network.to_owned(), name.to_owned()]),
            ("status", ["created", "running", "paused", "restarting"].map(str::to_owned).into()),
        ]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&only.into_iter().collect()).build();
        let found =
            self.call(&self.reads, READ_TIME_MAX, |d| async move { d.list_containers(Some(options)).await }).await?;
        Ok(!found.is_empty())
    }

    /// Removes the engine's parts of all networks but these, unless a container is in them. Another node with this engine makes
    /// a part again that it needs.
    pub(super) async fn remove_networks_but(&self, kept: &[ObjectId]) -> Result<(), EngineError> {
        let label = filters([("label", vec![NETWORK_ID_LABEL.to_owned()])]);
        let options = ListNetworksOptionsBuilder::new().filters(&label.into_iter().collect()).build();
        let found =
            self.call(&self.reads, READ_TIME_MAX, |d| async move { d.list_networks(Some(options)).await }).await?;
        // A network that is being made for a task of this node stays.
        let _one = self.networks.lock().await;
        let is_kept = |id: &str| id.parse().is_ok_and(|id| kept.contains(&id));
        for network in found {
            let of = network.labels.as_ref().and_then(|labels| labels.get(NETWORK_ID_LABEL));
            let Some(id) = network.id.as_deref().filter(|_| of.is_some_and(|of| !is_kept(of))) else { continue };
            if self.has_containers(id, network.name.as_deref().unwrap_or_default()).await? {
                continue;
            }
            self.call(&self.creates, CHANGE_TIME_MAX, |d| async move {
                match d.remove_network(id).await {
                    // The network is gone, or still has containers.
                    Err(BollardError::DockerResponseServerError { status_code: 403 | 404, .. }) => Ok(()),
                    result => result,
                }
            })
            .await?;
        }
        Ok(())
    }
}

/// The first network of a container, as its create request names it.
pub(super) fn first(endpoints: &[(String, EndpointSettings)]) -> Option<(String, NetworkingConfig)> {
    let (network, endpoint) = endpoints.first()?;
    let endpoints = [(network.clone(), endpoint.clone())].into();
    Some((network.clone(), NetworkingConfig { endpoints_config: Some(endpoints) }))
}
