//! Two machines with one node id, as a virtual machine and its clone have.
//!
//! Each takes the place of the other's session, and both come back at once. Which of them is right cannot be told from
//! here. So the one whose session stands when this is noticed keeps it for as long as it stands, and the others wait: the
//! node's tasks stay where they are, and its description stays what it is.
//!
//! A machine that comes back from another address, or starts its swarmd anew, is no second machine: it takes the place of
//! what it was before, and that never comes again.
//!
//! Time is a [`Duration`] since any fixed moment, on a clock that never goes back. Nothing in here reads a clock.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use swarm_model::NodeId;

/// Machines come with one id when some that were replaced before took the place of others so often. Once may be a
/// connection whose end was not noticed, of a machine with two addresses.
const RETURNS_MIN: u32 = 2;

/// In so much time. A replaced agent comes back within two seconds. One machine that moves between two addresses notices
/// only by two heartbeats without an answer, each time, that its connection is lost.
const WINDOW: Duration = Duration::from_secs(10);

/// It is over when no second machine came for so long. One that is kept waiting comes every ten seconds or so.
pub const QUIET: Duration = Duration::from_secs(60);

/// Machines that are remembered of one node.
const MACHINES_MAX: usize = 8;

/// What tells machines apart that come as one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine {
    /// Its address, as seen from here.
    pub ip: IpAddr,
    /// Its host name.
    pub hostname: String,
    /// The number of its agent's run; an agent of version 0.1.0 says none.
    pub run: Option<u64>,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.ip, self.hostname)
    }
}

/// What is to become of a session that wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes its place.
    Enter,
    /// It waits until the one that is there has ended.
    Wait {
        /// Whether this was noticed just now.
        is_news: bool,
    },
}

/// The nodes whose sessions machines take from each other.
#[derive(Clone, Debug, Default)]
pub struct Twins {
    nodes: BTreeMap<NodeId, Case>,
}

#[derive(Clone, Debug)]
struct Case {
    /// All that came, each once.
    machines: Vec<Machine>,
    /// How often one that had come before took the place of another one.
    returns: u32,
    noticed: bool,
    began: Duration,
    /// When one came last while another had the session.
    last: Duration,
}

impl Twins {
    /// A machine comes as a node, while `holder` has the node's session, if any has.
    pub fn come(&mut self, node: NodeId, comes: &Machine, holder: Option<&Machine>, now: Duration) -> Verdict {
        let Some(holder) = holder.filter(|holder| *holder != comes) else { return Verdict::Enter };
        let case = self.nodes.entry(node).or_insert_with(|| Case::new(holder, now));
        // One that was noticed ends in `settle`, which says of which node.
        if !case.noticed && case.is_over(now) {
            *case = Case::new(holder, now);
        }
        case.last = now;
        if case.machines.contains(comes) {
            case.returns += 1;
        } else if case.machines.len() < MACHINES_MAX {
            case.machines.push(comes.clone());
        }
        if !case.noticed && case.returns < RETURNS_MIN {
            return Verdict::Enter;
        }
        Verdict::Wait { is_news: !std::mem::replace(&mut case.noticed, true) }
    }

    /// What people are to know of a node: which machines have its id, and what to do.
    pub fn word(&self, node: NodeId) -> Option<String> {
        let case = self.nodes.get(&node).filter(|case| case.noticed)?;
        let mut machines = case.machines.clone();
        // The same word, whichever came first.
        machines.sort();
        let machines: Vec<String> = machines.iter().map(Machine::to_string).collect();
        Some(format!(
            "{} machines have this node's id, as after a virtual machine was cloned: {}; on all of them but one use \
             `swarm leave --force`, and join it anew",
            machines.len(),
            machines.join(", ")
        ))
    }

    /// Forgets what is over. Returns the nodes that are those of one machine again.
    pub fn settle(&mut self, now: Duration) -> Vec<NodeId> {
        let over: Vec<NodeId> =
            self.nodes.iter().filter(|(_, case)| case.is_over(now)).map(|(node, _)| *node).collect();
        over.into_iter().filter(|node| self.nodes.remove(node).is_some_and(|case| case.noticed)).collect()
    }
}

impl Case {
    fn new(holder: &Machine, now: Duration) -> Self {
        Self { machines: vec![holder.clone()], returns: 0, noticed: false, began: now, last: now }
    }

    fn is_over(&self, now: Duration) -> bool {
        if self.noticed { now.saturating_sub(self.last) >= QUIET } else { now.saturating_sub(self.began) >= WINDOW }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: NodeId = NodeId(1);

    fn machine(ip: u8, run: u64) -> Machine {
        Machine { ip: IpAddr::from([10, 0, 0, ip]), hostname: format!("host{ip}"), run: (run > 0).then_some(run) }
    }

    /// Machines that come in turn, each a second after the one before. Returns who has the session after each.
    fn holders(twins: &mut Twins, order: &[&Machine]) -> Vec<Machine> {
        let mut holder: Option<Machine> = None;
        let mut all = Vec::new();
        for (second, comes) in (0..).zip(order) {
            if twins.come(NODE, comes, holder.as_ref(), Duration::from_secs(second)) == Verdict::Enter {
                holder = Some((*comes).clone());
            }
            all.extend(holder.clone());
        }
        all
    }

    #[test]
    fn of_two_that_come_in_turn_one_stays_and_both_are_named() {
        for (a, b) in [(machine(5, 1), machine(6, 2)), (machine(5, 0), machine(6, 0)), (machine(5, 1), machine(5, 2))] {
            let mut twins = Twins::default();
            let all = holders(&mut twins, &[&a, &b, &a, &b, &b, &a, &b]);
            assert_eq!(all[2..], [&a, &a, &a, &a, &a].map(Clone::clone), "the session that stands stays");
            let word = twins.word(NODE).unwrap();
            assert!(word.contains(&a.to_string()) && word.contains(&b.to_string()), "{word}");
            assert!(word.contains("swarm leave --force"), "{word}");
        }
    }

    #[test]
    fn it_is_said_once_and_over_when_only_one_comes() {
        let (a, b) = (machine(5, 1), machine(6, 2));
        let mut twins = Twins::default();
        holders(&mut twins, &[&a, &b, &a]);
        let at = Duration::from_secs;
        assert_eq!(twins.come(NODE, &b, Some(&a), at(3)), Verdict::Wait { is_news: true });
        assert_eq!(twins.come(NODE, &b, Some(&a), at(13)), Verdict::Wait { is_news: false });
        assert_eq!(twins.come(NODE, &a, Some(&a), at(20)), Verdict::Enter, "the one that is there may come again");
        assert_eq!(twins.come(NODE, &b, None, at(30)), Verdict::Enter, "nobody is there");
        assert_eq!(twins.settle(at(30)), []);
        assert_eq!(twins.settle(at(13) + QUIET), [NODE]);
        assert_eq!(twins.word(NODE), None);
        assert_eq!(twins.settle(at(14) + QUIET), []);
    }

    #[test]
    fn three_of_them_are_named_as_well() {
        let all = [machine(5, 1), machine(6, 2), machine(7, 3)];
        let mut twins = Twins::default();
        holders(&mut twins, &[&all[0], &all[1], &all[2], &all[0], &all[1]]);
        assert!(twins.word(NODE).unwrap().starts_with("3 machines"), "{:?}", twins.word(NODE));
    }

    #[test]
    fn a_machine_whose_connection_is_lost_again_and_again_between_two_addresses_is_no_twin() {
        let (a, b) = (machine(5, 1), machine(6, 1));
        // Two heartbeats without an answer, with the period that a swarm has by itself.
        for pause in [Duration::from_millis(6250), Duration::from_secs(60)] {
            let mut twins = Twins::default();
            let mut holder = a.clone();
            for time in 0..100 {
                let comes = if time % 2 == 0 { &b } else { &a };
                let verdict = twins.come(NODE, comes, Some(&holder), pause * time);
                assert_eq!(verdict, Verdict::Enter, "time {time}");
                holder = comes.clone();
            }
            assert!(twins.settle(pause * 101).is_empty() && twins.nodes.is_empty());
        }
    }

    #[test]
    fn machines_that_were_noticed_stay_so_until_it_is_said_that_it_is_over() {
        let (a, b) = (machine(5, 1), machine(6, 2));
        let mut twins = Twins::default();
        holders(&mut twins, &[&a, &b, &a, &b]);
        let late = Duration::from_secs(4) + QUIET;
        assert_eq!(twins.come(NODE, &b, Some(&a), late), Verdict::Wait { is_news: false });
        assert_eq!(twins.settle(late), []);
        assert_eq!(twins.settle(late + QUIET), [NODE]);
    }

    proptest! {
        /// A machine that starts anew, or moves to other addresses, is one machine, however often: it is never again
        /// what it was.
        #[test]
        fn one_machine_that_changes_is_no_twin(moves in prop::collection::vec((any::<bool>(), 0_u64..5), 1..100)) {
            let mut twins = Twins::default();
            let (mut run, mut ip, mut now) = (1, 1, 0);
            let mut holder = None;
            for (restarts, wait) in moves {
                if restarts { run += 1 } else { ip += 1 }
                now += wait;
                let comes = machine(ip, run);
                prop_assert_eq!(twins.come(NODE, &comes, holder.as_ref(), Duration::from_secs(now)), Verdict::Enter);
                holder = Some(comes);
            }
            prop_assert_eq!(twins.word(NODE), None);
        }
    }
}
