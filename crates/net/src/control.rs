//! The connections of swarmd and of its data plane.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use swarm_model::ObjectId;
use swarm_wire::{Receiver, Sender, channel};
use tokio::{
    io::{AsyncReadExt, ReadHalf, WriteHalf},
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    containers::{Containers, resolver},
    descriptors,
    host::tend::Question,
    keeper::Request,
    protocol::{Abilities, Caller, FromNet, NET_PROTOCOL, ToNet},
    reports::{Progress, Reports},
    socket::OwnSocket,
    state::{State, Wanted},
};

/// Time for the first message of a connection.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// Connections whose first message has not come, and callers for resolvers that wait.
const CALLERS_MAX: usize = 1024;
/// Longest time that a caller waits for a container and its namespace.
const RESOLVER_MAX: Duration = Duration::from_secs(10);
/// Pause between two looks for a container that is not known yet.
const RESOLVER_PERIOD: Duration = Duration::from_millis(20);
/// Time for the removal of the tables of all containers.
const REMOVE_MAX: Duration = Duration::from_secs(5);
/// Messages of swarmd that are taken before the wanted state is published.
const MESSAGES_AT_ONCE: usize = 1024;

type ToCaller = Sender<WriteHalf<UnixStream>, FromNet>;
type FromCaller = Receiver<ReadHalf<UnixStream>, ToNet>;

/// The state and the tasks of the process, which all connections share.
pub(crate) struct Net {
    pub(crate) wanted: watch::Sender<Wanted>,
    pub(crate) containers: Mutex<Containers>,
    pub(crate) host: mpsc::Sender<Question>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) abilities: Abilities,
    /// Cancelled when swarmd says that the process is to end.
    pub(crate) stop: CancellationToken,
}

impl Net {
    pub(crate) fn containers(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a wanted state. Returns its revision.
    async fn publish(&self, state: &State) -> u64 {
        let mut revision = 0;
        self.wanted.send_modify(|wanted| {
            wanted.revision += 1;
            wanted.state = state.clone();
            revision = wanted.revision;
        });
        let gone = self.containers().leave(state);
        for keeper in gone {
            keeper.abort();
            let _ = keeper.await;
        }
        self.containers().begin(state);
        revision
    }

    /// Removes everything that this node made.
    pub(crate) async fn remove_all(&self) {
        let removals = self.containers().remove_all();
        let all = async {
            for removal in removals {
                let _ = removal.await;
            }
        };
        let _ = timeout(REMOVE_MAX, all).await;
        let (done, removed) = oneshot::channel();
        if self.host.send(Question::RemoveAll(done)).await.is_ok() {
            let _ = removed.await;
        }
    }
}

/// A connection whose caller is known.
struct Called {
    caller: Caller,
    to_caller: ToCaller,
    from_caller: FromCaller,
    /// The same connection, for descriptors.
    stream: UnixStream,
}

/// Takes connections until swarmd says that the process is to end.
pub(crate) async fn serve(socket: &OwnSocket, net: &Arc<Net>) {
    let mut greetings = JoinSet::new();
    let mut resolvers = JoinSet::new();
    let mut session: Option<AbortOnDropHandle<()>> = None;
    loop {
        tokio::select! {
            () = net.stop.cancelled() => return,
            stream = socket.accept(), if greetings.len() + resolvers.len() < CALLERS_MAX => {
                let net = Arc::clone(net);
                greetings.spawn(async move {
                    match timeout(HELLO_MAX, greet(stream, &net)).await {
                        Ok(Ok(called)) => Some(called),
                        Ok(Err(e)) => {
                            tracing::warn!("a connection is closed: {e}");
                            None
                        }
                        Err(_) => None,
                    }
                });
            }
            Some(greeted) = greetings.join_next() => {
                let Ok(Some(called)) = greeted else { continue };
                match called.caller.clone() {
                    Caller::Swarmd => {
                        // Nothing that the session before says is heard any more.
                        if let Some(before) = session.take() {
                            before.abort();
                            let _ = before.await;
                        }
                        session = Some(AbortOnDropHandle::new(tokio::spawn(follow(called, Arc::clone(net)))));
                    }
                    Caller::Switch { network } => {
                        let net = Arc::clone(net);
                        resolvers.spawn(async move {
                            if let Err(e) = lend_queue(called, network, &net).await {
                                tracing::debug!(%network, "the data plane got no queue of a TAP device: {e}");
                            }
                        });
                    }
                    Caller::Resolver { container } => {
                        let net = Arc::clone(net);
                        resolvers.spawn(async move {
                            if let Err(e) = lend_resolver(called, &container, &net).await {
                                tracing::debug!("the resolver of the container {container} got no sockets: {e}");
                            }
                        });
                    }
                }
            }
            Some(_) = resolvers.join_next() => {}
        }
    }
}

async fn greet(stream: UnixStream, net: &Net) -> io::Result<Called> {
    let second = std::os::unix::net::UnixStream::from(stream.as_fd().try_clone_to_owned()?);
    let second = UnixStream::from_std(second)?;
    let (mut to_caller, mut from_caller) = channel::<_, FromNet, ToNet>(stream);
    to_caller
        .send(&FromNet::Hello {
            protocol: NET_PROTOCOL,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            abilities: net.abilities.clone(),
        })
        .await?;
    match from_caller.recv().await? {
        Some(ToNet::Hello { protocol: NET_PROTOCOL, caller }) => {
            Ok(Called { caller, to_caller, from_caller, stream: second })
        }
        Some(ToNet::Hello { protocol, .. }) => {
            let reason = format!("the caller speaks version {protocol} of the messages, this process {NET_PROTOCOL}");
            let _ = to_caller.send(&FromNet::Refused { reason: reason.clone() }).await;
            Err(io::Error::new(io::ErrorKind::Unsupported, reason))
        }
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the first message names no caller")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Follows swarmd until its connection ends.
async fn follow(called: Called, net: Arc<Net>) {
    let Called { mut to_caller, mut from_caller, .. } = called;
    let mut said = net.reports.turn_to_new();
    let speaking = async move {
        while let Some(message) = said.recv().await {
            if let Err(e) = to_caller.send(&message).await {
                // The last words of swarmd may not be heard yet.
                tracing::debug!("cannot speak to swarmd: {e}");
                return std::future::pending().await;
            }
        }
        to_caller.close().await
    };
    let (heard, messages) = mpsc::channel(MESSAGES_AT_ONCE);
    let hearing = async move {
        while let Some(message) = from_caller.recv().await? {
            if heard.send(message).await.is_err() {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    let doing = Session { net: &net, fresh: Some(State::default()) }.follow(messages);
    let ended = tokio::select! {
        ended = speaking => ended,
        // The messages that came before the end of the connection are carried out.
        (ended, ()) = async { tokio::join!(hearing, doing) } => ended,
    };
    match ended {
        Ok(()) => tracing::info!("swarmd is gone; its last words hold"),
        Err(e) => tracing::warn!("the connection of swarmd broke; its last words hold: {e}"),
    }
}

/// A connection of swarmd.
struct Session<'a> {
    net: &'a Arc<Net>,
    /// The state that follows from the messages of this connection alone; none once it has said all.
    fresh: Option<State>,
}

impl Session<'_> {
    async fn follow(mut self, mut messages: mpsc::Receiver<ToNet>) {
        let mut state = self.net.wanted.borrow().state.clone();
        let mut some = Vec::new();
        let mut waits = JoinSet::new();
        while messages.recv_many(&mut some, MESSAGES_AT_ONCE).await > 0 {
            let mut is_changed = false;
            for message in some.drain(..) {
                match message {
                    ToNet::Complete => {
                        if let Some(fresh) = self.fresh.take() {
                            let configuration = state.configuration.take();
                            state = fresh;
                            state.configuration = state.configuration.or(configuration);
                            self.net.publish(&state).await;
                            is_changed = false;
                            let _ = self.net.host.send(Question::RemoveStrays).await;
                        }
                    }
                    ToNet::Sync(number) => {
                        let revision = self.net.publish(&state).await;
                        is_changed = false;
                        let (progress, reports) = (Arc::clone(&self.net.progress), Arc::clone(&self.net.reports));
                        waits.spawn(async move {
                            progress.wait(revision).await;
                            reports.say(FromNet::Synced(number));
                        });
                    }
                    ToNet::CheckSubnet(subnet) => {
                        let (host, reports) = (self.net.host.clone(), Arc::clone(&self.net.reports));
                        waits.spawn(async move {
                            let (answer, overlap) = oneshot::channel();
                            let _ = host.send(Question::Overlap(subnet, answer)).await;
                            if let Ok(overlap) = overlap.await {
                                let overlap =
                                    overlap.map_err(|e| format!("the routes of this node cannot be read: {e}"));
                                reports.say(FromNet::Subnet { subnet, overlap });
                            }
                        });
                    }
                    ToNet::Stop { remove } => {
                        if remove {
                            self.net.remove_all().await;
                        }
                        return self.net.stop.cancel();
                    }
                    message => {
                        state.apply(&message);
                        self.fresh.iter_mut().for_each(|fresh| fresh.apply(&message));
                        is_changed = true;
                    }
                }
            }
            if is_changed {
                self.net.publish(&state).await;
            }
            while waits.try_join_next().is_some() {}
        }
    }
}

/// Gives a queue of the TAP device of an encrypted network to the caller, once the device is there: that may be long after
/// the network was put, when the engine has made the bridge.
async fn lend_queue(called: Called, network: ObjectId, net: &Net) -> io::Result<()> {
    let Called { mut to_caller, mut stream, .. } = called;
    let opened = tokio::select! {
        opened = open_queue(network, net) => opened,
        // The caller is gone: it says nothing more.
        _ = stream.read_u8() => return Ok(()),
    };
    match opened {
        Ok(queue) => {
            to_caller.send(&FromNet::Switch).await?;
            descriptors::send(&stream, &[queue.as_fd()]).await
        }
        Err(e) => {
            to_caller.send(&FromNet::Refused { reason: e.to_string() }).await?;
            to_caller.close().await
        }
    }
}

async fn open_queue(network: ObjectId, net: &Net) -> io::Result<OwnedFd> {
    if let Err(missing) = &net.abilities.tun {
        return Err(io::Error::new(io::ErrorKind::Unsupported, missing.clone()));
    }
    let (answer, opened) = oneshot::channel();
    let _ = net.host.send(Question::Queue(network, answer)).await;
    opened.await.map_err(|_| io::Error::other("`swarmd net` ends"))?
}

/// Gives the sockets of a container's resolver to the caller, until it closes the connection or the container has
/// another namespace.
async fn lend_resolver(called: Called, container: &str, net: &Net) -> io::Result<()> {
    let Called { mut to_caller, stream, .. } = called;
    let resolver = match open_resolver(container, net).await {
        Ok(resolver) => resolver,
        Err(e) => {
            to_caller.send(&FromNet::Refused { reason: e.to_string() }).await?;
            return to_caller.close().await;
        }
    };
    let (requests, resolver) = resolver;
    to_caller.send(&FromNet::Resolver).await?;
    let sent = descriptors::send(&stream, &[resolver.udp.as_fd(), resolver.tcp.as_fd()]).await;
    let ports = resolver.ports;
    let ended = resolver.ended.clone();
    // The sockets are the caller's.
    drop(resolver);
    if sent.is_ok() {
        let mut stream = stream;
        tokio::select! {
            _ = stream.read_u8() => {}
            () = ended.cancelled() => return Ok(()),
        }
    }
    let _ = requests.send(Request::Release(ports)).await;
    sent
}

async fn open_resolver(container: &str, net: &Net) -> io::Result<(mpsc::Sender<Request>, crate::keeper::Resolver)> {
    let until = Instant::now() + RESOLVER_MAX;
    if let Some(missing) = net.containers().missing() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, missing.clone()));
    }
    let requests = loop {
        if let Some(requests) = net.containers().requests(container) {
            break requests;
        }
        if Instant::now() >= until {
            let text = format!("no container {container} is known on this node");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        sleep(RESOLVER_PERIOD).await;
    };
    let resolver = timeout_at(until, resolver(&requests)).await.map_err(|_| {
        let text = format!("the network namespace of the container {container} was not there within {RESOLVER_MAX:?}");
        io::Error::new(io::ErrorKind::TimedOut, text)
    })??;
    Ok((requests, resolver))
}
