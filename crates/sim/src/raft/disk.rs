//! Disks: what was written is there at once and survives a power cut once it was synced.
//!
//! As with SQLite, the changes of one commit happen together or not at all. Behind that stands a journal whose bytes
//! reach the disk in their order: a power cut may keep some of what was not synced, and tears the commit that it falls
//! into, which is then none.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
    ops::Range,
    sync::{Arc, Weak},
};

use swarm_consensus::sim::{Change, Disk, FileWriter, Name, RowVisitor, WITNESS_SLOTS};

use super::world::{World, hold};

/// All disks, by manager.
pub(crate) type Disks = BTreeMap<u64, Platter>;

/// One manager's disk.
#[derive(Default)]
pub(crate) struct Platter {
    durable: Files,
    /// What whoever reads now sees.
    seen: Files,
    /// Not synced yet, in order, each with the name of its write.
    unsynced: Vec<(u64, Written)>,
    writes: u64,
    /// Handles with another number belong to a manager that has ended.
    boot: u64,
    /// There is no more room.
    pub(crate) full: bool,
    /// The next sync fails.
    pub(crate) failing: bool,
    /// It has failed to write the log of a manager, which has to stop.
    pub(crate) failed: bool,
    /// It has failed to write the last snapshot. A manager that made it goes on without; one that was sent it stops.
    pub(crate) refused_snapshot: bool,
    /// Longest time that a sync takes, in milliseconds.
    pub(crate) slow_ms: u64,
}

#[derive(Clone, Default)]
struct Files {
    rows: BTreeMap<u64, Arc<[u8]>>,
    values: BTreeMap<Name, Vec<u8>>,
    snapshot: Option<Arc<[u8]>>,
    witness: Option<[Vec<u8>; WITNESS_SLOTS]>,
}

enum Written {
    Changes(Vec<Change>),
    Snapshot(Arc<[u8]>),
    /// A slot of the witness.
    Witness(usize, Vec<u8>),
}

impl Written {
    fn bytes(&self) -> u64 {
        match self {
            Self::Changes(changes) => changes.iter().map(bytes_of).sum(),
            Self::Snapshot(bytes) => bytes.len() as u64,
            Self::Witness(_, bytes) => bytes.len() as u64,
        }
    }
}

/// What a change takes of the journal, about.
fn bytes_of(change: &Change) -> u64 {
    match change {
        Change::Row { bytes, .. } | Change::Value(_, bytes) => 16 + bytes.len() as u64,
        Change::RemoveFrom(_) | Change::RemoveTo(_) => 16,
    }
}

impl Files {
    fn change(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Row { index, bytes } => {
                if self.rows.insert(*index, bytes.as_slice().into()).is_some() {
                    return Err(io::Error::other(format!("row {index} is there already")));
                }
            }
            Change::RemoveFrom(index) => drop(self.rows.split_off(index)),
            Change::RemoveTo(index) => self.rows = self.rows.split_off(&(index + 1)),
            Change::Value(name, bytes) => drop(self.values.insert(*name, bytes.clone())),
        }
        Ok(())
    }

    fn keep(&mut self, written: &Written) {
        match written {
            // It was possible when it was seen.
            Written::Changes(changes) => changes.iter().for_each(|change| drop(self.change(change))),
            Written::Snapshot(bytes) => self.snapshot = Some(Arc::clone(bytes)),
            Written::Witness(slot, bytes) => self.witness.get_or_insert_default()[*slot] = bytes.clone(),
        }
    }
}

impl Platter {
    /// Whether there is a log, made as a whole.
    pub(crate) fn is_made(&self) -> bool {
        self.durable.values.contains_key(&Name::Identity)
    }

    /// A new name; what is written from now on has it.
    pub(crate) fn begin_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    /// Makes durable what was written under this name. Snapshots are written one after the other: whoever wrote one, or
    /// left it because there is a newer one, has waited for all before.
    pub(crate) fn sync(&mut self, write: u64, kept_if_failing: bool) -> io::Result<()> {
        let is_log = |(name, written): &(u64, Written)| *name == write && matches!(written, Written::Changes(_));
        let log = self.unsynced.iter().any(is_log);
        let failing = log && std::mem::take(&mut self.failing);
        let mut rest = Vec::new();
        for (name, written) in std::mem::take(&mut self.unsynced) {
            let done = match written {
                Written::Changes(_) | Written::Witness(..) => name == write,
                Written::Snapshot(_) => !log && name <= write,
            };
            if !done {
                rest.push((name, written));
            } else if !failing || kept_if_failing {
                self.durable.keep(&written);
            }
        }
        self.unsynced = rest;
        if failing {
            self.failed = true;
            return Err(sync_failed());
        }
        Ok(())
    }

    /// The manager ends, the machine goes on: all that was written stays.
    pub(crate) fn end_process(&mut self) {
        for (_, written) in std::mem::take(&mut self.unsynced) {
            self.durable.keep(&written);
        }
        self.reboot();
    }

    /// The power is cut. Returns how many writes were lost and whether one was torn.
    pub(crate) fn cut_power(&mut self, mut random: impl FnMut(u64) -> u64) -> (u64, bool) {
        let journal: u64 =
            self.unsynced.iter().filter(|(_, w)| matches!(w, Written::Changes(_))).map(|(_, w)| w.bytes()).sum();
        let mut left = random(journal + 1);
        let (mut lost, mut torn) = (0, false);
        for (_, written) in std::mem::take(&mut self.unsynced) {
            let kept = match &written {
                Written::Changes(_) => {
                    let kept = left >= written.bytes();
                    torn |= !kept && left > 0;
                    left = if kept { left - written.bytes() } else { 0 };
                    kept
                }
                // A file that gets its name when it is whole.
                Written::Snapshot(_) => random(2) == 0,
                Written::Witness(slot, bytes) => match random(3) {
                    0 => true,
                    // A file that is new gets its name when it is whole.
                    1 => false,
                    _ if self.durable.witness.is_none() => false,
                    _ => {
                        torn = true;
                        let half = bytes[..bytes.len() / 2].to_vec();
                        self.durable.keep(&Written::Witness(*slot, half));
                        false
                    }
                },
            };
            if kept {
                self.durable.keep(&written);
            } else {
                lost += 1;
            }
        }
        self.reboot();
        (lost, torn)
    }

    fn reboot(&mut self) {
        self.boot += 1;
        self.seen = self.durable.clone();
        (self.failed, self.refused_snapshot) = (false, false);
    }
}

/// A manager's handle on its disk.
pub(crate) struct Handle {
    world: Weak<World>,
    id: u64,
    boot: u64,
}

impl Handle {
    pub(crate) fn new(world: &Arc<World>, id: u64) -> Arc<Self> {
        let boot = hold(&world.disks).entry(id).or_default().boot;
        Arc::new(Self { world: Arc::downgrade(world), id, boot })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let world = self.world.upgrade().ok_or_else(|| io::Error::other("the run is over"))?;
        let mut disks = hold(&world.disks);
        let platter = disks.get_mut(&self.id).filter(|platter| platter.boot == self.boot);
        work(platter.ok_or_else(|| io::Error::other("the manager has ended"))?)
    }
}

fn sync_failed() -> io::Error {
    io::Error::other("the disk failed to sync")
}

fn no_room(platter: &mut Platter) -> io::Result<()> {
    if platter.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

impl Disk for Handle {
    fn log_file(&self) -> String {
        format!("log of manager {}", self.id)
    }

    fn witness_file(&self) -> String {
        format!("witness of manager {}", self.id)
    }

    fn witness(&self) -> io::Result<Option<[Vec<u8>; WITNESS_SLOTS]>> {
        self.with(|platter| Ok(platter.seen.witness.clone()))
    }

    fn write_witness(&self, slot: usize, bytes: &[u8]) -> io::Result<()> {
        self.with(|platter| {
            let written = Written::Witness(slot, bytes.to_vec());
            platter.seen.keep(&written);
            platter.unsynced.push((platter.writes, written));
            Ok(())
        })
    }

    fn snapshot_file(&self) -> String {
        format!("snapshot of manager {}", self.id)
    }

    fn value(&self, name: Name) -> io::Result<Option<Vec<u8>>> {
        self.with(|platter| Ok(platter.seen.values.get(&name).cloned()))
    }

    fn rows(&self, range: Range<u64>, visit: &mut RowVisitor<'_>) -> io::Result<()> {
        let rows: Vec<(u64, Arc<[u8]>)> = self.with(|platter| {
            Ok(platter.seen.rows.range(range).map(|(index, row)| (*index, Arc::clone(row))).collect())
        })?;
        for (index, row) in rows {
            if !visit(index, &row)? {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, changes: &[Change]) -> io::Result<()> {
        self.with(|platter| {
            no_room(platter).inspect_err(|_| platter.failed = true)?;
            for change in changes {
                platter.seen.change(change)?;
            }
            platter.unsynced.push((platter.writes, Written::Changes(changes.to_vec())));
            Ok(())
        })
    }

    fn write_snapshot(&self, write: &mut FileWriter<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        write(&mut bytes)?;
        self.with(|platter| {
            platter.refused_snapshot = true;
            no_room(platter)?;
            if std::mem::take(&mut platter.failing) {
                return Err(sync_failed());
            }
            platter.refused_snapshot = false;
            let bytes: Arc<[u8]> = bytes.into();
            platter.seen.snapshot = Some(Arc::clone(&bytes));
            platter.unsynced.push((platter.writes, Written::Snapshot(bytes)));
            Ok(())
        })
    }

    fn read_snapshot(&self) -> io::Result<Option<Box<dyn Read + Send>>> {
        let bytes = self.with(|platter| Ok(platter.seen.snapshot.clone()))?;
        Ok(bytes.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>))
    }

    fn close(&self) {}
}
