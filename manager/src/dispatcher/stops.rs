//! When a task that serves is told to stop: after each node has taken it out of its balance.
//!
//! The wait has a bound, so that a node that does not answer holds nothing up for long. Acknowledgements are in the memory
//! of the leader: a new one knows none, and waits anew, no longer than the bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use swarm_model::{NodeId, TaskId, mutant::mutant};

/// Longest wait for the acknowledgements of other nodes (data-plane §7).
pub const WAIT_MAX: Duration = Duration::from_secs(2);

/// The acknowledgements, and the tasks whose stop waits for them. Times are counted from any moment.
#[derive(Debug, Default)]
pub struct Stops {
    /// The revision of the table that each node with a session goes by; 0 until it said one.
    acknowledged: BTreeMap<NodeId, u64>,
    /// The same, the lowest first.
    lowest: BTreeSet<(u64, NodeId)>,
    /// When the stop of a task was asked for first.
    asked: BTreeMap<TaskId, Duration>,
}

impl Stops {
    /// A node goes by the table of this revision.
    pub fn acknowledge(&mut self, node: NodeId, revision: u64) {
        self.forget(node);
        self.acknowledged.insert(node, revision);
        self.lowest.insert((revision, node));
    }

    /// A node has no session any more, or no data plane: it is not waited for.
    pub fn forget(&mut self, node: NodeId) {
        if let Some(revision) = self.acknowledged.remove(&node) {
            self.lowest.remove(&(revision, node));
        }
    }

    /// The revision that all nodes go by; none without a node.
    pub fn lowest(&self) -> Option<u64> {
        self.lowest.first().map(|(revision, _)| *revision)
    }

    /// Whether the stop of a task may be sent that left the balance at a revision. `all_are_here` says whether each node that
    /// is not down has been heard of by this leader.
    ///
    /// # Errors
    /// The time until which it waits at most.
    pub fn may_stop(&mut self, task: TaskId, left_at: u64, all_are_here: bool, now: Duration) -> Result<(), Duration> {
        let until = *self.asked.entry(task).or_insert(now) + WAIT_MAX;
        let is_everywhere = all_are_here && self.lowest().is_none_or(|lowest| lowest >= left_at);
        let is_everywhere = is_everywhere || mutant("stop-before-ack");
        if now < until && !is_everywhere {
            return Err(until);
        }
        self.asked.remove(&task);
        Ok(())
    }

    /// Forgets when a stop was asked for of tasks that are not to stop any more.
    pub fn retain(&mut self, is_stopping: impl Fn(TaskId) -> bool) {
        self.asked.retain(|task, _| is_stopping(*task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId(1);
    const AT: Duration = Duration::from_secs(100);

    #[test]
    fn a_stop_waits_for_all_nodes_that_have_a_session() {
        let mut stops = Stops::default();
        assert_eq!(stops.may_stop(TASK, 7, true, AT), Ok(()), "nobody sends connections");
        stops.acknowledge(NodeId(1), 7);
        stops.acknowledge(NodeId(2), 6);
        assert_eq!(stops.may_stop(TASK, 7, true, AT), Err(AT + WAIT_MAX));
        stops.acknowledge(NodeId(2), 8);
        assert_eq!(stops.may_stop(TASK, 7, true, AT), Ok(()));
        stops.acknowledge(NodeId(3), 0);
        assert_eq!(stops.may_stop(TASK, 7, true, AT), Err(AT + WAIT_MAX));
        stops.forget(NodeId(3));
        assert_eq!(stops.may_stop(TASK, 7, false, AT), Err(AT + WAIT_MAX), "a node may come that sends it connections");
        assert_eq!(stops.may_stop(TASK, 7, true, AT), Ok(()));
        assert_eq!(stops.lowest(), Some(7));
    }

    #[test]
    fn a_stop_waits_no_longer_than_the_bound() {
        let mut stops = Stops::default();
        stops.acknowledge(NodeId(1), 6);
        assert_eq!(stops.may_stop(TASK, 7, true, AT), Err(AT + WAIT_MAX));
        assert_eq!(stops.may_stop(TASK, 7, true, AT + WAIT_MAX / 2), Err(AT + WAIT_MAX), "counted from the first time");
        assert_eq!(stops.may_stop(TASK, 7, true, AT + WAIT_MAX), Ok(()));
        let later = AT + WAIT_MAX;
        assert_eq!(
            stops.may_stop(TASK, 7, true, later),
            Err(later + WAIT_MAX),
            "nothing is kept of a stop that was sent"
        );
        stops.retain(|task| task != TASK);
        assert!(stops.asked.is_empty());
    }
}
