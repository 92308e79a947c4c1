//! The handle: create, open, propose, read.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use openraft::{
    BasicNode, Config, Raft,
    errors::{ClientWriteError, Fatal, ForwardToLeader, RaftError},
    impls::ProgressResponder,
    raft::ClientWriteResponse,
};
use swarm_core::{ENTRY_TXS_MAX, Event, FEATURE_LEVEL_MIN, Outcome, State, Tx};
use swarm_model::mutant::mutant;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    Error, Options, ProposeError, Role,
    compact::compact,
    compare,
    digest::Digests,
    disk::{Disk, FolderDisk},
    gather::{Fallen, Gathering, Proposal},
    history::History,
    load::{Loaded, first_values, load},
    machine::Machine,
    majority::{HandedOver, LastLook},
    network::Network,
    options::config,
    recover::make_alone,
    remote::{Reader, run_barriers},
    role::{self, Told},
    rt,
    snapshot::Snapshots,
    store::LogStore,
    twin::{self, Own, Runs},
    types::{Command, LeaderId, LogId, Types, Vote},
    vouch::Vouched,
    words,
    writer::Fault,
};

/// The longest entry, encoded: bounds how long one entry keeps others waiting on the way to disk and to followers.
pub const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Encoded bytes of all proposals under way; more wait for their turn. Bounds the memory of a burst.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What of an entry is not its transactions, at most: names of fields, version, time, number of transactions.
const ENTRY_HEAD_BYTES_MAX: usize = 32;
/// What a proposal counts at least, of [`IN_FLIGHT_BYTES_MAX`]; bounds how many are under way.
const IN_FLIGHT_UNIT_BYTES: usize = 1024;
/// How long a proposal waits for a leader and for its entry to be applied: several elections, and far beyond the
/// slowest healthy disk.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest pause before a proposal is tried again while there is no leader: a small part of an election.
const RETRY_MS: std::ops::Range<u64> = 5..40;
/// Pause before a snapshot is asked for again: openraft drops the wish while it is busy with another one.
const SNAPSHOT_RETRY: Duration = Duration::from_millis(100);

/// Told of every change of the state, in log order, on the apply path: must be quick and must not block.
pub trait Observer: Send + Sync + 'static {
    /// An entry was applied. Proposals and reads that depend on it return after this does.
    fn applied(&self, state: &Arc<State>, events: &[Event]);
    /// The whole state was replaced: at the start, and when a snapshot of the leader was installed.
    fn restored(&self, state: &Arc<State>);
}

/// A write that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Log index of its entry: the revision of the state that has it.
    pub index: u64,
    /// What became of each transaction.
    pub outcomes: Vec<Outcome>,
}

/// A manager's part in Raft. Clones are handles of the same one; call [`Consensus::shutdown`] at the end.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft<Types, Machine>,
    log: LogStore,
    disk: Arc<dyn Disk>,
    snapshots: Arc<Snapshots>,
    published: Arc<ArcSwap<State>>,
    role: watch::Receiver<Role>,
    role_task: Mutex<Option<JoinHandle<()>>>,
    in_flight: Semaphore,
    gathering: Gathering,
    history: History,
    /// Why nothing is decided: managers differ, and no majority agrees.
    undecided: watch::Receiver<Option<String>>,
    fault: Fault,
    network: Network,
    readers: mpsc::UnboundedSender<Reader>,
    /// When a leader was last heard of.
    heard: Mutex<Option<Instant>>,
    campaign: tokio::sync::Mutex<()>,
    last_look: LastLook,
    vouched: Vouched,
    runs: Runs,
    feature_level: u16,
}

/// A handle that does not keep Raft alive.
pub(crate) struct WeakConsensus(Weak<Inner>);

impl WeakConsensus {
    pub(crate) fn upgrade(&self) -> Option<Consensus> {
        self.0.upgrade().map(|inner| Consensus { inner })
    }
}

impl Consensus {
    /// Founds a cluster whose only manager is this one. Refuses a folder that holds a log.
    pub async fn create(options: Options, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        let config = config(&options)?;
        let (dir, key, raft_id) = (options.dir.clone(), options.key.clone(), options.raft_id);
        let disk = blocking(move || FolderDisk::create(&dir, &first_values(&key, raft_id, true)?)).await?;
        Self::start(options, config, Arc::new(disk), observer).await
    }

    /// Takes part in a cluster with an empty log, which its leader fills. Refuses a folder that holds a log.
    pub async fn join(options: Options, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        let config = config(&options)?;
        let (dir, key, raft_id) = (options.dir.clone(), options.key.clone(), options.raft_id);
        let disk = blocking(move || FolderDisk::create(&dir, &first_values(&key, raft_id, false)?)).await?;
        Self::start(options, config, Arc::new(disk), observer).await
    }

    /// Opens the log of this manager and takes its place in the cluster again. A log that is missing, damaged, of
    /// another manager or sealed with another key is refused; nothing is ever reset.
    pub async fn open(options: Options, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        let config = config(&options)?;
        let dir = options.dir.clone();
        let disk = blocking(move || FolderDisk::open(&dir)).await?;
        Self::start(options, config, Arc::new(disk), observer).await
    }

    /// Opens the log of this manager as that of the only one, whoever took part before: the majority is lost for good.
    /// The others must never come back as they were.
    pub async fn recover(options: Options, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        let config = config(&options)?;
        let Options { dir, key, raft_id, addr, .. } = options.clone();
        let disk = blocking(move || {
            let disk: Arc<dyn Disk> = Arc::new(FolderDisk::open(&dir)?);
            make_alone(&disk, &key, raft_id, &addr).inspect_err(|_| disk.close())?;
            Ok(disk)
        })
        .await?;
        Self::start(options, config, disk, observer).await
    }

    pub(crate) async fn start(
        options: Options,
        config: Config,
        disk: Arc<dyn Disk>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let fault = Fault::default();
        let Options { raft_id, addr, key, snapshot_interval, feature_level, run, dialer, .. } = options;
        let network = Network::new(dialer, Own::new(raft_id, run, &addr));
        let loaded = {
            let (disk, fault) = (Arc::clone(&disk), fault.clone());
            blocking(move || {
                // A folder that is refused is let go at once, whatever still holds the disk.
                load(Arc::clone(&disk), &key, raft_id, feature_level, observer, fault).inspect_err(|_| disk.close())
            })
            .await?
        };
        let Loaded { log, machine, snapshots, founder } = loaded;
        if let Err(error) = log.begin().await {
            close(&log, disk).await;
            return Err(Error::Stopped(fault.get().unwrap_or_else(|| error.to_string())));
        }
        let (published, bytes, history) = (machine.published(), machine.bytes(), machine.history());
        let raft = match Raft::new(raft_id, Arc::new(config), network.clone(), log.clone(), machine).await {
            Ok(raft) => raft,
            Err(fatal) => {
                close(&log, disk).await;
                return Err(Error::Stopped(fault.get().unwrap_or_else(|| words::fatal(&fatal))));
            }
        };
        let (role, role_receiver) = watch::channel(Role::Follower { leader: None });
        let told = Told { server: raft.server_metrics(), data: raft.data_metrics(), all: raft.metrics() };
        let follow = role::follow(told, role, fault.clone());
        let compact = compact(raft.clone(), Arc::clone(&published), snapshot_interval, bytes, Arc::clone(&disk));
        // Ends with Raft.
        let role_task = rt::spawn(async {
            tokio::select! {
                biased;
                () = follow => {}
                () = async { compact.await; std::future::pending().await } => {}
            }
        });
        let (readers, waiting) = mpsc::unbounded_channel();
        let (undecided, undecided_receiver) = watch::channel(None);
        let consensus = Self {
            inner: Arc::new(Inner {
                raft,
                log,
                disk,
                snapshots,
                published,
                role: role_receiver,
                role_task: Mutex::new(Some(role_task)),
                in_flight: Semaphore::new(IN_FLIGHT_BYTES_MAX / IN_FLIGHT_UNIT_BYTES),
                gathering: Gathering::default(),
                history,
                undecided: undecided_receiver,
                fault,
                network,
                readers,
                heard: Mutex::default(),
                campaign: tokio::sync::Mutex::default(),
                last_look: LastLook::default(),
                vouched: Vouched::default(),
                runs: Runs::default(),
                feature_level,
            }),
        };
        // They end with the last handle.
        let own = Arc::clone(consensus.own());
        rt::spawn(twin::watch(WeakConsensus(Arc::downgrade(&consensus.inner)), own));
        rt::spawn(compare::run(WeakConsensus(Arc::downgrade(&consensus.inner)), undecided));
        rt::spawn(run_barriers(WeakConsensus(Arc::downgrade(&consensus.inner)), waiting));
        match consensus.begin(founder.then_some(addr)).await {
            Ok(()) => Ok(consensus),
            Err(error) => {
                consensus.shutdown().await;
                Err(error)
            }
        }
    }

    /// Founds the cluster if that is still to be done. Otherwise a leader is asked what this manager had acknowledged,
    /// before it takes part. A sole voter is elected at once: there is nobody whose leadership it would have to wait out.
    async fn begin(&self, founder_addr: Option<String>) -> Result<(), Error> {
        let raft = &self.inner.raft;
        let fatal = |fatal| Error::Stopped(self.reason(Some(fatal)));
        let raft_id = *raft.node_id();
        if raft.is_initialized().await.map_err(fatal)? {
            // Nobody can reach this manager yet, so that it neither votes nor follows.
            if !mutant("leader-not-asked") {
                self.vouch().await?;
            }
            if raft.voter_ids().eq([raft_id]) {
                raft.trigger().elect(false).await.map_err(fatal)?;
            }
        } else if let Some(addr) = founder_addr {
            let members = BTreeMap::from([(raft_id, BasicNode { addr })]);
            raft.initialize(members).await.map_err(|error| Error::Stopped(words::found(&error)))?;
        }
        raft.runtime_config().elect(true);
        Ok(())
    }

    /// Appends transactions as one entry and waits until it is applied here.
    ///
    /// While there is no leader it waits for one, up to [`PROPOSE_TIMEOUT`]. [`ProposeError::Unknown`] means that the
    /// entry was handed to the log; every other error but `Stopped` means that nothing has happened.
    pub async fn propose(&self, txs: Vec<Tx>) -> Result<Committed, ProposeError> {
        self.propose_noting(txs, None, &HandedOver::default()).await
    }

    /// The same, but only as the leader of this term ([`Role::Leader`]), and gives up as [`Consensus::write`] does once
    /// there is no majority.
    ///
    /// What was read of a leader's state needs no read barrier when all that is done with it is proposed this way: the
    /// state has everything that was acknowledged before this term and in it, and if another manager leads a later one
    /// already, this proposal cannot be committed.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] at once when this manager leads no more, or leads another term by now; otherwise as
    /// [`Consensus::write`].
    pub async fn propose_in_term(&self, term: u64, txs: Vec<Tx>) -> Result<Committed, ProposeError> {
        let handed_over = HandedOver::default();
        self.with_majority(&handed_over, self.propose_noting(txs, Some(term), &handed_over)).await
    }

    /// Notes when the entry is in Raft's hands. With a term, only as its leader.
    pub(crate) async fn propose_noting(
        &self,
        txs: Vec<Tx>,
        term: Option<u64>,
        handed_over: &HandedOver,
    ) -> Result<Committed, ProposeError> {
        if txs.len() > ENTRY_TXS_MAX {
            return Err(ProposeError::TooMany { txs: txs.len(), limit: ENTRY_TXS_MAX });
        }
        let needed = txs.iter().map(Tx::feature_level).max().unwrap_or(FEATURE_LEVEL_MIN);
        self.check_feature_level(needed).await?;
        let proposal = Proposal::new(txs, needed, term, handed_over);
        let proposal = proposal.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        let bytes = proposal.bytes() + ENTRY_HEAD_BYTES_MAX;
        if bytes > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, limit: ENTRY_BYTES_MAX });
        }
        let units = bytes.div_ceil(IN_FLIGHT_UNIT_BYTES) as u32;
        // First come, first served. What is ahead ends by its own deadline, so this wait ends too.
        let _turn = self.inner.in_flight.acquire_many(units).await.map_err(|_| self.stopped(None))?;
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        let mut retry = Retry::until(deadline);
        loop {
            let Ok(result) = timeout_at(deadline, self.append(proposal.again())).await else {
                let nothing_happened = handed_over.withdraw();
                return Err(if nothing_happened {
                    ProposeError::NotLeader { leader: None }
                } else {
                    ProposeError::Unknown
                });
            };
            match result {
                Ok(committed) => return Ok(committed),
                Err(Fallen::Forward(forward)) if term.is_some() => {
                    return Err(ProposeError::NotLeader { leader: forward.leader_node.map(|node| node.addr) });
                }
                Err(Fallen::Forward(forward)) => {
                    handed_over.take_back();
                    Box::pin(self.wait_for_leader(forward, &mut retry)).await?;
                }
                Err(Fallen::Unknown) => return Err(ProposeError::Unknown),
                Err(Fallen::Stopped(reason)) => {
                    return Err(reason.map_or_else(|| self.stopped(None), ProposeError::Stopped));
                }
            }
        }
    }

    /// Hands an entry to Raft, with a term only to the leader of that, and waits until it is applied.
    pub(crate) async fn hand_to_raft(
        &self,
        command: Command,
        term: Option<u64>,
    ) -> Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>> {
        let raft = &self.inner.raft;
        let Some(term) = term else { return raft.client_write(command).await };
        let (responder, done) = ProgressResponder::complete_only();
        let leader = LeaderId { term, node_id: *raft.node_id() };
        raft.write(command).with_leader(leader).responder(responder).await.map_err(RaftError::Fatal)?;
        match done.await {
            Ok(result) => result.map_err(RaftError::APIError),
            // Raft has ended; any question is answered with why.
            Err(_) => Err(RaftError::Fatal(raft.is_initialized().await.err().unwrap_or(Fatal::Stopped))),
        }
    }

    pub(crate) fn gathering(&self) -> &Gathering {
        &self.inner.gathering
    }

    /// The latest applied state. Never waits.
    pub fn state(&self) -> State {
        State::clone(&self.inner.published.load())
    }

    /// Whether this manager was stopped in order before it started, so that its log is known to be whole. Otherwise entries
    /// that it acknowledged in the last moment before its end may be lost, and only the other managers can tell.
    pub fn stopped_in_order(&self) -> bool {
        self.inner.log.stopped_in_order()
    }

    /// What this manager is, and when that changes.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.inner.role.clone()
    }

    /// Takes a snapshot that has at least what is applied now, and waits until it is durable.
    pub async fn snapshot(&self) -> Result<(), Error> {
        let Some(target) = self.status().applied_index else { return Ok(()) };
        let mut progress = self.inner.snapshots.progress();
        let attempts = progress.borrow_and_update().attempts;
        while self.status().snapshot_index < Some(target) {
            let fatal = |fatal| Error::Stopped(self.reason(Some(fatal)));
            self.inner.raft.trigger().snapshot().await.map_err(fatal)?;
            // Either an attempt ends, or it is time to ask again.
            let ended = timeout(SNAPSHOT_RETRY, progress.changed()).await;
            let progress = progress.borrow_and_update().clone();
            if matches!(ended, Ok(Ok(())))
                && progress.attempts > attempts
                && let Some(failure) = progress.failure
            {
                return Err(Error::Io { file: self.inner.disk.snapshot_file(), source: io::Error::other(failure) });
            }
        }
        Ok(())
    }

    /// Stops taking part, writes what is left, and lets go of the folder. Proposals under way end with
    /// [`ProposeError::Stopped`].
    pub async fn shutdown(&self) {
        self.inner.in_flight.close();
        // It only fails when Raft has ended by itself.
        drop(self.inner.raft.shutdown().await);
        let task = self.inner.role_task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            drop(task.await);
        }
        self.inner.network.retain(|_| false);
        close(&self.inner.log, Arc::clone(&self.inner.disk)).await;
    }

    /// Waits a little if this manager may yet lead, or says who does.
    async fn wait_for_leader(&self, forward: ForwardToLeader<Types>, retry: &mut Retry) -> Result<(), ProposeError> {
        // Right after an election, and after a stalled quorum, a leader does not yet trust its lease and names nobody
        // or itself: that passes.
        match forward.leader_id {
            Some(id) if id != *self.inner.raft.node_id() => {
                Err(ProposeError::NotLeader { leader: forward.leader_node.map(|node| node.addr) })
            }
            _ => retry.pause().await,
        }
    }

    pub(crate) fn reason(&self, fatal: Option<Fatal<Types>>) -> String {
        self.inner.fault.get().unwrap_or_else(|| match fatal {
            None | Some(Fatal::Stopped) => role::SHUT_DOWN.into(),
            Some(fatal) => words::fatal(&fatal),
        })
    }

    pub(crate) fn raft(&self) -> &Raft<Types, Machine> {
        &self.inner.raft
    }

    pub(crate) fn history(&self) -> &History {
        &self.inner.history
    }

    pub(crate) fn digests(&self) -> &Digests {
        self.inner.history.digests()
    }

    pub(crate) fn undecided_watch(&self) -> &watch::Receiver<Option<String>> {
        &self.inner.undecided
    }

    pub(crate) fn fault(&self) -> &Fault {
        &self.inner.fault
    }

    /// The durable vote, and the last entry that there is or was.
    pub(crate) fn log_ends(&self) -> (Option<Vote>, Option<LogId>) {
        self.inner.log.ends()
    }

    pub(crate) fn log(&self) -> LogStore {
        self.inner.log.clone()
    }

    /// A leader that counts has just spoken.
    pub(crate) fn hear_leader(&self) {
        *self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When a leader was last heard of.
    pub(crate) fn heard_leader(&self) -> Option<Instant> {
        *self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.inner.disk)
    }

    pub(crate) fn raft_id(&self) -> u64 {
        *self.inner.raft.node_id()
    }

    pub(crate) fn network(&self) -> &Network {
        &self.inner.network
    }

    /// The run and the address of this manager, which it says when it opens a connection.
    pub(crate) fn own(&self) -> &Arc<Own> {
        self.inner.network.own()
    }

    /// The runs of the other managers.
    pub(crate) fn runs(&self) -> &Runs {
        &self.inner.runs
    }

    /// Held by whoever tries to replace a leader that was lost.
    pub(crate) fn campaign(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.campaign
    }

    /// The feature level of the swarm, as far as it is applied here.
    pub(crate) fn current_feature_level(&self) -> u16 {
        self.inner.published.load().feature_level()
    }

    /// The newest feature level that this program knows.
    pub(crate) fn feature_level(&self) -> u16 {
        self.inner.feature_level
    }

    /// Shared by all that wait for a majority.
    pub(crate) fn last_look(&self) -> &LastLook {
        &self.inner.last_look
    }

    /// Which leader has said that this manager has all that it had acknowledged.
    pub(crate) fn vouched(&self) -> &Vouched {
        &self.inner.vouched
    }

    /// Ends Raft for this reason.
    pub(crate) async fn stop(&self, reason: String) {
        self.inner.fault.set(reason);
        // It only fails when Raft has ended by itself.
        drop(self.inner.raft.shutdown().await);
    }

    pub(crate) fn readers(&self) -> &mpsc::UnboundedSender<Reader> {
        &self.inner.readers
    }

    pub(crate) fn stopped(&self, fatal: Option<Fatal<Types>>) -> ProposeError {
        ProposeError::Stopped(self.reason(fatal))
    }
}

/// Growing pauses up to a deadline.
pub(crate) struct Retry {
    deadline: Instant,
    pause_ms: u64,
}

impl Retry {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { deadline, pause_ms: RETRY_MS.start }
    }

    pub(crate) async fn pause(&mut self) -> Result<(), ProposeError> {
        let pause = Duration::from_millis(self.pause_ms);
        if Instant::now() + pause >= self.deadline {
            return Err(ProposeError::NotLeader { leader: None });
        }
        sleep(pause).await;
        self.pause_ms = (self.pause_ms * 2).min(RETRY_MS.end);
        Ok(())
    }
}

/// Lets go of the folder.
async fn close(log: &LogStore, disk: Arc<dyn Disk>) {
    log.close().await;
    drop(rt::blocking(move || disk.close()).await);
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    rt::blocking(work).await.map_err(|error| Error::Stopped(error.to_string()))?
}
