//! Disks: what was written is there at once and survives a power cut once it was synced.
//!
//! As with SQLite, the changes of one commit happen together or not at all. Behind that stands a journal whose bytes
//! reach the disk in their order: a power cut may keep some of what was not synced, and tears the commit that it falls
//! into, which is then none. The witness is a file of its own: a slot that was not synced is the old one, the new one, or
//! a piece of each.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Cursor, Read},
    ops::Range,
    sync::{Arc, Weak},
};

use swarm_consensus::sim::{Change, Disk, FileWriter, Name, RowVisitor, WITNESS_SLOTS};

use super::world::{World, hold};

/// Older copies that are kept of each disk.
const COPIES_MAX: usize = 6;

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
    /// What was durable at some moments, the oldest first.
    copies: VecDeque<Files>,
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
    /// A slot of the witness, and what is in it.
    Witness(usize, Vec<u8>),
}

/// What a power cut took.
#[derive(Default)]
pub(crate) struct Cut {
    /// Writes that were lost, torn ones among them.
    pub(crate) lost: u64,
    /// A commit was torn.
    pub(crate) torn: bool,
    /// A slot of the witness was torn.
    pub(crate) torn_witness: bool,
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
        self.has(Name::Identity)
    }

    /// Whether the log has this value.
    pub(crate) fn has(&self, name: Name) -> bool {
        self.durable.values.contains_key(&name)
    }

    /// A new name; what is written from now on has it.
    pub(crate) fn begin_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    /// Makes durable what was written under this name. Snapshots are written one after the other: whoever wrote one, or
    /// left it because there is a newer one, has waited for all before.
    pub(crate) fn sync(&mut self, write: u64, kept_if_failing: bool) -> io::Result<()> {
        let is_log = |(name, written): &(u64, Written)| *name == write && !matches!(written, Written::Snapshot(_));
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

    /// The power is cut.
    pub(crate) fn cut_power(&mut self, mut random: impl FnMut(u64) -> u64) -> Cut {
        let journal: u64 =
            self.unsynced.iter().filter(|(_, w)| matches!(w, Written::Changes(_))).map(|(_, w)| w.bytes()).sum();
        let mut left = random(journal + 1);
        let mut cut = Cut::default();
        for (_, mut written) in std::mem::take(&mut self.unsynced) {
            let kept = match &mut written {
                Written::Changes(_) => {
                    let kept = left >= written.bytes();
                    cut.torn |= !kept && left > 0;
                    left = if kept { left - written.bytes() } else { 0 };
                    kept
                }
                Written::Witness(slot, bytes) => {
                    let at = random(bytes.len() as u64 + 1) as usize;
                    let is_whole = at == bytes.len();
                    // A file that is new gets its name when it is whole.
                    let is_none = at == 0 || (self.durable.witness.is_none() && !is_whole);
                    let is_torn = !is_none && !is_whole;
                    if is_torn {
                        let old = self.durable.witness.as_ref().map_or(&[][..], |slots| &slots[*slot][..]);
                        bytes.truncate(at);
                        bytes.extend_from_slice(old.get(at..).unwrap_or_default());
                    }
                    cut.torn_witness |= is_torn;
                    cut.lost += u64::from(is_torn);
                    !is_none
                }
                // A file that gets its name when it is whole.
                Written::Snapshot(_) => random(2) == 0,
            };
            if kept {
                self.durable.keep(&written);
            } else {
                cut.lost += 1;
            }
        }
        self.reboot();
        cut
    }

    /// Keeps a copy of what is durable now.
    pub(crate) fn copy(&mut self) {
        if self.copies.len() == COPIES_MAX {
            self.copies.pop_front();
        }
        self.copies.push_back(self.durable.clone());
    }

    /// Damages the disk of a manager that has ended, whose witness knows of all entries up to this one. Says whether that
    /// could be done.
    pub(crate) fn damage(
        &mut self,
        damage: Damage,
        witnessed: Option<u64>,
        mut random: impl FnMut(u64) -> u64,
    ) -> bool {
        let files = &mut self.durable;
        let copy = usize::try_from(random(self.copies.len().max(1) as u64)).ok().and_then(|at| self.copies.get(at));
        match (damage, copy) {
            (Damage::OldFolder, Some(copy)) => *files = copy.clone(),
            (Damage::OldLog, Some(copy)) => (files.rows, files.values) = (copy.rows.clone(), copy.values.clone()),
            (Damage::OldWitness, Some(copy)) => files.witness.clone_from(&copy.witness),
            (Damage::LostTail, _) => {
                let Some((last, _)) = files.rows.last_key_value() else { return false };
                // What the witness did not know yet, or any.
                let unknown = witnessed.map(|known| known + 1).filter(|first| first <= last && random(2) == 0);
                let first = unknown.unwrap_or_else(|| last - random(files.rows.len().min(LOST_MAX) as u64));
                drop(files.rows.split_off(&first));
            }
            (Damage::NoWitness, _) => files.witness = None,
            (Damage::OldFolder | Damage::OldLog | Damage::OldWitness, None) => return false,
        }
        self.seen = self.durable.clone();
        true
    }

    fn reboot(&mut self) {
        self.boot += 1;
        self.seen = self.durable.clone();
        (self.failed, self.refused_snapshot) = (false, false);
    }
}

/// What can happen to the files of a manager that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// All files are older ones.
    OldFolder,
    /// The log is an older one.
    OldLog,
    /// The witness is an older one.
    OldWitness,
    /// The last entries of the log are gone.
    LostTail,
    /// There is no witness.
    NoWitness,
}

/// Most entries that a log loses at its end.
const LOST_MAX: usize = 12;

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

    fn witness(&self) -> io::Result<Option<[Vec<u8>; WITNESS_SLOTS]>> {
        self.with(|platter| Ok(platter.seen.witness.clone()))
    }

    fn write_witness(&self, slot: usize, bytes: &[u8]) -> io::Result<()> {
        self.with(|platter| {
            // A new file needs room.
            if platter.seen.witness.is_none() {
                no_room(platter).inspect_err(|_| platter.failed = true)?;
            }
            // Slots are written one after the other, each when the one before is durable.
            let unsynced = std::mem::take(&mut platter.unsynced);
            let (before, rest): (Vec<_>, Vec<_>) =
                unsynced.into_iter().partition(|(_, written)| matches!(written, Written::Witness(..)));
            before.iter().for_each(|(_, written)| platter.durable.keep(written));
            platter.unsynced = rest;
            let written = Written::Witness(slot, bytes.to_vec());
            platter.seen.keep(&written);
            platter.unsynced.push((platter.writes, written));
            Ok(())
        })
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
