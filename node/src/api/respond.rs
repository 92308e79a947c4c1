//! Responses in Docker's shape.

use axum::body::Body;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, SERVER},
};
use serde::Serialize;
use swarm_docker_api::{API_VERSION_MAX, ApiError, CONTENT_TYPE_JSON};

/// Clients take the operating system from it, in this form (docker-api §1).
const SERVER_VALUE: &str = concat!("Docker/swarmd-", env!("CARGO_PKG_VERSION"), " (linux)");

/// Sets the headers that every response has, whoever made it.
pub(super) fn finish(mut response: Response<Body>) -> Response<Body> {
    let version = HeaderValue::try_from(API_VERSION_MAX.to_string()).expect("a version is digits and a dot");
    let headers = response.headers_mut();
    headers.insert("api-version", version);
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    headers.insert(SERVER, HeaderValue::from_static(SERVER_VALUE));
    response
}

/// A JSON body, with a line end as Docker's.
pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            typed(StatusCode::OK, body)
        }
        Err(e) => error(&ApiError::internal(format!("the response cannot be written: {e}"))),
    }
}

/// Success with nothing to say.
pub(super) fn empty() -> Response<Body> {
    Response::new(Body::empty())
}

/// An error; the content type is exactly what Go's client compares it with.
pub(super) fn error(error: &ApiError) -> Response<Body> {
    typed(StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error.body())
}

fn typed(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_JSON));
    response
}

/// Sets headers with fixed values.
pub(super) fn set(headers: &mut HeaderMap, values: &[(&'static str, &'static str)]) {
    for (name, value) in values {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}
