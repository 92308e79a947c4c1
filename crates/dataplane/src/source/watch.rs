//! Keeps the kernel told, and tries whether it works.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use rustix::io::Errno;
use swarm_model::{NodeWarning, WarningCause};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Sources, View, claim, connect,
    networks::Networks,
    nft::{self, Table},
    policy,
};
use crate::{plane::Plane, voice::About};

/// Longest time between two looks at what the kernel has.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Shortest time between two looks: many connections may fail at a time.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Time between two tests of a task.
const TEST_PERIOD: Duration = Duration::from_secs(10);
/// The same after a test that failed, for the first [`QUICK_TESTS`] of these: a container may need a moment.
const QUICK_TEST_PERIOD: Duration = Duration::from_secs(1);
const QUICK_TESTS: u32 = 10;
/// How long a test waits for the answer of a container of this host.
const TEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Tests of a task in a row: a busy machine may be late once.
const TEST_TRIES: usize = 2;
/// Tests at a time: each has a socket.
const TESTS_MAX: usize = 16;
/// The port that tests ask for, which programs have not listened on since long (tcpmux).
const TEST_PORT: u16 = 1;
/// Addresses of the networks for documentation: tests come from one that this host has no such network of.
const TEST_ADDRS: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 87)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 87)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 87)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x5357)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0x5357)),
];

/// Keeps the kernel told, and the sources up to date, until it is dropped. Then the node's table is removed, and with the
/// last one of the host all that belongs to it, unless [`Sources::keep`] was called.
pub(crate) async fn watch(plane: &Arc<Plane>) {
    let node = loop {
        if let Some(node) = plane.node() {
            break node;
        }
        plane.served_changed.notified().await;
    };
    let kernel = Kernel { table: Table::of(node), rules: Vec::new(), has_ended: false };
    let told = Told { kernel: Arc::new(Mutex::new(kernel)), plane: Arc::clone(plane) };
    tokio::join!(told.keep_told(), told.test());
}

/// The rules that the kernel has for a node.
struct Kernel {
    table: Table,
    /// The content of the table when it was made; none before.
    rules: Vec<u8>,
    /// The kernel is told nothing any more.
    has_ended: bool,
}

/// The outcome of a look.
struct Look {
    /// Whether something was missing. It is there now.
    was_missing: bool,
    networks: Networks,
}

impl Kernel {
    /// Puts everything in place that is missing.
    fn look(&mut self) -> io::Result<Look> {
        connect::check_right()?;
        let is_there = !self.rules.is_empty() && self.table.rules()? == self.rules;
        if !is_there && !self.has_ended {
            self.table.install()?;
            self.rules = self.table.rules()?;
        }
        let was_missing = !self.has_ended && policy::ensure()?;
        Ok(Look { was_missing: was_missing || !is_there, networks: Networks::look()? })
    }

    /// Takes everything back, but for what other nodes of the host need.
    fn end(&mut self) -> io::Result<()> {
        self.has_ended = true;
        self.table.remove()?;
        if nft::has_tables()? { Ok(()) } else { policy::remove() }
    }
}

/// A look may go on in a thread of its own when everything else has ended already.
struct Told {
    kernel: Arc<Mutex<Kernel>>,
    plane: Arc<Plane>,
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut kernel = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
        if self.plane.sources.is_kept.load(Ordering::Acquire) {
            kernel.has_ended = true;
        } else if let Err(e) = kernel.end() {
            tracing::debug!("cannot remove this node's rules: {e}");
        }
    }
}

impl Told {
    /// Puts back what somebody removes.
    async fn keep_told(&self) {
        let (sources, warnings) = (&self.plane.sources, &self.plane.warnings);
        loop {
            let kernel = Arc::clone(&self.kernel);
            let looked = spawn_blocking(move || kernel.lock().unwrap_or_else(PoisonError::into_inner).look()).await;
            match looked.unwrap_or_else(|e| Err(io::Error::other(e))) {
                Ok(look) => {
                    sources.take(look.was_missing, Some(look.networks));
                    warnings.set(About::Sources, None);
                }
                Err(e) => {
                    sources.take(true, None);
                    let warning = NodeWarning { cause: WarningCause::ClientAddress, text: describe(&e) };
                    warnings.set(About::Sources, Some(warning));
                }
            }
            let pause = Instant::now() + LOOK_PAUSE;
            tokio::select! {
                () = sources.in_doubt.notified() => sleep_until(pause).await,
                () = sleep(LOOK_PERIOD) => {}
            }
        }
    }

    /// Tests each task when it comes, when what the kernel was told has changed, when it did not answer, and from time to
    /// time.
    async fn test(&self) {
        let mut known: BTreeMap<IpAddr, Tested> = BTreeMap::new();
        loop {
            let view = self.plane.sources.view.load_full();
            let tasks = self.plane.addrs_by_client();
            known.retain(|task, _| tasks.contains(task));
            if let Some(networks) = &view.networks {
                let now = Instant::now();
                let is_due = |task: &IpAddr| known.get(task).is_none_or(|tested| tested.is_due(now, task, &view));
                let due: Vec<_> = tasks.into_iter().filter(is_due).collect();
                for some in due.chunks(TESTS_MAX) {
                    let passed = passing(some, networks).await;
                    for task in some {
                        let failed = known.get(task).map_or(0, |tested| tested.failed);
                        let failed = if passed.contains(task) { 0 } else { failed.saturating_add(1) };
                        known.insert(*task, Tested { at: Instant::now(), generation: view.generation, failed });
                    }
                    self.plane.sources.prove(view.generation, some, &passed);
                }
            }
            self.plane.sources.retain(|task| known.contains_key(task));
            self.warn(&known, &view);
            tokio::select! {
                () = self.plane.served_changed.notified() => {}
                () = self.plane.sources.to_test.notified() => {}
                () = sleep(QUICK_TEST_PERIOD) => {}
            }
        }
    }

    /// Says which tasks do not see clients, though the kernel is told.
    fn warn(&self, known: &BTreeMap<IpAddr, Tested>, view: &View) {
        let is_silent = |(task, tested): &(&IpAddr, &Tested)| {
            // A task in the host's own network is no fault of anybody.
            let is_own = view.networks.as_ref().is_none_or(|networks| networks.is_own(**task));
            tested.failed > QUICK_TESTS && !is_own && !task.is_loopback()
        };
        let silent: Vec<_> = known.iter().filter(is_silent).map(|(task, _)| task).collect();
        let text = silent.first().map(|first| {
            let more = if silent.len() > 1 { format!(" and {} more", silent.len() - 1) } else { String::new() };
            format!(
                "source addresses: the node's own is shown to the task at {first}{more} (its answers to clients do not come \
                 by this host: a firewall drops them on INPUT, or its network has no way out); use the PROXY protocol for \
                 the client's"
            )
        });
        let warning = text.map(|text| NodeWarning { cause: WarningCause::ClientAddress, text });
        self.plane.warnings.set(About::Answers, warning);
    }
}

/// The last test of a task.
struct Tested {
    at: Instant,
    generation: u64,
    /// Tests in a row that failed.
    failed: u32,
}

impl Tested {
    fn is_due(&self, now: Instant, task: &IpAddr, view: &View) -> bool {
        let is_doubted = self.failed == 0 && !view.proven.contains(task);
        let is_quick = (1..=QUICK_TESTS).contains(&self.failed);
        let period = if is_quick { QUICK_TEST_PERIOD } else { TEST_PERIOD };
        self.generation != view.generation || is_doubted || now.duration_since(self.at) >= period
    }
}

/// The tasks whose answers come back.
async fn passing(tasks: &[IpAddr], networks: &Networks) -> BTreeSet<IpAddr> {
    let mut tests = JoinSet::new();
    for task in tasks.iter().copied() {
        // Packets from this host to itself do not come by the rules.
        let from = test_addr(task, networks).filter(|_| !task.is_loopback() && !networks.is_own(task));
        if let Some(from) = from {
            tests.spawn(async move { answers(from, task).await.then_some(task) });
        }
    }
    let mut passed = BTreeSet::new();
    while let Some(tested) = tests.join_next().await {
        passed.extend(tested.ok().flatten());
    }
    passed
}

fn test_addr(task: IpAddr, networks: &Networks) -> Option<IpAddr> {
    let is_fit = |addr: &IpAddr| {
        let is_near = networks.own.iter().any(|own| own.contains(*addr));
        addr.is_ipv4() == task.is_ipv4() && !is_near && claim::check(*addr, networks).is_ok()
    };
    TEST_ADDRS.into_iter().find(is_fit)
}

/// Whether an answer of a task to this address comes back. That it refuses is one as well.
async fn answers(from: IpAddr, task: IpAddr) -> bool {
    for _ in 0..TEST_TRIES {
        let connecting = connect::tcp(SocketAddr::new(from, 0), SocketAddr::new(task, TEST_PORT));
        match timeout(TEST_TIMEOUT, connecting).await {
            Ok(Ok(_)) => return true,
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => return true,
            Ok(Err(e)) => tracing::debug!("the test with {task} failed: {e}"),
            Err(_) => tracing::debug!("the test with {task} failed: no answer"),
        }
    }
    false
}

impl Sources {
    /// Takes the result of a look.
    fn take(&self, was_missing: bool, networks: Option<Networks>) {
        let is_same = self.view.load().networks.as_deref() == networks.as_ref();
        if is_same && (!was_missing || networks.is_none()) {
            return;
        }
        let networks = networks.map(Arc::new);
        self.view.rcu(|view| {
            let mut view = View { networks: networks.clone(), ..View::clone(view) };
            if was_missing {
                view.generation += 1;
                view.proven = Arc::default();
            }
            view
        });
        if was_missing {
            self.to_test.notify_one();
        }
    }

    /// Takes the results of tests of tasks, unless the kernel was told something else meanwhile.
    fn prove(&self, generation: u64, tested: &[IpAddr], passed: &BTreeSet<IpAddr>) {
        self.view.rcu(|view| {
            let mut view = View::clone(view);
            if view.generation == generation {
                let proven = Arc::make_mut(&mut view.proven);
                proven.retain(|task| !tested.contains(task));
                proven.extend(passed);
            }
            view
        });
    }

    /// Forgets tasks.
    fn retain(&self, is_there: impl Fn(&IpAddr) -> bool) {
        if self.view.load().proven.iter().all(&is_there) {
            return;
        }
        self.view.rcu(|view| {
            let mut view = View::clone(view);
            Arc::make_mut(&mut view.proven).retain(&is_there);
            view
        });
    }
}

/// Says why connections cannot be made from the client's address, for people.
fn describe(error: &io::Error) -> String {
    let reason = match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => "needs CAP_NET_ADMIN".to_owned(),
        _ => error.to_string(),
    };
    format!("source addresses: the node's own is shown to tasks ({reason}); use the PROXY protocol for the client's")
}
