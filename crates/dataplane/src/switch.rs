//! The switch of encrypted networks: carries frames of Ethernet between the containers of this node and those of others.
//!
//! Each network has a TAP device as a port of its bridge, which `swarmd net` makes. A frame that leaves by it goes to the node of
//! its receiver, on the links between data planes, and so encrypted. A frame of another node is passed on only if its sender is
//! a container of that node, by the certificate of the link, and its receiver a container of this one. Questions for Ethernet
//! addresses are answered here; other frames for many receivers do not leave the node.

mod neighbour;
mod packet;
mod port;
mod table;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use imbl::OrdMap;
use swarm_model::{NodeId, NodeWarning, ObjectId, WarningCause};
use swarm_net::switch_queue;
use swarm_wire::networks::{Member, MemberKey, Members, NetworkRecord};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use self::{
    neighbour::Question,
    packet::{Packet, is_fit},
    port::Port,
    table::{Refusal, Table},
};
use crate::{
    protocol::SwitchStats,
    remote::Remote,
    voice::{About, Warnings},
};

/// Pause before the queue of a device is asked for again.
const RETRY: Duration = Duration::from_millis(200);
/// How long a network may be without a queue before the node warns: a process that starts needs a moment.
const WARN_AFTER: Duration = Duration::from_secs(5);

/// The switch.
pub(crate) struct Switch(Arc<Shared>);

struct Shared {
    own: ArcSwapOption<NodeId>,
    /// The encrypted networks of this node, by the numbers that frames on links have.
    by_number: ArcSwap<OrdMap<u32, Arc<Network>>>,
    networks: Mutex<BTreeMap<ObjectId, Known>>,
    remote: Arc<dyn Remote>,
    counters: Counters,
}

/// An encrypted network, and the task that keeps its port.
struct Known {
    number: u32,
    network: Arc<Network>,
    _port: AbortOnDropHandle<()>,
}

/// The values that frames of a network are carried by.
#[derive(Default)]
struct Network {
    table: ArcSwap<Table>,
    /// None while the device is not there.
    port: ArcSwapOption<Port>,
}

#[derive(Default)]
struct Counters {
    forged: AtomicU64,
    unknown: AtomicU64,
    foreign: AtomicU64,
    stray: AtomicU64,
    malformed: AtomicU64,
    refused: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Switch {
    /// A switch without networks. It takes the frames of other nodes from now on.
    pub(crate) fn new(remote: Arc<dyn Remote>) -> Self {
        let shared = Arc::new(Shared {
            own: ArcSwapOption::empty(),
            by_number: ArcSwap::default(),
            networks: Mutex::default(),
            remote,
            counters: Counters::default(),
        });
        // The links are the switch's: they must not hold it in their turn.
        let switch = Arc::downgrade(&shared);
        shared.remote.take_ethernet(Box::new(move |from, number, frame| {
            switch.upgrade().map_or(Ok(()), |switch| switch.take(from, number, frame))
        }));
        Self(shared)
    }

    fn networks(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Known>> {
        self.0.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes which node this is.
    pub(crate) fn set_node(&self, node: NodeId) {
        self.0.own.store(Some(Arc::new(node)));
    }

    /// Begins to carry the frames of a network in which this node takes part. A network that is not encrypted is ignored; a network
    /// never becomes encrypted later. To be called inside a tokio runtime.
    pub(crate) fn put_network(
        &self,
        record: &NetworkRecord,
        net_socket: watch::Receiver<Option<PathBuf>>,
        warnings: &Arc<Warnings>,
    ) {
        let mut networks = self.networks();
        if !record.encrypted || networks.contains_key(&record.id) {
            return;
        }
        let network = Arc::new(Network::default());
        self.0.by_number.rcu(|numbers| numbers.update(record.vni, Arc::clone(&network)));
        let keeping = Keeping {
            shared: Arc::clone(&self.0),
            network: Arc::clone(&network),
            record: record.clone(),
            warnings: Arc::clone(warnings),
        };
        let port = AbortOnDropHandle::new(tokio::spawn(keeping.run(net_socket)));
        networks.insert(record.id, Known { number: record.vni, network, _port: port });
    }

    /// The node has left a network.
    pub(crate) fn remove_network(&self, network: ObjectId) {
        if let Some(known) = self.networks().remove(&network) {
            self.0.by_number.rcu(|numbers| numbers.without(&known.number));
        }
    }

    /// Takes changes of the members of a network that was put before.
    pub(crate) fn change(&self, network: ObjectId, members: &Members, changed: &[(MemberKey, Option<Member>)]) {
        if let Some(known) = self.networks().get(&network) {
            let mut table = Table::clone(&known.network.table.load());
            table.change(members, changed);
            known.network.table.store(Arc::new(table));
        }
    }

    /// Another process takes over: this one reads no frames any more.
    pub(crate) fn retire(&self) {
        self.0.by_number.store(Arc::default());
        self.networks().clear();
    }

    /// Counters since the process began.
    pub(crate) fn stats(&self) -> SwitchStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { forged, unknown, foreign, stray, malformed, refused } = &self.0.counters;
        SwitchStats {
            forged: load(forged),
            unknown: load(unknown),
            foreign: load(foreign),
            stray: load(stray),
            malformed: load(malformed),
            refused: load(refused),
            dropped: self.0.remote.dropped_ethernet(),
        }
    }
}

impl Shared {
    /// Takes a frame of another node. What may be a matter of moments is only counted: a task has come or gone, and not all
    /// nodes know it yet.
    ///
    /// # Errors
    /// The frame is one that no node sends.
    fn take(&self, node: NodeId, number: u32, frame: &[u8]) -> Result<(), &'static str> {
        let counters = &self.counters;
        let (numbers, own) = (self.by_number.load(), self.own.load());
        let (Some(network), Some(own)) = (numbers.get(&number), own.as_deref()) else {
            count(&counters.foreign);
            return Ok(());
        };
        let Some(packet) = Packet::read(frame).filter(|_| is_fit(frame)) else {
            count(&counters.malformed);
            return Err("it sent a frame that is malformed");
        };
        match network.table.load().admit(node, *own, packet.from, packet.to) {
            Err(Refusal::Forged) => {
                count(&counters.forged);
                return Err("it sent a frame whose sender is a container of another node");
            }
            Err(Refusal::Unknown) => count(&counters.unknown),
            Err(Refusal::Stray) => count(&counters.stray),
            Ok(()) => {
                let written = network.port.load().as_ref().map(|port| port.write(frame));
                if !matches!(written, Some(Ok(()))) {
                    count(&counters.refused);
                }
            }
        }
        Ok(())
    }

    /// Takes a frame of a container of this node.
    fn send(&self, network: &Network, number: u32, port: &Port, frame: &[u8]) {
        let (Some(packet), Some(own)) = (Packet::read(frame), self.own.load_full()) else { return };
        let table = network.table.load();
        if packet.is_for_many() {
            let question = Question::read(&packet);
            let owner = question.and_then(|question| Some((question, table.owner(question.wanted, *own)?)));
            if let Some(answer) = owner.and_then(|(question, owner)| question.answer(owner)) {
                let _ = port.write(&answer);
            }
        } else if let Some(node) = table.way_to(packet.to, *own) {
            self.remote.send_ethernet(node, number, packet.flow(), Bytes::copy_from_slice(frame));
        }
    }
}

/// The port of a network, for as long as the node takes part in it.
struct Keeping {
    shared: Arc<Shared>,
    network: Arc<Network>,
    record: NetworkRecord,
    warnings: Arc<Warnings>,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.warnings.set(About::Network(self.record.id), None);
    }
}

impl Keeping {
    async fn run(self, mut net_socket: watch::Receiver<Option<PathBuf>>) {
        let mut failing_since = None;
        loop {
            let Ok(path) = net_socket.wait_for(Option::is_some).await.map(|path| path.clone().unwrap_or_default())
            else {
                return;
            };
            let reason = match switch_queue(&path, self.record.id).await.and_then(Port::new) {
                Ok(port) => {
                    failing_since = None;
                    self.carry(port).await
                }
                Err(e) => e,
            };
            if failing_since.get_or_insert_with(Instant::now).elapsed() >= WARN_AFTER {
                let name = &self.record.name;
                let text = format!("encrypted network {name}: nothing passes between this node and others: {reason}");
                let warning = NodeWarning { cause: WarningCause::Network, text };
                self.warnings.set(About::Network(self.record.id), Some(warning));
            }
            sleep(RETRY).await;
        }
    }

    /// Carries frames until the device is gone, and returns why.
    async fn carry(&self, port: Port) -> io::Error {
        let port = Arc::new(port);
        self.warnings.set(About::Network(self.record.id), None);
        self.network.port.store(Some(Arc::clone(&port)));
        let ended = port.read(|frame| self.shared.send(&self.network, self.record.vni, &port, frame)).await;
        self.network.port.store(None);
        ended
    }
}
