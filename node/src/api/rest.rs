//! The rest of a request's body when the answer came before it.
//!
//! A server that closes a connection while its client still writes breaks the client off before it reads the answer:
//! the client sees a broken pipe and never learns why it was refused. So what nobody has read of a body is read after
//! the answer, and thrown away.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Request,
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    header::EXPECT,
};
use tokio::runtime::Handle;

/// How much of a body is taken for nothing: a client that sends more than any call reads whole, a large backup to a node
/// that is in a swarm already, loses its connection instead.
const REST_BYTES_MAX: usize = 64 << 20;
/// How long a client may take to send it. It has its answer by then.
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// Sees to it that the body of a request is taken from the client, whoever drops it and whenever.
pub(super) fn take_unread(request: Request<Incoming>) -> Request<Body> {
    // Such a client sends its body when it is told to go on, and a refusal tells it not to.
    let waits = request.headers().contains_key(EXPECT);
    request.map(|body| match body.is_end_stream() {
        true => Body::empty(),
        false => Body::new(Rest { body: Some(body), waits }),
    })
}

/// The body of a request. When it is dropped, what is left of it is read.
struct Rest {
    /// Gone when there is nothing left to read.
    body: Option<Incoming>,
    /// Whether the client has not begun to send it.
    waits: bool,
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !self.waits && !body.is_end_stream()) else { return };
        // There is none any more when the whole program ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(tokio::time::timeout(REST_TIMEOUT, take(body)));
        }
    }
}

/// Reads a body to its end or to the limit.
async fn take(body: Incoming) {
    let mut body = pin!(body);
    let mut left = REST_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(fewer) => left = fewer,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests;
