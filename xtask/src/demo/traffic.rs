//! Requests while a service changes: clients that know the tasks from the API, and count what becomes of each request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, bail};

use super::view::{self, TaskView};
use crate::http::Address;

/// Clients at the same time.
const CLIENTS: usize = 4;
/// Pause of a client between two requests: some hundred requests a second in all, without taking the machine.
const PAUSE: Duration = Duration::from_millis(15);
/// Between two looks at the tasks, as a load balancer would have it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A task that clients may ask.
#[derive(Clone, Debug)]
struct Target {
    task: String,
    name: String,
    address: SocketAddr,
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Answers by the version that gave them.
    pub answers: BTreeMap<String, u64>,
    /// Requests to a task that was being replaced: the client asked another one.
    pub moved: u64,
    /// Requests to a task that was to stay, and that failed.
    pub failed: u64,
    /// The first of these.
    pub first_failure: String,
}

impl Counts {
    /// A line for people, or an error if a request failed that should not have.
    pub(super) fn told(&self) -> Result<String> {
        if self.failed > 0 {
            bail!("{} requests to tasks that were to stay failed; the first: {}", self.failed, self.first_failure);
        }
        let total: u64 = self.answers.values().sum();
        if total == 0 {
            bail!("no request was answered");
        }
        let versions: Vec<String> =
            self.answers.iter().map(|(version, count)| format!("{count} by version {version}")).collect();
        let moved = match self.moved {
            0 => String::new(),
            count => format!(", {count} more met a task on its way out and went to another"),
        };
        Ok(format!("{total} requests answered ({}){moved}, none failed", versions.join(", ")))
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    next: AtomicUsize,
    targets: Mutex<Vec<Target>>,
    counts: Mutex<Counts>,
}

/// Clients at work.
pub(super) struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Starts clients of a service. `addresses` are the nodes' own, by node id.
    pub(super) fn start(api: &Address, service: &'static str, addresses: BTreeMap<String, std::net::Ipv4Addr>) -> Self {
        let shared = Arc::new(Shared::default());
        let watcher = Watcher { api: api.clone(), service, addresses };
        let spawn = |run: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || run(&shared))
        };
        let mut threads = Vec::new();
        for _ in 0..CLIENTS {
            let watcher = watcher.clone();
            threads.push(spawn(Box::new(move |shared| watcher.ask(shared))));
        }
        threads.push(spawn(Box::new(move |shared| watcher.watch(shared))));
        Self { shared, threads }
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> Result<Counts> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                bail!("a client of the demo panicked");
            }
        }
        Ok(lock(&self.shared.counts).clone())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Watcher {
    api: Address,
    service: &'static str,
    addresses: BTreeMap<String, std::net::Ipv4Addr>,
}

impl Watcher {
    /// Keeps the list of targets: tasks that run and are to run, each from its first answer on. (A container runs as
    /// soon as its process does; that may be an instant before it listens.)
    fn watch(&self, shared: &Shared) {
        while !shared.stopped() {
            // An API that does not answer for a moment changes nothing: the clients go on with what they know.
            if let Ok(tasks) = view::tasks(&self.api, self.service) {
                let known = lock(&shared.targets).clone();
                let targets = tasks.iter().filter(|task| task.running()).filter_map(|task| {
                    let old = known.iter().find(|target| target.task == task.id);
                    old.cloned().or_else(|| self.target(task).filter(|target| target.ask().is_ok()))
                });
                let targets = targets.collect();
                *lock(&shared.targets) = targets;
            }
            thread::park_timeout(LOOK_EVERY);
        }
    }

    fn target(&self, task: &TaskView) -> Option<Target> {
        Some(Target {
            task: task.id.clone(),
            name: format!("{}.{}.{}", self.service, task.slot, task.id),
            address: SocketAddr::from((*self.addresses.get(&task.node_id)?, task.port?)),
        })
    }

    /// Asks one target after the other.
    fn ask(&self, shared: &Shared) {
        while !shared.stopped() {
            let turn = shared.next.fetch_add(1, Ordering::Relaxed);
            let target = {
                let targets = lock(&shared.targets);
                targets.get(turn % targets.len().max(1)).cloned()
            };
            if let Some(target) = target {
                match target.ask() {
                    Ok(version) => *lock(&shared.counts).answers.entry(version).or_default() += 1,
                    Err(error) => self.judge(shared, &target, &error),
                }
            }
            thread::park_timeout(PAUSE);
        }
    }

    /// A failed request is fine if the task was no longer meant to run: clients had a moment to notice.
    fn judge(&self, shared: &Shared, target: &Target, error: &anyhow::Error) {
        lock(&shared.targets).retain(|known| known.task != target.task);
        let stays = match view::tasks(&self.api, self.service) {
            Ok(tasks) => tasks.iter().any(|task| task.id == target.task && task.desired == "running"),
            Err(_) => true,
        };
        let mut counts = lock(&shared.counts);
        if !stays {
            counts.moved += 1;
            return;
        }
        counts.failed += 1;
        if counts.failed == 1 {
            counts.first_failure = format!("{} at {}: {error:#}", target.name, target.address);
        }
    }
}

impl Target {
    /// The version that answers.
    fn ask(&self) -> Result<String> {
        let greeting = view::greet(&Address::Tcp(self.address))?;
        if greeting.task != self.name {
            bail!("{} answers", greeting.task);
        }
        Ok(greeting.version)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A client that panicked is told when it is joined.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_request_is_a_failure() {
        let mut counts = Counts { answers: [("1".to_owned(), 5), ("2".to_owned(), 7)].into(), ..Counts::default() };
        counts.moved = 1;
        let line = counts.told().unwrap();
        assert!(line.starts_with("12 requests answered (5 by version 1, 7 by version 2), 1 more"), "{line}");
        (counts.failed, counts.first_failure) = (1, "web.1.abc: refused".to_owned());
        assert!(counts.told().unwrap_err().to_string().contains("web.1.abc: refused"));
        assert!(Counts::default().told().is_err(), "silence is no success");
    }
}
