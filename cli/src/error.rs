//! Errors as people see them: what was wrong, and what to do now.

use std::io::ErrorKind;

use thiserror::Error;

use crate::client::ClientError;

/// An error with advice.
#[derive(Debug, Error)]
#[error("{message}")]
pub(crate) struct Hinted {
    /// What was wrong.
    pub(crate) message: String,
    /// What to do now.
    pub(crate) hint: String,
}

/// Something went wrong that has been printed already.
#[derive(Debug, Error)]
#[error("the command failed in part")]
pub(crate) struct Reported;

/// The answer of a command is this exit code; all there is to say has been printed.
#[derive(Debug, Error)]
#[error("exit code {0}")]
pub(crate) struct Exit(pub(crate) u8);

/// What to do about an error, if anything in its chain knows.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let hinted = cause.downcast_ref::<Hinted>().map(|h| h.hint.clone());
        hinted.or_else(|| cause.downcast_ref::<ClientError>().and_then(ClientError::hint))
    })
}

/// Whether the reader of our output went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe))
}
