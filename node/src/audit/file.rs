//! The file of the audit log.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A file that lines are added to, at the path where it is expected: when it was moved away, a new one is made there.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    /// Device and inode of the file.
    id: (u64, u64),
    /// Whether its last line has no end, because a write was cut off.
    torn: bool,
}

impl AuditFile {
    /// Opens the file, or makes it with mode 0600.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a regular file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let refuse = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        // To open a device may do something.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(refuse());
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(refuse());
        }
        let mut last = [b'\n'];
        if found.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        Ok(Self { path: path.to_owned(), file, id: (found.dev(), found.ino()), torn: last != *b"\n" })
    }

    /// Goes on with a new file if this one was moved away or removed.
    ///
    /// # Errors
    /// The file is gone, and a new file cannot be opened. The old file stays in use.
    pub(super) fn follow(&mut self) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.id => Ok(()),
            _ => {
                *self = Self::open(&self.path)?;
                Ok(())
            }
        }
    }

    /// Adds a line, which ends with a line feed, in one write.
    ///
    /// # Errors
    /// The line was not written, or only a part of it.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let whole;
        let bytes = if self.torn {
            whole = [b"\n", line].concat();
            &whole[..]
        } else {
            line
        };
        loop {
            match self.file.write(bytes) {
                Ok(written) if written == bytes.len() => {
                    self.torn = false;
                    return Ok(());
                }
                Ok(written) => {
                    self.torn |= written > 0;
                    return Err(io::Error::new(io::ErrorKind::WriteZero, "only a part of a line was written"));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// A file that cannot be written, in place of this one.
    #[cfg(test)]
    pub(super) fn break_for_test(&mut self) {
        self.file = File::open(&self.path).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_for_its_owner_alone_and_only_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        AuditFile::open(&path).unwrap().append(b"one\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A mode that a rotation has set stays.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut file = AuditFile::open(&path).unwrap();
        file.append(b"two\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        // Emptied by somebody else, as `copytruncate` of logrotate does.
        File::options().write(true).truncate(true).open(&path).unwrap();
        file.follow().unwrap();
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
    }

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        fs::write(&path, b"one\ntw").unwrap();
        let mut file = AuditFile::open(&path).unwrap();
        file.append(b"three\n").unwrap();
        file.append(b"four\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntw\nthree\nfour\n");
    }

    #[test]
    fn what_is_moved_away_is_followed_by_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("audit.log"), folder.path().join("audit.log.1"));
        let mut file = AuditFile::open(&path).unwrap();
        file.append(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.follow().unwrap();
        file.append(b"two\n").unwrap();
        assert_eq!((fs::read(&moved).unwrap(), fs::read(&path).unwrap()), (b"one\n".to_vec(), b"two\n".to_vec()));
        // Where no new file can be made, lines go on into the old file.
        fs::remove_file(&path).unwrap();
        fs::rename(&moved, &path).unwrap();
        file.follow().unwrap();
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(file.follow().unwrap_err().to_string().contains("not a regular file"));
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read(&moved).unwrap(), b"one\nthree\n");
    }

    #[test]
    fn only_a_regular_file_will_do() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/dev/full")] {
            assert!(
                AuditFile::open(path).unwrap_err().to_string().contains("not a regular file"),
                "{}",
                path.display()
            );
        }
        let absent = AuditFile::open(&folder.path().join("no/audit.log")).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }
}
