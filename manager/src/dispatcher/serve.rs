//! One stream of an agent, from its first message to its end.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use swarm_consensus::Role;
use swarm_core::{NODE_LEFT, State};
use swarm_wire::{
    PeerIdentity, Receiver, Sender,
    agent::{
        AGENT_PROTOCOL, ATTACHMENTS_MAX, AttachmentAnswers, Authority, HeldTable, Hello, NodeReport, Resume,
        STATUS_BATCH_MAX, TaskReport, ToAgent, ToManager, WantedAttachments, Welcome,
    },
    channel,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Dispatcher, Machine, Registered, Table, Term, Verdict, heartbeat_period,
    presence::Presence,
    reports::{Waiter, encoded_bytes, trimmed},
};
use crate::{
    feed::{AssignmentWatch, Topic, Watch, lock},
    raft::leader_addr,
};

/// Time from the opening of a stream to its first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an agent is kept waiting while nobody leads: an election takes up to a second (design §5).
const LEADER_WAIT: Duration = Duration::from_secs(2);

/// A leader that was not heard for so long, several heartbeats, may be lost: agents that come now left it. They wait for
/// the next one here, on a connection that stands, rather than ask around.
const LEADER_HEARD: Duration = Duration::from_millis(200);

/// Pause before it is looked anew whether the leader was only slow.
const LEADER_LOOK: Duration = Duration::from_millis(200);

/// Time that a last word may take to be sent: the peer may not be reading.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages of one agent that wait for their answers; then its stream is not read any further, so that a flood fills
/// its own buffers and nobody else's.
const UNANSWERED_MAX: usize = 8;

/// Requests for logs, and questions, that wait to be sent to one agent.
const ORDERS_MAX: usize = 64;

/// Largest description of a node: labels and drivers of an engine take a few KiB. It is kept for each node.
const DESCRIPTION_BYTES_MAX: usize = 256 << 10;

/// Pause before a node report that was not committed is tried again.
pub(super) const REPORT_RETRY: Duration = Duration::from_millis(500);

/// How long a machine that comes with the id of another one is kept waiting, before it is told why and comes again: less
/// than an agent waits for an answer.
const TWIN_WAIT: Duration = Duration::from_secs(10);

/// Why a stream ends. Shown in the log; the agent only sees the stream close, or a refusal.
#[derive(Debug, Error)]
pub(super) enum End {
    #[error(transparent)]
    Stream(#[from] io::Error),
    #[error("the agent sent no first message within {} s", HELLO_TIMEOUT.as_secs())]
    Silent,
    #[error("the agent broke the protocol: {0}")]
    Protocol(String),
    #[error("the agent closed the stream")]
    Closed,
    #[error("the node left")]
    Left,
    #[error("a newer session of the node took its place, the node is down, or this manager no longer leads")]
    Replaced,
    #[error("reports of the agent were not committed")]
    Uncommitted,
    #[error("refused: {}", .0.reason)]
    Refused(Refusal),
}

/// A session that cannot be.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    reason: String,
    leader: Option<String>,
    removed: bool,
    /// It will come again soon, and is not worth a line of the log each time.
    again: bool,
}

fn refused(reason: impl Into<String>) -> End {
    End::Refused(Refusal { reason: reason.into(), ..Refusal::default() })
}

/// An answer that waits to be sent, with its place among those that may wait.
pub(super) enum Answer {
    Heartbeat(OwnedSemaphorePermit),
    Status(u64, OwnedSemaphorePermit),
    /// The whole endpoint table.
    Table(OwnedSemaphorePermit),
}

/// What a session waits for to tell its agent of.
pub(super) struct News {
    /// The node and the cluster.
    pub(super) watch: Watch,
    pub(super) assignments: AssignmentWatch,
    pub(super) ordered: mpsc::Receiver<ToAgent>,
    /// The newest answer about attachments.
    pub(super) attached: watch::Receiver<AttachmentAnswers>,
}

/// The hello of an agent: the items that it has, and the form of messages that it takes.
#[derive(Clone, Copy)]
pub(super) struct Had {
    pub(super) resume: Option<Resume>,
    pub(super) takes_changes: bool,
    /// None of an agent without a data plane.
    pub(super) table: Option<HeldTable>,
    pub(super) takes_networks: bool,
}

/// A session that wants to begin.
#[derive(Clone)]
struct Place {
    machine: Machine,
    presence: Arc<Presence>,
    stop: CancellationToken,
    orders: mpsc::Sender<ToAgent>,
    takes_questions: bool,
}

/// Another machine with the node's id has its session.
struct Twin {
    word: String,
    /// The presence of that session, which does not say so yet.
    news: Option<Arc<Presence>>,
}

/// What reading and writing half of a session share.
pub(super) struct Ctx<'a> {
    pub(super) dispatcher: &'a Dispatcher,
    pub(super) term: Arc<Term>,
    pub(super) peer: &'a PeerIdentity,
    number: u64,
    stop: CancellationToken,
    pub(super) presence: Arc<Presence>,
    /// Batches that are not committed yet.
    uncommitted: Arc<AtomicUsize>,
}

impl Dispatcher {
    /// Serves one stream of an authenticated peer until it ends.
    pub async fn serve<S>(&self, peer: PeerIdentity, addr: SocketAddr, mut stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let first = {
            let (_, mut receiver) = channel::<_, ToAgent, ToManager>(&mut stream);
            timeout(HELLO_TIMEOUT, receiver.recv()).await
        };
        let end = match first {
            Ok(Ok(Some(ToManager::Logs { subscription }))) => {
                return self.logs.accept(peer.node, subscription, Box::new(stream));
            }
            Ok(Ok(Some(ToManager::Hello(hello)))) => {
                let (mut sender, receiver) = channel(stream);
                let end = self.session(&peer, addr, *hello, &mut sender, receiver).await;
                if let Err(End::Refused(Refusal { reason, leader, removed, .. })) = &end {
                    let word = ToAgent::Refused { reason: reason.clone(), leader: leader.clone(), removed: *removed };
                    // Whether it arrives does not matter: the stream closes either way.
                    let _ = timeout(FAREWELL_TIMEOUT, sender.send(&word)).await;
                }
                let _ = timeout(FAREWELL_TIMEOUT, sender.close()).await;
                end
            }
            Ok(Ok(Some(_))) => Err(End::Protocol("its first message is neither a hello nor logs".into())),
            Ok(Ok(None)) => Err(End::Closed),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(End::Silent),
        };
        match end {
            Ok(()) => {}
            // Agents that look for a leader ask every manager, again and again.
            Err(end @ End::Refused(Refusal { again: true, .. })) => {
                tracing::debug!(node = %peer.node, %addr, reason = %end, "an agent is told to come again");
            }
            Err(end) => tracing::info!(node = %peer.node, %addr, reason = %end, "an agent's stream ended"),
        }
    }

    async fn session<S>(
        &self,
        peer: &PeerIdentity,
        addr: SocketAddr,
        hello: Hello,
        sender: &mut Sender<WriteHalf<S>, ToAgent>,
        receiver: Receiver<ReadHalf<S>, ToManager>,
    ) -> Result<(), End>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let term = self.ready().await?;
        if hello.protocol != AGENT_PROTOCOL {
            return Err(refused(format!(
                "this manager speaks version {AGENT_PROTOCOL} of the agents' protocol, swarmd {} on the node speaks {}",
                hello.program, hello.protocol
            )));
        }
        self.check_member(peer, &self.feed.state())?;
        let had = Had {
            takes_changes: hello.takes_changes(),
            resume: hello.resume,
            table: hello.table,
            takes_networks: hello.takes_networks,
        };
        let NodeReport { description, engine_reachable } = checked(hello.node)?;
        let (watch, assignments) = (self.feed.watch(Topic::Node(peer.node)), self.feed.assignments(peer.node));
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let stop = term.stop.child_token();
        let ip = addr.ip().to_canonical();
        let machine = Machine { ip, hostname: description.hostname.clone(), run: hello.run };
        let presence = Arc::new(Presence::new(peer.node, ip.to_string(), engine_reachable, description));
        let takes_questions = hello.takes_questions;
        let place = Place { machine, presence: presence.clone(), stop: stop.clone(), orders, takes_questions };
        let waits_for_others = !term.has_heard_all();
        let number = self.enter(&term, peer, &place).await?;
        // From its first sign of life on: stops wait for its table, too, while its description is committed.
        if had.table.is_some() {
            term.acknowledge(peer.node, 0);
        } else {
            term.forget_table(peer.node);
        }
        if waits_for_others && term.has_heard_all() {
            // The leader loop may wait for that.
            self.feed.nudge();
        }
        let ctx =
            Ctx { dispatcher: self, number, term, peer, presence, stop: stop.clone(), uncommitted: Arc::default() };
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => Err(End::Replaced),
            end = ctx.run(had, sender, receiver, (watch, assignments, ordered)) => end,
        };
        ctx.term.unregister(peer, ctx.number);
        end
    }

    /// Makes a session the newest of its node; the one before it ends. Where machines with one id take each other's place,
    /// the session that stands stays, and this one waits for its end.
    async fn enter(&self, term: &Term, peer: &PeerIdentity, place: &Place) -> Result<u64, End> {
        let deadline = Instant::now() + TWIN_WAIT;
        loop {
            let ended = term.ended.notified();
            let Twin { word, news } = match term.register(peer, place) {
                Ok(number) => return Ok(number),
                Err(twin) => twin,
            };
            if let Some(presence) = news {
                tracing::warn!(node = %peer.node, "{word}");
                presence.note(word.clone());
                presence.sync(&self.feed.state(), term);
            }
            tokio::select! {
                waited = timeout_at(deadline, ended) => if waited.is_err() {
                    return Err(End::Refused(Refusal { reason: word, again: true, ..Refusal::default() }));
                },
                () = place.stop.cancelled() => return Err(End::Replaced),
            }
        }
    }

    /// The leadership to serve the agent in. Right after a start, or when the leader was lost, it may be a moment away,
    /// here or at another manager.
    async fn ready(&self) -> Result<Arc<Term>, End> {
        let (mut term, mut role, lost) = (self.term.subscribe(), self.raft.role(), self.leader());
        let somebody_leads = async {
            loop {
                if term.borrow_and_update().is_some() {
                    return;
                }
                let leader = leader_addr(&role.borrow_and_update());
                let heard = self.raft.leader_contact().is_some_and(|contact| contact < LEADER_HEARD);
                if leader.is_some() && (heard || leader != lost) {
                    return;
                }
                tokio::select! {
                    _ = term.changed() => {}
                    changed = role.changed() => if changed.is_err() { return },
                    () = sleep(LEADER_LOOK) => {}
                }
            }
        };
        // Whether it came in time is looked at below.
        let _ = timeout(LEADER_WAIT, somebody_leads).await;
        self.current().ok_or_else(|| self.not_leading())
    }

    fn not_leading(&self) -> End {
        let reason = match self.role() {
            Role::Stopped { reason } => format!("this manager stopped: {reason}"),
            Role::Leader { .. } => "this manager leads only since a moment and is not ready yet".into(),
            Role::Follower { .. } => "this manager does not lead the swarm".into(),
        };
        End::Refused(Refusal { reason, leader: self.leader(), removed: false, again: true })
    }

    /// Whether the peer is a node of this cluster, now.
    pub(super) fn check_member(&self, peer: &PeerIdentity, state: &State) -> Result<(), End> {
        if peer.cluster != self.cluster {
            return Err(refused(format!("the node is of swarm {}, this is swarm {}", peer.cluster, self.cluster)));
        }
        if state.cluster().is_some_and(|cluster| !cluster.trusts(&peer.issuer)) {
            return Err(refused("the node's certificate comes from a root CA that was replaced"));
        }
        if state.cluster().is_some_and(|cluster| cluster.removed_nodes.contains_key(&peer.node)) {
            let reason = format!("node {} was removed from the swarm", peer.node);
            return Err(End::Refused(Refusal { reason, removed: true, ..Refusal::default() }));
        }
        // One that leads no more, and does not know yet, may have missed that the node came: that is no last word.
        if state.node(peer.node).is_none() {
            let reason = format!(
                "node {} is not in the swarm as this manager knows it; if that stays so, as after a backup older than the \
                 node was restored, use \"swarm leave --force\" there, and \"swarm join\"",
                peer.node
            );
            return Err(refused(reason));
        }
        Ok(())
    }
}

impl Term {
    fn register(&self, peer: &PeerIdentity, place: &Place) -> Result<u64, Twin> {
        let (mut table, now) = (lock(&self.table), self.now());
        let Table { sessions, twins, .. } = &mut *table;
        let holder = sessions.get(&peer.node);
        let verdict = twins.come(peer.node, &place.machine, holder.map(|holder| &holder.machine), now);
        let word = twins.word(peer.node).unwrap_or_default();
        if let Verdict::Wait { is_news } = verdict {
            let news = holder.filter(|_| is_news).map(|holder| holder.presence.clone());
            return Err(Twin { word, news });
        }
        place.presence.note(word);
        table.registrations += 1;
        let number = table.registrations;
        let Place { machine, presence, stop, orders, takes_questions } = place.clone();
        let session = Registered { number, stop, orders, takes_questions, machine, presence };
        if let Some(old) = table.sessions.insert(peer.node, session) {
            old.stop.cancel();
        }
        table.liveness.beat(peer.node, now);
        Ok(number)
    }

    /// Whether another machine with the node's id waits for the end of its session.
    fn has_twin(&self, peer: &PeerIdentity) -> bool {
        lock(&self.table).twins.word(peer.node).is_some()
    }

    /// Whether each node that is not down gave a sign of life in this term.
    fn has_heard_all(&self) -> bool {
        lock(&self.table).liveness.unheard().0.is_empty()
    }

    /// A session ended. Its node is not down for that: it may come back before its deadline.
    fn unregister(&self, peer: &PeerIdentity, number: u64) {
        let mut table = lock(&self.table);
        if table.sessions.get(&peer.node).is_some_and(|session| session.number == number) {
            table.sessions.remove(&peer.node);
            table.liveness.disconnect(peer.node);
            drop(table);
            lock(&self.questions).forget(peer.node);
            self.forget_table(peer.node);
            self.ended.notify_waiters();
        }
    }
}

impl Ctx<'_> {
    async fn run<S>(
        &self,
        had: Had,
        sender: &mut Sender<WriteHalf<S>, ToAgent>,
        receiver: Receiver<ReadHalf<S>, ToManager>,
        (watch, assignments, ordered): (Watch, AssignmentWatch, mpsc::Receiver<ToAgent>),
    ) -> Result<(), End>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.committed(&watch).await?;
        let welcome = self.welcome(&self.state());
        sender.send(&ToAgent::Welcome(welcome.clone())).await?;
        // Unbounded, but every answer holds one of the permits that a message needs to be read.
        let (answers, answered) = mpsc::unbounded_channel();
        // Of both only the newest counts, so that a node which asks for ever keeps no more than that.
        let (wanted, asked) = watch::channel(WantedAttachments::default());
        let (answered_attachments, attached) = watch::channel(AttachmentAnswers::default());
        let news = News { watch, assignments, ordered, attached };
        tokio::select! {
            end = self.read(receiver, answers, &wanted) => end,
            end = self.write(had, welcome, sender, answered, news) => end,
            never = self.attach(asked, &answered_attachments) => match never {},
        }
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.dispatcher.feed.state()
    }

    /// What the agent has to know beside its tasks.
    fn welcome(&self, state: &State) -> Welcome {
        Welcome {
            heartbeat_period_ms: u64::try_from(heartbeat_period(state).as_millis()).unwrap_or(u64::MAX),
            managers: self.term.managers.borrow().clone(),
            role: state.node(self.peer.node).map(|node| node.next_role(self.peer.role)),
            authority: state.cluster().map(|cluster| Authority {
                issuer: cluster.issuing_root().key_id.clone(),
                trusted: cluster.trusted_pem(),
            }),
            takes_attachments: true,
        }
    }

    /// Tells the agent what is new of that.
    pub(super) async fn greet_again<W: AsyncWrite + Unpin>(
        &self,
        told: &mut Welcome,
        state: &State,
        sender: &mut Sender<W, ToAgent>,
    ) -> Result<(), End> {
        let now = self.welcome(state);
        if now != *told {
            told.clone_from(&now);
            sender.send(&ToAgent::Welcome(now)).await?;
        }
        Ok(())
    }

    /// Waits until the state says of the node what this session says.
    async fn committed(&self, watch: &Watch) -> Result<(), End> {
        loop {
            let state = self.state();
            self.dispatcher.check_member(self.peer, &state)?;
            if self.presence.sync(&state, &self.term) {
                return Ok(());
            }
            tokio::select! {
                () = watch.changed() => {}
                stood = self.presence.landed() => if !stood { sleep(REPORT_RETRY).await },
            }
        }
    }

    /// Takes what the agent says.
    async fn read<R>(
        &self,
        mut receiver: Receiver<R, ToManager>,
        answers: mpsc::UnboundedSender<Answer>,
        attachments: &watch::Sender<WantedAttachments>,
    ) -> Result<(), End>
    where
        R: AsyncRead + Unpin,
    {
        let places = Arc::new(Semaphore::new(UNANSWERED_MAX));
        loop {
            let message = receiver.recv().await?.ok_or(End::Closed)?;
            self.term.beat(self.peer.node, self.number);
            match message {
                ToManager::Heartbeat => {
                    let place = self.place(&places).await;
                    // When nobody takes answers any more the session ends.
                    let _ = answers.send(Answer::Heartbeat(place));
                }
                ToManager::Status { batch, reports } => {
                    if reports.len() > STATUS_BATCH_MAX {
                        let reason = format!("{} reports in a batch, {STATUS_BATCH_MAX} are possible", reports.len());
                        return Err(End::Protocol(reason));
                    }
                    let reports =
                        trimmed(reports).map_err(|bytes| End::Protocol(format!("a batch of {bytes} bytes")))?;
                    let waiter = self.batch(batch, self.place(&places).await, answers.clone());
                    let state = self.state();
                    self.check_own(&state, &reports)?;
                    self.term.report(|all| all.tasks(&state, self.peer.node, reports, waiter));
                }
                ToManager::Describe(report) => {
                    let NodeReport { description, engine_reachable } = checked(*report)?;
                    self.presence.describe(engine_reachable, description);
                    self.presence.sync(&self.state(), &self.term);
                }
                // The other machine is the node from now on.
                ToManager::Leaving if self.term.has_twin(self.peer) => return Err(End::Left),
                ToManager::Leaving => {
                    // The node's containers are in no network any more. An attachment whose end is not committed now goes with
                    // the removal of the node.
                    let _ = self.settle_attachments(&[]).await;
                    self.presence.leave(NODE_LEFT);
                    let watch = self.dispatcher.feed.watch(Topic::Node(self.peer.node));
                    self.committed(&watch).await?;
                    lock(&self.term.table).liveness.forget(self.peer.node);
                    return Err(End::Left);
                }
                ToManager::Table(held) => {
                    let place = self.place(&places).await;
                    match held {
                        Some(version) => self.term.acknowledge(self.peer.node, version.revision),
                        None => drop(answers.send(Answer::Table(place))),
                    }
                }
                ToManager::Answer { number, answer } => self.term.answered(self.peer.node, number, answer),
                ToManager::Attachments(wanted) => {
                    let count = wanted.wanted.len();
                    if count > ATTACHMENTS_MAX {
                        let reason = format!("{count} attached containers, {ATTACHMENTS_MAX} are possible");
                        return Err(End::Protocol(reason));
                    }
                    attachments.send_replace(wanted);
                }
                ToManager::Hello(_) | ToManager::Logs { .. } => {
                    return Err(End::Protocol("a first message comes once".into()));
                }
            }
        }
    }

    /// A node speaks of its own tasks only. A task never changes its node.
    fn check_own(&self, state: &State, reports: &[TaskReport]) -> Result<(), End> {
        let is_others = |id| state.task(id).is_some_and(|task| task.node.is_some_and(|node| node != self.peer.node));
        match reports.iter().find(|report| is_others(report.task)) {
            Some(report) => Err(End::Protocol(format!("it reports on task {}, which is not its own", report.task))),
            None => Ok(()),
        }
    }

    /// Waits for a place among the unanswered messages. While it is us who keep the agent waiting, because the log is
    /// slow, its silence is ours.
    async fn place(&self, places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        let acquire = places.clone().acquire_owned();
        tokio::pin!(acquire);
        loop {
            let half = heartbeat_period(&self.state()) / 2;
            tokio::select! {
                place = &mut acquire => return place.expect("the semaphore of a session is never closed"),
                () = sleep(half) => if self.uncommitted.load(Ordering::Acquire) > 0 {
                    self.term.beat(self.peer.node, self.number);
                },
            }
        }
    }

    /// What is to happen when a batch is committed, or is not.
    fn batch(&self, batch: u64, place: OwnedSemaphorePermit, answers: mpsc::UnboundedSender<Answer>) -> Waiter {
        self.uncommitted.fetch_add(1, Ordering::AcqRel);
        let (uncommitted, stop) = (self.uncommitted.clone(), self.stop.clone());
        Box::new(move |stood| {
            uncommitted.fetch_sub(1, Ordering::AcqRel);
            if stood {
                let _ = answers.send(Answer::Status(batch, place));
            } else {
                tracing::debug!(reason = %End::Uncommitted, "a session ends");
                // The agent comes back and reports again.
                stop.cancel();
            }
        })
    }
}

fn checked(report: NodeReport) -> Result<NodeReport, End> {
    let bytes = encoded_bytes(&report.description);
    if bytes > DESCRIPTION_BYTES_MAX {
        return Err(refused(format!(
            "the description of the node has {bytes} bytes, {DESCRIPTION_BYTES_MAX} are possible: it has too many labels"
        )));
    }
    Ok(report)
}
