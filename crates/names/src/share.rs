//! Limits: of all containers together, and of each of them.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Queries that wait, of all containers: for another resolver, or for the table.
pub(crate) const WAITING_MAX: usize = 1024;
/// Queries that wait, of one container.
pub(crate) const CONTAINER_WAITING_MAX: usize = 64;
/// TCP connections of one container.
pub(crate) const CONTAINER_CONNECTIONS_MAX: usize = 16;
/// Containers at a gateway whose shares are kept although nothing of them is used.
const IDLE_SHARES_MAX: usize = 256;

/// What containers may use, by the address that they ask from.
#[derive(Debug)]
pub(crate) struct Shares {
    all_waiting: Arc<Semaphore>,
    of_containers: Mutex<BTreeMap<IpAddr, Share>>,
}

#[derive(Clone, Debug)]
struct Share {
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            waiting: Arc::new(Semaphore::new(CONTAINER_WAITING_MAX)),
            connections: Arc::new(Semaphore::new(CONTAINER_CONNECTIONS_MAX)),
        }
    }
}

impl Share {
    /// Whether nobody holds a part of it.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.waiting) == 1 && Arc::strong_count(&self.connections) == 1
    }
}

/// A query's right to wait; dropped at its end.
#[derive(Debug)]
pub(crate) struct Waiting {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Shares {
    /// Shares of some containers, which wait together with all others of the semaphore.
    pub(crate) fn new(all_waiting: Arc<Semaphore>) -> Self {
        Self { all_waiting, of_containers: Mutex::default() }
    }

    /// The right to wait, if the container and all containers have one left.
    pub(crate) fn wait(&self, container: IpAddr) -> Option<Waiting> {
        let own = self.of(container).waiting.try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all_waiting).try_acquire_owned().ok()?;
        Some(Waiting { _all: all, _own: own })
    }

    /// The right to a TCP connection, if the container has one left. Dropped at the connection's end.
    pub(crate) fn connect(&self, container: IpAddr) -> Option<OwnedSemaphorePermit> {
        self.of(container).connections.try_acquire_owned().ok()
    }

    fn of(&self, container: IpAddr) -> Share {
        let mut shares = self.of_containers.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() > IDLE_SHARES_MAX {
            shares.retain(|_, share| !share.is_idle());
        }
        shares.entry(container).or_default().clone()
    }
}
