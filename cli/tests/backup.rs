//! `swarm backup` and `swarm restore`: files and passphrases.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;
use support::{Fake, Reply};

const NODE: &str = "0000000000000000000000001";

#[test]
fn a_backup_is_private_and_replaces_nothing_unasked() {
    let fake = Fake::start();
    fake.on("POST /swarmd/backup", [Reply::bytes(b"sealed".to_vec())]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("swarm");
    let pass = folder.path().join("pass");
    fs::write(&pass, "long enough a passphrase\n").unwrap();
    let (file_arg, pass_arg) = (file.to_str().unwrap(), pass.to_str().unwrap());
    let ran = fake.run(&["swarm", "backup", "--passphrase-file", pass_arg, file_arg]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fs::read(&file).unwrap(), b"sealed");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let seen = fake.seen("POST /swarmd/backup");
    assert_eq!(seen[0].headers["x-swarmd-passphrase"], "bG9uZyBlbm91Z2ggYSBwYXNzcGhyYXNl");

    let again = fake.run(&["swarm", "backup", "--passphrase-file", pass_arg, file_arg]);
    assert!(again.code == Some(1) && again.stderr.contains("exists already") && again.stderr.contains("--force"));
    assert_eq!(fake.seen("POST /swarmd/backup").len(), 1, "nothing was asked for");
    fake.on("POST /swarmd/backup", [Reply::bytes(b"newer".to_vec())]);
    let forced = fake.run(&["swarm", "backup", "--force", "--passphrase-file", pass_arg, file_arg]);
    assert_eq!((forced.code, fs::read(&file).unwrap()), (Some(0), b"newer".to_vec()));

    // One that fails leaves the file, and no other.
    fake.on("POST /swarmd/backup", [Reply::error(503, "no leader")]);
    let failed = fake.run(&["swarm", "backup", "--force", "--passphrase-file", pass_arg, file_arg]);
    assert!(failed.code == Some(1) && failed.stderr.contains("no leader"), "{}", failed.stderr);
    assert_eq!(fs::read(&file).unwrap(), b"newer");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn passphrases_are_long_and_never_flags() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let (file, pass) = (folder.path().join("swarm"), folder.path().join("pass"));
    let (file, pass_arg) = (file.to_str().unwrap(), pass.to_str().unwrap());
    let missing = fake.run(&["swarm", "backup", "--passphrase-file", pass_arg, file]);
    assert!(missing.code == Some(1) && missing.stderr.contains("cannot read the passphrase"), "{}", missing.stderr);
    fs::write(&pass, "short\n").unwrap();
    let short = fake.run(&["swarm", "backup", "--passphrase-file", pass_arg, file]);
    assert!(short.code == Some(1) && short.stderr.contains("at least 12"), "{}", short.stderr);
    let nobody = fake.run(&["swarm", "backup", file]);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("--passphrase-file"), "{}", nobody.stderr);
    assert!(!folder.path().join("swarm").exists());
}

#[test]
fn a_restore_sends_the_file_and_says_what_is_next() {
    let fake = Fake::start();
    fake.on_json("POST /swarmd/restore", &json!(NODE));
    let folder = tempfile::tempdir().unwrap();
    let (file, pass) = (folder.path().join("swarm"), folder.path().join("pass"));
    fs::write(&file, "{\"sealed\": true}").unwrap();
    fs::write(&pass, "long enough a passphrase").unwrap();
    let args = ["swarm", "restore", "--advertise-addr", "10.0.0.7", "--passphrase-file", pass.to_str().unwrap()];
    let ran = fake.run(&[&args[..], &[file.to_str().unwrap()]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains(NODE) && ran.stdout.contains("must never come back"), "{}", ran.stdout);
    let seen = &fake.seen("POST /swarmd/restore")[0];
    assert_eq!(seen.body, json!({ "sealed": true }));
    assert_eq!(seen.query["advertiseAddr"], "10.0.0.7");
    fake.on("POST /swarmd/restore", [Reply::error(400, "the backup is cut short")]);
    let ran = fake.run(&[&args[..], &[file.to_str().unwrap()]].concat());
    assert!(ran.code == Some(1) && ran.stderr.contains("swarm: the backup is cut short"), "{}", ran.stderr);
}

#[test]
fn a_stale_read_says_how_old_it_is_and_changes_nothing() {
    let fake = Fake::start();
    fake.on(
        "GET /nodes",
        [Reply::json(&json!([])).header("x-swarmd-revision", "41").header("x-swarmd-leader-contact-ms", "90000")],
    );
    fake.on_json("GET /info", &json!({ "Swarm": { "NodeID": NODE } }));
    let ran = fake.run(&["node", "ls", "--consistency", "stale"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("revision 41") && ran.stderr.contains("minute"), "{}", ran.stderr);
    assert_eq!(fake.seen("GET /nodes")[0].query["consistency"], "stale");
    fake.on("GET /nodes", [Reply::json(&json!([]))]);
    let ran = fake.run(&["node", "ls"]);
    assert!(ran.stderr.is_empty() && !fake.seen("GET /nodes")[1].query.contains_key("consistency"), "{}", ran.stderr);
    let ran = fake.run(&["--consistency", "stale", "swarm", "leave"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("is for reading"), "{}", ran.stderr);
    assert_eq!(fake.seen("POST /swarm/leave").len(), 0);
}
