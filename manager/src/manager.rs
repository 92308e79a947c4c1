//! A manager: consensus, and what stands on it while this manager leads.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use swarm_consensus::{Consensus, Options, ProposeError, Role, SealKey, ServeError, Timers};
use swarm_core::{ENTRY_VERSION, Guard, Op, Refusal, State, Tx};
use swarm_docker_api::view::Time;
use swarm_model::{ClusterId, ClusterSpec, Node, NodeId, NodeRole, NodeSpec, Redacted, Timestamp};
use swarm_wire::{Alpn, BoxedStream, IdentityHolder, PeerIdentity, clock, join::CertificateResponse};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api,
    backup::Restore,
    clock::random,
    dispatcher::Dispatcher,
    feed::{Feed, Topic},
    init::Init,
    join::Authority,
    leader, level,
    logs::LogBroker,
    members::{self, TlsDialer},
    raft::Raft,
    rotation,
};

/// Folder of the log, in the state folder.
const RAFT_FOLDER: &str = "raft";

/// The key that seals the log, in the state folder.
pub const SEAL_KEY_FILE: &str = "raft.key";

/// How long a new cluster waits for its only manager to lead: that takes milliseconds on a healthy disk.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between two attempts of a new cluster's first change.
const INIT_RETRY: Duration = Duration::from_millis(20);

/// A majority answers within this, elections included.
const MAJORITY_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the streams of an agent whose node was removed stand: it is told why.
const GOODBYE: Duration = Duration::from_secs(1);

/// Pause before a changed address is offered again.
const ADDRESS_RETRY: Duration = Duration::from_secs(5);

/// A log further ahead of this machine's clock than this is worth a warning (design §4).
const CLOCK_SKEW_MAX_MS: i64 = 1_000;

/// What a manager needs to run.
#[derive(Debug)]
pub struct ManagerOptions {
    /// The daemon's state folder; the log is in `raft/`, its key in `raft.key`.
    pub state_dir: PathBuf,
    /// `host:port` under which nodes reach this manager.
    pub advertise_addr: String,
    /// Who this node is.
    pub identity: Arc<IdentityHolder>,
    /// Our end of connections to other managers, if the node has an address of its own.
    pub source: Option<IpAddr>,
    /// How it begins.
    pub start: Start,
    /// The key that seals the log, if autolock has wrapped its file; else it is read from there.
    pub seal_key: Option<SealKey>,
}

/// How a manager begins.
#[derive(Debug)]
pub enum Start {
    /// It makes a cluster.
    Create(Box<Init>),
    /// It takes part in its cluster for the first time, with an empty log; one that it has begun already is opened.
    Join {
        /// Its id in Raft, which came with its certificate.
        raft_id: u64,
    },
    /// It goes on as the only manager, with the state of a backup and no log.
    Restore(Box<Restore>),
    /// It goes on as the only manager, with the log that it has: the majority of the managers is lost for good. They
    /// are removed from the cluster.
    Recover {
        /// Its id in Raft; none for the node that founded the cluster.
        raft_id: Option<u64>,
    },
    /// It opens the log that it has.
    Open {
        /// Its id in Raft; none for the node that founded the cluster.
        raft_id: Option<u64>,
    },
}

/// Why a manager cannot run.
#[derive(Debug, Error)]
pub enum ManagerError {
    /// The log or its key.
    #[error(transparent)]
    Log(#[from] swarm_consensus::Error),
    /// The log does not open with the key that there is.
    #[error("{} is not the key of this manager's log: {log}", key_file.display())]
    WrongKey {
        /// The file with the key.
        key_file: PathBuf,
        /// The error of the log.
        log: swarm_consensus::Error,
    },
    /// There are no random numbers.
    #[error("{0}")]
    Random(String),
    /// The first change of a new cluster did not get into the log.
    #[error("the swarm could not be written to the log: {0}")]
    Init(ProposeError),
    /// The log holds a cluster already.
    #[error("the swarm was refused: {0}")]
    Refused(Refusal),
    /// `swarm init` was cut off before it was done.
    #[error(
        "the log in {} holds no swarm: an earlier `swarm init` did not get to its end; \
         `swarm leave --force`, then init again", .0.display()
    )]
    Unfinished(PathBuf),
    /// The log is not that of the certificate.
    #[error(
        "the log in {} is of swarm {of}, and this node's certificate of swarm {own}: the state folder was put together \
         from two. Nothing was changed; put back the folder as it was", folder.display()
    )]
    OtherCluster {
        /// Where the log is.
        folder: PathBuf,
        /// Its swarm.
        of: ClusterId,
        /// The certificate's.
        own: ClusterId,
    },
}

/// Why a manager stays one.
#[derive(Debug, Error)]
pub enum StepDownError {
    /// There is no other.
    #[error("this node is the last manager of the swarm")]
    Last,
    /// The others would be no majority; why.
    #[error("without this manager the swarm loses the majority of its managers, and with it every change: {0}")]
    Needed(String),
    /// The change of the node was refused.
    #[error("this node could not be made a worker: {0}")]
    Refused(Refusal),
    /// The managers did not take the change.
    #[error("this node could not be made a worker: {0}")]
    Propose(#[from] ProposeError),
}

/// A running manager. Clones are handles of the same one; [`Manager::shutdown`] ends it.
#[derive(Clone)]
pub struct Manager {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) consensus: Consensus,
    pub(crate) feed: Arc<Feed>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) logs: Arc<LogBroker>,
    authority: Arc<Authority>,
    pub(crate) node: NodeId,
    advertise_addr: String,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Manager {
    /// Starts a manager: opens its log, or makes a new cluster.
    ///
    /// # Errors
    /// [`ManagerError`]: a log that is missing, damaged, in use, or there already when a cluster is to be made.
    pub async fn start(options: ManagerOptions) -> Result<Self, ManagerError> {
        let ManagerOptions { state_dir, advertise_addr, identity, source, start, seal_key } = options;
        let (node, cluster) = (identity.identity().node(), identity.identity().cluster());
        let feed = Feed::new();
        let dir = state_dir.join(RAFT_FOLDER);
        let key_file = state_dir.join(SEAL_KEY_FILE);
        if matches!(start, Start::Open { .. } | Start::Recover { .. }) && !key_file.exists() {
            // A new key would open nothing, and stand in the way of the right one.
            let detail = "it is the key of this manager's log".to_owned();
            return Err(swarm_consensus::Error::Missing { file: key_file.display().to_string(), detail }.into());
        }
        let raft_id = match start {
            Start::Join { raft_id } => raft_id,
            Start::Open { raft_id } | Start::Recover { raft_id } => {
                raft_id.unwrap_or_else(|| Node::founder_raft_id(node))
            }
            Start::Restore(ref restore) => restore.raft_id,
            Start::Create(_) => Node::founder_raft_id(node),
        };
        let raft = Options {
            dir: dir.clone(),
            raft_id,
            addr: advertise_addr.clone(),
            key: seal_key.map_or_else(|| SealKey::load_or_create(&key_file), Ok)?,
            snapshot_interval: ClusterSpec::SNAPSHOT_INTERVAL_DEFAULT,
            timers: Timers::default(),
            feature_level: ENTRY_VERSION,
            run: random().map_err(ManagerError::Random)? as u64,
            dialer: Arc::new(TlsDialer {
                identity: identity.clone(),
                source,
                feed: feed.clone(),
                strangers: Default::default(),
            }),
        };
        let unopened = |log| match log {
            swarm_consensus::Error::WrongKey { .. } => ManagerError::WrongKey { key_file: key_file.clone(), log },
            log => ManagerError::Log(log),
        };
        let consensus = match start {
            Start::Open { .. } => Consensus::open(raft, feed.clone()).await.map_err(unopened)?,
            Start::Join { .. } => match Consensus::join(raft.clone(), feed.clone()).await {
                // It was killed before it could say that it had begun.
                Err(swarm_consensus::Error::Exists { .. }) => {
                    Consensus::open(raft, feed.clone()).await.map_err(unopened)?
                }
                other => other?,
            },
            Start::Recover { .. } => {
                let consensus = Consensus::recover(raft, feed.clone()).await.map_err(unopened)?;
                let others = members::remove_others(&consensus.read_barrier().await.map_err(ManagerError::Init)?, node);
                if let Err(error) = first_change(&consensus, others).await {
                    consensus.shutdown().await;
                    return Err(error);
                }
                consensus
            }
            Start::Restore(restore) => Consensus::restore(raft, restore.backup, feed.clone()).await?,
            Start::Create(init) => {
                let consensus = Consensus::create(raft, feed.clone()).await?;
                if let Err(error) = first_change(&consensus, (*init).tx(&advertise_addr)).await {
                    consensus.shutdown().await;
                    return Err(error);
                }
                consensus
            }
        };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let shared: Arc<dyn Raft> = Arc::new(consensus.clone());
        let logs = LogBroker::new(feed.clone(), stop.clone(), tasks.clone());
        let dispatcher = Dispatcher::new(shared.clone(), feed.clone(), cluster, logs.clone());
        let authority = Authority::new(shared, feed.clone(), clock::now);
        check_clock(feed.state().time());
        let inner = Arc::new(Inner { consensus, feed, dispatcher, logs, authority, node, advertise_addr, stop, tasks });
        inner.tasks.spawn({
            let inner = inner.clone();
            async move { tokio::join!(inner.follow_role(), inner.keep_address()) }
        });
        let manager = Self { inner };
        if let Err(error) = manager.check_cluster(dir, cluster).await {
            manager.shutdown().await;
            return Err(error);
        }
        Ok(manager)
    }

    /// The log must be that of this node's cluster; the log of an only manager, which leads at once, must hold one.
    async fn check_cluster(&self, dir: PathBuf, own: ClusterId) -> Result<(), ManagerError> {
        if let Some(of) = self.state().cluster().map(|cluster| cluster.id).filter(|of| *of != own) {
            return Err(ManagerError::OtherCluster { folder: dir, of, own });
        }
        let alone = self.inner.consensus.status().members.len() == 1;
        if !alone || self.state().cluster().is_some() {
            return Ok(());
        }
        match self.inner.consensus.read_barrier().await {
            Ok(state) => match state.cluster().map(|cluster| cluster.id) {
                None => Err(ManagerError::Unfinished(dir)),
                Some(of) if of != own => Err(ManagerError::OtherCluster { folder: dir, of, own }),
                Some(_) => Ok(()),
            },
            // Not ready yet is not wrong.
            Err(_) => Ok(()),
        }
    }

    /// The swarm part of the Docker Engine API.
    pub fn routes(&self) -> Router {
        api::routes(self.clone())
    }

    /// The routes by which nodes get and renew certificates. The daemon puts the [`PeerIdentity`] of a peer that
    /// showed a certificate into the request's extensions.
    pub fn join_routes(&self) -> Router {
        self.inner.authority.routes()
    }

    /// A certificate for this manager itself after its own has expired, for a certificate request (PEM).
    ///
    /// # Errors
    /// As far as it knows this node is no manager any more, or signing fails.
    pub fn issue_own(&self, csr: &str) -> Result<CertificateResponse, String> {
        self.inner.authority.issue_own(self.inner.node, csr)
    }

    /// Serves one stream of the agents' protocol until it ends. The peer was authenticated before.
    pub async fn serve_agent<S>(&self, peer: PeerIdentity, addr: SocketAddr, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.inner.stop.run_until_cancelled(self.inner.dispatcher.serve(peer, addr, stream)).await;
    }

    /// Serves one connection of another manager until it ends. The peer was authenticated before.
    ///
    /// # Errors
    /// Why it was not served, or ended other than by the peer.
    pub async fn serve_manager(
        &self,
        peer: PeerIdentity,
        addr: SocketAddr,
        stream: BoxedStream,
    ) -> Result<(), ServeError> {
        let feed = self.inner.feed.clone();
        let admission = Arc::new(move || members::admit(&peer, &feed.state()));
        let from = addr.ip().to_string();
        let served = self.inner.consensus.serve(stream, &from, admission);
        self.inner.stop.run_until_cancelled(served).await.unwrap_or(Ok(()))
    }

    /// Whether a peer is a manager of this cluster.
    ///
    /// # Errors
    /// Why it is none.
    pub fn admit(&self, peer: &PeerIdentity) -> Result<(), String> {
        members::admit(peer, &self.state())
    }

    /// Waits until a peer may no longer be connected with this protocol, and says why.
    pub async fn expelled(&self, peer: &PeerIdentity, alpn: Alpn) -> String {
        let watch = self.inner.feed.watch(Topic::Node(peer.node));
        loop {
            match alpn {
                Alpn::Agent => {
                    if let Err(reason) = members::admit_any(peer, &self.state()) {
                        sleep(GOODBYE).await;
                        return reason;
                    }
                }
                _ => {
                    if let Err(reason) = self.admit(peer) {
                        return reason;
                    }
                }
            }
            watch.changed().await;
        }
    }

    /// Whether this manager votes and has a state: a new one does once it has caught up.
    pub fn is_voter(&self) -> bool {
        let status = self.inner.consensus.status();
        let votes = status.members.iter().any(|member| member.voter && member.raft_id == status.raft_id);
        votes && self.state().cluster().is_some()
    }

    /// Asks for this node to be a worker, if the other managers are a majority without it. That it is one follows.
    ///
    /// # Errors
    /// [`StepDownError`]: it is needed, or the managers did not take it.
    pub async fn step_down(&self) -> Result<(), StepDownError> {
        let state = self.inner.consensus.read_barrier().await?;
        if state.nodes().filter(|node| node.spec.role == NodeRole::Manager).count() <= 1 {
            return Err(StepDownError::Last);
        }
        let status = self.inner.consensus.cluster_status().await;
        status.keeps_majority_without(self.inner.consensus.status().raft_id).map_err(StepDownError::Needed)?;
        let Some(node) = state.node(self.inner.node) else { return Ok(()) };
        let spec = NodeSpec { role: NodeRole::Worker, ..NodeSpec::clone(&node.spec) };
        let op = Op::UpdateNode { node: node.id, spec: Arc::new(spec), drain_deadline: node.drain_deadline };
        let tx = Tx::new(vec![op]).guard(Guard::Node { node: node.id, version: node.version });
        let committed = self.inner.consensus.write(vec![tx]).await?;
        committed.outcomes.into_iter().collect::<Result<(), _>>().map_err(StepDownError::Refused)
    }

    /// Whether a majority of the managers can be heard from here.
    pub async fn has_majority(&self) -> bool {
        timeout(MAJORITY_TIMEOUT, self.inner.consensus.read_barrier()).await.is_ok_and(|read| read.is_ok())
    }

    /// The newest state that this manager has applied. It may lag behind what other managers acknowledged.
    pub fn state(&self) -> Arc<State> {
        self.inner.feed.state()
    }

    /// Autolock's key, with every change that was acknowledged before the call.
    ///
    /// # Errors
    /// Most managers do not answer.
    pub async fn unlock_key(&self) -> Result<Option<Redacted>, ProposeError> {
        let state = self.inner.consensus.read_barrier().await?;
        Ok(state.cluster().and_then(|cluster| cluster.unlock_key.clone()))
    }

    /// Waits until autolock's key is another one than `last`, none at first, and says it. The first word waits for most
    /// managers: a log that is read again from its beginning tells of keys that are long gone.
    pub async fn next_unlock_key(&self, last: Option<&Option<Redacted>>) -> Option<Redacted> {
        let watch = self.inner.feed.watch(Topic::Nodes);
        while last.is_none() && !(self.unlock_key().await.is_ok() && self.state().cluster().is_some()) {
            sleep(INIT_RETRY).await;
        }
        loop {
            let key = self.state().cluster().and_then(|cluster| cluster.unlock_key.clone());
            if last != Some(&key) {
                return key;
            }
            watch.changed().await;
        }
    }

    /// What this manager is, and every change of that. [`Role::Stopped`] is the end: the daemon has to stop as well.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.inner.consensus.role()
    }

    /// Whether it stopped because it has something else than the other managers, or is the second one with its state
    /// folder: to start it again changes nothing, so that the daemon goes on and says so.
    pub fn differs(&self) -> bool {
        self.inner.consensus.differs()
    }

    /// Hands the leadership over if it has it, stops everything, and lets go of the log.
    pub async fn shutdown(&self) {
        let leads = matches!(*self.inner.consensus.role().borrow(), Role::Leader { .. });
        if leads && let Err(reason) = self.inner.consensus.hand_over(None).await {
            tracing::info!(%reason, "this manager stops while it leads");
        }
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.consensus.shutdown().await;
    }
}

impl Inner {
    /// Runs what only the leader runs, for as long as it leads.
    async fn follow_role(&self) {
        let mut role = self.consensus.role();
        let work = async {
            loop {
                let Ok(term) = role.wait_for(|role| matches!(role, Role::Leader { .. })).await.map(|role| role.clone())
                else {
                    return;
                };
                let stop = self.stop.child_token();
                let lost = async {
                    drop(role.wait_for(|role| *role != term).await);
                    stop.cancel();
                };
                // To its end: what only a leader has, sessions of agents above all, must be gone afterwards.
                tokio::join!(self.lead(&stop), lost);
                if self.stop.is_cancelled() {
                    return;
                }
            }
        };
        self.stop.run_until_cancelled(work).await;
    }

    async fn lead(&self, stop: &CancellationToken) {
        let seed = match random() {
            Ok(random) => random as u64,
            Err(error) => {
                tracing::error!(%error, "this manager cannot lead");
                return stop.cancelled().await;
            }
        };
        let time = self.feed.state().time();
        check_clock(time);
        clock::at_least(time);
        tracing::info!("this manager leads the swarm");
        tokio::join!(
            stop.run_until_cancelled(self.decide(seed, stop)),
            self.dispatcher.lead(stop),
            stop.run_until_cancelled(members::steer(&self.consensus, &self.feed)),
            stop.run_until_cancelled(level::keep(&self.consensus)),
            stop.run_until_cancelled(rotation::finish(&self.consensus, &self.feed)),
        );
        tracing::info!("this manager no longer leads the swarm");
    }

    /// Decides, but not while managers differ and no majority agrees: what is decided would rest on a state that may be
    /// wrong.
    async fn decide(&self, seed: u64, stop: &CancellationToken) {
        let (mut undecided, mut seed) = (self.consensus.undecided(), seed);
        while undecided.wait_for(Option::is_none).await.is_ok() {
            let hold = stop.child_token();
            let held = async {
                drop(undecided.wait_for(Option::is_some).await);
                hold.cancel();
            };
            let unheard = || self.dispatcher.unheard();
            tokio::join!(leader::run(&self.consensus, &self.feed, unheard, clock::steady, seed, &hold), held);
            // A plan may still be on its way. Ids of the next one are others.
            self.consensus.settled().await;
            seed = seed.wrapping_add(1);
        }
    }

    /// The address under which nodes find this manager may have changed with its configuration.
    async fn keep_address(&self) {
        let work = async {
            while let Err(error) = self.store_address().await {
                if self.is_address_new(&self.feed.state()) {
                    tracing::warn!(%error, "the new address of this manager is not stored");
                }
                sleep(ADDRESS_RETRY).await;
            }
        };
        self.stop.run_until_cancelled(work).await;
    }

    /// A manager that is new, or on its way out, is not named there.
    fn is_address_new(&self, state: &State) -> bool {
        let manager = state.node(self.node).filter(|node| node.role == NodeRole::Manager);
        manager.is_some_and(|node| node.manager_addr.as_ref() != Some(&self.advertise_addr))
    }

    async fn store_address(&self) -> Result<(), ProposeError> {
        let state = self.consensus.read_barrier().await?;
        let Some(node) = state.node(self.node).filter(|_| self.is_address_new(&state)) else { return Ok(()) };
        let admit = Op::AdmitNode {
            node: node.id,
            role: node.role,
            cert_expires_at: node.cert_expires_at,
            manager_addr: Some(self.advertise_addr.clone()),
            availability: node.spec.availability,
        };
        self.consensus.write(vec![Tx::new(vec![admit])]).await.map(drop)
    }
}

/// Writes the first change of a new cluster.
async fn first_change(consensus: &Consensus, tx: Tx) -> Result<(), ManagerError> {
    let deadline = Instant::now() + INIT_TIMEOUT;
    loop {
        match consensus.propose(vec![tx.clone()]).await {
            Ok(committed) => {
                return committed.outcomes.into_iter().collect::<Result<(), _>>().map_err(ManagerError::Refused);
            }
            Err(ProposeError::NotLeader { .. }) if Instant::now() < deadline => sleep(INIT_RETRY).await,
            Err(error) => return Err(ManagerError::Init(error)),
        }
    }
}

/// Says in the log that this machine's clock is behind the newest entry. Nothing stops for that: the time of the log goes
/// on from there.
fn check_clock(time: Timestamp) {
    let now = clock::now();
    if time.since_ns(now) / 1_000_000 > CLOCK_SKEW_MAX_MS {
        tracing::warn!(
            clock = %Time(now), log = %Time(time),
            "this machine's clock is behind the newest entry of the log, so that it is behind, or the clock of a leader was \
             ahead: check the clocks of the managers (NTP)"
        );
    }
}
