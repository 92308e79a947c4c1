//! How far one stream of a link has come, and how much may be sent on it.

use std::task::Waker;

use super::super::received::Received;

/// Bytes that a side may send at first without being asked for more. A reader that is slow from the beginning holds no
/// more than this.
pub(in crate::link) const WINDOW_BYTES_MIN: u32 = 64 << 10;
/// Bytes on their way to a reader that keeps up.
pub(in crate::link) const WINDOW_BYTES_MAX: u32 = 256 << 10;

/// How far a stream has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The stream was asked for by this side.
    Wanted,
    /// The peer wants it.
    Asked,
    Open,
    /// The peer refused it.
    Refused(String),
    /// The stream was broken off by the peer, or refused to it.
    Reset,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) phase: Phase,
    pub(super) received: Received,
    /// Bytes that the peer may still send.
    pub(super) window_left: u32,
    /// Bytes that may be on their way or wait.
    pub(super) window: u32,
    /// Bytes that the reader took since the window grew.
    pub(super) taken: u32,
    /// Bytes that may still be sent.
    pub(super) credit: u32,
    /// Bytes that wait to be sent.
    pub(super) queued: usize,
    pub(super) is_fin_sent: bool,
    pub(super) is_fin_received: bool,
    /// Whether the peer asked for it and has no answer.
    pub(super) is_unanswered: bool,
    /// Whether it waits for room in the queue of the link.
    pub(super) is_waiting: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Stream {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            is_unanswered: phase == Phase::Asked,
            is_waiting: false,
            phase,
            received: Received::default(),
            window_left: WINDOW_BYTES_MIN,
            window: WINDOW_BYTES_MIN,
            taken: 0,
            credit: WINDOW_BYTES_MIN,
            queued: 0,
            is_fin_sent: false,
            is_fin_received: false,
            reader: None,
            writer: None,
        }
    }

    /// Credit to give now that the reader has used up what it took before. It is given in large pieces: a frame for each
    /// read costs more.
    pub(super) fn grant(&mut self) -> Option<u32> {
        if self.is_fin_received || self.phase != Phase::Open {
            return None;
        }
        let waiting = u32::try_from(self.received.len()).unwrap_or(u32::MAX);
        // A reader that has read a whole window and finds nothing more is faster than the link.
        if waiting == 0 && self.taken >= self.window {
            self.window = (self.window * 2).min(WINDOW_BYTES_MAX);
            self.taken = 0;
        }
        let used = self.window.saturating_sub(self.window_left.saturating_add(waiting));
        (used >= self.window / 4).then(|| {
            self.window_left += used;
            used
        })
    }

    /// Takes bytes for the reader.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let piece = self.received.pop()?;
        self.taken = self.taken.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        Some(piece)
    }

    /// Keeps bytes for the reader; `left` more of the same frame follow. A reader gets a quarter of the window at a time,
    /// so that a slow one does not look as if it had read everything.
    pub(super) fn push(&mut self, bytes: &[u8], left: usize) {
        let piece_max = usize::try_from(self.window / 4).unwrap_or(usize::MAX);
        self.received.push(bytes, left.min(piece_max.saturating_sub(bytes.len())));
    }
}
