//! What is not as it was written is refused, by name, and left alone.

use std::{fs, path::Path};

use rusqlite::{Connection, params};
use swarm_core::{ENTRY_VERSION, Entry};
use swarm_model::Timestamp;

use super::{Watcher, admit, create, open, options, refused};
use crate::{
    Consensus, Error, LOG_KEEP_ENTRIES, Options, SealKey,
    seal::{Kind, Seal},
};

/// A log with entries, closed; with a snapshot and the log before it gone if asked for.
async fn written(dir: &Path, snapshot: bool) {
    let consensus = create(dir).await;
    let entries = if snapshot { 2 * LOG_KEEP_ENTRIES } else { 5 };
    super::write_entries(&consensus, entries).await;
    if snapshot {
        consensus.snapshot().await.unwrap();
        super::wait_until(|| consensus.status().purged_index.is_some()).await;
    }
    consensus.shutdown().await;
}

fn sql(dir: &Path, change: impl FnOnce(&Connection)) {
    change(&Connection::open(dir.join("raft/log.db")).unwrap());
}

fn row(connection: &Connection, index: i64) -> Vec<u8> {
    connection.query_row("SELECT row FROM log WHERE idx = ?1", [index], |row| row.get(0)).unwrap()
}

fn set_row(connection: &Connection, index: i64, row: &[u8]) {
    connection.execute("UPDATE log SET row = ?2 WHERE idx = ?1", params![index, row]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), false).await;
    let file = folder.path().join("raft/log.db");
    let healthy = fs::read(&file).unwrap();
    type Damage = fn(&Connection);
    let damages: [(&str, Damage); 7] = [
        ("entry 3", |c| {
            let mut bytes = row(c, 3);
            bytes[20] ^= 1;
            set_row(c, 3, &bytes);
        }),
        ("entry 2", |c| {
            let (two, three) = (row(c, 2), row(c, 3));
            set_row(c, 2, &three);
            set_row(c, 3, &two);
        }),
        ("entry 4", |c| set_row(c, 4, &[])),
        ("entry 3", |c| c.execute_batch("DELETE FROM log WHERE idx = 3").unwrap()),
        ("entry 0", |c| c.execute_batch("DELETE FROM log WHERE idx = 0").unwrap()),
        ("Vote", |c| c.execute_batch("UPDATE meta SET value = zeroblob(40) WHERE name = 'vote'").unwrap()),
        ("Identity", |c| c.execute_batch("DELETE FROM meta WHERE name = 'identity'").unwrap()),
    ];
    for (what, damage) in damages {
        fs::write(&file, &healthy).unwrap();
        sql(folder.path(), damage);
        let error = refused(folder.path()).await;
        assert!(error.contains("log.db is damaged") && error.contains(what), "{what}: {error}");
        let again = refused(folder.path()).await;
        assert_eq!(error, again, "a refusal changes nothing");
    }
    fs::write(&file, &healthy).unwrap();
    let consensus = open(folder.path()).await;
    assert_eq!(consensus.read_barrier().await.unwrap().nodes().count(), 5);
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_snapshots_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), true).await;
    let file = folder.path().join("raft/snapshot");
    let healthy = fs::read(&file).unwrap();
    let length = healthy.len();
    for end in [0, 5, 20, 30, 100, length / 2, length - 1] {
        fs::write(&file, &healthy[..end]).unwrap();
        let error = refused(folder.path()).await;
        assert!(error.contains("raft/snapshot is damaged") && error.contains("cut short"), "{end}: {error}");
    }
    for at in [10, 30, 60, length / 2, length - 1] {
        let mut bytes = healthy.clone();
        bytes[at] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        let error = refused(folder.path()).await;
        assert!(error.contains("raft/snapshot is damaged"), "{at}: {error}");
    }
    fs::write(&file, [&healthy[..], b"x"].concat()).unwrap();
    assert!(refused(folder.path()).await.contains("raft/snapshot is damaged"));
    fs::write(&file, b"PK\x03\x04 something else, long enough").unwrap();
    assert!(refused(folder.path()).await.contains("raft/snapshot does not belong here"));
    fs::remove_file(&file).unwrap();
    let error = refused(folder.path()).await;
    assert!(error.contains("raft/snapshot is missing"), "{error}");
    fs::write(&file, healthy).unwrap();
    open(folder.path()).await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), true).await;
    let dir = folder.path().join("raft");

    let key = SealKey::from_bytes([8; 32]);
    let refusal = Consensus::open(Options { key, ..options(folder.path()) }, Watcher::new()).await.err().unwrap();
    assert!(matches!(&refusal, Error::WrongKey { file } if file.ends_with("log.db")), "{refusal}");

    let other = Consensus::open(Options { raft_id: 2, ..options(folder.path()) }, Watcher::new()).await;
    let refusal = other.err().unwrap().to_string();
    assert!(refusal.contains("log.db") && refusal.contains("manager 1") && refusal.contains("manager 2"), "{refusal}");

    // The snapshot of another log under the same key.
    let another = tempfile::tempdir().unwrap();
    written(another.path(), true).await;
    fs::copy(another.path().join("raft/snapshot"), dir.join("snapshot")).unwrap();
    assert!(refused(folder.path()).await.contains("raft/snapshot is damaged"));
    // And its rows.
    let (mine, theirs) = (Connection::open(dir.join("log.db")), Connection::open(another.path().join("raft/log.db")));
    set_row(&mine.unwrap(), 900, &row(&theirs.unwrap(), 900));
    assert!(refused(folder.path()).await.contains("entry 900"));

    fs::write(dir.join("log.db"), "not a database, but long enough to be looked at").unwrap();
    let refusal = refused(folder.path()).await;
    assert!(refusal.contains("log.db does not belong here"), "{refusal}");
    fs::remove_file(dir.join("log.db")).unwrap();
    Connection::open(dir.join("log.db")).unwrap().execute_batch("CREATE TABLE log (a)").unwrap();
    let refusal = refused(folder.path()).await;
    assert!(refusal.contains("log.db does not belong here"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_never_reset() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(folder.path()).await;
    assert!(error.contains("raft/log.db is missing"), "{error}");
    assert!(!folder.path().join("raft").exists(), "opening makes nothing");
    written(folder.path(), true).await;
    let create = || Consensus::create(options(folder.path()), Watcher::new());
    let refusal = create().await.err().unwrap();
    assert!(matches!(&refusal, Error::Exists { file } if file.ends_with("log.db")), "{refusal}");
    fs::remove_file(folder.path().join("raft/log.db")).unwrap();
    assert!(refused(folder.path()).await.contains("raft/log.db is missing"));
    let refusal = create().await.err().unwrap();
    assert!(matches!(&refusal, Error::Exists { file } if file.ends_with("snapshot")), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_user() {
    let folder = tempfile::tempdir().unwrap();
    let consensus = create(folder.path()).await;
    let error = refused(folder.path()).await;
    assert!(error.contains("raft/lock is locked: another swarmd"), "{error}");
    consensus.propose(admit(1)).await.unwrap();
    consensus.shutdown().await;
    open(folder.path()).await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_was_cut_short_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("raft")).unwrap();
    fs::write(folder.path().join("raft/log.db.new"), "half a log").unwrap();
    create(folder.path()).await.shutdown().await;
    assert!(!folder.path().join("raft/log.db.new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_died_before_its_first_entry_founds_when_opened() {
    let folder = tempfile::tempdir().unwrap();
    let values = crate::load::first_values(&super::key(), 1, true).unwrap();
    drop(crate::disk::FolderDisk::create(&folder.path().join("raft"), &values).unwrap());
    let consensus = open(folder.path()).await;
    consensus.propose(admit(1)).await.unwrap();
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), false).await;
    sql(folder.path(), |connection| {
        let store: Vec<u8> =
            connection.query_row("SELECT value FROM meta WHERE name = 'store'", [], |row| row.get(0)).unwrap();
        let seal = Seal::new(&super::key(), store.try_into().unwrap());
        let mut plain = seal.open(Kind::Row, 4, &row(connection, 4)).unwrap();
        let entry = Entry { v: ENTRY_VERSION + 1, at: Timestamp(1), txs: admit(1) };
        plain.truncate(17);
        plain.extend(rmp_serde::to_vec_named(&entry).unwrap());
        set_row(connection, 4, &seal.seal(Kind::Row, 4, &plain).unwrap());
    });
    let error = refused(folder.path()).await;
    assert!(error.contains("log.db needs a newer swarmd") && error.contains("entry 4"), "{error}");
    sql(folder.path(), |connection| connection.pragma_update(None, "user_version", 2).unwrap());
    let error = refused(folder.path()).await;
    assert!(error.contains("log.db needs a newer swarmd") && error.contains("layout"), "{error}");
}
