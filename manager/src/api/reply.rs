//! Responses.

use axum::{
    body::Body,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use swarm_core::{Outcome, Refusal};
use swarm_docker_api::{ApiError, CONTENT_TYPE_JSON};
use swarm_model::Invalid;

use super::PlaneError;

/// Items of a list that are written at once: some hundred kilobytes, well under a millisecond's work each.
const LIST_CHUNK_LEN: usize = 256;

/// What a handler comes to.
pub(super) type Reply = Result<Response, Failure>;

/// An error response.
#[derive(Debug)]
pub(super) struct Failure(pub(super) ApiError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(CONTENT_TYPE, CONTENT_TYPE_JSON)], self.0.body()).into_response()
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<Invalid> for Failure {
    fn from(error: Invalid) -> Self {
        Self(ApiError::bad_request(error.to_string()))
    }
}

impl From<PlaneError> for Failure {
    fn from(error: PlaneError) -> Self {
        let text = error.to_string();
        Self(match error {
            PlaneError::NotLeader { .. }
            | PlaneError::NoMajority { unknown: false, .. }
            | PlaneError::CutOff { unknown: false, .. }
            | PlaneError::Stopped(_)
            | PlaneError::NotNow(_) => ApiError::unavailable(text),
            PlaneError::TooLarge { .. } => ApiError::too_large(text),
            PlaneError::Unknown
            | PlaneError::NoMajority { unknown: true, .. }
            | PlaneError::CutOff { unknown: true, .. } => ApiError::internal(text),
        })
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        Self(match refusal {
            Refusal::NotFound { .. } => ApiError::not_found(text),
            Refusal::Exists { .. } => ApiError::conflict(text),
            Refusal::OutOfSequence => out_of_sequence(),
            Refusal::Stale(_) => ApiError::internal(text),
            Refusal::Invalid(_) => ApiError::bad_request(text),
        })
    }
}

/// A stale `?version=`. Docker answers 500, and clients look for the first words (docker-api §0.34).
pub(super) fn out_of_sequence() -> ApiError {
    ApiError::internal("update out of sequence: it has changed since it was read, read it again and repeat the change")
}

/// What became of the only transaction of an entry.
pub(super) fn outcome(outcomes: Vec<Outcome>) -> Result<(), Failure> {
    let outcome = outcomes.into_iter().next();
    Ok(outcome.ok_or_else(|| ApiError::internal("the log did not say what became of the change"))??)
}

/// 200 without a body.
pub(super) fn empty() -> Response {
    StatusCode::OK.into_response()
}

/// 200 with JSON.
pub(super) fn json(value: &impl Serialize) -> Reply {
    json_with(StatusCode::OK, value)
}

/// JSON with another status.
pub(super) fn json_with(status: StatusCode, value: &impl Serialize) -> Reply {
    let mut body = to_json(value)?;
    body.push(b'\n');
    Ok((status, [(CONTENT_TYPE, CONTENT_TYPE_JSON)], body).into_response())
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|e| ApiError::internal(format!("the response cannot be written as JSON: {e}")))
}

/// 200 with a list that may be very long: it is written piece by piece while it is sent.
pub(super) fn list<T, V>(items: Vec<T>, mut show: impl FnMut(T) -> V + Send + 'static) -> Response
where
    T: Send + 'static,
    V: Serialize,
{
    let mut items = items.into_iter().peekable();
    let mut begun = false;
    let mut done = false;
    let chunks = std::iter::from_fn(move || {
        if done {
            return None;
        }
        let mut chunk = Vec::new();
        for item in items.by_ref().take(LIST_CHUNK_LEN) {
            chunk.push(if begun { b',' } else { b'[' });
            begun = true;
            match serde_json::to_vec(&show(item)) {
                Ok(json) => chunk.extend(json),
                // The status is gone already: a broken-off body is the only way to say it.
                Err(error) => {
                    done = true;
                    return Some(Err(error));
                }
            }
        }
        done = items.peek().is_none();
        if done {
            chunk.extend_from_slice(if begun { b"]\n" } else { b"[]\n" });
        }
        Some(Ok(Bytes::from(chunk)))
    });
    ([(CONTENT_TYPE, CONTENT_TYPE_JSON)], Body::from_stream(stream::iter(chunks))).into_response()
}
