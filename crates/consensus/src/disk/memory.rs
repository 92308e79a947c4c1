//! A disk in memory, for tests.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Change, Disk, FileWriter, Name, RowVisitor, WITNESS_SLOTS};

/// Everything is durable at once and gone with the process.
#[derive(Debug, Default)]
pub(crate) struct MemoryDisk {
    files: Mutex<Files>,
    /// There is no room for a snapshot.
    pub(crate) full: AtomicBool,
}

#[derive(Debug, Default)]
struct Files {
    rows: BTreeMap<u64, Vec<u8>>,
    values: BTreeMap<Name, Vec<u8>>,
    snapshot: Option<Vec<u8>>,
    witness: Option<[Vec<u8>; WITNESS_SLOTS]>,
}

impl MemoryDisk {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for MemoryDisk {
    fn log_file(&self) -> String {
        "memory log".into()
    }

    fn witness_file(&self) -> String {
        "memory witness".into()
    }

    fn snapshot_file(&self) -> String {
        "memory snapshot".into()
    }

    fn value(&self, name: Name) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files().values.get(&name).cloned())
    }

    fn rows(&self, range: Range<u64>, visit: &mut RowVisitor<'_>) -> io::Result<()> {
        for (index, row) in self.files().rows.range(range) {
            if !visit(*index, row)? {
                break;
            }
        }
        Ok(())
    }

    fn witness(&self) -> io::Result<Option<[Vec<u8>; WITNESS_SLOTS]>> {
        Ok(self.files().witness.clone())
    }

    fn write_witness(&self, slot: usize, bytes: &[u8]) -> io::Result<()> {
        self.files().witness.get_or_insert_default()[slot] = bytes.to_vec();
        Ok(())
    }

    fn commit(&self, changes: &[Change]) -> io::Result<()> {
        let mut files = self.files();
        for change in changes {
            match change {
                Change::Row { index, bytes } => {
                    if files.rows.insert(*index, bytes.clone()).is_some() {
                        return Err(io::Error::other(format!("row {index} is there already")));
                    }
                }
                Change::RemoveFrom(index) => drop(files.rows.split_off(index)),
                Change::RemoveTo(index) => files.rows = files.rows.split_off(&(index + 1)),
                Change::Value(name, bytes) => drop(files.values.insert(*name, bytes.clone())),
            }
        }
        Ok(())
    }

    fn write_snapshot(&self, write: &mut FileWriter<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        write(&mut bytes)?;
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.files().snapshot = Some(bytes);
        Ok(())
    }

    fn read_snapshot(&self) -> io::Result<Option<Box<dyn Read + Send>>> {
        Ok(self.files().snapshot.clone().map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>))
    }

    fn close(&self) {}
}
