//! Which statuses the managers have yet to learn of.
//!
//! Only the task's id is kept: what is sent is the task's newest status at that time. One batch is under way at a
//! time, so that a manager that is slow to commit gets fewer and newer statuses, not a queue of old ones.

use std::collections::BTreeSet;

use swarm_model::TaskId;
use swarm_wire::agent::STATUS_BATCH_MAX;

/// How long progress below "running" may wait for what follows. A start takes a few hundred milliseconds; this halves
/// the entries in the managers' log and delays nothing that anybody waits for.
const PROGRESS_DELAY_MS: u64 = 50;

/// A batch that is not acknowledged in this time is sent again.
const ACK_MS_MAX: u64 = 30_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    dirty: BTreeSet<TaskId>,
    /// When `dirty` is to be sent, at the latest.
    due_ms: Option<u64>,
    in_flight: Option<InFlight>,
    batches: u64,
}

#[derive(Debug)]
struct InFlight {
    batch: u64,
    sent_ms: u64,
    tasks: Vec<TaskId>,
}

impl Outbox {
    /// The status of a task is new.
    pub(super) fn mark(&mut self, task: TaskId, now_ms: u64, urgent: bool) {
        self.dirty.insert(task);
        let due = if urgent { now_ms } else { now_ms.saturating_add(PROGRESS_DELAY_MS) };
        self.due_ms = Some(self.due_ms.map_or(due, |d| d.min(due)));
    }

    /// Tasks whose status is to be sent now, and the number of the batch. `is_known` says which ones there still are.
    pub(super) fn take(&mut self, now_ms: u64, is_known: impl Fn(TaskId) -> bool) -> Option<(u64, Vec<TaskId>)> {
        if let Some(late) = self.in_flight.take_if(|f| f.sent_ms.saturating_add(ACK_MS_MAX) <= now_ms) {
            self.dirty.extend(late.tasks);
            self.due_ms = Some(now_ms);
        }
        if self.in_flight.is_some() || self.due_ms? > now_ms {
            return None;
        }
        let mut tasks = Vec::new();
        while tasks.len() < STATUS_BATCH_MAX {
            let Some(task) = self.dirty.pop_first() else { break };
            if is_known(task) {
                tasks.push(task);
            }
        }
        if self.dirty.is_empty() {
            self.due_ms = None;
        }
        if tasks.is_empty() {
            return None;
        }
        self.batches += 1;
        self.in_flight = Some(InFlight { batch: self.batches, sent_ms: now_ms, tasks: tasks.clone() });
        Some((self.batches, tasks))
    }

    /// A batch is committed.
    pub(super) fn acknowledge(&mut self, batch: u64) {
        self.in_flight.take_if(|f| f.batch == batch);
    }

    /// The session is over: what was not acknowledged goes into the next one.
    pub(super) fn session_over(&mut self, now_ms: u64) {
        if let Some(lost) = self.in_flight.take() {
            self.dirty.extend(lost.tasks);
        }
        if !self.dirty.is_empty() {
            self.due_ms = Some(now_ms);
        }
    }

    /// How many statuses wait for anything.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.dirty.len() + self.in_flight.as_ref().map_or(0, |f| f.tasks.len())
    }

    /// When [`Outbox::take`] has something to do.
    pub(super) fn deadline_ms(&self) -> u64 {
        match &self.in_flight {
            Some(f) => f.sent_ms.saturating_add(ACK_MS_MAX),
            None => self.due_ms.unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_at_a_time_and_what_is_lost_is_sent_again() {
        let mut outbox = Outbox::default();
        outbox.mark(TaskId(1), 0, false);
        assert_eq!(outbox.take(0, |_| true), None, "progress waits a little");
        assert_eq!(outbox.deadline_ms(), PROGRESS_DELAY_MS);
        outbox.mark(TaskId(2), 10, true);
        assert_eq!(outbox.take(10, |_| true), Some((1, vec![TaskId(1), TaskId(2)])));
        outbox.mark(TaskId(2), 20, true);
        assert_eq!(outbox.take(20, |_| true), None, "one batch is under way");
        outbox.session_over(30);
        assert_eq!(outbox.take(30, |_| true), Some((2, vec![TaskId(1), TaskId(2)])));
        outbox.acknowledge(1);
        outbox.mark(TaskId(3), 40, true);
        assert_eq!(outbox.take(40, |_| true), None, "an old acknowledgement counts for nothing");
        outbox.acknowledge(2);
        assert_eq!(outbox.take(40, |t| t != TaskId(3)), None, "forgotten tasks are not reported");
        assert_eq!(outbox.deadline_ms(), u64::MAX);
    }

    #[test]
    fn a_batch_without_acknowledgement_is_sent_again_and_large_ones_are_split() {
        let mut outbox = Outbox::default();
        for n in 0..STATUS_BATCH_MAX as u128 + 1 {
            outbox.mark(TaskId(n), 0, true);
        }
        let (batch, tasks) = outbox.take(0, |_| true).expect("a batch");
        assert_eq!(tasks.len(), STATUS_BATCH_MAX);
        outbox.acknowledge(batch);
        let rest = outbox.take(0, |_| true).expect("the rest").1;
        assert_eq!(rest, vec![TaskId(STATUS_BATCH_MAX as u128)]);
        assert_eq!(outbox.take(ACK_MS_MAX, |_| true), Some((3, rest)));
    }
}
