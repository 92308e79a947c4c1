//! The key that seals the log.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::{Error, seal::random_id};

/// Bytes of a key.
const KEY_BYTES: usize = 32;

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

    /// Reads the key file, or makes it. A file of another length, or one that others may read, is refused.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        loop {
            match Self::load(path) {
                Ok(key) => return Ok(key),
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            match Self::create(path) {
                Ok(key) => return Ok(key),
                // Another process was faster: its key is the key.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::path(path, error)),
            }
        }
    }

    fn load(path: &Path) -> Result<Self, Error> {
        let refuse = |detail: String| Error::Key { file: path.display().to_string(), detail };
        let mut file = File::open(path).map_err(|error| Error::path(path, error))?;
        let mode = file.metadata().map_err(|error| Error::path(path, error))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(refuse(format!("its mode is {mode:04o}, others may use it; run chmod 600 on it")));
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let mut more = [0; 1];
        let whole = file.read_exact(&mut *bytes).and_then(|()| file.read(&mut more));
        match whole {
            Ok(0) => Ok(Self(Arc::new(bytes))),
            Ok(_) => Err(refuse(format!("it is longer than {KEY_BYTES} bytes, so it is not a key of ours"))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(refuse(format!("it is shorter than {KEY_BYTES} bytes, so it is not a whole key")))
            }
            Err(error) => Err(Error::path(path, error)),
        }
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
