//! Buffers that connections take when there is something to read.

use std::cell::RefCell;

/// Size of a buffer: larger ones save few system calls, smaller ones cost many (data-plane §6: 8 KiB take twice the
/// processor time of 64 KiB).
const BUFFER_BYTES: usize = 64 << 10;
/// Buffers that a thread keeps: enough for the connections that it looks at in one turn of the runtime.
const KEPT_BUFFERS_MAX: usize = 8;

thread_local! {
    static KEPT: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer; its memory goes back to the thread that drops it.
pub(crate) struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A buffer without content.
    pub(crate) fn take() -> Self {
        let kept = KEPT.with_borrow_mut(Vec::pop);
        Self { memory: kept.unwrap_or_else(|| vec![0; BUFFER_BYTES].into()), start: 0, end: 0 }
    }

    /// The room for content.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// The buffer has so many bytes of content.
    pub(crate) fn filled(mut self, bytes: usize) -> Self {
        self.end = bytes.min(self.memory.len());
        self
    }

    /// Content that is left.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// So many bytes of the content are done. Returns whether none is left.
    pub(crate) fn advance(&mut self, bytes: usize) -> bool {
        self.start = (self.start + bytes).min(self.end);
        self.start == self.end
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        // A thread that ends keeps none.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_BUFFERS_MAX {
                kept.push(memory);
            }
        });
    }
}
