//! A folder with an SQLite file for the log and a plain file for the snapshot.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    ops::Range,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, config::DbConfig, params};

use swarm_model::Timestamp;
use swarm_wire::{check_regular, open_regular};

use super::{Change, Disk, FileWriter, Name, RowVisitor, Usage, WITNESS_SLOTS, closed, slots::Slots, sync_folder, wal};
use crate::Error;

/// Marks an SQLite file as one of ours (`PRAGMA application_id`): "swrl".
const APPLICATION_ID: i32 = 0x7377_726c;
/// Layout of the file (`PRAGMA user_version`).
const LAYOUT: i32 = 1;
/// Pages of 4 KiB in the write-ahead log before SQLite copies them over: 16 MiB, so that this costs its two fsyncs
/// rarely and a start stays quick.
const CHECKPOINT_PAGES: u32 = 4096;

const LOG: &str = "log.db";
/// SQLite's names for the write-ahead file and its index.
const LOG_WAL: &str = "log.db-wal";
const LOG_SHM: &str = "log.db-shm";
const WITNESS: &str = "witness";
const SNAPSHOT: &str = "snapshot";
/// A snapshot that is not whole yet.
const SNAPSHOT_NEW: &str = "snapshot.new";
const LOCK: &str = "lock";

/// The real disk.
pub(crate) struct FolderDisk {
    dir: PathBuf,
    /// As errors name it.
    log_file: String,
    /// Taken by the writer thread alone.
    writer: Mutex<Option<Connection>>,
    /// A connection of its own, so that reads do not wait for fsync.
    reader: Mutex<Option<Connection>>,
    /// Held while a snapshot is written.
    snapshot: Mutex<()>,
    witness: Slots,
    /// Where the write-ahead file is to be cut: what follows is a write that a power cut tore.
    torn_at: Mutex<Option<u64>>,
    /// The files as they were opened.
    opened: Mutex<Vec<Opened>>,
    closing: AtomicBool,
    lock: Mutex<Option<File>>,
}

impl FolderDisk {
    /// Makes a new log with these first values. Refuses a folder that has one.
    pub(crate) fn create(dir: &Path, values: &[Change]) -> Result<Self, Error> {
        make_folder(dir)?;
        let lock = lock_folder(dir)?;
        // A file that belongs to a log is the trace of one.
        for name in [LOG, SNAPSHOT, WITNESS, LOG_WAL] {
            let path = dir.join(name);
            if path.try_exists().map_err(|error| Error::path(&path, error))? {
                return Err(Error::Exists { file: path.display().to_string() });
            }
        }
        // The log gets its name when it is whole: a crash in between leaves nothing that looks like a log.
        let temporary = dir.join("log.db.new");
        remove(&temporary)?;
        remove(&dir.join("log.db.new-journal"))?;
        let path = dir.join(LOG);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|error| Error::path(&temporary, error))?;
        let filled = (|| {
            let mut connection = Connection::open_with_flags(&temporary, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.execute_batch(&format!(
                "PRAGMA synchronous = FULL;
                 PRAGMA application_id = {APPLICATION_ID};
                 PRAGMA user_version = {LAYOUT};
                 CREATE TABLE log (idx INTEGER PRIMARY KEY, row BLOB NOT NULL);
                 CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
            ))?;
            commit(&mut connection, values)?;
            connection.close().map_err(|(_, error)| error)
        })();
        filled.map_err(|error| Error::io(temporary.display().to_string(), sql(error)))?;
        File::open(&temporary)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| sync_folder(&path))
            .map_err(|error| Error::path(&path, error))?;
        Self::attach(dir, lock)
    }

    /// Opens an existing log.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(LOG);
        if !path.try_exists().map_err(|error| Error::path(&path, error))? {
            return Err(Error::Missing {
                file: path.display().to_string(),
                detail: "it is the Raft log of this manager".into(),
            });
        }
        Self::attach(dir, lock_folder(dir)?)
    }

    /// Opens the files for reading: they stay as they are until they are accepted.
    fn attach(dir: &Path, lock: File) -> Result<Self, Error> {
        let witness = Slots::new(dir.join(WITNESS));
        remove(&dir.join(SNAPSHOT_NEW))?;
        for name in [LOG, LOG_WAL, LOG_SHM, "log.db-journal", SNAPSHOT, WITNESS] {
            let path = dir.join(name);
            check_regular(&path).map_err(|error| Error::path(&path, error))?;
        }
        remove(&witness.temporary())?;
        // It is made anew from the write-ahead file.
        remove(&dir.join(LOG_SHM))?;
        let (path, tail) = (dir.join(LOG), dir.join(LOG_WAL));
        let torn_at = walk(&tail)?;
        // The log is both files: which of them is at fault, SQLite cannot say.
        let has_tail = fs::metadata(&tail).is_ok_and(|file| file.len() > 0);
        let tail = if has_tail { format!(" (with {})", tail.display()) } else { String::new() };
        let file = format!("{}{tail}", path.display());
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => {
                Error::Foreign { file: file.clone(), detail: "it is not an SQLite file".into() }
            }
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => Error::corrupt(&file, error.to_string()),
            _ => Error::io(&file, sql(error)),
        };
        let writer = connect(&path).map_err(failed)?;
        let number = |pragma: &str| writer.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
        if number("application_id").map_err(failed)? != APPLICATION_ID {
            return Err(Error::Foreign {
                file: file.clone(),
                detail: "it is an SQLite file, but not a Raft log".into(),
            });
        }
        let layout = number("user_version").map_err(failed)?;
        if layout != LAYOUT {
            return Err(Error::Newer {
                file: file.clone(),
                detail: format!("its layout is {layout}, this one knows {LAYOUT}"),
            });
        }
        // Rows are sealed, SQLite's own structure is not: where that is damaged, a later write could destroy rows.
        let structure: String = writer.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if structure != "ok" {
            return Err(Error::corrupt(file.clone(), structure));
        }
        let reader = connect(&path).map_err(failed)?;
        Ok(Self {
            log_file: file,
            dir: dir.to_owned(),
            writer: Mutex::new(Some(writer)),
            reader: Mutex::new(Some(reader)),
            snapshot: Mutex::new(()),
            witness,
            torn_at: Mutex::new(torn_at),
            opened: Mutex::default(),
            closing: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        })
    }
}

impl Disk for FolderDisk {
    fn log_file(&self) -> String {
        self.log_file.clone()
    }

    fn tail_file(&self) -> String {
        self.dir.join(LOG_WAL).display().to_string()
    }

    fn witness_file(&self) -> String {
        self.witness.path().display().to_string()
    }

    fn snapshot_file(&self) -> String {
        self.dir.join(SNAPSHOT).display().to_string()
    }

    fn value(&self, name: Name) -> io::Result<Option<Vec<u8>>> {
        let guard = hold(&self.reader);
        let connection = guard.as_ref().ok_or_else(closed)?;
        connection
            .query_row("SELECT value FROM meta WHERE name = ?1", params![name.text()], |row| row.get(0))
            .optional()
            .map_err(sql)
    }

    fn rows(&self, range: Range<u64>, visit: &mut RowVisitor<'_>) -> io::Result<()> {
        let guard = hold(&self.reader);
        let connection = guard.as_ref().ok_or_else(closed)?;
        let mut statement = connection
            .prepare_cached("SELECT idx, row FROM log WHERE idx >= ?1 AND idx < ?2 ORDER BY idx")
            .map_err(sql)?;
        let bound = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![bound(range.start), bound(range.end)]).map_err(sql)?;
        while let Some(row) = rows.next().map_err(sql)? {
            let index: i64 = row.get(0).map_err(sql)?;
            let index = u64::try_from(index).map_err(|_| io::Error::other(format!("row {index} is negative")))?;
            let bytes = row.get_ref(1).map_err(sql)?.as_blob().map_err(|error| io::Error::other(error.to_string()))?;
            if !visit(index, bytes)? {
                break;
            }
        }
        Ok(())
    }

    fn accept(&self) -> io::Result<()> {
        let (mut writer, mut reader) = (hold(&self.writer), hold(&self.reader));
        let log = self.dir.join(LOG);
        if let Some(end) = hold(&self.torn_at).take() {
            // SQLite goes on behind the last whole write with the same salt: what is left of the torn one would stand
            // behind the new ones, and look like damage after another power cut.
            drop((writer.take(), reader.take()));
            let file = OpenOptions::new().write(true).open(self.dir.join(LOG_WAL))?;
            file.set_len(end)?;
            file.sync_all()?;
            *writer = Some(connect(&log).map_err(sql)?);
            *reader = Some(connect(&log).map_err(sql)?);
        }
        let connection = writer.as_ref().ok_or_else(closed)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(sql)?;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sql)?;
        if mode != "wal" {
            return Err(io::Error::other(format!("SQLite cannot write it ahead: its journal mode is {mode}")));
        }
        for connection in [&*writer, &*reader].into_iter().flatten() {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sql)?;
            // Opens the write-ahead file.
            connection.query_row("SELECT count(*) FROM meta", [], |_| Ok(())).map_err(sql)?;
        }
        *hold(&self.opened) = vec![opened(log)?, opened(self.dir.join(LOG_WAL))?];
        Ok(())
    }

    fn witness(&self) -> io::Result<Option<[Vec<u8>; WITNESS_SLOTS]>> {
        self.witness.read()
    }

    fn write_witness(&self, slot: usize, bytes: &[u8]) -> io::Result<()> {
        self.witness.write(slot, bytes)?;
        let mut files = hold(&self.opened);
        if !files.iter().any(|file| file.path == self.witness.path()) {
            files.push(opened(self.witness.path().to_owned())?);
        }
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        for file in &*hold(&self.opened) {
            let there = match opened(file.path.clone()) {
                Ok(found) => found == *file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
            if !there {
                let path = file.path.display();
                return Err(io::Error::other(format!("{path} was removed or replaced while swarmd used it")));
            }
        }
        Ok(())
    }

    fn commit(&self, changes: &[Change]) -> io::Result<()> {
        let mut guard = hold(&self.writer);
        commit(guard.as_mut().ok_or_else(closed)?, changes).map_err(sql)?;
        // What was written to a file without a name is gone with the process.
        self.check()
    }

    fn write_snapshot(&self, write: &mut FileWriter<'_>) -> io::Result<()> {
        let _one = hold(&self.snapshot);
        let path = self.dir.join(SNAPSHOT);
        let temporary = self.dir.join(SNAPSHOT_NEW);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let mut file = UntilClosed { file, closing: &self.closing };
        write(&mut file)?;
        file.file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_folder(&path)
    }

    fn read_snapshot(&self) -> io::Result<Option<Box<dyn Read + Send>>> {
        match open_regular(&self.dir.join(SNAPSHOT)) {
            Ok(file) => Ok(Some(Box::new(io::BufReader::new(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn usage(&self) -> Usage {
        let snapshot = fs::metadata(self.dir.join(SNAPSHOT)).ok();
        let snapshot = snapshot.map(|file| (file.len(), Timestamp(file.mtime() * 1_000_000_000 + file.mtime_nsec())));
        let room = rustix::fs::statvfs(&self.dir).ok();
        Usage { snapshot, room: room.map(|fs| (fs.f_bavail * fs.f_frsize, fs.f_blocks * fs.f_frsize)) }
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        // The lock goes last: after it another process may come in.
        let _no_snapshot = hold(&self.snapshot);
        drop(hold(&self.reader).take());
        drop(hold(&self.writer).take());
        self.witness.close();
        drop(hold(&self.lock).take());
    }
}

/// A file that is in use.
#[derive(PartialEq, Eq)]
struct Opened {
    path: PathBuf,
    device: u64,
    inode: u64,
}

fn opened(path: PathBuf) -> io::Result<Opened> {
    let file = fs::metadata(&path)?;
    Ok(Opened { path, device: file.dev(), inode: file.ino() })
}

/// Fails once the disk is being closed, so that a large snapshot does not hold up the end.
struct UntilClosed<'a> {
    file: File,
    closing: &'a AtomicBool,
}

impl Write for UntilClosed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closing.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Walks the write-ahead file, if there is one. Says where it is to be cut.
fn walk(path: &Path) -> Result<Option<u64>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::path(path, error)),
    };
    match wal::walk(io::BufReader::with_capacity(1 << 16, file)).map_err(|error| Error::path(path, error))? {
        wal::Verdict::Whole => Ok(None),
        wal::Verdict::TornAt(end) => Ok(Some(end)),
        wal::Verdict::Damaged(detail) => Err(Error::corrupt(path.display().to_string(), detail)),
    }
}

/// Removes what an interrupted write may have left.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::path(path, error)),
        _ => Ok(()),
    }
}

fn make_folder(dir: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| sync_folder(dir))
        .map_err(|error| Error::path(dir, error))
}

/// The lock is the process's (flock): it is gone when the process is, however that ended.
fn lock_folder(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    check_regular(&path).map_err(|error| Error::path(&path, error))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| Error::path(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { file: path.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(Error::path(&path, error)),
    }
}

/// FULL: in WAL mode anything less loses acknowledged commits at a power cut.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;")?;
    // Until what it holds is accepted, nothing is moved into the database.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn commit(connection: &mut Connection, changes: &[Change]) -> rusqlite::Result<()> {
    // SQLite's integers are signed; a log index never comes near the end of them.
    let signed =
        |index: u64| i64::try_from(index).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()));
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for change in changes {
        match change {
            Change::Row { index, bytes } => transaction
                .prepare_cached("INSERT INTO log (idx, row) VALUES (?1, ?2)")?
                .execute(params![signed(*index)?, bytes])?,
            Change::RemoveFrom(index) => {
                transaction.prepare_cached("DELETE FROM log WHERE idx >= ?1")?.execute(params![signed(*index)?])?
            }
            Change::RemoveTo(index) => {
                transaction.prepare_cached("DELETE FROM log WHERE idx <= ?1")?.execute(params![signed(*index)?])?
            }
            Change::Value(name, bytes) => transaction
                .prepare_cached("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?
                .execute(params![name.text(), bytes])?,
        };
    }
    transaction.commit()
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sql(error: rusqlite::Error) -> io::Error {
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
    let kind = match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => io::ErrorKind::InvalidData,
        Some(DiskFull) => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
