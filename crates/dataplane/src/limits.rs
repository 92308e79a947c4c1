//! The limits that a service sets on its connections at this node.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use swarm_model::{Ingress, ServiceId};
use tokio::time::Instant;

use crate::protocol::ServiceStats;

/// The time that a rate is given for. A client address may have as many connections at once as it may have in this time.
const PERIOD: Duration = Duration::from_secs(1);
/// Client addresses that are remembered from a period. Further addresses pass: a flood of them takes no more memory, and
/// keeps nobody out.
const ADDRESSES_MAX: usize = 16_384;

/// The connections of a service at this node, and the number of those that were refused. The counters outlive tables.
#[derive(Default)]
pub(crate) struct Limits {
    connections: AtomicU64,
    recent: Mutex<Recent>,
    over_connections: AtomicU64,
    over_rate: AtomicU64,
    bad_headers: AtomicU64,
}

/// A connection that the limits allow. It counts until this is dropped.
pub(crate) struct Admitted(Arc<Limits>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Limits {
    /// Lets a connection of a client in. None when a limit refuses it, which is counted.
    pub(crate) fn admit(self: &Arc<Self>, ingress: &Ingress, client: IpAddr) -> Option<Admitted> {
        let before = self.connections.fetch_add(1, Ordering::AcqRel);
        let admitted = Admitted(Arc::clone(self));
        if ingress.connections_max.is_some_and(|most| before >= u64::from(most.get())) {
            self.over_connections.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if let Some(rate) = ingress.rate_max
            && !self.recent().allow(client.to_canonical(), rate, Instant::now())
        {
            self.over_rate.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(admitted)
    }

    /// A proxy began a connection without a header that can be read.
    pub(crate) fn count_bad_header(&self) {
        self.bad_headers.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters; none while everything is 0.
    pub(crate) fn stats(&self, service: ServiceId) -> Option<ServiceStats> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = ServiceStats {
            service,
            connections: load(&self.connections),
            over_connections: load(&self.over_connections),
            over_rate: load(&self.over_rate),
            bad_headers: load(&self.bad_headers),
        };
        let is_silent = (stats.connections, stats.over_connections, stats.over_rate, stats.bad_headers) == (0, 0, 0, 0);
        (!is_silent).then_some(stats)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token buckets of client addresses. A bucket is kept as the moment at which all its tokens are back.
#[derive(Default)]
struct Recent {
    /// The begin of the present period; none before the first connection.
    began: Option<Instant>,
    present: BTreeMap<IpAddr, Instant>,
    /// The buckets of the period before. A bucket that is in neither is full again.
    past: BTreeMap<IpAddr, Instant>,
}

impl Recent {
    /// Takes a token of a client, if it has one.
    fn allow(&mut self, client: IpAddr, rate: NonZeroU32, now: Instant) -> bool {
        let age = self.began.map(|began| now.duration_since(began));
        if age.is_none_or(|age| age >= PERIOD) {
            self.past = std::mem::take(&mut self.present);
            self.began = Some(now);
        }
        if age.is_some_and(|age| age >= 2 * PERIOD) {
            self.past.clear();
        }
        let known = self.present.get(&client).or_else(|| self.past.get(&client));
        let full_at = known.map_or(now, |at| (*at).max(now)) + PERIOD / rate.get();
        if full_at > now + PERIOD {
            return false;
        }
        if self.present.len() < ADDRESSES_MAX || self.present.contains_key(&client) {
            self.present.insert(client, full_at);
        }
        true
    }
}

#[cfg(test)]
mod tests;
