//! The published state, and who is to look at it again after a change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use swarm_consensus::Observer;
use swarm_core::{Dirty, Event, State};
use swarm_model::{NodeId, ObjectId, ServiceId, TaskId};
use tokio::sync::{Notify, watch};

use crate::{endpoints::Endpoints, networks::Networks};

/// Keys that wait for one session. With more of them the session looks at all that its node has: beside so many
/// changes a walk is cheap, and a session whose agent does not read keeps no more than this.
const CHANGES_MAX: usize = 4096;

/// What a watcher wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A node, and the cluster object.
    Node(NodeId),
    /// A service and its tasks.
    Service(ServiceId),
    /// The set of nodes, their states, and the cluster object.
    Nodes,
}

/// Names one thing that a node can be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AssignmentKey {
    /// A task.
    Task(TaskId),
    /// An attachment.
    Attachment(TaskId),
    /// The records of a network in which the node has tasks.
    Network(ObjectId),
}

impl AssignmentKey {
    /// The item of a node that an event changes. A report of a task changes no item: the desired state stays, and the agent
    /// knows the status that it reports. The report that a task has ended is the exception: the objects of the task go with
    /// it.
    pub fn of(event: &Event, state: &State) -> Option<(NodeId, Self)> {
        if let Event::Attachment { attachment, node } = *event {
            return Some((node, Self::Attachment(attachment)));
        }
        let Event::Task { task, node: Some(node), reported, .. } = *event else { return None };
        let changes = reported.is_none_or(|(_, now)| now.is_terminal() && needs_objects(state, task));
        changes.then_some((node, Self::Task(task)))
    }
}

fn needs_objects(state: &State, task: TaskId) -> bool {
    let spec = state.task(task).and_then(|task| state.spec(task.service, task.spec_version));
    spec.is_some_and(|spec| spec.spec.names_objects())
}

/// What may have changed of what a node is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These, and nothing else.
    Keys(BTreeSet<AssignmentKey>),
    /// Anything.
    Everything,
}

impl Default for Changes {
    fn default() -> Self {
        Self::Keys(BTreeSet::new())
    }
}

impl Changes {
    /// Whether nothing may have changed.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Keys(keys) if keys.is_empty())
    }

    /// Whether this may have changed.
    pub fn concern(&self, key: AssignmentKey) -> bool {
        match self {
            Self::Keys(keys) => keys.contains(&key),
            Self::Everything => true,
        }
    }

    /// Adds other changes.
    pub fn merge(&mut self, others: Self) {
        match others {
            Self::Keys(keys) => keys.into_iter().for_each(|key| self.add(key)),
            Self::Everything => *self = Self::Everything,
        }
    }

    /// Adds a key.
    pub fn add(&mut self, key: AssignmentKey) {
        if let Self::Keys(keys) = self {
            keys.insert(key);
            if keys.len() > CHANGES_MAX {
                *self = Self::Everything;
            }
        }
    }
}

/// Follows consensus: keeps the newest state, and wakes whom a change concerns. Nothing is queued: what changed is a
/// set of keys for the leader loop, a bounded one for each session of an agent, and a flag for everybody else, so that a
/// slow reader costs nothing.
#[derive(Debug, Default)]
pub struct Feed {
    state: ArcSwap<State>,
    dirty: Mutex<Dirty>,
    dirtied: Notify,
    watchers: Mutex<Watchers>,
    /// The revision of the endpoint table.
    table: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Watchers {
    next: u64,
    endpoints: Endpoints,
    networks: Networks,
    wakers: BTreeMap<(Topic, u64), Arc<Notify>>,
    sessions: BTreeMap<(NodeId, u64), Gathered>,
}

/// What waits for a session.
#[derive(Debug, Default)]
struct Gathered {
    changes: Changes,
    waker: Arc<Notify>,
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

    /// Watches the revision of the endpoint table.
    pub fn watch_endpoints(&self) -> watch::Receiver<u64> {
        self.table.subscribe()
    }

    /// Looks at the endpoint table of the newest state. No entry is applied meanwhile.
    pub fn endpoints<T>(&self, look: impl FnOnce(&Endpoints) -> T) -> T {
        look(&lock(&self.watchers).endpoints)
    }

    /// Looks at the records of networks in the newest state. No entry is applied meanwhile.
    pub fn networks<T>(&self, look: impl FnOnce(&Networks) -> T) -> T {
        look(&lock(&self.watchers).networks)
    }

    /// Gathers what changes of what a node is assigned, until it is dropped.
    pub fn assignments(self: &Arc<Self>, node: NodeId) -> AssignmentWatch {
        let mut watchers = lock(&self.watchers);
        watchers.next += 1;
        let key = (node, watchers.next);
        let gathered = Gathered::default();
        let waker = gathered.waker.clone();
        watchers.sessions.insert(key, gathered);
        AssignmentWatch { feed: self.clone(), key, waker }
    }
}

impl Watchers {
    /// Gathers a change for the sessions of its node.
    fn gather(&mut self, (node, key): (NodeId, AssignmentKey)) {
        for (_, session) in self.sessions.range_mut((node, 0)..=(node, u64::MAX)) {
            session.changes.add(key);
            session.waker.notify_one();
        }
    }

    /// Gathers a change of a network's records for the sessions of the nodes with tasks there.
    fn gather_network(&mut self, network: ObjectId) {
        let nodes: Vec<NodeId> = self.networks.nodes(network).collect();
        nodes.into_iter().for_each(|node| self.gather((node, AssignmentKey::Network(network))));
    }

    fn wake(&self, topic: Topic) {
        self.wakers.range((topic, 0)..=(topic, u64::MAX)).for_each(|(_, waker)| waker.notify_one());
    }

    fn wake_all(&self) {
        self.wakers.values().for_each(|waker| waker.notify_one());
    }

    /// Another state took the place of the one before.
    fn start_anew(&mut self) {
        self.wake_all();
        for session in self.sessions.values_mut() {
            session.changes = Changes::Everything;
            session.waker.notify_one();
        }
    }
}

impl Observer for Feed {
    fn applied(&self, state: &Arc<State>, events: &[Event]) {
        let mut watchers = lock(&self.watchers);
        // Published first: who is woken must find the change.
        self.state.store(Arc::clone(state));
        {
            let mut dirty = lock(&self.dirty);
            events.iter().for_each(|event| dirty.mark(event));
        }
        watchers.endpoints.follow(state, events);
        for network in watchers.networks.follow(state, events) {
            watchers.gather_network(network);
        }
        self.tell_of_table(&watchers);
        // Also when nothing changed: the leader waits for the state to reach the end of its plan.
        self.dirtied.notify_one();
        for event in events {
            AssignmentKey::of(event, state).into_iter().for_each(|change| watchers.gather(change));
            match *event {
                Event::Cluster => watchers.wake_all(),
                Event::Node(node) => {
                    watchers.wake(Topic::Node(node));
                    watchers.wake(Topic::Nodes);
                }
                Event::Service(service) => watchers.wake(Topic::Service(service)),
                Event::Task { service, .. } => watchers.wake(Topic::Service(service)),
                Event::Room(_) | Event::Object(_) | Event::Attachment { .. } => {}
            }
        }
    }

    fn restored(&self, state: &Arc<State>) {
        let mut watchers = lock(&self.watchers);
        self.state.store(Arc::clone(state));
        *lock(&self.dirty) = Dirty::everything();
        self.dirtied.notify_one();
        watchers.endpoints = Endpoints::of(state);
        watchers.networks = Networks::of(state);
        self.tell_of_table(&watchers);
        watchers.start_anew();
    }
}

impl Feed {
    fn tell_of_table(&self, watchers: &Watchers) {
        let revision = watchers.endpoints.version().revision;
        self.table.send_if_modified(|known| std::mem::replace(known, revision) != revision);
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

/// What changes of what a node is assigned, gathered for one session.
#[derive(Debug)]
pub struct AssignmentWatch {
    feed: Arc<Feed>,
    key: (NodeId, u64),
    waker: Arc<Notify>,
}

impl AssignmentWatch {
    /// Waits until there is something to take. Cancel-safe.
    pub async fn changed(&self) {
        self.waker.notified().await;
    }

    /// Takes what changed since the last call, or since the watch began, and the state that has exactly these changes.
    pub fn take(&self) -> (Arc<State>, Changes) {
        // No change comes between the two: `applied` holds the same lock.
        let mut watchers = lock(&self.feed.watchers);
        let changes = watchers.sessions.get_mut(&self.key).map(|session| std::mem::take(&mut session.changes));
        (self.feed.state(), changes.unwrap_or_default())
    }
}

impl Drop for AssignmentWatch {
    fn drop(&mut self) {
        lock(&self.feed.watchers).sessions.remove(&self.key);
    }
}

/// Locks what stays consistent at every step, so that a panic elsewhere does not spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use swarm_core::Op;
    use swarm_model::{DesiredState, TaskState, TaskStatus, Timestamp};

    use super::*;
    use crate::testing::{FakeRaft, World, task_id};

    const N1: NodeId = NodeId(1);
    const N2: NodeId = NodeId(2);

    #[test]
    fn a_session_is_woken_for_what_its_node_is_assigned_and_for_no_report() {
        let mut world = World::new(2);
        let service = world.service("web");
        let (one, other) = (world.task(service, 1, N1), world.task(service, 2, N2));
        let feed = Feed::new();
        let raft = FakeRaft::new(world.state, feed.clone());
        let (node, assignments) = (feed.watch(Topic::Node(N1)), feed.assignments(N1));
        let woken = || (node.changed().now_or_never().is_some(), assignments.changed().now_or_never().is_some());
        let desire = |task| raft.commit(Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![task] });

        let status = TaskStatus::new(TaskState::Running, Timestamp(5));
        raft.commit(Op::ReportTasks { node: N1, reports: vec![(one, status)] });
        desire(other);
        assert_eq!(woken(), (false, false));
        assert_eq!(assignments.take().1, Changes::default());

        desire(one);
        assert_eq!(woken(), (false, true));
        let (state, changes) = assignments.take();
        assert_eq!(changes, Changes::Keys([AssignmentKey::Task(one)].into()));
        assert_eq!(state.revision(), raft.state().revision());
        assert_eq!(assignments.take().1, Changes::default(), "what was taken is gone");

        raft.commit(crate::testing::ready(N1));
        assert_eq!(woken(), (true, false));
    }

    #[test]
    fn what_waits_for_a_session_has_a_limit_and_ends_with_it() {
        let feed = Feed::new();
        let assignments = feed.assignments(N1);
        let changed = |n| {
            let event =
                Event::Task { task: task_id(n), service: ServiceId(1), slot: 1, node: Some(N1), reported: None };
            feed.applied(&feed.state(), &[event]);
        };
        (0..CHANGES_MAX as u32).for_each(changed);
        assert!(matches!(assignments.take().1, Changes::Keys(keys) if keys.len() == CHANGES_MAX));
        (0..=CHANGES_MAX as u32).for_each(changed);
        assert_eq!(assignments.take().1, Changes::Everything);
        feed.restored(&feed.state());
        assert_eq!(assignments.take().1, Changes::Everything);
        drop(assignments);
        assert!(lock(&feed.watchers).sessions.is_empty());
    }
}
