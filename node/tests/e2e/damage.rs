//! The files of a manager are damaged or removed: it refuses to start and names the file, or nothing is lost that
//! was acknowledged some time before it stopped. `SWARM_TEST_DAMAGES` says how often, for a longer run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, service},
    crash::services,
    daemon::Daemon,
    managers,
    refusals::{copy_folder, replace_folder},
    wait::{Rng, until},
};

/// Damages of a run that is told nothing.
const DAMAGES_DEFAULT: u64 = 8;
/// Acknowledged writes.
const SERVICES: u64 = 300;
/// What may be lost without a trace.
const UNVOUCHED: Duration = Duration::from_millis(100);

/// A manager that has acknowledged services, and when.
fn written() -> (Cluster, Vec<Instant>) {
    let cluster = Cluster::start("simulated", 1);
    let acknowledged = (0..SERVICES).map(|number| {
        cluster.create(&service(&format!("s{number}"), 0));
        Instant::now()
    });
    let acknowledged = acknowledged.collect();
    (cluster, acknowledged)
}

#[test]
fn a_bit_of_the_newest_file_of_the_log_is_refused() {
    let (mut cluster, _) = written();
    let daemon = &mut cluster.nodes[0];
    daemon.kill();
    let file = daemon.state_dir().join("manager/raft/log.db-wal");
    let healthy = fs::read(&file).unwrap();
    let mut damaged = healthy.clone();
    damaged[healthy.len() / 2] ^= 1;
    fs::write(&file, &damaged).unwrap();
    for _ in 0..2 {
        let log = daemon.fails();
        assert!(log.contains(&format!("{} is damaged: frame", file.display())), "{log}");
        assert!(log.contains("Nothing was changed") && log.contains("swarm restore"), "{log}");
        assert!(fs::read(&file).unwrap() == damaged, "a refusal changes nothing");
    }
    fs::write(&file, healthy).unwrap();
    daemon.start();
    let there = until("the services can be listed", || services(daemon));
    assert_eq!(there.len() as u64, SERVICES);
}

#[test]
fn a_log_that_is_removed_while_it_is_in_use_stops_the_manager() {
    for name in ["log.db", "log.db-wal", "witness"] {
        let mut cluster = Cluster::start("simulated", 1);
        let daemon = &mut cluster.nodes[0];
        let file = daemon.state_dir().join("manager/raft").join(name);
        fs::remove_file(&file).unwrap();
        let log = daemon.ends_by_itself();
        assert!(log.contains(&format!("{} was removed or replaced", file.display())), "{name}: {log}");
        match name {
            // Its end moved what was in it into the log.
            "log.db-wal" => daemon.start(),
            _ => {
                let log = daemon.fails();
                assert!(log.contains(&format!("{} is missing", file.display())), "{name}: {log}");
            }
        }
    }
}

#[test]
fn damage_is_refused_or_loses_nothing() {
    let (mut cluster, acknowledged) = written();
    let daemon = &mut cluster.nodes[0];
    let state = daemon.state_dir();
    let older = state.with_file_name("older");
    copy_folder(&state, &older);
    for number in 0..20 {
        let spec = service(&format!("later{number}"), 0);
        daemon.call("POST", "/services/create", Some(&spec)).unwrap();
    }
    let killed_at = Instant::now();
    daemon.kill();
    let killed = state.with_file_name("killed");
    copy_folder(&state, &killed);
    daemon.start();
    until("it leads", || services(daemon));
    assert!(daemon.stop().success());
    let stopped = state.with_file_name("stopped");
    copy_folder(&state, &stopped);

    let vouched = vouched(&acknowledged, killed_at);
    let mut rng = Rng::new(500);
    for run in 0..damages() {
        replace_folder(if run % 2 == 0 { &killed } else { &stopped }, &state);
        let damaged = Damaged::any(&mut rng, &state, &older);
        daemon.spawn();
        let Some(there) = outcome(daemon, &damaged) else { continue };
        damaged.assert_nothing_lost(&vouched, &there);
        daemon.kill();
    }
}

#[test]
fn damage_to_one_of_three_managers_is_refused_or_loses_nothing() {
    let mut cluster = managers::start(3, 0);
    let older: Vec<PathBuf> = cluster.nodes.iter().map(|daemon| daemon.state_dir().with_file_name("older")).collect();
    // The third manager has none of the writes: only the two others can say what was acknowledged.
    assert!(cluster.nodes[2].stop().success());
    let create = |number: u64| {
        cluster.create(&service(&format!("s{number}"), 0));
        Instant::now()
    };
    let mut acknowledged: Vec<Instant> = (0..SERVICES / 2).map(create).collect();
    for (daemon, older) in cluster.nodes.iter().zip(&older) {
        copy_folder(&daemon.state_dir(), older);
    }
    acknowledged.extend((SERVICES / 2..SERVICES).map(create));
    let killed_at = Instant::now();
    cluster.nodes[..2].iter_mut().for_each(Daemon::kill);
    let vouched = vouched(&acknowledged, killed_at);
    let killed: Vec<PathBuf> = older.iter().map(|folder| folder.with_file_name("killed")).collect();
    for (daemon, killed) in cluster.nodes.iter().zip(&killed) {
        copy_folder(&daemon.state_dir(), killed);
    }

    let mut rng = Rng::new(700);
    for _ in 0..damages() {
        for (daemon, killed) in cluster.nodes.iter().zip(&killed) {
            replace_folder(killed, &daemon.state_dir());
        }
        let [first, second, third] = &mut cluster.nodes[..] else { unreachable!("three managers") };
        let (damaged_one, whole_one) = if rng.below(2) == 0 { (first, second) } else { (second, first) };
        let older = damaged_one.state_dir().with_file_name("older");
        let damaged = Damaged::any(&mut rng, &damaged_one.state_dir(), &older);
        damaged_one.spawn();
        third.spawn();
        // Without the other manager that has the writes, these two are a majority.
        match outcome(damaged_one, &damaged) {
            Some(there) => {
                damaged.assert_nothing_lost(&vouched, &there);
                damaged_one.kill();
            }
            None => {
                whole_one.spawn();
                let there = until("the two others lead", || services(whole_one));
                damaged.assert_nothing_lost(&vouched, &there);
                whole_one.kill();
            }
        }
        third.kill();
    }
}

/// How many damages a test makes.
fn damages() -> u64 {
    std::env::var("SWARM_TEST_DAMAGES").map_or(DAMAGES_DEFAULT, |text| text.parse().expect("a number"))
}

/// Names of the services that must not be lost by managers that were killed at that time.
fn vouched(acknowledged: &[Instant], killed_at: Instant) -> BTreeSet<String> {
    let old = acknowledged.iter().filter(|at| killed_at.duration_since(**at) > UNVOUCHED).count();
    (0..old).map(|number| format!("s{number}")).collect()
}

/// The services that a manager lists once it is started, or nothing if it refuses and names the damaged file.
fn outcome(daemon: &mut Daemon, damaged: &Damaged) -> Option<BTreeMap<String, u64>> {
    let there = until(&format!("{damaged}: it starts or gives up"), || match daemon.ended() {
        true => Ok(None),
        false => services(daemon).map(Some),
    });
    if there.is_none() {
        let log = daemon.ends_by_itself();
        assert!(log.contains(&damaged.file.display().to_string()), "{damaged}: the file is not named: {log}");
    }
    there
}

/// A file of a manager's state folder that was damaged.
struct Damaged {
    file: PathBuf,
    how: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.file.display(), self.how)
    }
}

impl Damaged {
    /// Damages any file of a state folder: the log in half of all cases. `older` is an older copy of the folder.
    fn any(rng: &mut Rng, state: &Path, older: &Path) -> Self {
        let log = ["log.db", "log.db-wal", "witness"].map(|name| Path::new("manager/raft").join(name));
        let mut names: Vec<PathBuf> = log.into_iter().filter(|name| state.join(name).exists()).collect();
        if rng.below(2) == 0 {
            names = files(state).iter().map(|file| file.strip_prefix(state).unwrap().to_owned()).collect();
        }
        let name = &names[rng.below(names.len() as u64) as usize];
        let file = state.join(name);
        let mut bytes = fs::read(&file).unwrap();
        let at = rng.below(bytes.len().max(1) as u64) as usize;
        let how = match rng.below(6) {
            0 | 1 => {
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.below(8));
                format!("a bit at {at}")
            }
            2 => {
                bytes.iter_mut().skip(at & !3).take(4).for_each(|byte| *byte = rng.below(256) as u8);
                format!("the word at {at}")
            }
            3 => {
                bytes.iter_mut().skip(at & !4095).take(4096).for_each(|byte| *byte = rng.below(256) as u8);
                format!("the page at {at}")
            }
            4 => {
                bytes.truncate(at);
                format!("cut at {at}")
            }
            _ => match fs::read(older.join(name)) {
                Ok(older) if rng.below(2) == 0 => {
                    bytes = older;
                    "an older copy".to_owned()
                }
                _ => {
                    fs::remove_file(&file).unwrap();
                    return Self { file, how: "missing".to_owned() };
                }
            },
        };
        fs::write(&file, bytes).unwrap();
        Self { file, how }
    }

    fn assert_nothing_lost(&self, vouched: &BTreeSet<String>, there: &BTreeMap<String, u64>) {
        let lost: Vec<_> = vouched.iter().filter(|name| !there.contains_key(*name)).collect();
        assert!(lost.is_empty(), "{self}: acknowledged and gone: {lost:?}");
    }
}

/// All regular files of a folder and of the folders in it, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found.sort();
    found
}
