//! Hands everything that a data plane has over to the next process: an upgrade loses no connection.
//!
//! The new process comes to a second socket beside that of swarmd. The old one passes its listening sockets, and what
//! swarmd said. When the new one accepts connections, the old one stops accepting, and ends with its last connection.
//! Until then it says which tasks have connections of it, so that the new one does not call these drained.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use swarm_model::{PortProtocol, TaskId};
use swarm_net::{
    descriptors,
    socket::{OwnSocket, check_peer},
};
use swarm_wire::{Receiver, Sender, channel};
use tokio::{
    io::{ReadHalf, WriteHalf},
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{plane::Plane, protocol::ToData};

/// Version of these messages. A process that does not know the other's hands nothing over.
const HANDOVER_PROTOCOL: u16 = 1;
/// Longest wait for the other process: it only has to read and write what is ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the old process looks which tasks have connections of it.
const USE_PERIOD: Duration = Duration::from_millis(500);
/// How long connections may last that the old process has. What is still open after that is cut.
pub(crate) const LEAVING_MAX: Duration = Duration::from_secs(60 * 60);

/// Names a socket for clients, or for other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Place {
    /// A published port.
    Published(PortProtocol, u16, IpAddr),
    /// Links of other nodes.
    Links(SocketAddr),
}

/// Names a socket that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Handed {
    At(Place),
    /// For connections of swarmd.
    Control,
    /// For the next process.
    HandOver,
}

/// A message of the new process.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum ToOld {
    /// The new process asks for everything.
    TakeOver {
        /// [`HANDOVER_PROTOCOL`].
        protocol: u16,
    },
    /// The new process accepts connections: the old process is to leave.
    Taken,
}

/// A message of the old process.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum ToNew {
    /// The old process hands nothing over.
    Refused {
        /// Why.
        reason: String,
    },
    /// Descriptors follow, in this order.
    Sockets(Vec<Handed>),
    /// The messages of swarmd.
    Said(ToData),
    /// The tasks that have connections of the old process; again when they change.
    InUse(BTreeSet<TaskId>),
    /// Everything was handed over. After the new process's answer only [`ToNew::InUse`] follows.
    End,
}

/// Asks for the sockets that listen.
pub(crate) type Inventory = mpsc::Sender<oneshot::Sender<Vec<(Place, OwnedFd)>>>;

/// The socket for the next process, beside the socket of a data plane.
pub(crate) fn path_beside(control: &Path) -> PathBuf {
    control.with_extension("take-over")
}

/// Serves the socket that the next process comes to. Returns the connection of the one that took everything.
pub(crate) async fn serve(own: &OwnSocket, control: &OwnSocket, plane: &Plane, inventory: &Inventory) -> UnixStream {
    loop {
        let stream = own.accept().await;
        match timeout(PATIENCE, hand_over(stream, own, control, plane, inventory)).await {
            Ok(Ok(stream)) => return stream,
            Ok(Err(e)) => tracing::warn!("nothing was handed over: {e:#}"),
            Err(_) => tracing::warn!("nothing was handed over: the other process does not answer"),
        }
    }
}

async fn hand_over(
    mut stream: UnixStream,
    own: &OwnSocket,
    control: &OwnSocket,
    plane: &Plane,
    inventory: &Inventory,
) -> Result<UnixStream> {
    {
        let (mut sender, mut receiver) = old_side(&mut stream);
        match receiver.recv().await? {
            Some(ToOld::TakeOver { protocol: HANDOVER_PROTOCOL }) => {}
            Some(ToOld::TakeOver { protocol }) => {
                let reason = format!("it speaks version {HANDOVER_PROTOCOL} of the hand-over, not version {protocol}");
                sender.send(&ToNew::Refused { reason: reason.clone() }).await?;
                bail!(reason);
            }
            other => bail!("the other process said {other:?} first"),
        }
    }
    let (asked, sockets) = oneshot::channel();
    inventory.send(asked).await.ok().context("the sockets are gone")?;
    let sockets = sockets.await.context("the sockets are gone")?;
    let mut sockets: Vec<_> = sockets.into_iter().map(|(place, socket)| (Handed::At(place), socket)).collect();
    sockets.push((Handed::Control, control.duplicate()?));
    sockets.push((Handed::HandOver, own.duplicate()?));
    let (places, sockets): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
    old_side(&mut stream).0.send(&ToNew::Sockets(places)).await?;
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    descriptors::send(&stream, &sockets).await?;
    {
        let (mut sender, mut receiver) = old_side(&mut stream);
        for message in plane.said() {
            sender.send(&ToNew::Said(message)).await?;
        }
        sender.send(&ToNew::InUse(plane.tasks_in_use())).await?;
        sender.send(&ToNew::End).await?;
        match receiver.recv().await? {
            Some(ToOld::Taken) => {}
            other => bail!("the other process said {other:?}, and not that it has taken over"),
        }
    }
    Ok(stream)
}

/// Says which tasks have connections of this process, until it ends or the next process does.
pub(crate) async fn report_use(mut stream: UnixStream, plane: &Plane) {
    let (mut sender, _) = old_side(&mut stream);
    let mut said = None;
    loop {
        let now = plane.tasks_in_use();
        if said.as_ref() != Some(&now) {
            if sender.send(&ToNew::InUse(now.clone())).await.is_err() {
                return std::future::pending().await;
            }
            said = Some(now);
        }
        sleep(USE_PERIOD).await;
    }
}

/// The things that a process took over.
pub(crate) struct Estate {
    /// The sockets for clients and other nodes.
    pub(crate) sockets: Vec<(Place, OwnedFd)>,
    /// The messages of swarmd to the old process.
    pub(crate) said: Vec<ToData>,
    /// Tasks that have connections of the old process.
    pub(crate) in_use: BTreeSet<TaskId>,
    /// The connection to the old process.
    pub(crate) old: OldProcess,
}

/// The process before this one. It goes on until it is told to leave.
pub(crate) struct OldProcess(UnixStream);

/// Takes everything that the data plane of this socket has: its socket for swarmd, the one for the next process, and
/// the rest. None when no data plane runs there.
///
/// # Errors
/// The old process does not hand over: it is of another version, or does not answer.
pub(crate) async fn take_over(control: &Path) -> Result<Option<(OwnedFd, OwnedFd, Estate)>> {
    let stream = match UnixStream::connect(path_beside(control)).await {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot reach the data plane on {}", control.display())),
    };
    check_peer(&stream).with_context(|| format!("the data plane on {} is not trusted", control.display()))?;
    let taken = timeout(PATIENCE, take(stream)).await.unwrap_or_else(|_| bail!("it does not answer"));
    let told = || format!("the data plane on {} hands nothing over; end it, and start this one", control.display());
    taken.with_context(told).map(Some)
}

async fn take(mut stream: UnixStream) -> Result<(OwnedFd, OwnedFd, Estate)> {
    let places = {
        let (mut sender, mut receiver) = new_side(&mut stream);
        sender.send(&ToOld::TakeOver { protocol: HANDOVER_PROTOCOL }).await?;
        match receiver.recv().await? {
            Some(ToNew::Sockets(places)) => places,
            Some(ToNew::Refused { reason }) => bail!(reason),
            _ => bail!("it says something else than its sockets"),
        }
    };
    let received = descriptors::receive(&stream, places.len()).await?;
    let (mut control, mut own, mut sockets) = (None, None, Vec::new());
    for (handed, socket) in places.into_iter().zip(received) {
        match handed {
            Handed::At(place) => sockets.push((place, socket)),
            Handed::Control => control = Some(socket),
            Handed::HandOver => own = Some(socket),
        }
    }
    let (Some(control), Some(own)) = (control, own) else { bail!("its own sockets are missing") };
    let (mut said, mut in_use) = (Vec::new(), BTreeSet::new());
    {
        let (_sender, mut receiver) = new_side(&mut stream);
        loop {
            match receiver.recv().await? {
                Some(ToNew::Said(message)) => said.push(message),
                Some(ToNew::InUse(tasks)) => in_use = tasks,
                Some(ToNew::End) => break,
                _ => bail!("it says something else than what it knows"),
            }
        }
    }
    Ok((control, own, Estate { sockets, said, in_use, old: OldProcess(stream) }))
}

impl OldProcess {
    /// Tells the old process to leave, and follows which tasks have connections of it until it has ended.
    pub(crate) async fn succeed(mut self, plane: Arc<Plane>) {
        let (mut sender, mut receiver) = new_side(&mut self.0);
        if let Err(e) = sender.send(&ToOld::Taken).await {
            tracing::warn!("the old data plane ended before this one took over: {e}");
        }
        while let Ok(Some(ToNew::InUse(tasks))) = receiver.recv().await {
            plane.set_elsewhere(&tasks);
        }
        plane.set_elsewhere(&BTreeSet::new());
    }
}

type Side<'a, Out, In> = (Sender<WriteHalf<&'a mut UnixStream>, Out>, Receiver<ReadHalf<&'a mut UnixStream>, In>);

/// The words of the old process. A receiver reads no byte beyond a message, so that one can follow another, and
/// descriptors can come between.
fn old_side(stream: &mut UnixStream) -> Side<'_, ToNew, ToOld> {
    channel(stream)
}

/// The words of the new one.
fn new_side(stream: &mut UnixStream) -> Side<'_, ToOld, ToNew> {
    channel(stream)
}
