//! Counters of a resolver.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a resolver since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that came from containers.
    pub queries: u64,
    /// Queries that the table answered.
    pub answered: u64,
    /// Queries that were forwarded to other resolvers.
    pub forwarded: u64,
    /// Messages that were refused: malformed ones, unusual ones, and those of senders that are no container.
    pub refused: u64,
    /// Queries that failed: no other resolver answered, or the table was not complete in time.
    pub failed: u64,
    /// Queries that failed at once because too many others were waiting, and TCP connections that were closed because
    /// too many others were open.
    pub overloaded: u64,
    /// Messages that got no answer: those that are no query, and answers that the socket did not take.
    pub dropped: u64,
}

/// A count that grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts behind [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) queries: Count,
    pub(crate) answered: Count,
    pub(crate) forwarded: Count,
    pub(crate) refused: Count,
    pub(crate) failed: Count,
    pub(crate) overloaded: Count,
    pub(crate) dropped: Count,
}

impl Counts {
    pub(crate) fn read(&self) -> Counters {
        Counters {
            queries: self.queries.get(),
            answered: self.answered.get(),
            forwarded: self.forwarded.get(),
            refused: self.refused.get(),
            failed: self.failed.get(),
            overloaded: self.overloaded.get(),
            dropped: self.dropped.get(),
        }
    }
}
