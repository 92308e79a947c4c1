//! The history of services, and the way back to any part of it. Docker's API has no word for these.

use axum::extract;
use swarm_core::{Guard, Op, Tx};
use swarm_docker_api::{ApiError, view::RevisionView};

use super::{
    Plane,
    call::Call,
    change::change,
    reply::{self, Reply},
    resolve,
};

/// `GET /swarmd/services/{id}/history`: the oldest first.
pub(super) async fn list<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let service = resolve::service(&state, call.id())?;
    let revisions: Vec<_> = service.history.iter().map(|revision| RevisionView::new(service, revision)).collect();
    reply::json(&revisions)
}

/// `POST /swarmd/services/{id}/rollback?version=V&to=N`
pub(super) async fn roll_back<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let version = call.version("service")?;
    let to = read_to(call.param("to").unwrap_or_default())?;
    change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        let service = resolve::service(state, call.id())?.id;
        let message = format!("manually requested rollback to version {to}").into();
        let op = Op::RollBack { service, keep_previous: true, message, to: Some(to) };
        Ok((Tx::new(vec![op]).guard(Guard::Service { service, version }), ()))
    })
    .await?;
    Ok(reply::empty())
}

fn read_to(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!("invalid version '{text}' to go back to: ?to= must be a number of the history"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_number_or_refused(text in "\\PC{0,20}") {
            prop_assert!(read_to(&text).is_ok() || read_to(&text).is_err_and(|error| error.message.contains(&text)));
        }
    }
}
