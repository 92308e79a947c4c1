//! The messages of HTTP/1.1 in one direction: where heads and bodies end.

use httparse::{Header, Status};

/// Longest head that is followed; servers take 8 to 64 KiB.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Fields of a head that is followed.
const FIELDS_MAX: usize = 128;
/// Digits of a chunk's size: with these it is below 2^60.
const DIGITS_MAX: u8 = 15;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Bytes(u64),
    /// In chunks, each with its size.
    Chunks,
    /// By the end of the stream, or not at all.
    Unknown,
}

/// An answer.
pub(super) struct Answer {
    /// Its status.
    pub(super) code: u16,
    /// The end of its body, if it has one.
    pub(super) framing: Framing,
    /// Whether it may ask the client to close the connection, and does not already.
    pub(super) may_close: bool,
}

/// Messages that come in pieces.
#[derive(Default)]
pub(super) struct Messages {
    stage: Stage,
}

enum Stage {
    /// In a head: its bytes so far, and the bytes of its last line.
    Head(Vec<u8>, usize),
    /// In a body with so many bytes left.
    Bytes(u64),
    /// In a body of chunks.
    Chunks(Chunk),
    /// Nothing is followed any more.
    Unknown,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Head(Vec::new(), 0)
    }
}

/// A place in a body of chunks.
#[derive(Clone, Copy)]
enum Chunk {
    /// In a size: its value and the number of its digits so far.
    Size(u64, u8),
    /// In the line of a size, after it.
    Extension(u64),
    /// Before the line feed of that line.
    SizeEnd(u64),
    /// In the bytes of a chunk.
    Data(u64),
    /// Before the end of line after the bytes.
    DataReturn,
    DataEnd,
    /// In a line after the last chunk: the bytes that it has, but for its end.
    Trailer(usize),
}

/// The outcome of gathering the bytes of a head.
pub(super) enum Gathered {
    /// The head is not complete.
    More,
    /// The whole head.
    Head(Vec<u8>),
    /// The begin of a head that is not followed.
    TooLong(Vec<u8>),
}

impl Messages {
    /// The number of bytes at the begin that belong to a body, or to nothing that is followed. They are done with this.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while let Some(rest) = bytes.get(passed..).filter(|rest| !rest.is_empty()) {
            match &mut self.stage {
                Stage::Head(..) => break,
                Stage::Unknown => return bytes.len(),
                Stage::Bytes(left) => {
                    let n = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= n as u64;
                    passed += n;
                    if *left == 0 {
                        self.stage = Stage::default();
                    }
                }
                Stage::Chunks(chunk) => {
                    let (n, next) = chunk.pass(rest);
                    passed += n;
                    self.stage = next;
                }
            }
        }
        passed
    }

    /// Takes bytes of a head, up to its end. Returns their number.
    pub(super) fn gather(&mut self, bytes: &[u8]) -> (usize, Gathered) {
        let Stage::Head(head, line_bytes) = &mut self.stage else { return (0, Gathered::More) };
        for (at, byte) in bytes.iter().enumerate() {
            head.push(*byte);
            match byte {
                b'\n' if *line_bytes == 0 => return (at + 1, Gathered::Head(std::mem::take(head))),
                b'\n' => *line_bytes = 0,
                b'\r' => {}
                _ => *line_bytes += 1,
            }
            if head.len() > HEAD_BYTES_MAX {
                return (at + 1, self.give_up());
            }
        }
        (bytes.len(), Gathered::More)
    }

    /// The bytes of a head that is not complete.
    pub(super) fn held(&self) -> &[u8] {
        match &self.stage {
            Stage::Head(head, _) => head,
            _ => &[],
        }
    }

    /// Follows nothing any more. Returns the bytes of a head that is not complete.
    pub(super) fn give_up(&mut self) -> Gathered {
        match std::mem::replace(&mut self.stage, Stage::Unknown) {
            Stage::Head(head, _) => Gathered::TooLong(head),
            _ => Gathered::More,
        }
    }

    /// Goes on with the body of a message whose head was gathered.
    pub(super) fn follow(&mut self, framing: Framing) {
        self.stage = match framing {
            Framing::Bytes(0) => Stage::default(),
            Framing::Bytes(left) => Stage::Bytes(left),
            Framing::Chunks => Stage::Chunks(Chunk::Size(0, 0)),
            Framing::Unknown => Stage::Unknown,
        };
    }
}

impl Chunk {
    /// Takes bytes: their number, which is at least 1, and the stage after them.
    fn pass(self, bytes: &[u8]) -> (usize, Stage) {
        if let Self::Data(left) = self {
            let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - n as u64;
            return (n, Stage::Chunks(if left == 0 { Self::DataReturn } else { Self::Data(left) }));
        }
        let byte = bytes.first().copied().unwrap_or_default();
        let next = match (self, byte) {
            (Self::Size(value, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Self::Size(value * 16 + u64::from(digit), digits + 1)
            }
            (Self::Size(value, 1..), b'\r') | (Self::Extension(value), b'\r') => Self::SizeEnd(value),
            (Self::Size(value, 1..), b';' | b' ' | b'\t') => Self::Extension(value),
            (Self::Extension(value), byte) if byte != b'\n' => Self::Extension(value),
            (Self::SizeEnd(0), b'\n') => Self::Trailer(0),
            (Self::SizeEnd(value), b'\n') => Self::Data(value),
            (Self::DataReturn, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size(0, 0),
            (Self::Trailer(0), b'\n') => return (1, Stage::default()),
            (Self::Trailer(_), b'\n') => Self::Trailer(0),
            (Self::Trailer(bytes), b'\r') => Self::Trailer(bytes),
            (Self::Trailer(bytes), _) => Self::Trailer(bytes + 1),
            _ => return (1, Stage::Unknown),
        };
        (1, Stage::Chunks(next))
    }
}

/// Reads the head of a question: whether it is HEAD, and the end of its body. None for one that is not followed.
pub(super) fn question(head: &[u8]) -> Option<(bool, Framing)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut question = httparse::Request::new(&mut fields);
    if question.parse(head) != Ok(Status::Complete(head.len())) {
        return None;
    }
    let method = question.method.filter(|method| *method != "CONNECT")?;
    // A question without a length has no body.
    let framing = framing(question.headers)?.unwrap_or(Framing::Bytes(0));
    Some((method == "HEAD", framing))
}

/// Reads the head of an answer. None for one that is not followed.
pub(super) fn answer(head: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    if answer.parse(head) != Ok(Status::Complete(head.len())) {
        return None;
    }
    let framing = framing(answer.headers)?.unwrap_or(Framing::Unknown);
    let is_closing = values(answer.headers, "connection").any(|value| has_token(value, b"close"));
    Some(Answer { code: answer.code?, framing, may_close: answer.version == Some(1) && !is_closing })
}

/// The end of a body by its head. The outer value is none for a head that contradicts itself, the inner one for a head
/// that says nothing.
fn framing(fields: &[Header<'_>]) -> Option<Option<Framing>> {
    let mut codings = values(fields, "transfer-encoding");
    let mut lengths = values(fields, "content-length");
    match (codings.next(), lengths.next()) {
        (None, None) => Some(None),
        (Some(coding), None) if codings.next().is_none() => {
            let last = coding.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            last.trim_ascii().eq_ignore_ascii_case(b"chunked").then_some(Some(Framing::Chunks))
        }
        (None, Some(length)) if lengths.next().is_none() => {
            let digits = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
            Some(Some(Framing::Bytes(digits.parse().ok()?)))
        }
        _ => None,
    }
}

fn values<'a>(fields: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}
