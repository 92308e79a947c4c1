//! The log broker: asks the agents that have a task for its output, and merges what they send (swarm-behaviour §7.6).
//!
//! One request goes to each node involved; the node answers it with a stream of its own, so that logs never hold up a
//! session. Nothing is kept: a reader that is slow holds up the agents, and one that goes ends their streams.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use swarm_core::State;
use swarm_model::{NodeId, Task, TaskId, TaskState, Timestamp};
use swarm_wire::{
    BoxedStream,
    agent::{LogMessage, LogRequest},
    channel,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{LogSelector, LogTarget},
    feed::{Feed, Topic, lock},
};

/// Lines that wait for a reader; beyond that the agents wait.
const LINES_MAX: usize = 64;

/// Time for an agent to open the stream that it was asked for: it has to make a connection.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams that may be open or awaited at once, over all readers: each is a connection with its buffers.
const STREAMS_MAX: usize = 4096;

/// Sends a request to a node's session; false if there is none.
pub(crate) type Order = Arc<dyn Fn(NodeId, LogRequest) -> bool + Send + Sync>;

/// The broker. It lives as long as its manager; subscriptions live as long as their readers.
pub struct LogBroker {
    feed: Arc<Feed>,
    stop: CancellationToken,
    tasks: TaskTracker,
    awaited: Mutex<Awaited>,
}

/// Requests by number, with the node that may answer each.
#[derive(Default)]
struct Awaited {
    next: u64,
    streams: BTreeMap<u64, (NodeId, oneshot::Sender<BoxedStream>)>,
    open: usize,
}

impl LogBroker {
    /// A broker whose subscriptions end with `stop`; `tasks` keeps track of them.
    pub(crate) fn new(feed: Arc<Feed>, stop: CancellationToken, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { feed, stop, tasks, awaited: Mutex::default() })
    }

    /// Starts a subscription. It ends when all has been sent, with `follow` when its tasks are gone, and in any case
    /// when the receiver is dropped.
    pub(crate) fn subscribe(self: &Arc<Self>, selector: LogSelector, order: Order) -> mpsc::Receiver<LogMessage> {
        let (lines, receiver) = mpsc::channel(LINES_MAX);
        let (broker, reader) = (self.clone(), lines.clone());
        self.tasks.spawn(async move {
            let subscription = Subscription { broker: &broker, selector, order, lines };
            tokio::select! {
                () = broker.stop.cancelled() => {}
                () = reader.closed() => {}
                () = subscription.run() => {}
            }
        });
        receiver
    }

    /// Takes a stream that an agent opened for a request. One that nobody waits for, or from another node than the one
    /// asked, is closed.
    pub(crate) fn accept(&self, node: NodeId, subscription: u64, stream: BoxedStream) {
        let mut awaited = lock(&self.awaited);
        match awaited.streams.remove(&subscription) {
            Some((asked, hand)) if asked == node => {
                // When nobody waits any more the stream is closed by being dropped.
                let _ = hand.send(stream);
            }
            Some(other) => {
                tracing::warn!(%node, subscription, "a node opened a log stream that another one was asked for");
                awaited.streams.insert(subscription, other);
            }
            None => tracing::debug!(%node, subscription, "a log stream came too late"),
        }
    }
}

struct Subscription<'a> {
    broker: &'a Arc<LogBroker>,
    selector: LogSelector,
    order: Order,
    lines: mpsc::Sender<LogMessage>,
}

impl Subscription<'_> {
    async fn run(self) {
        let feed = &self.broker.feed;
        let service = match self.selector.target {
            LogTarget::Service(service) => Some(service),
            LogTarget::Task(task) => feed.state().task(task).map(|task| task.service),
        };
        let watch = service.map(|service| feed.watch(Topic::Service(service)));
        let mut attached = BTreeSet::new();
        let mut parts = JoinSet::new();
        let mut first = true;
        loop {
            let state = feed.state();
            for (node, tasks) in self.fresh(&state, &mut attached) {
                parts.spawn(self.part(node, tasks, first));
            }
            if first && !self.selector.follow {
                self.never_started(&state, &attached).await;
            }
            first = false;
            if parts.is_empty() && !(self.selector.follow && self.may_come(&state)) {
                return;
            }
            let changed = async {
                match watch.as_ref().filter(|_| self.selector.follow) {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                Some(_) = parts.join_next() => {}
            }
        }
    }

    /// Tasks with output that were not asked for yet, by node.
    fn fresh(&self, state: &State, attached: &mut BTreeSet<TaskId>) -> BTreeMap<NodeId, Vec<TaskId>> {
        let mut fresh: BTreeMap<NodeId, Vec<TaskId>> = BTreeMap::new();
        for task in self.targets(state).filter(|task| has_output(task)) {
            if let Some(node) = task.node
                && attached.insert(task.id)
            {
                fresh.entry(node).or_default().push(task.id);
            }
        }
        fresh
    }

    fn targets<'s>(&self, state: &'s State) -> Box<dyn Iterator<Item = &'s Arc<Task>> + Send + 's> {
        match self.selector.target {
            LogTarget::Service(service) => Box::new(state.tasks_of_service(service)),
            LogTarget::Task(task) => Box::new(state.task(task).into_iter()),
        }
    }

    /// Whether there may be more later.
    fn may_come(&self, state: &State) -> bool {
        match self.selector.target {
            LogTarget::Service(service) => state.service(service).is_some(),
            LogTarget::Task(task) => {
                state.task(task).is_some_and(|task| !has_output(task) && !task.status.state.is_terminal())
            }
        }
    }

    /// One task was asked for, and it has no output: say so rather than show nothing.
    async fn never_started(&self, state: &State, attached: &BTreeSet<TaskId>) {
        let LogTarget::Task(id) = self.selector.target else { return };
        if let Some(task) = state.task(id).filter(|_| !attached.contains(&id)) {
            let reason = format!("the task has not started, it is {}", task.status.state);
            // A reader that is gone ends the subscription elsewhere.
            let _ = self.lines.send(LogMessage::Incomplete { task: id, reason }).await;
        }
    }

    /// Asks one node for the output of its tasks, and passes it on until the node closes the stream.
    fn part(&self, node: NodeId, tasks: Vec<TaskId>, first: bool) -> impl Future<Output = ()> + Send + 'static {
        let (broker, order, lines) = (self.broker.clone(), self.order.clone(), self.lines.clone());
        let LogSelector { stdout, stderr, follow, since, tail, .. } = self.selector;
        // What starts while we follow is new from its first line on.
        let (since, tail) = if first { (since, tail) } else { (Timestamp::ZERO, None) };
        async move {
            let reason = match Place::take(&broker, node) {
                None => format!("{STREAMS_MAX} log streams are open already; try again later"),
                Some((place, stream)) => {
                    let request = LogRequest {
                        subscription: place.number,
                        tasks: tasks.clone(),
                        stdout,
                        stderr,
                        follow,
                        since,
                        tail,
                    };
                    if order(node, request) {
                        match timeout(STREAM_TIMEOUT, stream).await {
                            Ok(Ok(stream)) => match pump(stream, node, &tasks, &lines).await {
                                Ok(()) => return,
                                Err(reason) => reason,
                            },
                            Ok(Err(_)) | Err(_) => format!("node {node} did not answer"),
                        }
                    } else {
                        format!("node {node} is not available")
                    }
                }
            };
            for task in tasks {
                if lines.send(LogMessage::Incomplete { task, reason: reason.clone() }).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A place among the open streams, and the number under which one is awaited.
struct Place {
    broker: Arc<LogBroker>,
    number: u64,
}

impl Place {
    fn take(broker: &Arc<LogBroker>, node: NodeId) -> Option<(Self, oneshot::Receiver<BoxedStream>)> {
        let mut awaited = lock(&broker.awaited);
        if awaited.open >= STREAMS_MAX {
            return None;
        }
        awaited.open += 1;
        awaited.next += 1;
        let number = awaited.next;
        let (hand, stream) = oneshot::channel();
        awaited.streams.insert(number, (node, hand));
        Some((Self { broker: broker.clone(), number }, stream))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut awaited = lock(&self.broker.awaited);
        awaited.open -= 1;
        awaited.streams.remove(&self.number);
    }
}

/// Passes messages on, if they are of the node's own tasks. The error is for the reader of the logs.
async fn pump(
    stream: BoxedStream,
    node: NodeId,
    tasks: &[TaskId],
    lines: &mpsc::Sender<LogMessage>,
) -> Result<(), String> {
    let (_sender, mut receiver) = channel::<_, (), LogMessage>(stream);
    loop {
        let message = match receiver.recv().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error) => return Err(format!("the stream of node {node} broke: {error}")),
        };
        let own = match &message {
            LogMessage::Line { task, node: from, .. } => *from == node && tasks.contains(task),
            LogMessage::Incomplete { task, .. } => tasks.contains(task),
        };
        if !own {
            return Err(format!("node {node} sent logs that it was not asked for"));
        }
        if lines.send(message).await.is_err() {
            return Ok(());
        }
    }
}

/// Whether a task has, or had, a container that was started.
fn has_output(task: &Task) -> bool {
    task.status.state >= TaskState::Starting
        && (task.status.state < TaskState::Rejected || task.status.container.is_some())
}
