//! A stream of a link, as its user sees it.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use swarm_model::NodeId;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::{
    OpenRequest,
    mux::{Answer, Link},
};

/// A stream to a task. `shutdown` ends its sending direction (half-close); a stream that is dropped before both
/// directions have ended is reset. A reset of the peer, and the end of the link, read as `ConnectionReset`.
///
/// Bytes that were written go out by themselves; `flush` does nothing. [`LinkStream::split`] gives both directions, and
/// ways to read and write that copy less.
pub struct LinkStream {
    link: Arc<Link>,
    id: u32,
    rest: Rest,
}

/// Bytes that were taken from the link and not read yet. Without bytes it has no memory: an idle stream keeps no buffer.
#[derive(Debug, Default)]
struct Rest {
    piece: Vec<u8>,
    /// How much of the piece was read.
    read: usize,
}

/// The receiving direction of a [`LinkStream`].
#[derive(Debug)]
pub struct LinkReader<'a> {
    link: &'a Link,
    id: u32,
    rest: &'a mut Rest,
}

/// The sending direction of a [`LinkStream`].
#[derive(Debug)]
pub struct LinkWriter<'a> {
    link: &'a Link,
    id: u32,
}

impl fmt::Debug for LinkStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkStream").field("peer", &self.peer()).field("id", &self.id).finish_non_exhaustive()
    }
}

impl LinkStream {
    pub(super) const fn new(link: Arc<Link>, id: u32) -> Self {
        Self { link, id, rest: Rest { piece: Vec::new(), read: 0 } }
    }

    /// The node at the other end.
    pub fn peer(&self) -> NodeId {
        self.link.peer()
    }

    /// Both directions, which can be used at the same time.
    pub fn split(&mut self) -> (LinkReader<'_>, LinkWriter<'_>) {
        let Self { link, id, rest } = self;
        (LinkReader { link, id: *id, rest }, LinkWriter { link, id: *id })
    }

    pub(super) async fn answer(&self) -> Answer {
        poll_fn(|cx| self.link.poll_answer(self.id, cx)).await
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.link.leave(self.id);
    }
}

impl LinkReader<'_> {
    /// Takes the next bytes, at most 64 KB, without copying them; empty at the end. The peer may send more once this is
    /// called again.
    ///
    /// # Errors
    /// `ConnectionReset`: the peer broke off the stream, or the link is gone.
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let Rest { mut piece, read } = std::mem::take(self.rest);
        if read < piece.len() {
            piece.drain(..read);
            return Poll::Ready(Ok(piece));
        }
        drop(piece);
        self.link.poll_receive(self.id, cx)
    }
}

impl LinkWriter<'_> {
    /// Sends the beginning of `bytes` without copying it, as much as there is room for, and takes it off. Returns how
    /// much; 0 only if `bytes` is empty.
    ///
    /// # Errors
    /// `ConnectionReset`: the peer or the link is gone; `BrokenPipe`: after `shutdown`.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.link.poll_room(self.id, bytes.len(), cx))?;
        self.link.send(self.id, bytes.split_to(room));
        Poll::Ready(Ok(room))
    }
}

impl AsyncBufRead for LinkReader<'_> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.rest.read == this.rest.piece.len() {
            *this.rest = Rest::default();
            this.rest.piece = ready!(this.link.poll_receive(this.id, cx))?;
        }
        Poll::Ready(Ok(&this.rest.piece[this.rest.read..]))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let rest = &mut self.get_mut().rest;
        rest.read = rest.piece.len().min(rest.read.saturating_add(amount));
    }
}

impl AsyncRead for LinkReader<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let waiting = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = waiting.len().min(out.remaining());
        out.put_slice(&waiting[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LinkWriter<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.link.poll_room(self.id, bytes.len(), cx))?;
        self.link.send(self.id, Bytes::copy_from_slice(&bytes[..room]));
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.link.finish(self.id))
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.split().0).poll_read(cx, out)
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.split().1).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.link.finish(self.id))
    }
}

/// A stream that a peer wants. Dropped without an answer, it is refused.
#[derive(Debug)]
pub struct Incoming {
    /// The node that wants it.
    pub from: NodeId,
    /// The purpose of the stream. The peer is a node of the cluster; whether it may have this stream is for the caller to check.
    pub request: OpenRequest,
    stream: LinkStream,
}

impl Incoming {
    pub(super) fn new(link: Arc<Link>, id: u32, request: OpenRequest) -> Self {
        Self { from: link.peer(), request, stream: LinkStream::new(link, id) }
    }

    /// Opens the stream: the task is connected.
    pub fn accept(self) -> LinkStream {
        self.stream.link.answer(self.stream.id, Ok(()));
        self.stream
    }

    /// Refuses it; the peer may try another endpoint. A reason of more than 512 bytes is cut off.
    pub fn refuse(self, reason: String) {
        self.stream.link.answer(self.stream.id, Err(&reason));
    }
}
