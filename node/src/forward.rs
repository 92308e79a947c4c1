//! What only the leader can answer: logs, which come over the sessions that agents have with it. Another manager passes
//! the request on, one hop, over `swarm-api/1` on the managers' port, and the answer back as it comes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Method, Request, Response, Uri, body::Incoming, header::HOST, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use swarm_docker_api::{ApiError, CONTENT_TYPE_JSON};
use swarm_wire::{Alpn, BoxedStream, IdentityHolder, tls};
use tokio::time::timeout;
use tower::ServiceExt;

/// Longest wait for a connection: managers are near each other, and who cannot reach the leader is told soon.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Longest wait for the head of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether a request is one that only the leader answers. `path` is without a version.
pub(crate) fn is_for_leader(method: &Method, path: &str) -> bool {
    let mut segments = path.split('/').skip(1);
    let kind = segments.next();
    let logs = (segments.next().is_some(), segments.next(), segments.next()) == (true, Some("logs"), None);
    method == Method::GET && matches!(kind, Some("services" | "tasks")) && logs
}

/// Passes a request on to the leader.
///
/// # Errors
/// 503 when the leader does not answer.
pub(crate) async fn to_leader(
    identity: &Arc<IdentityHolder>,
    addr: &str,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    let failed = |problem: &dyn std::fmt::Display| {
        ApiError::unavailable(format!("the manager at {addr}, which leads, does not answer: {problem}"))
    };
    let exchange = async {
        let connected = timeout(CONNECT_TIMEOUT, tls::connect(addr, None, identity, Alpn::Api)).await;
        let stream = connected.map_err(|_| failed(&"no connection in time"))?.map_err(|e| failed(&e))?.stream;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| failed(&e))?;
        // Ends with the answer, or when nobody reads it any more.
        tokio::spawn(connection);
        let request = Request::get(uri).header(HOST, addr).body(Body::empty());
        let response = sender.send_request(request.map_err(|e| failed(&e))?).await.map_err(|e| failed(&e))?;
        Ok(response.map(Body::new))
    };
    timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(failed(&"no answer in time")))
}

/// Answers what another manager passes on, and nothing else.
pub(crate) async fn serve(routes: Router, stream: BoxedStream, addr: SocketAddr) {
    let service = service_fn(|request: Request<Incoming>| answer(routes.clone(), request));
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new());
    if let Err(e) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%addr, "a forwarded request ended: {e}");
    }
}

async fn answer(routes: Router, request: Request<Incoming>) -> Result<Response<Body>, std::convert::Infallible> {
    if is_for_leader(request.method(), request.uri().path()) {
        return routes.oneshot(request.map(Body::new)).await;
    }
    let error = ApiError::not_found("managers pass on requests for logs, and nothing else");
    let mut response = Response::new(Body::from(error.body()));
    *response.status_mut() = hyper::StatusCode::NOT_FOUND;
    let json = hyper::header::HeaderValue::from_static(CONTENT_TYPE_JSON);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_alone_are_passed_on() {
        for (method, path, expected) in [
            (Method::GET, "/services/web/logs", true),
            (Method::GET, "/tasks/x/logs", true),
            (Method::POST, "/services/web/logs", false),
            (Method::GET, "/services/web", false),
            (Method::GET, "/services/web/logs/x", false),
            (Method::GET, "/nodes/a/logs", false),
            (Method::GET, "/services", false),
            (Method::GET, "/", false),
        ] {
            assert_eq!(is_for_leader(&method, path), expected, "{method} {path}");
        }
    }
}
