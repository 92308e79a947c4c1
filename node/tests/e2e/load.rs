//! Clients of a published port: each sends one request after another, and counts those that fail.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How long a client waits for an answer: longer than connections are held.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(10);

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts so many clients, half of which keep their connection. They take the addresses in turn.
    pub fn start(clients: usize, addresses: &[SocketAddr]) -> Self {
        let mut load =
            Self { stop: Arc::default(), answered: Arc::default(), failed: Arc::default(), clients: Vec::new() };
        for number in 0..clients {
            let (stop, answered, failed) = (load.stop.clone(), load.answered.clone(), load.failed.clone());
            let mut client =
                Client { address: addresses[number / 2 % addresses.len()], keeps: number % 2 == 0, open: None };
            load.clients.push(thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    match client.ask() {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => failed.lock().expect("no panic").push(format!("{}: {error}", client.address)),
                    }
                    thread::park_timeout(PAUSE);
                }
            }));
        }
        load
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Ends the clients. Returns the requests that failed.
    pub fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("a client ends");
        }
        std::mem::take(&mut *self.failed.lock().expect("no panic"))
    }
}

struct Client {
    address: SocketAddr,
    keeps: bool,
    open: Option<TcpStream>,
}

impl Client {
    /// Sends a request. One on a connection that was used before is repeated once, as browsers do, if the connection was
    /// closed before the first byte of the answer.
    fn ask(&mut self) -> Result<()> {
        if let Some(mut stream) = self.open.take() {
            match exchange(&mut stream, self.keeps) {
                Ok(()) => {
                    self.open = Some(stream);
                    return Ok(());
                }
                Err((_, true)) => {}
                Err((error, false)) => return Err(error),
            }
        }
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        exchange(&mut stream, self.keeps).map_err(|(error, _)| error)?;
        self.open = Some(stream).filter(|_| self.keeps);
        Ok(())
    }
}

/// Sends a request and reads its answer. An error says whether nothing of the answer had come.
fn exchange(stream: &mut TcpStream, keeps: bool) -> std::result::Result<(), (Error, bool)> {
    let connection = if keeps { "keep-alive" } else { "close" };
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| (error, true))?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let nothing_came = answer.is_empty();
        let read = stream.read(&mut chunk).map_err(|error| {
            let is_late = is_late(&error);
            (error, nothing_came && !is_late)
        })?;
        if read == 0 {
            return Err((Error::new(ErrorKind::UnexpectedEof, "the answer was cut off"), nothing_came));
        }
        answer.extend_from_slice(&chunk[..read]);
        if is_whole(&answer) {
            return Ok(());
        }
    }
}

fn is_late(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).and_then(|n| n.parse().ok());
    head.starts_with("HTTP/1.1 200 ") && length == Some(body.len())
}
