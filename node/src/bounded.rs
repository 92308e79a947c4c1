//! Bodies that are read whole.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use swarm_docker_api::ApiError;

/// The whole body, at most `bytes_max`.
///
/// # Errors
/// 413 for a larger one, 400 when the client breaks off.
pub(crate) async fn collect(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let collected = Limited::new(body, bytes_max).collect().await.map_err(|e| {
        if e.is::<LengthLimitError>() {
            ApiError::too_large(format!("the body of the request is larger than {bytes_max} bytes"))
        } else {
            ApiError::bad_request(format!("the request was cut off: {e}"))
        }
    })?;
    Ok(collected.to_bytes())
}
