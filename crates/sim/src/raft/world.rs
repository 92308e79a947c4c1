//! What everything in a run shares: time, randomness, what was noted, and how a run goes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    KINDS, clients, damage::Damages, disk::Disks, faults, managers::Managers, members::Members, network::Network,
    oracle::Oracle,
};
use crate::{
    Counts, Report,
    rng::{Rng, mix},
};

/// Clients at work.
const CLIENTS: u64 = 5;
/// Longest time that mended managers may take to agree: a few elections, and a snapshot.
const SETTLE: Duration = Duration::from_secs(120);
/// Between two looks at all logs.
const LOOK: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct World {
    began: Instant,
    rng: Mutex<Rng>,
    notes: Mutex<Notes>,
    over: Notify,
    pub(crate) oracle: Mutex<Oracle>,
    pub(crate) network: Mutex<Network>,
    pub(crate) disks: Mutex<Disks>,
    pub(crate) managers: Mutex<Managers>,
    pub(crate) members: Mutex<Members>,
    pub(crate) damages: Mutex<Damages>,
}

struct Notes {
    counts: Counts,
    hash: u64,
    trace: Option<Vec<String>>,
    complaint: Option<String>,
    /// Faults are over.
    healed: bool,
}

/// Nothing panics while it holds a lock, and if it did, the run has failed anyway.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Arc<Self> {
        let trace = trace.then(Vec::new);
        let notes = Notes { counts: Counts::of(&KINDS), hash: seed, trace, complaint: None, healed: false };
        Arc::new(Self {
            began: Instant::now(),
            rng: Mutex::new(Rng::new(mix(seed))),
            notes: Mutex::new(notes),
            over: Notify::new(),
            oracle: Mutex::default(),
            network: Mutex::default(),
            disks: Mutex::default(),
            managers: Mutex::default(),
            members: Mutex::default(),
            damages: Mutex::default(),
        })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn random(&self) -> u64 {
        hold(&self.rng).next()
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        hold(&self.rng).below(bound)
    }

    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        hold(&self.rng).between(low, high)
    }

    pub(crate) fn per_mille(&self, times: u64) -> bool {
        hold(&self.rng).per_mille(times)
    }

    pub(crate) fn pick<T: Clone>(&self, items: &[T]) -> Option<T> {
        hold(&self.rng).pick(items).cloned()
    }

    pub(crate) async fn pause(&self, low_ms: u64, high_ms: u64) {
        sleep(Duration::from_millis(self.between(low_ms, high_ms))).await;
    }

    /// Notes what happened.
    pub(crate) fn event(&self, text: &str) {
        let line = format!("{:>9} {text}", self.now_ms());
        let mut notes = hold(&self.notes);
        for chunk in line.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            notes.hash = mix(notes.hash ^ u64::from_le_bytes(word));
        }
        if let Some(trace) = &mut notes.trace {
            trace.push(line);
        }
    }

    pub(crate) fn fault(&self, name: &'static str) {
        hold(&self.notes).counts.fault(name);
    }

    pub(crate) fn operation(&self, name: &'static str) {
        hold(&self.notes).counts.operation(name);
    }

    pub(crate) fn other(&self, name: &'static str) {
        hold(&self.notes).counts.other(name);
    }

    /// The oracle found something. The first finding ends the run.
    pub(crate) fn complain(&self, complaint: String) {
        self.event(&format!("COMPLAINT {complaint}"));
        hold(&self.notes).complaint.get_or_insert(complaint);
        self.over.notify_one();
    }

    pub(crate) fn healed(&self) -> bool {
        hold(&self.notes).healed
    }

    /// A whole run.
    pub(crate) async fn run(self: &Arc<Self>, faulty: Duration) {
        let story = async {
            self.found().await;
            for client in 0..CLIENTS {
                tokio::spawn(clients::run(Arc::clone(self), client));
            }
            tokio::spawn(Arc::clone(self).steer());
            tokio::spawn(Arc::clone(self).look());
            tokio::spawn(faults::run(Arc::clone(self)));
            sleep(faulty).await;
            hold(&self.notes).healed = true;
            self.event("all is mended");
            self.mend().await;
            let settled = tokio::time::timeout(SETTLE, self.settle()).await;
            if settled.is_err() {
                self.complain(format!("the managers do not agree within {} s: {}", SETTLE.as_secs(), self.describe()));
            }
        };
        tokio::select! {
            biased;
            () = self.over.notified() => {}
            () = story => {}
        }
    }

    /// Compares all logs now and then.
    async fn look(self: Arc<Self>) {
        loop {
            sleep(LOOK).await;
            self.compare_logs().await;
        }
    }

    /// Lets go of what keeps this world alive.
    pub(crate) fn clear(&self) {
        hold(&self.network).clear();
        let managers = std::mem::take(&mut *hold(&self.managers));
        drop(managers);
    }

    pub(crate) fn report(&self, simulated_ms: u64) -> Report {
        let mut notes = hold(&self.notes);
        Report {
            hash: notes.hash,
            counts: std::mem::replace(&mut notes.counts, Counts::of(&KINDS)),
            simulated_ms,
            complaint: notes.complaint.take(),
            trace: notes.trace.take().unwrap_or_default(),
        }
    }
}
