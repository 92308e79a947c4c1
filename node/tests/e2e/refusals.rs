//! State folders that are damaged, foreign, newer or full: swarmd says which file, and the way out, and changes nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::{
    cluster::{Cluster, service},
    daemon::Daemon,
    wait::until,
};

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() { copy_folder(&from, &to) } else { assert!(fs::copy(from, to).is_ok()) }
    }
}

/// Puts a copy of a folder in the place of another one.
pub fn replace_folder(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy_folder(from, to);
}

/// Changes every byte of a part of a file.
fn garble(path: &Path, part: impl Fn(usize) -> std::ops::Range<usize>) {
    let mut bytes = fs::read(path).unwrap();
    let part = part(bytes.len());
    bytes[part].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path, length: impl Fn(u64) -> u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(length(file.metadata().unwrap().len())).unwrap();
}

/// A stopped manager with services and a snapshot, and a copy of its folder.
fn stopped() -> (Cluster, PathBuf, usize) {
    let mut cluster = Cluster::start("simulated", 1);
    until("the swarm takes snapshots often", || {
        let mut swarm = cluster.manager().call("GET", "/swarm", None)?;
        swarm["Spec"]["Raft"]["SnapshotInterval"] = json!(3);
        let target = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
        cluster.manager().call("POST", &target, Some(&swarm["Spec"])).map(drop)
    });
    const SERVICES: usize = 20;
    for number in 0..SERVICES {
        cluster.create(&service(&format!("s{number}"), 0));
    }
    let snapshot = cluster.manager().state_dir().join("manager/raft/snapshot");
    until("there is a snapshot", || if snapshot.exists() { Ok(()) } else { Err("none".to_owned()) });
    assert!(cluster.nodes[0].stop().success());
    let state = cluster.manager().state_dir();
    let healthy = state.with_file_name("healthy");
    copy_folder(&state, &healthy);
    (cluster, healthy, SERVICES)
}

/// What is damaged, how, and what the refusal says.
type Damage = (&'static str, fn(&Path), &'static str);

#[test]
fn folders_that_cannot_be_used_are_refused_and_left_alone() {
    let (mut cluster, healthy, services) = stopped();
    let (_other, foreign, _) = stopped();
    let daemon: &mut Daemon = &mut cluster.nodes[0];
    let state = daemon.state_dir();
    let damages: [Damage; 16] = [
        ("manager/raft/log.db", |p| garble(p, |len| len / 2..len), "is damaged"),
        ("manager/raft/log.db", |p| truncate(p, |len| len / 2), "is damaged"),
        ("manager/raft/log.db", |p| truncate(p, |_| 0), "does not belong here"),
        ("manager/raft/log.db", |p| garble(p, |_| 0..16), "does not belong here"),
        ("manager/raft/log.db", |p| fs::remove_file(p).unwrap(), "is missing"),
        ("manager/raft/snapshot", |p| garble(p, |len| len / 2..len / 2 + 1), "is damaged"),
        ("manager/raft/snapshot", |p| truncate(p, |len| len - 1), "is damaged: it is cut short"),
        ("manager/raft.key", |p| fs::remove_file(p).unwrap(), "is missing"),
        ("manager/raft.key", |p| truncate(p, |_| 7), "shorter than 32 bytes"),
        ("certificates/swarm-node.crt", |p| fs::remove_file(p).unwrap(), "is missing"),
        ("certificates/swarm-node.crt", |p| garble(p, |len| len / 2..len / 2 + 4), "is damaged"),
        ("certificates/swarm-root-ca.crt", |p| truncate(p, |len| len / 2), "do not make this node's identity"),
        ("certificates/swarm-node.key", |p| garble(p, |len| len / 2..len), "do not make this node's identity"),
        ("agent/agent.db", |p| truncate(p, |len| len / 2 + 7), "is damaged"),
        ("swarm.json", |p| truncate(p, |len| len / 2), "is damaged"),
        ("swarmd.json", |p| fs::write(p, r#"{"format": 7, "program": "swarmd 9.9"}"#).unwrap(), "newer version"),
    ];
    for (name, damage, expected) in damages {
        replace_folder(&healthy, &state);
        let file = state.join(name);
        damage(&file);
        let damaged = fs::read(&file).ok();
        let log = daemon.fails();
        let named = if name == "swarmd.json" { state.display().to_string() } else { file.display().to_string() };
        assert!(log.contains(expected) && log.contains(&named), "{name}, {expected}: {log}");
        if name.starts_with("manager/raft/") {
            assert!(log.contains("Nothing was changed") && log.contains("swarm restore"), "{name}: {log}");
        }
        assert_eq!(fs::read(&file).ok(), damaged, "{name} was changed");
        assert!(daemon.fails().contains(expected), "{name}: another start says something else");
    }
    // The log of another swarm, without and with its key.
    replace_folder(&healthy, &state);
    replace_folder(&foreign.join("manager/raft"), &state.join("manager/raft"));
    let log = daemon.fails();
    assert!(log.contains("log.db was sealed with another key") && log.contains("swarm restore"), "{log}");
    replace_folder(&foreign.join("manager"), &state.join("manager"));
    let log = daemon.fails();
    assert!(log.contains("log.db does not belong here: it is the log of manager"), "{log}");
    // The certificates of another swarm.
    replace_folder(&healthy, &state);
    replace_folder(&foreign.join("certificates"), &state.join("certificates"));
    let log = daemon.fails();
    assert!(log.contains("log.db does not belong here: it is the log of manager"), "{log}");

    replace_folder(&healthy, &state);
    daemon.start();
    let list = until("the services are there", || daemon.call("GET", "/services", None));
    assert_eq!(list.as_array().map(Vec::len), Some(services));
}

#[test]
fn what_is_no_file_holds_up_no_start() {
    let (mut cluster, healthy, services) = stopped();
    let daemon: &mut Daemon = &mut cluster.nodes[0];
    let state = daemon.state_dir();
    let pipe = state.with_file_name("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for name in [
        "swarmd.json",
        "swarm.json",
        "certificates/swarm-node.crt",
        "certificates/swarm-node.key",
        "certificates/swarm-root-ca.crt",
        "manager/raft.key",
        "manager/raft/lock",
        "manager/raft/log.db",
        "manager/raft/log.db-wal",
        "manager/raft/snapshot",
        "agent/agent.db",
    ] {
        for target in [&pipe, Path::new("/dev/zero")] {
            replace_folder(&healthy, &state);
            let file = state.join(name);
            let _ = fs::remove_file(&file);
            std::os::unix::fs::symlink(target, &file).unwrap();
            let log = daemon.fails();
            assert!(log.contains("where a file belongs") && log.contains(&file.display().to_string()), "{name}: {log}");
        }
    }
    // What others may read is made private, with a warning; and the file that only has to be there is a file again.
    replace_folder(&healthy, &state);
    let keys =
        ["certificates/swarm-node.crt", "certificates/swarm-node.key", "manager/raft.key"].map(|f| state.join(f));
    for file in &keys {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::remove_file(state.join("member")).unwrap();
    std::os::unix::fs::symlink(&pipe, state.join("member")).unwrap();
    daemon.start();
    let list = until("the services are there", || daemon.call("GET", "/services", None));
    assert_eq!(list.as_array().map(Vec::len), Some(services));
    let log = daemon.log();
    for file in &keys {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(log.contains(&format!("others could use {}: its mode was 0644", file.display())), "{log}");
    }
}

/// A file system of its own for one folder.
struct Mount(PathBuf);

impl Mount {
    fn run(&self, options: &str) -> bool {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.0);
        command.output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).output());
    }
}

#[test]
fn a_full_disk_stops_the_manager_and_loses_nothing() {
    let mut cluster = Cluster::start("simulated", 1);
    assert!(cluster.nodes[0].stop().success());
    let state = cluster.manager().state_dir();
    let copy = state.with_file_name("copy");
    copy_folder(&state, &copy);
    let mount = Mount(state.clone());
    if !mount.run("size=3m,mode=0700") {
        eprintln!("only root can make a small file system: there is no full disk here");
        return;
    }
    for entry in fs::read_dir(&copy).unwrap() {
        let from = entry.unwrap().path();
        let to = state.join(from.file_name().unwrap());
        if from.is_dir() { copy_folder(&from, &to) } else { assert!(fs::copy(from, to).is_ok()) }
    }
    let daemon = &mut cluster.nodes[0];
    daemon.start();
    until("it leads", || daemon.call("GET", "/services", None));
    let mut acknowledged = Vec::new();
    let failure = loop {
        let name = format!("s{}", acknowledged.len());
        let mut spec = service(&name, 0);
        spec["Labels"] = json!({ "fill": "x".repeat(60_000) });
        match daemon.send("POST", "/services/create", Some(&spec)) {
            Ok(answer) if answer.is_ok() => acknowledged.push(name),
            Ok(answer) => break format!("{} {}", answer.status, answer.message()),
            // It ended before it could say so.
            Err(error) => break error.to_string(),
        }
        assert!(acknowledged.len() < 1000, "the disk is never full");
    };
    assert!(acknowledged.len() > 5, "{failure}");
    let log = daemon.ends_by_itself();
    assert!(log.contains("the log cannot be written") && log.contains("log.db") && log.contains("full"), "{log}");
    assert!(log.contains("make room and start swarmd again"), "{log}");
    // There is room again.
    assert!(mount.run("remount,size=64m"));
    daemon.start();
    let list = until("the services can be listed", || daemon.call("GET", "/services", None));
    let names: Vec<_> = list.as_array().unwrap().iter().filter_map(|s| s["Spec"]["Name"].as_str()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !names.contains(&name.as_str())).collect();
    assert!(lost.is_empty(), "{lost:?}");
    cluster.create(&service("afterwards", 0));
    assert!(cluster.nodes[0].stop().success());
}
