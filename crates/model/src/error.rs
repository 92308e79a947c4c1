//! The one error of this crate.

use thiserror::Error;

/// A spec that cannot be accepted: what was wrong, with which value. Shown to the user as it stands.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// An error from anything that reads as text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
