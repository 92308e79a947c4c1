//! Which nodes are alive: heartbeat deadlines, on monotonic time, kept by the leader alone.
//!
//! Time is a [`Duration`] since any fixed moment, on a clock that never goes back. Nothing in here reads a clock.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    time::Duration,
};

use swarm_model::NodeId;

/// Heartbeats that may be missed; with the third one missing a node is down (swarm-behaviour §6.1).
pub const HEARTBEATS_MISSED_MAX: u32 = 3;

/// Heartbeats that may be missed while the node's connection stands: its machine answers, only its swarmd stands still
/// (stopped, swapped out, starved), and its containers run. Giving such a node up at once would start them twice.
pub(super) const HEARTBEATS_MISSED_CONNECTED_MAX: u32 = 10;

/// Share of the nodes, in percent, that may expire in one window before evictions wait: when more are silent at once,
/// the network or this manager broke, not the nodes (design §6).
pub const MASS_EXPIRY_PERCENT: usize = 30;

/// Whether so many silent nodes are rather the network's fault. One node alone never is: a cluster of three must survive
/// the loss of one.
pub fn is_mass(silent: usize, all: usize) -> bool {
    silent > 1 && silent * 100 > all * MASS_EXPIRY_PERCENT
}

/// Ticks in one heartbeat period: fine enough that a late tick is told from a late agent.
const TICKS_PER_PERIOD: u32 = 4;

/// Longest time between two ticks, for clusters with long heartbeat periods.
const TICK_MAX: Duration = Duration::from_secs(1);

/// What a tick found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Nodes that are down. They are no longer watched.
    pub down: Vec<NodeId>,
    /// So many nodes are silent at once that none is given up for one more window; said once.
    pub held: Option<usize>,
    /// This process itself stood still for so long; all deadlines moved by as much.
    pub late: Option<Duration>,
}

/// The deadlines of all nodes that are not down.
#[derive(Clone, Debug)]
pub struct Liveness {
    period: Duration,
    deadlines: BTreeMap<NodeId, Duration>,
    /// When the last sign of life came over a connection that stands.
    connected: BTreeMap<NodeId, Duration>,
    /// Those that gave no sign of life since this table began.
    unheard: BTreeSet<NodeId>,
    /// When nodes were given up within the last window.
    given_up: VecDeque<Duration>,
    /// Nothing is given up before this.
    held_until: Option<Duration>,
    last_tick: Duration,
}

impl Liveness {
    /// A new leader's table: every node of the cluster that is not down has to come within the limit for heartbeats.
    pub fn new(period: Duration, nodes: impl IntoIterator<Item = NodeId>, now: Duration) -> Self {
        let mut this = Self {
            period,
            deadlines: BTreeMap::new(),
            connected: BTreeMap::new(),
            unheard: BTreeSet::new(),
            given_up: VecDeque::new(),
            held_until: None,
            last_tick: now,
        };
        for node in nodes {
            this.expect(node, now);
        }
        this
    }

    /// Time between two calls of [`Liveness::tick`].
    pub fn tick_interval(&self) -> Duration {
        (self.period / TICKS_PER_PERIOD).min(TICK_MAX)
    }

    /// The heartbeat period of the cluster changed. Deadlines that run already stay.
    pub fn set_period(&mut self, period: Duration) {
        self.period = period;
    }

    /// Watches a node that has no session yet, unless it is watched already.
    pub fn expect(&mut self, node: NodeId, now: Duration) {
        if let Entry::Vacant(entry) = self.deadlines.entry(node) {
            entry.insert(now + self.period * HEARTBEATS_MISSED_MAX);
            self.unheard.insert(node);
        }
    }

    /// The nodes that gave no sign of life yet, and of how many that are watched.
    pub fn unheard(&self) -> (&BTreeSet<NodeId>, usize) {
        (&self.unheard, self.deadlines.len())
    }

    /// A sign of life, over a connection that stands.
    pub fn beat(&mut self, node: NodeId, now: Duration) {
        self.deadlines.insert(node, now + self.period * HEARTBEATS_MISSED_CONNECTED_MAX);
        self.unheard.remove(&node);
        self.connected.insert(node, now);
    }

    /// The connection of a node ended. It may come back until three heartbeats are missing.
    pub fn disconnect(&mut self, node: NodeId) {
        if let (Some(last), Some(deadline)) = (self.connected.remove(&node), self.deadlines.get(&node)) {
            let deadline = (*deadline).min(last + self.window());
            self.deadlines.insert(node, deadline);
        }
    }

    /// Stops watching a node that left.
    pub fn forget(&mut self, node: NodeId) {
        self.deadlines.remove(&node);
        self.connected.remove(&node);
        self.unheard.remove(&node);
    }

    /// Stops watching all nodes but those that are to be kept.
    pub fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.deadlines.retain(|node, _| keep(*node));
        self.connected.retain(|node, _| keep(*node));
        self.unheard.retain(|node| keep(*node));
    }

    /// Finds the nodes that are down. To be called every [`Liveness::tick_interval`]: a call that comes later than
    /// that proves that this process stood still, and then heartbeats may wait unread, so that no node is to blame.
    pub fn tick(&mut self, now: Duration) -> Tick {
        let interval = self.tick_interval();
        let slept = now.saturating_sub(self.last_tick);
        self.last_tick = now;
        let mut tick = Tick::default();
        if slept > interval * 2 {
            let late = slept - interval;
            self.shift(late);
            tick.late = Some(late);
        }

        let window = self.window();
        while self.given_up.front().is_some_and(|at| *at + window <= now) {
            self.given_up.pop_front();
        }
        let expired: Vec<NodeId> = self.deadlines.iter().filter(|(_, at)| **at <= now).map(|(node, _)| *node).collect();
        if expired.is_empty() {
            self.held_until = self.held_until.filter(|until| *until > now);
            return tick;
        }
        match self.held_until {
            Some(until) if now < until => return tick,
            Some(_) => {}
            None => {
                let silent = expired.len() + self.given_up.len();
                let all = self.deadlines.len() + self.given_up.len();
                if is_mass(silent, all) {
                    self.held_until = Some(now + window);
                    tick.held = Some(silent);
                    return tick;
                }
            }
        }
        for node in &expired {
            self.forget(*node);
            self.given_up.push_back(now);
        }
        tick.down = expired;
        tick
    }

    /// How long a node without a connection may be silent.
    fn window(&self) -> Duration {
        self.period * HEARTBEATS_MISSED_MAX
    }

    fn shift(&mut self, by: Duration) {
        for at in self
            .deadlines
            .values_mut()
            .chain(self.connected.values_mut())
            .chain(&mut self.given_up)
            .chain(&mut self.held_until)
        {
            *at += by;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn node(n: u128) -> NodeId {
        NodeId(n)
    }

    /// A table whose nodes have all just sent a heartbeat at time 0.
    fn beating(nodes: u128) -> Liveness {
        let mut table = Liveness::new(PERIOD, (1..=nodes).map(node), ms(0));
        for n in 1..=nodes {
            beat(&mut table, n, 0);
        }
        table
    }

    /// A heartbeat over a connection that ends right after it.
    fn beat(table: &mut Liveness, n: u128, at: u64) {
        table.beat(node(n), ms(at));
        table.disconnect(node(n));
    }

    type Downs = Vec<(u64, NodeId)>;
    type Holds = Vec<(u64, usize)>;

    /// Ticks on time up to `to`, with heartbeats of `alive` all the while. Returns who went down when, and holds.
    fn run(table: &mut Liveness, from: u64, to: u64, alive: &[u128]) -> (Downs, Holds) {
        let (mut down, mut held) = (Vec::new(), Vec::new());
        let step = u64::try_from(table.tick_interval().as_millis()).expect("short");
        let mut at = from + step;
        while at <= to {
            for n in alive {
                beat(table, *n, at);
            }
            let tick = table.tick(ms(at));
            assert_eq!(tick.late, None);
            down.extend(tick.down.into_iter().map(|n| (at, n)));
            held.extend(tick.held.map(|n| (at, n)));
            at += step;
        }
        (down, held)
    }

    #[test]
    fn three_missed_heartbeats_mean_down_and_only_once() {
        let mut table = beating(10);
        let (down, held) = run(&mut table, 0, 30_000, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((down, held), (vec![(6_000, node(10))], vec![]));
    }

    #[test]
    fn small_clusters_lose_one_node_without_waiting() {
        for size in [1, 2, 3] {
            let alive: Vec<u128> = (2..=size).collect();
            let (down, held) = run(&mut beating(size), 0, 7_000, &alive);
            assert_eq!((down, held), (vec![(6_000, node(1))], vec![]), "{size} nodes");
        }
    }

    #[test]
    fn a_mass_expiry_waits_one_more_window_and_then_counts() {
        let mut table = beating(10);
        let (down, held) = run(&mut table, 0, 20_000, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(held, vec![(6_000, 4)]);
        assert_eq!(down, [7, 8, 9, 10].map(|n| (12_000, node(n))));
    }

    #[test]
    fn thirty_percent_is_not_yet_a_mass() {
        let (down, held) = run(&mut beating(10), 0, 7_000, &[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(down.len(), 3);
        assert_eq!(held, vec![]);
    }

    #[test]
    fn expiries_of_one_window_are_counted_together() {
        let mut table = beating(10);
        // One node after another falls silent, half a second apart.
        for n in 1..=5_u128 {
            beat(&mut table, n, 500 * u64::try_from(n).expect("small"));
        }
        let (down, held) = run(&mut table, 0, 9_000, &[6, 7, 8, 9, 10]);
        assert_eq!(down.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [node(1), node(2), node(3)]);
        assert_eq!(held, vec![(8_000, 4)]);
    }

    #[test]
    fn nodes_that_come_back_during_the_hold_are_not_given_up() {
        let mut table = beating(4);
        let (_, held) = run(&mut table, 0, 8_000, &[]);
        assert_eq!(held, vec![(6_000, 4)]);
        let (down, held) = run(&mut table, 8_000, 40_000, &[1, 2, 3, 4]);
        assert_eq!((down, held), (vec![], vec![]));
        // The hold is over: the next loss of one node is noticed as ever.
        let (down, held) = run(&mut table, 40_000, 47_000, &[1, 2, 3]);
        assert_eq!((down, held), (vec![(46_000, node(4))], vec![]));
    }

    #[test]
    fn a_leader_that_stood_still_blames_nobody() {
        let mut table = beating(3);
        run(&mut table, 0, 1_000, &[1, 2, 3]);
        // SIGSTOP for 10 s, then SIGCONT; heartbeats are read only after the tick.
        let tick = table.tick(ms(11_500));
        assert_eq!(tick, Tick { down: vec![], held: None, late: Some(ms(10_500 - 500)) });
        let (down, held) = run(&mut table, 11_500, 60_000, &[1, 2, 3]);
        assert_eq!((down, held), (vec![], vec![]));
    }

    #[test]
    fn a_node_that_died_while_the_leader_stood_still_is_noticed_after_it() {
        let mut table = beating(3);
        table.tick(ms(10_000));
        let (down, _) = run(&mut table, 10_000, 30_000, &[1, 2]);
        assert_eq!(down, vec![(15_500, node(3))]);
    }

    #[test]
    fn a_new_leader_gives_nodes_the_limit_for_heartbeats_to_come() {
        for (period, limit) in [(PERIOD, 6_000), (Duration::from_secs(5), 15_000)] {
            let mut table = Liveness::new(period, (1..=10).map(node), ms(0));
            assert_eq!(table.unheard(), (&(1..=10).map(node).collect(), 10));
            let (down, held) = run(&mut table, 0, 60_000, &[2, 3, 4, 5, 6, 7, 8, 9, 10]);
            assert_eq!((down, held), (vec![(limit, node(1))], vec![]));
            assert_eq!(table.unheard(), (&BTreeSet::new(), 9));
        }
    }

    #[test]
    fn a_new_leader_that_hears_from_few_nodes_waits_one_more_window() {
        let mut table = Liveness::new(PERIOD, (1..=10).map(node), ms(0));
        let (down, held) = run(&mut table, 0, 8_000, &[1, 2, 3]);
        assert_eq!((down, held), (vec![], vec![(6_000, 7)]));
        let (down, held) = run(&mut table, 8_000, 30_000, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((down, held), (vec![(12_000, node(10))], vec![]));
    }

    #[test]
    fn forgotten_nodes_do_not_expire_and_expected_ones_keep_their_deadline() {
        let mut table = beating(2);
        table.forget(node(1));
        table.expect(node(2), ms(5_000));
        let (down, _) = run(&mut table, 0, 30_000, &[]);
        assert_eq!(down, vec![(6_000, node(2))]);
    }

    proptest! {
        /// However ticks are delayed, a node that sends its heartbeats in time by the leader's own clock is never down.
        #[test]
        fn who_beats_before_each_tick_is_never_down(steps in prop::collection::vec((0_u64..30_000, prop::bool::ANY), 1..60)) {
            let mut table = beating(5);
            let mut now = 0;
            for (pause, beat_first) in steps {
                now += pause;
                if beat_first {
                    (1..=5).for_each(|n| table.beat(node(n), ms(now)));
                }
                let tick = table.tick(ms(now));
                prop_assert!(tick.down.is_empty());
                (1..=5).for_each(|n| table.beat(node(n), ms(now)));
            }
        }
    }
}
