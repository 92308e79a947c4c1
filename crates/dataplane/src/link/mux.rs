//! The streams of one link: what both sides may do, and the frames that wait to be sent. Nothing here reads or writes a
//! socket.

pub(super) mod ethernet;
pub(super) mod flow;
mod outcome;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    mem::size_of,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use swarm_model::NodeId;
use tokio::time::Instant;

pub(super) use self::outcome::{Answer, Arrived, Violation};
use self::{
    ethernet::Lane,
    flow::{Phase, Stream},
};
use super::{
    OpenRequest,
    frame::{Decoder, Event, FRAME_DATA_MAX, Frame},
};

/// Streams that one side may have open on a link. A node of 20,000 descriptors serves as many with a few links.
pub(super) const STREAMS_MAX: usize = 4096;
/// Streams that a peer wants and that have no answer yet, on one link: those of one peer must leave room for others'.
pub(super) const UNANSWERED_MAX: usize = 512;
/// Credit that a side may have; a peer that gives more is broken. Later versions may have larger windows.
const CREDIT_BYTES_MAX: u32 = 16 << 20;
/// Bytes of one stream that wait to be sent: other streams come after these.
const STREAM_QUEUE_BYTES_MAX: usize = 128 << 10;
/// Bytes of all streams that wait to be sent: memory, when a peer reads slowly.
const LINK_QUEUE_BYTES_MAX: usize = 512 << 10;
/// Memory of a queued frame beside its data: small frames must not take more than large ones.
const FRAME_COST_BYTES: usize = size_of::<Frame>();
/// Frames without data that wait to be sent. So many wait only when a peer asks and does not read the answers.
const CONTROL_FRAMES_MAX: usize = 64 << 10;
/// Frames that are sent with one call: as many parts as the kernel takes are two for each.
pub(super) const BATCH_FRAMES_MAX: usize = 32;
/// Bytes that are taken for sending at once.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Numbers of streams end here: a link that has had two thousand million makes room for a new one.
const ID_END: u32 = u32::MAX - 2;

/// The streams of a link and its queues.
#[derive(Debug)]
struct Shared {
    streams: BTreeMap<u32, Stream>,
    /// Goes out first: frames whose order among the data does not matter.
    urgent: VecDeque<Frame>,
    /// Data, and the ends of streams.
    queue: VecDeque<Frame>,
    queue_bytes: usize,
    /// Frames of Ethernet, which take turns with the data of streams.
    ethernet: Lane,
    is_turn_of_ethernet: bool,
    /// Streams that wait for room in the queue.
    waiting: Vec<u32>,
    /// The task that sends what is queued; woken once.
    driver: Option<Waker>,
    /// Whether the driver waits for frames, and not only for the end of the link.
    is_driver_idle: bool,
    is_pong_due: bool,
    is_ping_due: bool,
    /// Whether the peer takes no more streams.
    is_left: bool,
    next_id: u32,
    last_peer_id: u32,
    opened: usize,
    opened_by_peer: usize,
    unanswered: usize,
    last_received: Instant,
    closed: Option<Arc<str>>,
}

/// A link, as its streams and its driver see it.
#[derive(Debug)]
pub(super) struct Link {
    peer: NodeId,
    /// Streams of the side that made the link have odd numbers.
    is_maker: bool,
    shared: Mutex<Shared>,
}

impl Link {
    /// A link with no streams.
    pub(super) fn new(peer: NodeId, is_maker: bool) -> Self {
        Self {
            peer,
            is_maker,
            shared: Mutex::new(Shared {
                streams: BTreeMap::new(),
                urgent: VecDeque::new(),
                queue: VecDeque::new(),
                queue_bytes: 0,
                ethernet: Lane::default(),
                is_turn_of_ethernet: false,
                waiting: Vec::new(),
                driver: None,
                is_driver_idle: false,
                // The first sign of life says that the link is taken.
                is_pong_due: !is_maker,
                is_ping_due: false,
                is_left: false,
                next_id: if is_maker { 1 } else { 2 },
                last_peer_id: 0,
                opened: 0,
                opened_by_peer: 0,
                unanswered: 0,
                last_received: Instant::now(),
                closed: None,
            }),
        }
    }

    /// The node at the other end.
    pub(super) const fn peer(&self) -> NodeId {
        self.peer
    }

    /// Whether this side made it.
    pub(super) const fn is_maker(&self) -> bool {
        self.is_maker
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How busy it is: its streams, and whether bytes wait for the socket; none when it takes no new stream.
    pub(super) fn load(&self) -> Option<(usize, bool)> {
        let shared = self.lock();
        let is_usable =
            shared.closed.is_none() && !shared.is_left && shared.opened < STREAMS_MAX && shared.next_id < ID_END;
        is_usable.then(|| (shared.streams.len(), shared.queue_bytes > LINK_QUEUE_BYTES_MAX / 2))
    }

    /// Whether this side has no numbers left for streams on it.
    pub(super) fn is_used_up(&self) -> bool {
        self.lock().next_id >= ID_END
    }

    /// Whether it has no streams.
    pub(super) fn is_unused(&self) -> bool {
        self.lock().streams.is_empty()
    }

    /// Whether frames of Ethernet passed in this time.
    pub(super) fn has_carried(&self, within: Duration) -> bool {
        self.lock().ethernet.has_carried(within)
    }

    /// Whether frames of Ethernet may be sent on it.
    pub(super) fn is_open(&self) -> bool {
        let shared = self.lock();
        shared.closed.is_none() && !shared.is_left
    }

    /// Sends a frame of Ethernet; false when too much waits before it, and it is dropped.
    pub(super) fn offer(&self, frame: Frame) -> bool {
        let mut shared = self.lock();
        let is_taken = shared.ethernet.offer(frame);
        wake(shared);
        is_taken
    }

    /// When the last bytes came.
    pub(super) fn last_received(&self) -> Instant {
        self.lock().last_received
    }

    /// Why it ended, once it has.
    pub(super) fn closed(&self) -> Option<Arc<str>> {
        self.lock().closed.clone()
    }

    /// Ends it: its streams fail at once. The first reason counts.
    pub(super) fn close(&self, reason: &str) {
        let mut shared = self.lock();
        if shared.closed.is_some() {
            return;
        }
        shared.closed = Some(reason.into());
        let mut woken: Vec<_> =
            shared.streams.values_mut().flat_map(|s| [s.reader.take(), s.writer.take()]).flatten().collect();
        woken.extend(shared.driver.take());
        drop(shared);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Asks the peer for a stream; none when the link takes no more. The number is given back by [`Link::leave`].
    pub(super) fn want(&self, request: Bytes) -> Option<u32> {
        let mut shared = self.lock();
        if shared.closed.is_some() || shared.is_left || shared.opened >= STREAMS_MAX || shared.next_id >= ID_END {
            return None;
        }
        let id = shared.next_id;
        shared.next_id += 2;
        shared.opened += 1;
        shared.streams.insert(id, Stream::new(Phase::Wanted));
        shared.urgent.push_back(Frame::open(id, request));
        wake(shared);
        Some(id)
    }

    /// Waits for the answer of the peer.
    pub(super) fn poll_answer(&self, id: u32, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut shared = self.lock();
        let closed = shared.closed.clone();
        let Some(stream) = shared.streams.get_mut(&id) else { return Poll::Ready(Answer::Lost("it is over".into())) };
        Poll::Ready(match (&stream.phase, closed) {
            (Phase::Open | Phase::Reset, _) => Answer::Accepted,
            (Phase::Refused(reason), _) => Answer::Refused(reason.clone()),
            (_, Some(reason)) => Answer::Lost(reason.to_string()),
            (_, None) => {
                stream.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        })
    }

    /// Answers a peer that asked for a stream.
    pub(super) fn answer(&self, id: u32, answer: Result<(), &str>) {
        let mut shared = self.lock();
        let Some(stream) = shared.streams.get_mut(&id) else { return };
        let was_unanswered = std::mem::take(&mut stream.is_unanswered);
        if stream.phase != Phase::Asked {
            shared.unanswered -= usize::from(was_unanswered);
            return;
        }
        let frame = match answer {
            Ok(()) => {
                stream.phase = Phase::Open;
                Frame::accept(id)
            }
            Err(reason) => {
                stream.phase = Phase::Reset;
                Frame::refuse(id, reason)
            }
        };
        shared.unanswered -= 1;
        shared.urgent.push_back(frame);
        wake(shared);
    }

    /// Gives a stream up: the peer hears of it unless both directions have ended.
    pub(super) fn leave(&self, id: u32) {
        let mut shared = self.lock();
        let Some(stream) = shared.streams.remove(&id) else { return };
        match self.is_own(id) {
            true => shared.opened -= 1,
            false => shared.opened_by_peer -= 1,
        }
        shared.unanswered -= usize::from(stream.is_unanswered);
        let frame = match stream.phase {
            Phase::Asked => Some(Frame::refuse(id, "the node did not answer")),
            Phase::Open if stream.is_fin_sent && stream.is_fin_received => None,
            Phase::Wanted | Phase::Open => Some(Frame::reset(id)),
            Phase::Refused(_) | Phase::Reset => None,
        };
        if let Some(frame) = frame {
            // After the data: a peer that knows the stream no more has no use for the rest, one that does reads it.
            shared.queue.push_back(frame);
            wake(shared);
        }
    }

    /// Takes the next bytes of a stream, once those before are used up; empty at its end.
    pub(super) fn poll_receive(&self, id: u32, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let mut shared = self.lock();
        let closed = shared.closed.clone();
        let Some(stream) = shared.streams.get_mut(&id) else { return Poll::Ready(Err(self.lost("it is over"))) };
        if stream.phase == Phase::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let grant = stream.grant();
        let result = match stream.pop() {
            Some(piece) => Poll::Ready(Ok(piece)),
            None if stream.is_fin_received => Poll::Ready(Ok(Vec::new())),
            None => match closed {
                Some(reason) => Poll::Ready(Err(self.lost(&reason))),
                None => {
                    keep(&mut stream.reader, cx);
                    Poll::Pending
                }
            },
        };
        if let Some(amount) = grant {
            shared.urgent.push_back(Frame::credit(id, amount));
            wake(shared);
        }
        result
    }

    /// How many of so many bytes may be sent now, at least one.
    pub(super) fn poll_room(&self, id: u32, wanted: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut shared = self.lock();
        if let Some(reason) = &shared.closed {
            return Poll::Ready(Err(self.lost(reason)));
        }
        let is_full = shared.queue_bytes >= LINK_QUEUE_BYTES_MAX;
        let Some(stream) = shared.streams.get_mut(&id) else { return Poll::Ready(Err(self.lost("it is over"))) };
        if stream.phase != Phase::Open {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if stream.is_fin_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let credit = usize::try_from(stream.credit).unwrap_or(usize::MAX);
        let own = STREAM_QUEUE_BYTES_MAX.saturating_sub(stream.queued);
        let room = wanted.min(FRAME_DATA_MAX).min(credit).min(own);
        if room > 0 && !is_full {
            return Poll::Ready(Ok(room));
        }
        keep(&mut stream.writer, cx);
        if room > 0 && !std::mem::replace(&mut stream.is_waiting, true) {
            shared.waiting.push(id);
        }
        Poll::Pending
    }

    /// Sends bytes, as many as [`Link::poll_room`] allowed.
    pub(super) fn send(&self, id: u32, bytes: Bytes) {
        let mut shared = self.lock();
        let Some(stream) = shared.streams.get_mut(&id) else { return };
        stream.credit = stream.credit.saturating_sub(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        stream.queued += bytes.len();
        shared.queue_bytes += bytes.len() + FRAME_COST_BYTES;
        shared.queue.push_back(Frame::data(id, bytes));
        wake(shared);
    }

    /// Ends the sending direction of a stream.
    ///
    /// # Errors
    /// `ConnectionReset`: it or the link has ended already.
    pub(super) fn finish(&self, id: u32) -> io::Result<()> {
        let mut shared = self.lock();
        if let Some(reason) = &shared.closed {
            return Err(self.lost(reason));
        }
        let stream = shared.streams.get_mut(&id).ok_or_else(|| self.lost("it is over"))?;
        if stream.phase != Phase::Open {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !stream.is_fin_sent {
            stream.is_fin_sent = true;
            shared.queue.push_back(Frame::fin(id));
            wake(shared);
        }
        Ok(())
    }

    /// Tells the peer that this side takes no more streams.
    pub(super) fn say_leave(&self) {
        let mut shared = self.lock();
        shared.urgent.push_back(Frame::leave());
        wake(shared);
    }

    /// Whether the peer takes no more streams.
    pub(super) fn is_left(&self) -> bool {
        self.lock().is_left
    }

    /// Asks the peer for a sign of life.
    pub(super) fn ping(&self) {
        let mut shared = self.lock();
        shared.is_ping_due = true;
        wake(shared);
    }

    /// Moves frames that are to be sent to `batch`. If there are none, whoever called [`Link::watch`] is woken when there
    /// are.
    pub(super) fn take_batch(&self, batch: &mut VecDeque<Frame>) {
        let mut woken = Vec::new();
        let mut shared = self.lock();
        if std::mem::take(&mut shared.is_pong_due) {
            batch.push_back(Frame::pong());
        }
        if std::mem::take(&mut shared.is_ping_due) {
            batch.push_back(Frame::ping());
        }
        let mut bytes = 0;
        while batch.len() < BATCH_FRAMES_MAX && bytes < BATCH_BYTES_MAX {
            let Some(frame) = shared.next() else { break };
            bytes += frame.bytes();
            if let Some((id, data_bytes)) = frame.data_of() {
                shared.queue_bytes -= data_bytes + FRAME_COST_BYTES;
                if let Some(stream) = shared.streams.get_mut(&id) {
                    stream.queued -= data_bytes;
                    woken.extend(stream.writer.take());
                }
            }
            batch.push_back(frame);
        }
        if shared.queue_bytes < LINK_QUEUE_BYTES_MAX / 2 && !shared.waiting.is_empty() {
            for id in std::mem::take(&mut shared.waiting) {
                if let Some(stream) = shared.streams.get_mut(&id) {
                    stream.is_waiting = false;
                    woken.extend(stream.writer.take());
                }
            }
        }
        shared.is_driver_idle = batch.is_empty();
        drop(shared);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Says why the link is closed. If it is not, `cx` is woken when it is.
    pub(super) fn watch(&self, cx: &mut Context<'_>) -> Option<Arc<str>> {
        let mut shared = self.lock();
        if shared.closed.is_none() {
            keep(&mut shared.driver, cx);
        }
        shared.closed.clone()
    }

    /// Takes bytes of the peer.
    ///
    /// # Errors
    /// [`Violation`]: the link must be closed.
    pub(super) fn receive(&self, decoder: &mut Decoder, mut bytes: &[u8]) -> Result<Arrived, Violation> {
        let mut arrived = Arrived::default();
        let mut woken = Vec::new();
        let mut shared = self.lock();
        shared.last_received = Instant::now();
        let result = loop {
            match decoder.next(&mut bytes) {
                Ok(None) => break Ok(arrived),
                Ok(Some(event)) => {
                    if let Err(violation) = self.take(&mut shared, event, &mut arrived, &mut woken) {
                        break Err(violation);
                    }
                }
                Err(e) => break Err(e.into()),
            }
        };
        if shared.urgent.len() + shared.queue.len() > CONTROL_FRAMES_MAX {
            return Err(Violation::Deaf);
        }
        // The driver itself is here: it looks at what is to be sent afterwards.
        drop(shared);
        woken.into_iter().for_each(Waker::wake);
        result
    }

    const fn is_own(&self, id: u32) -> bool {
        (id % 2 == 1) == self.is_maker
    }

    fn take(
        &self,
        shared: &mut Shared,
        event: Event<'_>,
        arrived: &mut Arrived,
        woken: &mut Vec<Waker>,
    ) -> Result<(), Violation> {
        let (id, what) = match event {
            Event::Ping => {
                shared.is_pong_due = true;
                return Ok(());
            }
            Event::Pong => return Ok(()),
            Event::Leave => {
                shared.is_left = true;
                return Ok(());
            }
            Event::Ethernet { network, bytes, left } => {
                arrived.ethernet.extend(shared.ethernet.arrive(bytes, left).map(|frame| (network, frame)));
                return Ok(());
            }
            Event::Close { reason } => {
                arrived.closed = Some(reason);
                return Ok(());
            }
            Event::Open { stream, request } => return self.take_open(shared, stream, request, arrived),
            Event::Accept { stream } => (stream, "an acceptance"),
            Event::Refuse { stream, .. } => (stream, "a refusal"),
            Event::Data { stream, .. } => (stream, "data"),
            Event::Fin { stream } => (stream, "an end"),
            Event::Reset { stream } => (stream, "a reset"),
            Event::Credit { stream, .. } => (stream, "credit"),
        };
        let Some(stream) = shared.streams.get_mut(&id) else {
            let was_opened = if self.is_own(id) { id < shared.next_id } else { id <= shared.last_peer_id };
            return if was_opened { Ok(()) } else { Err(Violation::Unknown(id)) };
        };
        // The stream was left or refused on this side, which the peer does not know yet.
        if stream.phase == Phase::Reset {
            return Ok(());
        }
        let is_open = stream.phase == Phase::Open;
        match event {
            Event::Accept { .. } if stream.phase == Phase::Wanted => {
                stream.phase = Phase::Open;
                woken.extend(stream.reader.take());
            }
            Event::Refuse { reason, .. } if stream.phase == Phase::Wanted => {
                stream.phase = Phase::Refused(reason);
                woken.extend(stream.reader.take());
            }
            Event::Data { bytes, left, .. } if is_open && !stream.is_fin_received => {
                // No frame is longer than a `u32` can say.
                let (now, later) = (bytes.len() as u32, left as u32);
                if now + later > stream.window_left {
                    return Err(Violation::Credit { stream: id, sent: now + later - stream.window_left });
                }
                stream.window_left -= now;
                stream.push(bytes, left);
                woken.extend(stream.reader.take());
            }
            Event::Fin { .. } if is_open && !stream.is_fin_received => {
                stream.is_fin_received = true;
                woken.extend(stream.reader.take());
            }
            Event::Reset { .. } => {
                stream.phase = match stream.phase {
                    Phase::Wanted => Phase::Refused("the node broke off the stream".to_owned()),
                    _ => Phase::Reset,
                };
                stream.received.clear();
                woken.extend(stream.reader.take());
                woken.extend(stream.writer.take());
            }
            Event::Credit { amount, .. } if is_open => {
                stream.credit = stream
                    .credit
                    .checked_add(amount)
                    .filter(|credit| *credit <= CREDIT_BYTES_MAX)
                    .ok_or(Violation::CreditGiven(id))?;
                woken.extend(stream.writer.take());
            }
            _ => return Err(Violation::State { what, stream: id }),
        }
        Ok(())
    }

    fn take_open(
        &self,
        shared: &mut Shared,
        id: u32,
        request: OpenRequest,
        arrived: &mut Arrived,
    ) -> Result<(), Violation> {
        if self.is_own(id) || id <= shared.last_peer_id {
            return Err(Violation::Order(id));
        }
        shared.last_peer_id = id;
        if shared.opened_by_peer >= STREAMS_MAX || shared.unanswered >= UNANSWERED_MAX {
            arrived.surplus += 1;
            shared.urgent.push_back(Frame::refuse(id, "the link has too many streams"));
            return Ok(());
        }
        shared.opened_by_peer += 1;
        shared.unanswered += 1;
        shared.streams.insert(id, Stream::new(Phase::Asked));
        arrived.wanted.push((id, request));
        Ok(())
    }

    fn lost(&self, reason: &str) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionReset, format!("the link to node {} is over: {reason}", self.peer))
    }
}

/// Keeps whom to wake.
fn keep(place: &mut Option<Waker>, cx: &mut Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

/// Wakes the driver if it waits for something to send.
fn wake(mut shared: MutexGuard<'_, Shared>) {
    let driver = if std::mem::take(&mut shared.is_driver_idle) { shared.driver.take() } else { None };
    drop(shared);
    if let Some(driver) = driver {
        driver.wake();
    }
}

#[cfg(test)]
mod tests;
