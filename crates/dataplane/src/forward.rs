//! Takes connections on published ports and finds a task for each.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustix::net::sockopt;
use swarm_model::TaskId;
use swarm_wire::BoxedStream;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    descriptors::{Descriptors, Reserved},
    endpoint::Lease,
    plane::Plane,
    relay::{self, Pipes},
    remote::OpenRequest,
    route::{Chosen, Port, Route, Way},
    source::{
        Origin,
        proxy::{self, Ends},
    },
};

/// How long a task may take to accept a connection. The ways are short; one that takes longer is gone or overloaded.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Endpoints that a connection tries before it gives up: with three of them dead the next is likely dead as well.
const TRIES_MAX: usize = 3;
/// How long a connection whose tries failed waits for a change of the table. A task that has just died is out of it
/// within milliseconds; a service that listens on another port than it publishes never answers.
const FAILED_WAIT: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which means that the system has no descriptors or memory left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Silence after which TCP asks whether the peer is there, how often it asks again, and how many unanswered questions
/// end a connection. A peer that is gone is noticed within a minute and a half; balancers between forget idle
/// connections after some minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// How connections that find no endpoint wait for one.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// For how long. The replacement of a single replica takes some seconds, and clients give up after some more.
    pub time: Duration,
    /// Connections that wait at a time, for each port. Each has two descriptors.
    pub connections_max: usize,
}

impl Default for Holding {
    fn default() -> Self {
        Self { time: Duration::from_secs(10), connections_max: 1000 }
    }
}

/// The values that all connections share.
pub(crate) struct Forwarder {
    pub(crate) plane: Arc<Plane>,
    pub(crate) descriptors: Arc<Descriptors>,
    pub(crate) pipes: Pipes,
    pub(crate) holding: Holding,
    /// All connections.
    pub(crate) connections: TaskTracker,
    /// Another process takes what comes from now on.
    pub(crate) leaving: CancellationToken,
}

/// A connection to a task.
enum Upstream {
    Local(TcpStream),
    Remote(BoxedStream),
}

impl Forwarder {
    /// Without connections.
    pub(crate) fn new(plane: Arc<Plane>, descriptors: Arc<Descriptors>, holding: Holding) -> Self {
        let pipes = Pipes::new(Arc::clone(&descriptors));
        Self { plane, descriptors, pipes, holding, connections: TaskTracker::new(), leaving: CancellationToken::new() }
    }

    /// Takes connections of clients until it is dropped, or another process takes them.
    pub(crate) async fn accept(self: Arc<Self>, listener: Arc<TcpListener>, port: Arc<Port>) {
        let mut leaving = pin!(self.leaving.cancelled());
        loop {
            let accepted = tokio::select! {
                biased;
                () = leaving.as_mut() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((client, from)) => match self.descriptors.reserve(2) {
                    Some(reserved) => {
                        let served = Arc::clone(&self).serve(client, from, Arc::clone(&port), reserved);
                        self.connections.spawn(served);
                    }
                    None => {
                        self.descriptors.refused();
                        relay::reset(client);
                    }
                },
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    tracing::debug!("cannot accept a connection on port {}: {e}", port.number);
                    self.descriptors.refused();
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// The memory that the program keeps for a connection, but for its sockets.
    #[cfg(test)]
    pub(crate) fn connection_bytes(self: &Arc<Self>) -> usize {
        fn size<F>(_: fn(Arc<Forwarder>, TcpStream, SocketAddr, Arc<Port>, Reserved) -> F) -> usize {
            size_of::<F>()
        }
        size(Self::serve)
    }

    async fn serve(self: Arc<Self>, mut client: TcpStream, from: SocketAddr, port: Arc<Port>, _reserved: Reserved) {
        let Some(ends) = ends(&mut client, from, &port).await else { return relay::reset(client) };
        // A limit refuses at once, and no connection waits for it.
        let Some(_admitted) = port.route().admit(ends.client.ip()) else { return relay::reset(client) };
        let connected = self.connect(ends, &port).await;
        let is_http = port.route().ingress.is_http;
        match connected {
            // A future of its own, so that other connections do not have room for heads.
            Some((lease, Upstream::Local(task))) if is_http => {
                Box::pin(relay::local_http(client, task, &lease)).await;
            }
            Some((lease, Upstream::Remote(stream))) if is_http => {
                Box::pin(relay::linked_http(client, stream, &lease)).await;
            }
            Some((lease, Upstream::Local(task))) => relay::local(client, task, &lease, &self.pipes).await,
            Some((lease, Upstream::Remote(stream))) => relay::linked(client, stream, true, &lease).await,
            None => relay::reset(client),
        }
    }

    /// Connects to a task. None when no task took the connection.
    async fn connect(&self, ends: Ends, port: &Port) -> Option<(Lease, Upstream)> {
        let mut search = Search::default();
        loop {
            let chosen =
                if search.tries_left() == 0 { None } else { port.route().choose(ends.client.ip(), &search.tried) };
            let Some(chosen) = chosen else {
                self.hold(port, &mut search).await?;
                continue;
            };
            match self.reach(&chosen, ends).await {
                Ok(upstream) => {
                    chosen.lease.connected();
                    return Some((chosen.lease, upstream));
                }
                Err(e) => {
                    tracing::debug!(task = %chosen.lease.task(), port = port.number, "a task did not connect: {e}");
                    chosen.lease.failed();
                    search.failed(&chosen, &port.route());
                }
            }
        }
    }

    /// Waits until there is an endpoint to try. None when it is time to give up.
    async fn hold(&self, port: &Port, search: &mut Search) -> Option<()> {
        let _place = Place::take(port, self.holding.connections_max)?;
        let mut at = *search.give_up_at.get_or_insert_with(|| Instant::now() + self.holding.time);
        if !search.tried.is_empty() {
            at = at.min(Instant::now() + FAILED_WAIT);
        }
        loop {
            let mut changed = pin!(port.changed());
            changed.as_mut().enable();
            if !port.route().is_published {
                return None;
            }
            if search.may_go_on(&port.route()) {
                return Some(());
            }
            timeout_at(at, changed).await.ok()?;
        }
    }

    async fn reach(&self, chosen: &Chosen, ends: Ends) -> Result<Upstream, String> {
        match chosen.way {
            Way::Local(addr) => {
                let origin = Origin { ends, source: chosen.source };
                let task = self.plane.sources.connect(origin, SocketAddr::new(addr, chosen.port.target)).await;
                task.map(Upstream::Local).map_err(|e| e.to_string())
            }
            Way::Remote(node) => {
                let request = OpenRequest {
                    task: chosen.lease.task(),
                    port: chosen.port,
                    client: canonical(ends.client),
                    asked: canonical(ends.asked),
                };
                let opened = timeout(CONNECT_TIMEOUT, self.plane.remote.open(node, request)).await;
                let opened = opened.map_err(|_| "its node does not answer".to_owned())?;
                opened.map(Upstream::Remote).map_err(|e| e.to_string())
            }
        }
    }
}

/// The ends of a connection: as the header of a proxy tells them, else as its socket has them. None when a proxy tells
/// nothing that can be read, which is counted.
async fn ends(client: &mut TcpStream, from: SocketAddr, port: &Port) -> Option<Ends> {
    let own = Ends { client: from, asked: client.local_addr().ok()? };
    if !port.route().ingress.is_proxy(from.ip()) {
        return Some(own);
    }
    // A future of its own, so that connections without a header do not have room for one.
    match Box::pin(proxy::accept(client)).await {
        Ok(told) => Some(told.unwrap_or(own)),
        Err(e) => {
            tracing::debug!(proxy = %from, port = port.number, "no header of a proxy: {e}");
            port.route().limits.count_bad_header();
            None
        }
    }
}

/// A connection's search for a task.
#[derive(Default)]
struct Search {
    /// The endpoints that failed.
    tried: Vec<TaskId>,
    /// The number of endpoints that failed with the route that the last try went by.
    failed: usize,
    route: Option<Arc<Route>>,
    /// None before the first wait.
    give_up_at: Option<Instant>,
}

impl Search {
    fn tries_left(&self) -> usize {
        TRIES_MAX.saturating_sub(self.failed)
    }

    fn failed(&mut self, chosen: &Chosen, route: &Arc<Route>) {
        self.tried.push(chosen.lease.task());
        self.failed += 1;
        self.route = Some(Arc::clone(route));
    }

    /// Whether a route has an endpoint to try. Another route than the one before allows as many tries again.
    fn may_go_on(&mut self, route: &Arc<Route>) -> bool {
        if self.route.as_ref().is_some_and(|before| !Arc::ptr_eq(before, route)) {
            (self.failed, self.route) = (0, None);
        }
        self.tries_left() > 0 && route.has_other_than(&self.tried)
    }
}

/// A place among the connections that wait on a port.
struct Place<'a>(&'a Port);

impl<'a> Place<'a> {
    fn take(port: &'a Port, most: usize) -> Option<Self> {
        let more = |held: usize| (held < most).then_some(held + 1);
        port.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self(port))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Connects to a task of this node, from an address of this host.
pub(crate) async fn connect_local(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    prepare(&socket)?;
    timeout(CONNECT_TIMEOUT, socket.connect(addr)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Sends small messages at once, and notices peers that are gone. What a listener accepts is prepared as it is.
pub(crate) fn prepare(socket: &TcpSocket) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    Ok(sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?)
}

/// The address as an IPv4 one where a socket for both families gave it as IPv6.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
