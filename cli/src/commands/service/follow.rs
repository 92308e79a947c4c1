//! The lines of a followed log that were shown, so that another connection goes on where the last one broke.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use swarm_docker_api::view::Time;
use swarm_model::Timestamp;

/// Lines of several nodes come a little out of order: a connection that goes on asks for what is so much older than the
/// newest line as well, and what was shown is left out.
const OVERLAP_NS: i64 = 5_000_000_000;
/// Lines that are remembered; a service that writes more in that time shows some of them twice.
const REMEMBERED_MAX: usize = 100_000;
/// Pause before a log that broke off is asked for again.
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// Attempts in a row that brought no line: a swarm that has a majority has a leader long before.
pub(super) const ATTEMPTS_MAX: u32 = 60;

/// How often each of the lines was shown that another connection may bring again. A program may write one line twice at one
/// time.
type Lines = BTreeMap<(Timestamp, Bytes), u32>;

/// The lines that were shown last.
#[derive(Debug, Default)]
pub(super) struct Shown {
    newest: Option<Timestamp>,
    lines: Lines,
    /// Those of them that the present connection has yet to bring again.
    repeats: Lines,
}

impl Shown {
    /// Begins another connection, which brings again what comes after [`Shown::since`].
    pub(super) fn begin(&mut self) {
        self.repeats = self.lines.clone();
    }

    /// Takes note of a line as it came, its timestamp first; false if it was shown by an earlier connection.
    pub(super) fn is_new(&mut self, payload: &Bytes) -> bool {
        let word = payload.split(|byte| *byte == b' ').next().unwrap_or_default();
        let Some(Time(at)) = std::str::from_utf8(word).ok().and_then(Time::parse) else { return true };
        let line = (at, payload.clone());
        if let Some(times) = self.repeats.get_mut(&line).filter(|times| **times > 0) {
            *times -= 1;
            return false;
        }
        self.newest = self.newest.max(Some(at));
        *self.lines.entry(line).or_default() += 1;
        let oldest = self.since().unwrap_or(at);
        while self.lines.len() > REMEMBERED_MAX || self.lines.first_key_value().is_some_and(|((at, _), _)| *at < oldest)
        {
            self.lines.pop_first();
        }
        true
    }

    /// From when on another connection has to ask; none if nothing was shown.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.newest.map(|newest| newest.plus_ns(-OVERLAP_NS))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(second: u32, text: &str) -> Bytes {
        format!("2026-11-30T04:00:{second:02}.000000000Z {text}").into()
    }

    #[test]
    fn what_was_shown_is_not_shown_again() {
        let mut shown = Shown::default();
        assert_eq!(shown.since(), None);
        assert!(shown.is_new(&line(10, "a")) && shown.is_new(&line(10, "b")) && shown.is_new(&line(8, "late")));
        assert!(shown.is_new(&line(10, "a")), "a program may say the same twice");
        shown.begin();
        assert!(!shown.is_new(&line(10, "a")) && !shown.is_new(&line(8, "late")) && !shown.is_new(&line(10, "a")));
        assert!(shown.is_new(&line(10, "a")), "a third time");
        let since = shown.since().expect("a time");
        assert_eq!(Time(since), Time::parse("2026-11-30T04:00:05Z").expect("a time"));
        assert!(shown.is_new(&line(30, "c")));
        assert_eq!(shown.lines.len(), 1, "what no connection asks for again is forgotten");
        assert!(shown.is_new(&Bytes::from_static(b"no time")));
    }

    proptest! {
        #[test]
        fn any_line_is_taken(payload: Vec<u8>) {
            let mut shown = Shown::default();
            prop_assert!(shown.is_new(&payload.into()));
        }
    }
}
