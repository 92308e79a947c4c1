//! Output of containers. The engine says when each line was written in front of it.

use bollard::{Docker, container::LogOutput, query_parameters::LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::{
    StreamExt, future,
    stream::{self, BoxStream},
};
use swarm_model::Timestamp;

use super::engine_error;
use crate::executor::{EngineError, LogLine, LogSelection};

pub(super) fn lines(
    client: Docker,
    id: String,
    selection: LogSelection,
) -> BoxStream<'static, Result<LogLine, EngineError>> {
    if !selection.stdout && !selection.stderr {
        return stream::empty().boxed();
    }
    let tail = selection.tail.map_or_else(|| "all".to_owned(), |n| n.to_string());
    // The engine is asked for whole seconds; the rest is sorted out below.
    let since = i32::try_from(selection.since.0.div_euclid(1_000_000_000)).unwrap_or(i32::MAX);
    let options = LogsOptionsBuilder::new()
        .stdout(selection.stdout)
        .stderr(selection.stderr)
        .follow(selection.follow)
        .timestamps(true)
        .since(since)
        .tail(&tail)
        .build();
    client
        .logs(&id, Some(options))
        .map(|output| output.map(line).map_err(engine_error))
        .filter(move |line| future::ready(line.as_ref().map_or(true, |l| l.at.is_zero() || l.at >= selection.since)))
        .boxed()
}

fn line(output: LogOutput) -> LogLine {
    let stderr = matches!(output, LogOutput::StdErr { .. });
    let (at, data) = split(output.into_bytes());
    LogLine { stderr, at, data }
}

/// Splits `2026-11-22T11:43:21.700000000Z text`. A piece without a time goes as it is, at time zero.
fn split(mut bytes: Bytes) -> (Timestamp, Bytes) {
    /// Longer than any time.
    const TIME_LEN_MAX: usize = 40;
    let time = bytes.iter().take(TIME_LEN_MAX).position(|b| *b == b' ').and_then(|end| {
        let at: jiff::Timestamp = std::str::from_utf8(bytes.get(..end)?).ok()?.parse().ok()?;
        Some((end, Timestamp(i64::try_from(at.as_nanosecond()).ok()?)))
    });
    match time {
        Some((end, at)) => (at, bytes.split_off(end + 1)),
        None => (Timestamp::ZERO, bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_time_is_taken_off() {
        let (at, text) = split(Bytes::from_static(b"1970-01-01T00:00:01.500000000Z two words\n"));
        assert_eq!((at, &text[..]), (Timestamp(1_500_000_000), &b"two words\n"[..]));
        let (at, text) = split(Bytes::from_static(b"no time here"));
        assert_eq!((at, &text[..]), (Timestamp::ZERO, &b"no time here"[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_split(bytes: Vec<u8>) {
            let _ = split(bytes.into());
        }
    }
}
