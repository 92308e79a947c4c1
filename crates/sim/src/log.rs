//! The log: a plain sequence in memory, with what can become of a proposal. A follower applies what comes back from
//! its bytes, so that the two states can be compared.

use std::collections::{BTreeMap, VecDeque};

use swarm_core::{ENTRY_VERSION, Entry, Event as Change, Object, Outcome, State, Tx, apply};

use crate::{event::Event, oracle::Step, world::World};

/// How long a proposer waits before the outcome of a proposal is unknown.
const PROPOSAL_MS_MAX: u64 = 5_000;

/// Entries that are kept for the complaint about a cluster that does not settle.
const RECENT_MAX: usize = 12;

/// One in so many seeds has a follower.
const FOLLOWER_EVERY: u64 = 4;

/// The follower is made anew from a snapshot after so many entries, which shows that indexes follow from the objects.
const SNAPSHOT_ENTRIES: u64 = 500;

/// Who waits for a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The leader loop of a term.
    Plan(u64),
    /// The dispatcher of a term.
    Reports(u64),
    /// An operator, with what is counted when it is done.
    Operator(&'static str),
}

pub(crate) struct Proposal {
    number: u64,
    entry: Entry,
    /// The state that the plan was made from, if it is one.
    decided: Option<State>,
    /// Its answer gets lost.
    mute: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) state: State,
    follower: State,
    /// Entries that are not committed yet, the oldest first.
    pub(crate) appended: VecDeque<Proposal>,
    unanswered: BTreeMap<u64, Origin>,
    proposed: u64,
    /// When the youngest entry will be committed.
    busy_until_ms: u64,
    /// When something was last committed.
    pub(crate) last_ms: u64,
    pub(crate) recent: VecDeque<Entry>,
}

impl World {
    /// Proposes transactions to the leader's log. What becomes of them is told to the origin.
    pub(crate) fn propose(&mut self, txs: Vec<Tx>, origin: Origin) {
        let Some(leader) = &self.leader else { return };
        let entry = Entry { v: ENTRY_VERSION, at: self.wall_off(self.skew_ms[leader.manager]), txs };
        let decided = matches!(origin, Origin::Plan(_)).then(|| leader.decided.clone());
        self.log.proposed += 1;
        let number = self.log.proposed;
        self.log.unanswered.insert(number, origin);
        self.after(PROPOSAL_MS_MAX, Event::GiveUp(number));
        if !self.healed && self.rng.per_mille(4) {
            return self.counts.fault("proposal lost");
        }
        if !self.healed && self.rng.per_mille(6) {
            self.counts.fault("proposal applied twice");
            let delay = if self.rng.per_mille(500) { self.rng.between(1, 50) } else { self.rng.between(50, 10_000) };
            self.after(delay, Event::Again(entry.clone()));
        }
        let mute = !self.healed && self.rng.per_mille(4);
        if mute {
            self.counts.fault("answer of the log lost");
        }
        self.append(Proposal { number, entry, decided, mute });
    }

    /// Commits at once: what is set up, not what is tested.
    pub(crate) fn commit_now(&mut self, txs: Vec<Tx>) {
        let entry = Entry { v: ENTRY_VERSION, at: self.wall(), txs };
        self.apply_entry(entry, None);
    }

    fn append(&mut self, proposal: Proposal) {
        let at = (self.now_ms + self.rng.between(2, 12)).max(self.log.busy_until_ms);
        self.log.busy_until_ms = at;
        self.log.appended.push_back(proposal);
        self.at(at, Event::Commit);
    }

    /// An entry comes a second time.
    pub(crate) fn again(&mut self, entry: Entry) {
        if self.leader.is_some() {
            // Nobody waits for this number.
            self.append(Proposal { number: 0, entry, decided: None, mute: true });
        }
    }

    /// Disks stall: nothing is committed for a while.
    pub(crate) fn stall_log(&mut self, ms: u64) {
        self.log.busy_until_ms = self.log.busy_until_ms.max(self.now_ms + ms);
    }

    /// The oldest entry is committed.
    pub(crate) fn commit(&mut self) {
        // None if a change of the leader took it away.
        let Some(Proposal { number, entry, decided, mute }) = self.log.appended.pop_front() else { return };
        let outcomes = self.apply_entry(entry, decided.as_ref());
        if !mute && let Some(origin) = self.log.unanswered.remove(&number) {
            self.answer(origin, Some(outcomes));
        }
    }

    /// A proposer has waited for long enough.
    pub(crate) fn give_up(&mut self, number: u64) {
        if let Some(origin) = self.log.unanswered.remove(&number) {
            self.answer(origin, None);
        }
    }

    /// Tells the origin what became of its proposal; none if that is unknown.
    fn answer(&mut self, origin: Origin, outcomes: Option<Vec<Outcome>>) {
        match origin {
            Origin::Plan(term) => self.plan_answered(term, outcomes),
            Origin::Reports(term) => self.reports_answered(term, outcomes),
            Origin::Operator(name) => {
                if outcomes.is_some_and(|outcomes| outcomes.iter().all(Result::is_ok)) {
                    self.counts.operation(name);
                } else {
                    self.counts.other("operations refused or unknown");
                }
            }
        }
    }

    /// The leader is gone: of what is not committed yet its successor keeps the first part and applies it before it
    /// leads, the rest is lost. Nobody is told.
    pub(crate) fn cut_log(&mut self) {
        let kept = self.rng.below(self.log.appended.len() as u64 + 1);
        for _ in 0..kept {
            if let Some(proposal) = self.log.appended.pop_front() {
                self.apply_entry(proposal.entry, proposal.decided.as_ref());
            }
        }
        self.log.appended.clear();
        self.log.unanswered.clear();
        self.log.busy_until_ms = self.now_ms;
    }

    /// Applies an entry on all managers, and lets the oracle look at what it did.
    fn apply_entry(&mut self, entry: Entry, decided: Option<&State>) -> Vec<Outcome> {
        let index = self.log.state.revision() + 1;
        let before = self.log.state.clone();
        let bytes = rmp_serde::to_vec_named(&entry).expect("entries can be written");
        self.digest_bytes(&bytes);
        let (outcomes, events) = apply(&mut self.log.state, index, &entry);
        self.note(|| format!("entry {index} {entry:?} -> {outcomes:?}"));
        self.counts.other("entries");
        self.log.last_ms = self.now_ms;

        if self.has_follower() {
            self.follow(index, &entry, &bytes, &(outcomes.clone(), events.clone()));
        }
        let after = &self.log.state;
        let step = Step { decided, before: &before, after, entry: &entry, outcomes: &outcomes, events: &events };
        if let Err(text) = self.oracle.check(&step, self.now_ms) {
            self.complain(format!("{text}\n  after entry {index}: {entry:?}"));
        }
        self.ends.follow(&before, &self.log.state, &events, self.now_ms);
        self.table.follow(&self.log.state, &events);
        self.log.recent.push_back(entry);
        if self.log.recent.len() > RECENT_MAX {
            self.log.recent.pop_front();
        }
        self.published(&events);
        outcomes
    }

    /// A second replica takes a third of the time, and what it shows is soon the same again: some seeds have one.
    fn has_follower(&self) -> bool {
        self.seed % FOLLOWER_EVERY == 1
    }

    /// A follower applies what comes back from an entry's bytes.
    fn follow(&mut self, index: u64, entry: &Entry, bytes: &[u8], ours: &(Vec<Outcome>, Vec<Change>)) {
        let copy: Entry = rmp_serde::from_slice(bytes).expect("what was written can be read");
        if copy != *entry {
            self.complain(format!("entry {index} changes when it is written and read: {entry:?}, then {copy:?}"));
        }
        if apply(&mut self.log.follower, index, &copy) != *ours {
            self.complain(format!("replicas differ after entry {index}: {entry:?}"));
        }
        if index.is_multiple_of(SNAPSHOT_ENTRIES) {
            self.compare_replicas();
        }
    }

    /// The follower has the same objects and, though it was made from a snapshot, the same indexes.
    pub(crate) fn compare_replicas(&mut self) {
        if !self.has_follower() {
            return;
        }
        let (ours, theirs) = (&self.log.state, &self.log.follower);
        let mut difference = None;
        if !ours.export().eq(theirs.export()) {
            difference = Some("objects".to_owned());
        }
        for node in ours.nodes() {
            let tasks = |state: &State| state.tasks_of_node(node.id).map(|task| task.id).collect::<Vec<_>>();
            if ours.load(node.id) != theirs.load(node.id) || tasks(ours) != tasks(theirs) {
                difference = Some(format!("the load of node {}", node.id));
            }
        }
        let waiting = |state: &State| state.services_with_pending().collect::<Vec<_>>();
        let owners = |state: &State| state.services_with_tasks().collect::<Vec<_>>();
        if waiting(ours) != waiting(theirs) || owners(ours) != owners(theirs) {
            difference = Some("the services that have tasks".to_owned());
        }
        for service in owners(ours) {
            let tasks = |state: &State| state.tasks_of_service(service).map(|task| task.id).collect::<Vec<_>>();
            let pending = |state: &State| state.pending_of_service(service).map(|task| task.id).collect::<Vec<_>>();
            if tasks(ours) != tasks(theirs) || pending(ours) != pending(theirs) {
                difference = Some(format!("the tasks of service {service}"));
            }
        }
        for service in ours.services() {
            if theirs.service_by_name(&service.spec.name).map(|found| found.id) != Some(service.id) {
                difference = Some(format!("the name {}", service.spec.name));
            }
        }
        self.log.follower = State::import(ours.export().collect::<Vec<Object>>());
        if let Some(difference) = difference {
            let revision = self.log.state.revision();
            self.complain(format!("replicas differ at entry {revision}: {difference}"));
        }
    }
}
