//! The log as openraft sees it.
//!
//! The newest entries stay in memory, so that they can be read before they are durable and are applied and replicated
//! without being decoded again; older ones are read back from the disk.

use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures_util::{Stream, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use swarm_model::mutant::mutant;
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{
    Error,
    disk::{Disk, Name},
    history::History,
    index::Index,
    records::{self, Ballot, Place, RowError},
    rt,
    seal::{Kind, Seal},
    types::{LogEntry, LogId, Types, Vote, weight},
    witness::{self, Testimony, Witness},
    writer::{self, Fault, Op},
};

/// Bytes of entries that one read for replication or apply returns, one entry at least: with a last entry of the
/// greatest size they fit into a frame to another manager.
const READ_BYTES: usize = 2 * 1024 * 1024;

/// What the store, its readers and the writer thread share.
pub(crate) struct Shared {
    disk: Arc<dyn Disk>,
    seal: Seal,
    index: RwLock<Index>,
    witness: Witness,
    noted: bool,
    lost_vote: Option<Vote>,
    history: History,
    fault: Fault,
}

impl Shared {
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn seal(&self) -> &Seal {
        &self.seal
    }

    pub(crate) fn fault(&self) -> &Fault {
        &self.fault
    }

    pub(crate) fn log_file(&self) -> String {
        self.disk.log_file()
    }

    #[cfg(feature = "sim")]
    pub(crate) fn witness_file(&self) -> String {
        self.disk.witness_file()
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if a file of the log was removed or replaced.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.disk.check().map_err(|error| Error::io(self.log_file(), error))
    }

    /// Takes what was read for the log, and lets the witness say where it stands. Blocks.
    pub(crate) fn begin_witness(&self) -> Result<(), Error> {
        self.disk.accept().map_err(|error| Error::io(self.log_file(), error))?;
        self.witness.begin(&*self.disk, &self.seal, || Testimony::of(&self.index()))
    }

    /// The log says already that it has a witness.
    pub(crate) fn noted(&self) -> bool {
        self.noted
    }

    /// A vote that the log did not have and the witness knew.
    pub(crate) fn lost_vote(&self) -> Option<Vote> {
        self.lost_vote
    }

    /// Lets the witness say something. Blocks.
    pub(crate) fn say(&self, change: impl FnOnce(Testimony, &Index) -> Testimony) -> Result<(), Error> {
        self.witness.say(&*self.disk, &self.seal, |testimony| change(testimony, &self.index()))
    }

    /// Lets the witness say which entry is the last durable one. Blocks.
    pub(crate) fn bear_witness(&self) -> Result<(), Error> {
        self.say(|testimony, index| testimony.up_to(index.flushed))
    }

    /// Lets the witness say that the manager was stopped in order, with this last entry. Blocks.
    pub(crate) fn end_witness(&self, last: Option<LogId>) -> Result<(), Error> {
        self.witness.end(&*self.disk, &self.seal, last)
    }

    /// Reads entries, at most about so many bytes but one at least. Blocks.
    fn read_disk(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut bytes = 0;
        self.disk.rows(range.clone(), &mut |index, row| {
            let entry = open_row(&self.seal, &self.disk.log_file(), index, row)?;
            bytes += weight(&entry);
            entries.push(entry);
            Ok(bytes < bytes_max)
        })?;
        // Only a purge that came in between may have taken entries, and only from the start.
        let mut expected = range.start.max(self.index().start);
        for entry in &entries {
            if entry.log_id.index != expected.min(entry.log_id.index) {
                return Err(Error::corrupt(self.log_file(), format!("entry {expected} is missing")).into());
            }
            expected = entry.log_id.index + 1;
        }
        if bytes < bytes_max && expected < range.end {
            return Err(Error::corrupt(self.log_file(), format!("entry {expected} is missing")).into());
        }
        Ok(entries)
    }

    async fn read(self: &Arc<Self>, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let (on_disk, tail): (_, Vec<LogEntry>) = {
            let index = self.index();
            let (on_disk, in_memory) = index.split(range);
            (on_disk, in_memory.cloned().collect())
        };
        let mut entries = Vec::new();
        if !on_disk.is_empty() {
            let shared = Arc::clone(self);
            let end = on_disk.end;
            entries = rt::blocking(move || shared.read_disk(on_disk, bytes_max)).await.map_err(io::Error::other)??;
            if entries.last().is_none_or(|last| last.log_id.index + 1 < end) && bytes_max < usize::MAX {
                return Ok(entries);
            }
        }
        let mut bytes: usize = entries.iter().map(weight).sum();
        for entry in tail {
            if !entries.is_empty() && bytes >= bytes_max {
                break;
            }
            bytes += weight(&entry);
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn open_row(seal: &Seal, file: &str, index: u64, row: &[u8]) -> Result<LogEntry, Error> {
    let plain = seal
        .open(Kind::Row, index, row)
        .map_err(|_| Error::corrupt(file, format!("entry {index} is not what was written")))?;
    records::decode_row(index, &plain).map_err(|error| match error {
        RowError::Malformed(detail) => Error::corrupt(file, format!("entry {index}: {detail}")),
        RowError::Newer(detail) => Error::Newer { file: file.into(), detail: format!("entry {index}: {detail}") },
    })
}

/// The log. Clones are handles of the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    ops: UnboundedSender<Op>,
    stopped_in_order: bool,
}

impl LogStore {
    /// Reads and checks the whole log, compares it with its witness and starts the writer thread. Changes nothing: that
    /// comes with [`LogStore::begin`]. Blocks.
    pub(crate) fn open(disk: Arc<dyn Disk>, seal: Seal, history: History, fault: Fault) -> Result<Self, Error> {
        let file = disk.log_file();
        let value = |name: Name, kind: Kind| {
            let Some(sealed) = disk.value(name).map_err(|error| Error::io(&file, error))? else { return Ok(None) };
            let damaged = || Error::corrupt(&file, format!("value {name:?} is not what was written"));
            seal.open(kind, 0, &sealed).map(Some).map_err(|_| damaged())
        };
        let place = |name: Name, kind: Kind| -> Result<Option<LogId>, Error> {
            let Some(plain) = value(name, kind)? else { return Ok(None) };
            let place: Place = records::decode(&plain).map_err(|error| Error::corrupt(&file, error))?;
            Ok(Some(place.into()))
        };
        let mut index = Index::default();
        index.committed = place(Name::Committed, Kind::Committed)?;
        index.purged = place(Name::Purged, Kind::Purged)?;
        if let Some(plain) = value(Name::Vote, Kind::Vote)? {
            let ballot: Ballot = records::decode(&plain).map_err(|error| Error::corrupt(&file, error))?;
            index.vote = Some(ballot.into());
        }
        let found = witness::read(&*disk, &seal)?;
        let noted = disk.value(Name::Witness).map_err(|error| Error::io(&file, error))?.is_some();
        let last = found.as_ref().and_then(|found| found.testimony().last());
        let mut at_last = None;
        (index.start, index.flushed) = (index.end(), index.purged);
        disk.rows(0..u64::MAX, &mut |at, row| {
            let expected = index.end();
            if at != expected {
                return Err(Error::corrupt(&file, format!("entry {expected} is missing, entry {at} follows")).into());
            }
            let entry = open_row(&seal, &file, at, row)?;
            let log_id = entry.log_id;
            at_last = at_last.or(last.filter(|last| last.index == at).map(|_| log_id));
            index.push(entry);
            index.flushed(log_id);
            Ok(true)
        })
        .map_err(|error| match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::corrupt(&file, error.to_string()),
        })?;
        // The hint is written with the entries that it names, or after them.
        if let Some(committed) = index.committed.filter(|committed| committed.index >= index.end()) {
            let (end, known) = (index.end(), committed.index);
            let detail = format!("it ends before entry {end}, although entry {known} was committed here");
            return Err(Error::corrupt(&file, detail));
        }
        let own_vote = index.vote;
        let stopped_in_order = witness::compare(&*disk, found.as_ref(), noted, &mut index, at_last)?;
        let witness = Witness::new(found);
        let lost_vote = index.vote.filter(|_| index.vote != own_vote);
        let shared = Shared { disk, seal, index: RwLock::new(index), witness, noted, lost_vote, history, fault };
        let shared = Arc::new(shared);
        let ops = writer::start(Arc::clone(&shared)).map_err(|error| Error::io(file, error))?;
        Ok(Self { shared, ops, stopped_in_order })
    }

    /// Goes on with what was read: the witness says where the log stands. Before anything else is written.
    pub(crate) async fn begin(&self) -> io::Result<()> {
        // A log of a version without a witness says nothing of its end.
        if !self.stopped_in_order && self.shared.noted {
            witness::warn_unvouched(self.shared.disk(), self.ends().1);
        }
        self.done(Op::Begin).await
    }

    /// The same for a vote that is written without this log's writer. Blocks.
    pub(crate) fn foretell(&self, vote: Vote) -> Result<(), Error> {
        self.shared.begin_witness()?;
        self.shared.say(|testimony, _| testimony.voted(vote))
    }

    /// Whether the log is known to be whole: its manager was stopped in order. Otherwise entries of the last moment before
    /// it stopped may be lost, and nothing on this machine can tell.
    pub(crate) fn stopped_in_order(&self) -> bool {
        self.stopped_in_order
    }

    /// Log id of the last entry that is gone.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.index().purged
    }

    /// The vote, and the last entry that there is or was.
    pub(crate) fn ends(&self) -> (Option<Vote>, Option<LogId>) {
        let index = self.shared.index();
        (index.vote, index.last.or(index.purged))
    }

    /// Refuses to take back what is committed. Raft never asks for it, unless a majority of the managers has forgotten
    /// it.
    fn check_truncation(&self, last: Option<LogId>) -> io::Result<()> {
        let (committed, end) = {
            let index = self.shared.index();
            (index.committed, index.last.or(index.purged))
        };
        let applied = self.shared.history.get();
        // An entry that is committed is about to be applied.
        let kept = applied.last().max(committed);
        if kept.is_none_or(|kept| last.is_some_and(|last| kept.index <= last.index)) {
            return Ok(());
        }
        let reason = applied.explain(None, last.map(|last| last.index), end);
        self.shared.fault.set_differs(reason.clone());
        Err(io::Error::other(reason))
    }

    /// Index after the last entry that is durable and not about to go.
    #[cfg(feature = "sim")]
    pub(crate) fn durable_end(&self) -> u64 {
        let index = self.shared.index();
        index.flushed_end().min(index.end())
    }

    /// Ends the writer thread once everything sent before is durable.
    pub(crate) async fn close(&self) {
        // An error means that the thread has ended already.
        drop(self.done(Op::Close).await);
    }

    fn send(&self, op: Op) -> io::Result<()> {
        self.ops
            .send(op)
            .map_err(|_| io::Error::other(self.shared.fault.get().unwrap_or_else(|| "the log is closed".into())))
    }

    async fn done(&self, op: impl FnOnce(writer::Done) -> Op) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.send(op(done))?;
        wait.await.map_err(|_| io::Error::other("the log's writer has ended"))?
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        self.shared.read(half_open(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.shared.read(start..end, READ_BYTES).await
    }

    /// Streams in pieces: after a restart there may be more to apply than should be in memory at once.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<LogEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let shared = Arc::clone(&self.shared);
        stream::unfold((half_open(&range), VecDeque::new()), move |(mut rest, mut ready)| {
            let shared = Arc::clone(&shared);
            async move {
                if ready.is_empty() && !rest.is_empty() {
                    match shared.read(rest.clone(), READ_BYTES).await {
                        Ok(entries) => ready.extend(entries),
                        Err(error) => return Some((Err(error), (0..0, ready))),
                    }
                }
                let entry: LogEntry = ready.pop_front()?;
                rest.start = entry.log_id.index + 1;
                Some((Ok(entry), (rest, ready)))
            }
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.index().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let index = self.shared.index();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last.or(index.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        if mutant("vote-not-persisted") {
            self.shared.index_mut().vote = Some(vote);
            return Ok(());
        }
        self.done(|done| Op::Vote(vote, done)).await?;
        self.shared.index_mut().vote = Some(vote);
        Ok(())
    }

    /// Costs nothing: the writer puts the newest value into its next transaction.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shared.index_mut().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.index().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        {
            let mut index = self.shared.index_mut();
            for entry in &entries {
                index.push(entry.clone());
            }
        }
        self.send(Op::Append(entries, flushed))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.check_truncation(last)?;
        self.shared.index_mut().truncate_after(last);
        if mutant("truncate-not-persisted") {
            return Ok(());
        }
        self.done(|done| Op::TruncateAfter(last, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.shared.index_mut().purge(upto);
        self.send(Op::Purge(upto))
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
