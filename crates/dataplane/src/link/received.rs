//! The bytes of a stream that have arrived and wait for its reader.

use std::collections::VecDeque;

/// Room set aside for small pieces that arrive while others wait: a stream of tiny frames must not cost a piece of
/// memory each.
const PIECE_BYTES_MIN: usize = 4 << 10;

/// Bytes in pieces.
#[derive(Debug, Default)]
pub(super) struct Received {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Received {
    /// Bytes that wait.
    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    /// Appends bytes; room for `left` more is set aside.
    pub(super) fn push(&mut self, bytes: &[u8], left: usize) {
        self.bytes += bytes.len();
        if let Some(last) = self.pieces.back_mut()
            && last.capacity() - last.len() >= bytes.len()
        {
            last.extend_from_slice(bytes);
            return;
        }
        let mut room = bytes.len() + left;
        if !self.pieces.is_empty() {
            room = room.max(PIECE_BYTES_MIN);
        }
        let mut piece = Vec::with_capacity(room);
        piece.extend_from_slice(bytes);
        self.pieces.push_back(piece);
    }

    /// Takes the first piece.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
        Some(piece)
    }

    /// Throws everything away.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
