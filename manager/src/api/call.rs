//! A request, taken apart.

use std::collections::BTreeMap;

use axum::{
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request, rejection::RawPathParamsRejection},
    http::{HeaderMap, header::CONTENT_TYPE},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use swarm_docker_api::{
    API_VERSION_MAX, ApiError, ApiVersion, Filters, PASSPHRASE_HEADER, is_truthy, parse_bool, read_body,
    read_passphrase, read_registry_auth,
};
use swarm_model::Redacted;

use super::{
    caller::{self, Caller},
    reply::Failure,
};

/// Longest body of a request. A spec may have 512 KiB (`swarm_model::SPEC_BYTES_MAX`); spelt with escapes and
/// indented it needs several times as much.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// A request to one of the routes, its body read.
pub(super) struct Call {
    id: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
    /// The caller.
    pub(super) caller: Caller,
    /// The version of the API that the client speaks; the newest if it did not say.
    pub(super) api_version: ApiVersion,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let id = match RawPathParams::from_request_parts(&mut parts, &()).await {
            Ok(params) => params.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default(),
            Err(RawPathParamsRejection::MissingPathParams(_)) => String::new(),
            Err(error) => return Err(ApiError::bad_request(error.body_text()).into()),
        };
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|e| ApiError::bad_request(format!("invalid query: {e}")))?;
        let mut query = BTreeMap::new();
        for (name, value) in pairs.0 {
            query.entry(name).or_insert(value);
        }
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                ApiError::too_large(format!("the request body is too large, the limit is {BODY_BYTES_MAX} bytes"))
            } else {
                ApiError::bad_request(format!("the request body cannot be read: {error}"))
            }
        })?;
        let api_version = parts.extensions.get().copied().unwrap_or(API_VERSION_MAX);
        let caller = parts.extensions.remove().ok_or_else(caller::unknown)?;
        Ok(Self { id, query, headers: parts.headers, body: body.to_bytes(), caller, api_version })
    }
}

impl Call {
    /// The object in the path: an id, a name or the beginning of an id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// A parameter of the query; the first, if it comes twice.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A parameter that Docker reads strictly as a boolean.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        parse_bool(name, self.param(name))
    }

    /// A parameter that Docker reads loosely as a boolean.
    pub(super) fn truthy(&self, name: &str) -> bool {
        is_truthy(self.param(name))
    }

    /// The filters of a list.
    pub(super) fn filters(&self, allowed: &[&str]) -> Result<Filters, ApiError> {
        Filters::parse(self.param("filters"), allowed)
    }

    /// The version that an update rests on.
    pub(super) fn version(&self, kind: &str) -> Result<u64, ApiError> {
        let text = self.param("version").unwrap_or_default();
        text.parse().map_err(|_| {
            ApiError::bad_request(format!(
                "invalid {kind} version '{text}': ?version= must be the number that was read"
            ))
        })
    }

    /// The body.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let content_type = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        read_body(content_type, &self.body)
    }

    /// The passphrase of a backup.
    pub(super) fn passphrase(&self) -> Result<Redacted, ApiError> {
        read_passphrase(self.headers.get(PASSPHRASE_HEADER).map(|value| value.as_bytes()))
    }

    /// Registry credentials.
    pub(super) fn registry_auth(&self) -> Result<Option<Redacted>, ApiError> {
        read_registry_auth(self.headers.get("x-registry-auth").map(|value| value.as_bytes()))
    }
}
