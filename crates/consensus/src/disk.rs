//! What the log stands on: SQLite in a folder, or memory.

#![cfg_attr(not(feature = "sim"), expect(unreachable_pub, reason = "the simulator has a disk of its own"))]

mod folder;
#[cfg(test)]
pub(crate) mod memory;
mod slots;
mod wal;

use std::{
    fs::File,
    io::{self, Read, Write},
    ops::Range,
    path::Path,
};

pub(crate) use folder::FolderDisk;
use swarm_model::Timestamp;

/// A change to the disk. Those of one [`Disk::commit`] happen together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new row; there is none with that index.
    Row {
        /// Its index.
        index: u64,
        /// Its sealed bytes.
        bytes: Vec<u8>,
    },
    /// Rows with this index and higher ones go.
    RemoveFrom(u64),
    /// Rows with this index and lower ones go.
    RemoveTo(u64),
    /// A named value is set.
    Value(Name, Vec<u8>),
}

/// Names of single values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Who owns the store.
    Identity,
    /// Random name of the store, not sealed.
    Store,
    /// The vote.
    Vote,
    /// The commit hint.
    Committed,
    /// The last purged log id.
    Purged,
    /// There is a witness; its absence is damage from then on. Not sealed.
    Witness,
}

impl Name {
    fn text(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Store => "store",
            Self::Vote => "vote",
            Self::Committed => "committed",
            Self::Purged => "purged",
            Self::Witness => "witness",
        }
    }
}

/// Takes rows in order of their index; `false` ends the reading.
pub type RowVisitor<'a> = dyn FnMut(u64, &[u8]) -> io::Result<bool> + 'a;
/// Writes a file.
pub type FileWriter<'a> = dyn FnMut(&mut dyn Write) -> io::Result<()> + 'a;

/// What the files take, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Size of the snapshot, and when it was written.
    pub snapshot: Option<(u64, Timestamp)>,
    /// Bytes that may still be written, and those that the file system has.
    pub room: Option<(u64, u64)>,
}

/// Slots of the witness.
pub const WITNESS_SLOTS: usize = 2;
/// The longest content of a slot.
pub const WITNESS_SLOT_BYTES: usize = 4096;

/// Durable storage of one log, one snapshot and one witness. All calls block. The caller sees to it that only one thread commits.
pub trait Disk: Send + Sync + 'static {
    /// The file that holds rows and values, for error messages.
    fn log_file(&self) -> String;
    /// The file that holds the newest rows, for error messages.
    fn tail_file(&self) -> String {
        self.log_file()
    }
    /// The file that holds the witness, for error messages.
    fn witness_file(&self) -> String;
    /// The file that holds the snapshot, for error messages.
    fn snapshot_file(&self) -> String;
    /// Reads a named value.
    fn value(&self, name: Name) -> io::Result<Option<Vec<u8>>>;
    /// Reads rows.
    fn rows(&self, range: Range<u64>, visit: &mut RowVisitor<'_>) -> io::Result<()>;
    /// What was read is taken for the log: only now may anything be changed, and what a power cut left behind the last
    /// whole write goes. Called before anything is written.
    fn accept(&self) -> io::Result<()> {
        Ok(())
    }
    /// Reads the slots of the witness; none if there is no witness. A slot that was never written, or whose write was
    /// torn, holds anything or nothing.
    fn witness(&self) -> io::Result<Option<[Vec<u8>; WITNESS_SLOTS]>>;
    /// Writes one slot of the witness, and makes the witness if there is none. When it returns, what was written survives
    /// a power cut; whatever happens, the other slot is untouched. At most [`WITNESS_SLOT_BYTES`].
    fn write_witness(&self, slot: usize, bytes: &[u8]) -> io::Result<()>;
    /// Fails if a file of the log was removed or replaced since it was opened. Quick.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
    /// Writes changes. When it returns they survive a power cut; when it fails, nobody knows, and nothing more may be
    /// written.
    fn commit(&self, changes: &[Change]) -> io::Result<()>;
    /// Replaces the snapshot. When it returns the new one survives a power cut; when it fails the old one is untouched.
    fn write_snapshot(&self, write: &mut FileWriter<'_>) -> io::Result<()>;
    /// Opens the snapshot; it stays readable while it is replaced.
    fn read_snapshot(&self) -> io::Result<Option<Box<dyn Read + Send>>>;
    /// What the files take, and what is left; blocks for a moment. Nothing where there are no files.
    fn usage(&self) -> Usage {
        Usage::default()
    }
    /// Waits for what is under way and lets go of the files. Later calls fail.
    fn close(&self);
}

/// How many bytes of a write-ahead file a start keeps, or why it refuses it.
#[cfg(test)]
pub(crate) fn walk_bytes(bytes: &[u8]) -> Result<u64, String> {
    match wal::walk(bytes).map_err(|error| error.to_string())? {
        wal::Verdict::Whole => Ok(bytes.len() as u64),
        wal::Verdict::TornAt(end) => Ok(end),
        wal::Verdict::Damaged(detail) => Err(detail),
    }
}

/// Makes the names in the folder of this path durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn closed() -> io::Error {
    io::Error::other("the log is closed")
}
