//! The local Docker Engine: asking it, and passing requests through to it.

use std::{fmt, path::PathBuf, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use hyper::{
    Request, Response, StatusCode, Uri, Version,
    body::Body as HttpBody,
    client::conn::http1::{self, SendRequest},
    header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use swarm_docker_api::{ApiError, ApiVersion, encode_path};
use tokio::net::UnixStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::Engine;

mod newer;

/// Longest wait for the engine to take a connection and say its version. An engine that hangs takes connections and
/// says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a small question of our own.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a registry: clients go on without its answer, but wait for it (docker-api §0.45).
const DISTRIBUTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer to a question of our own; `/info` of a busy engine has some ten thousand bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(path) => write!(f, "unix://{}", path.display()),
            Self::Simulated => f.write_str("simulated"),
        }
    }
}

/// A client of the node's engine. Each request has its own connection: nothing to pool, nothing that goes stale.
#[derive(Clone, Debug)]
pub(crate) struct EngineClient {
    socket: Option<PathBuf>,
    connections: TaskTracker,
    stop: CancellationToken,
}

/// A connection and the newest API version that the engine speaks.
struct Connection {
    sender: SendRequest<Body>,
    version: ApiVersion,
}

impl EngineClient {
    /// A client of this engine.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            socket: match engine {
                Engine::Docker(path) => Some(path.clone()),
                Engine::Simulated => None,
            },
            connections: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Cuts what still runs, such as attached terminals.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.connections.close();
        self.connections.wait().await;
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.connections.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// Whether there is an engine at all.
    pub(crate) fn exists(&self) -> bool {
        self.socket.is_some()
    }

    /// Asks a question of our own, such as `/info`.
    ///
    /// # Errors
    /// 501 without an engine, 503 when it does not answer, 500 for an answer that is not understood.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let answer = async {
            let mut connection = self.connect().await?;
            let request = Request::get(path).header(HOST, "docker").body(Body::empty());
            let request = request.map_err(|e| ApiError::internal(e.to_string()))?;
            let response = connection.sender.send_request(request).await.map_err(|e| self.gone(e))?;
            let status = response.status();
            let body = axum::body::to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX)
                .await
                .map_err(|e| self.gone(e))?;
            if !status.is_success() {
                return Err(ApiError::internal(format!("the container engine answers {path} with status {status}")));
            }
            serde_json::from_slice(&body)
                .map_err(|e| ApiError::internal(format!("the container engine's answer to {path}: {e}")))
        };
        tokio::time::timeout(ASK_TIMEOUT, answer).await.unwrap_or_else(|_| Err(self.gone("no answer in time")))
    }

    /// Passes a request through. `path` is its path, decoded and without a version, `version`
    /// that version. Bodies stream in both
    /// directions, and connections that the engine takes over (attach, exec) are carried on.
    ///
    /// # Errors
    /// 400 for what the engine is too old for, 501 without an engine, 503 when it does not answer.
    pub(crate) async fn pass<B>(
        &self,
        request: Request<B>,
        version: Option<ApiVersion>,
        path: &str,
    ) -> Result<Response<Body>, ApiError>
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        let mut connection = self.connect().await?;
        let request = newer::check(request.map(Body::new), path, version, connection.version).await?;
        let (mut parts, body) = request.into_parts();
        parts.uri = engine_uri(path, parts.uri.query(), version, connection.version)?;
        parts.version = Version::HTTP_11;
        parts.headers.insert(HOST, HeaderValue::from_static("docker"));
        let wants_upgrade = parts.headers.contains_key(UPGRADE);
        if !wants_upgrade {
            parts.headers.remove(CONNECTION);
        }
        // How a body is framed is a matter of each connection.
        parts.headers.remove(TRANSFER_ENCODING);
        let client = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let answer = connection.sender.send_request(Request::from_parts(parts, body));
        let mut response = if path.starts_with("/distribution/") {
            tokio::time::timeout(DISTRIBUTION_TIMEOUT, answer)
                .await
                .map_err(|_| ApiError::unavailable("the registry does not answer in time"))?
        } else {
            answer.await
        }
        .map_err(|e| self.gone(e))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client) = client
        {
            let engine = hyper::upgrade::on(&mut response);
            self.spawn(carry(client, engine));
        }
        response.headers_mut().remove(TRANSFER_ENCODING);
        Ok(response.map(Body::new))
    }

    /// Connects and asks for the version, which may be another one than a moment ago: engines are upgraded.
    async fn connect(&self) -> Result<Connection, ApiError> {
        let Some(socket) = &self.socket else {
            return Err(ApiError::not_implemented(
                "this node has no container engine (swarmd runs with --engine simulated), so that only swarm commands \
                 work here",
            ));
        };
        let connected = async {
            let stream = UnixStream::connect(socket).await.map_err(|e| self.gone(e))?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.gone(e))?;
            // Ends when the sender and the bodies of its requests are dropped.
            self.spawn(async move {
                if let Err(e) = connection.with_upgrades().await {
                    tracing::debug!("a connection to the container engine ended: {e}");
                }
            });
            let version = ask_version(&mut sender).await.map_err(|e| self.gone(e))?;
            Ok(Connection { sender, version })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connected).await.unwrap_or_else(|_| Err(self.gone("no answer in time")))
    }

    fn gone(&self, problem: impl fmt::Display) -> ApiError {
        let socket = self.socket.as_deref().unwrap_or_else(|| "?".as_ref()).display();
        ApiError::unavailable(format!("the container engine at unix://{socket} does not answer: {problem}"))
    }
}

async fn ask_version(sender: &mut SendRequest<Body>) -> anyhow::Result<ApiVersion> {
    let request = Request::get("/_ping").header(HOST, "docker").body(Body::empty())?;
    let response = sender.send_request(request).await?;
    let header = response.headers().get("api-version").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    // The body has to be read to use the connection again.
    axum::body::to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await?;
    let version = header.parse().map_err(|_| anyhow::anyhow!("it says {header:?} for its API version"))?;
    sender.ready().await?;
    Ok(version)
}

/// The address of a request at the engine: of the version that was asked for, but none that the engine does not speak.
fn engine_uri(path: &str, query: Option<&str>, asked: Option<ApiVersion>, spoken: ApiVersion) -> Result<Uri, ApiError> {
    let version = asked.map(|asked| format!("/v{}", asked.min(spoken))).unwrap_or_default();
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let encoded = encode_path(path);
    format!("{version}{encoded}{query}").parse().map_err(|e| ApiError::bad_request(format!("invalid path {path}: {e}")))
}

/// Carries the bytes of a connection that was taken over, until both sides have ended.
async fn carry(client: hyper::upgrade::OnUpgrade, engine: hyper::upgrade::OnUpgrade) {
    match tokio::try_join!(client, engine) {
        Ok((client, engine)) => {
            let (mut client, mut engine) = (TokioIo::new(client), TokioIo::new(engine));
            if let Err(e) = tokio::io::copy_bidirectional(&mut client, &mut engine).await {
                tracing::debug!("an attached connection ended: {e}");
            }
        }
        Err(e) => tracing::debug!("a connection was not taken over: {e}"),
    }
}

#[cfg(test)]
mod tests;
