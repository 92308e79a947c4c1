//! The swarm routes of the Docker Engine API: cluster, nodes, services, tasks, secrets, configs, networks.
//!
//! Handlers read the state, check what they are asked for, and propose transactions; they decide nothing. What they
//! stand on is the small trait [`Plane`]. Paths come without a version: the daemon strips it, leaves it as an
//! [`ApiVersion`](swarm_docker_api::ApiVersion) in the request's extensions beside the [`Caller`], and adds the headers
//! that every response has.

mod available;
mod backup;
mod call;
mod caller;
mod change;
mod configs;
mod endpoints;
mod logs;
mod managers;
mod names;
mod networks;
mod nodes;
mod objects;
mod plan;
mod plane;
mod reach;
mod rebalance;
mod reply;
mod resolve;
mod revisions;
mod secrets;
mod services;
mod stale;
mod swarm;
mod tasks;
#[cfg(test)]
mod tests;
mod warnings;
mod why;

use axum::{
    Router,
    http::HeaderValue,
    middleware,
    response::Response,
    routing::{get, post},
};
use swarm_docker_api::{ApiError, PAGE_NOT_FOUND, WARNING_HEADER};

pub use available::check_cluster;
pub use call::BODY_BYTES_MAX;
pub use caller::Caller;
pub use plane::{Answers, LogSelector, LogTarget, Plane, PlaneError, SealedBackup};
use reply::Failure;

/// The routes. Another method on one of these paths is answered as an unknown page; there is no fallback for other
/// paths, so that the router can be merged into a larger one.
pub fn routes<P: Plane>(plane: P) -> Router {
    let stale = all_routes(stale::Stale(plane.clone()));
    let warned = plane.clone();
    all_routes(plane.clone())
        .layer(middleware::from_fn(move |request, next| stale::choose(plane.clone(), stale.clone(), request, next)))
        .layer(middleware::map_response(move |response| std::future::ready(warn(&warned, response))))
        .layer(middleware::from_fn(caller::demand))
}

/// Every answer of a manager that must not be counted on says so.
fn warn<P: Plane>(plane: &P, mut response: Response) -> Response {
    if let Some(problem) = plane.problem().and_then(|problem| HeaderValue::from_str(&problem).ok()) {
        response.headers_mut().insert(WARNING_HEADER, problem);
    }
    response
}

fn all_routes<P: Plane>(plane: P) -> Router {
    Router::new()
        .route("/swarm", get(swarm::inspect::<P>))
        .route("/swarm/update", post(swarm::update::<P>))
        .route("/swarm/unlockkey", get(swarm::unlock_key::<P>))
        .route("/nodes", get(nodes::list::<P>))
        .route("/nodes/{id}", get(nodes::inspect::<P>).delete(nodes::remove::<P>))
        .route("/nodes/{id}/update", post(nodes::update::<P>))
        .route("/services", get(services::list::<P>))
        .route("/services/create", post(services::create::<P>))
        .route("/services/{id}", get(services::inspect::<P>).delete(services::remove::<P>))
        .route("/services/{id}/update", post(services::update::<P>))
        .route("/services/{id}/logs", get(logs::of_service::<P>))
        .route("/swarmd/services/{id}/rebalance", post(rebalance::ask::<P>))
        .route("/swarmd/managers", get(managers::status::<P>))
        .route("/swarmd/reach", get(reach::probe::<P>))
        .route("/swarmd/backup", post(backup::take::<P>))
        .route("/swarmd/transfer", post(managers::transfer::<P>))
        .route("/tasks", get(tasks::list::<P>))
        .route("/tasks/{id}", get(tasks::inspect::<P>))
        .route("/tasks/{id}/logs", get(logs::of_task::<P>))
        .route("/swarmd/services/{id}/endpoints", get(endpoints::list::<P>))
        .route("/swarmd/services/{id}/history", get(revisions::list::<P>))
        .route("/swarmd/services/{id}/rollback", post(revisions::roll_back::<P>))
        .route("/swarmd/plan", post(plan::plan::<P>))
        .route("/swarmd/services/{id}/why", get(why::of_service::<P>))
        .route("/swarmd/tasks/{id}/why", get(why::of_task::<P>))
        .merge(objects::routes::<secrets::Secrets, P>())
        .merge(objects::routes::<configs::Configs, P>())
        .merge(networks::routes::<P>())
        .method_not_allowed_fallback(|| async { Failure::from(ApiError::not_found(PAGE_NOT_FOUND)) })
        .with_state(plane)
}
