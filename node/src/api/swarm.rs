//! `/swarm/init`, `/swarm/join`, `/swarm/leave`, `/swarm/unlock`, `/swarmd/restore`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{body::Body, extract::Query};
use hyper::{Request, Response, Uri, header::CONTENT_TYPE};
use serde::de::DeserializeOwned;
use swarm_docker_api::{ApiError, PASSPHRASE_HEADER, parse_force, read_body, read_passphrase};

use super::respond;
use crate::bounded::collect;
use crate::node::Node;

/// Largest body: a cluster's spec with its labels.
const BODY_BYTES_MAX: usize = 1 << 20;

pub(super) async fn init(node: &Arc<Node>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let id = to_the_end(node.clone().init(body(request).await?)).await?;
    Ok(respond::json(&id))
}

pub(super) async fn join(node: &Arc<Node>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    to_the_end(node.clone().join(body(request).await?)).await?;
    Ok(respond::empty())
}

pub(super) async fn unlock(node: &Arc<Node>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    to_the_end(node.clone().unlock(body(request).await?)).await?;
    Ok(respond::empty())
}

pub(super) async fn leave(node: &Arc<Node>, uri: &Uri) -> Result<Response<Body>, ApiError> {
    let force: Vec<_> =
        pairs(uri)?.into_iter().filter_map(|(name, value)| (name == "force").then_some(value)).collect();
    let force = match &force[..] {
        [] => parse_force(None)?,
        [force] => parse_force(Some(force))?,
        [..] => return Err(ApiError::bad_request("the parameter force comes more than once")),
    };
    to_the_end(node.clone().leave(force)).await?;
    Ok(respond::empty())
}

/// `POST /swarmd/restore`: the body is the backup.
pub(super) async fn restore(node: &Arc<Node>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (parts, body) = request.into_parts();
    let passphrase = read_passphrase(parts.headers.get(PASSPHRASE_HEADER).map(|value| value.as_bytes()))?;
    let query: BTreeMap<String, String> = pairs(&parts.uri)?.into_iter().collect();
    let text = |name: &str| query.get(name).cloned().unwrap_or_default();
    let places = (text("listenAddr"), text("advertiseAddr"));
    let id = to_the_end(node.clone().restore(body, passphrase, places)).await?;
    Ok(respond::json(&id))
}

/// The parameters of a query, decoded, in their order.
fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).map_err(|e| ApiError::bad_request(format!("invalid query: {e}")))
}

/// Carries a change on when the client has gone: half of it would be worse than none.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change).await.unwrap_or_else(|e| Err(ApiError::internal(format!("the change broke off: {e}"))))
}

async fn body<T: DeserializeOwned>(request: Request<Body>) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let bytes = collect(body, BODY_BYTES_MAX).await?;
    read_body(content_type.as_deref(), &bytes)
}
