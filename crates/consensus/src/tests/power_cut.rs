//! Power cuts below SQLite, on real files: of what was written since the last sync, any of the changed sectors are on
//! the disk afterwards. No start may refuse that, and nothing that was acknowledged may be lost, also when the power is
//! cut again and again without a checkpoint between. `SWARM_TEST_KILLS` says how often, for a longer run.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use openraft::EntryPayload;
use rusqlite::Connection;
use tempfile::TempDir;

use super::key;
use crate::{
    disk::{Change, Disk, FolderDisk, Name},
    history::History,
    index::Index,
    load::{first_values, seal_of},
    records::{self, Ballot},
    seal::{Kind, Seal},
    store::LogStore,
    types::{Command, LeaderId, LogEntry, LogId, Vote},
    witness::{self, Witness},
    writer::Fault,
};

/// What a disk writes in one go.
const SECTOR_BYTES: usize = 512;
/// Runs of a test that is told nothing, and power cuts in each.
const RUNS_DEFAULT: u64 = 6;
const CUTS: u32 = 25;

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The files of a folder.
type Image = BTreeMap<&'static str, Vec<u8>>;

fn image(dir: &Path) -> Image {
    let files = ["log.db", "log.db-wal", "witness"].into_iter();
    files.filter_map(|name| Some((name, fs::read(dir.join(name)).ok()?))).collect()
}

fn put(image: &Image) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("raft")).unwrap();
    image.iter().for_each(|(name, bytes)| fs::write(folder.path().join("raft").join(name), bytes).unwrap());
    folder
}

/// A file of which some of the changed sectors were written.
fn torn(before: &[u8], after: &[u8], mut keep: impl FnMut() -> bool) -> Vec<u8> {
    let mut bytes = before.to_vec();
    let mut length = before.len();
    bytes.resize(before.len().max(after.len()), 0);
    for (number, sector) in after.chunks(SECTOR_BYTES).enumerate() {
        let at = number * SECTOR_BYTES..number * SECTOR_BYTES + sector.len();
        if (bytes[at.clone()] != *sector || at.end > before.len()) && keep() {
            bytes[at.clone()].copy_from_slice(sector);
            length = length.max(at.end);
        }
    }
    // The file may have its new length already.
    if !keep() {
        bytes.truncate(length);
    }
    bytes
}

fn cut(before: &Image, after: &Image, random: &mut Random) -> Image {
    let mut image = before.clone();
    for (name, bytes) in after {
        let none = Vec::new();
        let old = before.get(name).unwrap_or(&none);
        // A witness that is new gets its name when it is whole, and a file that is cut keeps what is left.
        if old == bytes || *name == "witness" && old.is_empty() || old.starts_with(bytes) {
            if random.below(2) == 0 {
                image.insert(*name, bytes.clone());
            }
            continue;
        }
        // SQLite syncs a new header before it writes frames behind it.
        let headed = |file: &[u8]| file.first_chunk::<32>().copied();
        let restarted = *name == "log.db-wal" && headed(old) != headed(bytes);
        let mut begun = old.clone();
        if restarted {
            begun.resize(old.len().max(32), 0);
            begun[..32].copy_from_slice(&bytes[..32]);
        }
        let odds = random.below(9) + 1;
        let mut keep = || random.below(10) < odds;
        let found = if restarted && keep() { torn(old, &begun, keep) } else { torn(&begun, bytes, keep) };
        image.insert(*name, found);
    }
    image
}

/// A log whose power is cut all the time, and what it has acknowledged.
struct Victim {
    folder: TempDir,
    disk: Arc<dyn Disk>,
    seal: Seal,
    index: Index,
    witness: Witness,
    /// Bytes of the entries by index, acknowledged ones first, then those that may be there.
    entries: Vec<LogEntry>,
    acknowledged: usize,
    random: Random,
    cuts: u32,
}

impl Victim {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> =
            Arc::new(FolderDisk::create(&folder.path().join("raft"), &first_values(&key(), 1, true).unwrap()).unwrap());
        let (seal, _) = seal_of(&*disk, &key(), 1).unwrap();
        disk.accept().unwrap();
        let (index, witness) = (Index::default(), Witness::new(None));
        let random = Random(seed);
        let mut victim =
            Self { folder, disk, seal, index, witness, entries: Vec::new(), acknowledged: 0, random, cuts: 0 };
        victim.begin();
        victim
    }

    /// Does something that ends with a sync, or with a power cut in the middle of it. Says whether it came to its end.
    fn step(&mut self, work: impl Fn(&Self)) -> bool {
        let dir = self.folder.path().join("raft");
        let before = image(&dir);
        work(self);
        if self.random.below(6) > 0 {
            return true;
        }
        let found = cut(&before, &image(&dir), &mut self.random);
        self.start(&found);
        false
    }

    /// Starts with what a power cut has left.
    fn start(&mut self, found: &Image) {
        self.cuts += 1;
        self.disk.close();
        self.folder = put(found);
        let dir = self.folder.path().join("raft");
        self.disk = Arc::new(FolderDisk::open(&dir).unwrap_or_else(|error| panic!("cut {}: {error}", self.cuts)));
        let log = LogStore::open(Arc::clone(&self.disk), self.seal.clone(), History::default(), Fault::default());
        let log = log.unwrap_or_else(|error| panic!("cut {}: {error}", self.cuts));
        let (vote, last) = log.ends();
        assert!(vote >= self.index.vote, "cut {}: a vote is lost: {vote:?}, {:?}", self.cuts, self.index.vote);
        let there = last.map_or(0, |last| last.index as usize + 1);
        assert!(there >= self.acknowledged && there <= self.entries.len(), "cut {}: {there} entries", self.cuts);
        self.disk
            .rows(0..u64::MAX, &mut |at, row| {
                let expected = records::encode_row(&self.entries[at as usize]).unwrap();
                assert_eq!(self.seal.open(Kind::Row, at, row).unwrap(), expected, "cut {}: entry {at}", self.cuts);
                Ok(true)
            })
            .unwrap();
        self.entries.truncate(there);
        self.acknowledged = there;
        (self.index.vote, self.index.flushed) = (vote, last);
        self.witness = Witness::new(witness::read(&*self.disk, &self.seal).unwrap());
        // The power may be cut in the start as well.
        if self.step(|victim| victim.disk.accept().unwrap()) {
            self.begin();
        }
    }

    fn begin(&mut self) {
        let whole = self.step(|victim| {
            let testimony = || witness::Testimony::of(&victim.index);
            victim.witness.begin(&*victim.disk, &victim.seal, testimony).unwrap();
        });
        let note = [Change::Value(Name::Witness, vec![1])];
        let _ = whole && self.step(|victim| victim.disk.commit(&note).unwrap());
    }

    fn say(&mut self, change: impl Fn(witness::Testimony, &Index) -> witness::Testimony) -> bool {
        self.step(|victim| {
            let change = |testimony| change(testimony, &victim.index);
            victim.witness.say(&*victim.disk, &victim.seal, change).unwrap();
        })
    }

    fn entry(&mut self, index: usize) -> LogEntry {
        let text = "x".repeat(self.random.below(6000) as usize);
        let entry = swarm_core::Entry { v: 1, at: swarm_model::Timestamp(1), txs: super::admit_at(1, Some(text)) };
        let payload = EntryPayload::Normal(Command::encode(entry).unwrap());
        let term = self.random.below(1000);
        LogEntry { log_id: LogId { leader_id: LeaderId { term, node_id: 1 }, index: index as u64 }, payload }
    }

    fn append(&mut self) {
        let first = self.entries.len();
        for number in 0..=self.random.below(4) as usize {
            let entry = self.entry(first + number);
            self.entries.push(entry);
        }
        let changes: Vec<_> = self.entries[first..].iter().map(|entry| self.row(entry)).collect();
        let last = self.entries.last().map(|last| last.log_id);
        if self.step(|victim| victim.disk.commit(&changes).unwrap()) {
            self.acknowledged = self.entries.len();
            self.index.flushed = last;
        }
    }

    fn row(&self, entry: &LogEntry) -> Change {
        let index = entry.log_id.index;
        let row = records::encode_row(entry).unwrap();
        Change::Row { index, bytes: self.seal.seal(Kind::Row, index, &row).unwrap() }
    }

    fn vote(&mut self) {
        let term = self.index.vote.map_or(0, |vote| vote.leader_id.term) + 1;
        let vote = Vote { leader_id: LeaderId { term, node_id: 1 }, committed: false };
        if !self.say(|testimony, _| testimony.voted(vote)) {
            return;
        }
        let ballot = records::encode(&Ballot::from(vote)).unwrap();
        let change = [Change::Value(Name::Vote, self.seal.seal(Kind::Vote, 0, &ballot).unwrap())];
        if self.step(|victim| victim.disk.commit(&change).unwrap()) {
            self.index.vote = Some(vote);
        }
    }

    fn truncate(&mut self) {
        let length = self.entries.len().saturating_sub(self.random.below(4) as usize);
        // Acknowledged to a leader that is gone.
        self.acknowledged = self.acknowledged.min(length);
        let last = length.checked_sub(1).map(|last| self.entries[last].log_id);
        self.index.unflushed(last);
        if self.say(|testimony, index| testimony.up_to(index.flushed))
            && self.step(|victim| victim.disk.commit(&[Change::RemoveFrom(length as u64)]).unwrap())
        {
            self.entries.truncate(length);
        }
    }

    fn checkpoint(&mut self) {
        self.step(|victim| {
            let connection = Connection::open(victim.folder.path().join("raft/log.db")).unwrap();
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        });
    }
}

#[tokio::test]
async fn no_power_cut_is_taken_for_damage() {
    let runs = std::env::var("SWARM_TEST_KILLS").map_or(RUNS_DEFAULT, |text| text.parse().expect("it is a number"));
    for seed in 0..runs {
        let mut victim = Victim::new(seed);
        while victim.cuts < CUTS {
            match victim.random.below(20) {
                0..10 => victim.append(),
                10..13 => victim.vote(),
                13..15 => victim.truncate(),
                15 => victim.checkpoint(),
                _ => drop(victim.say(|testimony, index| testimony.up_to(index.flushed))),
            }
        }
    }
}

/// Every subset of the sectors of one small transaction.
#[tokio::test]
async fn no_part_of_a_transaction_is_taken_for_damage() {
    let mut victim = Victim::new(3);
    let dir = |victim: &Victim| victim.folder.path().join("raft");
    while victim.entries.len() < 10 {
        victim.append();
    }
    let note = [Change::Value(Name::Witness, vec![1])];
    victim.disk.commit(&note).unwrap();
    let before = image(&dir(&victim));
    victim.disk.commit(&note).unwrap();
    let after = image(&dir(&victim));
    let (old, new) = (&before["log.db-wal"], &after["log.db-wal"]);
    let mut sectors = 0;
    torn(old, new, || {
        sectors += 1;
        false
    });
    assert!(sectors < 14, "{sectors} sectors are too many");
    for subset in 0..1u32 << sectors {
        let mut number = 0;
        let bytes = torn(old, new, || {
            number += 1;
            subset >> (number - 1) & 1 == 1
        });
        let verdict = crate::disk::walk_bytes(&bytes);
        assert!(verdict.is_ok_and(|end| end == old.len() as u64 || end == new.len() as u64), "{subset:b}");
    }
}
