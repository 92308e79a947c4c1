//! What this manager has applied, and by whom each entry was written: the same on all managers, or their histories
//! differ.
//!
//! Raft gives an entry that is committed the same place, term and leader on every manager for ever. Where another
//! manager has committed something else at an index that this one has applied, one of the two has gone back: its state
//! folder is an older copy, or lost what was written. Which one that is cannot be told here.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    digest::{Digests, Sum},
    types::{LeaderId, LogId},
};

/// Changes of the leader that are remembered: far more than happen while a manager is away, and some ten kilobytes.
const LEADERS_MAX: usize = 1024;

/// What this manager has applied. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    applied: Arc<Mutex<Applied>>,
    digests: Digests,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// The first entry of each leader, or the first that is known of it, in their order.
    leaders: VecDeque<LogId>,
    /// The last entry.
    last: Option<LogId>,
    /// Who spoke last as the leader.
    heard: Heard,
    /// The leader has another history: nothing that is applied here counts any more.
    differs: bool,
}

/// What the leader says of its own history.
#[derive(Clone, Debug, Default)]
struct Heard {
    leader: Option<LeaderId>,
    addr: String,
    /// The last entry that it is known to have.
    last: Option<LogId>,
}

/// Who wrote an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The leader of one term.
    Leader(LeaderId),
    /// A manager, in a term that is not said.
    Manager(u64),
}

/// What a snapshot says of how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// The first entry of each leader that is known, in their order.
    pub leaders: Vec<LogId>,
    /// The digest at its end; earlier versions have none.
    pub sum: Option<Sum>,
}

impl History {
    pub(crate) fn get(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digests of what was applied.
    pub(crate) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// What a snapshot says of what is applied now.
    pub(crate) fn past(&self) -> Past {
        let leaders = self.get().leaders.iter().copied().collect();
        Past { leaders, sum: self.digests.get().sum() }
    }

    /// Begins with a snapshot that ends with this entry. One of an earlier version does not say who led before.
    pub(crate) fn begin(&self, last: Option<LogId>, past: &Past) {
        let mut applied = self.get();
        applied.leaders = past.leaders.iter().copied().collect();
        applied.last = None;
        if let Some(last) = last {
            applied.push(last);
        }
        self.digests.begin(last.map_or(0, |last| last.index), past.sum);
    }
}

impl Applied {
    /// An entry was applied.
    pub(crate) fn push(&mut self, id: LogId) {
        if self.leaders.back().is_none_or(|newest| newest.leader_id != id.leader_id) {
            if self.leaders.len() == LEADERS_MAX {
                self.leaders.pop_front();
            }
            self.leaders.push_back(id);
        }
        self.last = Some(id);
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    /// The first entry of each leader that is known.
    pub(crate) fn leaders(&self) -> Vec<LogId> {
        self.leaders.iter().copied().collect()
    }

    /// The leader that wrote the entry at this index; none if it is not applied, or too long ago.
    fn leader_at(&self, index: u64) -> Option<LeaderId> {
        self.last.filter(|last| index <= last.index)?;
        let next = self.leaders.partition_point(|first| first.index <= index);
        Some(self.leaders.get(next.checked_sub(1)?)?.leader_id)
    }

    /// Whether the entry at this index, as far as it is known, was written by this one.
    pub(crate) fn may_be_of(&self, index: u64, writer: Writer) -> bool {
        self.leader_at(index).is_none_or(|leader| match writer {
            Writer::Leader(id) => leader == id,
            Writer::Manager(id) => leader.node_id == id,
        })
    }

    /// Whether another entry was applied at this one's index.
    pub(crate) fn contradicts(&self, id: LogId) -> bool {
        !self.may_be_of(id.index, Writer::Leader(id.leader_id))
    }

    /// Whether another entry was applied than a snapshot has, which ends with `last`.
    pub(crate) fn contradicts_snapshot(&self, last: LogId, past: &Past) -> bool {
        let leaders = &past.leaders;
        let Some(own) = self.last.filter(|own| own.index < last.index) else { return self.contradicts(last) };
        let next = leaders.partition_point(|first| first.index <= own.index);
        let theirs = next.checked_sub(1).and_then(|at| leaders.get(at));
        theirs.is_some_and(|theirs| theirs.leader_id != own.leader_id)
    }

    /// A leader spoke. Its address is asked for when another one spoke before.
    pub(crate) fn hear(&mut self, leader: LeaderId, last: Option<LogId>, addr: impl FnOnce() -> String) {
        if self.heard.leader != Some(leader) {
            self.heard = Heard { leader: Some(leader), addr: addr(), last: None };
        }
        self.heard.last = self.heard.last.max(last);
    }

    /// Raft id and address of who spoke last as the leader.
    pub(crate) fn heard(&self) -> Option<(u64, String)> {
        let Heard { leader, addr, .. } = &self.heard;
        leader.filter(|_| !addr.is_empty()).map(|leader| (leader.node_id, addr.clone()))
    }

    /// The leader has another history. Says whether that is new.
    pub(crate) fn set_differs(&mut self) -> bool {
        !std::mem::replace(&mut self.differs, true)
    }

    /// Whether the leader has another history.
    pub(crate) fn differs(&self) -> bool {
        self.differs
    }

    /// Index of the last entry that another manager's history has as well; none if that is not known.
    fn common_with(&self, theirs: &Past, last: LogId) -> Option<u64> {
        let theirs = Self { leaders: theirs.leaders.iter().copied().collect(), last: Some(last), ..Self::default() };
        let (own, their) = (self.leaders.front()?, theirs.leaders.front()?);
        let from = own.index.max(their.index);
        let starts = self.leaders.iter().chain(&theirs.leaders).map(|first| first.index);
        let mut starts: Vec<u64> = starts.filter(|start| *start >= from).collect();
        starts.sort_unstable();
        let end = self.last?.index.min(last.index);
        match starts.into_iter().find(|start| self.leader_at(*start) != theirs.leader_at(*start)) {
            Some(start) if start == from => None,
            Some(start) => Some(end.min(start - 1)),
            None => Some(end),
        }
    }

    /// Why this manager cannot go on beside the leader. Where the leader did not say what its own history is, it has
    /// another one after `common` at the latest. `end` is the last entry of this manager's log.
    pub(crate) fn explain(&self, theirs: Option<(&Past, LogId)>, common: Option<u64>, end: Option<LogId>) -> String {
        let own = self.last.max(end);
        let common = theirs.and_then(|(past, last)| self.common_with(past, last)).or(common);
        let Heard { leader, addr, last } = &self.heard;
        let leader = match leader {
            Some(leader) if addr.is_empty() => format!("the leader (manager {})", leader.node_id),
            Some(_) => format!("the leader at {addr}"),
            None => "the leader".to_owned(),
        };
        let theirs = match (theirs, last) {
            (Some((_, last)), _) => format!("{leader} has applied all up to {}", describe(last)),
            (None, Some(last)) => format!("{leader} has its log up to {} at least", describe(*last)),
            (None, None) => format!("what {leader} has is not known"),
        };
        let (from, applied) = (common.map_or(0, |common| common + 1), self.last.map_or(0, |last| last.index + 1));
        let only_here = own.map_or(0, |own| own.index + 1).saturating_sub(from);
        format!(
            "this manager and the leader have different histories. This manager has its log up to {}; {theirs}. {only_here} \
             entries from entry {from} on are only here, and {} of them are applied: they were committed. One of the two \
             went back to an older copy of its state folder, or lost what was written; which one is right cannot be told \
             here, and nothing was changed. {KEEP_EITHER}",
            own.map_or("nothing".to_owned(), describe),
            applied.saturating_sub(from),
        )
    }
}

/// How to go on with either of two histories.
pub(crate) const KEEP_EITHER: &str = "`swarmctl --consistency stale service ls` on each shows what it has. To keep what the others have: `swarm leave \
     --force` here, `node demote` and `node rm --force` this node on another manager, and join again. To keep what this \
     manager has: stop swarmd on the other managers, `swarm init --force-new-cluster` here, then `swarm leave --force` on \
     each of the others before it reaches this one, and join them again";

fn describe(id: LogId) -> String {
    format!("entry {} of term {}", id.index, id.leader_id.term)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id }, index }
    }

    fn applied(ids: impl IntoIterator<Item = LogId>) -> Applied {
        let mut applied = Applied::default();
        ids.into_iter().for_each(|id| applied.push(id));
        applied
    }

    #[test]
    fn it_knows_who_wrote_each_entry() {
        let applied = applied((3..10).map(|index| id(1, 1, index)).chain((10..20).map(|index| id(4, 2, index))));
        assert_eq!(applied.leaders(), [id(1, 1, 3), id(4, 2, 10)]);
        assert!(!applied.contradicts(id(1, 1, 9)) && !applied.contradicts(id(4, 2, 10)));
        assert!(
            applied.contradicts(id(4, 2, 9)) && applied.contradicts(id(1, 1, 10)) && applied.contradicts(id(4, 3, 19))
        );
        assert!(!applied.contradicts(id(9, 9, 2)) && !applied.contradicts(id(9, 9, 20)), "of those it knows nothing");
    }

    #[test]
    fn a_snapshot_goes_on_from_it_or_contradicts_it() {
        let own = applied((0..10).map(|index| id(1, 1, index)));
        let contradicts =
            |last, leaders: &[LogId]| own.contradicts_snapshot(last, &Past { leaders: leaders.to_vec(), sum: None });
        let leaders = [id(1, 1, 0), id(2, 2, 10), id(3, 3, 15)];
        assert!(!contradicts(id(3, 3, 30), &leaders));
        assert!(contradicts(id(3, 3, 30), &[id(1, 1, 0), id(2, 2, 9), id(3, 3, 15)]));
        assert!(!contradicts(id(3, 3, 30), &[]), "one of an earlier version does not say");
        assert!(!contradicts(id(3, 3, 30), &[id(3, 3, 30)]), "nor one whose history begins later");
        assert!(contradicts(id(3, 3, 5), &[]), "it ends before, with another entry");
        assert!(!contradicts(id(1, 1, 5), &[]));
        let past = Past { leaders: leaders.to_vec(), sum: None };
        assert!(!Applied::default().contradicts_snapshot(id(3, 3, 5), &past));
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let terms = 2 * LEADERS_MAX as u64;
        let applied = applied((0..terms).map(|index| id(index, 1, index)));
        assert_eq!(applied.leaders().len(), LEADERS_MAX);
        assert!(applied.contradicts(id(0, 1, terms - 1)) && !applied.contradicts(id(9, 9, 0)));
    }

    #[test]
    fn the_message_names_both_histories() {
        let mut applied = applied((0..=100).map(|index| id(1, 1, index)));
        applied.hear(LeaderId { term: 2, node_id: 2 }, Some(id(2, 2, 60)), || "10.0.0.2:2377".into());
        applied.hear(LeaderId { term: 2, node_id: 2 }, Some(id(2, 2, 57)), || unreachable!("it is known"));
        let text = applied.explain(None, Some(50), Some(id(1, 1, 104)));
        assert!(text.contains("This manager has its log up to entry 104 of term 1;"), "{text}");
        assert!(text.contains("the leader at 10.0.0.2:2377 has its log up to entry 60 of term 2 at least"), "{text}");
        assert!(text.contains("54 entries from entry 51 on are only here, and 50 of them are applied"), "{text}");
        let theirs = Past { leaders: vec![id(1, 1, 0), id(2, 2, 41)], sum: None };
        let text = applied.explain(Some((&theirs, id(2, 2, 70))), Some(59), Some(id(1, 1, 104)));
        assert!(text.contains("the leader at 10.0.0.2:2377 has applied all up to entry 70 of term 2"), "{text}");
        assert!(text.contains("64 entries from entry 41 on are only here, and 60 of them are applied"), "{text}");
    }

    #[test]
    fn what_two_histories_have_in_common_is_found() {
        let own = applied((3..10).map(|index| id(1, 1, index)).chain((10..20).map(|index| id(4, 2, index))));
        let common = |leaders: &[LogId], last| own.common_with(&Past { leaders: leaders.to_vec(), sum: None }, last);
        assert_eq!(common(&[id(1, 1, 3), id(4, 2, 10)], id(4, 2, 15)), Some(15), "it only lacks some");
        assert_eq!(common(&[id(1, 1, 0), id(4, 2, 10), id(5, 3, 17)], id(5, 3, 40)), Some(16));
        assert_eq!(common(&[id(1, 1, 0), id(5, 3, 8)], id(5, 3, 40)), Some(7));
        assert_eq!(common(&[id(1, 1, 0)], id(1, 1, 30)), Some(9));
        assert_eq!(common(&[id(5, 3, 12)], id(5, 3, 40)), None, "what is known of the other begins too late");
        assert_eq!(common(&[], id(5, 3, 40)), None);
    }
}
