//! `POST /swarmd/services/{id}/rebalance`: a route of our own; Docker's API has no word for it.

use axum::extract;
use swarm_core::{Op, Tx};
use swarm_docker_api::ApiError;
use swarm_model::{PlacementStrategy, ServiceMode, Settings};

use super::{
    call::Call,
    change::change,
    plane::Plane,
    reply::{self, Reply},
    resolve,
};

/// Asks for the tasks of a service to be spread anew, once. They move by the service's update policy.
pub(super) async fn ask<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        let service = resolve::service(state, call.id())?;
        if !matches!(service.spec.mode, ServiceMode::Replicated { .. }) {
            return Err(ApiError::bad_request(format!(
                "service {} cannot be rebalanced: only a replicated service has tasks that can move",
                service.spec.name
            ))
            .into());
        }
        if Settings::of(&service.spec.labels).strategy == PlacementStrategy::Pack {
            return Err(ApiError::bad_request(format!(
                "service {} cannot be rebalanced: it packs its tasks together (label swarmd.placement=pack); choose \
                 swarmd.placement=spread first if they are to be even",
                service.spec.name
            ))
            .into());
        }
        Ok((Tx::new(vec![Op::SetRebalance { service: service.id, asked: true }]), ()))
    })
    .await?;
    Ok(reply::empty())
}
