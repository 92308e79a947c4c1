//! The leader loop as a step function: what is dirty goes in, entries to propose come out.
//!
//! Level-triggered: an event only marks a key; what is to be done follows from the state alone. A new leader marks
//! everything, so that the restart path is the normal path. There is one piece of a plan at a time, and nothing is decided
//! until it is applied: the next decision sees what the last one did. What a piece leaves has its turn behind what else is
//! dirty.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use swarm_core::{Context, Dirty, ENTRY_TXS_MAX, PIECE_CHANGES_MAX, Plan, State, Tx};
use swarm_model::{Availability, Node, NodeId, NodeState, ServiceId, Timestamp};

use crate::dispatcher::is_mass;

/// How long changes are gathered before a decision: a burst (an agent's reports, a scale of many services) shares one
/// plan, and a person does not notice.
pub const DEBOUNCE: Duration = Duration::from_millis(3);

/// Longest pause after plans that fell, one after another: a plan that can never stand must not fill the log.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long a new leader listens at most before it decides: agents that lost the one before come within a second, and
/// those that do not may have died with it. It does not wait longer than for all of them.
pub const LISTEN_MAX: Duration = Duration::from_secs(1);

/// How long a node that comes is kept from tasks that wait for one: others that come in the same moment (a person activates
/// several, a rack has power again) share the tasks with it, which would all land on the first one.
const GATHER: Duration = Duration::from_millis(500);

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
pub type Decide = fn(&State, &Dirty, &Context) -> Plan;

/// The leader loop.
#[derive(Debug)]
pub struct LeaderStep {
    decide: Decide,
    leads: bool,
    dirty: Dirty,
    deadlines: BTreeMap<ServiceId, Timestamp>,
    /// What the piece in flight looked at.
    planned: Option<Dirty>,
    /// Nodes that this leader has not heard from, and how many it expects to hear from.
    unheard: Arc<BTreeSet<NodeId>>,
    nodes: usize,
    /// Nothing is decided before this, unless all nodes were heard from.
    listens_until: Option<Timestamp>,
    /// Nodes that came, and until when tasks that wait are kept from them.
    coming: BTreeSet<NodeId>,
    gathers_until: Option<Timestamp>,
    /// Changes of tasks in one piece.
    changes_max: usize,
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
            unheard: Arc::default(),
            nodes: 0,
            listens_until: None,
            coming: BTreeSet::new(),
            gathers_until: None,
            changes_max: PIECE_CHANGES_MAX,
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

    /// Pieces of so many changes; for tests.
    #[must_use]
    pub fn with_changes_max(mut self, changes_max: usize) -> Self {
        self.changes_max = changes_max;
        self
    }

    /// Whether the last piece left something, with which the next step goes on. What else is dirty by then is to be
    /// [marked](Self::mark) first.
    pub fn is_unfinished(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Notes what is dirty, for the next step.
    pub fn mark(&mut self, dirty: Dirty) {
        self.dirty.merge(dirty);
    }

    /// Notes which nodes this leader has not heard from, of so many that are not down.
    pub fn hear(&mut self, unheard: BTreeSet<NodeId>, nodes: usize) {
        self.nodes = nodes;
        if *self.unheard != unheard {
            self.unheard = Arc::new(unheard);
        }
    }

    /// One step. `now` is the leader's clock; time is never before the state's.
    pub fn step(&mut self, input: Input, state: &State, now: Timestamp) -> Output {
        match input {
            Input::Elected { seed } => {
                let (dirty, led_since) = (Dirty::everything(), now.max(state.time()));
                let listens_until = Some(led_since.plus_ns(LISTEN_MAX.as_nanos() as i64));
                let (unheard, nodes) = (self.unheard.clone(), self.nodes);
                let afresh = Self::new(self.decide).with_changes_max(self.changes_max);
                *self = Self { leads: true, dirty, seed, led_since, listens_until, unheard, nodes, ..afresh };
            }
            Input::Deposed => *self = Self::new(self.decide).with_changes_max(self.changes_max),
            Input::Changed(dirty) => self.mark(dirty),
            Input::Proposed { index, fallen } => {
                let planned = self.planned.take();
                self.applied_from = self.applied_from.max(index);
                if fallen {
                    self.fallen += 1;
                    self.mark(planned.unwrap_or_default());
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
        if let Some(until) = self.listens_until.filter(|until| *until > now && !self.unheard.is_empty()) {
            return Output::Wait { until: Some(until) };
        }
        self.listens_until = None;
        let due: Vec<ServiceId> = self.deadlines.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for service in due {
            self.deadlines.remove(&service);
            self.dirty.services.insert(service);
        }
        self.gather(state, now);
        if self.dirty.is_empty() {
            return self.wait();
        }
        let looked_at = std::mem::take(&mut self.dirty);
        self.decisions += 1;
        // Where most are missing, to prefer the others would heap all tasks on a few.
        let knows_little = is_mass(self.unheard.len(), self.nodes);
        let context = Context {
            now,
            seed: mix(self.seed, self.decisions),
            led_since: self.led_since,
            unheard: if knows_little { Arc::default() } else { self.unheard.clone() },
            changes_max: self.changes_max,
        };
        let plan = (self.decide)(state, &looked_at, &context);
        plan.renew(&mut self.deadlines);
        let Plan { txs, services, nodes, unfinished, refused, .. } = plan;
        for (tx, refusal) in &refused {
            tracing::error!(%refusal, guards = ?tx.guards, "a planned change does not apply to its own plan");
        }
        self.dirty = unfinished;
        if txs.is_empty() {
            // What was cut goes on at once.
            return if self.is_unfinished() { Output::Wait { until: Some(now) } } else { self.wait() };
        }
        self.planned = Some(Dirty { services, nodes, ..Dirty::default() });
        Output::Propose(entries(txs))
    }

    /// Takes nodes that come out of what is dirty for a moment, if tasks wait for a node.
    fn gather(&mut self, state: &State, now: Timestamp) {
        let Dirty { all, nodes, room, .. } = &mut self.dirty;
        let is_over = *all
            || self.gathers_until.is_some_and(|until| until <= now)
            || state.services_with_pending().next().is_none();
        if is_over {
            self.gathers_until = None;
            nodes.extend(&self.coming);
            room.append(&mut self.coming);
            return;
        }
        // A node that only has more room has not changed itself.
        let comes = |id: &NodeId| room.contains(id) && state.node(*id).is_some_and(takes_tasks);
        self.coming.extend(nodes.extract_if(.., |id| comes(id)));
        room.retain(|id| !self.coming.contains(id));
        if !self.coming.is_empty() {
            self.gathers_until.get_or_insert(now.plus_ns(GATHER.as_nanos() as i64));
        }
    }

    fn wait(&self) -> Output {
        Output::Wait { until: self.deadlines.values().copied().chain(self.gathers_until).min() }
    }
}

fn takes_tasks(node: &Arc<Node>) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
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
    use swarm_model::{Cause, DesiredState, NodeSpec, ServiceMode, ServiceSpec};

    use super::*;
    use crate::testing::{World, task_id};

    /// Makes the one task that a service lacks; looks again at time 100 while it does not run.
    fn toy(state: &State, dirty: &Dirty, context: &Context) -> Plan {
        let mut plan = Plan::default();
        for service in state.services().filter(|service| dirty.all || dirty.services.contains(&service.id)) {
            plan.services.insert(service.id);
            if state.tasks_of_service(service.id).next().is_none() {
                let id = task_id(u32::try_from(service.id.0).expect("small"));
                let tasks = vec![NewTask { id, slot: 1, place: Place::On(NodeId(1)), addrs: Default::default() }];
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
            } else if context.now < Timestamp(100) {
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
    fn what_a_piece_leaves_comes_behind_what_else_is_dirty_and_one_is_in_flight() {
        let replicas = |n: u64| move |spec: &mut ServiceSpec| spec.mode = ServiceMode::Replicated { replicas: n };
        let mut world = World::new(2);
        let big = world.service_with("big", replicas(95));
        let mut step = LeaderStep::new(swarm_core::decide).with_changes_max(10);
        let mut output = step.step(Input::Elected { seed: 1 }, &world.state, NOW);
        let mut made = Vec::new();
        while let Output::Propose(_) = output {
            assert_eq!(step.step(changed(&[big]), &world.state, NOW), IDLE, "a piece is in flight");
            let index = commit(&mut world, output);
            made.push(world.state.tasks_of_service(big).count());
            if made.len() == 2 {
                let small = world.service_with("small", replicas(3));
                assert!(step.is_unfinished());
                step.mark(Dirty { services: [small].into(), ..Dirty::default() });
            }
            output = step.step(Input::Proposed { index, fallen: false }, &world.state, NOW);
        }
        // What was made has its look as well, a part of it in a piece.
        while step.is_unfinished() {
            assert_eq!(output, Output::Wait { until: Some(NOW) });
            output = step.step(Input::Tick, &world.state, NOW);
        }
        assert_eq!(output, IDLE);
        assert_eq!(made, [10, 20, 27, 37, 47, 57, 67, 77, 87, 95]);
        assert_eq!(world.state.tasks().count(), 98);
    }

    #[test]
    fn a_piece_that_fell_is_decided_anew_and_the_rest_goes_on() {
        let mut world = World::new(2);
        for name in ["a", "b", "c"] {
            world.service_with(name, |spec| spec.mode = ServiceMode::Replicated { replicas: 4 });
        }
        let mut step = LeaderStep::new(swarm_core::decide).with_changes_max(4);
        let mut output = step.step(Input::Elected { seed: 1 }, &world.state, NOW);
        let mut fell = 0;
        while let Output::Propose(_) = output {
            if fell < 2 {
                fell += 1;
                output = step.step(Input::Proposed { index: 0, fallen: true }, &world.state, NOW);
            } else {
                let index = commit(&mut world, output);
                output = step.step(Input::Proposed { index, fallen: false }, &world.state, NOW);
            }
        }
        assert_eq!(world.state.tasks().count(), 12);
    }

    /// Looks again at a time that says of how many nodes it was told that nobody heard of them.
    fn listener(_: &State, _: &Dirty, context: &Context) -> Plan {
        let at = Timestamp(1_000_000_000_000 + context.unheard.len() as i64);
        Plan { deadlines: [(ServiceId(1), at)].into(), ..Plan::default() }
    }

    #[test]
    fn a_new_leader_listens_before_it_decides_and_no_longer_than_for_all_nodes() {
        let nodes = |nodes: std::ops::RangeInclusive<u128>| nodes.map(NodeId).collect::<BTreeSet<_>>();
        let world = World::new(1);
        let decided = |unheard: i64| Output::Wait { until: Some(Timestamp(1_000_000_000_000 + unheard)) };
        let began = || {
            let mut step = LeaderStep::new(listener);
            step.hear(nodes(1..=10), 10);
            let until = NOW.plus_ns(LISTEN_MAX.as_nanos() as i64);
            assert_eq!(step.step(Input::Elected { seed: 1 }, &world.state, NOW), Output::Wait { until: Some(until) });
            step.hear(nodes(1..=2), 10);
            assert_eq!(step.step(changed(&[]), &world.state, NOW), Output::Wait { until: Some(until) });
            (step, until)
        };
        let (mut step, _) = began();
        step.hear(BTreeSet::new(), 10);
        assert_eq!(step.step(Input::Tick, &world.state, NOW), decided(0));

        // Two that are missing may have died with the leader before.
        let (mut step, until) = began();
        assert_eq!(step.step(Input::Tick, &world.state, until), decided(2));

        // So many are rather late, or cut off: the others are not to get all tasks.
        let (mut step, until) = began();
        step.hear(nodes(1..=7), 10);
        assert_eq!(step.step(Input::Tick, &world.state, until), decided(0));
    }

    #[test]
    fn tasks_that_wait_spread_over_nodes_that_come_in_the_same_moment() {
        let mut world = World::new(3);
        let set = |world: &mut World, availability| {
            for node in [NodeId(1), NodeId(2), NodeId(3)] {
                let mut spec = NodeSpec::clone(&world.state.node(node).expect("it is there").spec);
                spec.availability = availability;
                world.apply(Op::UpdateNode { node, spec: spec.into(), drain_deadline: None });
            }
        };
        set(&mut world, Availability::Pause);
        let service = world.service_with("web", |spec| spec.mode = ServiceMode::Replicated { replicas: 6 });
        let mut step = LeaderStep::new(swarm_core::decide);
        let output = step.step(Input::Elected { seed: 1 }, &world.state, NOW);
        let index = commit(&mut world, output);
        step.step(Input::Proposed { index, fallen: false }, &world.state, NOW);
        assert_eq!(world.state.pending_of_service(service).count(), 6);

        set(&mut world, Availability::Active);
        let until = NOW.max(world.state.time()).plus_ns(GATHER.as_nanos() as i64);
        for node in [NodeId(1), NodeId(2), NodeId(3)] {
            let dirty = Dirty { nodes: [node].into(), room: [node].into(), ..Dirty::default() };
            let waits = Output::Wait { until: Some(until) };
            assert_eq!(step.step(Input::Changed(dirty), &world.state, NOW), waits, "others may come");
        }
        let output = step.step(Input::Tick, &world.state, until);
        commit(&mut world, output);
        let on = |node: u128| world.state.tasks_of_node(NodeId(node)).count();
        assert_eq!([on(1), on(2), on(3)], [2, 2, 2]);
    }

    #[test]
    fn entries_keep_their_limits_and_their_order() {
        let tx = |n: u32, bytes: usize| {
            Tx::new(vec![Op::PlaceTask {
                task: task_id(n),
                place: Place::Pending("x".repeat(bytes).into()),
                addrs: Default::default(),
            }])
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
