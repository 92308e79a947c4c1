//! A connection to another manager that opens itself when something is to be said, carries many requests at once and
//! opens itself again after it broke.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use swarm_wire::{BoxedStream, channel};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, interval, timeout},
};

use crate::{
    message::{Answer, Request},
    rt,
    twin::Own,
};

/// Longest wait for a connection. Managers are near each other, or no election would ever end; an attempt that takes
/// longer met a machine that is gone, and the next one shall not wait for it.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests that wait to be sent on one line; more mean that it stands still, and are refused at once.
const QUEUE_MAX: usize = 1024;
/// How often answers that are overdue are looked for.
const OVERDUE_CHECK: Duration = Duration::from_millis(200);

/// Opens authenticated streams to other managers, protocol `swarm-raft/1`.
pub trait Dialer: fmt::Debug + Send + Sync + 'static {
    /// A stream to the manager at `host:port`.
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>>;

    /// Changes when streams dialled from now on show another certificate: those from before are then given up as soon as
    /// nobody waits for an answer on them, before the others close them as no longer valid.
    fn identity_version(&self) -> u64 {
        0
    }
}

/// Reaches nobody: for a manager that stays alone.
#[derive(Clone, Copy, Debug)]
pub struct Unconnected;

impl Dialer for Unconnected {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move { Err(io::Error::other(format!("this manager stays alone and does not talk to {addr}"))) })
    }
}

/// What a line carries. Each kind has a connection of its own, so that none waits behind a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Heartbeats and votes.
    Control,
    /// Entries.
    Log,
    /// Writes and reads that a follower forwards.
    Ask,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LineError {
    /// The request was never sent.
    Unsent(String),
    /// The connection broke, or nobody answered: the request may have arrived.
    Lost(String),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent(reason) | Self::Lost(reason) => f.write_str(reason),
        }
    }
}

type Reply = oneshot::Sender<Result<Answer, LineError>>;

struct Outgoing {
    request: Request,
    /// How long an answer may take before the connection counts as broken.
    limit: Duration,
    reply: Reply,
}

/// A line to one manager. Its connection closes when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Line {
    queue: mpsc::Sender<Outgoing>,
}

impl Line {
    /// A line that is not connected yet.
    pub(crate) fn new(dialer: Arc<dyn Dialer>, own: Arc<Own>, kind: Kind, to: u64, addr: String) -> Self {
        let (queue, outgoing) = mpsc::channel(QUEUE_MAX);
        rt::spawn(run(dialer, own, kind, to, addr, outgoing));
        Self { queue }
    }

    /// Puts a request into the line at once, so that requests are sent in the order of these calls; the answer is
    /// awaited by whoever wants it.
    pub(crate) fn send(
        &self,
        request: Request,
        limit: Duration,
    ) -> impl Future<Output = Result<Answer, LineError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let sent = self.queue.try_send(Outgoing { request, limit, reply });
        async move {
            if sent.is_err() {
                return Err(LineError::Unsent("the connection does not keep up".into()));
            }
            answer.await.unwrap_or_else(|_| Err(LineError::Lost("the connection was given up".into())))
        }
    }
}

async fn run(
    dialer: Arc<dyn Dialer>,
    own: Arc<Own>,
    kind: Kind,
    to: u64,
    addr: String,
    mut queue: mpsc::Receiver<Outgoing>,
) {
    let mut away = false;
    let mut held_back = None;
    while let Some(first) = next(&mut held_back, &mut queue).await {
        if first.reply.is_closed() {
            continue;
        }
        let identity_version = dialer.identity_version();
        let problem = match timeout(DIAL_TIMEOUT, dialer.dial(&addr)).await {
            Ok(Ok(stream)) => {
                if std::mem::take(&mut away) {
                    tracing::info!(addr, "the manager can be reached again");
                }
                let is_outdated = || dialer.identity_version() != identity_version;
                let end;
                (end, held_back) = converse(stream, &own, to, first, &mut queue, is_outdated).await;
                tracing::debug!(addr, reason = %end, "a connection to a manager ended");
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the manager at {addr} does not answer"),
        };
        // Once, and by one of the lines to it.
        if kind == Kind::Control && !std::mem::replace(&mut away, true) {
            tracing::warn!(addr, problem, "a manager cannot be reached");
        }
        let _ = first.reply.send(Err(LineError::Unsent(problem.clone())));
        // What came meanwhile was meant for this attempt.
        while let Ok(next) = queue.try_recv() {
            let _ = next.reply.send(Err(LineError::Unsent(problem.clone())));
        }
    }
}

async fn next(held_back: &mut Option<Outgoing>, queue: &mut mpsc::Receiver<Outgoing>) -> Option<Outgoing> {
    match held_back.take() {
        Some(request) => Some(request),
        None => queue.recv().await,
    }
}

#[derive(Default)]
struct Pending {
    last: u32,
    replies: BTreeMap<u32, (Instant, Reply)>,
}

/// Sends requests and hands out answers until the stream ends or is outdated. Returns why it did, and the request that
/// is left for the next stream.
async fn converse(
    stream: BoxedStream,
    own: &Own,
    to: u64,
    first: Outgoing,
    queue: &mut mpsc::Receiver<Outgoing>,
    is_outdated: impl Fn() -> bool,
) -> (String, Option<Outgoing>) {
    let (mut sender, mut receiver) = channel::<_, Request, Answer>(stream);
    let pending = Mutex::new(Pending::default());
    let lock = || pending.lock().unwrap_or_else(PoisonError::into_inner);
    let answered = Notify::new();
    let mut held_back = None;
    let write = async {
        sender.send(&own.hello(to)).await?;
        let mut next = Some(first);
        while let Some(Outgoing { request, limit, reply }) = next {
            if is_outdated() {
                held_back = Some(Outgoing { request, limit, reply });
                while !lock().replies.is_empty() {
                    answered.notified().await;
                }
                break;
            }
            let correlation = {
                let mut pending = lock();
                pending.last = pending.last.wrapping_add(1).max(1);
                let correlation = pending.last;
                pending.replies.insert(correlation, (Instant::now() + limit, reply));
                correlation
            };
            sender.send_to(correlation, &request).await?;
            next = queue.recv().await;
        }
        sender.close().await
    };
    let read = async {
        while let Some((correlation, answer)) = receiver.recv_from().await? {
            match answer {
                Answer::Refused(reason) if correlation == 0 => return Err(io::Error::other(reason)),
                Answer::Twin { addr } => {
                    own.is_twin(addr.clone());
                    return Err(io::Error::other(format!("another run of this manager takes part, at {addr}")));
                }
                _ => {}
            }
            if let Some((_, reply)) = lock().replies.remove(&correlation) {
                let _ = reply.send(Ok(answer));
                answered.notify_one();
            }
        }
        Err(io::Error::other("the manager closed the connection"))
    };
    let overdue = async {
        let mut ticks = interval(OVERDUE_CHECK);
        loop {
            ticks.tick().await;
            let pending = lock();
            if pending.replies.values().any(|(until, _)| *until < Instant::now()) {
                return "the manager does not answer";
            }
            if pending.replies.is_empty() && is_outdated() {
                return "this manager has another certificate";
            }
        }
    };
    let end = tokio::select! {
        biased;
        result = write => result.map_or_else(|error| error.to_string(), |()| "it is of no more use".into()),
        result = read => result.map_or_else(|error: io::Error| error.to_string(), |(): ()| String::new()),
        reason = overdue => reason.to_owned(),
    };
    for (_, (_, reply)) in std::mem::take(&mut lock().replies) {
        let _ = reply.send(Err(LineError::Lost(end.clone())));
    }
    (end, held_back)
}
