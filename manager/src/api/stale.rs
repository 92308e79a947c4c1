//! Reads that need no majority: `?consistency=stale` shows what this manager knows, and says how old that may be.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Query, Request},
    http::{HeaderValue, Method},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::stream::BoxStream;
use swarm_consensus::{Committed, Status, Survey};
use swarm_core::{State, Tx};
use swarm_docker_api::{ApiError, LEADER_CONTACT_HEADER, REVISION_HEADER, view::TlsInfo};
use swarm_model::{Node, NodeId, Redacted, RootCa, RootRotation, Timestamp};
use swarm_wire::agent::{LogMessage, Question};
use tower::ServiceExt;

use super::{Answers, LogSelector, Plane, PlaneError, SealedBackup, reply::Failure};

/// A manager that is asked for what it knows, whatever the others know.
#[derive(Clone)]
pub(super) struct Stale<P>(pub(super) P);

/// Sends a request to the routes that it asks for.
pub(super) async fn choose<P: Plane>(plane: P, stale: Router, request: Request, next: Next) -> Response {
    let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    // A query that cannot be read is refused by whoever reads it.
    let pairs = query.map(|query| query.0).unwrap_or_default();
    let wanted = pairs.iter().find(|(name, _)| name == "consistency").map_or("", |(_, value)| value);
    match wanted {
        "" | "linearizable" => next.run(request).await,
        "stale" if matches!(*request.method(), Method::GET | Method::HEAD) => {
            // Before the answer is made, which may only be newer.
            let (revision, contact) = (plane.state().revision(), plane.leader_contact());
            let Ok(mut response) = stale.oneshot(request).await;
            let headers = response.headers_mut();
            headers.insert(REVISION_HEADER, HeaderValue::from(revision));
            if let Some(contact) = contact {
                let ms = u64::try_from(contact.as_millis()).unwrap_or(u64::MAX);
                headers.insert(LEADER_CONTACT_HEADER, HeaderValue::from(ms));
            }
            response
        }
        "stale" => refuse("consistency=stale is for reads: a change is made by the managers together, or not at all"),
        other => refuse(&format!("invalid consistency {other:?}: possible are linearizable and stale")),
    }
}

fn refuse(message: &str) -> Response {
    Failure::from(ApiError::bad_request(message)).into_response()
}

impl<P: Plane> Plane for Stale<P> {
    async fn propose(&self, _: Vec<Tx>) -> Result<Committed, PlaneError> {
        Err(PlaneError::NotNow("a stale read changes nothing".into()))
    }

    fn leading(&self) -> Option<(u64, Arc<State>)> {
        None
    }

    async fn propose_in_term(&self, _: u64, txs: Vec<Tx>) -> Result<Committed, PlaneError> {
        self.propose(txs).await
    }

    async fn read(&self) -> Result<State, PlaneError> {
        Ok(self.0.state())
    }

    fn state(&self) -> State {
        self.0.state()
    }

    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn random(&self) -> u128 {
        self.0.random()
    }

    fn rotate_join_token(&self, token: &Redacted) -> Result<Redacted, PlaneError> {
        self.0.rotate_join_token(token)
    }

    fn new_unlock_key(&self) -> Result<Redacted, PlaneError> {
        self.0.new_unlock_key()
    }

    fn begin_root_rotation(&self, old: &RootCa, new: Option<&RootCa>) -> Result<RootRotation, PlaneError> {
        self.0.begin_root_rotation(old, new)
    }

    async fn managers(&self) -> Status {
        self.0.managers().await
    }

    async fn survey(&self) -> Survey {
        self.0.survey().await
    }

    fn problem(&self) -> Option<String> {
        self.0.problem()
    }

    fn leader_contact(&self) -> Option<Duration> {
        self.0.leader_contact()
    }

    async fn hand_over(&self, to: Option<u64>) -> Result<(), PlaneError> {
        self.0.hand_over(to).await
    }

    async fn backup(&self, passphrase: Redacted) -> Result<(u64, SealedBackup), PlaneError> {
        self.0.backup(passphrase).await
    }

    fn tls_info(&self) -> TlsInfo {
        self.0.tls_info()
    }

    fn node_tls_info(&self, node: &Node) -> TlsInfo {
        self.0.node_tls_info(node)
    }

    async fn logs(&self, selector: LogSelector) -> Result<BoxStream<'static, LogMessage>, PlaneError> {
        self.0.logs(selector).await
    }

    async fn ask(&self, questions: Vec<(NodeId, Question)>) -> Answers {
        self.0.ask(questions).await
    }
}
