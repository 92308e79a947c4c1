//! The leader loop as a step function: what is dirty goes in, entries to propose come out.
//!
//! Level-triggered: an event only marks a key; what is to be done follows from the state alone. A new leader marks
//! everything, so that the restart path is the normal path. There is one plan at a time, and nothing is decided until
//! it is applied: the next decision sees what the last one did.

use std::{collections::BTreeMap, time::Duration};

use swarm_core::{Dirty, ENTRY_TXS_MAX, Plan, State, Tx};
use swarm_model::{ServiceId, Timestamp};

/// How long changes are gathered before a decision: a burst (an agent's reports, a scale of many services) shares one
/// plan, and a person does not notice.
pub const DEBOUNCE: Duration = Duration::from_millis(3);

/// Longest pause after plans that fell, one after another: a plan that can never stand must not fill the log.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Bytes of one entry, as far as plans can be cut: one entry must not keep others waiting for its disk write.
const ENTRY_BYTES: usize = 1 << 20;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// This manager leads, and has applied all that earlier leaders committed. The seed makes ids.
    Elected {
        /// Random.
        seed: u64,
    },
    /// It no longer leads.
    Deposed,
    /// These keys changed.
    Changed(Dirty),
    /// All entries of the plan are committed, or the rest of them never will be.
    Proposed {
        /// Log index of the last entry that is known to be committed.
        index: u64,
        /// Whether a transaction fell, or it is not known whether all were committed.
        fallen: bool,
    },
    /// Time went by, or a newer state was published.
    Tick,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Wait for the next input; at this time with a tick.
    Wait {
        /// The next deadline.
        until: Option<Timestamp>,
    },
    /// Propose these entries, one after another, and say so with [`Input::Proposed`].
    Propose(Vec<Vec<Tx>>),
}

/// What plans: [`swarm_core::decide`].
pub type Decide = fn(&State, &Dirty, Timestamp, u64) -> Plan;

/// The leader loop.
#[derive(Debug)]
pub struct LeaderStep {
    decide: Decide,
    leads: bool,
    dirty: Dirty,
    deadlines: BTreeMap<ServiceId, Timestamp>,
    /// What the plan in flight looked at.
    planned: Option<Dirty>,
    /// The state must be this new before the next decision.
    applied_from: u64,
    /// Plans that fell, one after another.
    fallen: u32,
    seed: u64,
    decisions: u64,
    /// When this leadership began.
    led_since: Timestamp,
}

impl LeaderStep {
    /// A manager that does not lead.
    pub fn new(decide: Decide) -> Self {
        Self {
            decide,
            leads: false,
            dirty: Dirty::default(),
            deadlines: BTreeMap::new(),
            planned: None,
            applied_from: 0,
            fallen: 0,
            seed: 0,
            decisions: 0,
            led_since: Timestamp::ZERO,
        }
    }

    /// How long to gather changes before the next step.
    pub fn pause(&self) -> Duration {
        DEBOUNCE.saturating_mul(1 << self.fallen.min(16)).min(BACKOFF_MAX)
    }

    /// How many decisions were made; a settled cluster makes none.
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// One step. `now` is the leader's clock; time is never before the state's.
    pub fn step(&mut self, input: Input, state: &State, now: Timestamp) -> Output {
        match input {
            Input::Elected { seed } => {
                let (dirty, led_since) = (Dirty::everything(), now.max(state.time()));
                *self = Self { leads: true, dirty, seed, led_since, ..Self::new(self.decide) };
            }
            Input::Deposed => *self = Self::new(self.decide),
            Input::Changed(dirty) => merge(&mut self.dirty, dirty),
            Input::Proposed { index, fallen } => {
                let planned = self.planned.take();
                self.applied_from = self.applied_from.max(index);
                if fallen {
                    self.fallen += 1;
                    merge(&mut self.dirty, planned.unwrap_or_default());
                } else {
                    self.fallen = 0;
                }
            }
            Input::Tick => {}
        }
        self.next(state, now.max(state.time()))
    }

    fn next(&mut self, state: &State, now: Timestamp) -> Output {
        if !self.leads || self.planned.is_some() || state.revision() < self.applied_from {
            return Output::Wait { until: None };
        }
        let due: Vec<ServiceId> = self.deadlines.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for service in due {
            self.deadlines.remove(&service);
            self.dirty.services.insert(service);
        }
        if self.dirty.is_empty() {
            return self.wait();
        }
        let mut looked_at = std::mem::take(&mut self.dirty);
        looked_at.led_since = self.led_since;
        self.decisions += 1;
        let Plan { txs, deadlines, services, refused } =
            (self.decide)(state, &looked_at, now, mix(self.seed, self.decisions));
        for (tx, refusal) in &refused {
            tracing::error!(%refusal, guards = ?tx.guards, "a planned change does not apply to its own plan");
        }
        for service in &services {
            self.deadlines.remove(service);
        }
        self.deadlines.extend(deadlines);
        if txs.is_empty() {
            return self.wait();
        }
        let mut planned = looked_at;
        planned.services.extend(services);
        self.planned = Some(planned);
        Output::Propose(entries(txs))
    }

    fn wait(&self) -> Output {
        Output::Wait { until: self.deadlines.values().min().copied() }
    }
}

fn merge(into: &mut Dirty, mut more: Dirty) {
    into.all |= more.all;
    into.room.extend(more.room);
    into.services.append(&mut more.services);
    into.nodes.append(&mut more.nodes);
}

/// Cuts a plan into entries. A transaction that is too large by itself is left to consensus to refuse.
fn entries(txs: Vec<Tx>) -> Vec<Vec<Tx>> {
    let mut entries: Vec<Vec<Tx>> = Vec::new();
    let mut room = 0;
    for tx in txs {
        let bytes = rmp_serde::to_vec_named(&tx).map_or(0, |bytes| bytes.len());
        match entries.last_mut().filter(|entry| entry.len() < ENTRY_TXS_MAX && bytes <= room) {
            Some(entry) => entry.push(tx),
            None => {
                entries.push(vec![tx]);
                room = ENTRY_BYTES;
            }
        }
        room = room.saturating_sub(bytes);
    }
    entries
}

/// A seed for each decision (splitmix64), so that a run can be repeated from the first one.
fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use swarm_core::{NewTask, Op, Place};
    use swarm_model::{Cause, DesiredState, NodeId};

    use super::*;
    use crate::testing::{World, task_id};

    /// Makes the one task that a service lacks; looks again at time 100 while it does not run.
    fn toy(state: &State, dirty: &Dirty, now: Timestamp, seed: u64) -> Plan {
        let _ = seed;
        let mut plan = Plan::default();
        for service in state.services().filter(|service| dirty.all || dirty.services.contains(&service.id)) {
            plan.services.insert(service.id);
            if state.tasks_of_service(service.id).next().is_none() {
                let id = task_id(u32::try_from(service.id.0).expect("small"));
                let tasks = vec![NewTask { id, slot: 1, place: Place::On(NodeId(1)) }];
                plan.txs.push(Tx::new(vec![Op::CreateTasks {
                    service: service.id,
                    spec_version: service.spec_version,
                    desired: DesiredState::Running,
                    cause: Cause::Fill,
                    beside: None,
                    start_at: None,
                    restarts: 0,
                    tasks,
                }]));
            } else if now < Timestamp(100) {
                plan.deadlines.insert(service.id, Timestamp(100));
            }
        }
        plan
    }

    fn changed(services: &[ServiceId]) -> Input {
        Input::Changed(Dirty { services: services.iter().copied().collect(), ..Dirty::default() })
    }

    const IDLE: Output = Output::Wait { until: None };
    const NOW: Timestamp = Timestamp(50);

    fn elected(world: &World) -> (LeaderStep, Output) {
        let mut step = LeaderStep::new(toy);
        let output = step.step(Input::Elected { seed: 1 }, &world.state, NOW);
        (step, output)
    }

    fn commit(world: &mut World, output: Output) -> u64 {
        let Output::Propose(entries) = output else { panic!("nothing proposed: {output:?}") };
        for tx in entries.into_iter().flatten() {
            tx.ops.into_iter().for_each(|op| world.apply(op));
        }
        world.state.revision()
    }

    #[test]
    fn a_follower_decides_nothing() {
        let mut world = World::new(1);
        let service = world.service("web");
        let mut step = LeaderStep::new(toy);
        assert_eq!(step.step(changed(&[service]), &world.state, NOW), IDLE);
        let (mut step, output) = elected(&world);
        assert!(matches!(output, Output::Propose(_)));
        assert_eq!(step.step(Input::Deposed, &world.state, NOW), IDLE);
        assert_eq!(step.step(changed(&[service]), &world.state, NOW), IDLE);
        assert_eq!(step.decisions(), 0);
    }

    #[test]
    fn a_new_leader_looks_at_everything_and_then_rests() {
        let mut world = World::new(1);
        let (a, b) = (world.service("a"), world.service("b"));
        let (mut step, output) = elected(&world);
        let index = commit(&mut world, output);
        // The plan's own events come back and find nothing to do.
        assert_eq!(step.step(changed(&[a, b]), &world.state, NOW), IDLE, "its own plan is not settled yet");
        let wait = Output::Wait { until: Some(Timestamp(100)) };
        assert_eq!(step.step(Input::Proposed { index, fallen: false }, &world.state, NOW), wait);
        assert_eq!(step.decisions(), 2);
        for _ in 0..3 {
            assert_eq!(step.step(Input::Tick, &world.state, NOW), wait);
        }
        assert_eq!(step.decisions(), 2);
        // The deadline is due once.
        assert_eq!(step.step(Input::Tick, &world.state, Timestamp(100)), IDLE);
        assert_eq!(step.step(Input::Tick, &world.state, Timestamp(200)), IDLE);
        assert_eq!(step.decisions(), 3);
    }

    #[test]
    fn nothing_is_decided_before_the_last_plan_is_applied() {
        let mut world = World::new(1);
        let service = world.service("web");
        let (mut step, output) = elected(&world);
        let before = world.state.clone();
        let index = commit(&mut world, output);
        assert_eq!(step.step(Input::Proposed { index, fallen: false }, &before, NOW), IDLE);
        assert_eq!(step.step(changed(&[service]), &before, NOW), IDLE);
        assert_eq!(step.decisions(), 1);
        step.step(Input::Tick, &world.state, NOW);
        assert_eq!(step.decisions(), 2);
    }

    #[test]
    fn what_fell_is_planned_anew_with_growing_pauses() {
        let mut world = World::new(1);
        world.service("web");
        let (mut step, mut output) = elected(&world);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert!(matches!(output, Output::Propose(_)));
            pauses.push(step.pause());
            output = step.step(Input::Proposed { index: 0, fallen: true }, &world.state, NOW);
        }
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], pauses[11]), (DEBOUNCE, BACKOFF_MAX));
        let index = commit(&mut world, output);
        step.step(Input::Proposed { index, fallen: false }, &world.state, NOW);
        assert_eq!(step.pause(), DEBOUNCE);
    }

    #[test]
    fn a_service_that_was_looked_at_keeps_no_old_deadline() {
        let mut world = World::new(1);
        let service = world.service("web");
        world.task(service, 1, NodeId(1));
        let (mut step, output) = elected(&world);
        assert_eq!(output, Output::Wait { until: Some(Timestamp(100)) });
        assert_eq!(step.step(changed(&[service]), &world.state, Timestamp(150)), IDLE);
    }

    #[test]
    fn entries_keep_their_limits_and_their_order() {
        let tx = |n: u32, bytes: usize| {
            Tx::new(vec![Op::PlaceTask { task: task_id(n), place: Place::Pending("x".repeat(bytes).into()) }])
        };
        let many: Vec<Tx> = (0..2_500).map(|n| tx(n, 1)).collect();
        let cut = entries(many.clone());
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [1024, 1024, 452]);
        assert_eq!(cut.concat(), many);
        let large: Vec<Tx> = (0..6).map(|n| tx(n, 400 << 10)).collect();
        let cut = entries(large.clone());
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!(cut.concat(), large);
        assert_eq!(entries(vec![tx(1, 3 << 20), tx(2, 1)]).len(), 2);
    }
}
