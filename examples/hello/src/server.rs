//! The server: one thread a connection. A connection takes one request after another, as HTTP/1.1 has it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::request::Request;

/// More of a request's head than this is not read: ours are a line and a few headers.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// No answer is longer.
pub(crate) const ANSWER_BYTES_MAX: u64 = 4 * 1024;
/// A client that sends nothing for so long is dropped.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections served at a time; more wait in the kernel's queue. A thread each, so this bounds memory.
const CONNECTIONS_MAX: usize = 128;
/// Exit code after `POST /crash`.
const CRASH_EXIT_CODE: i32 = 3;

/// The listening service.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    greeting: String,
    healthy: AtomicBool,
    hanging: AtomicBool,
    connections: AtomicUsize,
}

impl Server {
    /// Listens. `greeting` is the answer to `GET /`.
    pub(crate) fn bind(address: SocketAddr, greeting: String) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Shared {
            greeting,
            healthy: AtomicBool::new(true),
            hanging: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        };
        Ok(Self { listener, address, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends; returns only when accepting fails.
    pub(crate) fn run(self) -> Result<(), String> {
        let acceptor = thread::current();
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                // The client went away before it was served.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(format!("cannot accept connections: {error}")),
            };
            if self.shared.hanging.load(Ordering::SeqCst) {
                hang();
            }
            self.shared.connections.fetch_add(1, Ordering::SeqCst);
            let (shared, acceptor) = (Arc::clone(&self.shared), acceptor.clone());
            thread::spawn(move || {
                // A client that went away is its own business.
                drop(shared.serve(stream));
                shared.connections.fetch_sub(1, Ordering::SeqCst);
                acceptor.unpark();
            });
            while self.shared.connections.load(Ordering::SeqCst) >= CONNECTIONS_MAX {
                thread::park();
            }
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut received = Vec::new();
        loop {
            let Some(head) = read_head(&mut stream, &mut received)? else { return Ok(()) };
            let stays_open = stays_open(&head);
            self.answer(&mut stream, &head, stays_open)?;
            if !stays_open {
                return Ok(());
            }
        }
    }

    fn answer(&self, stream: &mut TcpStream, head: &[u8], stays_open: bool) -> io::Result<()> {
        let request = Request::parse(head);
        if self.hanging.load(Ordering::SeqCst) {
            hang();
        }
        let (status, body) = match request {
            Request::Greet => ("200 OK", self.greeting.as_str()),
            Request::Health if self.healthy.load(Ordering::SeqCst) => ("200 OK", "healthy\n"),
            Request::Health => ("503 Service Unavailable", "unhealthy\n"),
            Request::TurnHealth(healthy) => {
                self.healthy.store(healthy, Ordering::SeqCst);
                ("200 OK", if healthy { "healthy from now on\n" } else { "unhealthy from now on\n" })
            }
            Request::Crash => process::exit(CRASH_EXIT_CODE),
            Request::Hang => {
                self.hanging.store(true, Ordering::SeqCst);
                ("200 OK", "hanging from now on\n")
            }
            Request::WrongMethod => ("405 Method Not Allowed", "wrong method\n"),
            Request::Unknown => ("404 Not Found", "not found\n"),
            Request::Malformed => ("400 Bad Request", "not a request\n"),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{}\r\n",
            body.len(),
            if stays_open { "" } else { "Connection: close\r\n" }
        );
        stream.write_all(format!("{head}{body}").as_bytes())
    }
}

/// Whether the client may send another request after this one. Requests here have no body; one that has is not followed.
fn stays_open(head: &[u8]) -> bool {
    let Ok(head) = str::from_utf8(head) else { return false };
    let mut lines = head.lines();
    let is_new = lines.next().is_some_and(|line| line.ends_with(" HTTP/1.1"));
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    is_new
        && head.ends_with("\r\n\r\n")
        && headers.all(|(name, value)| match name.to_ascii_lowercase().as_str() {
            "connection" => value.trim().eq_ignore_ascii_case("keep-alive"),
            "content-length" => value.trim() == "0",
            "transfer-encoding" => false,
            _ => true,
        })
}

/// The next head: up to the empty line that ends it, the end of the stream, or the limit. None if the stream ends before.
/// `received` keeps what comes after it.
fn read_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let mut chunk = [0; 1024];
    loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = received.split_off(at + 4);
            return Ok(Some(std::mem::replace(received, rest)));
        }
        let room = HEAD_BYTES_MAX.saturating_sub(received.len()).min(chunk.len());
        match if room == 0 { 0 } else { stream.read(&mut chunk[..room])? } {
            0 if received.is_empty() => return Ok(None),
            0 => return Ok(Some(std::mem::take(received))),
            read => received.extend_from_slice(&chunk[..read]),
        }
    }
}

/// Never returns; the caller's connection stays open and unanswered.
fn hang() -> ! {
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Shutdown};

    use super::*;

    fn start() -> SocketAddr {
        let server = Server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "hello there\n".to_owned()).unwrap();
        let address = server.address();
        thread::spawn(move || server.run());
        address
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn greets_and_turns_unhealthy_and_back() {
        let address = start();
        let answer = ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello there\n"), "{answer}");
        assert!(ask(address, "GET /health HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
        ask(address, "POST /unhealthy HTTP/1.1\r\n\r\n");
        assert!(ask(address, "GET /health HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503 "));
        ask(address, "POST /healthy HTTP/1.1\r\n\r\n");
        assert!(ask(address, "GET /health HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn a_connection_takes_requests_until_one_says_close() {
        let address = start();
        let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let close = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        let greetings = |answer: String| answer.matches("hello there\n").count();
        assert_eq!(greetings(ask(address, &[get, get, close, get].concat())), 3);
        assert_eq!(greetings(ask(address, &["GET / HTTP/1.0\r\n\r\n", get].concat())), 1);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let address = start();
        assert!(ask(address, "GET /crash HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(ask(address, "GET /nowhere HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn hangs_when_told_to() {
        let address = start();
        assert!(ask(address, "POST /hang HTTP/1.1\r\n\r\n").ends_with("hanging from now on\n"));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // It can only time out: no machine is so slow that this would pass with a server that answers or closes.
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let error = stream.read(&mut [0; 1]).expect_err("a server that hangs neither answers nor closes");
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    }
}
