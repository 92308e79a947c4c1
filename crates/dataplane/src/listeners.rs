//! The sockets that published ports, and links of other nodes, listen on: opened and closed as the table changes, and
//! tried again where that failed.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{io::Errno, net::sockopt};
use swarm_model::{NodeWarning, PortProtocol, WarnedPort, WarningCause};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    descriptors::Reserved,
    forward::{self, Forwarder},
    handover::{Inventory, Place},
    holder::holder_of,
    protocol::{Configuration, IngressAddr},
    remote::Remote,
    route::{Port, PortKey},
    udp::{self, PublicSocket},
    voice::About,
};

/// Time between attempts to open a port that could not be opened.
const RETRY: Duration = Duration::from_secs(5);
/// How long the name of the program that has a port is taken for right: to find it, all processes are looked through.
const HOLDER_TIME: Duration = Duration::from_secs(60);
/// Connections that wait to be accepted: bursts of some thousand, also where a hand-over delays them.
const BACKLOG: u32 = 4096;

/// The properties that a socket is to have.
#[derive(Clone)]
struct Plan {
    /// None for links.
    port: Option<Arc<Port>>,
    /// Whether a socket for all IPv6 addresses leaves IPv4 to another.
    is_v6_only: bool,
    is_optional: bool,
}

/// A socket, as it is used.
enum Socket {
    Tcp(Arc<TcpListener>),
    Udp(Arc<PublicSocket>),
    /// The links have it. This is a duplicate, for the next process.
    Links(OwnedFd),
}

/// A socket that listens.
struct Open {
    socket: Socket,
    plan: Plan,
    accepting: Option<JoinHandle<()>>,
    leaving: CancellationToken,
    _reserved: Reserved,
}

/// Why a socket cannot be opened.
struct Failed {
    plan: Plan,
    warning: NodeWarning,
    /// When the program that has the port is looked for again.
    look_at: Instant,
}

/// All sockets.
pub(crate) struct Listeners {
    forwarder: Arc<Forwarder>,
    /// None before swarmd said how to listen.
    configuration: Option<Configuration>,
    open: BTreeMap<Place, Open>,
    failed: BTreeMap<Place, Failed>,
    /// Sockets of the process before this one.
    inherited: BTreeMap<Place, OwnedFd>,
    inventories: mpsc::Receiver<oneshot::Sender<Vec<(Place, OwnedFd)>>>,
}

impl Listeners {
    /// None yet, and these of the process before. Also what asks for all that are open.
    pub(crate) fn new(forwarder: Arc<Forwarder>, inherited: Vec<(Place, OwnedFd)>) -> (Self, Inventory) {
        let (inventory, inventories) = mpsc::channel(1);
        let inherited = inherited.into_iter().collect();
        let (configuration, open, failed) = Default::default();
        (Self { forwarder, configuration, open, failed, inherited, inventories }, inventory)
    }

    /// Opens what is wanted now. What the process before had, and nobody wants, is closed.
    pub(crate) async fn begin(&mut self) {
        self.follow_wanted().await;
        self.inherited.clear();
    }

    /// Opens and closes sockets until it is dropped.
    pub(crate) async fn run(mut self) {
        let plane = Arc::clone(&self.forwarder.plane);
        loop {
            self.follow_wanted().await;
            let retry = Instant::now() + RETRY;
            loop {
                tokio::select! {
                    () = plane.changed.notified() => break,
                    () = sleep_until(retry), if !self.failed.is_empty() => {
                        let again = self.failed.iter().map(|(place, failed)| (*place, Some(failed.plan.clone())));
                        self.follow(again.collect()).await;
                        break;
                    }
                    Some(asked) = self.inventories.recv() => drop(asked.send(self.duplicates())),
                }
            }
        }
    }

    /// All sockets, for the next process. One that cannot be duplicated is left out, and opened anew there.
    fn duplicates(&self) -> Vec<(Place, OwnedFd)> {
        let duplicate = |socket: &Socket| match socket {
            Socket::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Socket::Udp(socket) => socket.as_fd().try_clone_to_owned(),
            Socket::Links(listener) => listener.try_clone(),
        };
        self.open.iter().filter_map(|(place, open)| Some((*place, duplicate(&open.socket).ok()?))).collect()
    }

    /// Brings the sockets to the changes of what is wanted.
    async fn follow_wanted(&mut self) {
        let Some(wanted) = self.forwarder.plane.wanted() else { return };
        let mut changes = BTreeMap::new();
        if let Some(configuration) = wanted.configuration {
            // Each place that there is may be wanted no more.
            changes.extend(self.open.keys().chain(self.failed.keys()).map(|place| (*place, None)));
            let links = Plan { port: None, is_v6_only: true, is_optional: false };
            changes.insert(Place::Links(configuration.data_addr), Some(links));
            self.configuration = Some(configuration);
        }
        if let Some(configuration) = &self.configuration {
            changes.extend(wanted.ports.iter().flat_map(|(key, port)| plans(configuration, *key, port.as_ref())));
        }
        self.follow(changes).await;
    }

    /// Brings these places to their plans; none closes one.
    async fn follow(&mut self, changes: BTreeMap<Place, Option<Plan>>) {
        // Closed before others are opened: a new one may need the address of an old one.
        for (place, plan) in &changes {
            if plan.is_none() && self.failed.remove(place).is_some() {
                self.warn(*place, None);
            }
            let stays = |open: &Open| plan.as_ref().is_some_and(|plan| plan.is_v6_only == open.plan.is_v6_only);
            if self.open.get(place).is_some_and(|open| !stays(open))
                && let Some(open) = self.open.remove(place)
            {
                open.stop().await;
            }
        }
        for (place, plan) in changes.into_iter().filter_map(|(place, plan)| Some((place, plan?))) {
            match self.open.get_mut(&place) {
                Some(open) if open.serves(&plan) => {}
                Some(open) => open.serve(plan, &self.forwarder).await,
                None => self.open(place, plan).await,
            }
        }
    }

    async fn open(&mut self, place: Place, plan: Plan) {
        let is_optional = plan.is_optional;
        let opened = match self.forwarder.descriptors.reserve(1) {
            Some(reserved) => {
                let inherited = self.inherited.remove(&place);
                open(place, &plan, inherited, &*self.forwarder.plane.remote).map(|socket| (socket, reserved))
            }
            None => Err(Errno::MFILE.into()),
        };
        match opened {
            Ok((socket, reserved)) => {
                self.failed.remove(&place);
                self.warn(place, None);
                let mut open = Open {
                    socket,
                    plan: plan.clone(),
                    accepting: None,
                    leaving: self.forwarder.leaving.clone(),
                    _reserved: reserved,
                };
                open.serve(plan, &self.forwarder).await;
                self.open.insert(place, open);
            }
            Err(e) => {
                let known = self.failed.remove(&place).filter(|failed| Instant::now() < failed.look_at);
                let (warning, look_at) = match known {
                    Some(failed) => (failed.warning, failed.look_at),
                    None => {
                        let warning = NodeWarning { cause: cause(place, &e), text: describe(place, &e).await };
                        (warning, Instant::now() + HOLDER_TIME)
                    }
                };
                self.warn(place, (!is_optional || !is_expected(&e)).then(|| warning.clone()));
                self.failed.insert(place, Failed { plan, warning, look_at });
            }
        }
    }

    fn warn(&self, place: Place, warning: Option<NodeWarning>) {
        let about = match place {
            Place::Published(protocol, port, addr) => About::Port(protocol, port, addr),
            Place::Links(_) => About::Links,
        };
        self.forwarder.plane.warnings.set(about, warning);
    }
}

impl Open {
    /// Whether it does what the plan says.
    fn serves(&self, plan: &Plan) -> bool {
        match (&self.plan.port, &plan.port) {
            (Some(own), Some(planned)) => Arc::ptr_eq(own, planned),
            (own, planned) => own.is_none() == planned.is_none(),
        }
    }

    /// Accepts connections for the port of the plan.
    async fn serve(&mut self, plan: Plan, forwarder: &Arc<Forwarder>) {
        if let Some(accepting) = self.accepting.take() {
            end(accepting).await;
        }
        if let Some(port) = plan.port.clone() {
            let forwarder = Arc::clone(forwarder);
            self.accepting = match &self.socket {
                Socket::Tcp(listener) => Some(tokio::spawn(forwarder.accept(Arc::clone(listener), port))),
                Socket::Udp(socket) => Some(tokio::spawn(udp::serve(Arc::clone(socket), port, forwarder))),
                Socket::Links(_) => None,
            };
        }
        self.plan = plan;
    }

    /// Closes the socket; its address is free when this returns.
    async fn stop(mut self) {
        if let Some(accepting) = self.accepting.take() {
            end(accepting).await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // A task that accepts ends by itself when another process takes over, and then sends answers on until the last flow.
        if let Some(accepting) = self.accepting.take_if(|_| !self.leaving.is_cancelled()) {
            accepting.abort();
        }
    }
}

async fn end(accepting: JoinHandle<()>) {
    accepting.abort();
    // The error says that the task was cancelled, as it was.
    let _ = accepting.await;
}

/// The places of a port, with their plans; none for a port that nobody is to listen on.
fn plans(configuration: &Configuration, key: PortKey, port: Option<&Arc<Port>>) -> Vec<(Place, Option<Plan>)> {
    let (protocol, number) = key;
    // The API refuses SCTP.
    if protocol == PortProtocol::Sctp {
        return Vec::new();
    }
    let has_all_v4 = configuration.ingress.iter().any(|ingress| ingress.addr == Ipv4Addr::UNSPECIFIED);
    let plans = configuration.ingress.iter().map(|IngressAddr { addr, is_optional }| {
        let is_v6_only = has_all_v4 || !addr.is_unspecified();
        let plan = port.map(|port| Plan { port: Some(Arc::clone(port)), is_v6_only, is_optional: *is_optional });
        (Place::Published(protocol, number, *addr), plan)
    });
    plans.collect()
}

fn open(place: Place, plan: &Plan, inherited: Option<OwnedFd>, links: &dyn Remote) -> io::Result<Socket> {
    let tcp = |addr, inherited: Option<OwnedFd>| match inherited {
        Some(socket) => TcpListener::from_std(socket.into()),
        None => listen(addr, plan.is_v6_only),
    };
    match place {
        Place::Published(PortProtocol::Udp, port, addr) => {
            let addr = SocketAddr::new(addr, port);
            let socket = match inherited {
                Some(socket) => PublicSocket::inherit(socket, addr),
                None => PublicSocket::open(addr, plan.is_v6_only),
            };
            Ok(Socket::Udp(Arc::new(socket?)))
        }
        Place::Published(_, port, addr) => Ok(Socket::Tcp(Arc::new(tcp(SocketAddr::new(addr, port), inherited)?))),
        Place::Links(addr) => {
            let listener = tcp(addr, inherited)?;
            let duplicate = listener.as_fd().try_clone_to_owned()?;
            links.listen(listener);
            Ok(Socket::Links(duplicate))
        }
    }
}

fn listen(addr: SocketAddr, is_v6_only: bool) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, is_v6_only)?;
    }
    // Connections that it accepts inherit these options.
    forward::prepare(&socket)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Whether an address that is optional may fail like this: it is taken, or this host does not have it.
fn is_expected(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// The cause of a socket that cannot be opened, for programs.
fn cause(place: Place, error: &io::Error) -> WarningCause {
    let Place::Published(protocol, published, _) = place else { return WarningCause::DataPort };
    let port = WarnedPort { protocol, published };
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => WarningCause::PortTaken(port),
        Some(Errno::ACCESS) if published < 1024 => WarningCause::PortRight(port),
        _ => WarningCause::PortFailed(port),
    }
}

/// Says why a socket cannot be opened, for people.
async fn describe(place: Place, error: &io::Error) -> String {
    let (name, protocol, port, addr) = match place {
        Place::Published(protocol, port, addr) => (format!("port {port}/{}", protocol.as_str()), protocol, port, addr),
        Place::Links(addr) => (format!("the data port {}", addr.port()), PortProtocol::Tcp, addr.port(), addr.ip()),
    };
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => {
            let holder = spawn_blocking(move || holder_of(protocol, port, addr)).await.ok().flatten();
            let holder = holder.unwrap_or_else(|| "another program has it".to_owned());
            format!("{name} is in use on {addr}: {holder}")
        }
        Some(Errno::ACCESS) if port < 1024 => format!(
            "{name} cannot be opened on {addr}: a port below 1024 needs the right CAP_NET_BIND_SERVICE, or a lower \
             net.ipv4.ip_unprivileged_port_start"
        ),
        Some(Errno::ADDRNOTAVAIL) => format!("{name} cannot be opened on {addr}: this host does not have the address"),
        Some(Errno::MFILE) => format!("{name} cannot be opened on {addr}: the limit of open files is reached"),
        _ => format!("{name} cannot be opened on {addr}: {error}"),
    }
}
