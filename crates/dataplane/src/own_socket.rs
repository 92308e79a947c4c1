//! The Unix sockets that a data plane listens on.

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
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};

/// Pause after a failed accept, which means that the system has no descriptors or memory left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Bits of a folder's mode that let others in.
const OTHERS: u32 = 0o077;
/// The user who may do everything anyway.
const ROOT: u32 = 0;

/// The socket on which the data plane takes connections of swarmd.
#[derive(Debug)]
pub enum Control {
    /// A socket of this path. Its folder is there already, is ours, and nobody else may enter it.
    Path(PathBuf),
    /// A socket that listens already.
    Listening(StdUnixListener),
}

/// A socket. Its file goes with it.
pub(crate) struct OwnSocket {
    listener: UnixListener,
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
    /// Opens the socket. A file that a dead process left behind is replaced.
    pub(crate) async fn open(control: Control) -> Result<Self> {
        match control {
            Control::Path(path) => Self::bind(path).await,
            Control::Listening(listener) => {
                listener.set_nonblocking(true).context("the socket for swarmd that was handed over is of no use")?;
                Ok(Self { listener: UnixListener::from_std(listener)?, path: None })
            }
        }
    }

    /// Opens a socket of this path. A file that a dead process left behind is replaced.
    pub(crate) async fn bind(path: PathBuf) -> Result<Self> {
        check_folder(&path)?;
        if let Ok(found) = fs::symlink_metadata(&path) {
            if !found.file_type().is_socket() {
                bail!("{} exists and is not a socket", path.display());
            }
            match UnixStream::connect(&path).await {
                Ok(_) => bail!("another data plane runs on {}", path.display()),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    tracing::info!(path = %path.display(), "replacing a socket that nobody listens on");
                    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
                }
                Err(e) => {
                    return Err(e).with_context(|| format!("cannot tell whether {} is in use", path.display()));
                }
            }
        }
        let listener = UnixListener::bind(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { listener, path: Some(path) })
    }

    /// A socket that another process opened, with its file.
    pub(crate) fn inherit(socket: OwnedFd, path: PathBuf) -> Result<Self> {
        let listener = StdUnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, path: Some(path) })
    }

    /// The next connection of somebody who may connect.
    pub(crate) async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if is_allowed(&stream) => return stream,
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!("cannot accept a connection to the data plane: {e}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// The same socket for another process.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Leaves the file to another process.
    pub(crate) fn leave_file(&mut self) {
        self.path = None;
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

/// Whether who connected is the user of this process, or root.
pub(crate) fn is_allowed(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == geteuid().as_raw() || peer.uid() == ROOT => true,
        Ok(peer) => {
            tracing::warn!("refused a connection of user {} to the data plane", peer.uid());
            false
        }
        Err(e) => {
            tracing::warn!("refused a connection to the data plane: who made it is not known: {e}");
            false
        }
    }
}
