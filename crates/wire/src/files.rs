//! Files of a state folder: replaced as a whole, read only where there is a file, and private where they hold keys.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, process::geteuid};
use zeroize::Zeroizing;

/// Replaces a file as a whole: after a crash it is the old one or the new one, with this mode from its first byte on.
///
/// # Errors
/// Those of the file system.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Makes sure that what a path names, if anything, is a file: a pipe or a device in its place, or a link to one, would
/// hold up who opens it for ever.
///
/// # Errors
/// What it is, in place of a file; those of the file system.
pub fn check_regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) => is_regular(&found),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn is_regular(found: &fs::Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let kind = if found.is_dir() { "a folder" } else { "a device, a pipe or a socket" };
    Err(io::Error::other(format!("it is {kind}, or a link to one, where a file belongs: find out who put it there")))
}

/// Opens a file to read it; see [`check_regular`].
///
/// # Errors
/// Those of [`check_regular`]; [`io::ErrorKind::NotFound`] when there is none.
pub fn open_regular(path: &Path) -> io::Result<File> {
    check_regular(path)?;
    // It may have become something else since.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    is_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a file of at most so many bytes; see [`check_regular`].
///
/// # Errors
/// Those of [`open_regular`]; a file that is larger.
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_up_to(&open_regular(path)?, bytes_max, &mut bytes)?;
    Ok(bytes)
}

/// Reads a file that holds a key or a certificate, of at most so many bytes. One that others may use is made private if
/// it is ours, which the log tells; others may have read it before.
///
/// # Errors
/// Those of [`read_regular`]; a file of another user that others may use.
pub fn read_private(path: &Path, bytes_max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = open_regular(path)?;
    keep_private(path, &file, geteuid().as_raw())?;
    let mut bytes = Zeroizing::new(Vec::new());
    read_up_to(&file, bytes_max, &mut bytes)?;
    Ok(bytes)
}

fn keep_private(path: &Path, file: &File, own_uid: u32) -> io::Result<()> {
    let found = file.metadata()?;
    let mode = found.mode() & 0o7777;
    let private = mode & 0o600;
    if mode == private {
        return Ok(());
    }
    if found.uid() != own_uid {
        return Err(io::Error::other(format!(
            "its mode is {mode:04o}, so that others may use it, and it belongs to user {}, not to user {own_uid}, who runs \
             swarmd: find out who changed it, then run chown {own_uid} and chmod 600 on it",
            found.uid()
        )));
    }
    file.set_permissions(Permissions::from_mode(private)).map_err(|e| {
        io::Error::other(format!("its mode is {mode:04o}, so that others may use it, and chmod 600 fails: {e}"))
    })?;
    tracing::warn!("others could use {}: its mode was {mode:04o} and is {private:04o} now", path.display());
    Ok(())
}

fn read_up_to(file: &File, bytes_max: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    file.take(bytes_max + 1).read_to_end(bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it is larger than {bytes_max} bytes, so that it is none of ours")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_leftover_temporary_file_does_not_stand_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(folder.path().join("x.tmp"), "half").unwrap();
        write_atomically(&path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for (link, target) in [("zero", "/dev/zero"), ("tty", "/dev/tty"), ("to pipe", "pipe"), ("folder", ".")] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        for name in ["pipe", "zero", "tty", "to pipe", "folder"] {
            for error in [read_regular(&at(name), 9).unwrap_err(), read_private(&at(name), 9).unwrap_err()] {
                assert!(error.to_string().contains("where a file belongs"), "{name}: {error}");
            }
            assert!(check_regular(&at(name)).is_err(), "{name}");
        }
        assert_eq!(read_regular(&at("none"), 9).unwrap_err().kind(), io::ErrorKind::NotFound);
        check_regular(&at("none")).unwrap();
        fs::write(at("file"), "123456789").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        assert_eq!(read_regular(&at("link"), 9).unwrap(), b"123456789");
        assert!(read_regular(&at("file"), 8).unwrap_err().to_string().contains("larger than 8 bytes"));
    }

    #[test]
    fn a_key_that_others_may_use_is_made_private_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "key").unwrap();
        for (wide, private) in [(0o644, 0o600), (0o660, 0o600), (0o604, 0o600), (0o4700, 0o600), (0o444, 0o400)] {
            fs::set_permissions(&path, Permissions::from_mode(wide)).unwrap();
            let file = File::open(&path).unwrap();
            let another_uid = geteuid().as_raw() + 1;
            let error = keep_private(&path, &file, another_uid).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{wide:04o}")) && error.contains(&format!("chown {another_uid}")),
                "{error}"
            );
            assert_eq!(mode(&path), wide);
            assert_eq!(**read_private(&path, 9).unwrap(), *b"key");
            assert_eq!(mode(&path), private);
            keep_private(&path, &file, another_uid).unwrap();
        }
    }
}
