//! The side of the data plane: sockets in containers, and queues of devices.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use swarm_model::ObjectId;
use swarm_wire::channel;
use tokio::{io::AsyncReadExt, net::UnixStream};

use crate::{
    descriptors,
    protocol::{Caller, FromNet, NET_PROTOCOL, ToNet},
    socket::check_peer,
};

/// The sockets of a container's resolver, in its network namespace. They do not block.
#[derive(Debug)]
pub struct ResolverSockets {
    /// Questions come here.
    pub udp: UdpSocket,
    /// Connections with questions come here.
    pub tcp: TcpListener,
    /// The sockets are used for the container's names as long as this connection stands.
    connection: UnixStream,
}

impl ResolverSockets {
    /// Waits until no questions come to these sockets any more: the container has ended, or was started again, or
    /// `swarmd net` has ended. For a container that runs they are to be asked for again; until then these go on.
    /// The future can be dropped, and the method called again.
    pub async fn ended(&mut self) {
        // Nothing is sent on it.
        let _ = self.connection.read_u8().await;
    }
}

/// Asks `swarmd net`, which listens at `path`, for the sockets of a container's resolver. Questions of the container to
/// `127.0.0.11` come to them until the value is dropped, or another caller asks for the same container.
///
/// The call waits until the container is known there and its network namespace is made, up to ten seconds.
///
/// # Errors
/// The socket's. `PermissionDenied`: `swarmd net` is another user's. `Unsupported`: it speaks another version. `Other`, with the
/// reason: it has no sockets, because the container did not come, or the kernel does not let it.
pub async fn resolver_sockets(path: &Path, container: &str) -> io::Result<ResolverSockets> {
    let caller = Caller::Resolver { container: container.to_owned() };
    let connection = ask(path, caller, &FromNet::Resolver).await?;
    let [udp, tcp] = <[_; 2]>::try_from(descriptors::receive(&connection, 2).await?)
        .map_err(|_| io::Error::other("`swarmd net` sent other sockets than two"))?;
    Ok(ResolverSockets { udp: udp.into(), tcp: tcp.into(), connection })
}

/// Asks `swarmd net`, which listens at `path`, for a queue of the TAP device of an encrypted network. Frames of the network
/// for other nodes come from it, each with the header of virtio-net (10 bytes) before it, and frames of other nodes are written
/// to it. It is of use until a read of it fails, because the device was removed; it does not need `swarmd net`.
///
/// The call waits until the device is there, which may take as long as the engine needs to make the network's bridge.
///
/// # Errors
/// As [`resolver_sockets`].
pub async fn switch_queue(path: &Path, network: ObjectId) -> io::Result<OwnedFd> {
    let connection = ask(path, Caller::Switch { network }, &FromNet::Switch).await?;
    let queue = descriptors::receive(&connection, 1).await?.pop();
    queue.ok_or_else(|| io::Error::other("`swarmd net` sent no descriptor"))
}

/// Asks for descriptors, and waits until `answer` says that they follow.
async fn ask(path: &Path, caller: Caller, answer: &FromNet) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path).await?;
    check_peer(&stream)?;
    // One descriptor for messages, and another of the same connection for what comes with descriptors.
    let second = std::os::unix::net::UnixStream::from(stream.as_fd().try_clone_to_owned()?);
    let connection = UnixStream::from_std(second)?;
    let (mut sender, mut receiver) = channel::<_, ToNet, FromNet>(stream);
    sender.send(&ToNet::Hello { protocol: NET_PROTOCOL, caller }).await?;
    loop {
        match receiver.recv().await? {
            Some(FromNet::Hello { protocol, .. }) if protocol != NET_PROTOCOL => {
                let text =
                    format!("`swarmd net` speaks version {protocol} of the messages, this process {NET_PROTOCOL}");
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
            Some(message) if message == *answer => return Ok(connection),
            Some(FromNet::Refused { reason }) => return Err(io::Error::other(reason)),
            Some(_) => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
