//! Log streams (docker-api §8): frames of `[1 stdout | 2 stderr | 3 error][0 0 0][length, u32 big-endian][payload]`.
//!
//! One frame is one log line with its line end. A line may begin with a timestamp of nine digits and with details,
//! each followed by one space; Docker's CLI takes them apart by position.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use swarm_model::{NodeId, ServiceId, TaskId, Timestamp};
use thiserror::Error;

use crate::view::Time;

/// Content type of a stream of frames, for clients that speak API 1.42 or newer.
pub const CONTENT_TYPE_MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Content type for older clients, and of the raw bytes of a terminal.
pub const CONTENT_TYPE_RAW: &str = "application/vnd.docker.raw-stream";

/// Longest payload that a reader takes. Engines cut lines at 16 KiB; a length beyond this is no frame.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

const HEADER_LEN: usize = 8;
/// Label of a task's container, and key of its log lines: the node.
pub const NODE_KEY: &str = "com.docker.swarm.node.id";
const SERVICE_KEY: &str = "com.docker.swarm.service.id";
/// Label of a task's container, and key of its log lines: the task.
pub const TASK_KEY: &str = "com.docker.swarm.task.id";

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output of a container.
    Stdout,
    /// Standard error of a container.
    Stderr,
    /// The server itself: an error that ends the stream; clients fail with its text.
    Error,
}

impl LogStream {
    const fn code(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Error => 3,
        }
    }
}

/// Whose a line is: its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSource {
    /// The node that the task runs on.
    pub node: NodeId,
    /// The service of the task.
    pub service: ServiceId,
    /// The task.
    pub task: TaskId,
}

/// Writes a frame. A payload beyond 4 GiB, which no line has, is cut.
pub fn write_frame(stream: LogStream, payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = BytesMut::with_capacity(HEADER_LEN + payload.len());
    frame.put_slice(&[stream.code(), 0, 0, 0]);
    frame.put_u32(length);
    frame.put_slice(&payload[..length as usize]);
    frame.freeze()
}

/// Writes what stands before a line: its timestamp and its details, if they are wanted.
pub fn line_prefix(at: Option<Timestamp>, details: Option<LogSource>) -> String {
    let mut prefix = String::new();
    if let Some(at) = at {
        prefix += &Time(at).nine_digits();
        prefix.push(' ');
    }
    if let Some(LogSource { node, service, task }) = details {
        // Keys in order. Ids need no escaping.
        prefix += &format!("{NODE_KEY}={node},{SERVICE_KEY}={service},{TASK_KEY}={task} ");
    }
    prefix
}

/// Writes a line as a frame.
pub fn write_line(stderr: bool, at: Option<Timestamp>, details: Option<LogSource>, line: &[u8]) -> Bytes {
    let mut payload = line_prefix(at, details).into_bytes();
    payload.extend_from_slice(line);
    write_frame(if stderr { LogStream::Stderr } else { LogStream::Stdout }, &payload)
}

/// A stream that is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LogStreamError {
    /// The first byte of a frame is not 1, 2 or 3 (0 counts as 1).
    #[error("not a log stream: unknown stream type {0}")]
    UnknownStream(u8),
    /// The frame is longer than [`FRAME_BYTES_MAX`].
    #[error("not a log stream: a frame of {0} bytes, the limit is {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// A line does not begin with what was asked for.
    #[error("log line without {0}")]
    Incomplete(&'static str),
}

/// Takes a stream apart into frames, however it was cut on the way.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or none until more has arrived.
    ///
    /// # Errors
    /// The bytes are no frames.
    pub fn next_frame(&mut self) -> Result<Option<(LogStream, Bytes)>, LogStreamError> {
        let Some(&[kind, _, _, _, a, b, c, d]) = self.buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let stream = match kind {
            0 | 1 => LogStream::Stdout,
            2 => LogStream::Stderr,
            3 => LogStream::Error,
            other => return Err(LogStreamError::UnknownStream(other)),
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(LogStreamError::TooLong(length));
        }
        if self.buffer.len() < HEADER_LEN + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        Ok(Some((stream, self.buffer.split_to(length).freeze())))
    }

    /// Whether the stream ended in the middle of a frame.
    pub fn is_cut(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// A line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, as the server wrote it.
    pub timestamp: Option<String>,
    /// Details by key.
    pub details: BTreeMap<String, String>,
    /// The line itself, with its line end if it has one.
    pub text: Bytes,
}

impl LogLine {
    /// Takes a payload apart that was asked for with `timestamps` and `details`.
    ///
    /// # Errors
    /// What was asked for is not there.
    pub fn parse(mut payload: Bytes, timestamps: bool, details: bool) -> Result<Self, LogStreamError> {
        let mut line = Self::default();
        if timestamps {
            line.timestamp = Some(take_word(&mut payload).ok_or(LogStreamError::Incomplete("a timestamp"))?);
        }
        if details {
            let text = take_word(&mut payload).ok_or(LogStreamError::Incomplete("details"))?;
            for detail in text.split(',').filter(|d| !d.is_empty()) {
                let (key, value) = detail.split_once('=').ok_or(LogStreamError::Incomplete("details"))?;
                line.details.insert(key.to_owned(), value.to_owned());
            }
        }
        line.text = payload;
        Ok(line)
    }

    /// Id of the task that wrote it.
    pub fn task_id(&self) -> Option<&str> {
        self.details.get(TASK_KEY).map(String::as_str)
    }

    /// Id of the service of that task.
    pub fn service_id(&self) -> Option<&str> {
        self.details.get(SERVICE_KEY).map(String::as_str)
    }

    /// Id of the node that the task runs on.
    pub fn node_id(&self) -> Option<&str> {
        self.details.get(NODE_KEY).map(String::as_str)
    }
}

fn take_word(payload: &mut Bytes) -> Option<String> {
    let end = payload.iter().position(|&b| b == b' ')?;
    let word = payload.split_to(end);
    payload.advance(1);
    String::from_utf8(word.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOURCE: LogSource = LogSource { node: NodeId(1), service: ServiceId(2), task: TaskId(3) };

    #[test]
    fn a_line_is_a_frame_with_timestamp_details_text() {
        let frame = write_line(true, Some(Timestamp(1_795_347_801_700_000_000)), Some(SOURCE), b"hello world\n");
        assert_eq!(frame[..4], [2, 0, 0, 0]);
        assert_eq!(usize::try_from(u32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]])), Ok(frame.len() - 8));
        let text = std::str::from_utf8(&frame[8..]).expect("text");
        let details = format!(
            "com.docker.swarm.node.id={},com.docker.swarm.service.id={},com.docker.swarm.task.id={}",
            SOURCE.node, SOURCE.service, SOURCE.task
        );
        assert_eq!(text, format!("2026-11-22T11:43:21.700000000Z {details} hello world\n"));

        let line = LogLine::parse(frame.slice(8..), true, true).expect("a line");
        assert_eq!(line.timestamp.as_deref(), Some("2026-11-22T11:43:21.700000000Z"));
        assert_eq!(line.task_id(), Some(SOURCE.task.to_string().as_str()));
        assert_eq!(line.node_id(), Some(SOURCE.node.to_string().as_str()));
        assert_eq!(line.service_id(), Some(SOURCE.service.to_string().as_str()));
        assert_eq!(line.text, "hello world\n");
    }

    #[test]
    fn what_is_no_log_stream_is_refused() {
        let mut reader = FrameReader::default();
        reader.push(b"HTTP/1.1 ");
        assert_eq!(reader.next_frame(), Err(LogStreamError::UnknownStream(b'H')));
        let mut reader = FrameReader::default();
        reader.push(&[1, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(reader.next_frame(), Err(LogStreamError::TooLong(u32::MAX as usize)));
        assert!(LogLine::parse(Bytes::from_static(b"hello\n"), false, true).is_err());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(lines in prop::collection::vec((any::<bool>(), any::<Vec<u8>>()), 0..8), cut in 1..20_usize) {
            let stream: Vec<u8> = lines.iter().flat_map(|(stderr, line)| write_line(*stderr, None, None, line)).collect();
            let mut reader = FrameReader::default();
            let mut read = Vec::new();
            for part in stream.chunks(cut) {
                reader.push(part);
                while let Some((stream, payload)) = reader.next_frame().expect("frames") {
                    read.push((stream == LogStream::Stderr, payload.to_vec()));
                }
            }
            prop_assert_eq!(read, lines);
            prop_assert!(!reader.is_cut());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, timestamps: bool, details: bool) {
            let mut reader = FrameReader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_frame() {}
            let _ = LogLine::parse(bytes.into(), timestamps, details);
        }
    }
}
