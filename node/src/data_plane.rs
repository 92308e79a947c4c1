//! The node's data plane: another process of this program, which goes on while swarmd is away.
//!
//! Under a service manager it is a unit of its own, and swarmd is told its socket (`--data-socket`). Without one swarmd starts
//! it when a service of the cluster has a published port, in a session of its own, and a later swarmd finds it by its socket.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use swarm_agent::{ByteStream, DataPlane};
use swarm_dataplane::{
    Control, Holding, Options,
    protocol::{Configuration, FromData, Identity, IngressAddr, ToData},
};
use swarm_model::{DataAddress, NodeCertificate};
use swarm_wire::{IdentityHolder, channel};
use tokio::{
    net::UnixStream,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::notify::{READY, notify};

/// Time for a data plane that was started to listen.
const START_MAX: Duration = Duration::from_secs(5);
/// Pause between two looks whether it listens.
const START_POLL: Duration = Duration::from_millis(10);
/// Time for the last word to a data plane.
const STOP_MAX: Duration = Duration::from_secs(2);

/// How often a data plane looks whether its socket is there.
const GONE_PERIOD: Duration = Duration::from_secs(1);

/// The name of the socket in the folder of a data plane.
const SOCKET: &str = "socket";
/// The log of a data plane that swarmd started.
const LOG: &str = "log";

/// The place of a node's data plane, and its port.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The socket of a data plane that somebody else starts; none for one that swarmd starts itself.
    given: Option<PathBuf>,
    /// The folder of one that swarmd starts.
    folder: PathBuf,
    /// The port for other nodes.
    port: u16,
}

impl Place {
    /// A data plane that is started in this folder, unless the socket of another one is given.
    pub(crate) fn new(given: Option<PathBuf>, folder: PathBuf, port: u16) -> Self {
        Self { given, folder, port }
    }

    fn socket(&self) -> PathBuf {
        self.given.clone().unwrap_or_else(|| self.folder.join(SOCKET))
    }

    /// Ends the data plane, if one runs: the node leaves its cluster.
    pub(crate) async fn stop(&self) {
        let say = async {
            let (mut sender, mut receiver) = channel::<_, ToData, FromData>(UnixStream::connect(self.socket()).await?);
            sender.send(&ToData::Stop).await?;
            // The data plane closes the connection when it ends.
            while receiver.recv().await?.is_some() {}
            Ok::<_, io::Error>(())
        };
        let _ = timeout(STOP_MAX, say).await;
        if self.given.is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The way to a node's data plane.
pub(crate) struct NodeDataPlane {
    place: Place,
    address: DataAddress,
    settings: watch::Receiver<Arc<[ToData]>>,
}

impl NodeDataPlane {
    /// The data plane of a node; `bind` is the address that the node listens on, none for all. The data plane is told the
    /// identity again whenever `certificate` says that it was replaced.
    pub(crate) fn new(
        place: Place,
        bind: Option<IpAddr>,
        identity: Arc<IdentityHolder>,
        mut certificate: watch::Receiver<NodeCertificate>,
    ) -> Self {
        let configuration = configuration(&identity, bind, place.port);
        let address = DataAddress { addr: bind, port: place.port };
        let settings = move || -> Arc<[ToData]> {
            let identity = identity.identity();
            let identity = Identity {
                certificate: identity.cert_pem().to_owned(),
                key: identity.key_pem().clone(),
                trusted: identity.root_pem().to_owned(),
            };
            [ToData::Configure(configuration.clone()), ToData::Identity(identity)].into()
        };
        let (sender, receiver) = watch::channel(settings());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    changed = certificate.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
                sender.send_replace(settings());
            }
        });
        Self { place, address, settings: receiver }
    }

    async fn open(&self) -> io::Result<UnixStream> {
        let socket = self.place.socket();
        match UnixStream::connect(&socket).await {
            Err(error) if self.place.given.is_none() && is_nobody(&error) => start(&self.place.folder).await,
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", socket.display()))),
            Ok(stream) => Ok(stream),
        }
    }
}

impl DataPlane for NodeDataPlane {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async {
            let stream = self.open().await?;
            let (peer, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
            if peer != own {
                let text = format!("a process of user {peer} listens at {}", self.place.socket().display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }

    fn runs(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { UnixStream::connect(self.place.socket()).await.is_ok() })
    }

    fn settings(&self) -> watch::Receiver<Arc<[ToData]>> {
        self.settings.clone()
    }

    fn address(&self) -> DataAddress {
        self.address
    }
}

/// Published ports listen where ports in host mode do: on all addresses, or on the node's and, where it is free there, on
/// loopback.
fn configuration(identity: &IdentityHolder, bind: Option<IpAddr>, port: u16) -> Configuration {
    let addr = |addr: IpAddr, is_optional| IngressAddr { addr, is_optional };
    let ingress = match bind {
        None => vec![addr(Ipv4Addr::UNSPECIFIED.into(), false), addr(Ipv6Addr::UNSPECIFIED.into(), true)],
        Some(own) if own.is_loopback() => vec![addr(own, false)],
        Some(own) => vec![addr(own, false), addr(Ipv4Addr::LOCALHOST.into(), true)],
    };
    let data_addr = SocketAddr::new(bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port);
    Configuration { node: identity.identity().node(), ingress, data_addr }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Starts a data plane, and connects to it.
async fn start(folder: &Path) -> io::Result<UnixStream> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot start a data plane in {}: {error}", folder.display()))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named)?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(LOG)).map_err(named)?;
    let socket = folder.join(SOCKET);
    let mut child = Command::new(std::env::current_exe()?)
        .arg("data")
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
                // The data plane outlives this process. While this process lives, it has to wait for the end of its child; a thread of the
                // runtime would hold up the end of this process.
                std::thread::spawn(move || child.wait());
                return Ok(stream);
            }
            Err(error) => error,
        };
        if let Some(status) = child.try_wait()? {
            let text = format!("the data plane ended with {status}; see {}", folder.join(LOG).display());
            return Err(io::Error::other(text));
        }
        if Instant::now() > deadline {
            return Err(named(error));
        }
        sleep(START_POLL).await;
    }
}

/// Runs this process as a data plane (`swarmd data`).
///
/// # Errors
/// Its socket cannot be opened, or the data plane before does not hand over.
pub(crate) async fn run(socket: PathBuf, take_over: bool) -> Result<()> {
    // A terminal that closes, and a signal to swarmd's group, are not meant for it. A unit of its own leads its session already.
    let _ = rustix::process::setsid();
    let mut reload = signal(SignalKind::hangup())?;
    let file = socket.clone();
    tokio::spawn(async move {
        while reload.recv().await.is_some() {
            if let Err(error) = start_next(&file) {
                tracing::warn!(%error, "the next data plane cannot be started; this one goes on");
            }
        }
    });
    let options = Options {
        control: Control::Path(socket.clone()),
        is_heir: take_over,
        holding: Holding::default(),
        shows_clients: true,
        stop: tokio_util::sync::CancellationToken::new(),
        descriptors_max: None,
        on_ready: Box::new(|| notify(&format!("MAINPID={}\n{READY}", std::process::id()))),
    };
    tokio::select! {
        end = swarm_dataplane::run(options) => end.context("the data plane"),
        () = gone(&socket) => {
            tracing::info!(socket = %socket.display(), "the socket was removed: nobody can reach this data plane, it ends");
            Ok(())
        }
    }
}

/// Starts the program that is installed now, as the data plane that takes over from this one.
fn start_next(socket: &Path) -> io::Result<()> {
    let program = std::env::current_exe()?;
    // A program that was replaced while it runs is shown like this.
    let name = program.to_string_lossy();
    let program = PathBuf::from(name.strip_suffix(" (deleted)").unwrap_or(&name));
    let mut child = Command::new(program).arg("data").arg("--socket").arg(socket).arg("--take-over").spawn()?;
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// Waits until another file, or none, is at the place of the socket. The state folder of a node that was removed by hand takes
/// its data plane with it.
async fn gone(socket: &Path) {
    let file = || fs::symlink_metadata(socket).map(|found| (found.dev(), found.ino())).ok();
    let mut first = None;
    loop {
        sleep(GONE_PERIOD).await;
        let now = file();
        let known = *first.get_or_insert(now);
        if known != now || now.is_none() {
            return;
        }
    }
}
