//! The caller of a route, and the notes that the route makes on the call.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use swarm_core::{Op, State, Tx};
use swarm_docker_api::ApiError;
use swarm_model::Author;

use super::reply::Failure;

/// The caller of a route. The daemon puts it into the request's extensions once the call is authorised; no route answers
/// without it. Routes note here what the call changed, for the daemon to read. All clones share the notes.
#[derive(Clone, Debug)]
pub struct Caller {
    author: Arc<Author>,
    object: Arc<OnceLock<String>>,
    revision: Arc<OnceLock<u64>>,
}

impl Caller {
    /// A call of this author.
    pub fn new(author: Arc<Author>) -> Self {
        Self { author, object: Arc::default(), revision: Arc::default() }
    }

    /// The author of the changes that the call makes.
    pub fn author(&self) -> &Arc<Author> {
        &self.author
    }

    /// The object that the call was to change, for people, such as `service web`; none if the call did not come so far.
    pub fn object(&self) -> Option<&str> {
        self.object.get().map(String::as_str)
    }

    /// The log index of the change; none if there was none.
    pub fn revision(&self) -> Option<u64> {
        self.revision.get().copied()
    }

    /// Notes the object that is to be changed. The first note stays: a change that is made again has the same object.
    pub(crate) fn concerns(&self, object: String) {
        let _ = self.object.set(object);
    }

    /// Notes that a change is in the log.
    pub(crate) fn changed(&self, revision: u64) {
        let _ = self.revision.set(revision);
    }
}

/// Refuses a request without a caller.
pub(super) async fn demand(request: Request, next: Next) -> Response {
    if request.extensions().get::<Caller>().is_some() {
        return next.run(request).await;
    }
    Failure::from(unknown()).into_response()
}

/// The error of a call whose caller is not known.
pub(super) fn unknown() -> ApiError {
    ApiError::internal("this call came past the place that authorises calls: this is a mistake of swarmd")
}

/// The object that a transaction changes, for people. The name is the one that the object has before the transaction.
pub(super) fn object(state: &State, tx: &Tx) -> Option<String> {
    tx.ops.iter().find_map(|op| {
        Some(match op {
            Op::CreateService { spec, .. } => format!("service {}", spec.name),
            Op::UpdateService { service, .. }
            | Op::RollBack { service, .. }
            | Op::SetRebalance { service, .. }
            | Op::RemoveService { service } => format!("service {}", state.service(*service)?.spec.name),
            Op::CreateObject { name, content, .. } => format!("{} {name}", content.kind()),
            Op::LabelObject { object, .. } | Op::RemoveObject { object } => {
                format!("{} {}", object.kind, state.object(*object)?.name)
            }
            Op::UpdateNode { node, .. } | Op::RemoveNode { node, .. } => match state.node(*node)?.hostname() {
                "" => format!("node {node}"),
                name => format!("node {name}"),
            },
            Op::UpdateCluster { .. } => "the swarm".to_owned(),
            _ => return None,
        })
    })
}
