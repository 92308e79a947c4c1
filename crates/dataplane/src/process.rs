//! The process `swarmd data`.

use std::{
    collections::BTreeSet,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use swarm_model::{NodeId, NodeWarning, WarningCause};
use swarm_net::socket::OwnSocket;
use tokio::{
    net::UnixStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    control::{self, hear},
    descriptors::{self, Descriptors},
    forward::{Forwarder, Holding},
    handover::{self, Estate, LEAVING_MAX, OldProcess, Place},
    incoming,
    link::Links,
    listeners::Listeners,
    plane::Plane,
    remote::{Arrival, Remote},
    source,
    voice::About,
};

/// How often refused connections are spoken of.
const REFUSED_PERIOD: Duration = Duration::from_secs(60);

/// The socket on which the data plane takes connections of swarmd.
#[derive(Debug)]
pub enum Control {
    /// A socket of this path. Its folder is there already, is ours, and nobody else may enter it.
    Path(PathBuf),
    /// A socket that listens already.
    Listening(UnixListener),
}

/// How a data plane runs.
pub struct Options {
    /// The socket that swarmd connects to.
    pub control: Control,
    /// Whether it takes over from the data plane that runs there, if one does. It needs the path of the socket.
    pub is_heir: bool,
    /// How connections wait that find no endpoint.
    pub holding: Holding,
    /// Called once it listens for swarmd.
    pub on_ready: Box<dyn FnOnce() + Send>,
    /// Whether tasks may see the clients' own addresses: rules of the kernel are set for that. Else they see this host's.
    pub shows_clients: bool,
    /// Ends the process in order when it is cancelled, for a signal of the system: what the kernel was told is taken back,
    /// and the sockets and their files are closed. Connections are cut.
    pub stop: CancellationToken,
    /// Open files that it may have; none for the limit of the process, which it raises as far as it may.
    pub descriptors_max: Option<usize>,
}

/// Runs a data plane until it is to end ([`ToData::Stop`](crate::protocol::ToData::Stop), [`Options::stop`]), or another one
/// has taken over and the last connection ended.
///
/// # Errors
/// As [`serve`].
pub async fn run(options: Options) -> Result<()> {
    let (links, arrivals) = Links::new();
    serve(options, Arc::new(links), arrivals).await
}

/// The same with these links to other nodes.
///
/// # Errors
/// The socket for swarmd cannot be opened: its folder is open to others, or another data plane runs there. Or that one
/// does not hand over.
pub async fn serve<A: Arrival>(options: Options, remote: Arc<dyn Remote>, arrivals: mpsc::Receiver<A>) -> Result<()> {
    let plane = Arc::new(Plane::new(remote));
    let descriptors = Descriptors::new(options.descriptors_max.unwrap_or_else(descriptors::raise_limit));
    let forwarder = Arc::new(Forwarder::new(Arc::clone(&plane), Arc::clone(&descriptors), options.holding));
    let (mut sockets, estate) = Sockets::open(options.control, options.is_heir).await?;
    let (inherited, old) = estate.map(|estate| inherit(&plane, estate)).unzip();
    let (mut listeners, inventory) = Listeners::new(Arc::clone(&forwarder), inherited.unwrap_or_default());
    listeners.begin().await;
    (options.on_ready)();
    if let Some(old) = old {
        tokio::spawn(old.succeed(Arc::clone(&plane)));
    }
    // The task goes on while this process leaves: a peer may open a stream before it hears that it is not to.
    let taking = tokio::spawn(incoming::take(arrivals, Arc::clone(&forwarder)));
    let _taking = AbortOnDropHandle::new(taking);
    let next_process = async {
        match &sockets.hand_over {
            Some(own) => {
                let heir = handover::serve(own, &sockets.control, &plane, &inventory).await;
                // Before the sockets are dropped: whoever accepts from them leaves instead of being cut off.
                forwarder.leaving.cancel();
                plane.sources.keep();
                heir
            }
            None => std::future::pending().await,
        }
    };
    let heir: Option<UnixStream> = tokio::select! {
        () = control::serve(&sockets.control, &plane) => None,
        () = options.stop.cancelled() => None,
        heir = next_process => Some(heir),
        () = listeners.run() => None,
        () = speak_of_refused(&plane, &descriptors) => None,
        () = speak_of_silent(&plane) => None,
        () = source::watch(&plane), if options.shows_clients => None,
    };
    if let Some(heir) = heir {
        sockets.leave_files();
        drop(sockets);
        tokio::select! {
            () = leave(heir, &plane, &forwarder) => {}
            () = options.stop.cancelled() => {}
        }
    }
    Ok(())
}

/// The sockets for swarmd and for the next process.
struct Sockets {
    control: OwnSocket,
    /// None without a path.
    hand_over: Option<OwnSocket>,
}

impl Sockets {
    async fn open(control: Control, is_heir: bool) -> Result<(Self, Option<Estate>)> {
        let path = match control {
            Control::Path(path) => path,
            Control::Listening(_) if is_heir => bail!("to take over, a data plane needs the path of the socket"),
            Control::Listening(listener) => {
                let control = OwnSocket::inherit(listener.into(), None);
                let control = control.context("the socket for swarmd that was handed over is of no use")?;
                return Ok((Self { control, hand_over: None }, None));
            }
        };
        if is_heir && let Some((control, own, estate)) = handover::take_over(&path).await? {
            let beside = handover::path_beside(&path);
            let control = OwnSocket::inherit(control, Some(path))?;
            return Ok((Self { control, hand_over: Some(OwnSocket::inherit(own, Some(beside))?) }, Some(estate)));
        }
        let beside = handover::path_beside(&path);
        let control = OwnSocket::bind(path).await?;
        Ok((Self { control, hand_over: Some(OwnSocket::bind(beside).await?) }, None))
    }

    fn leave_files(&mut self) {
        self.control.leave_file();
        self.hand_over.iter_mut().for_each(OwnSocket::leave_file);
    }
}

/// Takes what the process before knows. Returns its sockets, and itself, which does not know yet that it is to leave.
fn inherit(plane: &Plane, estate: Estate) -> (Vec<(Place, OwnedFd)>, OldProcess) {
    for message in estate.said {
        hear(plane, message);
    }
    plane.set_elsewhere(&estate.in_use);
    (estate.sockets, estate.old)
}

/// Waits for the last connection, while the next process takes the new ones.
async fn leave(heir: UnixStream, plane: &Plane, forwarder: &Forwarder) {
    tracing::info!("another data plane has taken over; this one ends with its last connection");
    plane.switch.retire();
    plane.remote.retire();
    forwarder.connections.close();
    tokio::select! {
        ended = timeout(LEAVING_MAX, forwarder.connections.wait()) => {
            if ended.is_err() {
                tracing::warn!("connections that are {} minutes old are cut", LEAVING_MAX.as_secs() / 60);
            }
        }
        () = handover::report_use(heir, plane) => {}
    }
}

/// Says once in a period how many connections were refused for want of descriptors, and takes it back after a period
/// without.
async fn speak_of_refused(plane: &Plane, descriptors: &Descriptors) {
    loop {
        let refused = descriptors.refused_connections().await;
        let text = format!("refused {refused} connections: limit of {} open files", descriptors.limit);
        let cause = WarningCause::Descriptors;
        plane.warnings.set(About::Descriptors, Some(NodeWarning { cause, text }));
        sleep(REFUSED_PERIOD).await;
        if !descriptors.has_refused() {
            plane.warnings.set(About::Descriptors, None);
        }
    }
}

/// Says which nodes do not answer.
async fn speak_of_silent(plane: &Plane) {
    let mut silent = plane.remote.silent();
    let mut said: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let now = silent.borrow_and_update().clone();
        for node in said.iter().filter(|node| !now.contains_key(node)) {
            plane.warnings.set(About::Peer(*node), None);
        }
        said = now.keys().copied().collect();
        for (node, reason) in now {
            let text = format!("the data port of node {node} does not answer: {reason}");
            plane.warnings.set(About::Peer(node), Some(NodeWarning { cause: WarningCause::Peer(node), text }));
        }
        if silent.changed().await.is_err() {
            // No more news of the links.
            return std::future::pending().await;
        }
    }
}
