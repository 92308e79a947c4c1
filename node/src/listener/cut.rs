//! A stream of a peer that ends when the peer may no longer be connected.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use swarm_wire::BoxedStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// See the module.
pub(super) struct Severable {
    stream: BoxedStream,
    severed: Pin<Box<WaitForCancellationFutureOwned>>,
    is_severed: bool,
    _open: DropGuard,
}

impl Severable {
    /// Ends with an error as soon as `expelled` is there, which is not waited for any longer when the stream is dropped.
    pub(super) fn new(stream: BoxedStream, expelled: impl Future<Output = ()> + Send + 'static) -> Self {
        let (severed, closed) = (CancellationToken::new(), CancellationToken::new());
        tokio::spawn({
            let (severed, closed) = (severed.clone(), closed.clone());
            async move {
                if closed.run_until_cancelled(expelled).await.is_some() {
                    severed.cancel();
                }
            }
        });
        let severed = Box::pin(severed.cancelled_owned());
        Self { stream, severed, is_severed: false, _open: closed.drop_guard() }
    }

    /// Whether it has ended; else the task is woken when it does.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_severed = self.is_severed || self.severed.as_mut().poll(cx).is_ready();
        match self.is_severed {
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer may no longer be connected")),
            false => Ok(()),
        }
    }
}

impl AsyncRead for Severable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Severable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // The reader is woken; a writer that waits is, too, by the end of the reader.
        if self.is_severed {
            self.check(cx)?;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        sync::oneshot,
    };

    use super::*;

    #[tokio::test]
    async fn what_waits_to_read_is_woken_and_nothing_is_written_afterwards() {
        let (ours, mut theirs) = duplex(64);
        let (expel, expelled) = oneshot::channel::<()>();
        let mut stream = Severable::new(Box::new(ours), async move { drop(expelled.await) });
        stream.write_all(b"a").await.unwrap();
        theirs.write_all(b"b").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'b');
        let waiting = tokio::spawn(async move { (stream.read_u8().await, stream) });
        tokio::task::yield_now().await;
        expel.send(()).unwrap();
        let (read, mut stream) = waiting.await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(stream.write_all(b"c").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        drop(stream);
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"a");
    }

    #[tokio::test]
    async fn a_stream_that_is_closed_is_not_watched() {
        let (ours, _theirs) = duplex(64);
        let (kept, mut watched) = oneshot::channel::<()>();
        let stream = Severable::new(Box::new(ours), async move {
            let _kept = kept;
            std::future::pending().await
        });
        assert!(matches!(watched.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        drop(stream);
        watched.await.unwrap_err();
    }
}
