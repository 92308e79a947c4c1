//! The world: everything there is, the queue of what happens next, and the loop that takes it.

use std::collections::BTreeMap;

use swarm_manager::endpoints::Endpoints;
use swarm_model::{Id, NodeId, Timestamp};

use crate::{
    Options, Report,
    counts::{Counts, KINDS},
    event::{ConnId, Event},
    host::Host,
    lead::Leader,
    log::Log,
    oracle::Oracle,
    peers::Conn,
    rng::{Rng, mix},
    tables::Ends,
};

/// Managers that take turns as the leader, each with a clock of its own.
pub(crate) const MANAGERS: usize = 3;

/// Where simulated time begins: any date will do.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// Tells the seed of one generator from that of the other.
const SIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Longest time that a mended cluster may take to settle: the slowest rollout of a run takes some minutes, and clocks
/// that were ahead have to be caught up with.
const SETTLE_MS_MAX: u64 = 60 * 60_000;

/// A cluster that proposes nothing for so long has settled.
const QUIET_MS: u64 = 90_000;

/// See the module.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) options: Options,
    pub(crate) now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    pub(crate) rng: Rng,
    /// The randomness of published ports and data planes: it leaves the choices of operators as they were without them.
    pub(crate) side: Rng,
    pub(crate) log: Log,
    /// The endpoint table, as the managers have it.
    pub(crate) table: Endpoints,
    pub(crate) ends: Ends,
    pub(crate) leader: Option<Leader>,
    pub(crate) term: u64,
    /// How far the managers' clocks are off, in milliseconds.
    pub(crate) skew_ms: [i64; MANAGERS],
    pub(crate) hosts: BTreeMap<NodeId, Host>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) conns_made: u64,
    pub(crate) named: u64,
    pub(crate) oracle: Oracle,
    pub(crate) counts: Counts,
    /// Operations and faults are over.
    pub(crate) healed: bool,
    pub(crate) healed_ms: Option<u64>,
    /// When something last befell a container: its agent may still be about to tell.
    pub(crate) changed_ms: u64,
    pub(crate) complaint: Option<String>,
    hash: u64,
    trace: Vec<String>,
}

impl World {
    /// A cluster without services whose agents are about to start.
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let mut world = Self {
            seed,
            options,
            now_ms: 0,
            queue: BTreeMap::new(),
            queued: 0,
            rng: Rng::new(mix(seed)),
            side: Rng::new(mix(seed ^ SIDE)),
            log: Log::default(),
            table: Endpoints::default(),
            ends: Ends::default(),
            leader: None,
            term: 0,
            skew_ms: [0; MANAGERS],
            hosts: BTreeMap::new(),
            conns: BTreeMap::new(),
            conns_made: 0,
            named: 0,
            oracle: Oracle::default(),
            counts: Counts::of(&KINDS),
            healed: false,
            healed_ms: None,
            changed_ms: 0,
            complaint: None,
            hash: seed,
            trace: Vec::new(),
        };
        world.found();
        for _ in 0..options.nodes {
            world.join();
        }
        world.after(10, Event::Elect);
        world.after(5_000, Event::Operate);
        world.after(30_000, Event::Break);
        world.after(30_000, Event::BreakData);
        world
    }

    /// Runs to the end, or to the first complaint.
    pub(crate) fn run(&mut self) {
        let end_ms = self.options.minutes * 60_000;
        self.run_until(end_ms);
        if self.complaint.is_some() {
            return;
        }
        self.heal();
        let limit_ms = self.now_ms + SETTLE_MS_MAX;
        while self.complaint.is_none() && self.now_ms < limit_ms {
            self.run_until(self.now_ms + 10_000);
            let is_quiet = self.now_ms.saturating_sub(self.log.last_ms.max(self.changed_ms)) >= QUIET_MS;
            if is_quiet && self.now_ms > end_ms + 2 * QUIET_MS && !self.is_delayed() {
                return self.check_converged();
            }
        }
        if self.complaint.is_none() {
            let last: Vec<String> = self.log.recent.iter().map(|entry| format!("{entry:?}")).collect();
            self.complain(format!(
                "the mended cluster does not settle within {} minutes; it goes on proposing:\n  {}",
                SETTLE_MS_MAX / 60_000,
                last.join("\n  ")
            ));
        }
    }

    /// Whether a task waits for the end of its restart delay, which may have been doubled to minutes.
    fn is_delayed(&self) -> bool {
        let state = &self.log.state;
        state.tasks().any(|task| task.desired.is_live() && task.start_at.is_some_and(|at| at > self.wall()))
    }

    pub(crate) fn run_until(&mut self, end_ms: u64) {
        while self.complaint.is_none()
            && let Some(first) = self.queue.first_entry()
            && first.key().0 <= end_ms
        {
            let ((at, number), event) = first.remove_entry();
            self.now_ms = self.now_ms.max(at);
            self.digest(&[at, number]);
            if self.options.trace {
                let line = format!("{event:?}");
                self.note(|| line);
            }
            self.happen(event);
        }
        self.now_ms = self.now_ms.max(end_ms);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Commit => self.commit(),
            Event::GiveUp(proposal) => self.give_up(proposal),
            Event::Again(entry) => self.again(entry),
            Event::Elect => self.elect(),
            Event::Decide { term, token } => self.wake_leader(term, token),
            Event::Resume { term, index } => self.resume_leader(term, index),
            Event::Flush { term } => self.flush(term),
            Event::Tick { term } => self.tick(term),
            Event::Presence { term, conn } => self.retry_presence(term, conn),
            Event::Table { term, conn } => self.send_table(term, conn),
            Event::Stops { term, conn } => self.look_at_stops(term, conn),
            Event::Data(node, event) => self.data_event(node, *event),
            Event::BreakData => self.break_data(),
            Event::Reach { node, boot, stream } => self.reach(node, boot, stream),
            Event::Opened { node, conn } => self.opened(node, conn),
            Event::Up { conn, message } => self.receive(conn, *message),
            Event::Down { conn, message } => self.deliver(conn, *message),
            Event::ManagerHears { conn } => self.manager_hears(conn),
            Event::AgentHears { node, boot, stream } => self.agent_hears(node, boot, stream),
            Event::Wake { node, boot, token } => self.wake_agent(node, boot, token),
            Event::Hear { node, boot, input } => self.hear(node, boot, *input),
            Event::Write { node, boot } => self.write(node, boot),
            Event::Call { node, boot, task, operation } => self.carry_out(node, boot, task, &operation),
            Event::List { node, boot } => self.list(node, boot),
            Event::RemoveStray { node, boot, container } => self.remove_stray(node, boot, container),
            Event::Container { node, container, fate } => self.befall(node, &container, fate),
            Event::Start { node } => self.start(node),
            Event::Look { node, boot, anew } => self.look(node, boot, anew),
            Event::EngineBack { node } => self.engine_back(node),
            Event::Operate => self.operate(),
            Event::Break => self.break_something(),
            Event::ClockBack { manager, node } => self.clock_back(manager, node),
        }
    }

    /// Something happens so many milliseconds from now.
    pub(crate) fn after(&mut self, delay_ms: u64, event: Event) {
        self.at(self.now_ms + delay_ms, event);
    }

    /// Something happens at that time.
    pub(crate) fn at(&mut self, at_ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at_ms.max(self.now_ms), self.queued), event);
    }

    /// The true time.
    pub(crate) fn wall(&self) -> Timestamp {
        self.wall_off(0)
    }

    /// The time on a clock that is off by so much.
    pub(crate) fn wall_off(&self, skew_ms: i64) -> Timestamp {
        Timestamp::from_millis(EPOCH_MS + i64::try_from(self.now_ms).unwrap_or(i64::MAX) + skew_ms)
    }

    /// A new id.
    pub(crate) fn id<I: Id>(&mut self) -> I {
        I::make(self.wall(), self.rng.wide())
    }

    /// Adds numbers to what tells two runs apart.
    pub(crate) fn digest(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = mix(self.hash.rotate_left(5) ^ number);
        }
    }

    /// Adds bytes to what tells two runs apart.
    pub(crate) fn digest_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let number = chunk.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
            self.hash = mix(self.hash.rotate_left(5) ^ number);
        }
    }

    /// Adds a line to the trace, if there is one.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.trace {
            let ms = self.now_ms;
            self.trace.push(format!("{:>5}.{:03} {}", ms / 1000, ms % 1000, line()));
        }
    }

    /// Something is wrong; only the first complaint counts.
    pub(crate) fn complain(&mut self, text: String) {
        if self.complaint.is_none() {
            self.note(|| format!("COMPLAINT {text}"));
            self.complaint = Some(text);
        }
    }

    /// What the run came to.
    pub(crate) fn report(self, panicked: Option<String>) -> Report {
        Report {
            hash: self.hash,
            counts: self.counts,
            simulated_ms: self.now_ms,
            complaint: panicked.or(self.complaint),
            trace: self.trace,
        }
    }
}
