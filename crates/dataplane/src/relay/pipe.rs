//! Pipes, through which splice moves bytes from socket to socket without copying them into the process.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::descriptors::{Descriptors, Reserved};

/// Capacity of a pipe: with less, splice takes more system calls than copying.
const PIPE_BYTES: usize = 1 << 20;
/// Pipes at a time: beyond these, connections copy. Each takes two descriptors, and up to 1 MiB of the kernel's memory
/// while its connection is slow to write.
const PIPES_MAX: usize = 128;
/// Pipes that are kept while no connection needs them.
const KEPT_PIPES_MAX: usize = 16;

/// A pipe.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    _reserved: Reserved,
    /// The pipes count these.
    _place: Arc<()>,
}

impl Pipe {
    /// Moves bytes from a socket into the pipe, which is empty.
    pub(super) fn write_from(&self, socket: impl AsFd) -> io::Result<usize> {
        Ok(splice(socket, None, &self.write, None, PIPE_BYTES, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
    }

    /// Moves so many bytes at the most from the pipe to a socket.
    pub(super) fn read_to(&self, socket: impl AsFd, bytes: usize) -> io::Result<usize> {
        Ok(splice(&self.read, None, socket, None, bytes, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
    }
}

/// The pipes that no connection uses now.
pub(crate) struct Pipes {
    kept: Mutex<State>,
    /// Each pipe has a share in it.
    places: Arc<()>,
    descriptors: Arc<Descriptors>,
}

#[derive(Default)]
struct State {
    idle: Vec<Pipe>,
}

impl Pipes {
    /// None yet.
    pub(crate) fn new(descriptors: Arc<Descriptors>) -> Self {
        Self { kept: Mutex::default(), places: Arc::default(), descriptors }
    }

    /// An empty pipe. None when there are too many already, or when the system gives none of this capacity: a user
    /// without rights may have 64 MiB of pipes.
    pub(super) fn take(&self) -> Option<Pipe> {
        let mut state = self.state();
        let pipe = match state.idle.pop() {
            Some(pipe) => pipe,
            None if Arc::strong_count(&self.places) > PIPES_MAX => return None,
            None => {
                let reserved = self.descriptors.reserve(2)?;
                let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
                fcntl_setpipe_size(&write, PIPE_BYTES).ok()?;
                Pipe { read, write, _reserved: reserved, _place: Arc::clone(&self.places) }
            }
        };
        Some(pipe)
    }

    /// Takes a pipe back that is empty.
    pub(super) fn give_back(&self, pipe: Pipe) {
        let mut state = self.state();
        if state.idle.len() < KEPT_PIPES_MAX {
            state.idle.push(pipe);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
