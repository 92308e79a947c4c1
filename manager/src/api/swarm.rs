//! The cluster.

use std::{mem, sync::Arc};

use axum::extract;
use swarm_core::{Guard, Op, Tx};
use swarm_docker_api::{
    ApiError,
    view::{SwarmView, UnlockKeyView},
};
use swarm_model::{ClusterSpec, JoinTokens, Node, Redacted, RootCa, Timestamp, validate_cluster_spec};
use swarm_wire::{Ca, clock};

use super::{
    Plane, available,
    call::Call,
    change::change,
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
    // Neither is kept with the settings.
    let own_cert = mem::take(&mut spec.ca_config.signing_ca_cert);
    let own_key = mem::take(&mut spec.ca_config.signing_ca_key);
    let own_root = own_root(&own_cert, &own_key, clock::now())?;
    spec.fill_defaults();
    validate_cluster_spec(&spec)?;

    change(&plane, &call.caller, |state| {
        let cluster = resolve::cluster(state)?;
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
            // Without autolock there is no key, and a new one is asked for in vain.
            (false, Some(_)) => ops.push(Op::SetUnlockKey { key: None }),
            (true, key) if key.is_none() || rotate_unlock_key => {
                ops.push(Op::SetUnlockKey { key: Some(plane.new_unlock_key()?) });
            }
            (false, None) | (true, _) => {}
        }
        if own_root.as_ref().is_some_and(|root| root.key_id == cluster.root_ca.key_id) {
            return Err(
                ApiError::bad_request("this is the key of the root CA that the swarm has: nothing would change").into()
            );
        }
        if own_root.is_some() || spec.ca_config.force_rotate != cluster.spec.ca_config.force_rotate {
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
            ops.push(Op::StartRootRotation(Arc::new(plane.begin_root_rotation(&cluster.root_ca, own_root.as_ref())?)));
        }
        ops.push(Op::UpdateCluster { spec: Arc::new(spec.clone()), join_tokens });
        Ok((Tx::new(ops).guard(Guard::Cluster { version }), ()))
    })
    .await?;
    Ok(reply::empty())
}

/// The operator's own certificate authority, if one is given.
fn own_root(cert_pem: &str, key_pem: &Redacted, now: Timestamp) -> Result<Option<RootCa>, ApiError> {
    match (cert_pem.is_empty(), key_pem.expose().is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(ApiError::bad_request("a key of a root CA (--ca-key) needs its certificate (--ca-cert)")),
        (false, true) => Err(ApiError::bad_request(
            "a root CA of your own (--ca-cert) needs its key (--ca-key): managers sign the certificates of nodes themselves",
        )),
        (false, false) => Ca::load_own(cert_pem, key_pem, now)
            .and_then(|ca| ca.to_root())
            .map(Some)
            .map_err(|error| ApiError::bad_request(error.to_string())),
    }
}

/// `GET /swarm/unlockkey`; it is empty while autolock is off.
pub(super) async fn unlock_key<P: Plane>(extract::State(plane): extract::State<P>) -> Reply {
    let state = plane.read().await?;
    let unlock_key = resolve::cluster(&state)?.unlock_key.clone().unwrap_or_default();
    reply::json(&UnlockKeyView { unlock_key })
}
