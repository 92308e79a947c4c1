//! Whether this manager still has all that it had acknowledged: a leader knows.
//!
//! A folder that is an older copy, or a log whose last entries were lost after they were synced, looks whole to the
//! manager that opens it. Were it to vote, it could help to elect a leader without what it had acknowledged. So it asks
//! the leader first: at its start, before it takes part, and again before it says that its log does not follow on from
//! what a leader sends, which is all that a loss looks like from there. A leader that was elected while this manager was
//! away knows nothing of what it had.
//!
//! A log without entries names nobody to ask. It is that of a manager which joins, or a copy from before its first entry:
//! the leader tells the two apart as soon as it speaks, and says where it can be asked. Until then the manager does not
//! vote: a voter had caught up with the log before it became one.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::select_all;
use openraft::RaftLogReader;
use tokio::time::{sleep, timeout};

use crate::{
    Consensus, Error, Status,
    line::Kind,
    message::{Answer, Request},
    survey::ANSWER_MAX,
    types::LeaderId,
};

/// Between two questions to one manager: a small part of an election.
const PAUSE: Duration = Duration::from_millis(40);

/// The last leader whose word this manager has.
#[derive(Debug, Default)]
pub(crate) struct Vouched(Mutex<Option<LeaderId>>);

impl Vouched {
    fn by(&self) -> Option<LeaderId> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, leader: LeaderId) {
        let mut by = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *by = by.max(Some(leader));
    }
}

/// What a leader knows of what this manager has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    leader: LeaderId,
    addr: String,
    /// Index of the last entry that this manager had acknowledged to it, and who wrote that; none if it knows nothing. A
    /// leader of the first version does not say who wrote it.
    matched: Option<(u64, Option<LeaderId>)>,
}

/// What a word means.
#[derive(Debug)]
enum Verdict {
    /// The leader may have lost its place long ago.
    Stale,
    /// All that the leader knows of is there.
    Whole,
    /// The log lacks this.
    Lacking(Error),
}

impl Word {
    fn of(status: &Status, to: u64) -> Option<Self> {
        let own = status.members.iter().find(|member| member.raft_id == status.raft_id)?;
        let asking = status.members.iter().find(|member| member.raft_id == to);
        let writer = |(term, node_id): (u64, u64)| LeaderId { term, node_id };
        let matched = asking.and_then(|member| Some((member.matched_index?, member.matched_leader.map(writer))));
        let leader = LeaderId { term: status.term, node_id: status.raft_id };
        status.leads().then(|| Self { leader, addr: own.addr.clone(), matched })
    }
}

impl Consensus {
    /// Asks the other managers for a leader until one has answered whose word counts, at most one election time-out long.
    /// Says whether one has.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: this manager had acknowledged what its log lacks, and must not take part.
    pub(crate) async fn vouch(&self) -> Result<bool, Error> {
        self.vouch_by(None).await
    }

    /// The same with one more manager that may lead.
    async fn vouch_by(&self, leader: Option<(u64, String)>) -> Result<bool, Error> {
        let members = self.status().members.into_iter().map(|member| (member.raft_id, member.addr));
        let others: BTreeMap<u64, String> = members.chain(leader).collect();
        let others = others.into_iter().filter(|(id, _)| *id != self.raft_id());
        let asked: Vec<_> = others.map(|(id, addr)| Box::pin(self.word_of(id, addr))).collect();
        if asked.is_empty() {
            return Ok(true);
        }
        let limit = Duration::from_millis(self.raft().config().election_timeout_max);
        match timeout(limit, select_all(asked)).await {
            Ok((Ok(leader), ..)) => {
                self.vouched().set(leader);
                Ok(true)
            }
            Ok((Err(lacking), ..)) => Err(lacking),
            Err(_) => Ok(false),
        }
    }

    /// Whether this manager may tell this leader that its log does not follow on from what the leader sends. It may not
    /// if it has lost entries: it stops then; nor as long as the leader cannot be asked. A leader of the first version
    /// does not say where it can be.
    pub(crate) async fn may_contradict(&self, leader: LeaderId, addr: Option<&str>) -> bool {
        if self.vouched().by() >= Some(leader) {
            return true;
        }
        match self.vouch_by(addr.map(|addr| (leader.node_id, addr.to_owned()))).await {
            // A leader that joined since then cannot be asked by whoever does not know it.
            Ok(_) => {
                let is_known =
                    addr.is_some() || self.status().members.iter().any(|member| member.raft_id == leader.node_id);
                self.vouched().by() >= Some(leader) || !is_known
            }
            Err(lacking) => {
                self.stop(lacking.to_string()).await;
                false
            }
        }
    }

    /// The leader's word, whoever leads, as this manager knows it. Does not return before there is one that counts.
    async fn word_of(&self, mut id: u64, mut addr: String) -> Result<LeaderId, Error> {
        loop {
            let asked = self.network().line(Kind::Ask, id, &addr).send(Request::Status, ANSWER_MAX).await;
            if let Ok(Answer::Status(status)) = asked {
                if let Some(word) = Word::of(&status, self.raft_id()) {
                    match self.judge(&word).await {
                        Verdict::Whole => return Ok(word.leader),
                        Verdict::Lacking(error) => return Err(error),
                        Verdict::Stale => {}
                    }
                } else if let Some(leader) = self.unknown_leader(&status) {
                    (id, addr) = leader;
                    continue;
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// A leader that another manager names and this one has never heard of.
    fn unknown_leader(&self, status: &Status) -> Option<(u64, String)> {
        let known = self.status().members;
        let leader = status.members.iter().find(|member| Some(member.raft_id) == status.leader)?;
        let is_known = known.iter().any(|member| member.raft_id == leader.raft_id);
        (!is_known).then(|| (leader.raft_id, leader.addr.clone()))
    }

    async fn judge(&self, word: &Word) -> Verdict {
        let lacking = match word.matched {
            None => None,
            Some((index, writer)) => match self.has(index, writer).await {
                Ok(true) => None,
                Ok(false) => Some(index),
                Err(error) => return Verdict::Lacking(Error::io(self.disk().log_file(), error)),
            },
        };
        // Read after the log: a later leader that overwrote entries was voted for before.
        let vote = self.log().ends().0;
        if vote.is_some_and(|vote| vote.leader_id > word.leader) {
            return Verdict::Stale;
        }
        let Some(index) = lacking else { return Verdict::Whole };
        let end = self.last_index().map_or("is empty".to_owned(), |end| format!("ends at entry {end}"));
        let detail = format!(
            "the log {end} and lacks what this manager had acknowledged to the leader at {}, up to entry {index}: it is \
             an older copy, or lost what was written",
            word.addr
        );
        Verdict::Lacking(Error::corrupt(self.disk().log_file(), detail))
    }

    /// Index of the last entry that this manager has, in its log or in its snapshot.
    fn last_index(&self) -> Option<u64> {
        let status = self.status();
        let end = self.log().ends().1.map(|last| last.index);
        end.max(status.snapshot_index).max(status.applied_index)
    }

    /// Whether this manager has an entry, and has it of this leader where that is known. What is only in the snapshot is
    /// committed, and the same everywhere.
    async fn has(&self, index: u64, writer: Option<LeaderId>) -> io::Result<bool> {
        let mut log = self.log();
        let entries = log.try_get_log_entries(index..=index).await?;
        Ok(match (entries.first(), writer) {
            (Some(entry), Some(writer)) => entry.log_id.leader_id == writer,
            (Some(_), None) => true,
            (None, _) => self.last_index() >= Some(index),
        })
    }
}
