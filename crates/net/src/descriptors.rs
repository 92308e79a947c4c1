//! Descriptors on a Unix socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};
use tokio::{io::Interest, net::UnixStream};

/// The byte that a message needs to have.
const CARRIER: u8 = b'd';

/// Sends two descriptors. The other process gets duplicates.
///
/// # Errors
/// The stream's.
pub(crate) async fn send(stream: &UnixStream, descriptors: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(sendmsg(stream, &[IoSlice::new(&[CARRIER])], &mut control, SendFlags::empty())?)
    };
    stream.async_io(Interest::WRITABLE, send).await.map(drop)
}

/// Receives two descriptors.
///
/// # Errors
/// The stream's; `InvalidData` when something else came: this process may have no more descriptors.
pub(crate) async fn receive(stream: &UnixStream) -> io::Result<[OwnedFd; 2]> {
    let receive = || {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut carrier = [0];
        let message = recvmsg(stream, &mut [IoSliceMut::new(&mut carrier)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut received = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                received.extend(descriptors);
            }
        }
        Ok((message.bytes, carrier, received))
    };
    let (bytes, carrier, received) = stream.async_io(Interest::READABLE, receive).await?;
    let count = received.len();
    match (bytes, carrier, <[OwnedFd; 2]>::try_from(received)) {
        (1, [CARRIER], Ok(both)) => Ok(both),
        (0, ..) => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => {
            let text =
                format!("{count} descriptors came, and 2 were to come: this process may have too many open files");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}
