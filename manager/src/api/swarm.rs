//! The cluster.

use std::sync::Arc;

use axum::extract;
use swarm_core::{Guard, Op, Tx};
use swarm_docker_api::{
    ApiError,
    view::{SwarmView, UnlockKeyView},
};
use swarm_model::{ClusterSpec, JoinTokens, validate_cluster_spec};

use super::{
    Plane, available,
    call::Call,
    reply::{self, Reply},
    resolve,
};

/// `GET /swarm`
pub(super) async fn inspect<P: Plane>(extract::State(plane): extract::State<P>) -> Reply {
    let state = plane.read().await?;
    reply::json(&SwarmView::new(resolve::cluster(&state)?, plane.tls_info()))
}

/// `POST /swarm/update`
pub(super) async fn update<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let version = call.version("swarm")?;
    let (rotate_worker, rotate_manager) = (call.flag("rotateWorkerToken")?, call.flag("rotateManagerToken")?);
    if call.flag("rotateManagerUnlockKey")? {
        return Err(ApiError::bad_request("there is no unlock key to rotate: autolock is off").into());
    }
    let mut spec: ClusterSpec = call.body()?;
    available::check_cluster(&spec)?;
    spec.fill_defaults();
    validate_cluster_spec(&spec)?;

    let state = plane.read().await?;
    let cluster = resolve::cluster(&state)?;
    if cluster.version != version {
        return Err(reply::out_of_sequence().into());
    }
    let mut tokens = JoinTokens::clone(&cluster.join_tokens);
    if rotate_worker {
        tokens.worker = plane.rotate_join_token(&tokens.worker)?;
    }
    if rotate_manager {
        tokens.manager = plane.rotate_join_token(&tokens.manager)?;
    }
    let join_tokens = (rotate_worker || rotate_manager).then(|| Arc::new(tokens));
    let tx = Tx::new(vec![Op::UpdateCluster { spec: Arc::new(spec), join_tokens }]).guard(Guard::Cluster { version });
    reply::commit(&plane, tx).await?;
    Ok(reply::empty())
}

/// `GET /swarm/unlockkey`: autolock is off, so there is none.
pub(super) async fn unlock_key<P: Plane>(extract::State(plane): extract::State<P>) -> Reply {
    resolve::cluster(&plane.read().await?)?;
    reply::json(&UnlockKeyView::default())
}
