//! Ethernet frames on links: the taker of the frames that come in, and the frames that wait for a link.

use std::{
    collections::VecDeque,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use swarm_model::NodeId;
use tokio::time::Instant;

use super::{
    frame::Frame,
    mux::{Link, ethernet::QUEUE_BYTES_MAX},
};

/// Pause after a link to a node could not be made: a flood of frames must not be a flood of connections.
const DIAL_PAUSE: Duration = Duration::from_millis(500);

/// Takes frames of Ethernet that other nodes send: the node, the number of the network, the frame. It must not wait. An error
/// says what is wrong with a frame that the node may not send.
pub type EthernetSink = Box<dyn Fn(NodeId, u32, &[u8]) -> Result<(), &'static str> + Send + Sync>;

/// The taker of incoming Ethernet frames, and the count of frames that were not sent.
#[derive(Default)]
pub(super) struct Ethernet {
    sink: OnceLock<EthernetSink>,
    dropped: AtomicU64,
}

impl Ethernet {
    /// Sets the taker of frames. The first call counts. Frames before it are dropped.
    pub(super) fn set_sink(&self, sink: EthernetSink) {
        let _ = self.sink.set(sink);
    }

    /// Passes a frame on.
    ///
    /// # Errors
    /// The node may not send it.
    pub(super) fn take(&self, from: NodeId, network: u32, frame: &[u8]) -> Result<(), &'static str> {
        self.sink.get().map_or(Ok(()), |sink| sink(from, network, frame))
    }

    /// Counts frames that were not sent.
    pub(super) fn count_dropped(&self, frames: usize) {
        self.dropped.fetch_add(frames as u64, Ordering::Relaxed);
    }

    /// Frames that were not sent so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Frames that wait for the first link to a node.
#[derive(Default)]
pub(super) struct Held {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// When a link could not be made.
    failed_at: Option<Instant>,
}

impl Held {
    /// Whether a link may be tried for.
    pub(super) fn may_dial(&self) -> bool {
        self.failed_at.is_none_or(|at| at.elapsed() >= DIAL_PAUSE)
    }

    /// Keeps a frame if a link is to come. Returns whether it is kept.
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        let bytes = self.bytes + frame.bytes();
        let is_kept = self.may_dial() && bytes <= QUEUE_BYTES_MAX / 2;
        if is_kept {
            self.bytes = bytes;
            self.frames.push_back(frame);
        }
        is_kept
    }

    /// No link could be made. Returns how many frames are lost with it.
    pub(super) fn give_up(&mut self) -> usize {
        self.bytes = 0;
        self.failed_at = Some(Instant::now());
        std::mem::take(&mut self.frames).len()
    }

    /// Sends all on a new link, which has room for them.
    pub(super) fn pass_to(&mut self, link: &Link) {
        (self.bytes, self.failed_at) = (0, None);
        for frame in std::mem::take(&mut self.frames) {
            link.offer(frame);
        }
    }
}
