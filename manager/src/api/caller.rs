//! Who makes a call, and what became of it.

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

/// Who makes a call. The daemon finds it out, lets the call pass, and puts this into the request's extensions; without it
/// no route answers. What the call changes is noted here for whoever made it; clones note in the same place.
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

    /// Who makes the call.
    pub fn author(&self) -> &Arc<Author> {
        &self.author
    }

    /// What the call was to change, for people, such as `service web`; none if it did not come so far.
    pub fn object(&self) -> Option<&str> {
        self.object.get().map(String::as_str)
    }

    /// The log index of the change; none if there was none.
    pub fn revision(&self) -> Option<u64> {
        self.revision.get().copied()
    }

    /// Notes what is to be changed. The first word counts: a change that is made again concerns the same.
    pub(crate) fn concerns(&self, object: String) {
        let _ = self.object.set(object);
    }

    /// Notes that a change is in the log.
    pub(crate) fn changed(&self, revision: u64) {
        let _ = self.revision.set(revision);
    }
}

/// Answers no request that names nobody.
pub(super) async fn demand(request: Request, next: Next) -> Response {
    if request.extensions().get::<Caller>().is_some() {
        return next.run(request).await;
    }
    Failure::from(ApiError::internal(
        "this call came past the place that authorises calls: this is a mistake of swarmd",
    ))
    .into_response()
}

/// What a transaction changes, for people: by the names that the state has before it.
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
