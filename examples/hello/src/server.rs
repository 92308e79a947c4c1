//! The server: one thread a connection, one request a connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::request::Request;

/// More of a request's head than this is not read: ours are a line and a few headers.
const HEAD_BYTES_MAX: u64 = 8 * 1024;
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
        let request = Request::parse(&read_head(&mut stream)?);
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
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes())
    }
}

/// Reads up to the empty line that ends a head, the end of the stream, or the limit.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    let mut limited = stream.take(HEAD_BYTES_MAX);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match limited.read(&mut chunk)? {
            0 => break,
            read => head.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(head)
}

/// Never returns; the caller's connection stays open and unanswered.
fn hang() -> ! {
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
