//! The key that seals the log.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use ring::rand::{SecureRandom, SystemRandom};
use swarm_wire::{UnlockKey, WrapKey, is_wrapped, read_private, write_atomically};
use zeroize::Zeroizing;

use crate::{Error, seal::random_id};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Most that a key file holds: a wrapped key has less than a hundred bytes.
const FILE_BYTES_MAX: u64 = 256;

/// What a key file holds.
#[derive(Clone, Debug)]
pub enum KeyFile {
    /// The key.
    Open(SealKey),
    /// The key, wrapped by autolock.
    Wrapped(WrappedKey),
}

/// A key that autolock has wrapped.
#[derive(Clone, Debug)]
pub struct WrappedKey(Vec<u8>);

impl WrappedKey {
    /// The key, if this is what wrapped it.
    pub fn open(&self, unlock: &UnlockKey) -> Option<SealKey> {
        let bytes = unlock.wrap_key().unwrap(&self.0).ok()?;
        let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().ok()?;
        Some(SealKey::from_bytes(key))
    }
}

/// The key that seals log, vote and snapshots: 32 random bytes in a file of mode 0600 beside the node's key.
///
/// Clones share the bytes; they are wiped when the last one goes. `Debug` shows nothing.
#[derive(Clone)]
pub struct SealKey(Arc<Zeroizing<[u8; KEY_BYTES]>>);

impl SealKey {
    /// A key from its bytes, e.g. one that autolock has unwrapped.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// Reads the key file, or makes it. A file of another length, or one that autolock has wrapped is refused.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        loop {
            match Self::read(path)? {
                Some(KeyFile::Open(key)) => return Ok(key),
                Some(KeyFile::Wrapped(_)) => {
                    let detail = "it is locked: the manager has to be unlocked first (`swarm unlock`)".to_owned();
                    return Err(Error::Key { file: path.display().to_string(), detail });
                }
                None => {}
            }
            match Self::create(path) {
                Ok(key) => return Ok(key),
                // Another process was faster: its key is the key.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::path(path, error)),
            }
        }
    }

    /// Reads the key file; none if there is none.
    ///
    /// # Errors
    /// A file of another length; those of [`read_private`].
    pub fn read(path: &Path) -> Result<Option<KeyFile>, Error> {
        let refuse = |detail: String| Err(Error::Key { file: path.display().to_string(), detail });
        let bytes = match read_private(path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| Error::path(path, error))?,
        };
        if is_wrapped(&bytes) {
            return Ok(Some(KeyFile::Wrapped(WrappedKey(bytes.to_vec()))));
        }
        match <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(Some(KeyFile::Open(Self::from_bytes(key)))),
            Err(_) if bytes.len() < KEY_BYTES => {
                refuse(format!("it is shorter than {KEY_BYTES} bytes, so it is not a whole key"))
            }
            Err(_) => refuse(format!("it is longer than {KEY_BYTES} bytes, so it is not a key of ours")),
        }
    }

    /// Replaces the key file, wrapped if `unlock` is given. A crash leaves the old file or the new one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, path: &Path, unlock: Option<&UnlockKey>) -> Result<(), Error> {
        let failed = |error| Error::path(path, error);
        let content = match unlock {
            Some(unlock) => unlock.wrap_key().wrap(self.bytes()).map_err(|error| failed(io::Error::other(error)))?,
            None => self.bytes().to_vec(),
        };
        write_atomically(path, &Zeroizing::new(content), 0o600).map_err(failed)
    }

    /// What wraps the node's private key while autolock is on: who opens the log opens it, too, so that only one file
    /// has to change with autolock's key.
    pub fn node_wrap_key(&self) -> WrapKey {
        WrapKey::derive(&self.0, "swarmd: private key of the node")
    }

    /// Writes a new key beside the path and links it into place, so that the path never names half a key.
    fn create(path: &Path) -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| io::Error::other("the system gave no random bytes"))?;
        let unique = random_id().map_err(|_| io::Error::other("the system gave no random bytes"))?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".new-{:032x}", u128::from_le_bytes(unique)));
        let temporary = Path::new(&name);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
            file.write_all(&*bytes)?;
            file.sync_all()?;
            fs::hard_link(temporary, path)
        })();
        let removed = fs::remove_file(temporary);
        written.and(removed)?;
        crate::disk::sync_folder(path)?;
        Ok(Self(Arc::new(bytes)))
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(hidden)")
    }
}
