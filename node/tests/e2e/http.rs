//! A minimal HTTP client for a Unix socket: one request a connection, in HTTP/1.0, so that the end of the stream ends
//! the answer.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

/// How long a server may be silent: longer than any answer takes, so that a test ends.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// An answer that came whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The message of an error, or the whole body.
    pub fn message(&self) -> String {
        match self.json()["message"].as_str() {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&self.body).into_owned(),
        }
    }
}

/// `GET /` of a TCP port.
pub fn get(address: std::net::SocketAddr) -> Result<Answer> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))
}

/// Sends JSON, or nothing, and reads the answer. An error says that there was no answer: what was asked for may have
/// happened or not.
pub fn send(socket: &Path, method: &str, target: &str, body: Option<&Value>) -> Result<Answer> {
    let bytes = body.map(Value::to_string).unwrap_or_default();
    send_bytes(socket, method, target, body.map(|_| "application/json"), bytes.as_bytes())
}

/// Like [`send`], with a body of any type.
pub fn send_bytes(socket: &Path, method: &str, target: &str, kind: Option<&str>, body: &[u8]) -> Result<Answer> {
    send_with(socket, method, target, &kind.map(|kind| format!("Content-Type: {kind}\r\n")).unwrap_or_default(), body)
}

/// Like [`send_bytes`], with headers, each with its line end.
pub fn send_with(socket: &Path, method: &str, target: &str, headers: &str, body: &[u8]) -> Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let head =
        format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    // A server that refuses a large body may answer before it has read all of it.
    let written = stream.write_all(body);
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    match parse(&bytes) {
        Some(answer) => Ok(answer),
        None => Err(written.and(read.map(drop)).err().unwrap_or_else(|| Error::from(ErrorKind::UnexpectedEof))),
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let body = bytes[end + 4..].to_vec();
    length.is_none_or(|length: usize| length == body.len()).then_some(Answer { status, body })
}

/// Makes any text fit for a query.
pub fn encode(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~".contains(b);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
