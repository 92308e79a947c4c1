//! The one place that reads the machine's clock.

use std::{
    sync::{Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use swarm_model::Timestamp;

/// The time now, for certificates and for people. A clock before 1970 reads as "never".
#[expect(clippy::disallowed_methods, reason = "this is the clock at the edge that everything else asks")]
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}

/// A time that was true at a moment of the machine's uptime.
static FLOOR: Mutex<Option<(Timestamp, Instant)>> = Mutex::new(None);

/// The time for the log and for decisions: like [`now`], but when the machine's clock is set back this one goes on, so
/// that delays end in time.
pub fn steady() -> Timestamp {
    at_least(Timestamp::ZERO)
}

/// [`steady`], from now on no earlier than `time`: what a new leader does with the time of the last entry.
pub fn at_least(time: Timestamp) -> Timestamp {
    let mut floor = FLOOR.lock().unwrap_or_else(PoisonError::into_inner);
    let moment = Instant::now();
    let elapsed = floor.map_or(time, |(then, at)| {
        then.plus_ns(i64::try_from(moment.duration_since(at).as_nanos()).unwrap_or(i64::MAX))
    });
    let steady = now().max(elapsed).max(time);
    *floor = Some((steady, moment));
    steady
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_from_the_future_is_not_waited_for() {
        let ahead = now().plus_ns(3_600_000_000_000);
        assert!(at_least(ahead) >= ahead);
        let (a, b) = (steady(), steady());
        assert!(a >= ahead && b > a, "time goes on from there");
    }
}
