//! The published state, and who is to look at it again after a change.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use swarm_consensus::Observer;
use swarm_core::{Dirty, Event, State};
use swarm_model::{NodeId, ServiceId};
use tokio::sync::Notify;

/// What a watcher wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A node, the tasks that it was given, and the cluster object.
    Node(NodeId),
    /// A service and its tasks.
    Service(ServiceId),
    /// The set of nodes, their states, and the cluster object.
    Nodes,
}

/// Follows consensus: keeps the newest state, and wakes whom a change concerns. Nothing is queued: what changed is a
/// set of keys for the leader loop and a flag for everybody else, so that a slow reader costs nothing.
#[derive(Debug, Default)]
pub struct Feed {
    state: ArcSwap<State>,
    dirty: Mutex<Dirty>,
    dirtied: Notify,
    watchers: Mutex<Watchers>,
}

#[derive(Debug, Default)]
struct Watchers {
    next: u64,
    wakers: BTreeMap<(Topic, u64), Arc<Notify>>,
}

impl Feed {
    /// A feed of an empty state.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Takes what is dirty since the last call.
    pub fn take_dirty(&self) -> Dirty {
        std::mem::take(&mut *lock(&self.dirty))
    }

    /// Waits until something is dirty, or another state was published. One caller at a time.
    pub async fn dirtied(&self) {
        self.dirtied.notified().await;
    }

    /// Wakes who waits for something dirty: not the state changed, but what its decisions rest on.
    pub fn nudge(&self) {
        self.dirtied.notify_one();
    }

    /// Watches a topic until the watch is dropped.
    pub fn watch(self: &Arc<Self>, topic: Topic) -> Watch {
        let mut watchers = lock(&self.watchers);
        watchers.next += 1;
        let key = (topic, watchers.next);
        let waker = Arc::new(Notify::new());
        watchers.wakers.insert(key, waker.clone());
        Watch { feed: self.clone(), key, waker }
    }
}

impl Watchers {
    fn wake(&self, topic: Topic) {
        self.wakers.range((topic, 0)..=(topic, u64::MAX)).for_each(|(_, waker)| waker.notify_one());
    }

    fn wake_all(&self) {
        self.wakers.values().for_each(|waker| waker.notify_one());
    }
}

impl Observer for Feed {
    fn applied(&self, state: &Arc<State>, events: &[Event]) {
        // Published first: who is woken must find the change.
        self.state.store(Arc::clone(state));
        {
            let mut dirty = lock(&self.dirty);
            events.iter().for_each(|event| dirty.mark(event));
        }
        // Also when nothing changed: the leader waits for the state to reach the end of its plan.
        self.dirtied.notify_one();
        let watchers = lock(&self.watchers);
        for event in events {
            match *event {
                Event::Cluster => watchers.wake_all(),
                Event::Node(node) => {
                    watchers.wake(Topic::Node(node));
                    watchers.wake(Topic::Nodes);
                }
                Event::Service(service) => watchers.wake(Topic::Service(service)),
                Event::Task { service, node, .. } => {
                    node.into_iter().for_each(|node| watchers.wake(Topic::Node(node)));
                    watchers.wake(Topic::Service(service));
                }
                Event::Room(_) => {}
            }
        }
    }

    fn restored(&self, state: &Arc<State>) {
        self.state.store(Arc::clone(state));
        *lock(&self.dirty) = Dirty::everything();
        self.dirtied.notify_one();
        lock(&self.watchers).wake_all();
    }
}

/// A watched topic.
#[derive(Debug)]
pub struct Watch {
    feed: Arc<Feed>,
    key: (Topic, u64),
    waker: Arc<Notify>,
}

impl Watch {
    /// Waits for a change since the last call, or since the watch began. Cancel-safe.
    pub async fn changed(&self) {
        self.waker.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.feed.watchers).wakers.remove(&self.key);
    }
}

/// Locks what stays consistent at every step, so that a panic elsewhere does not spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
