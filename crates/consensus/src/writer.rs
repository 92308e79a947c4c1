//! The thread that writes the log: one FIFO, group commit, fail-stop.

use std::{
    io,
    ops::ControlFlow,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use openraft::storage::IOFlushed;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot, watch,
};

use crate::{
    Error,
    disk::{Change, Name},
    index::Index,
    records::{self, Ballot, Place},
    seal::Kind,
    store::Shared,
    types::{LogEntry, LogId, Types, Vote},
    witness::WITNESS_LAG,
};

/// Operations in one transaction: enough to let hundreds of writers share an fsync, few enough to keep one transaction
/// short.
const GROUP_OPS_MAX: usize = 512;

/// How often the files are looked at while nothing is written: soon enough that who removed one sees why the manager
/// stops, and next to nothing.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Why Raft stopped, in the words of whoever noticed first. From then on no write is acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Fault(Arc<watch::Sender<Option<Reason>>>);

#[derive(Clone, Debug)]
pub(crate) struct Reason {
    text: String,
    /// See [`Fault::set_differs`].
    differs: bool,
}

impl Default for Fault {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Fault {
    pub(crate) fn set(&self, reason: impl Into<String>) {
        self.set_first(Reason { text: reason.into(), differs: false });
    }

    /// This manager has something else than the others, or is the second one with its state folder: a person has to choose,
    /// and to start it again changes nothing.
    pub(crate) fn set_differs(&self, reason: impl Into<String>) {
        self.set_first(Reason { text: reason.into(), differs: true });
    }

    fn set_first(&self, reason: Reason) {
        let first = self.0.send_if_modified(|fault| {
            let first = fault.is_none();
            fault.get_or_insert_with(|| reason.clone());
            first
        });
        if first {
            tracing::error!(reason = reason.text, "raft stops");
        }
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.0.borrow().as_ref().map(|reason| reason.text.clone())
    }

    pub(crate) fn differs(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(|reason| reason.differs)
    }

    /// Waits until there is one.
    pub(crate) async fn wait(&self) {
        // The sender is a field of this very value.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }
}

/// Told when an operation is durable, or that it failed.
pub(crate) type Done = oneshot::Sender<io::Result<()>>;

/// An operation on the log. They are done in the order of their sending.
pub(crate) enum Op {
    /// The first one: the witness says where the log stands, and the log that it has a witness.
    Begin(Done),
    /// New entries at the end.
    Append(Vec<LogEntry>, IOFlushed<Types>),
    /// A vote.
    Vote(Vote, Done),
    /// Entries after this one go.
    TruncateAfter(Option<LogId>, Done),
    /// Entries up to this one go. Nobody waits: a purge that is lost is done again.
    Purge(LogId),
    /// The end: what is left of the hints is written.
    Close(Done),
}

/// Starts the thread, and one beside it for the witness.
pub(crate) fn start(shared: Arc<Shared>) -> io::Result<UnboundedSender<Op>> {
    let (sender, ops) = unbounded_channel();
    #[cfg(feature = "sim")]
    if let Some(life) = crate::sim::life() {
        crate::sim::start_writer(&life, shared, ops);
        return Ok(sender);
    }
    // One signal is as good as many.
    let (appended, signals) = sync_channel(1);
    let witness = Arc::clone(&shared);
    thread::Builder::new().name("raft-witness".into()).spawn(move || keep_witness(&witness, &signals))?;
    thread::Builder::new().name("raft-log".into()).spawn(move || run(&shared, ops, &appended))?;
    Ok(sender)
}

fn run(shared: &Shared, mut ops: UnboundedReceiver<Op>, appended: &SyncSender<()>) {
    let mut hint = shared.index().committed;
    while let Some(first) = ops.blocking_recv() {
        let group = gather(first, &mut ops);
        let written = foretell(shared, &group).and_then(|()| write(shared, &group, &mut hint));
        let written = written.and_then(|()| conclude(shared, &group));
        match settle(shared, group, written) {
            // A signal that waits already will do.
            ControlFlow::Continue(()) => drop(appended.try_send(())),
            ControlFlow::Break(None) => return,
            ControlFlow::Break(Some(reason)) => {
                while let Some(op) = ops.blocking_recv() {
                    fail(op, &reason);
                }
                return;
            }
        }
    }
}

/// Lets the witness follow the log until the log's thread ends: apart from it, so that no write waits.
fn keep_witness(shared: &Shared, appended: &Receiver<()>) {
    loop {
        let kept = match appended.recv_timeout(CHECK_PERIOD) {
            Ok(()) => {
                thread::park_timeout(WITNESS_LAG);
                shared.bear_witness()
            }
            Err(RecvTimeoutError::Timeout) => shared.check(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Err(error) = kept {
            return shared.fault().set(broken(&error));
        }
    }
}

/// What is said of a log that cannot be written.
pub(crate) fn broken(error: &Error) -> String {
    format!("the log cannot be written: {error}{}", error.way_out())
}

/// An operation, and those that wait behind it.
pub(crate) fn gather(first: Op, ops: &mut UnboundedReceiver<Op>) -> Vec<Op> {
    let mut group = vec![first];
    while group.len() < GROUP_OPS_MAX
        && let Ok(next) = ops.try_recv()
    {
        group.push(next);
    }
    group
}

/// Says what became of a group. The writer ends with the log, or for a reason with which all that follows fails:
/// nobody knows what is on the disk then.
pub(crate) fn settle(shared: &Shared, group: Vec<Op>, written: Result<(), Error>) -> ControlFlow<Option<String>> {
    // What was found broken elsewhere ends the acknowledgements here.
    let written = written.map_err(|error| (broken(&error), error.to_string())).and_then(|()| {
        let fault = shared.fault().get();
        fault.map_or(Ok(()), |reason| Err((reason.clone(), reason)))
    });
    if let Err((fault, reason)) = written {
        shared.fault().set(fault);
        group.into_iter().for_each(|op| fail(op, &reason));
        return ControlFlow::Break(Some(reason));
    }
    // At once: the witness must not see an entry that is gone at the end of the group.
    mark_flushed(&mut shared.index_mut(), &group);
    let closing = is_end(&group);
    group.into_iter().for_each(|op| finish(op, Ok(())));
    if closing { ControlFlow::Break(None) } else { ControlFlow::Continue(()) }
}

/// Says that an operation did not happen, or perhaps did.
pub(crate) fn fail(op: Op, reason: &str) {
    finish(op, Err(io::Error::other(reason.to_owned())));
}

/// Whether the witness has to know of this group before it is written.
#[cfg(feature = "sim")]
pub(crate) fn is_foretold(group: &[Op]) -> bool {
    group.iter().any(|op| matches!(op, Op::Begin(_) | Op::Vote(..) | Op::TruncateAfter(..)))
}

/// Tells the witness what it has to know before a group is written: a vote, and which entries go.
pub(crate) fn foretell(shared: &Shared, group: &[Op]) -> Result<(), Error> {
    for op in group {
        match op {
            Op::Begin(_) => shared.begin_witness()?,
            Op::Vote(vote, _) => shared.say(|testimony, _| testimony.voted(*vote))?,
            Op::TruncateAfter(last, _) => {
                shared.index_mut().unflushed(*last);
                shared.bear_witness()?;
            }
            Op::Append(..) | Op::Purge(_) | Op::Close(_) => {}
        }
    }
    Ok(())
}

/// Whether the log ends with this group.
pub(crate) fn is_end(group: &[Op]) -> bool {
    group.iter().any(|op| matches!(op, Op::Close(_)))
}

/// Tells the witness the end, if it has come.
pub(crate) fn conclude(shared: &Shared, group: &[Op]) -> Result<(), Error> {
    if is_end(group) { shared.end_witness(flushed_after(shared, group)) } else { Ok(()) }
}

/// Notes what is durable once this group is written.
fn mark_flushed(index: &mut Index, group: &[Op]) {
    for op in group {
        match op {
            Op::Append(entries, _) => entries.last().into_iter().for_each(|last| index.flushed(last.log_id)),
            Op::TruncateAfter(last, _) => index.unflushed(*last),
            Op::Purge(upto) => index.purge_flushed(*upto),
            Op::Begin(_) | Op::Vote(..) | Op::Close(_) => {}
        }
    }
}

/// The last durable entry once this group is written.
fn flushed_after(shared: &Shared, group: &[Op]) -> Option<LogId> {
    let mut index = Index::default();
    index.flushed = shared.index().flushed;
    mark_flushed(&mut index, group);
    index.flushed
}

/// Writes a group of operations in one transaction.
pub(crate) fn write(shared: &Shared, group: &[Op], hint: &mut Option<LogId>) -> Result<(), Error> {
    commit(shared, group, hint).map_err(|error| Error::io(shared.log_file(), error))
}

fn commit(shared: &Shared, group: &[Op], hint: &mut Option<LogId>) -> io::Result<()> {
    let seal = |kind, index, plain: &[u8]| {
        shared.seal().seal(kind, index, plain).map_err(|_| io::Error::other("the system gave no random bytes"))
    };
    let voted = |vote: &Vote| {
        let ballot = records::encode(&Ballot::from(*vote)).map_err(io::Error::other)?;
        Ok::<_, io::Error>(Change::Value(Name::Vote, seal(Kind::Vote, 0, &ballot)?))
    };
    let mut changes = Vec::with_capacity(group.len() + 1);
    let mut end = shared.index().flushed_end();
    for op in group {
        match op {
            Op::Append(entries, _) => {
                for entry in entries {
                    let index = entry.log_id.index;
                    let row = records::encode_row(entry).map_err(io::Error::other)?;
                    changes.push(Change::Row { index, bytes: seal(Kind::Row, index, &row)? });
                    end = index + 1;
                }
            }
            Op::Vote(vote, _) => changes.push(voted(vote)?),
            Op::TruncateAfter(last, _) => {
                let index = last.map_or(0, |last| last.index + 1);
                changes.push(Change::RemoveFrom(index));
                end = end.min(index);
            }
            Op::Purge(upto) => {
                let place = records::encode(&Place::from(*upto)).map_err(io::Error::other)?;
                changes.push(Change::Value(Name::Purged, seal(Kind::Purged, 0, &place)?));
                changes.push(Change::RemoveTo(upto.index));
                end = end.max(upto.index + 1);
            }
            Op::Begin(_) => {
                if !shared.noted() {
                    changes.push(Change::Value(Name::Witness, vec![1]));
                }
                changes.extend(shared.lost_vote().map(|vote| voted(&vote)).transpose()?);
            }
            Op::Close(_) => {}
        }
    }
    // The commit hint rides along. It may be old, but never points behind what is durable.
    let committed = shared.index().committed.filter(|committed| committed.index < end);
    if committed > *hint
        && let Some(committed) = committed
    {
        let place = records::encode(&Place::from(committed)).map_err(io::Error::other)?;
        changes.push(Change::Value(Name::Committed, seal(Kind::Committed, 0, &place)?));
        *hint = Some(committed);
    }
    if changes.is_empty() { Ok(()) } else { shared.disk().commit(&changes) }
}

fn finish(op: Op, result: io::Result<()>) {
    match op {
        Op::Append(_, flushed) => flushed.io_completed(result),
        // A receiver that is gone no longer wants to know.
        Op::Begin(done) | Op::Vote(_, done) | Op::TruncateAfter(_, done) | Op::Close(done) => drop(done.send(result)),
        Op::Purge(_) => {}
    }
}
