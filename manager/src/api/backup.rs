//! `POST /swarmd/backup`: the whole swarm in one sealed file.

use axum::{body::Body, extract, http::header::CONTENT_TYPE, response::IntoResponse};
use swarm_docker_api::{CONTENT_TYPE_BACKUP, REVISION_HEADER, check_passphrase};

use super::{Plane, call::Call, reply::Reply};

/// `POST /swarmd/backup`. No `GET`: nobody shall follow a link to it.
pub(super) async fn take<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let passphrase = call.passphrase()?;
    check_passphrase(&passphrase)?;
    let (revision, chunks) = plane.backup(passphrase).await?;
    let headers = [(CONTENT_TYPE.as_str(), CONTENT_TYPE_BACKUP.to_owned()), (REVISION_HEADER, revision.to_string())];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
