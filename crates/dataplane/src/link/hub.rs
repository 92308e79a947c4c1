//! The nodes that may have links, and the links that stand.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use swarm_model::NodeId;
use swarm_wire::{DataConnection, DataTls, NodeIdentity, ShownChain, TlsError, tls::DATA_HANDSHAKE_TIMEOUT};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    LinkCounters,
    complaints::{Complaints, Offence},
    driver,
    ethernet::{Ethernet, Held},
    frame::Frame,
    mux::Link,
    stream::Incoming,
};

/// Links that this side makes to one peer. One carries what one processor can encrypt.
const MADE_MAX: usize = 4;
/// Links that are taken from one peer: those that it makes, and as many that it has given up and this side does not know.
const TAKEN_MAX: usize = 2 * MADE_MAX;
/// Streams on a link before another one is made.
const STREAMS_ENOUGH: usize = 64;

/// Time between attempts to reach a peer that did not answer. One that does not answer again is silent: a data plane that is
/// started anew, or a node that is about to count as down, takes less.
const SILENT_RETRY: Duration = Duration::from_secs(5);

/// Longest wait for the answer to a probe. The asker waits little longer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for the first frame of a peer, which follows its handshake.
const WELCOME_TIMEOUT: Duration = DATA_HANDSHAKE_TIMEOUT;

/// The peers that do not answer, each with the reason.
pub(crate) type Silent = BTreeMap<NodeId, Arc<str>>;

/// How a dial ended; none while it goes on.
type Dialled = Option<Result<(), Arc<str>>>;

/// The links of this node.
pub(super) struct Hub {
    state: Mutex<State>,
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) ethernet: Ethernet,
    pub(super) complaints: Complaints,
    silent: watch::Sender<Silent>,
}

#[derive(Default)]
struct State {
    tls: Option<Arc<DataTls>>,
    /// How often the identity was set.
    generation: u64,
    peers: BTreeMap<NodeId, Peer>,
    is_closed: bool,
}

struct Peer {
    addr: SocketAddr,
    links: Vec<Standing>,
    /// A link that is being made.
    dial: Option<watch::Receiver<Dialled>>,
    /// Frames of Ethernet that wait for the first link.
    held: Held,
    /// Whether no link could be made, and none was since: it is tried again.
    is_retried: bool,
}

/// A link, and the certificates that it stands on.
struct Standing {
    link: Arc<Link>,
    theirs: ShownChain,
    ours: ShownChain,
    generation: u64,
}

/// An identity, and how often one was set before.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) tls: Arc<DataTls>,
    generation: u64,
}

impl Hub {
    pub(super) fn new(incoming: mpsc::Sender<Incoming>) -> Self {
        Self {
            state: Mutex::default(),
            incoming,
            ethernet: Ethernet::default(),
            complaints: Complaints::default(),
            silent: watch::Sender::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The identity, if there is one.
    pub(super) fn current(&self) -> Option<Current> {
        let state = self.lock();
        state.tls.clone().map(|tls| Current { tls, generation: state.generation })
    }

    pub(super) fn counters(&self) -> LinkCounters {
        self.complaints.counters()
    }

    pub(super) fn count(&self, node: NodeId) -> usize {
        self.lock().peers.get(&node).map_or(0, |peer| peer.links.len())
    }

    pub(super) fn set_identity(&self, identity: NodeIdentity) -> Result<(), TlsError> {
        let tls = Arc::new(DataTls::new(identity)?);
        let standing: Vec<_> = {
            let mut state = self.lock();
            state.tls = Some(Arc::clone(&tls));
            state.generation += 1;
            let links = state.peers.values().flat_map(|peer| &peer.links);
            links.map(|s| (Arc::clone(&s.link), s.theirs.clone(), s.ours.clone())).collect()
        };
        // Not under the lock: each check takes the time of some signatures.
        for (link, theirs, ours) in standing {
            if let Err(e) = check(&tls, &theirs, &ours) {
                link.close(&e);
            }
        }
        Ok(())
    }

    pub(super) fn set_peers(&self, addrs: &BTreeMap<NodeId, SocketAddr>) {
        let mut cut = Vec::new();
        let mut state = self.lock();
        state.peers.retain(|node, peer| match addrs.get(node) {
            Some(addr) => {
                peer.addr = *addr;
                true
            }
            None => {
                cut.extend(peer.links.drain(..).map(|standing| standing.link));
                false
            }
        });
        for (node, addr) in addrs {
            state.peers.entry(*node).or_insert_with(|| Peer {
                addr: *addr,
                links: Vec::new(),
                dial: None,
                held: Held::default(),
                is_retried: false,
            });
        }
        drop(state);
        self.silent.send_if_modified(|silent| {
            let before = silent.len();
            silent.retain(|node, _| addrs.contains_key(node));
            silent.len() < before
        });
        for link in cut {
            link.close(&format!("node {} is no longer in the table of this node", link.peer()));
        }
    }

    /// Ends all links; no more are made or taken.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.tls = None;
        let peers = std::mem::take(&mut state.peers);
        drop(state);
        for standing in peers.into_values().flat_map(|peer| peer.links) {
            standing.link.close("the node stops");
        }
    }

    /// Tells all peers that this process takes no more streams.
    pub(super) fn retire(&self) {
        for standing in self.lock().peers.values().flat_map(|peer| &peer.links) {
            standing.link.say_leave();
        }
    }

    /// Takes a link out that has ended.
    pub(super) fn forget(&self, link: &Arc<Link>) {
        if let Some(peer) = self.lock().peers.get_mut(&link.peer()) {
            peer.links.retain(|standing| !Arc::ptr_eq(&standing.link, link));
        }
    }

    /// Whether a link shows an older certificate of this node: it is to end with its last stream.
    pub(super) fn is_old(&self, link: &Arc<Link>) -> bool {
        let state = self.lock();
        let links = state.peers.get(&link.peer()).map(|peer| &peer.links);
        let standing = links.and_then(|links| links.iter().find(|standing| Arc::ptr_eq(&standing.link, link)));
        standing.is_none_or(|standing| standing.generation < state.generation)
    }

    /// A link to a node; makes one if there is none that takes streams.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn link_to(self: &Arc<Self>, node: NodeId) -> Result<Arc<Link>, String> {
        loop {
            let mut dial = match self.pick(node)? {
                Picked::Link(link) => return Ok(link),
                Picked::Dial(dial) => dial,
            };
            let dialled = dial.wait_for(Option::is_some).await.map(|result| result.clone());
            match dialled {
                Ok(Some(Err(reason))) => return Err(reason.to_string()),
                // The task that dialled is gone: the process ends.
                Err(_) => return Err("the node stops".to_owned()),
                Ok(_) => {}
            }
        }
    }

    fn pick(self: &Arc<Self>, node: NodeId) -> Result<Picked, String> {
        let mut state = self.lock();
        let generation = state.generation;
        let tls = state.tls.clone().ok_or("this node has no certificate yet")?;
        let peer = state.peers.get_mut(&node).ok_or_else(|| format!("node {node} is not in the table of this node"))?;
        let usable = peer.links.iter().filter(|standing| standing.generation == generation);
        let loads: Vec<_> = usable.filter_map(|s| s.link.load().map(|load| (load, &s.link))).collect();
        let best = loads.iter().min_by_key(|((streams, is_full), _)| (*is_full, *streams));
        if let Some(((streams, is_full), link)) = best {
            let link = Arc::clone(link);
            if (*streams >= STREAMS_ENOUGH || *is_full) && loads.len() < MADE_MAX && peer.dial.is_none() {
                peer.dial = Some(self.dial(Current { tls, generation }, node, peer.addr));
            }
            return Ok(Picked::Link(link));
        }
        let is_made = |s: &&Standing| {
            s.generation == generation && s.link.is_maker() && s.link.closed().is_none() && !s.link.is_left()
        };
        let made = peer.links.iter().filter(is_made).count();
        match &peer.dial {
            Some(dial) => Ok(Picked::Dial(dial.clone())),
            None if made >= MADE_MAX => Err(format!("all links to node {node} are full")),
            None => {
                let dial = self.dial(Current { tls, generation }, node, peer.addr);
                peer.dial = Some(dial.clone());
                Ok(Picked::Dial(dial))
            }
        }
    }

    /// Sends a frame of Ethernet to a node, or drops it and counts that. Frames with the same `flow` keep their order as long as no
    /// link comes or goes. Without a link one is made, and the frame waits for it.
    pub(super) fn carry(self: &Arc<Self>, node: NodeId, flow: u64, frame: Frame) {
        let mut state = self.lock();
        let generation = state.generation;
        let (Some(tls), Some(peer)) = (state.tls.clone(), state.peers.get_mut(&node)) else {
            return self.ethernet.count_dropped(1);
        };
        let of = |is_current: bool| {
            let open = peer.links.iter().filter(|standing| standing.link.is_open());
            open.filter(|s| (s.generation == generation) == is_current).map(|s| &s.link).collect::<Vec<_>>()
        };
        let current = of(true);
        // Links that show the older certificate serve until there is one with the new one.
        let links = if current.is_empty() { of(false) } else { current.clone() };
        let taken = match links.get((flow % links.len().max(1) as u64) as usize) {
            Some(link) => link.offer(frame),
            None => peer.held.push(frame),
        };
        let wants_more = current.is_empty() || !taken && current.len() < MADE_MAX;
        if wants_more && peer.dial.is_none() && peer.held.may_dial() {
            peer.dial = Some(self.dial(Current { tls, generation }, node, peer.addr));
        }
        if !taken {
            self.ethernet.count_dropped(1);
        }
    }

    /// Makes a link, in a task of its own: whoever waits for it may give up.
    fn dial(self: &Arc<Self>, current: Current, node: NodeId, addr: SocketAddr) -> watch::Receiver<Dialled> {
        let (sender, receiver) = watch::channel(None);
        let hub = Arc::downgrade(self);
        tokio::spawn(async move {
            let made = make(&current.tls, node, addr).await;
            let Some(hub) = hub.upgrade() else { return };
            let result = match made {
                Ok(connection) => hub.admit(connection, &current, true).map_err(|(_, reason)| reason),
                Err(reason) => Err(reason),
            };
            let is_news = hub.lock().peers.get_mut(&node).is_some_and(|peer| {
                peer.dial = None;
                if result.is_err() {
                    hub.ethernet.count_dropped(peer.held.give_up());
                }
                result.is_err() && !std::mem::replace(&mut peer.is_retried, result.is_err())
            });
            if is_news {
                tokio::spawn(retry(Arc::downgrade(&hub), node));
            }
            if let Err(reason) = &result {
                tracing::debug!(%node, %addr, "no link: {reason}");
            }
            sender.send_replace(Some(result.map_err(Arc::from)));
        });
        receiver
    }

    /// Lets a connection be a link, and carries it.
    ///
    /// # Errors
    /// The connection and why it may not.
    pub(super) fn admit(
        self: &Arc<Self>,
        connection: DataConnection,
        current: &Current,
        is_maker: bool,
    ) -> Result<(), (Box<DataConnection>, String)> {
        let node = connection.peer.node;
        let ours = current.tls.own_chain().clone();
        let refused = |connection, reason| Err((Box::new(connection), reason));
        let mut state = self.lock();
        let Some(tls) = state.tls.clone() else { return refused(connection, "the node stops".to_owned()) };
        // The identity was set while the connection was made.
        if state.generation != current.generation
            && let Err(reason) = check(&tls, &connection.chain, &ours)
        {
            return refused(connection, reason);
        }
        let Some(peer) = state.peers.get_mut(&node) else {
            let reason = format!("node {node} is not in the table of node {}", tls.identity().node());
            return refused(connection, reason);
        };
        if !is_maker && peer.links.iter().filter(|standing| !standing.link.is_maker()).count() >= TAKEN_MAX {
            return refused(connection, format!("node {node} has {TAKEN_MAX} links to this node already"));
        }
        let link = Arc::new(Link::new(node, is_maker));
        peer.held.pass_to(&link);
        let generation = current.generation;
        peer.links.push(Standing { link: Arc::clone(&link), theirs: connection.chain, ours, generation });
        peer.is_retried = false;
        drop(state);
        self.silent.send_if_modified(|silent| silent.remove(&node).is_some());
        tokio::spawn(driver::drive(Arc::downgrade(self), link, connection.stream));
        Ok(())
    }

    /// Makes a connection to a peer as for a link, and closes it: a link that stands says nothing of a firewall that came
    /// after it.
    ///
    /// # Errors
    /// Why the peer does not answer.
    pub(super) async fn probe(&self, node: NodeId) -> Result<(), String> {
        let (tls, addr) = {
            let state = self.lock();
            let tls = state.tls.clone().ok_or("this node has no certificate yet")?;
            let peer = state.peers.get(&node).ok_or_else(|| format!("node {node} is not in the table of this node"))?;
            (tls, peer.addr)
        };
        let late = || format!("no answer of {addr} within {} s", PROBE_TIMEOUT.as_secs());
        timeout(PROBE_TIMEOUT, make(&tls, node, addr)).await.map_err(|_| late())?.map(drop)
    }

    /// The peers that did not answer twice in a row, and every change of them.
    pub(super) fn silent(&self) -> watch::Receiver<Silent> {
        self.silent.subscribe()
    }

    /// Whether no link to a peer could be made, and none was since.
    fn is_retried(&self, node: NodeId) -> bool {
        self.lock().peers.get(&node).is_some_and(|peer| peer.is_retried)
    }

    /// Counts and logs a connection that was refused.
    pub(super) fn complain(&self, addr: SocketAddr, error: &TlsError) {
        let offence = match error {
            TlsError::OtherCluster { .. } | TlsError::Expired | TlsError::Peer(_) | TlsError::NoCertificate => {
                Offence::Certificate
            }
            _ => Offence::Handshake,
        };
        self.complaints.add(offence, &addr, error);
    }
}

enum Picked {
    Link(Arc<Link>),
    Dial(watch::Receiver<Dialled>),
}

/// Tries to reach a peer that did not answer, until there is a link or the node is no peer any more.
async fn retry(hub: Weak<Hub>, node: NodeId) {
    loop {
        sleep(SILENT_RETRY).await;
        let Some(hub) = hub.upgrade() else { return };
        if !hub.is_retried(node) {
            return;
        }
        let Err(reason) = hub.link_to(node).await else { return };
        // A link of the peer may have come meanwhile.
        if !hub.is_retried(node) {
            return;
        }
        let reason: Arc<str> = reason.into();
        hub.silent.send_if_modified(|silent| silent.insert(node, reason.clone()) != Some(reason));
    }
}

/// Whether links may stand on these certificates.
fn check(tls: &DataTls, theirs: &ShownChain, ours: &ShownChain) -> Result<(), String> {
    tls.check(theirs).map_err(|e| format!("the certificate of the peer is no longer trusted: {e}"))?;
    tls.check(ours).map_err(|e| format!("the certificate that this node showed is no longer trusted: {e}"))
}

async fn make(tls: &DataTls, node: NodeId, addr: SocketAddr) -> Result<DataConnection, String> {
    let mut connection = tls.connect(addr, node).await.map_err(|e| e.to_string())?;
    let late = || format!("{addr} does not begin the link within {} s", WELCOME_TIMEOUT.as_secs());
    timeout(WELCOME_TIMEOUT, driver::welcome(&mut connection.stream)).await.map_err(|_| late())??;
    Ok(connection)
}
