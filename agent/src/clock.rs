//! The one place of this crate where the host's clock is read.

use swarm_model::Timestamp;

/// The host's clock; "never" in the years that 64 bits of nanoseconds cannot hold.
pub(crate) fn now() -> Timestamp {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).map_or(Timestamp::ZERO, Timestamp)
}
