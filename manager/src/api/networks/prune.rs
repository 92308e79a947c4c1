//! Removing the networks that no service uses.

use axum::extract;
use swarm_core::{Op, State, Tx};
use swarm_docker_api::{ApiError, Filters, view::PruneNetworksResponse};
use swarm_model::{NamedObject, ObjectKind, Timestamp, parse_duration};

use super::is_used;
use crate::api::{
    Plane,
    call::Call,
    change::change,
    logs::read_since,
    reply::{self, Reply},
    resolve,
};

const FILTERS: &[&str] = &["label", "label!", "until"];

/// `POST /networks/prune`
pub(super) async fn prune<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let filters = call.filters(FILTERS)?;
    let until = read_until(&filters, plane.now())?;
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    if unused(&state, &filters, until).next().is_none() {
        return reply::json(&PruneNetworksResponse::default());
    }
    let removed = change(&plane, &call.caller, |state| {
        let removed = || unused(state, &filters, until);
        let ops = removed().map(|network| Op::RemoveObject { object: network.key() }).collect();
        Ok((Tx::new(ops), removed().map(|network| network.name.clone()).collect()))
    })
    .await?;
    reply::json(&PruneNetworksResponse { networks_deleted: Some(removed) })
}

fn unused<'a>(state: &'a State, filters: &'a Filters, until: Timestamp) -> impl Iterator<Item = &'a NamedObject> + 'a {
    let is_kept = |network: &NamedObject| {
        filters.values("label!").is_some() && filters.has_labels("label!", &network.labels)
            || !filters.has_labels("label", &network.labels)
    };
    let networks = state.objects(ObjectKind::Network).map(|network| &**network);
    networks.filter(move |network| network.created_at < until && !is_kept(network) && !is_used(state, network))
}

/// Networks that are younger stay. A time, or how long ago that is, as Docker takes it.
fn read_until(filters: &Filters, now: Timestamp) -> Result<Timestamp, ApiError> {
    let mut values = filters.values("until").into_iter().flatten();
    match (values.next(), values.next()) {
        (None, _) => Ok(Timestamp::MAX),
        (Some(_), Some(_)) => Err(ApiError::bad_request("more than one until filter specified")),
        (Some(text), None) => match parse_duration(text) {
            Ok(ago_ns) => Ok(now.plus_ns(-ago_ns)),
            Err(_) => read_since(text),
        },
    }
}
