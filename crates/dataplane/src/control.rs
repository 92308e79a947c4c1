//! The socket that swarmd comes to, and what it says there.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener as StdUnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use swarm_wire::channel;
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    plane::Plane,
    protocol::{DATA_PROTOCOL, FromData, ToData},
};

/// Pause after a failed accept, which means that the system has no descriptors or memory left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Bits of a folder's mode that let others in.
const OTHERS: u32 = 0o077;
/// The user who may do everything anyway.
const ROOT: u32 = 0;

/// Where the data plane takes connections of swarmd.
#[derive(Debug)]
pub enum Control {
    /// A socket of this path. Its folder is there already, is ours, and nobody else may enter it.
    Path(PathBuf),
    /// A socket that listens already.
    Listening(StdUnixListener),
}

/// The socket. Its file goes with it.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: Option<PathBuf>,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

impl ControlSocket {
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

    async fn bind(path: PathBuf) -> Result<Self> {
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

    /// Follows what swarmd says, until it says that the data plane is to end. A new connection replaces the one before.
    pub(crate) async fn serve(self, plane: Arc<Plane>) {
        let stop = CancellationToken::new();
        let mut session: Option<Session> = None;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if is_allowed(&stream) => {
                    if let Some(before) = session.take() {
                        before.end().await;
                    }
                    session = Some(Session::begin(stream, Arc::clone(&plane), stop.clone()));
                }
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!("cannot accept a connection of swarmd: {e}");
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

/// Whether who connected is the user of this process, or root.
fn is_allowed(stream: &UnixStream) -> bool {
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

/// A connection of swarmd.
struct Session {
    listening: JoinHandle<()>,
    speaking: JoinHandle<()>,
}

impl Session {
    fn begin(stream: UnixStream, plane: Arc<Plane>, stop: CancellationToken) -> Self {
        let (mut sender, mut receiver) = channel::<_, FromData, ToData>(stream);
        let mut messages = plane.voice.turn_to(FromData::Hello {
            protocol: DATA_PROTOCOL,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            table: plane.version(),
        });
        plane.warnings.repeat();
        plane.drains.repeat();
        let speaking = tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if let Err(e) = sender.send(&message).await {
                    tracing::debug!("cannot speak to swarmd: {e}");
                    return;
                }
            }
            let _ = sender.close().await;
        });
        let listening = tokio::spawn(async move {
            loop {
                match receiver.recv().await {
                    Ok(Some(ToData::Stop)) => return stop.cancel(),
                    Ok(Some(message)) => hear(&plane, message),
                    Ok(None) => return tracing::info!("swarmd is gone; its last words hold"),
                    Err(e) => return tracing::warn!("the connection of swarmd broke; its last words hold: {e}"),
                }
            }
        });
        Self { listening, speaking }
    }

    /// Closes the connection. Nothing that it said is heard afterwards.
    async fn end(mut self) {
        self.listening.abort();
        self.speaking.abort();
        let _ = tokio::join!(&mut self.listening, &mut self.speaking);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.listening.abort();
        self.speaking.abort();
    }
}

/// Does what swarmd says.
fn hear(plane: &Plane, message: ToData) {
    match message {
        ToData::Configure(configuration) => plane.configure(configuration),
        ToData::Identity(identity) => plane.identify(identity),
        ToData::LocalTasks(tasks) => plane.set_locals(tasks),
        ToData::PutLocal(task) => plane.put_local(task),
        ToData::RemoveLocal(task) => plane.remove_local(task),
        ToData::Table(update) => match plane.change(&update) {
            Ok(Some(version)) => plane.voice.say(FromData::Applied(version)),
            Ok(None) => {}
            Err(e) => {
                tracing::warn!("refused an update of the endpoint table: {e}");
                plane.voice.say(FromData::Refused { reason: e.to_string() });
            }
        },
        ToData::Stats => plane.voice.say(FromData::Stats(plane.stats())),
        // The session ends with it.
        ToData::Stop => {}
    }
}
