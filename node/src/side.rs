//! Processes of the node beside swarmd: the data plane, and `swarmd net`. Each is a subcommand of this program that listens on
//! a Unix socket.
//!
//! Under systemd each is a unit of its own, and swarmd is told its socket. Without one swarmd starts it when it is needed,
//! in a session of its own, and a later swarmd finds it by its socket.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Result;
use serde::{Serialize, de::DeserializeOwned};
use swarm_agent::ByteStream;
use swarm_wire::channel;
use tokio::{
    net::UnixStream,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Time for a process that was started to listen.
const START_MAX: Duration = Duration::from_secs(5);
/// Pause between two looks whether it listens.
const START_POLL: Duration = Duration::from_millis(10);
/// Time for the last word to a process.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How often a process looks whether its socket is there.
const GONE_PERIOD: Duration = Duration::from_secs(1);

/// The name of the socket in the folder of a process.
const SOCKET: &str = "socket";
/// The log of a process that swarmd started.
const LOG: &str = "log";

/// The place of a process.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The subcommand, such as `data`.
    command: &'static str,
    /// The socket of a process that somebody else starts; none for one that swarmd starts itself.
    given: Option<PathBuf>,
    /// The folder of one that swarmd starts.
    folder: PathBuf,
}

impl Place {
    /// A process that is started in this folder, unless the socket of another one is given.
    pub(crate) fn new(command: &'static str, given: Option<PathBuf>, folder: PathBuf) -> Self {
        Self { command, given, folder }
    }

    /// The socket that the process listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        self.given.clone().unwrap_or_else(|| self.folder.join(SOCKET))
    }

    /// Whether the process runs.
    pub(crate) async fn runs(&self) -> bool {
        UnixStream::connect(self.socket()).await.is_ok()
    }

    /// Connects to the process, which must be this user's. Starts it where that is the node's task.
    pub(crate) async fn connect(&self) -> io::Result<Box<dyn ByteStream>> {
        let stream = self.open().await?;
        let (peer, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
        if peer != own {
            let text = format!("a process of user {peer} listens at {}", self.socket().display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Box::new(stream))
    }

    async fn open(&self) -> io::Result<UnixStream> {
        let socket = self.socket();
        match UnixStream::connect(&socket).await {
            Err(error) if self.given.is_none() && is_nobody(&error) => self.start().await,
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", socket.display()))),
            Ok(stream) => Ok(stream),
        }
    }

    /// Ends the process, if it runs, with its last messages: the node leaves its cluster.
    pub(crate) async fn stop<To, From>(&self, last: &[To])
    where
        To: Serialize,
        From: DeserializeOwned,
    {
        let say = async {
            let (mut sender, mut receiver) = channel::<_, To, From>(UnixStream::connect(self.socket()).await?);
            for message in last {
                sender.send(message).await?;
            }
            // The process closes the connection when it ends.
            while receiver.recv().await?.is_some() {}
            Ok::<_, io::Error>(())
        };
        match timeout(STOP_MAX, say).await {
            Ok(Ok(())) => {}
            // The process does not run.
            Ok(Err(error)) if is_nobody(&error) => {}
            Ok(Err(error)) => tracing::warn!(%error, "swarmd {} may not have ended in order", self.command),
            Err(_) => tracing::warn!("swarmd {} did not end within {} s", self.command, STOP_MAX.as_secs()),
        }
        if self.given.is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    /// Starts the process, and connects to it.
    async fn start(&self) -> io::Result<UnixStream> {
        let folder = &self.folder;
        let named = |error: io::Error| {
            let text = format!("cannot start swarmd {} in {}: {error}", self.command, folder.display());
            io::Error::new(error.kind(), text)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named)?;
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(LOG)).map_err(named)?;
        let socket = folder.join(SOCKET);
        let mut child = Command::new(std::env::current_exe()?)
            .arg(self.command)
            .arg("--socket")
            .arg(&socket)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(named)?;
        let deadline = Instant::now() + START_MAX;
        loop {
            let error = match UnixStream::connect(&socket).await {
                Ok(stream) => {
                    // The process outlives this one. While this one lives, it has to wait for the end of its child; a thread
                    // of the runtime would hold up its own end.
                    std::thread::spawn(move || child.wait());
                    return Ok(stream);
                }
                Err(error) => error,
            };
            if let Some(status) = child.try_wait()? {
                let text = format!("swarmd {} ended with {status}; see {}", self.command, folder.join(LOG).display());
                return Err(io::Error::other(text));
            }
            if Instant::now() > deadline {
                return Err(named(error));
            }
            sleep(START_POLL).await;
        }
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Leaves the terminal and the process group of swarmd: signals to those are not meant for this process. A unit of its own
/// leads its session already.
pub(crate) fn leave_session() {
    let _ = rustix::process::setsid();
}

/// Runs a process until it ends by itself, or ends it in order: by `stop` at SIGTERM, by `leave` when its socket is gone.
pub(crate) async fn until_told(
    socket: &Path,
    stop: CancellationToken,
    leave: CancellationToken,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let told = async {
        tokio::select! {
            _ = terminate.recv() => stop.cancel(),
            () = gone(socket) => leave.cancel(),
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        end = work => end,
        () = told => Ok(()),
    }
}

/// Waits until another file, or none, is at the place of the socket. The state folder of a node that was removed by hand takes
/// the processes of the node with it.
async fn gone(socket: &Path) {
    let file = || fs::symlink_metadata(socket).map(|found| (found.dev(), found.ino())).ok();
    let mut first = None;
    loop {
        sleep(GONE_PERIOD).await;
        let now = file();
        let known = *first.get_or_insert(now);
        if known != now || now.is_none() {
            tracing::info!(socket = %socket.display(), "the socket was removed: nobody can reach this process, it ends");
            return;
        }
    }
}
