//! Logs of services and tasks.

use axum::{body::Body, extract, http::header::CONTENT_TYPE, response::IntoResponse};
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use swarm_core::State;
use swarm_docker_api::{
    ApiError, ApiVersion,
    logs::{CONTENT_TYPE_MULTIPLEXED, CONTENT_TYPE_RAW, LogSource, LogStream, write_frame, write_line},
    view::Time,
};
use swarm_model::{ServiceId, Timestamp};
use swarm_wire::agent::LogMessage;

use super::{LogSelector, LogTarget, Plane, call::Call, reply::Reply, resolve};

/// From this version on frames have a content type of their own (docker-api §8).
const MULTIPLEXED_SINCE: ApiVersion = ApiVersion { major: 1, minor: 42 };
/// Reasons for missing lines that are told; more would hardly be read.
const REASONS_MAX: usize = 16;

/// `GET /services/{id}/logs`
pub(super) async fn of_service<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let service = resolve::service(&state, call.id())?;
    let tty = service.spec.task_template.container_spec.tty;
    respond(&plane, &call, LogTarget::Service(service.id), service.id, tty).await
}

/// `GET /tasks/{id}/logs`
pub(super) async fn of_task<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let state: State = plane.read().await?;
    resolve::cluster(&state)?;
    let task = resolve::task(&state, call.id())?;
    let spec = state.spec(task.service, task.spec_version);
    let tty = spec.is_some_and(|spec| spec.spec.task_template.container_spec.tty);
    respond(&plane, &call, LogTarget::Task(task.id), task.service, tty).await
}

async fn respond<P: Plane>(plane: &P, call: &Call, target: LogTarget, service: ServiceId, tty: bool) -> Reply {
    let selector = read_selector(call, target)?;
    let format = Format { service, timestamps: call.truthy("timestamps"), details: call.truthy("details"), raw: tty };
    let content_type =
        if tty || call.api_version < MULTIPLEXED_SINCE { CONTENT_TYPE_RAW } else { CONTENT_TYPE_MULTIPLEXED };
    let messages = plane.logs(selector).await?;
    let chunks = format.write_all(messages).map(Ok::<_, std::convert::Infallible>);
    Ok(([(CONTENT_TYPE, content_type)], Body::from_stream(chunks)).into_response())
}

fn read_selector(call: &Call, target: LogTarget) -> Result<LogSelector, ApiError> {
    let (stdout, stderr) = (call.truthy("stdout"), call.truthy("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::internal("Bad parameters: you must choose at least one stream"));
    }
    Ok(LogSelector {
        target,
        stdout,
        stderr,
        follow: call.truthy("follow"),
        since: read_since(call.param("since").unwrap_or_default())?,
        tail: read_tail(call.param("tail").unwrap_or_default())?,
    })
}

fn read_tail(text: &str) -> Result<Option<u64>, ApiError> {
    match text {
        "" | "all" => Ok(None),
        negative if negative.starts_with('-') => Err(ApiError::internal("negative tail values not supported")),
        number => number
            .parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("invalid tail '{number}': a number of lines, or all"))),
    }
}

/// Reads `1795347801`, `1795347801.000000000` or an RFC 3339 time.
pub(super) fn read_since(text: &str) -> Result<Timestamp, ApiError> {
    if text.is_empty() || text == "0" {
        return Ok(Timestamp::ZERO);
    }
    let number = |text: &str| (text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<i64>().ok()).flatten();
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos = (fraction.len() <= 9).then(|| number(&format!("{fraction:0<9}"))).flatten();
    match (number(seconds), nanos) {
        (Some(seconds), Some(nanos)) => Ok(Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))),
        _ => Time::parse(text).map(|time| time.0).ok_or_else(|| {
            ApiError::bad_request(format!(
                "invalid since '{text}': seconds since 1970, or a time like 2026-11-22T11:43:10Z"
            ))
        }),
    }
}

/// How lines are written.
struct Format {
    service: ServiceId,
    timestamps: bool,
    details: bool,
    raw: bool,
}

impl Format {
    /// Writes messages as they come. What could not be read is said at the end, as an error, which clients show.
    fn write_all(self, messages: BoxStream<'static, LogMessage>) -> impl futures_util::Stream<Item = Bytes> + Send {
        let state = (messages, self, Vec::<String>::new(), false);
        futures_util::stream::unfold(state, |(mut messages, format, mut reasons, ended)| async move {
            if ended {
                return None;
            }
            loop {
                match messages.next().await {
                    Some(LogMessage::Line { task, node, stderr, at, data }) => {
                        let source = LogSource { node, service: format.service, task };
                        let line = format.write(stderr, at, source, &data);
                        return Some((line, (messages, format, reasons, false)));
                    }
                    Some(LogMessage::Incomplete { task, reason }) if reasons.len() < REASONS_MAX => {
                        reasons.push(format!("task {task}: {reason}"));
                    }
                    Some(LogMessage::Incomplete { .. }) => {}
                    None if reasons.is_empty() || format.raw => return None,
                    None => {
                        let text = format!(
                            "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {}",
                            reasons.join(", ")
                        );
                        let error = write_frame(LogStream::Error, text.as_bytes());
                        return Some((error, (messages, format, reasons, true)));
                    }
                }
            }
        })
    }

    fn write(&self, stderr: bool, at: Timestamp, source: LogSource, data: &[u8]) -> Bytes {
        if self.raw {
            return Bytes::copy_from_slice(data);
        }
        write_line(stderr, self.timestamps.then_some(at), self.details.then_some(source), data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn since_and_tail_are_read_as_the_cli_writes_them() {
        for (text, ns) in [
            ("", 0),
            ("0", 0),
            ("12", 12_000_000_000),
            ("4070908800.000000000", 4_070_908_800_000_000_000),
            ("1.5", 1_500_000_000),
            ("1970-01-01T00:00:02.5Z", 2_500_000_000),
        ] {
            assert_eq!(read_since(text), Ok(Timestamp(ns)), "{text}");
        }
        assert!(read_since("yesterday").expect_err("refused").message.contains("'yesterday'"));
        assert!(read_since("1.0000000001").is_err());
        assert_eq!((read_tail("all"), read_tail(""), read_tail("0")), (Ok(None), Ok(None), Ok(Some(0))));
        assert_eq!(read_tail("-1").expect_err("refused").message, "negative tail values not supported");
        assert_eq!(read_tail("x").expect_err("refused").status, 400);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}", digits in "[0-9]{0,30}\\.?[0-9]{0,12}") {
            let _ = (read_since(&text), read_tail(&text), read_since(&digits), read_tail(&digits));
        }
    }
}
