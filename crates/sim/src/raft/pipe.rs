//! Streams between managers: two pipes that carry frames, each with its time of arrival.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::world::{World, hold};

/// Bytes that are under way in a pipe before its writer has to wait.
const PIPE_BYTES: usize = 1 << 20;

/// Something on its way.
pub(crate) struct Frame {
    /// When it arrives; none while a cut holds it back.
    pub(crate) at: Option<Instant>,
    pub(crate) bytes: Vec<u8>,
    /// How much of it was read.
    pub(crate) read: usize,
    /// Its number among those from this manager to that one.
    pub(crate) number: u64,
}

/// One direction of a stream.
pub(crate) struct Pipe {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) frames: VecDeque<Frame>,
    bytes: usize,
    /// Nothing arrives before this: frames keep their order.
    pub(crate) last: Instant,
    /// The writer is gone; the reader sees it once it has read all.
    closed: bool,
    /// The connection broke.
    reset: bool,
    /// Nothing arrives any more, and nobody is told.
    dead: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(crate) fn new(from: u64, to: u64) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            from,
            to,
            frames: VecDeque::new(),
            bytes: 0,
            last: Instant::now(),
            closed: false,
            reset: false,
            dead: false,
            reader: None,
            writer: None,
        }))
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        if self.dead {
            return;
        }
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        self.wake();
    }

    fn wake(&mut self) {
        for waker in self.reader.take().into_iter().chain(self.writer.take()) {
            waker.wake();
        }
    }

    /// The connection breaks; what is under way is lost.
    pub(crate) fn reset(&mut self) {
        self.reset = true;
        self.wake();
    }

    /// Nothing arrives any more, without a word.
    pub(crate) fn die(&mut self) {
        self.dead = true;
        self.frames.clear();
    }

    /// What a cut has held back goes on its way. Returns how much that is.
    pub(crate) fn release(&mut self, at: Instant) -> u64 {
        let mut held = 0;
        for frame in self.frames.iter_mut().filter(|frame| frame.at.is_none()) {
            frame.at = Some(at);
            held += 1;
        }
        if held > 0 {
            self.last = at;
            self.wake();
        }
        held
    }
}

/// One end of a stream.
pub(crate) struct Stream {
    world: Arc<World>,
    read: Arc<Mutex<Pipe>>,
    write: Arc<Mutex<Pipe>>,
    timer: Pin<Box<Sleep>>,
}

impl Stream {
    pub(crate) fn new(world: &Arc<World>, read: Arc<Mutex<Pipe>>, write: Arc<Mutex<Pipe>>) -> Self {
        Self { world: Arc::clone(world), read, write, timer: Box::pin(sleep_until(Instant::now())) }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (ended, from, to, number) = loop {
            let mut pipe = hold(&this.read);
            if pipe.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let pipe = &mut *pipe;
            let due = match pipe.frames.front_mut() {
                None if pipe.closed && !pipe.dead => return Poll::Ready(Ok(())),
                None => None,
                Some(frame) => frame.at,
            };
            let Some(due) = due else {
                pipe.reader = Some(context.waker().clone());
                return Poll::Pending;
            };
            if due > Instant::now() {
                pipe.reader = Some(context.waker().clone());
                this.timer.as_mut().reset(due);
                if this.timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            let Some(frame) = pipe.frames.front_mut() else { continue };
            let rest = &frame.bytes[frame.read..];
            let count = rest.len().min(into.remaining());
            into.put_slice(&rest[..count]);
            frame.read += count;
            pipe.bytes -= count;
            let (ended, number) = (frame.read == frame.bytes.len(), frame.number);
            if ended {
                pipe.frames.pop_front();
            }
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            break (ended, pipe.from, pipe.to, number);
        };
        if ended && hold(&this.world.network).arrived(from, to, number) {
            this.world.fault("messages overtake each other");
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    /// A frame is written in one go, so that what is written is a frame.
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        {
            let mut pipe = hold(&self.write);
            if pipe.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if pipe.bytes >= PIPE_BYTES {
                pipe.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        self.world.carry(&self.write, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = hold(&self.write);
        pipe.closed = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Who reads sees the end behind what is under way; who writes sees that nobody reads.
        let mut pipe = hold(&self.write);
        pipe.closed = true;
        pipe.wake();
        drop(pipe);
        let mut pipe = hold(&self.read);
        if !pipe.dead {
            pipe.reset();
        }
    }
}
