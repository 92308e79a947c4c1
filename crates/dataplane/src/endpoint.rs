//! An endpoint as the forwarder sees it: whether it gets connections, how many it has, and counters.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use swarm_model::{IngressSource, TaskId};

use crate::{
    protocol::{EndpointStats, FromData},
    voice::Voice,
};

/// Set while the endpoint gets no new connections from this node.
const CLOSED: u64 = 1 << 63;
/// Set while somebody waits for the endpoint to have no connections.
const DRAINING: u64 = 1 << 62;
/// Set while there is nothing to be reached: the task has ended, or is not there yet.
const GONE: u64 = 1 << 61;
/// All that is no count.
const FLAGS: u64 = CLOSED | DRAINING | GONE;
/// A connection that came over a link; connections that came in at this node are counted in the bits below. Neither
/// number comes near 2^30: each connection has descriptors.
const LINKED: u64 = 1 << 31;
/// A connection that came in at this node.
const OWN: u64 = 1;

/// Whether an endpoint gets connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The endpoint gets new connections.
    Open,
    /// The endpoint gets no new connections: it cannot be reached.
    Gone,
    /// The endpoint gets no new connections from this node, and drains on another node.
    Closed,
    /// The endpoint gets no new connections, runs here, and swarmd is told when it has none left.
    Draining,
    /// The same, and it cannot be reached any more.
    Ended,
}

/// A task that serves. It outlives tables: each that has the task shares one of these.
pub(crate) struct Endpoint {
    pub(crate) task: TaskId,
    /// [`CLOSED`] and [`DRAINING`], and the connections: one number, so that an endpoint closes at one moment for all.
    usage: AtomicU64,
    /// Connections that it was chosen for. They decide between endpoints with equally many connections.
    turns: AtomicU64,
    connections_total: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    errors: AtomicU64,
    drains: Arc<Drains>,
}

impl Endpoint {
    /// A new one cannot be reached yet.
    pub(crate) fn new(task: TaskId, drains: Arc<Drains>) -> Self {
        Self {
            task,
            usage: AtomicU64::new(CLOSED | GONE),
            turns: AtomicU64::new(0),
            connections_total: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            drains,
        }
    }

    /// Changes its standing. When this returns, no connection can begin that the standing does not allow. Returns
    /// whether the endpoint was closed and is open now.
    pub(crate) fn stand(&self, standing: Standing) -> bool {
        let flags = match standing {
            Standing::Open => 0,
            Standing::Gone => CLOSED | GONE,
            Standing::Closed => CLOSED,
            Standing::Draining => CLOSED | DRAINING,
            Standing::Ended => CLOSED | DRAINING | GONE,
        };
        let before = self.update(|usage| Some((usage & !FLAGS) | flags)).unwrap_or_default();
        match standing {
            Standing::Draining | Standing::Ended => self.drains.review(self),
            Standing::Open | Standing::Closed | Standing::Gone => self.drains.forget(self.task),
        }
        standing == Standing::Open && before & CLOSED != 0
    }

    /// Begins a connection that came in at this node, unless the endpoint is closed.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Lease> {
        self.update(|usage| (usage & CLOSED == 0).then_some(usage + OWN))?;
        self.turns.fetch_add(1, Ordering::Relaxed);
        Some(Lease { endpoint: Arc::clone(self), weight: OWN })
    }

    /// Begins a connection that came over a link. Another node may not know yet that the endpoint is closed.
    pub(crate) fn begin_linked(self: &Arc<Self>) -> Lease {
        let before = self.usage.fetch_add(LINKED, Ordering::AcqRel);
        if before & DRAINING != 0 {
            self.drains.review(self);
        }
        Lease { endpoint: Arc::clone(self), weight: LINKED }
    }

    /// Whether it gets new connections from this node.
    pub(crate) fn is_open(&self) -> bool {
        self.usage.load(Ordering::Acquire) & CLOSED == 0
    }

    /// The numbers that a choice goes by, smaller first: connections of this node now, then earlier choices.
    pub(crate) fn burden(&self) -> (u64, u64) {
        (self.own_connections(), self.turns())
    }

    /// How often it was chosen.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Counts it as chosen at least so often, as others were. Else an endpoint that is new would get every connection
    /// until it had caught up.
    pub(crate) fn join_at(&self, turns: u64) {
        self.turns.fetch_max(turns, Ordering::Relaxed);
    }

    /// Counters of the connections that came in at this node. None for a task of another node before the first.
    /// `source` is the address that a task of this node sees.
    pub(crate) fn stats(&self, source: Option<IngressSource>) -> Option<EndpointStats> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = EndpointStats {
            task: self.task,
            connections: self.own_connections(),
            connections_total: load(&self.connections_total),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            errors: load(&self.errors),
            source,
        };
        (source.is_some() || (stats.connections, stats.connections_total, stats.errors) != (0, 0, 0)).then_some(stats)
    }

    fn own_connections(&self) -> u64 {
        self.usage.load(Ordering::Acquire) & (LINKED - 1)
    }

    /// Whether it has connections, of this node or over links.
    pub(crate) fn has_connections(&self) -> bool {
        self.usage.load(Ordering::Acquire) & !FLAGS != 0
    }

    fn update(&self, change: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        self.usage.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).ok()
    }
}

/// A connection to an endpoint, from the moment that the endpoint was chosen.
pub(crate) struct Lease {
    endpoint: Arc<Endpoint>,
    weight: u64,
}

impl Lease {
    /// Whether the endpoint gets new connections from this node.
    pub(crate) fn is_open(&self) -> bool {
        self.endpoint.is_open()
    }

    /// Whether the endpoint cannot be reached any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.endpoint.usage.load(Ordering::Acquire) & GONE != 0
    }

    /// The endpoint.
    pub(crate) fn task(&self) -> TaskId {
        self.endpoint.task
    }

    /// The task took the connection.
    pub(crate) fn connected(&self) {
        self.count(&self.endpoint.connections_total, 1);
    }

    /// The task did not take the connection, or broke it off.
    pub(crate) fn failed(&self) {
        self.count(&self.endpoint.errors, 1);
    }

    /// Bytes went to the task.
    pub(crate) fn sent(&self, bytes: usize) {
        self.count(&self.endpoint.bytes_in, bytes as u64);
    }

    /// Bytes came from the task.
    pub(crate) fn received(&self, bytes: usize) {
        self.count(&self.endpoint.bytes_out, bytes as u64);
    }

    /// The node that a connection came in at counts it.
    fn count(&self, counter: &AtomicU64, by: u64) {
        if self.weight == OWN {
            counter.fetch_add(by, Ordering::Relaxed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.endpoint.usage.fetch_sub(self.weight, Ordering::AcqRel);
        if before & DRAINING != 0 {
            self.endpoint.drains.review(&self.endpoint);
        }
    }
}

/// The draining tasks that swarmd was told to be without connections.
pub(crate) struct Drains {
    voice: Voice,
    said: Mutex<BTreeSet<TaskId>>,
}

impl Drains {
    /// None yet.
    pub(crate) fn new(voice: Voice) -> Self {
        Self { voice, said: Mutex::default() }
    }

    /// Says whether a draining endpoint has connections, if that is news. The connections are looked at under the lock,
    /// so that of two reviews at a time the later one sees what is.
    fn review(&self, endpoint: &Endpoint) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = endpoint.usage.load(Ordering::Acquire);
        if usage & DRAINING == 0 {
            return;
        }
        if endpoint.has_connections() {
            if said.remove(&endpoint.task) {
                self.voice.say(FromData::InUse(endpoint.task));
            }
        } else if said.insert(endpoint.task) {
            self.voice.say(FromData::Drained(endpoint.task));
        }
    }

    /// The endpoint gets connections, or is no business of swarmd's any more.
    fn forget(&self, task: TaskId) {
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).remove(&task) {
            self.voice.say(FromData::InUse(task));
        }
    }

    /// Says all of them, to a new connection.
    pub(crate) fn repeat(&self) {
        for task in &*self.said.lock().unwrap_or_else(PoisonError::into_inner) {
            self.voice.say(FromData::Drained(*task));
        }
    }
}

#[cfg(test)]
mod tests;
