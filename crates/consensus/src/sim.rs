//! What the simulator needs of this crate (feature `sim`, for development only): managers whose disk, network, time and
//! randomness it owns, that can end without a word, and a look into their logs.
//!
//! All else is the code that ships. A simulated manager runs on a runtime with one thread and paused time. What belongs
//! to it is started within its [`Life`] and ends with it; outside of one, everything is as without the feature.

mod runtime;

use std::{
    future::Future,
    io,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use openraft::RaftLogReader;
use swarm_model::{Timestamp, mutant::mutant};
use tokio::{
    sync::mpsc::{Receiver, Sender, UnboundedReceiver, channel},
    task::{AbortHandle, JoinHandle, futures::TaskLocalFuture},
    time::sleep,
};

pub(crate) use runtime::Runtime;

pub use crate::disk::{Change, Disk, FileWriter, Name, RowVisitor, Usage, WITNESS_SLOT_BYTES, WITNESS_SLOTS};
use crate::{
    Consensus, Error, Observer, Options, SealKey,
    load::{first_values, seal_of},
    options::config,
    records,
    store::Shared,
    witness::{self, WITNESS_LAG},
    writer::{Op, broken, conclude, fail, foretell, gather, is_end, is_foretold, settle, write},
};

/// Tasks of a life that are remembered before those that have ended are forgotten.
const TASKS_KEPT: usize = 64;

tokio::task_local! {
    static LIFE: Arc<Life>;
}

/// The machine that a simulated manager runs on.
pub trait Machine: Send + Sync + 'static {
    /// A number of the run's own randomness.
    fn random(&self) -> u64;
    /// Its clock.
    fn now(&self) -> Timestamp;
    /// Something is about to be written, all in one go; the number is its name.
    fn begin_write(&self) -> u64;
    /// How long the disk takes now.
    fn disk_delay(&self) -> Duration;
    /// What was written under this name survives a power cut from now on.
    ///
    /// # Errors
    /// The disk's: nobody knows whether it does.
    fn sync(&self, write: u64) -> io::Result<()>;
}

/// A manager from its start to its end: everything that it does belongs to it.
pub struct Life {
    machine: Arc<dyn Machine>,
    tasks: Mutex<Vec<AbortHandle>>,
    over: AtomicBool,
}

impl Life {
    /// A life on this machine.
    pub fn new(machine: Arc<dyn Machine>) -> Arc<Self> {
        Arc::new(Self { machine, tasks: Mutex::default(), over: AtomicBool::new(false) })
    }

    /// Starts a task that ends with this life.
    pub fn spawn<F>(self: &Arc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let task = tokio::spawn(LIFE.scope(Arc::clone(self), future));
        if self.over.load(Ordering::Relaxed) {
            task.abort();
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() >= TASKS_KEPT && tasks.len().is_power_of_two() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task.abort_handle());
        task
    }

    /// Ends it without a word.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner)) {
            task.abort();
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.machine.now()
    }

    fn random(&self) -> u64 {
        self.machine.random()
    }

    /// Does work that writes to the disk; what it wrote is not durable yet.
    pub(crate) fn write<T>(&self, work: impl FnOnce() -> T) -> (T, Unsynced) {
        let write = self.machine.begin_write();
        (work(), Unsynced { machine: Arc::clone(&self.machine), write })
    }
}

/// What was written and is lost in a power cut.
pub(crate) struct Unsynced {
    machine: Arc<dyn Machine>,
    write: u64,
}

impl Unsynced {
    /// Makes it durable.
    pub(crate) async fn sync(self) -> io::Result<()> {
        sleep(self.machine.disk_delay()).await;
        self.machine.sync(self.write)
    }
}

/// The life that the caller belongs to.
pub(crate) fn life() -> Option<Arc<Life>> {
    LIFE.try_with(Arc::clone).ok()
}

/// The future as a part of the life that the caller belongs to.
pub(crate) fn owned<F: Future>(future: F) -> impl Future<Output = F::Output> {
    match life() {
        Some(life) => futures_util::future::Either::Left::<TaskLocalFuture<_, F>, F>(LIFE.scope(life, future)),
        None => futures_util::future::Either::Right(future),
    }
}

/// Starts the log's writer, as [`crate::writer`] does it, with a simulated disk.
pub(crate) fn start_writer(life: &Arc<Life>, shared: Arc<Shared>, ops: UnboundedReceiver<Op>) {
    let (appended, signals) = channel(1);
    life.spawn(keep_witness(Arc::clone(life), Arc::clone(&shared), signals));
    life.spawn(run_writer(Arc::clone(life), shared, ops, appended));
}

async fn run_writer(life: Arc<Life>, shared: Arc<Shared>, mut ops: UnboundedReceiver<Op>, appended: Sender<()>) {
    let mut hint = shared.index().committed;
    while let Some(first) = ops.recv().await {
        let group = gather(first, &mut ops);
        let mut written = Ok(());
        if is_foretold(&group) {
            written = durable(&life, &shared.witness_file(), || foretell(&shared, &group)).await;
        }
        if written.is_ok() && mutant("ack-before-fsync") {
            let (done, unsynced) = life.write(|| write(&shared, &group, &mut hint));
            if settle(&shared, group, done).is_break() {
                return;
            }
            let _ = unsynced.sync().await;
            continue;
        }
        if written.is_ok() {
            written = durable(&life, &shared.log_file(), || write(&shared, &group, &mut hint)).await;
        }
        if written.is_ok() && is_end(&group) {
            written = durable(&life, &shared.witness_file(), || conclude(&shared, &group)).await;
        }
        match settle(&shared, group, written) {
            ControlFlow::Continue(()) => drop(appended.try_send(())),
            ControlFlow::Break(None) => return,
            ControlFlow::Break(Some(reason)) => {
                while let Some(op) = ops.recv().await {
                    fail(op, &reason);
                }
                return;
            }
        }
    }
}

async fn keep_witness(life: Arc<Life>, shared: Arc<Shared>, mut appended: Receiver<()>) {
    while appended.recv().await.is_some() {
        sleep(WITNESS_LAG).await;
        if let Err(error) = durable(&life, &shared.witness_file(), || shared.bear_witness()).await {
            return shared.fault().set(broken(&error));
        }
    }
}

/// Writes to a file and syncs it.
async fn durable(life: &Life, file: &str, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    let (written, unsynced) = life.write(work);
    let synced = unsynced.sync().await;
    written.and(synced.map_err(|error| Error::io(file, error)))
}

/// How a simulated manager begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As [`Consensus::create`].
    Create,
    /// As [`Consensus::join`].
    Join,
    /// As [`Consensus::open`].
    Open,
}

/// An entry of a log, enough to compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its index.
    pub index: u64,
    /// Term and Raft id of the leader that wrote it.
    pub leader: (u64, u64),
    /// What it says, encoded.
    pub row: Vec<u8>,
}

/// What a manager takes for durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Term and Raft id of its vote, if it has one.
    pub vote: Option<(u64, u64)>,
    /// Index after the last entry of its log.
    pub log_end: u64,
}

/// Index of the last entry that the witness of a manager that has ended knows of.
///
/// # Errors
/// The log or its witness cannot be read.
pub fn witnessed(disk: &dyn Disk, key: &SealKey, raft_id: u64) -> Result<Option<u64>, Error> {
    let (seal, _) = seal_of(disk, key, raft_id)?;
    let found = witness::read(disk, &seal)?;
    Ok(found.and_then(|found| found.testimony().last()).map(|last| last.index))
}

impl Consensus {
    /// Starts a simulated manager within the [`Life`] of the caller. So many entries stay in its log behind a snapshot.
    ///
    /// # Errors
    /// As [`Consensus::create`], [`Consensus::join`] and [`Consensus::open`].
    pub async fn simulated(
        options: Options,
        log_keep_entries: u64,
        start: Start,
        disk: Arc<dyn Disk>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let mut config = config(&options)?;
        config.max_in_snapshot_log_to_keep = log_keep_entries;
        config.replication_lag_threshold = options.snapshot_interval + 2 * log_keep_entries;
        if start != Start::Open {
            let values = first_values(&options.key, options.raft_id, start == Start::Create)?;
            let life = life().ok_or_else(|| Error::Stopped("a simulated manager needs a life".into()))?;
            let (made, unsynced) = life.write(|| disk.commit(&values));
            made.and(unsynced.sync().await).map_err(|error| Error::io(disk.log_file(), error))?;
        }
        Self::start(options, config, disk, observer).await
    }

    /// What this manager takes for durable: a power cut must leave it.
    pub fn durable(&self) -> Durable {
        let log = self.log();
        let vote = log.ends().0.map(|vote| (vote.leader_id.term, vote.leader_id.node_id));
        Durable { vote, log_end: log.durable_end() }
    }

    /// The log of this manager as it stands, durable or not.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn logged(&self) -> io::Result<Vec<Logged>> {
        let mut log = self.log();
        let entries = log.try_get_log_entries(0..u64::MAX).await?;
        let logged = entries.into_iter().map(|entry| {
            let leader = entry.log_id.leader_id;
            let row = records::encode_row(&entry).map_err(io::Error::other)?;
            Ok(Logged { index: entry.log_id.index, leader: (leader.term, leader.node_id), row })
        });
        logged.collect()
    }
}
