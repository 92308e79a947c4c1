//! The resolver that the containers of a node ask: it serves sockets that others opened.

mod serve;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io, net,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use swarm_model::ObjectId;
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::Handle,
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    counters::{Counters, Counts},
    share::{Room, Shares},
    table::NamesTable,
    upstream::{Upstream, UpstreamOptions},
};
use serve::Server;

/// Time that a query waits until the table is complete: the engine waits four seconds for a resolver.
const TABLE_WAIT: Duration = Duration::from_secs(2);
/// Time that a TCP connection may take for the next query, and for an answer to go out.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// The containers that ask at a pair of sockets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    /// A container, by the engine's id: the sockets are open in its namespace. The table must have the container.
    Container(String),
    /// The containers of this node in a network: the sockets are open at the address of its bridge. The table tells the
    /// containers by their addresses.
    Gateway(ObjectId),
}

/// Answers the questions of the containers of a node.
///
/// Answers come from the table that was published last, or from other resolvers where the networks of a container do not
/// have the name. A container may have 64 queries that wait and 16 TCP connections at each pair of sockets; all containers
/// together may have 1,024 of both. A query beyond fails at once, and a connection beyond is closed.
///
/// All service ends when the value is dropped.
#[derive(Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
    served: Mutex<BTreeMap<Audience, Served>>,
    runtime: Handle,
}

/// The parts that the tasks of all sockets share.
#[derive(Debug)]
struct Shared {
    table: ArcSwap<NamesTable>,
    /// Changes after each change of the table.
    published: watch::Sender<()>,
    upstream: Upstream,
    counts: Counts,
    room: Room,
}

/// The service at a pair of sockets. Its end closes them.
#[derive(Debug)]
struct Served {
    end: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Resolver {
    /// Starts with an empty table and no sockets, on the tokio runtime that it is called in.
    pub fn start(upstream: UpstreamOptions) -> Self {
        let shared = Shared {
            table: ArcSwap::default(),
            published: watch::Sender::new(()),
            upstream: Upstream::new(upstream),
            counts: Counts::default(),
            room: Room::of_all(),
        };
        Self { shared: Arc::new(shared), served: Mutex::default(), runtime: Handle::current() }
    }

    /// Answers from this table from now on.
    pub fn publish(&self, table: NamesTable) {
        self.shared.table.store(Arc::new(table));
        self.shared.published.send_replace(());
    }

    /// Serves a UDP socket and a TCP listener, in place of those that the audience had before.
    ///
    /// Sockets keep the network namespace that they were opened in: it goes away no sooner than [`Self::remove`]. The
    /// service ends by itself when a socket fails ([`Self::serves`]).
    ///
    /// # Errors
    ///
    /// The sockets cannot be made non-blocking, or the runtime does not take them.
    pub fn put(&self, audience: Audience, udp: net::UdpSocket, tcp: net::TcpListener) -> io::Result<()> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let _runtime = self.runtime.enter();
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        let end = CancellationToken::new();
        let server = Arc::new(Server {
            shared: Arc::clone(&self.shared),
            audience: audience.clone(),
            shares: Shares::new(self.shared.room.clone()),
            end: end.clone(),
        });
        self.runtime.spawn(Arc::clone(&server).serve_udp(udp));
        self.runtime.spawn(server.serve_tcp(tcp));
        self.served().insert(audience, Served { end });
        Ok(())
    }

    /// Ends the service of an audience and closes its sockets.
    pub fn remove(&self, audience: &Audience) {
        self.served().remove(audience);
    }

    /// Whether an audience is served. A socket that failed has ended the service of its audience.
    pub fn serves(&self, audience: &Audience) -> bool {
        self.served().get(audience).is_some_and(|served| !served.end.is_cancelled())
    }

    /// The counters since the start.
    pub fn counters(&self) -> Counters {
        self.shared.counts.read()
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<Audience, Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
