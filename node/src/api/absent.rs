//! What Docker's swarm has and this one does not have yet: the answer says so, instead of `page not found` or the
//! engine's words about a swarm of its own.

use std::sync::Arc;

use axum::body::Body;
use hyper::{Request, Response};
use serde_json::{Map, Value};
use swarm_docker_api::{ApiError, ApiVersion, LOCKED, NOT_A_MANAGER};

use crate::bounded::collect;
use crate::node::{Node, Swarm};

/// Largest description of a network: a name, address ranges and labels.
const NETWORK_BYTES_MAX: usize = 1 << 20;
const OVERLAY: &str = "overlay networks are not available in this version yet: services go without networks and publish \
                       ports with mode=host, and containers of one node can share a bridge network";

/// Creates a network: the engine's work, unless the network is to span nodes. Outside of a swarm the engine says why
/// that cannot be.
pub(super) async fn create_network(
    node: &Arc<Node>,
    request: Request<Body>,
    version: Option<ApiVersion>,
    path: &str,
) -> Result<Response<Body>, ApiError> {
    let (parts, body) = request.into_parts();
    let body = collect(body, NETWORK_BYTES_MAX).await?;
    if spans_nodes(&body) {
        match &*node.swarm() {
            Swarm::In(member) if member.is_manager() => return Err(ApiError::not_implemented(OVERLAY)),
            Swarm::In(_) => return Err(ApiError::unavailable(NOT_A_MANAGER)),
            Swarm::Locked(_) => return Err(ApiError::unavailable(LOCKED)),
            Swarm::Out => {}
        }
    }
    node.engine().pass(Request::from_parts(parts, Body::from(body)), version, path).await
}

/// Whether a description asks for a network of the swarm. Names of fields are read as the engine reads them, in any
/// case; what is no description is the engine's to refuse.
fn spans_nodes(body: &[u8]) -> bool {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let says = |name: &str, value: &str| fields.iter().any(|(k, v)| k.eq_ignore_ascii_case(name) && v == value);
    says("Driver", "overlay") || says("Scope", "swarm")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_of_the_swarm_are_known() {
        for (body, expected) in [
            (r#"{"Name": "a", "Driver": "overlay"}"#, true),
            (r#"{"Name": "a", "driver": "overlay", "Scope": ""}"#, true),
            (r#"{"Name": "a", "Scope": "swarm"}"#, true),
            (r#"{"Name": "overlay", "Driver": "bridge", "Scope": "local"}"#, false),
            (r#"{"Name": "a", "Labels": {"Driver": "overlay"}}"#, false),
            (r#"{"Driver": 7}"#, false),
            (r#"{"Driver": "overlay""#, false),
            ("[]", false),
        ] {
            assert_eq!(spans_nodes(body.as_bytes()), expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_looked_at(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            spans_nodes(&body);
        }
    }
}
