//! The witness: a second, sealed file beside the log that says how far the log had come.
//!
//! A log that lost its end looks like a log whose last write was torn by a power cut. What tells the two apart is written
//! here: a copy of the vote, synced before the vote counts, and the last durable log id, synced soon after
//! ([`WITNESS_LAG`]), exactly when the manager is stopped in order, and lowered before entries are truncated. So the
//! witness never says more than the log had, and a log that has less has lost something.
//!
//! The file has two slots of a fixed size, written in turn: a write that is torn leaves the other one. A slot is a
//! sequence number, a length, and the [`Testimony`] in named MessagePack, sealed with the number.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use swarm_model::mutant::mutant;

use crate::{
    Error,
    disk::{Disk, WITNESS_SLOTS},
    index::Index,
    records::{self, Ballot, Place},
    seal::{Kind, Seal},
    types::{LogId, Vote},
};

/// From the moment at which an entry is durable to the write of the witness. The sync comes on top: within
/// [`UNVOUCHED_MS`] on any disk that is fit for a log. Shorter would cost the log more syncs beside its own.
pub(crate) const WITNESS_LAG: Duration = Duration::from_millis(60);
/// What an end that was not in order may take without a trace.
const UNVOUCHED_MS: u64 = 100;

/// What the witness says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Testimony {
    /// The vote, or one that never came to count.
    vote: Option<Ballot>,
    /// An entry that the log had, or that a snapshot took the place of: the last one, but for those of the last moment.
    last: Option<Place>,
    /// The manager was stopped in order: `last` is exact.
    #[serde(default)]
    orderly: bool,
}

impl Testimony {
    fn vote(&self) -> Option<Vote> {
        self.vote.map(Vote::from)
    }

    /// The entry that the log must have.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.last.map(LogId::from)
    }
}

/// The testimony that was found at the start.
#[derive(Debug)]
pub(crate) struct Found {
    testimony: Testimony,
    sequence: u64,
    /// The other slot could be read as well. If not, a power cut tore it, or there is an older testimony only.
    whole: bool,
}

impl Found {
    pub(crate) fn testimony(&self) -> &Testimony {
        &self.testimony
    }
}

/// Reads the witness; none if there is no file.
pub(crate) fn read(disk: &dyn Disk, seal: &Seal) -> Result<Option<Found>, Error> {
    let file = disk.witness_file();
    let Some(slots) = disk.witness().map_err(|error| Error::io(&file, error))? else { return Ok(None) };
    let read: Vec<_> = slots.iter().filter_map(|slot| open_slot(seal, slot)).collect();
    let whole = read.len() == WITNESS_SLOTS;
    match read.into_iter().max_by_key(|(sequence, _)| *sequence) {
        Some((sequence, plain)) => {
            let testimony = records::decode(&plain).map_err(|error| Error::corrupt(&file, error))?;
            Ok(Some(Found { testimony, sequence, whole }))
        }
        None => Err(Error::corrupt(file, "neither of its two copies is what was written for this log")),
    }
}

fn open_slot(seal: &Seal, slot: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (sequence, rest) = slot.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let sequence = u64::from_le_bytes(*sequence);
    let sealed = rest.get(..u32::from_le_bytes(*length) as usize)?;
    Some((sequence, seal.open(Kind::Witness, sequence, sealed).ok()?))
}

fn seal_slot(seal: &Seal, sequence: u64, testimony: &Testimony) -> Result<Vec<u8>, Error> {
    let plain = records::encode(testimony).map_err(Error::Stopped)?;
    let sealed = seal.seal(Kind::Witness, sequence, &plain);
    let sealed = sealed.map_err(|_| Error::Stopped("the system gave no random bytes".into()))?;
    let length = sealed.len() as u32;
    Ok([&sequence.to_le_bytes()[..], &length.to_le_bytes()[..], &sealed].concat())
}

/// Compares a log with its witness: takes over the higher vote, and says whether the log is known to be whole. `noted`:
/// the log says that it has a witness. `at_last`: the entry that the log has where the witness says that one was.
///
/// # Errors
/// The log has lost entries, or the witness is missing.
pub(crate) fn compare(
    disk: &dyn Disk,
    found: Option<&Found>,
    noted: bool,
    index: &mut Index,
    at_last: Option<LogId>,
) -> Result<bool, Error> {
    let end = index.last.or(index.purged);
    if mutant("witness-ignored") {
        return Ok(false);
    }
    let Some(Found { testimony, whole, .. }) = found else {
        if noted {
            let detail = "it says how far the log of this manager had come, so that a loss is noticed";
            return Err(Error::Missing { file: disk.witness_file(), detail: detail.into() });
        }
        // A new log, or one of a version that had no witness.
        return Ok(end.is_none() && index.vote.is_none());
    };
    // The witness gets every vote first: this one has been put back, or an older swarmd has run meanwhile.
    let outdated = index.vote > testimony.vote();
    if outdated {
        tracing::warn!(
            file = disk.witness_file(),
            "the witness is older than the log: it cannot tell whether entries are lost"
        );
    } else if let Some(last) = testimony.last() {
        let purged = index.purged.is_some_and(|purged| last.index <= purged.index);
        if !purged && at_last != Some(last) {
            return Err(lost(disk, end, last));
        }
    }
    if testimony.vote() > index.vote {
        index.vote = testimony.vote();
    }
    Ok(testimony.orderly && testimony.last() == end && *whole && !outdated)
}

/// What a log says that is not what its witness saw.
fn lost(disk: &dyn Disk, end: Option<LogId>, last: LogId) -> Error {
    let (tail, witness) = (disk.tail_file(), disk.witness_file());
    let what = match end {
        Some(end) if end.index >= last.index => format!("its entry {} is another one than was written", last.index),
        Some(end) => format!("it ends with entry {}, and entry {} was written to it", end.index, last.index),
        None => format!("it has no entries, and entry {} was written to it", last.index),
    };
    Error::corrupt(disk.log_file(), format!("{what}, as {witness} says; the newest entries stand in {tail}"))
}

/// Says that the end of a log cannot be vouched for.
pub(crate) fn warn_unvouched(disk: &dyn Disk, end: Option<LogId>) {
    tracing::warn!(
        file = disk.log_file(),
        last_entry = end.map(|end| end.index),
        "this manager was not stopped in order: the last {UNVOUCHED_MS} ms before that cannot be vouched for"
    );
}

/// Writes the witness.
#[derive(Debug)]
pub(crate) struct Witness(Mutex<Written>);

#[derive(Debug)]
struct Written {
    sequence: u64,
    testimony: Testimony,
    /// The last word has been said.
    over: bool,
}

impl Witness {
    /// Goes on behind what was found.
    pub(crate) fn new(found: Option<Found>) -> Self {
        let (sequence, testimony) = found.map_or_else(Default::default, |found| (found.sequence, found.testimony));
        Self(Mutex::new(Written { sequence, testimony, over: false }))
    }

    fn hold(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins: says where the log stands now. Blocks.
    pub(crate) fn begin(&self, disk: &dyn Disk, seal: &Seal, index: impl FnOnce() -> Testimony) -> Result<(), Error> {
        let mut written = self.hold();
        let testimony = index();
        written.write(disk, seal, testimony)
    }

    /// Says something else than before; when it returns that survives a power cut. Blocks.
    pub(crate) fn say(
        &self,
        disk: &dyn Disk,
        seal: &Seal,
        change: impl FnOnce(Testimony) -> Testimony,
    ) -> Result<(), Error> {
        let mut written = self.hold();
        let testimony = change(written.testimony.clone());
        if written.over || testimony == written.testimony { Ok(()) } else { written.write(disk, seal, testimony) }
    }

    /// Says the last word: all is in the log up to this entry. Blocks.
    pub(crate) fn end(&self, disk: &dyn Disk, seal: &Seal, last: Option<LogId>) -> Result<(), Error> {
        let mut written = self.hold();
        let testimony = Testimony { orderly: true, ..written.testimony.clone().up_to(last) };
        written.write(disk, seal, testimony)?;
        written.over = true;
        Ok(())
    }
}

impl Testimony {
    /// Of a log that is in use.
    pub(crate) fn of(index: &Index) -> Self {
        Self { vote: index.vote.map(Ballot::from), last: index.flushed.map(Place::from), orderly: false }
    }

    /// With another last entry.
    pub(crate) fn up_to(self, last: Option<LogId>) -> Self {
        Self { last: last.map(Place::from), ..self }
    }

    /// With another vote.
    pub(crate) fn voted(self, vote: Vote) -> Self {
        Self { vote: Some(vote.into()), ..self }
    }
}

impl Written {
    fn write(&mut self, disk: &dyn Disk, seal: &Seal, testimony: Testimony) -> Result<(), Error> {
        let sequence = self.sequence + 1;
        let slot = (sequence % WITNESS_SLOTS as u64) as usize;
        let bytes = seal_slot(seal, sequence, &testimony)?;
        disk.write_witness(slot, &bytes).map_err(|error| Error::io(disk.witness_file(), error))?;
        (self.sequence, self.testimony) = (sequence, testimony);
        Ok(())
    }
}
