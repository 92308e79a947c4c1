//! The Unix socket that a process of this program listens on for other ones.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener as StdUnixListener,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{net::sockopt::socket_peercred, process::geteuid};
use tokio::net::{UnixListener, UnixStream};

/// Pause after a failed accept, which means that the system has no descriptors or memory left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Bits of a folder's mode that let others in.
const OTHERS: u32 = 0o077;
/// The user who may do everything anyway.
const ROOT: u32 = 0;

/// A socket for this user and root. Its file goes with it.
#[derive(Debug)]
pub struct OwnSocket {
    listener: UnixListener,
    /// None when the file is left to another process.
    path: Option<PathBuf>,
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

impl OwnSocket {
    /// Opens a socket of this path, whose folder is there already. A file that a dead process left behind is replaced.
    ///
    /// # Errors
    /// The folder is another user's or open to others; the path is in use, or is no socket.
    pub async fn bind(path: PathBuf) -> Result<Self> {
        check_folder(&path)?;
        if let Ok(found) = fs::symlink_metadata(&path) {
            if !found.file_type().is_socket() {
                bail!("{} exists and is not a socket; remove it, or name another path", path.display());
            }
            match UnixStream::connect(&path).await {
                Ok(_) => bail!("another process listens on {}; end it, or name another path", path.display()),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
                }
                Err(e) => return Err(e).with_context(|| format!("cannot tell whether {} is in use", path.display())),
            }
        }
        let listener = UnixListener::bind(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { listener, path: Some(path) })
    }

    /// Takes a socket that another process opened. With a path, the file there goes with it.
    ///
    /// # Errors
    /// The system's: the descriptor is no socket that listens.
    pub fn inherit(socket: OwnedFd, path: Option<PathBuf>) -> io::Result<Self> {
        let listener = StdUnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, path })
    }

    /// The same socket for another process.
    ///
    /// # Errors
    /// The system's: the process has no descriptors left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Leaves the file to another process.
    pub fn leave_file(&mut self) {
        self.path = None;
    }

    /// The next connection of a user who may connect.
    pub async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match check_peer(&stream) {
                    Ok(()) => return stream,
                    Err(e) => tracing::warn!("refused a connection: {e}"),
                },
                Err(e) => {
                    tracing::warn!("cannot accept a connection: {e}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// Whether the folder of a path is ours alone.
fn check_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = fs::symlink_metadata(folder).with_context(|| format!("the folder {}", folder.display()))?;
    if !found.is_dir() {
        bail!("{} is not a folder", folder.display());
    }
    let (own, mode) = (geteuid().as_raw(), found.permissions().mode() & 0o777);
    if found.uid() != own {
        bail!("the folder {} belongs to user {}, and must belong to user {own}", folder.display(), found.uid());
    }
    if mode & OTHERS != 0 {
        bail!("the folder {} has mode {mode:o}: others may enter it; its mode must be 700", folder.display());
    }
    Ok(())
}

/// Checks that the other side of a connection is a process of this user, or of root.
///
/// # Errors
/// The process is another user's, or the system does not tell whose it is.
pub fn check_peer(stream: &impl AsFd) -> io::Result<()> {
    check_uid(socket_peercred(stream)?.uid.as_raw(), geteuid().as_raw())
}

fn check_uid(peer: u32, own: u32) -> io::Result<()> {
    if peer == own || peer == ROOT {
        return Ok(());
    }
    let text = format!("the other side of the socket is a process of user {peer}, and must be one of user {own}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_user_is_refused() {
        check_uid(1000, 1000).unwrap();
        check_uid(ROOT, 1000).unwrap();
        let error = check_uid(1001, 1000).unwrap_err();
        assert!(error.to_string().contains("user 1001"), "{error}");
        check_uid(1001, ROOT).unwrap_err();
    }

    #[tokio::test]
    async fn a_folder_that_others_may_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = OwnSocket::bind(folder.path().join("socket")).await.unwrap_err();
        assert!(error.to_string().contains("its mode must be 700"), "{error}");
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let path = folder.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let _own = OwnSocket::bind(path.clone()).await.unwrap();
        let error = OwnSocket::bind(path).await.unwrap_err();
        assert!(error.to_string().contains("another process listens"), "{error}");
    }
}
