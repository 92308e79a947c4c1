//! Requests while a service changes: clients that ask its published port at each node in turn, and count what becomes of
//! each request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, bail};

use super::view;
use crate::http::Address;

/// Clients at the same time.
const CLIENTS: usize = 4;
/// Pause of a client between two requests: some hundred requests a second in all, without taking the machine.
const PAUSE: Duration = Duration::from_millis(15);

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Answers by the version that gave them.
    pub answers: BTreeMap<String, u64>,
    /// Requests without an answer.
    pub failed: u64,
    /// The first of these.
    pub first_failure: String,
}

impl Counts {
    /// A line for people, or an error if a request failed that should not have.
    pub(super) fn told(&self) -> Result<String> {
        if self.failed > 0 {
            bail!("{} requests failed; the first: {}", self.failed, self.first_failure);
        }
        let total: u64 = self.answers.values().sum();
        if total == 0 {
            bail!("no request was answered");
        }
        let versions: Vec<String> =
            self.answers.iter().map(|(version, count)| format!("{count} by version {version}")).collect();
        Ok(format!("{total} requests answered ({}), none failed", versions.join(", ")))
    }
}

struct Shared {
    stop: AtomicBool,
    next: AtomicUsize,
    addresses: Vec<SocketAddr>,
    counts: Mutex<Counts>,
}

/// Clients at work.
pub(super) struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Starts clients that ask these addresses.
    pub(super) fn start(addresses: Vec<SocketAddr>) -> Self {
        let (stop, next, counts) = Default::default();
        let shared = Arc::new(Shared { stop, next, addresses, counts });
        let client = || {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.ask())
        };
        let threads = (0..CLIENTS).map(|_| client()).collect();
        Self { shared, threads }
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> Result<Counts> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                bail!("a client of the demo panicked");
            }
        }
        Ok(lock(&self.shared.counts).clone())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    /// Asks one address after the other.
    fn ask(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let address = self.addresses[self.next.fetch_add(1, Ordering::Relaxed) % self.addresses.len()];
            let answer = view::greet(&Address::Tcp(address));
            let mut counts = lock(&self.counts);
            match answer {
                Ok(greeting) => *counts.answers.entry(greeting.version).or_default() += 1,
                Err(error) => {
                    counts.failed += 1;
                    if counts.failed == 1 {
                        counts.first_failure = format!("at {address}: {error:#}");
                    }
                }
            }
            drop(counts);
            thread::park_timeout(PAUSE);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A client that panicked is told when it is joined.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_request_is_a_failure() {
        let mut counts = Counts { answers: [("1".to_owned(), 5), ("2".to_owned(), 7)].into(), ..Counts::default() };
        let line = counts.told().unwrap();
        assert_eq!(line, "12 requests answered (5 by version 1, 7 by version 2), none failed");
        (counts.failed, counts.first_failure) = (1, "at 127.0.0.1:8080: refused".to_owned());
        assert!(counts.told().unwrap_err().to_string().contains("127.0.0.1:8080: refused"));
        assert!(Counts::default().told().is_err(), "silence is no success");
    }
}
