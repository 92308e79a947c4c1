//! A minimal HTTP client: one request a connection, in HTTP/1.0, so that the end of the stream ends the answer.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// Longest answer; a list of some thousand tasks is a few megabytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long a server may be silent. The engine imports an image or removes a container within it.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The message of an error answer, or the start of whatever came.
    pub(crate) fn message(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Message {
            message: String,
        }
        match serde_json::from_slice::<Message>(&self.body) {
            Ok(Message { message }) => message,
            Err(_) => String::from_utf8_lossy(&self.body).trim().chars().take(300).collect(),
        }
    }
}

/// Sends a request and reads the whole answer, whatever its status.
pub(crate) fn send(address: &Address, method: &str, target: &str, body: Option<(&str, &[u8])>) -> Result<Answer> {
    let exchange = || -> Result<Answer> {
        let mut head = format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\n");
        if let Some((kind, body)) = body {
            head.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let body = body.map_or(&[][..], |(_, body)| body);
        let bytes = match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(SILENCE_MAX))?;
                stream.set_write_timeout(Some(SILENCE_MAX))?;
                converse(stream, head.as_bytes(), body)?
            }
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, SILENCE_MAX)?;
                stream.set_read_timeout(Some(SILENCE_MAX))?;
                stream.set_write_timeout(Some(SILENCE_MAX))?;
                converse(stream, head.as_bytes(), body)?
            }
        };
        parse(&bytes)
    };
    exchange().with_context(|| format!("{method} {target} at {address}"))
}

fn converse(mut stream: impl Read + Write, head: &[u8], body: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(head)?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        bail!("the answer has no head of HTTP ({} bytes)", bytes.len());
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let status =
        head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let Some(status) = status else { bail!("the answer is not HTTP: {:?}", head.lines().next().unwrap_or_default()) };
    Ok(Answer { status, body: bytes[end + 4..].to_vec() })
}

/// Sends a request that has to succeed.
pub(crate) fn call(address: &Address, method: &str, target: &str, body: Option<(&str, &[u8])>) -> Result<Vec<u8>> {
    let answer = send(address, method, target, body)?;
    if !(200..300).contains(&answer.status) {
        bail!("{method} {target} at {address}: {} {}", answer.status, answer.message());
    }
    Ok(answer.body)
}

/// Reads JSON.
pub(crate) fn get<T: DeserializeOwned>(address: &Address, target: &str) -> Result<T> {
    let body = call(address, "GET", target, None)?;
    serde_json::from_slice(&body).with_context(|| format!("cannot understand the answer to GET {target} at {address}"))
}

/// Makes any text fit for a query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_and_body() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n{\"message\":\"no such thing\"}").unwrap();
        assert_eq!((answer.status, answer.message().as_str()), (404, "no such thing"));
    }

    #[test]
    fn takes_any_bytes() {
        let good = b"HTTP/1.0 200 OK\r\nContent-Type: x\r\n\r\nbody";
        for cut in 0..good.len() {
            assert_eq!(parse(&good[..cut]).is_ok(), cut >= good.len() - 4, "{cut}");
            for byte in 0..=u8::MAX {
                let mut bytes = good.to_vec();
                bytes[cut] = byte;
                drop(parse(&bytes));
            }
        }
    }

    #[test]
    fn encodes_queries() {
        assert_eq!(encode(r#"{"a":["b c"]}"#), "%7B%22a%22%3A%5B%22b%20c%22%5D%7D");
    }
}
