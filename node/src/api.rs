//! The API of this node, Docker Engine API 1.50 on a Unix socket: what the daemon answers itself, what its manager
//! answers, and what passes through to the local engine.

pub(crate) mod authorise;
mod containers;
mod networks;
mod respond;
mod rest;
mod swarm;
mod system;

use std::sync::Arc;

use axum::body::Body;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use swarm_docker_api::{
    ApiError, ApiVersion, CONTENT_TYPE_JSON, LOCKED, NO_SWARM, NOT_A_MANAGER, PAGE_NOT_FOUND, WARNING_HEADER,
    decode_path, encode_path, split_version,
};
use swarm_manager::api::Caller;
use swarm_model::{Author, Principal};
use tower::ServiceExt;

use self::{authorise::Policy, networks::Networks};
use crate::{
    audit::record::{self, Record},
    forward::{is_for_leader, to_leader},
    node::{Node, Swarm},
};

/// First segments of the paths that managers answer.
const MANAGER_PATHS: &[&str] = &["swarm", "nodes", "services", "tasks", "secrets", "configs", "swarmd"];
/// Longest text of an error that is wrapped into JSON.
const ERROR_TEXT_BYTES_MAX: usize = 64 << 10;

/// Answers requests.
#[derive(Clone)]
pub(crate) struct Api {
    node: Arc<Node>,
    policy: Policy,
}

/// The other end of a connection to the socket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The user, as the kernel says.
    pub(crate) principal: Principal,
    /// The socket.
    pub(crate) from: String,
}

impl Api {
    /// The API of a node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, policy: authorise::allow_all }
    }

    /// Answers a request. Whatever goes wrong becomes a response. What nobody has read of the body by then is taken
    /// from the client.
    pub(crate) async fn answer(&self, request: Request<Incoming>, client: &Client) -> Response<Body> {
        let answer = self.call(rest::take_unread(request), client).await;
        let mut response = respond::finish(answer.unwrap_or_else(|e| respond::error(&e)));
        if let Some(problem) = self.node.audit().problem() {
            let problem = HeaderValue::try_from(problem);
            let problem = problem.unwrap_or(HeaderValue::from_static("the audit log lacks changes"));
            response.headers_mut().entry(WARNING_HEADER).or_insert(problem);
        }
        response
    }

    /// Authorises a call, has it answered, and writes down what it changed.
    async fn call(&self, mut request: Request<Body>, client: &Client) -> Result<Response<Body>, ApiError> {
        // What is looked up here and what the engine gets are the same, whatever the client's spelling of it is.
        let path = decode_path(request.uri().path())?;
        let (version, path) = split_version(&path)?;
        let author = Arc::new(Author { principal: client.principal.clone(), node: self.node.name() });
        let caller = Caller::new(author);
        let record = record::is_change(request.method(), path).then(|| {
            let name = self.node.config().hostname.clone();
            let node = record::Node { id: self.node.name().map(|node| node.id), name };
            Record::begin(self.node.audit().clone(), caller.clone(), node, &client.from, &request, path)
        });
        let answer = match (self.policy)(caller.author(), request.method(), path) {
            Ok(()) => {
                request.extensions_mut().insert(caller.clone());
                self.route(request, version, path, &caller).await
            }
            Err(refused) => Err(refused),
        };
        let Some(record) = record else { return answer };
        let answer = answer.unwrap_or_else(|e| respond::error(&e));
        Ok(record.end(answer, self.node.name().map(|node| node.id)).await)
    }

    async fn route(
        &self,
        request: Request<Body>,
        version: Option<ApiVersion>,
        path: &str,
        caller: &Caller,
    ) -> Result<Response<Body>, ApiError> {
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/_ping") => Ok(system::ping(&self.node)),
            (&Method::GET, "/version") => Ok(system::version(&self.node).await),
            (&Method::GET, "/info") => Ok(system::info(&self.node).await),
            (&Method::POST, "/swarm/init") => swarm::init(&self.node, request).await,
            (&Method::POST, "/swarm/join") => swarm::join(&self.node, request).await,
            (&Method::POST, "/swarm/unlock") => swarm::unlock(&self.node, request).await,
            (&Method::POST, "/swarm/leave") => swarm::leave(&self.node, request.uri()).await,
            (&Method::POST, "/swarmd/restore") => swarm::restore(&self.node, request).await,
            (&Method::GET, "/containers/json") => containers::list(&self.node, request, version, path).await,
            (method, path) if networks::concern(method, path) => {
                Networks::new(self, version, caller).answer(request, path).await
            }
            _ if is_for_manager(path) => self.ask_manager(request, version, path, caller).await,
            _ => self.node.engine().pass(request, version, path).await,
        }
    }

    /// Hands a request to this node's manager, without the version in its path; that is in the extensions.
    async fn ask_manager(
        &self,
        mut request: Request<Body>,
        version: Option<ApiVersion>,
        path: &str,
        caller: &Caller,
    ) -> Result<Response<Body>, ApiError> {
        let swarm = self.node.swarm();
        let (routes, leader) = match &*swarm {
            Swarm::Out => return Err(ApiError::unavailable(NO_SWARM)),
            Swarm::Locked(_) => return Err(ApiError::unavailable(LOCKED)),
            Swarm::In(member) => {
                if let Some(removed) = member.removed().filter(|_| member.is_manager()) {
                    return Err(ApiError::unavailable(removed));
                }
                let routes = member.routes().ok_or_else(|| ApiError::unavailable(NOT_A_MANAGER))?;
                (routes, member.leader_elsewhere().filter(|_| is_for_leader(request.method(), path)))
            }
        };
        let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
        *request.uri_mut() = format!("{}{query}", encode_path(path))
            .parse()
            .map_err(|e| ApiError::bad_request(format!("invalid path {path}: {e}")))?;
        if let Some(version) = version {
            request.extensions_mut().insert(version);
        }
        if let Some((identity, addr)) = leader {
            let answer = to_leader(&identity, &addr, request.uri().clone(), &caller.author().principal);
            return Ok(as_json_error(answer.await?).await);
        }
        let tells_key = request.method() == Method::GET && path == "/swarm/unlockkey";
        let concerns_lock = tells_key || (request.method() == Method::POST && path == "/swarm/update");
        let Ok(response) = routes.oneshot(request).await;
        if let Swarm::In(member) = &*swarm
            && let Some(manager) = member.manager().filter(|_| concerns_lock && response.status().is_success())
        {
            member.lock().settle(manager).await;
            if tells_key {
                let (parts, body) = response.into_parts();
                return Ok(Response::from_parts(parts, member.lock().tell(body).await?));
            }
        }
        Ok(as_json_error(response).await)
    }
}

fn is_for_manager(path: &str) -> bool {
    path.split('/').nth(1).is_some_and(|first| MANAGER_PATHS.contains(&first))
}

/// Errors that axum itself makes are plain texts, or nothing at all; Docker's clients want `{"message": …}`.
async fn as_json_error(response: Response<Body>) -> Response<Body> {
    let status = response.status();
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(CONTENT_TYPE_JSON.as_bytes()));
    if status.as_u16() < 400 || is_json {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), ERROR_TEXT_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let message = match status {
        StatusCode::NOT_FOUND if text.is_empty() => PAGE_NOT_FOUND.to_owned(),
        _ if text.is_empty() => status.canonical_reason().unwrap_or("error").to_lowercase(),
        _ => text.into_owned(),
    };
    respond::error(&ApiError { status: status.as_u16(), message })
}

#[cfg(test)]
mod tests;
