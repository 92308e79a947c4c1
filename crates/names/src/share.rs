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
const WAITING_MAX: usize = 1024;
/// Queries that wait, of one container.
pub(crate) const CONTAINER_WAITING_MAX: usize = 64;
/// TCP connections of all containers.
const CONNECTIONS_MAX: usize = 1024;
/// TCP connections of one container.
pub(crate) const CONTAINER_CONNECTIONS_MAX: usize = 16;
/// Containers at a gateway whose shares are kept although nothing of them is used.
const IDLE_SHARES_MAX: usize = 256;

/// The room for queries that wait, and for TCP connections.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Room {
    /// The room of all containers.
    pub(crate) fn of_all() -> Self {
        Self::new(WAITING_MAX, CONNECTIONS_MAX)
    }

    fn of_container() -> Self {
        Self::new(CONTAINER_WAITING_MAX, CONTAINER_CONNECTIONS_MAX)
    }

    fn new(waiting: usize, connections: usize) -> Self {
        Self { waiting: Arc::new(Semaphore::new(waiting)), connections: Arc::new(Semaphore::new(connections)) }
    }

    /// Whether nobody holds a part of it.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.waiting) == 1 && Arc::strong_count(&self.connections) == 1
    }
}

/// The shares of containers in the room of all, by the address that a container asks from.
#[derive(Debug)]
pub(crate) struct Shares {
    all: Room,
    of_containers: Mutex<BTreeMap<IpAddr, Room>>,
}

/// A query's right to wait, or the right to a TCP connection. A drop ends the right.
#[derive(Debug)]
pub(crate) struct Permit {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Shares {
    /// Shares in the room of all containers.
    pub(crate) fn new(all: Room) -> Self {
        Self { all, of_containers: Mutex::default() }
    }

    /// The right to wait, if the container and all containers have room for it.
    pub(crate) fn wait(&self, container: IpAddr) -> Option<Permit> {
        permit(&self.all.waiting, self.of(container).waiting)
    }

    /// The right to a TCP connection, if the container and all containers have room for it.
    pub(crate) fn connect(&self, container: IpAddr) -> Option<Permit> {
        permit(&self.all.connections, self.of(container).connections)
    }

    fn of(&self, container: IpAddr) -> Room {
        let mut shares = self.of_containers.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() > IDLE_SHARES_MAX {
            shares.retain(|_, share| !share.is_idle());
        }
        shares.entry(container).or_insert_with(Room::of_container).clone()
    }
}

fn permit(all: &Arc<Semaphore>, own: Arc<Semaphore>) -> Option<Permit> {
    let own = own.try_acquire_owned().ok()?;
    let all = Arc::clone(all).try_acquire_owned().ok()?;
    Some(Permit { _all: all, _own: own })
}
