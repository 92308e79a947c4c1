//! Waits for descriptors that tokio has no type for.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream as StdUnixStream},
};

use tokio::{io::Interest, net::UnixStream};

/// Waits until a descriptor that does not block can be read.
///
/// tokio's own type for that is unsafe, as it trusts that the descriptor stays open. This one has a duplicate of it, as
/// a stream: nothing but its readiness is used.
#[derive(Debug)]
pub struct Readable(UnixStream);

impl Readable {
    /// Of a descriptor that does not block.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn of(descriptor: &impl AsFd) -> io::Result<Self> {
        let duplicate = StdUnixStream::from(descriptor.as_fd().try_clone_to_owned()?);
        Ok(Self(UnixStream::from_std(duplicate)?))
    }

    /// Waits, and reads by `read`, until that does not return `WouldBlock`. A descriptor whose device is gone only has an
    /// error, which a read returns.
    ///
    /// # Errors
    /// The errors of `read`.
    pub async fn read<T>(&self, read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.0.async_io(Interest::READABLE | Interest::ERROR, read).await
    }
}
