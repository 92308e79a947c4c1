//! Waiting in tests: for a condition, with a deadline, and with words for the end of patience.

use std::{
    fmt::Debug,
    panic::Location,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, timeout};

/// Longest wait for anything: machines may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(2);

/// Waits for a future that has to end.
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let from = Location::caller();
    async move { timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{from}: no end within {PATIENCE:?}")) }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn until(mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    eventually(async move || if holds() { Ok(()) } else { Err("the condition does not hold") })
}

/// Tries again and again until an attempt succeeds; a test that waits in vain says the last error. The deadline is in
/// real time, so that a test may pause the time of the runtime.
#[track_caller]
pub(crate) fn eventually<T, E: Debug>(mut attempt: impl AsyncFnMut() -> Result<T, E>) -> impl Future<Output = T> {
    let from = Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match soon(attempt()).await {
                Ok(found) => return found,
                Err(last) => assert!(Instant::now() < deadline, "{from}: not within {PATIENCE:?}; at last {last:?}"),
            }
            looks.tick().await;
        }
    }
}

/// The value as found, if it is as wanted; else an attempt of [`eventually`] failed with it.
pub(crate) fn wanted<T>(found: T, is_wanted: impl FnOnce(&T) -> bool) -> Result<T, T> {
    if is_wanted(&found) { Ok(found) } else { Err(found) }
}
