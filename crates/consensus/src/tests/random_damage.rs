//! A stopped manager whose files somebody damages, at random: it refuses to start and names the file, or nothing is lost
//! that was acknowledged some time before it stopped. `SWARM_TEST_DAMAGES` says how often, for a longer run.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use swarm_model::NodeId;

use super::{Watcher, admit, create, options, wait_until};
use crate::{Consensus, LOG_KEEP_ENTRIES};

/// Damages of a run that is told nothing.
const DAMAGES_DEFAULT: u64 = 60;
/// Acknowledged writes.
const WRITES: u64 = 300;
/// What may be lost without a trace.
const UNVOUCHED: Duration = Duration::from_millis(100);
/// The files of the folder. That of the index of SQLite's is made anew at each start.
const FILES: [&str; 4] = ["log.db", "log.db-wal", "witness", "snapshot"];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

type Image = BTreeMap<&'static str, Vec<u8>>;

/// Without files that are empty: SQLite makes an empty write-ahead file when it reads.
fn image(dir: &Path) -> Image {
    let read = |name: &'static str| Some((name, fs::read(dir.join("raft").join(name)).ok()?));
    let files = FILES.into_iter().filter_map(read);
    files.filter(|(_, bytes)| !bytes.is_empty()).collect()
}

/// A stopped manager.
struct Stopped {
    name: &'static str,
    files: Image,
    /// The files as they were before.
    older: Vec<Image>,
    /// The numbers that were acknowledged and must be there, or the files are refused.
    vouched: u64,
}

/// Managers that were killed, that were stopped in order, that have a snapshot and a purged log.
async fn stopped() -> Vec<Stopped> {
    let mut stopped = Vec::new();
    for (name, orderly, snapshot) in
        [("killed", false, false), ("killed, with a snapshot", false, true), ("stopped in order", true, true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut older = vec![];
        let consensus = create(folder.path()).await;
        let mut acknowledged = Vec::new();
        let first = if snapshot { 2 * LOG_KEEP_ENTRIES } else { 0 };
        for number in 0..first + WRITES {
            if number % 100 == 50 {
                older.push(image(folder.path()));
            }
            consensus.propose(admit(number.into())).await.unwrap();
            acknowledged.push(Instant::now());
            if snapshot && number == first {
                consensus.snapshot().await.unwrap();
                wait_until(|| consensus.status().purged_index.is_some()).await;
            }
        }
        // A copy of files that rest is what a kill leaves.
        let (files, vouched) = if orderly {
            consensus.shutdown().await;
            (image(folder.path()), first + WRITES)
        } else {
            let at = Instant::now();
            let files = image(folder.path());
            let old = |acknowledged: &&Instant| at.duration_since(**acknowledged) > UNVOUCHED;
            consensus.shutdown().await;
            (files, acknowledged.iter().filter(old).count() as u64)
        };
        assert!(vouched > WRITES / 2, "{name}: {vouched}");
        stopped.push(Stopped { name, files, older, vouched });
    }
    stopped
}

/// Damages one file. Says which, and how.
fn damage(files: &mut Image, older: &[Image], random: &mut Random) -> (&'static str, String) {
    let names: Vec<_> = files.keys().copied().collect();
    let name = names[random.below(names.len())];
    let bytes = files.get_mut(name).unwrap();
    let length = bytes.len();
    let at = random.below(length);
    let mut over = |at: usize, new: &[u8]| {
        let until = (at + new.len()).min(length);
        bytes[at..until].copy_from_slice(&new[..until - at]);
    };
    let how = match random.below(8) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            format!("a bit of byte {at}")
        }
        2 => {
            let word: Vec<u8> = (0..4).map(|_| random.below(256) as u8).collect();
            over(at & !3, &word);
            format!("a word at {}", at & !3)
        }
        3 => {
            let page: Vec<u8> = (0..4096).map(|_| random.below(256) as u8).collect();
            over(at & !4095, &page);
            format!("a page at {}", at & !4095)
        }
        4 => {
            over(at & !511, &[0; 512]);
            format!("zeros at {}", at & !511)
        }
        5 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        6 => {
            files.remove(name);
            "missing".into()
        }
        _ => {
            let older = &older[random.below(older.len())];
            match older.get(name) {
                Some(older) => files.insert(name, older.clone()),
                None => files.remove(name),
            };
            "an older copy".into()
        }
    };
    (name, how)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_refused_or_loses_nothing() {
    let runs = std::env::var("SWARM_TEST_DAMAGES").map_or(DAMAGES_DEFAULT, |text| text.parse().expect("a number"));
    let stopped = stopped().await;
    let (mut refusals, mut starts) = (0, 0);
    for seed in 0..runs {
        let Stopped { name, files, older, vouched } = &stopped[seed as usize % stopped.len()];
        let mut random = Random(seed);
        for _ in 0..3 {
            random.below(2);
        }
        let mut files = files.clone();
        let (file, how) = damage(&mut files, older, &mut random);
        let what = format!("seed {seed}, {name}: {file}, {how}");
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("raft");
        fs::create_dir(&dir).unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(dir.join(name), bytes).unwrap());
        match Consensus::open(options(folder.path()), Watcher::new()).await {
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(&dir.join(file).display().to_string()), "{what}: it does not name it: {text}");
                files.retain(|_, bytes| !bytes.is_empty());
                assert_eq!(image(folder.path()), files, "{what}: a refusal changes nothing: {text}");
                refusals += 1;
            }
            Ok(consensus) => {
                // What is written on top of it must not do harm either.
                for number in 0..3 {
                    consensus.propose(admit(1_000_000 + number)).await.unwrap();
                }
                consensus.shutdown().await;
                let consensus = super::open(folder.path()).await;
                let state = consensus.read_barrier().await.unwrap();
                let lost = (0..*vouched).find(|number| state.node(NodeId((*number).into())).is_none());
                assert_eq!(lost, None, "{what}: it was acknowledged and is gone");
                consensus.shutdown().await;
                starts += 1;
            }
        }
    }
    assert!(refusals > 0 && starts > 0, "{refusals} refusals, {starts} starts");
    eprintln!("{refusals} refusals, {starts} starts");
}
