//! Moves the bytes of one link between its socket and its streams.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use swarm_wire::DataStream;
use tokio::{
    io::{AsyncBufRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep, sleep, timeout},
};

use super::{
    Hub,
    complaints::Offence,
    frame::{Decoder, Event, Frame},
    mux::{BATCH_FRAMES_MAX, Link},
    stream::Incoming,
};

/// Silence after which the peer is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(2);
/// Silence after which it is taken for dead: with the time between two looks less than the six seconds after which the
/// managers give up a node.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(5);
/// Time between two looks at an idle link. Many links are idle.
const LOOK_EVERY: Duration = Duration::from_millis(900);
/// How long a link without streams stays: a service that is called now and then must not pay for a handshake each time.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(300);
/// How long a peer is told why a link ends.
const GOODBYE: Duration = Duration::from_millis(500);
/// Reads before the sending direction and other tasks of the thread get their turn.
const READS_MAX: usize = 16;
/// Rounds of reading and sending before other tasks of the thread get their turn.
const ROUNDS_MAX: usize = 16;

/// Why a link ended.
enum End {
    /// This side closed it, the peer broke its rules, or the peer is dead; the peer may be told.
    Here(String),
    /// The peer closed it, or the connection failed.
    There(String),
}

/// Carries a link until it ends.
pub(super) async fn drive(hub: Weak<Hub>, link: Arc<Link>, stream: DataStream) {
    let mut driver = Driver {
        hub,
        link,
        stream,
        decoder: Decoder::default(),
        batch: VecDeque::new(),
        sent: 0,
        is_flushed: true,
        look: Box::pin(sleep(LOOK_EVERY)),
        unused_since: None,
    };
    let end = poll_fn(|cx| driver.poll(cx)).await;
    let (reason, is_telling) = match end {
        End::Here(reason) => (reason, true),
        End::There(reason) => (reason, false),
    };
    tracing::debug!(peer = %driver.link.peer(), "a link ended: {reason}");
    driver.link.close(&reason);
    if let Some(hub) = driver.hub.upgrade() {
        hub.forget(&driver.link);
    }
    if is_telling {
        driver.batch.push_back(Frame::close(&reason));
        let goodbye = async {
            poll_fn(|cx| driver.poll_batch(cx)).await?;
            driver.stream.shutdown().await
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

/// Waits for the first frame on a link that this side made, which says whether the peer takes the link.
///
/// # Errors
/// Why not.
pub(super) async fn welcome(stream: &mut DataStream) -> Result<(), String> {
    let failed = |e: io::Error| format!("it ended the link: {e}");
    let mut decoder = Decoder::default();
    // Byte by byte as far as the frame goes: what follows is for the driver.
    loop {
        let byte = [stream.read_u8().await.map_err(failed)?];
        match decoder.next(&mut &byte[..]).map_err(|e| e.to_string())? {
            None => {}
            Some(Event::Pong) => return Ok(()),
            Some(Event::Close { reason }) => return Err(format!("it refuses the link: {reason}")),
            Some(_) => return Err("it does not begin the link as it should".to_owned()),
        }
    }
}

/// Tells a peer why it gets no link.
pub(super) async fn turn_away(mut stream: DataStream, reason: &str) {
    let frame = Frame::close(reason);
    let goodbye = async {
        for part in frame.parts() {
            stream.write_all(part).await?;
        }
        stream.flush().await?;
        stream.shutdown().await
    };
    let _ = timeout(GOODBYE, goodbye).await;
}

struct Driver {
    hub: Weak<Hub>,
    link: Arc<Link>,
    stream: DataStream,
    decoder: Decoder,
    /// Frames on their way to the socket, and how much of the first has been taken.
    batch: VecDeque<Frame>,
    sent: usize,
    is_flushed: bool,
    look: Pin<Box<Sleep>>,
    unused_since: Option<Instant>,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..ROUNDS_MAX {
            if let Some(reason) = self.link.watch(cx) {
                return Poll::Ready(End::Here(reason.to_string()));
            }
            let read = self.poll_read(cx);
            if let Poll::Ready(Err(end)) = read {
                return Poll::Ready(end);
            }
            if let Poll::Ready(Err(e)) = self.poll_send(cx) {
                return Poll::Ready(End::There(e.to_string()));
            }
            if read.is_pending() {
                return self.poll_look(cx);
            }
        }
        cx.waker().wake_by_ref();
        self.poll_look(cx)
    }

    /// Reads for a while; ready when there may be more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..READS_MAX {
            let bytes = match ready!(Pin::new(&mut self.stream).poll_fill_buf(cx)) {
                Ok([]) => return Poll::Ready(Err(End::There("the peer closed the connection".to_owned()))),
                Ok(bytes) => bytes,
                Err(e) => return Poll::Ready(Err(End::There(e.to_string()))),
            };
            let amount = bytes.len();
            let arrived = self.link.receive(&mut self.decoder, bytes);
            Pin::new(&mut self.stream).consume(amount);
            let hub = self.hub.upgrade();
            match (arrived, hub) {
                (Err(violation), hub) => {
                    if let Some(hub) = hub {
                        hub.complaints.add(Offence::Rules, &self.link.peer(), &violation);
                    }
                    return Poll::Ready(Err(End::Here(format!("a rule was broken: {violation}"))));
                }
                (Ok(_), None) => return Poll::Ready(Err(End::Here("the node stops".to_owned()))),
                (Ok(arrived), Some(hub)) => {
                    for _ in 0..arrived.surplus {
                        hub.complaints.add(Offence::Streams, &self.link.peer(), &"it has too many streams on a link");
                    }
                    for (network, frame) in arrived.ethernet {
                        if let Err(problem) = hub.ethernet.take(self.link.peer(), network, &frame) {
                            hub.complaints.add(Offence::Ethernet, &self.link.peer(), &problem);
                        }
                    }
                    for (id, request) in arrived.wanted {
                        let incoming = Incoming::new(Arc::clone(&self.link), id, request);
                        if let Err(e) = hub.incoming.try_send(incoming) {
                            e.into_inner().refuse("the node has too many connections to begin".to_owned());
                        }
                    }
                    if let Some(reason) = arrived.closed {
                        return Poll::Ready(Err(End::There(reason)));
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is queued; ready with an error only.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.batch.is_empty() {
                self.link.take_batch(&mut self.batch);
            }
            if self.batch.is_empty() {
                if !self.is_flushed {
                    ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                    self.is_flushed = true;
                }
                return Poll::Pending;
            }
            ready!(self.poll_write(cx))?;
        }
    }

    /// Sends the batch and flushes.
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.batch.is_empty() {
            ready!(self.poll_write(cx))?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Sends some bytes of the batch.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); 2 * BATCH_FRAMES_MAX];
        let mut skip = self.sent;
        let mut used = 0;
        for part in self.batch.iter().take(BATCH_FRAMES_MAX).flat_map(Frame::parts) {
            if part.len() <= skip {
                skip -= part.len();
                continue;
            }
            slices[used] = IoSlice::new(&part[skip..]);
            skip = 0;
            used += 1;
        }
        let mut taken = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..used]))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.is_flushed = false;
        taken += self.sent;
        while let Some(frame) = self.batch.front()
            && taken >= frame.bytes()
        {
            taken -= frame.bytes();
            self.batch.pop_front();
        }
        self.sent = taken;
        Poll::Ready(Ok(()))
    }

    /// Looks from time to time whether the peer is alive and the link is of use.
    fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while self.look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.look.as_mut().reset(now + LOOK_EVERY);
            let silence = now.duration_since(self.link.last_received());
            if silence >= DEAD_AFTER {
                return Poll::Ready(End::Here(format!("the peer has been silent for {} s", silence.as_secs())));
            }
            if silence >= PING_AFTER {
                self.link.ping();
                // The frame is sent in the next round.
                cx.waker().wake_by_ref();
            }
            if !self.link.is_unused() {
                self.unused_since = None;
                continue;
            }
            if self.link.has_carried(LOOK_EVERY) {
                self.unused_since = None;
            }
            let unused = now.duration_since(*self.unused_since.get_or_insert(now));
            let is_old = self.hub.upgrade().is_none_or(|hub| hub.is_old(&self.link));
            // The side that made a link ends it, so that not both give up what the other is about to use.
            if is_old || self.link.is_used_up() || (self.link.is_maker() && unused >= IDLE_MAX) {
                return Poll::Ready(End::Here("it is not used".to_owned()));
            }
        }
        Poll::Pending
    }
}
