//! Waiting for a condition, with a deadline and with what was seen last.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{interrupt, ui};

/// Time between two looks. Short beside a container's start (0.3 s), long beside a look (some ms).
const POLL: Duration = Duration::from_millis(100);
/// A wait that lasts longer shows its progress.
const SILENT: Duration = Duration::from_secs(1);
/// Where lines cannot be replaced, progress is shown this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What a look at the condition found.
pub(crate) enum Look<T> {
    /// It holds.
    Done(T),
    /// Not yet; what there is instead.
    NotYet(String),
}

/// Looks until the condition holds. A look that fails counts as "not yet": what is waited for may still be starting.
/// Fails after `limit` with what was seen last, or when the user interrupts.
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let start = Instant::now();
    let mut shown = start;
    loop {
        let seen = match look() {
            Ok(Look::Done(value)) => {
                ui::progress_end();
                return Ok(value);
            }
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        let waited = start.elapsed();
        if waited > limit {
            ui::progress_end();
            bail!("{what}: this did not happen within {} s; last seen: {seen}", limit.as_secs());
        }
        interrupt::check().inspect_err(|_| ui::progress_end())?;
        let every = if ui::terminal() { POLL } else { LINE_EVERY };
        if waited > SILENT && (shown == start || shown.elapsed() >= every) {
            ui::progress(&format!("  … {what}, {} s: {seen}", waited.as_secs()));
            shown = Instant::now();
        }
        std::thread::park_timeout(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_again_until_it_holds() {
        let mut looks = 0;
        let value = until("three looks", Duration::from_secs(60), || {
            looks += 1;
            match looks {
                1 => bail!("not there"),
                2 => Ok(Look::NotYet("nearly".to_owned())),
                _ => Ok(Look::Done(looks)),
            }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn says_what_it_saw_last() {
        let error = until::<()>("the moon", Duration::ZERO, || Ok(Look::NotYet("the sun".to_owned()))).unwrap_err();
        assert_eq!(error.to_string(), "the moon: this did not happen within 0 s; last seen: the sun");
    }
}
