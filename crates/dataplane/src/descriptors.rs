//! The descriptors of the process: connections of clients may not take the last ones.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Notify;

/// Descriptors that clients cannot take: for links, the connection of swarmd, listeners that are opened later, and
/// the runtime.
pub(crate) const KEPT_DESCRIPTORS: usize = 100;
/// The number that is counted with when the system has no limit.
const LIMIT_MAX: usize = 1 << 20;

/// Counts the descriptors that connections of clients, listeners and pipes have.
pub(crate) struct Descriptors {
    /// The limit of the process.
    pub(crate) limit: usize,
    used: AtomicUsize,
    refused: AtomicU64,
    has_refused: Notify,
}

/// Descriptors that somebody has.
pub(crate) struct Reserved {
    of: Arc<Descriptors>,
    count: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.count, Ordering::AcqRel);
    }
}

impl Descriptors {
    /// Under this limit of open files.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), refused: AtomicU64::new(0), has_refused: Notify::new() })
    }

    /// Sets so many aside. None when only [`KEPT_DESCRIPTORS`] would be left.
    pub(crate) fn reserve(self: &Arc<Self>, count: usize) -> Option<Reserved> {
        let most = self.limit.saturating_sub(KEPT_DESCRIPTORS);
        let more = |used: usize| (used + count <= most).then_some(used + count);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Reserved { of: Arc::clone(self), count })
    }

    /// Counts a connection that was refused for want of descriptors.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.has_refused.notify_one();
    }

    /// Whether connections were refused that [`Descriptors::refused_connections`] did not count yet.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed) > 0
    }

    /// Waits until connections were refused, and says how many since the last call.
    pub(crate) async fn refused_connections(&self) -> u64 {
        loop {
            let count = self.refused.swap(0, Ordering::Relaxed);
            if count > 0 {
                return count;
            }
            self.has_refused.notified().await;
        }
    }
}

/// Raises the process's limit of open files as far as it may, and returns it.
pub(crate) fn raise_limit() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("cannot raise the limit of open files: {e}");
    }
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|limit| usize::try_from(limit).ok()).map_or(LIMIT_MAX, |limit| limit.min(LIMIT_MAX))
}
