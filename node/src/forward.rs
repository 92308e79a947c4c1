//! Requests that only the leader can answer: those for logs, counters and probes, which nodes are asked for over the sessions that
//! agents have with it. Another manager passes the request on, one hop, over `swarm-api/1` on the managers' port, and the
//! answer back as it comes.
//!
//! The manager that passes a request on says who asks. That is believed because only managers come so far, each with its
//! certificate, and none of them takes it from a client; the certificate also says on which node was asked.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{CONTENT_TYPE, HOST, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use swarm_docker_api::{ApiError, CONTENT_TYPE_JSON, decode_path};
use swarm_manager::api::Caller;
use swarm_model::{Author, NodeName, Principal};
use swarm_wire::{Alpn, BoxedStream, IdentityHolder, tls};
use tokio::time::timeout;
use tower::ServiceExt;

use crate::api::authorise::Policy;

/// Longest wait for a connection: managers are near each other, and who cannot reach the leader is told soon.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Longest wait for the head of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The header that names the author of a call, as JSON. Only the managers' port knows it.
const CALLER_HEADER: &str = "x-swarmd-caller";
/// Longest such JSON: three texts, each at its longest, escaped.
const CALLER_BYTES_MAX: usize = 16 << 10;

/// Whether a request is one that only the leader answers. `path` is without a version.
pub(crate) fn is_for_leader(method: &Method, path: &str) -> bool {
    let segments: Vec<_> = path.split('/').skip(1).collect();
    let asks_nodes = matches!(
        segments[..],
        ["services" | "tasks", _, "logs"] | ["swarmd", "services", _, "endpoints"] | ["swarmd", "reach"]
    );
    method == Method::GET && asks_nodes
}

/// Passes a request on to the leader, and who makes it.
///
/// # Errors
/// 503 when the leader does not answer.
pub(crate) async fn to_leader(
    identity: &Arc<IdentityHolder>,
    addr: &str,
    uri: Uri,
    caller: &Principal,
) -> Result<Response<Body>, ApiError> {
    let failed = |problem: &dyn std::fmt::Display| {
        ApiError::unavailable(format!("the manager at {addr}, which leads, does not answer: {problem}"))
    };
    let caller = write_caller(caller)?;
    let exchange = async {
        let connected = timeout(CONNECT_TIMEOUT, tls::connect(addr, None, identity, Alpn::Api)).await;
        let stream = connected.map_err(|_| failed(&"no connection in time"))?.map_err(|e| failed(&e))?.stream;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| failed(&e))?;
        // Ends with the answer, or when nobody reads it any more.
        tokio::spawn(connection);
        let request = Request::get(uri).header(HOST, addr).header(CALLER_HEADER, caller);
        let request = request.body(Body::empty());
        let response = sender.send_request(request.map_err(|e| failed(&e))?).await.map_err(|e| failed(&e))?;
        Ok(response.map(Body::new))
    };
    timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(failed(&"no answer in time")))
}

fn write_caller(principal: &Principal) -> Result<HeaderValue, ApiError> {
    let json = serde_json::to_vec(&Author::of(principal.clone()));
    let value = json.map_err(|e| e.to_string()).and_then(|json| HeaderValue::try_from(json).map_err(|e| e.to_string()));
    value.map_err(|e| ApiError::internal(format!("who asks cannot be passed on to the leader: {e}")))
}

/// The author of a call, as the manager says that passes the call on. A manager of 0.1.0 names no author: it is the author
/// then.
fn read_caller(headers: &HeaderMap, from: NodeName) -> Result<Author, ApiError> {
    let Some(value) = headers.get(CALLER_HEADER) else { return Ok(Author::of(Principal::Node(from))) };
    let refuse = |problem: &dyn std::fmt::Display| {
        ApiError::bad_request(format!("invalid {CALLER_HEADER}, by which a manager names who asks: {problem}"))
    };
    if value.len() > CALLER_BYTES_MAX {
        return Err(refuse(&format!("it has {} bytes, the limit is {CALLER_BYTES_MAX}", value.len())));
    }
    let author: Author = serde_json::from_slice(value.as_bytes()).map_err(|e| refuse(&e))?;
    Ok(Author { node: Some(from), ..author })
}

/// Answers what another manager passes on, and nothing else. `from` is that manager, by its certificate.
pub(crate) async fn serve(routes: Router, stream: BoxedStream, addr: SocketAddr, from: NodeName, policy: Policy) {
    let service = service_fn(|request: Request<Incoming>| {
        let (routes, from) = (routes.clone(), from.clone());
        async move {
            let answered = answer(routes, request, from, policy).await;
            Ok::<_, std::convert::Infallible>(answered.unwrap_or_else(|e| error_response(&e)))
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new());
    if let Err(e) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%addr, "a forwarded request ended: {e}");
    }
}

async fn answer(
    routes: Router,
    request: Request<Incoming>,
    from: NodeName,
    policy: Policy,
) -> Result<Response<Body>, ApiError> {
    let path = decode_path(request.uri().path())?;
    if !is_for_leader(request.method(), &path) {
        return Err(ApiError::not_found(
            "managers pass on requests that ask nodes, such as those for logs, and nothing else",
        ));
    }
    let author = read_caller(request.headers(), from)?;
    policy(&author, request.method(), &path)?;
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Caller::new(Arc::new(author)));
    let Ok(response) = routes.oneshot(request).await;
    Ok(response)
}

fn error_response(error: &ApiError) -> Response<Body> {
    let mut response = Response::new(Body::from(error.body()));
    *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_JSON));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_model::NodeId;

    use super::*;
    use crate::api::authorise::allow_all;

    #[test]
    fn requests_that_ask_nodes_are_passed_on() {
        for (method, path, expected) in [
            (Method::GET, "/services/web/logs", true),
            (Method::GET, "/tasks/x/logs", true),
            (Method::POST, "/services/web/logs", false),
            (Method::GET, "/services/web", false),
            (Method::GET, "/services/web/logs/x", false),
            (Method::GET, "/nodes/a/logs", false),
            (Method::GET, "/swarmd/services/web/endpoints", true),
            (Method::GET, "/swarmd/reach", true),
            (Method::GET, "/swarmd/services/web/why", false),
            (Method::GET, "/services", false),
            (Method::GET, "/", false),
        ] {
            assert_eq!(is_for_leader(&method, path), expected, "{method} {path}");
        }
    }

    fn node() -> NodeName {
        NodeName::new(NodeId(7), "m2")
    }

    fn headers(value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(CALLER_HEADER.parse().unwrap(), HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn a_manager_names_who_asks_and_its_certificate_where() {
        let alice = Principal::user(1000, Some("alice"));
        let value = write_caller(&alice).unwrap();
        assert_eq!(value, r#"{"Kind":"user","Name":"alice","ID":"1000"}"#);
        let author = read_caller(&headers(value.as_bytes()), node()).unwrap();
        assert_eq!(author.to_string(), "user alice (1000) on m2");
        // The node is never what the header says.
        let lie = format!(r#"{{"Kind":"user","ID":"0","Node":{{"ID":"{}","Name":"m9"}}}}"#, NodeId(9));
        assert_eq!(read_caller(&headers(lie.as_bytes()), node()).unwrap().to_string(), "user 0 on m2");
        // A manager of 0.1.0 names nobody.
        assert_eq!(read_caller(&HeaderMap::new(), node()).unwrap().to_string(), "node m2");
        for wrong in [&b"alice"[..], b"{}", b"", br#"{"Kind":7}"#] {
            let error = read_caller(&headers(wrong), node()).unwrap_err();
            assert!(error.status == 400 && error.message.contains(CALLER_HEADER), "{error}");
        }
        let long = read_caller(&headers(&vec![b'x'; CALLER_BYTES_MAX + 1]), node()).unwrap_err();
        assert!(long.message.contains("the limit is 16384"), "{long}");
        let longest = Principal::from_parts(&"\"".repeat(300), &"\\".repeat(300), &"é".repeat(300));
        let value = write_caller(&longest).unwrap();
        assert_eq!(read_caller(&headers(value.as_bytes()), node()).unwrap().principal, longest);
    }

    proptest! {
        #[test]
        fn any_header_names_somebody_or_is_refused(bytes in prop::collection::vec(b' '..=255, 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(CALLER_HEADER.parse().unwrap(), value)]);
                match read_caller(&headers, node()) {
                    Ok(author) => prop_assert_eq!(author.node, Some(node())),
                    Err(error) => prop_assert_eq!(error.status, 400),
                }
            }
        }
    }

    /// The leader's answer to a request that another manager passes on. The route answers with the author of the call.
    async fn passed_on(policy: Policy, path: &str, caller: Option<&str>) -> (u16, String) {
        let who = async |request: axum::extract::Request| {
            request.extensions().get::<Caller>().map_or("nobody".to_owned(), |caller| caller.author().to_string())
        };
        let routes = Router::new().route("/services/{id}/logs", axum::routing::get(who));
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::spawn(serve(routes, Box::new(theirs), "127.0.0.1:1".parse().unwrap(), node(), policy));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header(HOST, "x");
        let request = caller.into_iter().fold(request, |request, caller| request.header(CALLER_HEADER, caller));
        let response = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn what_is_passed_on_is_authorised_once_more() {
        let not_alice: Policy = |author, _, path| match author.principal.name() {
            "alice" => Err(ApiError::forbidden(format!("{author} may not see {path}"))),
            _ => Ok(()),
        };
        let (alice, bob) =
            (r#"{"Kind":"user","Name":"alice","ID":"1000"}"#, r#"{"Kind":"user","Name":"bob","ID":"1001"}"#);
        let logs = "/services/web/logs?follow=1";
        assert_eq!(passed_on(allow_all, logs, Some(alice)).await, (200, "user alice (1000) on m2".to_owned()));
        let (status, text) = passed_on(not_alice, logs, Some(alice)).await;
        assert!(
            status == 403 && text.contains("alice (1000) on m2 may not see /services/web/logs\""),
            "{status} {text}"
        );
        assert_eq!(passed_on(not_alice, logs, Some(bob)).await, (200, "user bob (1001) on m2".to_owned()));
        assert_eq!(passed_on(not_alice, logs, None).await, (200, "node m2".to_owned()));
        assert_eq!(passed_on(allow_all, logs, Some("x")).await.0, 400);
        assert_eq!(passed_on(allow_all, "/services", Some(bob)).await.0, 404);
    }
}
