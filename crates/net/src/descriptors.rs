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

/// Descriptors in one message; the system takes up to 253.
const DESCRIPTORS_PER_MESSAGE: usize = 128;
/// The byte that a message needs to have.
const CARRIER: u8 = b'd';

/// Sends descriptors. The other process gets duplicates.
///
/// # Errors
/// The stream's.
pub async fn send(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for part in descriptors.chunks(DESCRIPTORS_PER_MESSAGE) {
        let send = || {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(part)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Ok(sendmsg(stream, &[IoSlice::new(&[CARRIER])], &mut control, SendFlags::empty())?)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

/// Receives so many descriptors.
///
/// # Errors
/// The stream's; `InvalidData` when something else came, or fewer in a message than were sent: this process may have
/// too many open files.
pub async fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::new();
    while received.len() < count {
        let wanted = (count - received.len()).min(DESCRIPTORS_PER_MESSAGE);
        let receive = || {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut carrier = [0];
            let message = recvmsg(stream, &mut [IoSliceMut::new(&mut carrier)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut part = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    part.extend(descriptors);
                }
            }
            Ok((message.bytes, carrier, part))
        };
        let (bytes, carrier, part) = stream.async_io(Interest::READABLE, receive).await?;
        match (bytes, carrier, part.len()) {
            (0, ..) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (1, [CARRIER], len) if len == wanted => received.extend(part),
            (.., len) => {
                let text = format!(
                    "{len} descriptors came, and {wanted} were to come: this process may have too many open files"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
    Ok(received)
}
