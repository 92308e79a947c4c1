//! What the agent keeps on disk: its tasks, how far they are, and their specs (swarm-behaviour §7.2).
//!
//! With it an agent watches and restarts nothing but what it ran before, without a manager. It is no source of truth:
//! what it lost, managers and containers tell again. So it is not synced on every change, and a write that fails is
//! logged and no more. Registry credentials are not written.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, params};
use serde::{Deserialize, Serialize};
use swarm_model::{TaskStatus, Timestamp};
use swarm_wire::{
    agent::{AssignedSpec, AssignedTask},
    check_regular,
};
use thiserror::Error;

use crate::{
    step::LocalTask,
    worker::{Change, Stored},
};

const FILE_NAME: &str = "agent.db";
/// SQLite's own files stand beside the database.
const FILE_SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Why the store cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder or the file.
    #[error("the agent's store {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The database cannot be opened, read or written.
    #[error("the agent's store {path}: {source}")]
    Database {
        /// Which.
        path: PathBuf,
        /// SQLite's own error.
        source: rusqlite::Error,
    },
    /// The database was damaged.
    #[error(
        "the agent's store {path} is damaged: {source}. Nothing was changed. Move the file and those beside it that begin \
         with its name away and start swarmd again: the managers and the engine tell this node its tasks"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// SQLite's own error.
        source: rusqlite::Error,
    },
}

impl StoreError {
    fn of(path: &Path) -> impl Fn(rusqlite::Error) -> Self + '_ {
        |source| match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path: path.to_owned(), source }
            }
            _ => Self::Database { path: path.to_owned(), source },
        }
    }
}

#[derive(Serialize, Deserialize)]
struct TaskRow {
    assigned: AssignedTask,
    status: TaskStatus,
    leaving: bool,
    unhealthy: bool,
    #[serde(default)]
    started_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct SpecRow {
    spec: AssignedSpec,
    had_credentials: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    database: Connection,
}

impl Store {
    /// Opens or makes the store in a folder and reads what is in it. Rows that cannot be read are dropped, saying so.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Stored), StoreError> {
        let path = folder.join(FILE_NAME);
        let file_error = |source| StoreError::File { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file_error)?;
        for suffix in FILE_SUFFIXES {
            let path = folder.join(format!("{FILE_NAME}{suffix}"));
            check_regular(&path).map_err(|source| StoreError::File { path, source })?;
        }
        // The spec holds environments, and those hold secrets: only the owner may read the file. SQLite gives its
        // helper files the same mode.
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(file_error)?;
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(file_error)?;
        let (database, stored) = open(&path).map_err(StoreError::of(&path))?;
        Ok((Self { path, database }, stored))
    }

    /// Writes changes in one transaction.
    pub(crate) fn save(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.write(changes).map_err(StoreError::of(&self.path))
    }

    fn write(&mut self, changes: &[Change]) -> rusqlite::Result<()> {
        let encoded = |error: rmp_serde::encode::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
        let transaction = self.database.transaction()?;
        for change in changes {
            match change {
                Change::PutTask(task) => {
                    let row = rmp_serde::to_vec_named(&TaskRow {
                        assigned: task.assigned.clone(),
                        status: task.status.clone(),
                        leaving: task.leaving,
                        unhealthy: task.unhealthy,
                        started_at: task.started_at,
                    })
                    .map_err(encoded)?;
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO tasks VALUES (?1, ?2)")?
                        .execute(params![task.assigned.id.0.to_be_bytes(), row])?;
                }
                Change::DeleteTask(id) => {
                    transaction
                        .prepare_cached("DELETE FROM tasks WHERE id = ?1")?
                        .execute(params![id.0.to_be_bytes()])?;
                }
                Change::PutSpec(spec) => {
                    let had_credentials = spec.registry_auth.is_some();
                    let spec = AssignedSpec { registry_auth: None, ..AssignedSpec::clone(spec) };
                    let key = (spec.service.0.to_be_bytes(), spec.version as i64);
                    let row = rmp_serde::to_vec_named(&SpecRow { spec, had_credentials }).map_err(encoded)?;
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO specs VALUES (?1, ?2, ?3)")?
                        .execute(params![key.0, key.1, row])?;
                }
                Change::DeleteSpec(service, version) => {
                    transaction
                        .prepare_cached("DELETE FROM specs WHERE service = ?1 AND version = ?2")?
                        .execute(params![service.0.to_be_bytes(), *version as i64])?;
                }
            }
        }
        transaction.commit()
    }

    /// Deletes the store in a folder.
    pub(crate) fn wipe(folder: &Path) -> Result<(), StoreError> {
        for suffix in FILE_SUFFIXES {
            let path = folder.join(format!("{FILE_NAME}{suffix}"));
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::File { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> rusqlite::Result<(Connection, Stored)> {
    let mut database = Connection::open(path)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS tasks (id BLOB PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS specs (service BLOB, version INTEGER, row BLOB NOT NULL,
             PRIMARY KEY (service, version)) WITHOUT ROWID;",
    )?;
    let stored = read(&mut database)?;
    Ok((database, stored))
}

fn read(database: &mut Connection) -> rusqlite::Result<Stored> {
    let mut stored = Stored::default();
    let mut rows = database.prepare("SELECT row FROM tasks")?;
    for row in rows.query_map([], |r| r.get::<_, Vec<u8>>(0))? {
        match rmp_serde::from_slice::<TaskRow>(&row?) {
            Ok(TaskRow { assigned, status, leaving, unhealthy, started_at }) => {
                stored.tasks.push(LocalTask { assigned, status, leaving, unhealthy, started_at });
            }
            Err(error) => tracing::warn!(%error, "a task in the agent's store cannot be read and is left out"),
        }
    }
    let mut rows = database.prepare("SELECT row FROM specs")?;
    for row in rows.query_map([], |r| r.get::<_, Vec<u8>>(0))? {
        match rmp_serde::from_slice::<SpecRow>(&row?) {
            Ok(SpecRow { spec, had_credentials }) => stored.specs.push((spec, had_credentials)),
            Err(error) => tracing::warn!(%error, "a spec in the agent's store cannot be read and is left out"),
        }
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use swarm_model::{DesiredState, Redacted, ServiceId, TaskId};

    use super::*;
    use crate::testing::{assigned_spec, assigned_task};

    #[test]
    fn tasks_and_specs_come_back_without_credentials_and_only_the_owner_may_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("agent");
        let (mut store, stored) = Store::open(&state).expect("an empty store");
        assert_eq!(stored, Stored::default());
        let mut task = LocalTask::new(assigned_task(1, DesiredState::Running), Timestamp(5));
        task.started_at = Timestamp(7);
        let mut spec = assigned_spec("hello:1");
        spec.registry_auth = Some(Redacted::new("top-secret-credentials"));
        store
            .save(&[
                Change::PutTask(task.clone()),
                Change::PutTask(LocalTask::new(assigned_task(2, DesiredState::Running), Timestamp(5))),
                Change::DeleteTask(TaskId(2)),
                Change::PutSpec(spec.clone().into()),
                Change::DeleteSpec(ServiceId(77), 1),
            ])
            .expect("a write");
        drop(store);
        let bytes = fs::read(state.join(FILE_NAME)).expect("the file");
        assert!(!bytes.windows(10).any(|w| w == b"top-secret"));
        assert_eq!(fs::metadata(state.join(FILE_NAME)).expect("the file").permissions().mode() & 0o777, 0o600);
        let (_, stored) = Store::open(&state).expect("the store again");
        spec.registry_auth = None;
        assert_eq!(stored, Stored { tasks: vec![task], specs: vec![(spec, true)] });
        Store::wipe(&state).expect("wiped");
        assert_eq!(Store::open(&state).expect("empty again").1, Stored::default());
    }

    #[test]
    fn a_damaged_store_is_refused_by_name_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Store::open(folder.path()).expect("a store"));
        let path = folder.path().join(FILE_NAME);
        let whole = fs::read(&path).expect("the file");
        for damaged in [whole[..whole.len() / 2 + 7].to_vec(), b"no database at all".repeat(300)] {
            fs::write(&path, &damaged).expect("a write");
            let error = Store::open(folder.path()).expect_err("refused").to_string();
            assert!(error.contains("agent.db is damaged") && error.contains("start swarmd again"), "{error}");
            assert_eq!(fs::read(&path).expect("the file"), damaged);
        }
    }

    #[test]
    fn rows_that_cannot_be_read_are_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, _) = Store::open(folder.path()).expect("a store");
        store.database.execute("INSERT INTO tasks VALUES (x'00', x'ff00')", []).expect("a bad row");
        assert_eq!(read(&mut { store.database }).expect("read"), Stored::default());
    }
}
