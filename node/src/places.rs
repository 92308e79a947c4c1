//! A bounded number of places that strangers share fairly: whoever wants many of them waits behind his own, not before
//! others.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How many may be in, and how many may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In at once, of everybody.
    pub(crate) total_max: usize,
    /// In at once, of one key.
    pub(crate) per_key_max: usize,
    /// Waiting at once, of everybody.
    pub(crate) waiting_max: usize,
    /// Waiting at once, of one key.
    pub(crate) waiting_per_key_max: usize,
    /// Longest wait.
    pub(crate) wait_max: Duration,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum Full {
    /// One key has as many as it may.
    #[error("too many connections at once of its address or node")]
    Key,
    /// Too many wait.
    #[error("too many connections at once wait for their turn")]
    Waiting,
    /// None came free in time.
    #[error("no place came free within the longest wait")]
    Slow,
}

/// The places, by the key of who takes them.
pub(crate) struct Places<K: Ord> {
    limits: Limits,
    total: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    shares: Arc<Shares<K>>,
}

/// What each key has; one that has nothing is not in the map.
struct Shares<K>(Mutex<BTreeMap<K, Share>>);

struct Share {
    places: Arc<Semaphore>,
    /// In or waiting.
    entries: usize,
}

/// Somebody who is in, or waits for that.
pub(crate) struct Entry<K: Ord> {
    own: Option<OwnedSemaphorePermit>,
    total: Option<OwnedSemaphorePermit>,
    /// Held by those that wait.
    waiting: Option<OwnedSemaphorePermit>,
    own_places: Arc<Semaphore>,
    total_places: Arc<Semaphore>,
    wait_max: Duration,
    /// Last: the share goes when its permits have.
    _counted: Counted<K>,
}

/// Takes the entry out of its key's share when it ends.
struct Counted<K: Ord> {
    key: K,
    shares: Arc<Shares<K>>,
}

impl<K: Ord + Clone> Places<K> {
    /// Empty places.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            total: Arc::new(Semaphore::new(limits.total_max)),
            waiting: Arc::new(Semaphore::new(limits.waiting_max)),
            shares: Arc::new(Shares(Mutex::default())),
        }
    }

    /// Takes a place, or one in the queue for it; [`Entry::turn`] then waits.
    ///
    /// # Errors
    /// [`Full::Key`] and [`Full::Waiting`] when the queue is full as well.
    pub(crate) fn enter(&self, key: K) -> Result<Entry<K>, Full> {
        let (own_places, counted) = self.count(key)?;
        let own = own_places.clone().try_acquire_owned().ok();
        // Whoever has no place of his own takes none from others.
        let total = own.as_ref().and_then(|_| self.total.clone().try_acquire_owned().ok());
        let waiting = match &total {
            Some(_) => None,
            None => Some(self.waiting.clone().try_acquire_owned().map_err(|_| Full::Waiting)?),
        };
        let (total_places, wait_max) = (self.total.clone(), self.limits.wait_max);
        Ok(Entry { own, total, waiting, own_places, total_places, wait_max, _counted: counted })
    }

    fn count(&self, key: K) -> Result<(Arc<Semaphore>, Counted<K>), Full> {
        let Limits { per_key_max, waiting_per_key_max, .. } = self.limits;
        let mut shares = self.shares.lock();
        let share = shares
            .entry(key.clone())
            .or_insert_with(|| Share { places: Arc::new(Semaphore::new(per_key_max)), entries: 0 });
        if share.entries >= per_key_max + waiting_per_key_max {
            return Err(Full::Key);
        }
        share.entries += 1;
        Ok((share.places.clone(), Counted { key, shares: self.shares.clone() }))
    }
}

impl<K: Ord> Entry<K> {
    /// Waits for the place; it is held until the entry is dropped.
    ///
    /// # Errors
    /// [`Full::Slow`] after the longest wait.
    pub(crate) async fn turn(mut self) -> Result<Self, Full> {
        let places = async {
            if self.own.is_none() {
                self.own = self.own_places.clone().acquire_owned().await.ok();
            }
            if self.total.is_none() {
                self.total = self.total_places.clone().acquire_owned().await.ok();
            }
        };
        timeout(self.wait_max, places).await.map_err(|_| Full::Slow)?;
        self.waiting = None;
        Ok(self)
    }
}

impl<K> Shares<K> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get_mut(&self.key) {
            share.entries -= 1;
            if share.entries == 0 {
                shares.remove(&self.key);
            }
        }
    }
}

/// Whom an address stands for: with IPv6 a whole /64, since everybody with one address there has all of them.
pub(crate) fn source(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => {
            let [a, b, c, d, ..] = addr.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        total_max: 3,
        per_key_max: 2,
        waiting_max: 3,
        waiting_per_key_max: 2,
        wait_max: Duration::from_secs(5),
    };

    #[tokio::test(start_paused = true)]
    async fn who_takes_much_waits_for_himself_and_not_before_others() {
        let places = Places::new(LIMITS);
        let first = places.enter("a").unwrap().turn().await.unwrap();
        let second = places.enter("a").unwrap().turn().await.unwrap();
        let (third, fourth) = (places.enter("a").unwrap(), places.enter("a").unwrap());
        assert_eq!(places.enter("a").err(), Some(Full::Key));
        let other = places.enter("b").unwrap().turn().await.unwrap();
        // All three places are taken, and two wait already.
        let late = places.enter("c").unwrap();
        assert_eq!(places.enter("d").err(), Some(Full::Waiting));
        assert_eq!(third.turn().await.err(), Some(Full::Slow));
        drop(first);
        let fourth = fourth.turn().await.unwrap();
        drop(other);
        let late = late.turn().await.unwrap();
        assert_eq!(places.shares.lock().keys().copied().collect::<Vec<_>>(), ["a", "c"]);
        drop((second, fourth, late));
        assert!(places.shares.lock().is_empty());
        assert_eq!((places.total.available_permits(), places.waiting.available_permits()), (3, 3));
    }

    #[test]
    fn a_source_is_what_one_person_has() {
        for (addr, expected) in [
            ("10.0.0.7", "10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(source(addr.parse().unwrap()), expected.parse::<IpAddr>().unwrap(), "{addr}");
        }
    }
}
