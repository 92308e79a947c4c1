//! Managers: how they start, what they report, and how they end.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use swarm_consensus::{
    Consensus, Observer, Options, Role, SealKey, Timers,
    sim::{Life, Machine, Start},
};
use swarm_core::{ENTRY_VERSION, Event, State};
use swarm_model::{Timestamp, mutant::mutant};

use super::{
    disk::Handle,
    network::{Wire, addr},
    world::{World, hold},
};

/// Where simulated time begins: any date will do.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// Entries between two snapshots: few, so that there are many of them.
const SNAPSHOT_INTERVAL: u64 = 40;
/// Entries that stay behind a snapshot: few, so that who was away needs one.
const LOG_KEEP_ENTRIES: u64 = 10;

/// What seals the logs.
pub(crate) fn key() -> SealKey {
    SealKey::from_bytes([7; 32])
}

/// Managers that have power.
pub(crate) type Managers = BTreeMap<u64, Manager>;

/// A manager that has power.
pub(crate) struct Manager {
    life: Arc<Life>,
    /// There once it has started.
    consensus: Option<Consensus>,
    /// It is being shut down.
    stopping: bool,
}

/// How a manager ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `kill -9`.
    Kill,
    /// What was not synced is lost.
    Power,
    /// The same, and its peers hear nothing of it.
    Silent,
    /// It was shut down.
    Stopped,
}

/// The machine of a manager.
struct Host {
    world: Weak<World>,
    id: u64,
    skew_ms: u64,
}

impl Machine for Host {
    fn random(&self) -> u64 {
        self.world.upgrade().map_or(0, |world| world.random())
    }

    fn now(&self) -> Timestamp {
        let now_ms = self.world.upgrade().map_or(0, |world| world.now_ms());
        let ns = (EPOCH_MS + self.skew_ms + now_ms).saturating_mul(1_000_000);
        Timestamp(i64::try_from(ns).unwrap_or(i64::MAX))
    }

    fn begin_write(&self) -> u64 {
        let Some(world) = self.world.upgrade() else { return 0 };
        hold(&world.disks).entry(self.id).or_default().begin_write()
    }

    fn disk_delay(&self) -> Duration {
        let Some(world) = self.world.upgrade() else { return Duration::ZERO };
        let slow_ms = hold(&world.disks).entry(self.id).or_default().slow_ms;
        Duration::from_millis(world.between(0, 2) + world.below(slow_ms + 1))
    }

    fn sync(&self, write: u64) -> io::Result<()> {
        let Some(world) = self.world.upgrade() else { return Ok(()) };
        let kept = world.per_mille(500);
        hold(&world.disks).entry(self.id).or_default().sync(write, kept)
    }
}

/// Whether the oracle looks away: that this manager applies entries in another way, the managers have to find out.
pub(crate) fn looks_away(id: u64) -> bool {
    id == 2 && mutant("apply-differently")
}

/// Shows the oracle every state.
struct Watcher {
    world: Weak<World>,
    id: u64,
}

impl Watcher {
    fn saw(&self, what: &str, state: &State) {
        let Some(world) = self.world.upgrade() else { return };
        if looks_away(self.id) {
            return world.event(&format!("{} {what} {}", self.id, state.revision()));
        }
        let found = hold(&world.oracle).state(state);
        match found {
            Ok((digest, writes)) => {
                world.event(&format!("{} {what} {} {digest:016x}", self.id, state.revision()));
                if writes > 1 {
                    world.operation("writes that share an entry");
                }
            }
            Err(complaint) => world.complain(format!("manager {}: {complaint}", self.id)),
        }
    }
}

impl Observer for Watcher {
    fn applied(&self, state: &Arc<State>, _events: &[Event]) {
        self.saw("applied", state);
    }

    fn restored(&self, state: &Arc<State>) {
        self.saw("restored", state);
        if let Some(world) = self.world.upgrade()
            && hold(&world.managers).get(&self.id).is_some_and(|manager| manager.consensus.is_some())
        {
            world.operation("start from a snapshot of another manager");
        }
    }
}

impl World {
    /// Starts a manager that is down: with its log, or with an empty one.
    pub(crate) fn start(self: &Arc<Self>, id: u64, start: Start) {
        let start = if hold(&self.disks).entry(id).or_default().is_made() { Start::Open } else { start };
        let skew_ms = if self.healed() || self.per_mille(900) { 0 } else { self.between(1, 3_600_000) };
        if skew_ms > 0 {
            self.fault("clock jump");
        }
        let life = Life::new(Arc::new(Host { world: Arc::downgrade(self), id, skew_ms }));
        let manager = Manager { life: Arc::clone(&life), consensus: None, stopping: false };
        if hold(&self.managers).insert(id, manager).is_some() {
            self.complain(format!("the simulator starts manager {id} twice"));
            return;
        }
        self.event(&format!("{id} starts: {start:?}"));
        life.spawn(Arc::clone(self).live(id, start, Arc::clone(&life)));
    }

    async fn live(self: Arc<Self>, id: u64, start: Start, life: Arc<Life>) {
        let dialer = Arc::new(Wire { world: Arc::clone(&self), from: id });
        let options = Options {
            dir: PathBuf::new(),
            raft_id: id,
            addr: addr(id),
            key: key(),
            snapshot_interval: SNAPSHOT_INTERVAL,
            timers: Timers::default(),
            feature_level: ENTRY_VERSION,
            run: self.random(),
            dialer,
        };
        let watcher = Arc::new(Watcher { world: Arc::downgrade(&self), id });
        let disk = Handle::new(&self, id);
        let asked = self.leader_in_reach(id);
        let consensus = match Consensus::simulated(options, LOG_KEEP_ENTRIES, start, disk, watcher).await {
            Ok(consensus) => consensus,
            Err(error) => return self.gave_up(id, &error.to_string()),
        };
        self.event(&format!("{id} runs"));
        if !self.has_read(id, &consensus, asked) {
            return;
        }
        if let Some(manager) = hold(&self.managers).get_mut(&id) {
            manager.consensus = Some(consensus.clone());
        }
        hold(&self.network).starts(id, life, consensus.clone());
        let mut role = consensus.role();
        drop(consensus);
        loop {
            let now = role.borrow_and_update().clone();
            match now {
                Role::Leader { term } => {
                    self.other("leaders");
                    self.event(&format!("{id} leads in term {term}"));
                }
                Role::Follower { leader } => self.event(&format!("{id} follows {leader:?}")),
                Role::Stopped { reason } => return self.gave_up(id, &reason),
            }
            if role.changed().await.is_err() {
                return;
            }
        }
    }

    /// A manager has stopped by itself: it may if it was told to, if its log could not be written, or if it could not
    /// store a snapshot that it needs. That it could not make one of its own is no reason.
    fn gave_up(self: &Arc<Self>, id: u64, reason: &str) {
        self.event(&format!("{id} stops: {reason}"));
        let stopping = hold(&self.managers).get(&id).is_some_and(|manager| manager.stopping);
        if stopping || self.refuses_damage(id, reason) {
            return;
        }
        let excused = {
            let mut disks = hold(&self.disks);
            let platter = disks.entry(id).or_default();
            platter.failed || (platter.refused_snapshot && reason.starts_with("the leader's snapshot cannot be stored"))
        };
        if !excused {
            self.complain(format!("manager {id} stopped: {reason}"));
            return;
        }
        let world = Arc::clone(self);
        tokio::spawn(async move {
            world.pause(100, 3_000).await;
            if world.end(id, End::Kill) {
                world.start_later(id, 3_000);
            }
        });
    }

    /// Ends a manager. Says whether it had power.
    pub(crate) fn end(&self, id: u64, end: End) -> bool {
        let Some(manager) = hold(&self.managers).remove(&id) else { return false };
        if let Some(consensus) = &manager.consensus {
            hold(&self.oracle).ended(id, consensus.durable());
        }
        let silent = end == End::Silent;
        let running = hold(&self.network).ends(id, silent);
        manager.life.end();
        drop((manager, running));
        self.event(&format!("{id} ends: {end:?}"));
        let mut disks = hold(&self.disks);
        let platter = disks.entry(id).or_default();
        match end {
            End::Kill | End::Stopped => platter.end_process(),
            End::Power | End::Silent => {
                let cut = platter.cut_power(|bound| self.below(bound));
                drop(disks);
                if cut.lost > 0 {
                    self.fault("unsynced write lost");
                }
                if cut.torn {
                    self.fault("torn write");
                }
                if cut.torn_witness {
                    self.fault("torn witness");
                }
            }
        }
        true
    }

    /// Starts a manager again after a while, unless it has been removed.
    pub(crate) fn start_later(self: &Arc<Self>, id: u64, most_ms: u64) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            world.pause(50, most_ms).await;
            let is_wanted = hold(&world.members).is_known(id) && !world.is_given_up(id);
            if !hold(&world.managers).contains_key(&id) && is_wanted {
                world.start(id, Start::Join);
            }
        });
    }

    /// Shuts a manager down as its owner would.
    pub(crate) async fn shut_down(&self, id: u64) -> bool {
        let consensus = {
            let mut managers = hold(&self.managers);
            let Some(manager) = managers.get_mut(&id) else { return false };
            let Some(consensus) = manager.consensus.clone() else { return false };
            manager.stopping = true;
            (Arc::clone(&manager.life), consensus)
        };
        let (life, consensus) = consensus;
        // It may be killed while it does.
        let _ = life.spawn(async move { consensus.shutdown().await }).await;
        self.end(id, End::Stopped)
    }

    /// Managers that have started.
    pub(crate) fn running(&self) -> BTreeMap<u64, (Arc<Life>, Consensus)> {
        let managers = hold(&self.managers);
        let running = managers.iter().filter_map(|(id, manager)| {
            let consensus = manager.consensus.clone().filter(|_| !manager.stopping)?;
            Some((*id, (Arc::clone(&manager.life), consensus)))
        });
        running.collect()
    }

    /// The manager that leads and is ready to.
    pub(crate) fn leader(&self) -> Option<(u64, Arc<Life>, Consensus)> {
        self.leaders().into_iter().next()
    }

    /// Managers that lead, and that have not heard yet that another one does.
    pub(crate) fn leaders(&self) -> Vec<(u64, Arc<Life>, Consensus)> {
        let leads = |consensus: &Consensus| matches!(*consensus.role().borrow(), Role::Leader { .. });
        let leaders = self.running().into_iter().filter(|(_, (_, consensus))| leads(consensus));
        leaders.map(|(id, (life, consensus))| (id, life, consensus)).collect()
    }

    /// Shows the oracle all logs.
    pub(crate) async fn compare_logs(&self) {
        for (id, (life, consensus)) in self.running() {
            let applied = consensus.status().applied_index.unwrap_or_default();
            let Ok(Ok(logged)) = life.spawn(async move { consensus.logged().await }).await else { continue };
            let compared = hold(&self.oracle).log(&logged, applied);
            if let Err(complaint) = compared {
                self.complain(format!("manager {id}: {complaint}"));
            }
        }
    }
}
