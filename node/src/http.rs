//! One HTTP request to a manager, to join or to renew a certificate.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use swarm_docker_api::{ApiError, CONTENT_TYPE_JSON, view::ErrorMessage};
use swarm_wire::{BoxedStream, join::JOIN_BODY_BYTES_MAX};

/// Longest wait for an answer: the manager has to write to its log first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends a request over a stream of its own and returns the body of the answer.
///
/// # Errors
/// What the manager says, with its status; 503 when it says nothing that is understood.
pub(crate) async fn request(
    stream: BoxedStream,
    addr: &str,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Bytes, ApiError> {
    let failed = |problem: &dyn std::fmt::Display| {
        ApiError::unavailable(format!("the manager at {addr} does not answer as expected: {problem}"))
    };
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, addr)
            .header(CONTENT_TYPE, CONTENT_TYPE_JSON)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| failed(&e))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), JOIN_BODY_BYTES_MAX);
            let body = body.collect().await.map_err(|e| failed(&e))?.to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            match serde_json::from_slice::<ErrorMessage>(&body) {
                Ok(error) if !error.message.is_empty() => {
                    Err(ApiError { status: status.as_u16(), message: error.message })
                }
                _ => Err(failed(&format!("status {status}"))),
            }
        };
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end with the last byte of the answer.
            _ = &mut connection => answer.await,
        }
    };
    tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(failed(&"no answer in time")))
}
