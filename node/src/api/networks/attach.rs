//! Containers that are no tasks, in networks of the swarm.
//!
//! The managers give a container its addresses, also on a worker, whose agent asks them. The engine is then told which of its
//! own networks stands for the network, and the addresses.

use std::net::IpAddr;

use axum::body::Body;
use hyper::{Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use serde_json::{Map, Value};
use swarm_agent::{Attached, AttachmentAsk, AttachmentError};
use swarm_docker_api::{ApiError, ApiVersion, logs::TASK_KEY};
use swarm_model::{INGRESS_NETWORK, Id, TaskId};
use swarm_wire::{agent::AttachmentRefusal, clock};

use super::{
    CONTAINERS_CREATE, Found, NETWORK_BYTES_MAX, NETWORKS, Networks,
    shape::{self, Query, id_of, joined_networks},
};
use crate::{bounded::collect, node::Swarm, random};

/// Largest description of a container: environment, labels and options.
const CONTAINER_BYTES_MAX: usize = 16 << 20;
/// From this version on, a request says a hardware address for each network. Before, it says one for the container.
const MAC_ADDRESSES_SINCE: ApiVersion = ApiVersion { major: 1, minor: 44 };

impl Networks<'_> {
    pub(super) async fn create_container(&self, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let (parts, body) = request.into_parts();
        let body = collect(body, CONTAINER_BYTES_MAX).await?;
        let mut places = Vec::new();
        if let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(&body) {
            for network in joined_networks(&fields) {
                let asked = shape::asked_place(&fields, &network);
                let Some(place) = self.attach(&network, shape::asked_addrs(&asked), None).await? else { continue };
                refuse_unfit(&asked, &network)?;
                let says_each = self.version.is_none_or(|version| version >= MAC_ADDRESSES_SINCE);
                shape::join(&mut fields, &network, &place, says_each);
                places.push(place);
            }
            if !places.is_empty() {
                let answer = self.pass(with_body(parts, &fields)?, CONTAINERS_CREATE).await?;
                return made(answer, places).await;
            }
        }
        self.pass(Request::from_parts(parts, Body::from(body)), CONTAINERS_CREATE).await
    }

    pub(super) async fn connect(
        &self,
        request: Request<Body>,
        path: &str,
        term: &str,
    ) -> Result<Response<Body>, ApiError> {
        let (parts, body) = request.into_parts();
        let body = collect(body, NETWORK_BYTES_MAX).await?;
        let fields: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
        let whole = Request::from_parts(parts, Body::from(body));
        let Some(container) = shape::text(&fields, "Container") else { return self.pass(whole, path).await };
        // The engine says itself that a container is not there.
        let Ok(container) = self.container(&container).await else { return self.pass(whole, path).await };
        let settings = shape::object(&fields, "EndpointConfig");
        let id = shape::text(&container, "Id").unwrap_or_default();
        let Some(place) = self.attach(term, shape::asked_addrs(&settings), None).await? else {
            return self.pass(whole, path).await;
        };
        refuse_unfit(&settings, term)?;
        if is_task(&container) {
            return Err(ApiError::forbidden(format!(
                "container {id} runs a task: its networks are those of its service, use \"service update --network-add {term}\""
            )));
        }
        let answer = self.connect_to(&place, &id, settings).await?;
        if answer.status().is_success() {
            place.given(&id).await;
        }
        Ok(answer)
    }

    pub(super) async fn disconnect(
        &self,
        request: Request<Body>,
        path: &str,
        term: &str,
    ) -> Result<Response<Body>, ApiError> {
        let part = match self.find(term, &Query::default()).await {
            Ok(Found::Swarm(network)) => self.standing(Some(id_of(&network))).await?.into_iter().next(),
            Ok(Found::Engine(_)) | Err(_) => None,
        };
        let Some(part) = part else { return self.pass(request, path).await };
        let answer = self.pass(request, &format!("{NETWORKS}/{}/disconnect", id_of(&part))).await?;
        if let Swarm::In(member) = &*self.api.node.swarm() {
            member.attacher().look().await;
        }
        Ok(answer)
    }

    /// Starts a container. One that was stopped has lost its addresses, so that it is attached again: to the same addresses,
    /// unless others have got them meanwhile.
    pub(super) async fn start(&self, request: Request<Body>, path: &str) -> Result<Response<Body>, ApiError> {
        let name = path.split('/').nth(2).unwrap_or_default();
        let (parts, body) = request.into_parts();
        let body = collect(body, NETWORK_BYTES_MAX).await?;
        let request = || Request::from_parts(parts.clone(), Body::from(body.clone()));
        self.prepare_start(name).await?;
        let answer = self.pass(request(), path).await?;
        if answer.status() != StatusCode::NOT_FOUND || self.container(name).await.is_err() {
            return Ok(answer);
        }
        // Another node with this engine has removed the engine's part of a network meanwhile.
        self.prepare_start(name).await?;
        self.pass(request(), path).await
    }

    /// Attaches a container that is to be started to the networks of the swarm that it names.
    async fn prepare_start(&self, name: &str) -> Result<(), ApiError> {
        let mut places = Vec::new();
        let mut id = String::new();
        // The engine says itself what is wrong with a container that cannot be looked at.
        if let Ok(container) = self.container(name).await
            && !is_task(&container)
            && !shape::is_running(&container)
        {
            id = shape::text(&container, "Id").unwrap_or_default();
            for (network, settings) in shape::places(&container) {
                places.extend(self.attach_again(&id, &network, settings).await?);
            }
        }
        for place in places {
            // Before the start, so that names and virtual addresses are there from the first instruction on.
            place.given(&id).await;
        }
        Ok(())
    }

    /// Attaches a container that is to be started once more to a network that it names, if that is one of the swarm.
    async fn attach_again(
        &self,
        container: &str,
        name: &str,
        settings: Map<String, Value>,
    ) -> Result<Option<Attached>, ApiError> {
        let part_id = shape::text(&settings, "NetworkID").unwrap_or_default();
        let parts = self.standing(None).await?;
        let part =
            parts.iter().find(|part| id_of(part) == part_id || part.get("Name").is_some_and(|known| known == name));
        let network = match part.and_then(shape::label_of) {
            Some(network) => network.to_owned(),
            None => {
                let own: Result<Value, _> =
                    self.engine(Method::GET, &format!("{NETWORKS}/{name}"), &Query::default()).await;
                if own.is_ok() {
                    return Ok(None);
                }
                // The engine's part of the network went with its last container.
                name.to_owned()
            }
        };
        let addrs = shape::asked_addrs(&settings);
        let same = self.attach(&network, addrs.clone(), Some(container)).await;
        let place = match same {
            // Somebody else has got the address.
            Err(error) if error.status == 409 => self.attach(&network, Vec::new(), None).await?,
            place => place?,
        };
        let Some(place) = place else { return Ok(None) };
        // A container that was not started yet names the network alone.
        let is_same_part = place.part.id == part_id || part_id.is_empty() && place.part.name == name;
        if place.addrs != addrs || !is_same_part {
            let leave = serde_json::json!({"Container": container, "Force": true});
            let request = bare_post(&leave)?;
            let left = self.pass(request, &format!("{NETWORKS}/{name}/disconnect")).await?;
            tracing::debug!(status = %left.status(), network = name, "a container left a network to join it anew");
            let joined = self.connect_to(&place, container, shape::kept_settings(container, settings)).await?;
            if !joined.status().is_success() {
                super::read::<Value>(joined).await?;
            }
        }
        Ok(Some(place))
    }

    /// Has the engine connect a container to its part of a network.
    async fn connect_to(
        &self,
        place: &Attached,
        container: &str,
        mut settings: Map<String, Value>,
    ) -> Result<Response<Body>, ApiError> {
        shape::put_place(&mut settings, place, true);
        let body = serde_json::json!({"Container": container, "EndpointConfig": settings});
        let path = format!("{NETWORKS}/{}/connect", place.part.id);
        // An older version has no place for the hardware address.
        let version = self.version.map(|version| version.max(MAC_ADDRESSES_SINCE));
        self.api.node.engine().pass(bare_post(&body)?, version, &path).await
    }

    async fn container(&self, name: &str) -> Result<Map<String, Value>, ApiError> {
        self.engine(Method::GET, &format!("/containers/{name}/json"), &Query::default()).await
    }

    /// A place for a container in a network; none if the network is the engine's own, or if nobody knows it.
    async fn attach(
        &self,
        term: &str,
        addrs: Vec<IpAddr>,
        container: Option<&str>,
    ) -> Result<Option<Attached>, ApiError> {
        let Swarm::In(member) = &*self.api.node.swarm() else { return Ok(None) };
        let (network, is_known) = match self.find(term, &Query::default()).await {
            Ok(Found::Swarm(network)) => (id_of(&network).to_owned(), true),
            Ok(Found::Engine(_)) => return Ok(None),
            // A worker knows the networks alone that it takes part in.
            Err(error) if error.status == 404 && !self.has_manager() => (term.to_owned(), false),
            Err(_) => return Ok(None),
        };
        let ask = AttachmentAsk {
            id: TaskId::make(clock::now(), random::bits()),
            network,
            addrs,
            container: container.map(str::to_owned),
        };
        match member.attacher().attach(ask).await {
            Ok(place) => Ok(Some(place)),
            Err(AttachmentError::Refused(AttachmentRefusal::NoNetwork)) if !is_known && term != INGRESS_NETWORK => {
                Ok(None)
            }
            Err(error) => Err(refusal(term, error)),
        }
    }
}

/// Why a container was not attached, as Docker says it.
fn refusal(network: &str, error: AttachmentError) -> ApiError {
    match error {
        AttachmentError::Refused(AttachmentRefusal::NotAttachable | AttachmentRefusal::NoNetwork) => {
            ApiError::forbidden(format!(
                "Could not attach to network {network}: rpc error: code = PermissionDenied desc = network {network} not \
                 manually attachable"
            ))
        }
        AttachmentError::Refused(AttachmentRefusal::OtherNode) => ApiError::conflict(format!(
            "Could not attach to network {network}: another node with the same engine has a container with this address"
        )),
        AttachmentError::Refused(AttachmentRefusal::Other(reason)) => {
            ApiError::conflict(format!("Could not attach to network {network}: {reason}"))
        }
        AttachmentError::Unavailable(reason) => {
            ApiError::unavailable(format!("Could not attach to network {network}: {reason}"))
        }
    }
}

/// The hardware address of a container in a network of the swarm follows from its address: other nodes count on that. The
/// resolver of the container knows no links.
fn refuse_unfit(settings: &Map<String, Value>, network: &str) -> Result<(), ApiError> {
    if settings.get("Links").and_then(Value::as_array).is_some_and(|links| !links.is_empty()) {
        return Err(ApiError::bad_request(format!(
            "links cannot be given in network {network} of the swarm: give the other container an alias there"
        )));
    }
    match shape::text(settings, "MacAddress").filter(|mac| !mac.is_empty()) {
        Some(mac) => Err(ApiError::bad_request(format!(
            "MAC address {mac} cannot be given in network {network} of the swarm: it follows from the IP address; leave it out"
        ))),
        None => Ok(()),
    }
}

fn is_task(container: &Map<String, Value>) -> bool {
    let config = shape::object(container, "Config");
    shape::object(&config, "Labels").contains_key(TASK_KEY)
}

/// The answer of the engine to a request for a container, which gets its places.
async fn made(answer: Response<Body>, places: Vec<Attached>) -> Result<Response<Body>, ApiError> {
    if !answer.status().is_success() {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let body = collect(body, CONTAINER_BYTES_MAX).await?;
    let fields: Map<String, Value> = serde_json::from_slice(&body)
        .map_err(|error| ApiError::internal(format!("the engine's answer to a new container: {error}")))?;
    let id = shape::text(&fields, "Id").unwrap_or_default();
    for place in places {
        place.given(&id).await;
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// A request with another body.
fn with_body(mut parts: hyper::http::request::Parts, body: &Map<String, Value>) -> Result<Request<Body>, ApiError> {
    let body = serde_json::to_vec(body).map_err(|error| ApiError::internal(error.to_string()))?;
    parts.headers.remove(CONTENT_LENGTH);
    Ok(Request::from_parts(parts, Body::from(body)))
}

fn bare_post(body: &Value) -> Result<Request<Body>, ApiError> {
    let request = Request::post("/").header(hyper::header::CONTENT_TYPE, swarm_docker_api::CONTENT_TYPE_JSON);
    request.body(Body::from(body.to_string())).map_err(|error| ApiError::internal(error.to_string()))
}
