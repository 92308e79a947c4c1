//! The cluster.

use std::sync::Arc;

use axum::extract;
use swarm_core::{Guard, Op, Tx};
use swarm_docker_api::{
    ApiError,
    view::{SwarmView, UnlockKeyView},
};
use swarm_model::{ClusterSpec, JoinTokens, Node, validate_cluster_spec};

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
    let rotate_unlock_key = call.flag("rotateManagerUnlockKey")?;
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
    let mut ops = Vec::new();
    match (spec.encryption_config.auto_lock_managers, &cluster.unlock_key) {
        (false, _) if rotate_unlock_key => {
            return Err(ApiError::bad_request("there is no unlock key to rotate: autolock is off").into());
        }
        (false, Some(_)) => ops.push(Op::SetUnlockKey { key: None }),
        (true, key) if key.is_none() || rotate_unlock_key => {
            ops.push(Op::SetUnlockKey { key: Some(plane.new_unlock_key()?) });
        }
        (false, None) | (true, _) => {}
    }
    if spec.ca_config.force_rotate != cluster.spec.ca_config.force_rotate {
        if let Some(rotation) = &cluster.root_rotation {
            let has_followed = |node: &&Arc<Node>| node.cert_issuer() == rotation.root.key_id;
            return Err(ApiError::bad_request(format!(
                "the root CA is being replaced already, and {} of {} nodes have followed: nodes that are down have to \
                 come back, or be removed with \"node rm --force\"",
                state.nodes().filter(has_followed).count(),
                state.nodes().count()
            ))
            .into());
        }
        ops.push(Op::StartRootRotation(Arc::new(plane.begin_root_rotation(&cluster.root_ca)?)));
    }
    ops.push(Op::UpdateCluster { spec: Arc::new(spec), join_tokens });
    reply::commit(&plane, Tx::new(ops).guard(Guard::Cluster { version })).await?;
    Ok(reply::empty())
}

/// `GET /swarm/unlockkey`; it is empty while autolock is off.
pub(super) async fn unlock_key<P: Plane>(extract::State(plane): extract::State<P>) -> Reply {
    let state = plane.read().await?;
    let unlock_key = resolve::cluster(&state)?.unlock_key.clone().unwrap_or_default();
    reply::json(&UnlockKeyView { unlock_key })
}
