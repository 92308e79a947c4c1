//! The one place that reads the machine's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use swarm_model::Timestamp;

/// The time now. A clock before 1970 reads as "never".
#[expect(clippy::disallowed_methods, reason = "this is the clock at the edge that everything else asks")]
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}
