//! The state machine: `swarm_core::State` in memory, its snapshots on disk.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use futures_util::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend,
    storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot},
};
use swarm_core::{Entry, Outcome, State};
use swarm_model::mutant::mutant;

use crate::{
    Observer,
    history::{History, Past},
    level, rt,
    snapshot::{Content, Snapshots},
    types::{LeaderId, LogId, SnapshotMeta, StoredMembership, Types, check_version},
    writer::Fault,
};

type StoredSnapshot = Snapshot<LeaderId, u64, openraft::BasicNode, Content>;

/// Applies committed entries and publishes the state after each.
pub(crate) struct Machine {
    state: Arc<State>,
    applied: Option<LogId>,
    members: StoredMembership,
    published: Arc<ArcSwap<State>>,
    /// Bytes of all entries that were applied since the start.
    bytes: Arc<AtomicU64>,
    observer: Arc<dyn Observer>,
    snapshots: Arc<Snapshots>,
    raft_id: u64,
    feature_level: u16,
    history: History,
    fault: Fault,
}

impl Machine {
    /// A machine with the state of the stored snapshot, or an empty one. Blocks.
    pub(crate) fn open(
        snapshots: Arc<Snapshots>,
        raft_id: u64,
        feature_level: u16,
        history: History,
        observer: Arc<dyn Observer>,
        fault: Fault,
    ) -> Result<Self, crate::Error> {
        let (meta, past, state) = match snapshots.open()? {
            Some((meta, mut content)) => (
                meta,
                std::mem::take(&mut content.past),
                content.into_state().map_err(|error| match error.downcast::<crate::Error>() {
                    Ok(error) => error,
                    Err(error) => crate::Error::io("snapshot", error),
                })?,
            ),
            None => (SnapshotMeta::default(), Past::default(), State::default()),
        };
        history.begin(meta.last_log_id, &past);
        let state = Arc::new(state);
        let published = Arc::new(ArcSwap::new(Arc::clone(&state)));
        observer.restored(&state);
        Ok(Self {
            state,
            applied: meta.last_log_id,
            members: meta.last_membership,
            published,
            bytes: Arc::default(),
            observer,
            snapshots,
            raft_id,
            feature_level,
            history,
            fault,
        })
    }

    /// Where the latest state is published.
    pub(crate) fn published(&self) -> Arc<ArcSwap<State>> {
        Arc::clone(&self.published)
    }

    /// Bytes of all entries that were applied since the start.
    pub(crate) fn bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    /// What is applied, and by whom it was written.
    pub(crate) fn history(&self) -> History {
        self.history.clone()
    }

    /// Log id of the last entry in the state.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.members.clone() }
    }

    /// Applies one entry to a clone, publishes the clone and tells the observer. What the core asserts and finds broken
    /// must stop this manager before its state differs from that of the others, so a panic becomes an error, and the
    /// clone is thrown away. (A panic on this path would otherwise end openraft's task without a word.)
    fn advance(&mut self, index: u64, entry: &Entry) -> Result<Vec<Outcome>, String> {
        check_version(entry.v).map_err(|error| error.to_string())?;
        let mut next = State::clone(&self.state);
        let mut without_first = None;
        if mutant("apply-differently") && self.raft_id == 2 && index.is_multiple_of(7) {
            let txs = entry.txs.iter().skip(1).cloned().collect();
            without_first = Some(Entry { v: entry.v, at: entry.at, txs });
        }
        let entry = without_first.as_ref().unwrap_or(entry);
        let (outcomes, events) = caught(|| swarm_core::apply(&mut next, index, entry))?;
        level::check(next.feature_level(), self.feature_level)?;
        let digested = self.history.digests().advance(&self.state, &next, &outcomes, &events);
        digested.map_err(|error| format!("its digest cannot be made: {error}"))?;
        self.state = Arc::new(next);
        self.published.store(Arc::clone(&self.state));
        caught(|| self.observer.applied(&self.state, &events))?;
        Ok(outcomes)
    }

    fn stop(&self, reason: String) -> io::Error {
        self.fault.set(reason.clone());
        io::Error::other(reason)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Content;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) =
            entries.try_next().await.map_err(|error| self.stop(format!("the log cannot be read: {error}")))?
        {
            let index = entry.log_id.index;
            let mut outcomes = Vec::new();
            match entry.payload {
                EntryPayload::Blank => self.history.digests().skip(index),
                EntryPayload::Membership(members) => {
                    self.history.digests().skip(index);
                    self.members = StoredMembership::new(Some(entry.log_id), members);
                }
                EntryPayload::Normal(command) => {
                    outcomes = self
                        .advance(index, command.entry())
                        .map_err(|reason| self.stop(format!("log entry {index} cannot be applied: {reason}")))?;
                    self.bytes.fetch_add(command.bytes().len() as u64, Ordering::Relaxed);
                }
            }
            self.applied = Some(entry.log_id);
            self.history.get().push(entry.log_id);
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        Ok(())
    }

    /// Costs nothing: the clone is O(1), the work is the builder's.
    async fn get_snapshot_builder(&mut self) -> Builder {
        let past = self.history.past();
        Builder { meta: self.meta(), past, state: State::clone(&self.state), snapshots: Arc::clone(&self.snapshots) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, mut content: Content) -> io::Result<()> {
        let past = std::mem::take(&mut content.past);
        let (snapshots, feature_level) = (Arc::clone(&self.snapshots), self.feature_level);
        let (stored, kept) = (meta.clone(), past.clone());
        // The file must be durable first: the log before it may be purged as soon as this returns.
        let state = rt::blocking(move || {
            let own = snapshots.owns(&content);
            let state = content.into_state().map_err(|error| error.to_string())?;
            level::check(state.feature_level(), feature_level)?;
            if !own {
                snapshots
                    .store(&stored, &kept, &state)
                    .map_err(|error| format!("the leader's snapshot cannot be stored: {error}{}", error.way_out()))?;
            }
            Ok(state)
        });
        self.state = Arc::new(state.await.map_err(io::Error::other)?.map_err(|reason| self.stop(reason))?);
        self.applied = meta.last_log_id;
        self.members = meta.last_membership.clone();
        self.history.begin(meta.last_log_id, &past);
        self.published.store(Arc::clone(&self.state));
        self.observer.restored(&self.state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<StoredSnapshot>> {
        let snapshots = Arc::clone(&self.snapshots);
        let stored = rt::blocking(move || snapshots.open()).await.map_err(io::Error::other)?;
        Ok(stored
            .map_err(|error| self.stop(error.to_string()))?
            .map(|(meta, snapshot)| StoredSnapshot { meta, snapshot }))
    }
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
        format!("an invariant is broken: {text}")
    })
}

/// Writes a snapshot off the apply path.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    past: Past,
    state: State,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Content;

    /// A snapshot that cannot be written (a full disk) is no reason to stop: the log goes on and the next attempt may
    /// succeed. openraft takes any error here as fatal, so it is given the snapshot that there is, and learns nothing
    /// new from it.
    async fn build_snapshot(&mut self) -> io::Result<StoredSnapshot> {
        let (meta, past) = (self.meta.clone(), self.past.clone());
        let (state, snapshots) = (self.state.clone(), Arc::clone(&self.snapshots));
        let stored = rt::blocking(move || {
            if !mutant("snapshot-not-stored")
                && let Err(error) = snapshots.store(&meta, &past, &state)
            {
                tracing::warn!(%error, "the snapshot could not be written; the log grows until one can");
            }
            snapshots.open()
        });
        let nothing = || {
            let content = Content { past: Past::default(), objects: Box::new(std::iter::empty()), store: None };
            (SnapshotMeta::default(), content)
        };
        let (mut meta, snapshot) = stored.await.map_err(io::Error::other)??.unwrap_or_else(nothing);
        if mutant("snapshot-not-stored") {
            meta = self.meta.clone();
        }
        Ok(StoredSnapshot { meta, snapshot })
    }
}
