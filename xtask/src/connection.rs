//! An HTTP connection that stays open, so that what is measured is the server and not the dialling.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::http::Address;

/// How long a server may be silent before the benchmark fails: longer than a proposal may take.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest answer; those to writes have some bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A Unix or a TCP stream.
trait Duplex: Read + Write + AsFd + Send {}

impl<T: Read + Write + AsFd + Send> Duplex for T {}

/// A connection.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Duplex>>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: &Address) -> Result<Self> {
        Self::open_for(address, SILENCE_MAX)
    }

    /// Connects; a request fails when the server is silent for so long.
    pub(crate) fn open_for(address: &Address, silence_max: Duration) -> Result<Self> {
        let stream: Box<dyn Duplex> = match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).with_context(|| format!("cannot connect to {address}"))?;
                stream.set_read_timeout(Some(silence_max))?;
                Box::new(stream)
            }
            Address::Tcp(socket) => {
                let stream = TcpStream::connect(socket).with_context(|| format!("cannot connect to {address}"))?;
                stream.set_read_timeout(Some(silence_max))?;
                // A request is one small write: it must not wait for an acknowledgement.
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request that was put together before ([`post`], [`get`]) and returns the body of the answer, which has
    /// to be a success.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.ask(request)?;
        self.answer()
    }

    /// Sends a request; its answer is to be read before the next one.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(request)?)
    }

    /// Reads the answer to the request that was sent last, as [`Connection::send`] does.
    pub(crate) fn answer(&mut self) -> Result<Vec<u8>> {
        let (status, body) = read_answer(&mut self.stream)?;
        if !(200..300).contains(&status) {
            bail!("the answer is {status}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(body)
    }
}

/// What says that an answer has arrived.
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().as_fd()
    }
}

/// A `GET`, as bytes.
pub(crate) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A `POST` with a JSON body, as bytes.
pub(crate) fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Reads an answer: its status and its body.
pub(crate) fn read_answer(stream: &mut impl BufRead) -> Result<(u16, Vec<u8>)> {
    let mut line = String::new();
    let mut next = |line: &mut String| -> Result<()> {
        line.clear();
        if stream.by_ref().take(ANSWER_BYTES_MAX as u64).read_line(line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    };
    next(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("this is no answer of HTTP: {line:?}"))?;
    let mut length = 0;
    loop {
        next(&mut line)?;
        if line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').with_context(|| format!("this is no header: {line:?}"))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().with_context(|| format!("a length of {value:?}"))?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("the answer comes in chunks, which this client does not read");
        }
    }
    if length > ANSWER_BYTES_MAX {
        bail!("the answer has {length} bytes");
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_follow_each_other() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n";
        let mut stream = &bytes[..];
        assert_eq!(read_answer(&mut stream).unwrap(), (200, b"{}".to_vec()));
        assert_eq!(read_answer(&mut stream).unwrap(), (409, Vec::new()));
        assert!(read_answer(&mut stream).unwrap_err().to_string().contains("closed"));
    }

    #[test]
    fn takes_any_bytes() {
        let good = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
        for cut in 0..good.len() {
            assert!(read_answer(&mut &good[..cut]).is_err(), "{cut}");
            for byte in 0..=u8::MAX {
                let mut bytes = good.to_vec();
                bytes[cut] = byte;
                drop(read_answer(&mut &bytes[..]));
            }
        }
    }
}
