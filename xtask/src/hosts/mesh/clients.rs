//! Clients of a published port. Half of them keep their connections; the others make one for each request.
//!
//! A client that keeps its connection repeats a request once, on a new connection, when the old one was closed before the
//! first byte of the answer: every HTTP client does so, for a server may close a connection that is not in use at any time.
//! Everything else that is no answer counts as failed.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::lan;
use crate::connection::read_answer;

/// Clients of each kind.
pub(super) const CLIENTS: usize = 50;
/// Pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for an answer. A connection may be held for 10 s while a task is replaced.
const PATIENCE: Duration = Duration::from_secs(15);
/// Failures that are kept, to be shown.
const SHOWN_MAX: usize = 5;

/// The outcomes of requests.
#[derive(Default)]
pub(super) struct Clients {
    is_over: AtomicBool,
    answered: AtomicU64,
    repeated: AtomicU64,
    failed: AtomicU64,
    slowest_us: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// The outcomes of requests during a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) answered: u64,
    pub(super) repeated: u64,
    pub(super) failed: u64,
    /// The longest time to an answer.
    pub(super) slowest: Duration,
    /// The first failures.
    pub(super) failures: Vec<String>,
}

impl Counts {
    /// Adds the counts of another step.
    pub(super) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.repeated += other.repeated;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
    }
}

impl Clients {
    /// Requests that were answered since the counts were last taken.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Ends them.
    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// The counts since they were last taken.
    pub(super) fn take(&self) -> Counts {
        let take = |count: &AtomicU64| count.swap(0, Ordering::SeqCst);
        Counts {
            answered: take(&self.answered),
            repeated: take(&self.repeated),
            failed: take(&self.failed),
            slowest: Duration::from_micros(take(&self.slowest_us)),
            failures: std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Runs one client on the LAN until [`Clients::stop`]. A client that keeps its connection asks the first address. A client that
    /// makes a connection for each request asks the addresses in turn.
    pub(super) fn run(&self, addresses: &[SocketAddr], keeps: bool) -> Result<()> {
        lan::enter()?;
        let mut kept = None;
        for address in addresses.iter().cycle() {
            if self.is_over.load(Ordering::SeqCst) {
                return Ok(());
            }
            let begin = Instant::now();
            let address = if keeps { addresses.first().unwrap_or(address) } else { address };
            let outcome = if keeps { self.ask_kept(*address, &mut kept) } else { ask_once(*address) };
            let us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            match outcome {
                Ok(()) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    self.slowest_us.fetch_max(us, Ordering::SeqCst);
                }
                Err(error) => {
                    let kind = if keeps { "kept" } else { "short" };
                    self.fail(format!("{kind} connection to {address}, after {} ms: {error:#}", us / 1_000));
                    kept = None;
                }
            }
            thread::park_timeout(PAUSE);
        }
        Ok(())
    }

    fn fail(&self, failure: String) {
        self.failed.fetch_add(1, Ordering::SeqCst);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < SHOWN_MAX {
            failures.push(failure);
        }
    }

    /// Asks on the connection that is kept, or on a new one, which is kept then.
    fn ask_kept(&self, address: SocketAddr, kept: &mut Option<BufReader<TcpStream>>) -> Result<()> {
        if let Some(mut stream) = kept.take() {
            if send(stream.get_mut(), true).is_ok() && has_begun(&mut stream)? {
                read(&mut stream)?;
                *kept = Some(stream);
                return Ok(());
            }
            self.repeated.fetch_add(1, Ordering::SeqCst);
        }
        let mut stream = BufReader::new(connect(address)?);
        send(stream.get_mut(), true).context("cannot send")?;
        read(&mut stream)?;
        *kept = Some(stream);
        Ok(())
    }
}

fn ask_once(address: SocketAddr) -> Result<()> {
    let mut stream = BufReader::new(connect(address)?);
    send(stream.get_mut(), false).context("cannot send")?;
    read(&mut stream)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A request is one small write: it must not wait for an acknowledgement.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn send(stream: &mut impl Write, keeps: bool) -> std::io::Result<()> {
    let connection = if keeps { "keep-alive" } else { "close" };
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: mesh\r\nConnection: {connection}\r\n\r\n").as_bytes())
}

/// Waits for the first byte of an answer. False if the connection was closed before it.
fn has_begun(stream: &mut impl BufRead) -> Result<bool> {
    match stream.fill_buf() {
        Ok(bytes) => Ok(!bytes.is_empty()),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(false),
        Err(error) => Err(error).context("no answer"),
    }
}

/// Reads an answer of the service.
fn read(stream: &mut impl BufRead) -> Result<()> {
    let (status, body) = read_answer(stream)?;
    if status != 200 || !body.starts_with(b"hello ") {
        bail!("the answer is {status}: {}", String::from_utf8_lossy(&body).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
