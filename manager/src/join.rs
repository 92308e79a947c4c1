//! Certificates for nodes: the two HTTP routes that a peer without one may use, and renewal (swarm-behaviour §9).
//!
//! A node is admitted by the log before its certificate leaves this manager, so that no certificate exists of a node
//! that the cluster does not know.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State as Shared},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use swarm_consensus::ProposeError;
use swarm_core::{FEATURE_LEVEL_MIN, Op, State, Tx};
use swarm_model::{Author, Availability, Cluster, Id, NodeId, NodeName, NodeRole, Principal, Redacted};
use swarm_wire::{
    Ca, CaError, IssuedCert, JoinToken, PeerIdentity, SigningTime,
    join::{CA_PATH, CERTIFICATE_PATH, CertificateRequest, CertificateResponse, JOIN_BODY_BYTES_MAX},
};
use thiserror::Error;
use tokio::time::Instant;

use crate::{
    api::Caller,
    clock::{self, Clock},
    feed::{Feed, lock},
    raft::Raft,
};

/// Wrong tokens that are answered in full within [`FAILURES_WINDOW`]; more are turned away at once. Secrets have 128
/// bits, so that this only keeps the log readable; right tokens are never turned away.
const FAILURES_MAX: u32 = 20;

/// Window of [`FAILURES_MAX`].
const FAILURES_WINDOW: Duration = Duration::from_secs(10);

/// Longest `HOST:PORT`: the longest name that DNS has, and a port.
const ADDR_BYTES_MAX: usize = 253 + 6;

/// Issues certificates to nodes, by join token or to renew.
pub(crate) struct Authority {
    raft: Arc<dyn Raft>,
    feed: Arc<Feed>,
    clock: Clock,
    failures: Mutex<Option<(Instant, u32)>>,
}

/// Why there is no certificate.
#[derive(Debug, Error)]
enum Denied {
    #[error("the request is not one for a certificate: {0}")]
    Malformed(String),
    #[error("{0}")]
    Token(String),
    #[error(
        "the join token is not valid: it was rotated, or never of this swarm; \
         print the present one with `swarm join-token worker` on a manager"
    )]
    WrongToken,
    #[error("too many wrong join tokens; try again in {} s", FAILURES_WINDOW.as_secs())]
    TooMany,
    #[error("a join token, or the certificate that is to be renewed, is needed")]
    Nobody,
    #[error("{0}")]
    Forbidden(String),
    #[error("the address that other nodes are to reach the manager by is no HOST:PORT: {0:?}")]
    Address(String),
    #[error("{0}")]
    Request(CaError),
    #[error("{0}")]
    Internal(String),
    #[error("the swarm has no leader now{}; try again in a moment", .0.as_ref().map(|addr| format!(", the last one was at {addr}")).unwrap_or_default())]
    NotLeader(Option<String>),
    #[error("{0}; try again in a moment")]
    Unavailable(ProposeError),
}

impl Denied {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Token(_) | Self::Request(_) | Self::Address(_) => StatusCode::BAD_REQUEST,
            Self::Nobody => StatusCode::UNAUTHORIZED,
            Self::WrongToken | Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotLeader(_) | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let message = self.to_string();
        tracing::info!(%message, "a certificate was not issued");
        (self.status(), Json(json!({ "message": message }))).into_response()
    }
}

/// Who is to get a certificate, and as what.
struct Admission {
    node: NodeId,
    role: NodeRole,
    manager_addr: Option<String>,
    availability: Availability,
}

impl Authority {
    pub(crate) fn new(raft: Arc<dyn Raft>, feed: Arc<Feed>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { raft, feed, clock, failures: Mutex::default() })
    }

    /// The routes. The daemon puts the [`PeerIdentity`] of a peer that showed a certificate into the request's
    /// extensions, and a [`Caller`] if it wants to know what came of it.
    pub(crate) fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route(CA_PATH, get(root))
            .route(CERTIFICATE_PATH, post(certificate))
            .layer(DefaultBodyLimit::max(JOIN_BODY_BYTES_MAX))
            .with_state(self.clone())
    }

    async fn issue(
        &self,
        peer: Option<PeerIdentity>,
        caller: Option<Caller>,
        body: &[u8],
    ) -> Result<CertificateResponse, Denied> {
        let request: CertificateRequest =
            serde_json::from_slice(body).map_err(|error| Denied::Malformed(error.to_string()))?;
        let manager_addr = request.manager_addr.clone();
        // Tokens, roles and removals as they are now, whoever leads.
        let state = self.raft.read_barrier().await.map_err(denied)?;
        let cluster = state.cluster().ok_or_else(|| Denied::Internal("there is no swarm yet".into()))?;
        let admission = match (&request.token, peer) {
            (Some(token), _) => self.join(cluster, token, request.availability, manager_addr)?,
            (None, Some(peer)) => renew(&state, cluster, &peer, manager_addr)?,
            (None, None) => return Err(Denied::Nobody),
        };
        let (level, knows) = (state.feature_level(), request.feature_level.max(FEATURE_LEVEL_MIN));
        if admission.role == NodeRole::Manager && knows < level {
            return Err(Denied::Forbidden(format!(
                "the swarm uses feature level {level}, and swarmd on this node knows levels up to {knows}: upgrade it, then \
                 make the node a manager"
            )));
        }
        let issued = self.sign(&state, cluster, admission.node, admission.role, &request.csr)?;
        let Admission { node, role, manager_addr, availability } = admission;
        let admit = Op::AdmitNode { node, role, cert_expires_at: issued.expires_at, manager_addr, availability };
        let name = NodeName::new(node, state.node(node).map_or("", |node| node.hostname()));
        let author = Arc::new(Author::of(Principal::Node(name)));
        let committed = self.raft.write(vec![Tx::new(vec![admit]).by(author)]).await.map_err(denied)?;
        if let Some(Err(refusal)) = committed.outcomes.into_iter().next() {
            return Err(Denied::Forbidden(refusal.to_string()));
        }
        tracing::info!(%node, %role, "a certificate was issued");
        if let Some(caller) = caller {
            caller.concerns(format!("node {node} as {role}"));
            caller.changed(committed.index);
        }
        let raft_id = self.feed.state().node(node).and_then(|node| node.raft_id);
        Ok(response(cluster, &issued, raft_id))
    }

    /// A certificate for this manager itself, whose own has expired: no other manager would take it to renew it, and if
    /// this is the only one, or all were off for as long, nobody is left to ask. It has the authority's key in any case.
    ///
    /// # Errors
    /// As far as it knows the node is no manager any more, or signing fails.
    pub(crate) fn issue_own(&self, node: NodeId, csr: &str) -> Result<CertificateResponse, String> {
        let state = self.feed.state();
        let known =
            state.cluster().zip(state.node(node).filter(|node| node.next_role(NodeRole::Manager) == NodeRole::Manager));
        let (cluster, node) = known.ok_or_else(|| format!("node {node} is no manager any more"))?;
        let issued =
            self.sign(&state, cluster, node.id, NodeRole::Manager, csr).map_err(|denied| denied.to_string())?;
        Ok(response(cluster, &issued, node.raft_id))
    }

    fn sign(
        &self,
        state: &State,
        cluster: &Cluster,
        node: NodeId,
        role: NodeRole,
        csr: &str,
    ) -> Result<IssuedCert, Denied> {
        let time = SigningTime { clock: (self.clock)(), log: state.time() };
        let (root, validity_ns) = (cluster.issuing_root(), cluster.spec.ca_config.node_cert_expiry_ns);
        let issued = Ca::load(&root.cert_pem, &root.key_pem)
            .and_then(|ca| ca.issue(csr, node, role, cluster.id, validity_ns, time));
        issued.map_err(|error| match error {
            CaError::Request(_) => Denied::Request(error),
            CaError::Root(_) | CaError::Sign(_) => Denied::Internal(error.to_string()),
        })
    }

    fn join(
        &self,
        cluster: &Cluster,
        token: &Redacted,
        availability: Availability,
        manager_addr: Option<String>,
    ) -> Result<Admission, Denied> {
        let found = self.check(cluster, token);
        if matches!(found, Err(Denied::Token(_) | Denied::WrongToken)) && self.too_many() {
            return Err(Denied::TooMany);
        }
        let role = found?;
        Ok(Admission {
            node: NodeId::make((self.clock)(), clock::random().map_err(Denied::Internal)?),
            manager_addr: addr_of(role, manager_addr)?,
            role,
            availability,
        })
    }

    /// The role that a token gives.
    fn check(&self, cluster: &Cluster, token: &Redacted) -> Result<NodeRole, Denied> {
        let text = |error: swarm_wire::TokenError| Denied::Token(error.to_string());
        JoinToken::parse(token.expose()).and_then(|t| t.check_root(&cluster.root_ca.cert_pem)).map_err(text)?;
        for (role, ours) in
            [(NodeRole::Worker, &cluster.join_tokens.worker), (NodeRole::Manager, &cluster.join_tokens.manager)]
        {
            let ours = JoinToken::parse(ours.expose()).map_err(|error| Denied::Internal(error.to_string()))?;
            if ours.matches(token.expose()) {
                return Ok(role);
            }
        }
        Err(Denied::WrongToken)
    }

    /// Counts a wrong token.
    fn too_many(&self) -> bool {
        let now = Instant::now();
        let mut failures = lock(&self.failures);
        let (began, count) = failures.filter(|(began, _)| now < *began + FAILURES_WINDOW).unwrap_or((now, 0));
        *failures = Some((began, count.saturating_add(1)));
        count >= FAILURES_MAX
    }
}

/// A certificate with all that makes others trust it, and whom its node is to trust.
fn response(cluster: &Cluster, issued: &IssuedCert, raft_id: Option<u64>) -> CertificateResponse {
    let chain = cluster.root_rotation.as_ref().map_or("", |rotation| &rotation.cross_signed_pem);
    let certificate = [&issued.cert_pem, chain].concat();
    CertificateResponse { certificate, trusted: Some(cluster.trusted_pem()), raft_id }
}

/// A node that shows its certificate gets a new one, with the role that the state has for it: a changed role takes
/// effect with the next certificate.
fn renew(
    state: &State,
    cluster: &Cluster,
    peer: &PeerIdentity,
    manager_addr: Option<String>,
) -> Result<Admission, Denied> {
    if peer.cluster != cluster.id {
        return Err(Denied::Forbidden(format!("the certificate is of swarm {}, this is {}", peer.cluster, cluster.id)));
    }
    if !cluster.trusts(&peer.issuer) {
        let text = "the certificate comes from a root CA that was replaced: leave the swarm and join it anew";
        return Err(Denied::Forbidden(text.into()));
    }
    let node = state.node(peer.node).filter(|_| !cluster.removed_nodes.contains_key(&peer.node));
    let node = node.ok_or_else(|| Denied::Forbidden(format!("node {} was removed from the swarm", peer.node)))?;
    let role = node.next_role(peer.role);
    Ok(Admission {
        node: node.id,
        role,
        manager_addr: addr_of(role, manager_addr.or_else(|| node.manager_addr.clone()))?,
        availability: node.spec.availability,
    })
}

/// The address of a manager; a worker has none.
fn addr_of(role: NodeRole, addr: Option<String>) -> Result<Option<String>, Denied> {
    match role {
        NodeRole::Worker => Ok(None),
        NodeRole::Manager => match addr.unwrap_or_default() {
            addr if is_address(&addr) => Ok(Some(addr)),
            other => Err(Denied::Address(other)),
        },
    }
}

/// Whether this is a `HOST:PORT` that could be dialled.
fn is_address(addr: &str) -> bool {
    let parts = addr.rsplit_once(':').filter(|_| addr.len() <= ADDR_BYTES_MAX);
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn denied(error: ProposeError) -> Denied {
    match error {
        ProposeError::NotLeader { leader } => Denied::NotLeader(leader),
        other => Denied::Unavailable(other),
    }
}

async fn root(Shared(authority): Shared<Arc<Authority>>) -> Response {
    match authority.feed.state().cluster() {
        Some(cluster) => ([(CONTENT_TYPE, "application/x-pem-file")], cluster.root_ca.cert_pem.clone()).into_response(),
        None => Denied::Internal("there is no swarm yet".into()).into_response(),
    }
}

async fn certificate(
    Shared(authority): Shared<Arc<Authority>>,
    peer: Option<Extension<PeerIdentity>>,
    caller: Option<Extension<Caller>>,
    body: Bytes,
) -> Result<Json<CertificateResponse>, Denied> {
    let (peer, caller) = (peer.map(|Extension(peer)| peer), caller.map(|Extension(caller)| caller));
    authority.issue(peer, caller, &body).await.map(Json)
}

#[cfg(test)]
mod tests;
