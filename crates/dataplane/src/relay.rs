//! Moves bytes between a client and a task, both ways, until both have ended or one breaks off.
//!
//! A connection on which nothing moves holds neither buffer nor pipe: both are taken when there is something to read.

mod http;
mod pipe;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

pub(crate) use self::pipe::Pipes;
use self::{
    http::{Answers, Http, Questions},
    pipe::Pipe,
};
use crate::{buffer::Buffer, endpoint::Lease};

/// Bytes of a direction that are copied before they are moved by splice, which costs more to begin with.
const SPLICE_AFTER_BYTES: u64 = 256 << 10;
/// A read of fewer bytes is followed by a copy: for small messages splice takes a system call more.
const SPLICE_READ_BYTES_MIN: usize = 4 << 10;

/// The end of a connection that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// The one that was read from.
    Reader,
    /// The one that was written to.
    Writer,
}

/// Closes a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    // The call fails only on a descriptor that is no socket.
    let _ = set_socket_linger(&stream, Some(Duration::ZERO));
}

/// Between a client and a task of this node.
pub(crate) async fn local(mut client: TcpStream, mut task: TcpStream, lease: &Lease, pipes: &Pipes) {
    let (mut up, mut down) = (Half::default(), Half::default());
    let broken = poll_fn(|cx| {
        let sent = up.poll_tcp(cx, &mut client, &mut task, pipes, |n| lease.sent(n));
        let received = down.poll_tcp(cx, &mut task, &mut client, pipes, |n| lease.received(n));
        both(sent, received)
    });
    if let Err(is_task) = broken.await {
        if is_task {
            lease.failed();
        }
        reset(client);
        reset(task);
    }
}

/// Between a TCP connection and a stream of a link. `is_client` says whether the TCP connection is the client's; else
/// it is the task's. A stream that is dropped before both directions have ended is reset.
pub(crate) async fn linked<S>(mut tcp: TcpStream, mut stream: S, is_client: bool, lease: &Lease)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Half::default(), Half::default());
    let broken = poll_fn(|cx| {
        let out = up.poll_copy(cx, &mut tcp, &mut stream, |n| lease.sent(n));
        let back = down.poll_copy(cx, &mut stream, &mut tcp, |n| lease.received(n));
        both(out, back)
    });
    if let Err(is_stream) = broken.await {
        if is_stream == is_client {
            lease.failed();
        }
        reset(tcp);
    }
}

/// As [`local`], for a service of HTTP: while the endpoint gets no new connections, answers ask the client to close the
/// connection. Bytes are copied, so that the heads among them are seen.
pub(crate) async fn local_http(mut client: TcpStream, mut task: TcpStream, lease: &Lease) {
    if let Err(is_task) = http(&mut client, &mut task, lease).await {
        if is_task {
            lease.failed();
        }
        reset(client);
        reset(task);
    }
}

/// As [`linked`] between a client and a task of another node, with answers as in [`local_http`].
pub(crate) async fn linked_http<S>(mut client: TcpStream, mut stream: S, lease: &Lease)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(is_stream) = http(&mut client, &mut stream, lease).await {
        if is_stream {
            lease.failed();
        }
        reset(client);
    }
}

/// The error says whether the task's side broke.
async fn http<S>(client: &mut TcpStream, task: &mut S, lease: &Lease) -> Result<(), bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down, mut http) = (Half::default(), Half::default(), Http::default());
    poll_fn(|cx| {
        let (mut client_side, mut task_side) = (&mut *client, &mut *task);
        let mut questions = Questions { reader: &mut client_side, http: &mut http };
        let sent = up.poll_copy(cx, &mut questions, &mut task_side, |n| lease.sent(n));
        let mut answers = Answers { reader: &mut task_side, http: &mut http, is_draining: || !lease.is_open() };
        let received = down.poll_copy(cx, &mut answers, &mut client_side, |n| lease.received(n));
        both(sent, received)
    })
    .await
}

/// Ready when both directions have ended, or one broke. Then whether it was the second of the two ends.
fn both(up: Poll<Result<(), Broken>>, down: Poll<Result<(), Broken>>) -> Poll<Result<(), bool>> {
    match (up, down) {
        (Poll::Ready(Err(broken)), _) => Poll::Ready(Err(broken == Broken::Writer)),
        (_, Poll::Ready(Err(broken))) => Poll::Ready(Err(broken == Broken::Reader)),
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
        _ => Poll::Pending,
    }
}

/// A direction.
#[derive(Default)]
struct Half {
    stage: Stage,
    /// Bytes so far.
    moved_bytes: u64,
    /// Bytes of the last read.
    last_bytes: usize,
}

#[derive(Default)]
enum Stage {
    /// The direction has no bytes in hand.
    #[default]
    Reading,
    /// Bytes in a buffer are to be written.
    Copying(Buffer),
    /// Bytes in a pipe are to be written.
    Splicing(Pipe, usize),
    /// The reader has ended, and the writer is told so.
    Closing,
    Ended,
}

impl Half {
    /// Moves bytes by copying, as far as it goes now.
    fn poll_copy<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: impl Fn(usize),
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match &mut self.stage {
                Stage::Reading => {
                    if self.poll_read(cx, reader)?.is_pending() {
                        return match Pin::new(&mut *writer).poll_flush(cx) {
                            Poll::Ready(Err(_)) => Poll::Ready(Err(Broken::Writer)),
                            _ => Poll::Pending,
                        };
                    }
                }
                _ => ready!(self.poll_write(cx, writer, &count))?,
            }
            if matches!(self.stage, Stage::Ended) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Moves bytes between two sockets, by splice where much is moved.
    fn poll_tcp(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut TcpStream,
        writer: &mut TcpStream,
        pipes: &Pipes,
        count: impl Fn(usize),
    ) -> Poll<Result<(), Broken>> {
        loop {
            match &mut self.stage {
                Stage::Reading => {
                    let is_bulk = self.moved_bytes >= SPLICE_AFTER_BYTES && self.last_bytes >= SPLICE_READ_BYTES_MIN;
                    if is_bulk {
                        ready!(reader.poll_read_ready(cx)).map_err(|_| Broken::Reader)?;
                    }
                    match is_bulk.then(|| pipes.take()).flatten() {
                        Some(pipe) => self.splice_in(reader, pipe, pipes)?,
                        None => ready!(self.poll_read(cx, reader))?,
                    }
                }
                Stage::Splicing(pipe, left) => {
                    ready!(writer.poll_write_ready(cx)).map_err(|_| Broken::Writer)?;
                    match writer.try_io(Interest::WRITABLE, || pipe.read_to(&*writer, *left)) {
                        Ok(0) => return Poll::Ready(Err(Broken::Writer)),
                        Ok(n) => {
                            *left -= n;
                            count(n);
                            if *left == 0
                                && let Stage::Splicing(pipe, _) = std::mem::take(&mut self.stage)
                            {
                                pipes.give_back(pipe);
                            }
                        }
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return Poll::Ready(Err(Broken::Writer)),
                    }
                }
                _ => ready!(self.poll_write(cx, writer, &count))?,
            }
            if matches!(self.stage, Stage::Ended) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads into a pipe, if there is something to read.
    fn splice_in(&mut self, reader: &TcpStream, pipe: Pipe, pipes: &Pipes) -> Result<(), Broken> {
        match reader.try_io(Interest::READABLE, || pipe.write_from(reader)) {
            Ok(0) => self.stage = Stage::Closing,
            Ok(n) => {
                self.read(n);
                self.stage = Stage::Splicing(pipe, n);
                return Ok(());
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Broken::Reader),
        }
        pipes.give_back(pipe);
        Ok(())
    }

    /// Reads into a buffer, which goes back at once if there is nothing to read.
    fn poll_read<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, reader: &mut R) -> Poll<Result<(), Broken>> {
        let mut buffer = Buffer::take();
        let mut target = ReadBuf::new(buffer.space());
        ready!(Pin::new(reader).poll_read(cx, &mut target)).map_err(|_| Broken::Reader)?;
        let n = target.filled().len();
        self.stage = if n == 0 { Stage::Closing } else { Stage::Copying(buffer.filled(n)) };
        self.read(n);
        Poll::Ready(Ok(()))
    }

    fn read(&mut self, bytes: usize) {
        self.last_bytes = bytes;
        self.moved_bytes += bytes as u64;
    }

    /// Writes what is in the buffer, or says that there is no more to come.
    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        count: &impl Fn(usize),
    ) -> Poll<Result<(), Broken>> {
        match &mut self.stage {
            Stage::Copying(buffer) => {
                let written = ready!(Pin::new(writer).poll_write(cx, buffer.rest()));
                let n = written.ok().filter(|n| *n > 0).ok_or(Broken::Writer)?;
                count(n);
                if buffer.advance(n) {
                    self.stage = Stage::Reading;
                }
            }
            Stage::Closing => {
                match ready!(Pin::new(writer).poll_shutdown(cx)) {
                    // A peer that was the first to end, and has gone since, needs not be told.
                    Err(e) if e.kind() != io::ErrorKind::NotConnected => return Poll::Ready(Err(Broken::Writer)),
                    _ => self.stage = Stage::Ended,
                }
            }
            Stage::Reading | Stage::Splicing(..) | Stage::Ended => {}
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
