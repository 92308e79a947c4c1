//! A queue of a TAP device, which the bridge of an encrypted network has as a port.

use std::{io, os::fd::OwnedFd};

use rustix::io::{Errno, ioctl_fionbio, read, write};
use swarm_net::readable::Readable;

use super::packet::FRAME_BYTES_MAX;

/// Frames that are read before other tasks of the thread get their turn.
const FRAMES_AT_ONCE: usize = 64;

/// A queue. Writing to it does not wait.
pub(super) struct Port {
    queue: OwnedFd,
    readable: Readable,
}

impl Port {
    /// Takes a queue that `swarmd net` opened. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(queue: OwnedFd) -> io::Result<Self> {
        ioctl_fionbio(&queue, true)?;
        Ok(Self { readable: Readable::of(&queue)?, queue })
    }

    /// Passes a frame to the bridge.
    ///
    /// # Errors
    /// The kernel's: the header of the frame does not fit to it, or the device is gone or down.
    pub(super) fn write(&self, frame: &[u8]) -> io::Result<()> {
        write(&self.queue, frame)?;
        Ok(())
    }

    /// Reads frames until the device is gone, and returns why.
    pub(super) async fn read(&self, mut each: impl FnMut(&[u8])) -> io::Error {
        // A frame that fills the buffer is longer than a frame may be.
        let mut buffer = vec![0; FRAME_BYTES_MAX + 1];
        loop {
            let some = self.readable.read(|| {
                for at in 0..FRAMES_AT_ONCE {
                    match read(&self.queue, &mut buffer[..]) {
                        Ok(len) => each(buffer.get(..len).unwrap_or_default()),
                        Err(Errno::AGAIN) if at > 0 => break,
                        Err(Errno::INTR) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                Ok(())
            });
            if let Err(e) = some.await {
                return e;
            }
            tokio::task::yield_now().await;
        }
    }
}
