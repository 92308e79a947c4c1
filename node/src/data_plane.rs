//! The node's data plane: how it is found and told its settings, and the process itself (`swarmd data`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result};
use futures_util::{FutureExt, future::BoxFuture};
use swarm_agent::{ByteStream, DataPlane, Side};
use swarm_dataplane::{
    Control, Holding, Options,
    protocol::{Configuration, FromData, Identity, IngressAddr, ToData},
};
use swarm_model::{DataAddress, NodeCertificate};
use swarm_wire::IdentityHolder;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    notify::{READY, notify},
    side::{self, Place},
};

/// Ends the data plane of a node that leaves its cluster.
pub(crate) async fn stop(place: &Place) {
    place.stop::<ToData, FromData>(&[ToData::Stop]).await;
}

/// How a node's data plane is reached and listens.
pub(crate) struct DataSettings {
    /// The address that the node listens on; none for all.
    pub(crate) bind: Option<IpAddr>,
    /// The address and port at which other nodes reach it.
    pub(crate) address: SocketAddr,
    /// The socket of `swarmd net`.
    pub(crate) net_socket: PathBuf,
}

/// The way to a node's data plane.
pub(crate) struct NodeDataPlane {
    place: Place,
    address: SocketAddr,
    settings: watch::Receiver<Arc<[ToData]>>,
}

impl NodeDataPlane {
    /// The data plane of a node. It is told the identity again whenever `certificate` says that it was replaced.
    pub(crate) fn new(
        place: Place,
        settings: DataSettings,
        identity: Arc<IdentityHolder>,
        mut certificate: watch::Receiver<NodeCertificate>,
    ) -> Self {
        let address = settings.address;
        let configuration = configuration(&identity, settings);
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
}

impl Side<ToData> for NodeDataPlane {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        self.place.connect().boxed()
    }

    fn settings(&self) -> watch::Receiver<Arc<[ToData]>> {
        self.settings.clone()
    }
}

impl DataPlane for NodeDataPlane {
    fn runs(&self) -> BoxFuture<'_, bool> {
        self.place.runs().boxed()
    }

    fn address(&self) -> DataAddress {
        DataAddress { addr: Some(self.address.ip()), port: self.address.port() }
    }
}

/// Published ports listen where ports in host mode do: on all addresses, or on the node's and, where it is free there, on
/// loopback.
fn configuration(identity: &IdentityHolder, settings: DataSettings) -> Configuration {
    let DataSettings { bind, address, net_socket } = settings;
    let addr = |addr: IpAddr, is_optional| IngressAddr { addr, is_optional };
    let ingress = match bind {
        None => vec![addr(Ipv4Addr::UNSPECIFIED.into(), false), addr(Ipv6Addr::UNSPECIFIED.into(), true)],
        Some(own) if own.is_loopback() => vec![addr(own, false)],
        Some(own) => vec![addr(own, false), addr(Ipv4Addr::LOCALHOST.into(), true)],
    };
    Configuration {
        node: identity.identity().node(),
        ingress,
        // Behind a translation of addresses, the address that others know is none of this host.
        data_addr: SocketAddr::new(bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), address.port()),
        net_socket: Some(net_socket),
    }
}

/// Runs this process as a data plane (`swarmd data`).
///
/// # Errors
/// Its socket cannot be opened, or the data plane before does not hand over.
pub(crate) async fn run(socket: PathBuf, take_over: bool) -> Result<()> {
    side::leave_session();
    let mut reload = signal(SignalKind::hangup())?;
    let stop = CancellationToken::new();
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
        stop: stop.clone(),
        descriptors_max: None,
        on_ready: Box::new(|| notify(&format!("MAINPID={}\n{READY}", std::process::id()))),
    };
    side::until_told(&socket, stop.clone(), stop, swarm_dataplane::run(options)).await.context("the data plane")
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
