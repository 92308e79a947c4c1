//! Networks: those of the swarm, which the manager of this node has, and the engine's own, in one list.
//!
//! On a node that runs tasks in a network of the swarm, a bridge network of the engine stands for it. That one is not shown
//! beside it: its containers are shown as those of the network of the swarm.
//!
//! Containers that are no tasks join networks of the swarm in `attach.rs`.

mod attach;
mod shape;

use std::sync::OnceLock;

use axum::body::Body;
use hyper::{HeaderMap, Method, Request, Response, header::HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use swarm_docker_api::{
    ApiError, ApiVersion, Filters, LEADER_CONTACT_HEADER, LOCKED, NOT_A_MANAGER, REVISION_HEADER, WARNING_HEADER,
    view::{ErrorMessage, NETWORK_FILTERS, NetworkView, PruneNetworksResponse},
};
use swarm_manager::api::Caller;
use swarm_model::NETWORK_ID_LABEL;

use self::shape::{Query, id_of, is_exactly, label_of, spans_nodes, stands_for};
use super::{Api, respond};
use crate::{bounded::collect, node::Swarm};

/// Largest description of a network: a name, address ranges and labels.
const NETWORK_BYTES_MAX: usize = 1 << 20;
/// Longest list of networks. One with a thousand containers has about 200 kB.
const LIST_BYTES_MAX: usize = 256 << 20;

const NETWORKS: &str = "/networks";
const CONTAINERS_CREATE: &str = "/containers/create";

/// Whether a path is one of those that are answered here.
pub(super) fn concern(method: &Method, path: &str) -> bool {
    path == NETWORKS
        || path.starts_with("/networks/")
        || (method == Method::POST && (path == CONTAINERS_CREATE || is_start(path)))
}

/// Whether a path starts a container, or starts it again.
fn is_start(path: &str) -> bool {
    matches!(path.split('/').collect::<Vec<_>>()[..], ["", "containers", _, "start" | "restart"])
}

/// A network that a client names.
enum Found {
    /// A network of the swarm, as it is shown.
    Swarm(Value),
    /// A network of the engine, as the engine shows it.
    Engine(Value),
}

/// A request about networks, without its body.
pub(super) struct Networks<'a> {
    api: &'a Api,
    /// The version that the client asked for.
    version: Option<ApiVersion>,
    caller: &'a Caller,
    /// The headers of the first answer of the manager.
    said: OnceLock<HeaderMap>,
}

impl<'a> Networks<'a> {
    /// The networks, for one call in this version of the API.
    pub(super) fn new(api: &'a Api, version: Option<ApiVersion>, caller: &'a Caller) -> Self {
        Self { api, version, caller, said: OnceLock::new() }
    }

    /// Answers a request. `path` is without a version. What a manager says of how far it can be counted on is said again.
    pub(super) async fn answer(&self, request: Request<Body>, path: &str) -> Result<Response<Body>, ApiError> {
        let mut response = self.respond(request, path).await?;
        for name in [WARNING_HEADER, REVISION_HEADER, LEADER_CONTACT_HEADER] {
            if let Some(value) = self.said.get().and_then(|said| said.get(name)) {
                response.headers_mut().entry(name).or_insert(value.clone());
            }
        }
        Ok(response)
    }

    async fn respond(&self, request: Request<Body>, path: &str) -> Result<Response<Body>, ApiError> {
        let rest: Vec<&str> = path.strip_prefix(NETWORKS).unwrap_or_default().split('/').skip(1).collect();
        match (request.method(), &rest[..]) {
            (&Method::POST, ["create"]) => self.create(request, path).await,
            // Outside of a swarm all networks are the engine's.
            _ if matches!(&*self.api.node.swarm(), Swarm::Out) => self.pass(request, path).await,
            (&Method::POST, []) if path == CONTAINERS_CREATE => self.create_container(request).await,
            (&Method::GET, []) => self.list(&Query::read(request.uri())?).await,
            (&Method::POST, ["prune"]) => self.prune(&Query::read(request.uri())?).await,
            (&Method::GET, [term]) => self.inspect(term, &Query::read(request.uri())?).await,
            (&Method::DELETE, [term]) => self.remove(request, term).await,
            (&Method::POST, [term, "connect"]) => self.connect(request, path, term).await,
            (&Method::POST, [term, "disconnect"]) => self.disconnect(request, path, term).await,
            (&Method::POST, []) if is_start(path) => self.start(request, path).await,
            _ => self.pass(request, path).await,
        }
    }

    async fn pass(&self, request: Request<Body>, path: &str) -> Result<Response<Body>, ApiError> {
        self.api.node.engine().pass(request, self.version, path).await
    }

    /// Whether this node has a manager that answers.
    fn has_manager(&self) -> bool {
        matches!(&*self.api.node.swarm(), Swarm::In(member) if member.routes().is_some())
    }

    /// Asks the manager of this node.
    async fn manager<T: DeserializeOwned>(&self, method: Method, path: &str, query: &Query) -> Result<T, ApiError> {
        let request = bare(method, query)?.map(|()| Body::empty());
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(self.caller.clone());
        let request = Request::from_parts(parts, body);
        let response = self.api.ask_manager(request, self.version, path, self.caller).await?;
        let _ = self.said.set(response.headers().clone());
        read(response).await
    }

    /// Asks the engine.
    async fn engine<T: DeserializeOwned>(&self, method: Method, path: &str, query: &Query) -> Result<T, ApiError> {
        read(self.pass(bare(method, query)?.map(|()| Body::empty()), path).await?).await
    }

    /// The networks of the engine that stand for networks of the swarm; for this one, if one is given.
    async fn standing(&self, id: Option<&str>) -> Result<Vec<Value>, ApiError> {
        let label = id.map_or_else(|| NETWORK_ID_LABEL.to_owned(), |id| format!("{NETWORK_ID_LABEL}={id}"));
        self.engine(Method::GET, NETWORKS, &Query::of_label(&label)?).await
    }

    async fn list(&self, query: &Query) -> Result<Response<Body>, ApiError> {
        let (swarm, engine) = tokio::join!(self.of_swarm(query), self.of_engine(query));
        let (mut networks, own, problem) = match (swarm, engine) {
            (Ok(swarm), Ok(engine)) => (swarm, engine, None),
            // A filter that cannot be is refused by the one as by the other.
            (Err(error), _) | (_, Err(error)) if error.status == 400 => return Err(error),
            // Half a list is better than none: containers are seen without a majority, and stacks without an engine.
            (Err(error), Ok(engine)) => (Vec::new(), engine, Some(error)),
            (Ok(swarm), Err(error)) if self.has_manager() => {
                (swarm, Vec::new(), Some(error).filter(|_| self.api.node.engine().exists()))
            }
            (_, Err(error)) => return Err(error),
        };
        networks.extend(own);
        let mut response = respond::json(&networks);
        if let Some(problem) = problem.and_then(|error| HeaderValue::try_from(error.message).ok()) {
            response.headers_mut().insert(WARNING_HEADER, problem);
        }
        Ok(response)
    }

    /// The networks of the swarm: all of them on a manager, on a worker those in which it takes part.
    async fn of_swarm(&self, query: &Query) -> Result<Vec<Value>, ApiError> {
        if self.has_manager() {
            return self.manager(Method::GET, NETWORKS, query).await;
        }
        let filters = Filters::parse(query.get("filters"), NETWORK_FILTERS)?;
        let mut shown = Vec::new();
        for network in self.standing(None).await? {
            let network = stands_for(network);
            let view: NetworkView = serde_json::from_value(network.clone()).unwrap_or_default();
            if view.matches(&filters, true)? {
                shown.push(network);
            }
        }
        Ok(shown)
    }

    /// The networks of the engine that stand for nothing else.
    async fn of_engine(&self, query: &Query) -> Result<Vec<Value>, ApiError> {
        let mut networks: Vec<Value> = self.engine(Method::GET, NETWORKS, query).await?;
        networks.retain(|network| label_of(network).is_none());
        Ok(networks)
    }

    /// A network of the swarm by its id or its name, or else one of the engine, or else one of the swarm by the beginning of
    /// its id.
    async fn find(&self, term: &str, query: &Query) -> Result<Found, ApiError> {
        let path = format!("{NETWORKS}/{term}");
        let swarm = match self.has_manager() {
            true => self.manager::<Value>(Method::GET, &path, query).await,
            false => self.on_this_node(term, query).await,
        };
        if let Ok(network) = swarm.as_ref()
            && is_exactly(network, term)
        {
            return Ok(Found::Swarm(network.clone()));
        }
        match (swarm, self.engine::<Value>(Method::GET, &path, query).await) {
            (swarm, Ok(network)) => match (swarm, label_of(&network)) {
                // The caller gave the name or id that the engine's part of the network has.
                (_, Some(id)) if self.has_manager() => {
                    Ok(Found::Swarm(self.manager(Method::GET, &format!("{NETWORKS}/{id}"), query).await?))
                }
                (_, Some(_)) => Ok(Found::Swarm(stands_for(network))),
                (Ok(of_swarm), None) if !is_exactly(&network, term) => Ok(Found::Swarm(of_swarm)),
                (_, None) => Ok(Found::Engine(network)),
            },
            (Ok(network), Err(_)) => Ok(Found::Swarm(network)),
            // A manager that cannot answer does not know whether it is there.
            (Err(error), Err(_)) if error.status != 404 => Err(error),
            (Err(error), Err(_)) if !self.api.node.engine().exists() => Err(error),
            (Err(_), Err(error)) => Err(error),
        }
    }

    /// On a worker: a network of the swarm in which it takes part.
    async fn on_this_node(&self, term: &str, query: &Query) -> Result<Value, ApiError> {
        let unknown = || ApiError::no_such("network", term);
        if query.get("scope").is_some_and(|scope| !matches!(scope, "" | "swarm")) {
            return Err(unknown());
        }
        let mut networks: Vec<Value> = self.standing(None).await?.into_iter().map(stands_for).collect();
        let exact = networks.iter().position(|network| is_exactly(network, term));
        let begins = || networks.iter().position(|network| !term.is_empty() && id_of(network).starts_with(term));
        let found = exact.or_else(begins).ok_or_else(unknown)?;
        Ok(networks.swap_remove(found))
    }

    async fn inspect(&self, term: &str, query: &Query) -> Result<Response<Body>, ApiError> {
        let mut network = match self.find(term, query).await? {
            Found::Swarm(network) => network,
            Found::Engine(network) => return Ok(respond::json(&network)),
        };
        let containers = self.containers(id_of(&network)).await;
        if let (Some(network), Some(containers)) = (network.as_object_mut(), containers) {
            network.insert("Containers".to_owned(), containers.into());
        }
        Ok(respond::json(&network))
    }

    /// The containers of this node in a network of the swarm; none if the node takes no part in it, or if its engine does not
    /// answer.
    async fn containers(&self, id: &str) -> Option<Map<String, Value>> {
        let standing = self.standing(Some(id)).await.ok().filter(|networks| !networks.is_empty())?;
        let mut containers = Map::new();
        for network in standing {
            let path = format!("{NETWORKS}/{}", id_of(&network));
            let shown: Value = self.engine(Method::GET, &path, &Query::default()).await.ok()?;
            containers.extend(shown.get("Containers").and_then(Value::as_object).cloned().unwrap_or_default());
        }
        Some(containers)
    }

    /// Creates a network: the engine's work, unless the network is to span nodes. Outside of a swarm the engine says why that
    /// cannot be.
    async fn create(&self, request: Request<Body>, path: &str) -> Result<Response<Body>, ApiError> {
        let (parts, body) = request.into_parts();
        let body = collect(body, NETWORK_BYTES_MAX).await?;
        let request = Request::from_parts(parts, Body::from(body.clone()));
        let spans_nodes = spans_nodes(&body);
        match &*self.api.node.swarm() {
            Swarm::In(member) if spans_nodes && !member.is_manager() => {
                return Err(ApiError::unavailable(NOT_A_MANAGER));
            }
            Swarm::Locked(_) if spans_nodes => return Err(ApiError::unavailable(LOCKED)),
            Swarm::In(_) if spans_nodes => {}
            _ => {
                self.refuse_name_of_swarm(&body).await?;
                return self.pass(request, path).await;
            }
        }
        self.api.ask_manager(request, self.version, path, self.caller).await
    }

    /// A network of the engine with the name of one of the swarm could be reached by its id alone.
    async fn refuse_name_of_swarm(&self, body: &[u8]) -> Result<(), ApiError> {
        let Some(name) = shape::name_of(body).filter(|name| !name.is_empty() && self.has_manager()) else {
            return Ok(());
        };
        let path = format!("{NETWORKS}/{name}");
        match self.manager::<Value>(Method::GET, &path, &Query::default()).await {
            Ok(network) if network["Name"] == name => {
                Err(ApiError::conflict(format!("network with name {name} already exists")))
            }
            _ => Ok(()),
        }
    }

    async fn remove(&self, request: Request<Body>, term: &str) -> Result<Response<Body>, ApiError> {
        match self.find(term, &Query::default()).await? {
            Found::Engine(network) => self.pass(request, &format!("{NETWORKS}/{}", id_of(&network))).await,
            Found::Swarm(network) => {
                let path = format!("{NETWORKS}/{}", id_of(&network));
                self.api.ask_manager(request, self.version, &path, self.caller).await
            }
        }
    }

    /// Removes what nobody uses, of the swarm and of the engine. The networks that stand for networks of the swarm stay.
    async fn prune(&self, query: &Query) -> Result<Response<Body>, ApiError> {
        let mut removed = PruneNetworksResponse::default();
        if self.has_manager() {
            removed = self.manager(Method::POST, "/networks/prune", query).await?;
        }
        if self.api.node.engine().exists() || !self.has_manager() {
            let query = query.without_label(NETWORK_ID_LABEL)?;
            let of_engine: PruneNetworksResponse = self.engine(Method::POST, "/networks/prune", &query).await?;
            let names = of_engine.networks_deleted.into_iter().flatten();
            removed.networks_deleted = match removed.networks_deleted {
                Some(swarm) => Some(swarm.into_iter().chain(names).collect()),
                None => Some(names.collect::<Vec<_>>()).filter(|names| !names.is_empty()),
            };
        }
        Ok(respond::json(&removed))
    }
}

/// A request without a body.
fn bare(method: Method, query: &Query) -> Result<Request<()>, ApiError> {
    let uri = format!("/{}", query.text()?);
    Request::builder()
        .method(method)
        .uri(uri)
        .body(())
        .map_err(|error| ApiError::bad_request(format!("invalid query: {error}")))
}

/// The value that an answer holds, or the error that the answer is.
async fn read<T: DeserializeOwned>(response: Response<Body>) -> Result<T, ApiError> {
    let unreadable =
        |problem: &dyn std::fmt::Display| ApiError::internal(format!("an answer about networks: {problem}"));
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), LIST_BYTES_MAX).await.map_err(|error| unreadable(&error))?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| unreadable(&error));
    }
    let message = serde_json::from_slice::<ErrorMessage>(&body).map(|error| error.message);
    Err(ApiError { status: status.as_u16(), message: message.unwrap_or_else(|_| status.to_string()) })
}

#[cfg(test)]
mod tests;
