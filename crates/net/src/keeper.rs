//! Keeps the tables of a container's namespace as they are to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use imbl::{OrdMap, OrdSet};
use swarm_model::{ObjectId, ServiceId};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    finder::Found,
    host::{End, Ends},
    links,
    netlink::{Part, Socket},
    protocol::{LocalContainer, RESOLVER},
    reports::{Keeper, Progress, Reports},
    space::{Space, check_path},
    state::{Service, State, Wanted},
    table::{Loaded, ResolverPorts, Table},
};

/// How often it is looked whether the namespace and its tables are there, and a load that failed is tried again.
const PERIOD: Duration = Duration::from_secs(1);

/// How long the sockets of a resolver wait for somebody who asks for them.
const UNCLAIMED_MAX: Duration = Duration::from_secs(10);

/// The parts that the keepers of all containers share.
pub(crate) struct Common {
    pub(crate) wanted: watch::Receiver<Wanted>,
    pub(crate) found: watch::Receiver<Found>,
    pub(crate) ends: watch::Sender<Ends>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) progress: Arc<Progress>,
    /// Namespaces that are changed at a time: each takes a thread, which waits for the kernel for the most part.
    pub(crate) changes: Semaphore,
    /// The reason why tables cannot be loaded on this host.
    pub(crate) missing: Option<String>,
}

/// Something that is asked of a keeper.
#[derive(Debug)]
pub(crate) enum Request {
    /// The sockets of the container's resolver.
    Resolver(oneshot::Sender<io::Result<Resolver>>),
    /// These sockets are not used any more.
    Release(ResolverPorts),
    /// The tables are to be removed.
    Remove(oneshot::Sender<()>),
}

/// The sockets of a resolver.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
    pub(crate) ports: ResolverPorts,
    /// Cancelled when the container has another namespace, or none.
    pub(crate) ended: CancellationToken,
}

/// Sockets of a resolver that were just opened.
type Opened = (UdpSocket, TcpListener, ResolverPorts);

/// The content of networks that tables were made from: kept to tell soon that it is the same.
type Content = Vec<(ObjectId, OrdMap<ServiceId, Arc<Service>>, OrdSet<std::net::IpAddr>)>;

/// A container's namespace.
struct Place {
    space: Arc<Space>,
    loaded: Loaded,
    resolver: Option<ResolverPorts>,
    /// The sockets of the resolver, until somebody asks for them; and when they were opened. They are there before the first
    /// instruction of the container: its first questions wait in them.
    opened: Option<(Opened, Instant)>,
    ends: Vec<End>,
    /// The content that the tables were made from; none before the first load, and after a failed one.
    content: Option<(Content, Option<ResolverPorts>)>,
    is_ready: bool,
    ended: CancellationToken,
    _end: DropGuard,
}

/// The keeper of a container.
pub(crate) struct ContainerKeeper {
    pub(crate) id: String,
    pub(crate) common: Arc<Common>,
    pub(crate) wanted: watch::Receiver<Wanted>,
    pub(crate) found: watch::Receiver<Found>,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Callers that wait for the namespace.
    pub(crate) waiting: Vec<oneshot::Sender<io::Result<Resolver>>>,
}

impl Drop for ContainerKeeper {
    fn drop(&mut self) {
        self.leave();
        self.common.reports.forget_container(&self.id);
    }
}

fn content(state: &State, networks: &BTreeSet<ObjectId>) -> Content {
    let of = |id: &ObjectId| state.networks.get(id).map(|n| (*id, n.services.clone(), n.gone.clone()));
    networks.iter().filter_map(of).collect()
}

fn is_same(a: &Content, b: &Content) -> bool {
    let is_same = |((a, services, gone), (b, others, other_gone)): (&(_, _, _), &(_, _, _))| {
        a == b && OrdMap::ptr_eq(services, others) && OrdSet::ptr_eq(gone, other_gone)
    };
    a.len() == b.len() && a.iter().zip(b).all(is_same)
}

fn networks(container: &LocalContainer) -> BTreeSet<ObjectId> {
    container.addrs.iter().map(|(network, _)| *network).collect()
}

impl ContainerKeeper {
    /// Keeps the tables, until it is dropped.
    pub(crate) async fn keep(mut self) {
        if let Some(missing) = &self.common.missing {
            self.common.reports.container(&self.id, Err(missing.clone()));
            self.leave();
            return std::future::pending().await;
        }
        loop {
            let space = self.find_space().await;
            match self.enter(space).await {
                Ok(place) => self.stay(place).await,
                Err(e) => self.fail(&e).await,
            }
        }
    }

    fn container(&self) -> Option<Arc<LocalContainer>> {
        self.wanted.borrow().state.containers.get(&self.id).cloned()
    }

    /// The container has no namespace.
    fn leave(&self) {
        self.common.progress.forget(&Keeper::Container(self.id.clone()));
        self.common.ends.send_if_modified(|ends| ends.remove(&self.id).is_some());
    }

    async fn fail(&self, error: &io::Error) {
        self.common.reports.container(&self.id, Err(describe(error)));
        self.common.progress.forget(&Keeper::Container(self.id.clone()));
        sleep(PERIOD).await;
    }

    async fn find_space(&mut self) -> Space {
        loop {
            self.found.borrow_and_update();
            self.wanted.borrow_and_update();
            match self.look() {
                Ok(Some(space)) => return space,
                Ok(None) => {}
                Err(e) => self.common.reports.container(&self.id, Err(describe(&e))),
            }
            // Nobody waits for the tables of a container that is not started.
            self.leave();
            tokio::select! {
                _ = self.wanted.changed() => {}
                _ = self.found.changed() => {}
                () = sleep(PERIOD) => {}
                Some(request) = self.requests.recv() => match request {
                    Request::Resolver(answer) => self.waiting.push(answer),
                    Request::Release(_) => {}
                    Request::Remove(done) => drop(done.send(())),
                },
            }
        }
    }

    fn look(&self) -> io::Result<Option<Space>> {
        let Some(container) = self.container() else { return Ok(None) };
        let configuration = self.wanted.borrow().state.configuration.clone();
        let found = self.found.borrow().clone();
        if let (Some(path), Some(configuration)) = (&container.sandbox, configuration) {
            check_path(path, &configuration.sandboxes)?;
            match Space::open(path) {
                Ok(Some(space)) => return Ok(Some(space)),
                // No namespace at all is seen.
                Ok(None) if found.is_empty() => return Err(not_mounted(path)),
                // The container was started again, and has another one.
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let has_addr = |addrs: &BTreeSet<_>| container.addrs.iter().any(|(_, addr)| addrs.contains(addr));
        for (path, space) in found.iter().filter(|(_, space)| has_addr(&space.addrs)) {
            // The engine unmounts the namespace of a container that has ended, and removes the file a minute later.
            if let Ok(Some(opened)) = Space::open(path)
                && opened.id() == space.id
            {
                return Ok(Some(opened));
            }
        }
        Ok(None)
    }

    async fn enter(&self, space: Space) -> io::Result<Place> {
        let container = self.container();
        let _permit = self.common.changes.acquire().await.map_err(io::Error::other)?;
        let entered = spawn_blocking(move || {
            let (mut loaded, ends) = space.within(|| {
                let ends = container.map_or(Ok(Vec::new()), |container| ends_of(&container))?;
                Ok((Loaded::open()?, ends))
            })?;
            let resolver = loaded.resolver_ports()?;
            // While the loopback device is not up, the sockets cannot be opened: they are opened when somebody asks for them.
            let opened = if resolver.is_none() { space.within(open_resolver).ok() } else { None };
            Ok::<_, io::Error>((Arc::new(space), loaded, resolver, opened, ends))
        });
        let (space, loaded, resolver, opened, ends) = entered.await??;
        let resolver = resolver.or(opened.as_ref().map(|(_, _, ports)| *ports));
        let opened = opened.map(|opened| (opened, Instant::now()));
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        Ok(Place { space, loaded, resolver, opened, ends, content: None, is_ready: false, ended, _end: end })
    }

    /// Keeps the tables of a namespace until the container has another one, or none.
    async fn stay(&mut self, mut place: Place) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.wanted.borrow_and_update();
            let Some(container) = self.container() else { return };
            if !place.space.is_current() || self.is_elsewhere(&container, &place) {
                self.common.reports.forget_container(&self.id);
                return;
            }
            place = match self.load(place, &container).await {
                Ok(place) => place,
                Err(e) => return self.fail(&e).await,
            };
            if let Some(answer) = self.waiting.pop() {
                place = match self.open_resolver(place, &container, answer).await {
                    Ok(place) => place,
                    Err(e) => return self.fail(&e).await,
                };
                continue;
            }
            tokio::select! {
                _ = self.wanted.changed() => {}
                _ = self.found.changed() => {}
                request = self.requests.recv() => match request {
                    Some(Request::Resolver(answer)) => self.waiting.push(answer),
                    Some(Request::Release(ports)) => {
                        if place.resolver == Some(ports) {
                            place.resolver = None;
                        }
                    }
                    Some(Request::Remove(done)) => {
                        let _ = spawn_blocking(move || place.loaded.remove()).await;
                        let _ = done.send(());
                        return std::future::pending().await;
                    }
                    None => return,
                },
                _ = ticks.tick() => {
                    // Without a data plane the container goes on with the engine's names.
                    if place.opened.take_if(|(_, since)| since.elapsed() > UNCLAIMED_MAX).is_some() {
                        place.resolver = None;
                    }
                    // Somebody may have removed the tables, or a table of another program is new.
                    if !place.loaded.is_untouched() {
                        place.content = None;
                    }
                    if place.ends.len() < networks(&container).len() {
                        self.look_for_ends(&mut place, &container).await;
                    }
                }
            }
        }
    }

    /// Whether swarmd named another namespace, which is there.
    fn is_elsewhere(&self, container: &LocalContainer, place: &Place) -> bool {
        let named = container.sandbox.as_ref().and_then(|path| Space::open(path).ok().flatten());
        named.is_some_and(|named| named.id() != place.space.id())
    }

    /// Addresses come one after another while a container is started.
    async fn look_for_ends(&self, place: &mut Place, container: &Arc<LocalContainer>) {
        let (space, container) = (Arc::clone(&place.space), Arc::clone(container));
        let looked = spawn_blocking(move || space.within(|| ends_of(&container))).await;
        if let Ok(Ok(ends)) = looked {
            place.ends = ends;
        }
        self.tell_ends(place);
    }

    fn tell_ends(&self, place: &Place) {
        let ends = &place.ends;
        self.common.ends.send_if_modified(|all| all.insert(self.id.clone(), ends.clone()).as_ref() != Some(ends));
    }

    async fn load(&self, mut place: Place, container: &LocalContainer) -> io::Result<Place> {
        let wanted = self.wanted.borrow().clone();
        let networks = networks(container);
        let content = content(&wanted.state, &networks);
        let is_loaded =
            place.content.as_ref().is_some_and(|(c, ports)| is_same(c, &content) && *ports == place.resolver);
        if !is_loaded {
            let _permit = self.common.changes.acquire().await.map_err(io::Error::other)?;
            place = spawn_blocking(move || {
                let table = Table::of(&wanted.state, &networks, place.resolver);
                place.content = None;
                place.loaded.load(&table)?;
                place.content = Some((content, place.resolver));
                Ok::<_, io::Error>(place)
            })
            .await??;
        }
        if !place.is_ready {
            place.is_ready = true;
            self.common.reports.container(&self.id, Ok(()));
            self.tell_ends(&place);
        }
        self.common.progress.reached(Keeper::Container(self.id.clone()), wanted.revision);
        Ok(place)
    }

    /// The sockets are given away only when names are sent to them.
    async fn open_resolver(
        &self,
        mut place: Place,
        container: &LocalContainer,
        answer: oneshot::Sender<io::Result<Resolver>>,
    ) -> io::Result<Place> {
        if answer.is_closed() {
            return Ok(place);
        }
        let opened = match place.opened.take() {
            Some((opened, _)) => Ok(opened),
            None => {
                let space = Arc::clone(&place.space);
                spawn_blocking(move || space.within(open_resolver)).await?
            }
        };
        let (udp, tcp, ports) = match opened {
            Ok(opened) => opened,
            Err(e) => {
                let _ = answer.send(Err(e));
                return Ok(place);
            }
        };
        place.resolver = Some(ports);
        let mut place = self.load(place, container).await?;
        let ended = place.ended.clone();
        if answer.send(Ok(Resolver { udp, tcp, ports, ended })).is_err() {
            // The caller is gone already.
            place.resolver = None;
        }
        Ok(place)
    }
}

/// Opens the sockets of a resolver in the namespace of the calling thread.
fn open_resolver() -> io::Result<Opened> {
    let any = SocketAddr::new(RESOLVER.into(), 0);
    let (udp, tcp) = (UdpSocket::bind(any)?, TcpListener::bind(any)?);
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let ports = ResolverPorts { udp: udp.local_addr()?.port(), tcp: tcp.local_addr()?.port() };
    Ok((udp, tcp, ports))
}

/// The ends on the host of the links with a container's addresses, seen in its namespace.
fn ends_of(container: &LocalContainer) -> io::Result<Vec<End>> {
    let mut socket = Socket::open(Part::Route)?;
    let (links, addrs) = (links::links(&mut socket)?, links::addresses(&mut socket)?);
    let mut ends = BTreeMap::new();
    for (network, addr) in &container.addrs {
        let index = addrs.iter().find(|(_, net)| net.addr() == *addr).map(|(index, _)| *index);
        let link = links.iter().find(|link| Some(link.index) == index && link.is_veth);
        if let Some((inner, outer)) = link.and_then(|link| Some((link.index, link.peer?))) {
            ends.insert(*network, End { network: *network, outer, inner });
        }
    }
    Ok(ends.into_values().collect())
}

fn not_mounted(path: &Path) -> io::Error {
    let text = format!(
        "{} is an empty file here: this process does not see the engine mounts (mount its folder with rslave, or \
         name /proc/<pid>/ns/net)",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Says why the tables of a container cannot be loaded, for people.
pub(crate) fn describe(error: &io::Error) -> String {
    format!("no service VIPs in this container: names resolve to task addresses ({error})")
}
