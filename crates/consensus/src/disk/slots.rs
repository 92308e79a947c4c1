//! The file of the witness: slots of a fixed size.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{WITNESS_SLOT_BYTES, WITNESS_SLOTS, closed, sync_folder};

/// Slots that are written over in place: the file never grows, so that there is room on a full disk too.
#[derive(Debug)]
pub(super) struct Slots {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Unused,
    Open(File),
    /// Nothing may be written any more: another process may have the folder.
    Closed,
}

impl Slots {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::new(State::Unused) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads them; of a file that was cut short, what there is.
    pub(super) fn read(&self) -> io::Result<Option<[Vec<u8>; WITNESS_SLOTS]>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut chunks = bytes.chunks(WITNESS_SLOT_BYTES);
        Ok(Some(std::array::from_fn(|_| chunks.next().unwrap_or_default().to_vec())))
    }

    /// Writes one. Nothing is written around it: a disk that tears what it writes tears no other slot.
    pub(super) fn write(&self, slot: usize, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > WITNESS_SLOT_BYTES {
            return Err(io::Error::other(format!("{} bytes are too many for a slot", bytes.len())));
        }
        let mut padded = vec![0; WITNESS_SLOT_BYTES];
        padded[..bytes.len()].copy_from_slice(bytes);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Unused) {
            if !self.path.try_exists()? {
                *state = State::Open(self.make(slot, &padded)?);
                return Ok(());
            }
            *state = State::Open(OpenOptions::new().write(true).open(&self.path)?);
        }
        let State::Open(file) = &*state else { return Err(closed()) };
        file.write_all_at(&padded, (slot * WITNESS_SLOT_BYTES) as u64)?;
        file.sync_data()
    }

    /// Makes the file, which gets its name when it is whole.
    fn make(&self, slot: usize, padded: &[u8]) -> io::Result<File> {
        let temporary = self.temporary();
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        // All of its bytes: what is written later has room on a disk that is full.
        file.write_all_at(&[0; WITNESS_SLOTS * WITNESS_SLOT_BYTES], 0)?;
        file.write_all_at(padded, (slot * WITNESS_SLOT_BYTES) as u64)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        sync_folder(&self.path)?;
        Ok(file)
    }

    /// One that is not whole yet.
    pub(super) fn temporary(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    pub(super) fn close(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Closed;
    }
}
