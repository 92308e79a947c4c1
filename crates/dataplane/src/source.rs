//! The address that a task sees a connection come from.
//!
//! The data plane of the task's node connects from the client's address (`IP_TRANSPARENT`). What the task answers is sent
//! to the client, and comes by this host on its way: a rule of nftables marks what is for one of our sockets ([`nft`]), and
//! a policy route delivers what is marked here ([`policy`]). So it works only while both are in place, no firewall drops
//! what comes in, and the task's answers come by this host. Whether they do is tried again and again with each task: a
//! connection from an address that nobody has, to a port that nobody listens on, is refused by the task's kernel when
//! everything works, and silent else. Tasks that the last try failed with see an address of this host.

mod claim;
mod connect;
mod networks;
mod nft;
mod policy;
pub(crate) mod proxy;
mod watch;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use swarm_model::IngressSource;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket},
    sync::Notify,
    time::timeout,
};

pub(crate) use self::watch::watch;
use self::{networks::Networks, proxy::Ends};
use crate::{
    forward::{CONNECT_TIMEOUT, connect_local},
    protocol::SourceStats,
    udp,
};

/// The mark of packets that are for one of our sockets: "SW".
const MARK: u32 = 0x5357;
/// How long a task may take to accept a connection from the client's address. The rest of [`CONNECT_TIMEOUT`] is for one
/// from this host's: a task must be reached also in the moment after somebody removed our rules.
const FROM_CLIENT_TIMEOUT: Duration = Duration::from_millis(500);

/// How connections to tasks of this node are made.
#[derive(Default)]
pub(crate) struct Sources {
    view: ArcSwap<View>,
    /// A task that was thought to answer did not: something may be missing in the kernel.
    in_doubt: Notify,
    /// Tasks are to be tested.
    to_test: Notify,
    /// Whether what the kernel was told stays when the process ends.
    is_kept: AtomicBool,
    client: AtomicU64,
    unfit: AtomicU64,
    other_family: AtomicU64,
    untested: AtomicU64,
}

/// The values that connections go by.
#[derive(Clone, Default)]
struct View {
    /// Counts the changes of what the kernel was told: a test that began before one says nothing.
    generation: u64,
    /// None while the kernel is not told.
    networks: Option<Arc<Networks>>,
    /// The addresses of tasks whose answers come back.
    proven: Arc<BTreeSet<IpAddr>>,
}

/// A connection of a client, as it came to the first node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Its ends, the client and the address that it asked.
    pub(crate) ends: Ends,
    /// The address that the service wants its tasks to see.
    pub(crate) source: IngressSource,
}

impl Sources {
    /// Connects to a task of this node.
    ///
    /// # Errors
    /// The task does not accept within [`CONNECT_TIMEOUT`].
    pub(crate) async fn connect(&self, origin: Origin, task: SocketAddr) -> io::Result<TcpStream> {
        let connect = async {
            if let Some(from) = self.from(origin, task.ip()) {
                match timeout(FROM_CLIENT_TIMEOUT, connect::tcp(from, task)).await {
                    Ok(Ok(stream)) => {
                        self.client.fetch_add(1, Ordering::Relaxed);
                        return Ok(stream);
                    }
                    // The task's own answer.
                    Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => return Err(e),
                    Ok(Err(e)) => tracing::debug!("no connection from {from} to {task}: {e}"),
                    Err(_) => tracing::debug!("no connection from {from} to {task}: no answer"),
                }
                self.doubt(task.ip());
                self.untested.fetch_add(1, Ordering::Relaxed);
            }
            let mut stream = connect_local(task).await?;
            // A socket that is new takes so little at once.
            match origin.source {
                IngressSource::Proxy => stream.write_all(&origin.ends.to_v2()).await?,
                IngressSource::ProxyV1 => stream.write_all(&origin.ends.to_v1()).await?,
                IngressSource::Client | IngressSource::Node => {}
            }
            Ok(stream)
        };
        timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// A socket for datagrams of a client to a task of this node, and back. Datagrams have no PROXY protocol.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn connect_datagrams(&self, origin: Origin, task: SocketAddr) -> io::Result<UdpSocket> {
        if let Some(from) = self.from(origin, task.ip()) {
            match connect::udp(from, task) {
                Ok(socket) => {
                    self.client.fetch_add(1, Ordering::Relaxed);
                    return Ok(socket);
                }
                Err(e) => tracing::debug!("no datagrams from {from} to {task}: {e}"),
            }
            self.untested.fetch_add(1, Ordering::Relaxed);
        }
        udp::connect_task(task)
    }

    /// The address to connect from; none for one of this host. That is counted, unless the service wants it so.
    fn from(&self, origin: Origin, task: IpAddr) -> Option<SocketAddr> {
        if origin.source != IngressSource::Client {
            return None;
        }
        let view = self.view.load();
        let client = origin.ends.client.ip().to_canonical();
        let is_fit = view.networks.as_ref().map(|networks| claim::check(client, networks).is_ok());
        let counter = if is_fit == Some(false) {
            &self.unfit
        } else if client.is_ipv4() != task.is_ipv4() {
            &self.other_family
        } else if is_fit.is_none() || !view.proven.contains(&task) {
            &self.untested
        } else {
            return Some(SocketAddr::new(client, origin.ends.client.port()));
        };
        counter.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The address that a task sees now whose service wants this one.
    pub(crate) fn shown(&self, wanted: IngressSource, task: IpAddr) -> IngressSource {
        let view = self.view.load();
        let is_proven = view.networks.is_some() && view.proven.contains(&task);
        if wanted == IngressSource::Client && !is_proven { IngressSource::Node } else { wanted }
    }

    /// A task did not answer. It gets connections from this host's address until a test passes.
    fn doubt(&self, task: IpAddr) {
        self.view.rcu(|view| {
            let mut view = View::clone(view);
            Arc::make_mut(&mut view.proven).remove(&task);
            view
        });
        self.in_doubt.notify_one();
        self.to_test.notify_one();
    }

    /// The rules stay in the kernel: another process goes on with them.
    pub(crate) fn keep(&self) {
        self.is_kept.store(true, Ordering::Release);
    }

    /// How connections to tasks of this node were made so far.
    pub(crate) fn stats(&self) -> SourceStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SourceStats {
            client: load(&self.client),
            unfit: load(&self.unfit),
            other_family: load(&self.other_family),
            untested: load(&self.untested),
        }
    }
}
