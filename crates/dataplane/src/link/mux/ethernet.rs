//! The frames of Ethernet of one link.

use std::{collections::VecDeque, mem::size_of, time::Duration};

use tokio::time::Instant;

use super::{super::frame::Frame, Shared};

/// Bytes of frames that wait to be sent, at most. Further frames are dropped, and TCP inside the frames slows down.
pub(in crate::link) const QUEUE_BYTES_MAX: usize = 512 << 10;

/// The frames that wait to be sent, and the one that is arriving.
#[derive(Debug, Default)]
pub(super) struct Lane {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// The beginning of a frame.
    arriving: Vec<u8>,
    /// When a frame was sent or came.
    last: Option<Instant>,
}

impl Shared {
    /// The frame of any kind that is sent next.
    pub(super) fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.urgent.pop_front() {
            return Some(frame);
        }
        self.is_turn_of_ethernet = !self.is_turn_of_ethernet;
        if (self.is_turn_of_ethernet || self.queue.is_empty())
            && let Some(frame) = self.ethernet.next()
        {
            return Some(frame);
        }
        self.queue.pop_front()
    }
}

/// Memory that a frame takes.
fn cost(frame: &Frame) -> usize {
    frame.bytes() + size_of::<Frame>()
}

impl Lane {
    /// Queues a frame; false when there is no room.
    pub(super) fn offer(&mut self, frame: Frame) -> bool {
        let bytes = self.bytes + cost(&frame);
        let has_room = bytes <= QUEUE_BYTES_MAX;
        if has_room {
            self.bytes = bytes;
            self.frames.push_back(frame);
            self.last = Some(Instant::now());
        }
        has_room
    }

    /// Takes the frame that is sent next.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= cost(&frame);
        Some(frame)
    }

    /// Takes bytes of a frame, of which `left` are still to come. Returns the frame once it is whole.
    pub(super) fn arrive(&mut self, bytes: &[u8], left: usize) -> Option<Vec<u8>> {
        self.arriving.reserve(bytes.len() + left);
        self.arriving.extend_from_slice(bytes);
        (left == 0).then(|| {
            self.last = Some(Instant::now());
            std::mem::take(&mut self.arriving)
        })
    }

    /// Whether a frame was sent or came within this time.
    pub(super) fn has_carried(&self, within: Duration) -> bool {
        self.last.is_some_and(|last| last.elapsed() < within)
    }
}
