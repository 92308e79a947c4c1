//! Text that must never be printed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text that is never shown (key, token, registry credentials). Its `Debug` form hides it; only [`Redacted::expose`] shows it.
/// It is written to the log and to the wire, which are sealed; never into a view or a message.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Redacted(String);

impl Redacted {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}
