//! What every command needs.

use crate::{client::Client, out::Out};

/// A client and a place to write to.
pub(crate) struct Context {
    /// Talks to swarmd.
    pub(crate) client: Client,
    /// Writes.
    pub(crate) out: Out,
}
