//! Clients that write until they are told to stop, and go on with another member when one does not answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::connection::{Connection, SILENCE_MAX, get, post};
use crate::http::{self, Address};

/// Between two writes of a client, so that the clients leave the members something of the processors; short beside an
/// election.
const PAUSE: Duration = Duration::from_millis(10);
/// Without an acknowledged write for so long, no leader will come.
const LIMIT: Duration = Duration::from_secs(60);

/// Why there is no acknowledgement.
pub(crate) enum Trouble {
    /// It is to be tried again, with another member.
    Again,
    /// Something acknowledged is gone.
    Lost(String),
}

impl From<anyhow::Error> for Trouble {
    fn from(_: anyhow::Error) -> Self {
        Self::Again
    }
}

/// What a client does.
pub(crate) trait Writer: Send {
    /// How long it waits for an answer before it asks another member.
    const PATIENCE: Duration = SILENCE_MAX;

    /// Writes once. Returns when the write was sent, once it is acknowledged.
    fn write(&mut self, connection: &mut Connection) -> Result<Instant, Trouble>;
}

/// The first acknowledgement of a write that was sent at a moment or later.
#[derive(Default)]
struct Wanted {
    sent_from: Option<Instant>,
    acknowledged: Option<Instant>,
}

/// How steadily writes are acknowledged.
#[derive(Default)]
struct Pace {
    latest: Option<Instant>,
    longest: Duration,
}

/// What all clients share.
pub(crate) struct Clients {
    addresses: Vec<Address>,
    over: AtomicBool,
    acknowledged: AtomicU64,
    wanted: Mutex<Wanted>,
    pace: Mutex<Pace>,
    news: Condvar,
}

impl Clients {
    /// Clients of these members.
    pub(crate) fn new(addresses: Vec<Address>) -> Self {
        let (over, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { addresses, over, acknowledged, wanted: Mutex::default(), pace: Mutex::default(), news: Condvar::new() }
    }

    /// Ends all of them.
    pub(crate) fn stop(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Acknowledged writes of all clients.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The longest time between two acknowledged writes.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).longest
    }

    /// Waits until a write is acknowledged that was sent from a moment on. Returns when it was.
    pub(crate) fn next_after(&self, moment: Instant) -> Result<Instant> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted = Wanted { sent_from: Some(moment), acknowledged: None };
        let waits = |wanted: &mut Wanted| wanted.acknowledged.is_none() && !self.over.load(Ordering::SeqCst);
        let waited = self.news.wait_timeout_while(wanted, LIMIT, waits);
        let (wanted, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let none = || format!("no write was acknowledged within {} s after the leader was killed", LIMIT.as_secs());
        wanted.acknowledged.with_context(none)
    }

    fn acknowledge(&self, sent: Instant) {
        let acknowledged = Instant::now();
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let gap = pace.latest.replace(acknowledged).map_or(Duration::ZERO, |latest| acknowledged - latest);
            pace.longest = pace.longest.max(gap);
        }
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.acknowledged.is_none() && wanted.sent_from.is_some_and(|from| from <= sent) {
            wanted.acknowledged = Some(acknowledged);
            self.news.notify_all();
        }
    }

    /// One client, until [`Clients::stop`]. Fails when something acknowledged is gone.
    pub(crate) fn run<W: Writer>(&self, number: usize, mut writer: W) -> Result<W> {
        let mut at = number;
        while !self.over.load(Ordering::SeqCst) {
            let address = &self.addresses[at % self.addresses.len()];
            if let Err(Trouble::Lost(lost)) = self.write_until_trouble(address, &mut writer) {
                // The others need not go on, and nobody needs to wait for them.
                self.stop();
                self.news.notify_all();
                return Err(anyhow!("{lost} (client {number} at {address})"));
            }
            at += 1;
        }
        Ok(writer)
    }

    fn write_until_trouble<W: Writer>(&self, address: &Address, writer: &mut W) -> Result<(), Trouble> {
        let opened = Connection::open_for(address, W::PATIENCE);
        // Also where there is nobody to connect to: members are asked in turn.
        thread::park_timeout(PAUSE);
        let mut connection = opened?;
        while !self.over.load(Ordering::SeqCst) {
            self.acknowledge(writer.write(&mut connection)?);
            thread::park_timeout(PAUSE);
        }
        Ok(())
    }
}

/// Counts in the label of a service of its own. A write names the version that was read before, so that one that came
/// late, or twice, is refused: what is read lies between what was acknowledged and what was tried.
pub(crate) struct SwarmWriter {
    client: usize,
    acknowledged: u64,
    tried: u64,
}

impl SwarmWriter {
    /// The client with a number.
    pub(crate) fn new(client: usize) -> Self {
        Self { client, acknowledged: 0, tried: 0 }
    }

    /// Creates the service of this client, which has no tasks.
    pub(crate) fn create(&self, api: &Address) -> Result<()> {
        let spec = json!({
            "Name": self.name(),
            "TaskTemplate": { "ContainerSpec": { "Image": "hello:1" } },
            "Mode": { "Replicated": { "Replicas": 0 } },
        });
        let spec = spec.to_string();
        http::call(api, "POST", "/services/create", Some(("application/json", spec.as_bytes()))).map(drop)
    }

    /// Whether a manager has what was acknowledged.
    pub(crate) fn check_at(&self, api: &Address) -> Result<()> {
        let service = http::call(api, "GET", &format!("/services/{}", self.name()), None)?;
        self.check(&service).map(drop).map_err(|lost| anyhow!("{lost} (at {api})"))
    }

    fn name(&self) -> String {
        format!("client-{}", self.client)
    }

    /// Whether the service, as a manager shows it, has what was acknowledged. Returns it with its number.
    fn check(&self, service: &[u8]) -> Result<(Value, u64), String> {
        let service: Value = serde_json::from_slice(service).map_err(|error| error.to_string())?;
        let count = match &service["Spec"]["Labels"]["count"] {
            Value::Null => 0,
            count => count.as_str().and_then(|count| count.parse().ok()).ok_or(format!("the count is {count}"))?,
        };
        if (self.acknowledged..=self.tried).contains(&count) {
            return Ok((service, count));
        }
        Err(format!(
            "{} has {count}; {} was acknowledged, {} the last that was tried",
            self.name(),
            self.acknowledged,
            self.tried
        ))
    }
}

impl Writer for SwarmWriter {
    fn write(&mut self, connection: &mut Connection) -> Result<Instant, Trouble> {
        let service = connection.send(&get(&format!("/services/{}", self.name())))?;
        let (mut service, count) = self.check(&service).map_err(Trouble::Lost)?;
        self.acknowledged = count;
        self.tried += 1;
        service["Spec"]["Labels"]["count"] = self.tried.to_string().into();
        let target = format!("/services/{}/update?version={}", self.name(), service["Version"]["Index"]);
        let request = post(&target, service["Spec"].to_string().as_bytes());
        let sent = Instant::now();
        connection.send(&request)?;
        self.acknowledged = self.tried;
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_below_what_was_acknowledged_is_a_loss() {
        let writer = SwarmWriter { client: 1, acknowledged: 5, tried: 7 };
        let service = |count: u64| {
            let labels = serde_json::json!({ "count": count.to_string() });
            serde_json::json!({ "ID": "a", "Version": { "Index": 3 }, "Spec": { "Labels": labels } }).to_string()
        };
        for (count, fine) in [(4, false), (5, true), (6, true), (7, true), (8, false)] {
            assert_eq!(writer.check(service(count).as_bytes()).is_ok(), fine, "{count}");
        }
    }

    #[test]
    fn a_write_from_before_does_not_count() {
        let clients = Clients::new(Vec::new());
        let before = Instant::now();
        thread::scope(|scope| {
            let moment = before + Duration::from_nanos(1);
            let waiting = {
                let clients = &clients;
                scope.spawn(move || clients.next_after(moment))
            };
            while clients.wanted.lock().unwrap().sent_from.is_none() {
                thread::yield_now();
            }
            clients.acknowledge(before);
            assert!(clients.wanted.lock().unwrap().acknowledged.is_none());
            clients.acknowledge(moment);
            assert!(waiting.join().unwrap().unwrap() >= before);
        });
    }
}
