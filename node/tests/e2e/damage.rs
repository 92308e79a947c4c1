//! The files of a manager's log are damaged or removed: it refuses to start and names the file, or nothing is lost that
//! was acknowledged some time before it stopped. `SWARM_TEST_DAMAGES` says how often, for a longer run.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, service},
    crash::services,
    refusals::copy_folder,
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
    let runs = std::env::var("SWARM_TEST_DAMAGES").map_or(DAMAGES_DEFAULT, |text| text.parse().expect("a number"));
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

    let old = acknowledged.iter().filter(|at| killed_at.duration_since(**at) > UNVOUCHED).count();
    let vouched: BTreeSet<String> = (0..old).map(|number| format!("s{number}")).collect();
    let mut rng = Rng::new(500);
    for run in 0..runs {
        fs::remove_dir_all(&state).unwrap();
        copy_folder(if run % 2 == 0 { &killed } else { &stopped }, &state);
        let raft = state.join("manager/raft");
        let names = ["log.db", "log.db-wal", "witness"].into_iter().filter(|name| raft.join(name).exists());
        let names: Vec<_> = names.collect();
        let name = names[rng.below(names.len() as u64) as usize];
        let file = raft.join(name);
        let mut bytes = fs::read(&file).unwrap();
        let at = rng.below(bytes.len() as u64) as usize;
        let (mut missing, mut how) = (false, format!("at {at}"));
        match rng.below(6) {
            0 | 1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes.iter_mut().skip(at & !3).take(4).for_each(|byte| *byte = rng.below(256) as u8),
            3 => bytes.iter_mut().skip(at & !4095).take(4096).for_each(|byte| *byte = rng.below(256) as u8),
            4 => bytes.truncate(at),
            _ => match fs::read(older.join("manager/raft").join(name)) {
                Ok(older) if rng.below(2) == 0 => (bytes, how) = (older, "an older copy".into()),
                _ => (missing, how) = (true, "missing".into()),
            },
        }
        if missing {
            fs::remove_file(&file).unwrap();
        } else {
            fs::write(&file, bytes).unwrap();
        }
        let what = format!("run {run}: {name}, {how}");
        daemon.spawn();
        let there = until("it starts or gives up", || match daemon.ended() {
            true => Ok(None),
            false => services(daemon).map(Some),
        });
        match there {
            None => {
                let log = daemon.ends_by_itself();
                assert!(log.contains(&file.display().to_string()), "{what}: it does not name it: {log}");
            }
            Some(there) => {
                let lost: Vec<_> = vouched.iter().filter(|name| !there.contains_key(*name)).collect();
                assert!(lost.is_empty(), "{what}: acknowledged and gone: {lost:?}");
                daemon.kill();
            }
        }
    }
}
