use swarm_model::{ClusterId, NodeId, NodeRole};
use swarm_wire::{Ca, clock, new_key_and_csr};

use super::*;

fn error(path: &Path) -> String {
    format!("{:#}", StateDir::open(path).unwrap_err())
}

/// The membership of a node that is a worker.
pub(in crate::state_dir) fn a_membership() -> Membership {
    let addr = "10.0.0.2:2377".to_owned();
    Membership { listen_addr: addr.clone(), advertise_addr: addr, ..Membership::default() }
}

#[test]
fn a_second_swarmd_is_told_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    let first = StateDir::open(&path).unwrap();
    let text = error(&path);
    assert!(text.contains(&format!("another swarmd uses it (process {})", std::process::id())), "{text}");
    drop(first);
    StateDir::open(&path).unwrap();
}

#[test]
fn a_lock_that_is_a_link_is_refused_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    for target in [victim.clone(), folder.path().join("new")] {
        std::os::unix::fs::symlink(&target, state.join(LOCK_FILE)).unwrap();
        let text = error(&state);
        assert!(text.contains("lock is a symbolic link"), "{text}");
        fs::remove_file(state.join(LOCK_FILE)).unwrap();
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(!folder.path().join("new").exists());
    StateDir::open(&state).unwrap();
}

#[test]
fn the_folder_is_private_unless_it_is_somebody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let mode = || fs::metadata(folder.path()).unwrap().mode() & 0o7777;
    let open_to_others = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    for found in [0o755, 0o770, 0o701, 0o1777] {
        open_to_others(found);
        StateDir::open(folder.path()).unwrap();
        assert_eq!(mode(), 0o700);
    }
    let own_uid = geteuid().as_raw();
    keep_private(folder.path(), own_uid + 1).unwrap();
    open_to_others(0o750);
    let text = format!("{:#}", keep_private(folder.path(), own_uid + 1).unwrap_err());
    assert!(text.contains("0750") && text.contains(&format!("belongs to user {own_uid}")), "{text}");
    // A network that swarmd did not make stays as it is.
    fs::remove_file(folder.path().join(FORMAT_FILE)).unwrap();
    fs::write(folder.path().join("letters.txt"), "dear").unwrap();
    assert!(error(folder.path()).contains("letters.txt"));
    assert_eq!(mode(), 0o750);
}

#[test]
fn foreign_and_newer_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letters.txt"), "dear").unwrap();
    let text = error(folder.path());
    assert!(text.contains("letters.txt") && text.contains("swarmd.json is missing"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FORMAT_FILE), r#"{"format": 7, "program": "swarmd 9.9.9"}"#).unwrap();
    let text = error(folder.path());
    assert!(text.contains("swarmd 9.9.9, a newer version"), "{text}");

    fs::write(folder.path().join(FORMAT_FILE), "{").unwrap();
    assert!(error(folder.path()).contains("damaged"));
}

#[test]
fn an_address_that_is_none_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    state.save_membership(&Membership { advertise_addr: "10.0.0.9".to_owned(), ..a_membership() }).unwrap();
    let error = format!("{:#}", state.membership().unwrap_err());
    assert!(error.contains("swarm.json is damaged: its advertised address \"10.0.0.9\""), "{error}");
}

#[test]
fn membership_counts_once_it_is_written_and_until_it_is_wiped() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let ca = Ca::create().unwrap();
    let (key, csr) = new_key_and_csr().unwrap();
    let cert = ca.issue(&csr, NodeId(1), NodeRole::Worker, ClusterId(2), 1 << 50, clock::now()).unwrap();
    let identity = NodeIdentity::new(cert.cert_pem, key, ca.cert_pem()).unwrap();
    state.save_identity(&identity).unwrap();
    assert!(state.membership().unwrap().is_none());
    let membership = Membership { managers: vec!["10.0.0.1:2377".to_owned()], ..a_membership() };
    state.save_membership(&membership).unwrap();
    let (found, found_identity) = state.membership().unwrap().unwrap();
    assert_eq!(found, membership);
    assert_eq!(found_identity.as_peer(), identity.as_peer());
    let manager = state.manager().unwrap();
    let file = folder.path().join(MEMBERSHIP_FILE);
    let kept = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let error = state.membership().unwrap_err().to_string();
    assert!(error.contains("swarm.json is missing") && error.contains("join anew"), "{error}");
    fs::write(&file, kept).unwrap();
    assert_eq!(state.membership().unwrap().unwrap().0, membership);
    state.wipe().unwrap();
    state.wipe().unwrap();
    assert!(state.membership().unwrap().is_none() && !manager.exists());
}
