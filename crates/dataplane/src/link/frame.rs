//! Frames of a link. A frame is a header of eight bytes and its content:
//!
//! | bytes | meaning |
//! |---|---|
//! | 0 | kind |
//! | 1 | 0 |
//! | 2–3 | length of the content, big-endian |
//! | 4–7 | stream, big-endian; 0 for the link itself; for a frame of Ethernet the number of its network |
//!
//! The decoder hands out the content of data frames as it arrives: a large frame costs neither memory nor time.

use bytes::Bytes;
use thiserror::Error;

use super::OpenRequest;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 8;
/// Data in one frame, at most: with its header it fills four of TLS's largest records.
pub(super) const FRAME_DATA_MAX: usize = (64 << 10) - HEADER_BYTES;
/// Content of any other frame, at most: a request and a reason have some hundred bytes.
pub(super) const CONTROL_BYTES_MAX: usize = 1024;
/// Bytes of a reason that is sent; a longer one is cut off.
const REASON_BYTES_MAX: usize = 512;
/// Kinds from this one on may be skipped by who does not know them.
const OPTIONAL_KINDS: u8 = 0x80;

const PING: u8 = 1;
const PONG: u8 = 2;
const OPEN: u8 = 3;
const ACCEPT: u8 = 4;
const REFUSE: u8 = 5;
const DATA: u8 = 6;
const FIN: u8 = 7;
const RESET: u8 = 8;
const CREDIT: u8 = 9;
const CLOSE: u8 = 10;
/// A peer that does not know this frame opens streams all the same, and is refused when the process has ended.
const LEAVE: u8 = OPTIONAL_KINDS;

/// A frame of Ethernet, of an encrypted network. A peer that does not know it skips it: no packet of such a network passes
/// between the two nodes.
const ETHERNET: u8 = OPTIONAL_KINDS + 1;
/// Bytes of a frame of Ethernet with its header, at most.
pub(super) const ETHERNET_BYTES_MAX: usize = u16::MAX as usize;

/// A frame to be sent.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    head: [u8; HEADER_BYTES + 4],
    head_bytes: u8,
    content: Bytes,
}

impl Frame {
    fn new(kind: u8, stream: u32, content: Bytes) -> Self {
        let mut head = [0; HEADER_BYTES + 4];
        head[0] = kind;
        // The constructors see to it that the length fits.
        head[2..4].copy_from_slice(&(content.len() as u16).to_be_bytes());
        head[4..8].copy_from_slice(&stream.to_be_bytes());
        Self { head, head_bytes: HEADER_BYTES as u8, content }
    }

    /// Asks for a sign of life.
    pub(super) fn ping() -> Self {
        Self::new(PING, 0, Bytes::new())
    }

    /// The sign of life; the first frame of the side that took a link.
    pub(super) fn pong() -> Self {
        Self::new(PONG, 0, Bytes::new())
    }

    /// Wants a stream. The request is encoded by [`encode_request`].
    pub(super) fn open(stream: u32, request: Bytes) -> Self {
        Self::new(OPEN, stream, request)
    }

    /// The stream is open.
    pub(super) fn accept(stream: u32) -> Self {
        Self::new(ACCEPT, stream, Bytes::new())
    }

    /// The stream is refused.
    pub(super) fn refuse(stream: u32, reason: &str) -> Self {
        Self::new(REFUSE, stream, shortened(reason))
    }

    /// Bytes of a stream, at most [`FRAME_DATA_MAX`].
    pub(super) fn data(stream: u32, bytes: Bytes) -> Self {
        debug_assert!(!bytes.is_empty() && bytes.len() <= FRAME_DATA_MAX);
        Self::new(DATA, stream, bytes)
    }

    /// No more bytes come.
    pub(super) fn fin(stream: u32) -> Self {
        Self::new(FIN, stream, Bytes::new())
    }

    /// The stream is broken off.
    pub(super) fn reset(stream: u32) -> Self {
        Self::new(RESET, stream, Bytes::new())
    }

    /// So many bytes more may be sent.
    pub(super) fn credit(stream: u32, amount: u32) -> Self {
        let mut frame = Self::new(CREDIT, stream, Bytes::new());
        frame.head[3] = 4;
        frame.head[HEADER_BYTES..].copy_from_slice(&amount.to_be_bytes());
        frame.head_bytes = frame.head.len() as u8;
        frame
    }

    /// The sender takes no more streams: another process does. Streams that are open go on.
    pub(super) fn leave() -> Self {
        Self::new(LEAVE, 0, Bytes::new())
    }

    /// A frame of Ethernet, of the network with this number: at most [`ETHERNET_BYTES_MAX`].
    pub(super) fn ethernet(network: u32, bytes: Bytes) -> Self {
        debug_assert!(bytes.len() <= ETHERNET_BYTES_MAX);
        Self::new(ETHERNET, network, bytes)
    }

    /// The link ends.
    pub(super) fn close(reason: &str) -> Self {
        Self::new(CLOSE, 0, shortened(reason))
    }

    /// The two parts that go out one after the other.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.head[..usize::from(self.head_bytes)], &self.content]
    }

    /// Bytes in all.
    pub(super) fn bytes(&self) -> usize {
        usize::from(self.head_bytes) + self.content.len()
    }

    /// The stream, and how many bytes of its data the frame carries.
    pub(super) fn data_of(&self) -> Option<(u32, usize)> {
        let [_, _, _, _, a, b, c, d, ..] = self.head;
        (self.head[0] == DATA).then(|| (u32::from_be_bytes([a, b, c, d]), self.content.len()))
    }
}

fn shortened(reason: &str) -> Bytes {
    Bytes::copy_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)])
}

/// The content of a frame that wants a stream.
///
/// # Errors
/// The request cannot be written, which happens to none that consists of ids, ports and addresses.
pub(super) fn encode_request(request: &OpenRequest) -> Result<Bytes, FrameError> {
    let bytes = rmp_serde::to_vec_named(request).map_err(|e| FrameError::Request(e.to_string()))?;
    match bytes.len() {
        0..=CONTROL_BYTES_MAX => Ok(bytes.into()),
        bytes => Err(FrameError::Length { kind: OPEN, bytes }),
    }
}

/// A message of a peer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event<'a> {
    Ping,
    Pong,
    Open {
        stream: u32,
        request: OpenRequest,
    },
    Accept {
        stream: u32,
    },
    Refuse {
        stream: u32,
        reason: String,
    },
    /// Some bytes of a frame; `left` more belong to it.
    Data {
        stream: u32,
        bytes: &'a [u8],
        left: usize,
    },
    Fin {
        stream: u32,
    },
    Reset {
        stream: u32,
    },
    Credit {
        stream: u32,
        amount: u32,
    },
    Leave,
    /// Some bytes of a frame of Ethernet; `left` more belong to it.
    Ethernet {
        network: u32,
        bytes: &'a [u8],
        left: usize,
    },
    Close {
        reason: String,
    },
}

/// Bytes that are no frame.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum FrameError {
    #[error("it sent a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("it sent a frame of kind {kind} with {bytes} bytes, which is no length of that kind")]
    Length { kind: u8, bytes: usize },
    #[error("it sent a frame of kind {kind} for stream {stream}, which is no stream of that kind")]
    Stream { kind: u8, stream: u32 },
    #[error("it sent a request that cannot be read: {0}")]
    Request(String),
}

/// Reads frames from bytes in pieces of any size. After an error it is of no more use.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The beginning of a header, or of the content of a frame that is no data frame.
    kept: Vec<u8>,
    content: Option<Content>,
}

/// A frame whose header has been read.
#[derive(Clone, Copy, Debug)]
struct Content {
    kind: u8,
    stream: u32,
    left: usize,
}

impl Decoder {
    /// Takes the next event from the beginning of `input`; none when all of it is read.
    ///
    /// # Errors
    /// [`FrameError`]: the bytes are no frame.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, FrameError> {
        loop {
            let content = match self.content {
                Some(content) => content,
                None => match self.header(input)? {
                    Some(content) => content,
                    None => return Ok(None),
                },
            };
            match content.kind {
                DATA => {
                    let Some((bytes, left)) = self.pass(content, input) else { return Ok(None) };
                    return Ok(Some(Event::Data { stream: content.stream, bytes, left }));
                }
                ETHERNET => {
                    let Some((bytes, left)) = self.pass(content, input) else { return Ok(None) };
                    return Ok(Some(Event::Ethernet { network: content.stream, bytes, left }));
                }
                LEAVE if content.left == 0 => {
                    self.content = None;
                    return Ok(Some(Event::Leave));
                }
                OPTIONAL_KINDS.. => {
                    if self.pass(content, input).is_none() {
                        return Ok(None);
                    }
                }
                _ => return self.control(content, input),
            }
        }
    }

    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Content>, FrameError> {
        let Some(header) = gather(&mut self.kept, HEADER_BYTES, input) else { return Ok(None) };
        let [kind, _, l0, l1, s0, s1, s2, s3] = header[..] else { return Ok(None) };
        let (left, stream) = (usize::from(u16::from_be_bytes([l0, l1])), u32::from_be_bytes([s0, s1, s2, s3]));
        self.kept.clear();
        let is_length = match kind {
            PING | PONG | ACCEPT | FIN | RESET => left == 0,
            OPEN => (1..=CONTROL_BYTES_MAX).contains(&left),
            REFUSE | CLOSE => left <= CONTROL_BYTES_MAX,
            CREDIT => left == 4,
            // An empty one would be work for nothing, as often as the peer likes.
            DATA => (1..=FRAME_DATA_MAX).contains(&left),
            OPTIONAL_KINDS.. => true,
            _ => return Err(FrameError::Kind(kind)),
        };
        if !is_length {
            return Err(FrameError::Length { kind, bytes: left });
        }
        if kind < OPTIONAL_KINDS && (stream == 0) != matches!(kind, PING | PONG | CLOSE) {
            return Err(FrameError::Stream { kind, stream });
        }
        let content = Content { kind, stream, left };
        self.content = (left > 0).then_some(content);
        Ok(Some(content))
    }

    /// Takes what is there of a content, and says how much is not; none when nothing is there.
    fn pass<'a>(&mut self, content: Content, input: &mut &'a [u8]) -> Option<(&'a [u8], usize)> {
        if content.left == 0 {
            return Some((&[], 0));
        }
        let (bytes, rest) = input.split_at(content.left.min(input.len()));
        *input = rest;
        let left = content.left - bytes.len();
        self.content = (left > 0).then_some(Content { left, ..content });
        (!bytes.is_empty()).then_some((bytes, left))
    }

    fn control<'a>(&mut self, content: Content, input: &mut &[u8]) -> Result<Option<Event<'a>>, FrameError> {
        let Some(bytes) = gather(&mut self.kept, content.left, input) else { return Ok(None) };
        let Content { kind, stream, .. } = content;
        let reason = || String::from_utf8_lossy(bytes).into_owned();
        let event = match kind {
            PING => Event::Ping,
            PONG => Event::Pong,
            OPEN => {
                let request = rmp_serde::from_slice(bytes).map_err(|e| FrameError::Request(e.to_string()))?;
                Event::Open { stream, request }
            }
            ACCEPT => Event::Accept { stream },
            REFUSE => Event::Refuse { stream, reason: reason() },
            FIN => Event::Fin { stream },
            RESET => Event::Reset { stream },
            CLOSE => Event::Close { reason: reason() },
            CREDIT => {
                let amount = bytes.try_into().map_err(|_| FrameError::Length { kind, bytes: bytes.len() })?;
                Event::Credit { stream, amount: u32::from_be_bytes(amount) }
            }
            other => return Err(FrameError::Kind(other)),
        };
        self.kept.clear();
        self.content = None;
        Ok(Some(event))
    }
}

/// So many bytes, from `input` alone if they are there, else with what was kept of them before.
fn gather<'r, 'a: 'r>(kept: &'r mut Vec<u8>, bytes: usize, input: &mut &'a [u8]) -> Option<&'r [u8]> {
    let (found, rest) = input.split_at((bytes - kept.len()).min(input.len()));
    *input = rest;
    if found.len() == bytes {
        return Some(found);
    }
    kept.extend_from_slice(found);
    (kept.len() == bytes).then_some(kept)
}

#[cfg(test)]
mod tests;
