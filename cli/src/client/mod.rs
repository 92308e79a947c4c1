//! The HTTP client: Docker's API over the Unix socket of swarmd.

mod backup;
mod consistency;
mod error;
mod host;
mod path;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::{Body, Incoming},
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use swarm_docker_api::view::ErrorMessage;
use tokio::net::UnixStream;

pub(crate) use backup::Received;
pub(crate) use consistency::{Consistency, Staleness};
pub(crate) use error::{ClientError, OVERTAKEN_MAX};
pub(crate) use host::Host;
pub(crate) use path::{Query, segment};

/// Version of the API that this program speaks.
const VERSION_PREFIX: &str = "/v1.50";
/// Longest wait for the head of a response. A join takes up to 20 s (docker-api §3).
const RESPONSE_WAIT: Duration = Duration::from_secs(60);
/// Largest response that is taken; a list of 100,000 tasks is about 100 MB.
const RESPONSE_BYTES_MAX: usize = 512 << 20;

/// Said when a change is asked for with `--consistency stale`.
const STALE_CHANGE: &str =
    "--consistency stale is for reading: a change is made by most managers together, or not at all";

/// Said instead of asking for an object without a name, which would ask for all of them.
const EMPTY_NAME: &str = "a name or id is empty";

/// A client of one swarmd. Each request has its own connection: that is cheap on a Unix socket, and nothing is stale
/// after a restart of swarmd.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    host: Arc<Host>,
    consistency: Consistency,
    staleness: Arc<Staleness>,
}

impl Client {
    /// A client of the swarmd at `host`. Nothing is sent yet.
    pub(crate) fn new(host: Host, consistency: Consistency) -> Self {
        Self { host: Arc::new(host), consistency, staleness: Arc::default() }
    }

    /// How old what was read so far may be.
    pub(crate) fn staleness(&self) -> &Staleness {
        &self.staleness
    }

    /// Reads an object.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: Query) -> Result<T, ClientError> {
        read(path, &self.get_bytes(path, query).await?)
    }

    /// Reads an object as the server wrote it.
    pub(crate) async fn get_bytes(&self, path: &str, query: Query) -> Result<Bytes, ClientError> {
        let response = self.send(Method::GET, path, query, None, None).await?;
        self.body(response).await
    }

    /// Reads an object with credentials for a registry.
    pub(crate) async fn get_with_auth<T: DeserializeOwned>(
        &self,
        path: &str,
        registry_auth: Option<&str>,
    ) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, Query::new(), None, registry_auth).await?;
        read(path, &self.body(response).await?)
    }

    /// Opens a stream; its end is the server's or the caller's business.
    pub(crate) async fn stream(&self, path: &str, query: Query) -> Result<Incoming, ClientError> {
        Ok(self.send(Method::GET, path, query, None, None).await?.into_body())
    }

    /// Posts without a body.
    pub(crate) async fn post_empty(&self, path: &str, query: Query) -> Result<(), ClientError> {
        let response = self.send(Method::POST, path, query, None, None).await?;
        self.body(response).await.map(drop)
    }

    /// Posts an object. `registry_auth` is the value of `X-Registry-Auth`.
    pub(crate) async fn post<B: Serialize + ?Sized>(
        &self,
        path: &str,
        query: Query,
        body: &B,
        registry_auth: Option<&str>,
    ) -> Result<Bytes, ClientError> {
        let json = serde_json::to_vec(body).map_err(|e| ClientError::Request(e.to_string()))?;
        let response = self.send(Method::POST, path, query, Some(json), registry_auth).await?;
        self.body(response).await
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, path: &str, query: Query) -> Result<(), ClientError> {
        let response = self.send(Method::DELETE, path, query, None, None).await?;
        self.body(response).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: Query,
        body: Option<Vec<u8>>,
        registry_auth: Option<&str>,
    ) -> Result<Response<Incoming>, ClientError> {
        if path::has_empty_segment(path) {
            return Err(ClientError::Request(EMPTY_NAME.to_owned()));
        }
        let query = match (self.consistency, &method) {
            (Consistency::Linearizable, _) => query,
            (Consistency::Stale, &Method::GET) => query.with("consistency", "stale"),
            (Consistency::Stale, _) => return Err(ClientError::Request(STALE_CHANGE.to_owned())),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{VERSION_PREFIX}{path}{query}"))
            .header(HOST, "swarmd")
            .header(USER_AGENT, concat!("swarmctl/", env!("CARGO_PKG_VERSION")));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(auth) = registry_auth {
            let mut value = HeaderValue::from_str(auth).map_err(|e| ClientError::Request(e.to_string()))?;
            value.set_sensitive(true);
            request = request.header(HeaderName::from_static("x-registry-auth"), value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|e| ClientError::Request(e.to_string()))?;
        let response = self.answer(request, RESPONSE_WAIT).await?;
        self.staleness.note(response.headers());
        Ok(response)
    }

    /// Sends a request and waits for the head of its response; a refusal is an error.
    async fn answer<B>(&self, request: Request<B>, longest: Duration) -> Result<Response<Incoming>, ClientError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let response = tokio::time::timeout(longest, self.exchange(request))
            .await
            .map_err(|_| ClientError::NoAnswer { host: self.host.clone(), seconds: longest.as_secs() })??;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.body(response).await?;
        let message = match serde_json::from_slice::<ErrorMessage>(&bytes) {
            Ok(error) if !error.message.is_empty() => error.message,
            _ => format!("{} {}", status, String::from_utf8_lossy(&bytes).trim()),
        };
        Err(ClientError::Refused { status: status.as_u16(), message: message.trim().to_owned() })
    }

    async fn exchange<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ClientError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let stream = UnixStream::connect(&self.host.socket)
            .await
            .map_err(|error| ClientError::Unreachable { host: self.host.clone(), error })?;
        let broken = |error| ClientError::Broken { host: self.host.clone(), error };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends by itself: with the response, or when the sender and the body are dropped.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken)
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        match Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(error) => ClientError::Broken { host: self.host.clone(), error: *error },
                Err(error) => ClientError::Request(error.to_string()),
            }),
        }
    }
}

/// Reads a JSON response.
pub(crate) fn read<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| ClientError::NotUnderstood { path: path.to_owned(), error })
}
