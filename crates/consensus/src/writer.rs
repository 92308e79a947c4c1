//! The thread that writes the log: one FIFO, group commit, fail-stop.

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    thread,
};

use openraft::storage::IOFlushed;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};

use crate::{
    Error,
    disk::{Change, Name},
    records::{self, Ballot, Place},
    seal::Kind,
    store::Shared,
    types::{LogEntry, LogId, Types, Vote},
};

/// Operations in one transaction: enough to let hundreds of writers share an fsync, few enough to keep one transaction
/// short.
const GROUP_OPS_MAX: usize = 512;

/// Why Raft stopped, in the words of whoever noticed first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Arc<OnceLock<String>>);

impl Fault {
    pub(crate) fn set(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.0.set(reason.clone()).is_ok() {
            tracing::error!(reason, "raft stops");
        }
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

/// Told when an operation is durable, or that it failed.
pub(crate) type Done = oneshot::Sender<io::Result<()>>;

/// An operation on the log. They are done in the order of their sending.
pub(crate) enum Op {
    /// New entries at the end.
    Append(Vec<LogEntry>, IOFlushed<Types>),
    /// A vote.
    Vote(Vote, Done),
    /// Entries with this index and higher ones go.
    RemoveFrom(u64, Done),
    /// Entries up to this one go. Nobody waits: a purge that is lost is done again.
    Purge(LogId),
    /// The end: what is left of the hints is written.
    Close(Done),
}

/// Starts the thread.
pub(crate) fn start(shared: Arc<Shared>) -> io::Result<UnboundedSender<Op>> {
    let (sender, ops) = unbounded_channel();
    #[cfg(feature = "sim")]
    if let Some(life) = crate::sim::life() {
        life.spawn(crate::sim::run_writer(Arc::clone(&life), shared, ops));
        return Ok(sender);
    }
    thread::Builder::new().name("raft-log".into()).spawn(move || run(&shared, ops))?;
    Ok(sender)
}

fn run(shared: &Shared, mut ops: UnboundedReceiver<Op>) {
    let mut hint = shared.index().committed;
    while let Some(first) = ops.blocking_recv() {
        let group = gather(first, &mut ops);
        let written = write(shared, &group, &mut hint);
        match settle(shared, group, written) {
            ControlFlow::Continue(()) => {}
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
pub(crate) fn settle(shared: &Shared, group: Vec<Op>, written: io::Result<()>) -> ControlFlow<Option<String>> {
    if let Err(error) = written {
        let error = Error::io(shared.log_file(), error);
        let reason = error.to_string();
        shared.fault().set(format!("the log cannot be written: {reason}{}", error.way_out()));
        group.into_iter().for_each(|op| fail(op, &reason));
        return ControlFlow::Break(Some(reason));
    }
    for op in &group {
        match op {
            Op::Append(entries, _) => {
                if let Some(last) = entries.last() {
                    shared.index_mut().flushed(last.log_id.index + 1);
                }
            }
            Op::RemoveFrom(index, _) => shared.index_mut().unflushed(*index),
            Op::Purge(upto) => shared.index_mut().purge_flushed(*upto),
            Op::Vote(..) | Op::Close(_) => {}
        }
    }
    let closing = group.iter().any(|op| matches!(op, Op::Close(_)));
    group.into_iter().for_each(|op| finish(op, Ok(())));
    if closing { ControlFlow::Break(None) } else { ControlFlow::Continue(()) }
}

/// Says that an operation did not happen, or perhaps did.
pub(crate) fn fail(op: Op, reason: &str) {
    finish(op, Err(io::Error::other(reason.to_owned())));
}

/// Writes a group of operations in one transaction.
pub(crate) fn write(shared: &Shared, group: &[Op], hint: &mut Option<LogId>) -> io::Result<()> {
    let seal = |kind, index, plain: &[u8]| {
        shared.seal().seal(kind, index, plain).map_err(|_| io::Error::other("the system gave no random bytes"))
    };
    let mut changes = Vec::with_capacity(group.len() + 1);
    let mut end = shared.index().flushed_end;
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
            Op::Vote(vote, _) => {
                let ballot = records::encode(&Ballot::from(*vote)).map_err(io::Error::other)?;
                changes.push(Change::Value(Name::Vote, seal(Kind::Vote, 0, &ballot)?));
            }
            Op::RemoveFrom(index, _) => {
                changes.push(Change::RemoveFrom(*index));
                end = end.min(*index);
            }
            Op::Purge(upto) => {
                let place = records::encode(&Place::from(*upto)).map_err(io::Error::other)?;
                changes.push(Change::Value(Name::Purged, seal(Kind::Purged, 0, &place)?));
                changes.push(Change::RemoveTo(upto.index));
                end = end.max(upto.index + 1);
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
        Op::Vote(_, done) | Op::RemoveFrom(_, done) | Op::Close(done) => drop(done.send(result)),
        Op::Purge(_) => {}
    }
}
