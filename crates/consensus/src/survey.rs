//! How the managers are, each by its own word.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::{
    Consensus, Local, Member, Status,
    line::{DIAL_TIMEOUT, Kind},
    message::{Answer, Request},
    rt,
};

/// How long a manager may take to say how it is: a connection, and an answer without any work. People wait for it.
pub(crate) const ANSWER_MAX: Duration = Duration::from_millis(DIAL_TIMEOUT.as_millis() as u64 + 500);

/// What a manager says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its word.
    pub status: Status,
    /// How far its clock is ahead of ours, as well as the way there and back lets us know.
    pub clock_skew_ms: i64,
}

/// What all of them say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The leader's view; without a leader that answers, that of the manager that asks.
    pub status: Status,
    /// The managers that answered, by Raft id.
    pub answers: BTreeMap<u64, Asked>,
}

impl Survey {
    /// The managers that vote and did not answer.
    pub fn silent(&self) -> Vec<&Member> {
        let voters = self.status.members.iter().filter(|member| member.voter);
        voters.filter(|member| !self.answers.contains_key(&member.raft_id)).collect()
    }

    /// The feature level that a manager's program knows; none if it did not answer.
    pub fn feature_level(&self, raft_id: u64) -> Option<u16> {
        self.answers.get(&raft_id).map(|asked| asked.status.feature_level)
    }

    /// Whether those that answered can decide.
    pub fn has_majority(&self) -> bool {
        let voters = self.status.members.iter().filter(|member| member.voter).count();
        self.silent().len() < voters.div_ceil(2)
    }
}

impl Consensus {
    /// Asks all managers at once how they are.
    pub async fn survey(&self) -> Survey {
        let own = self.own_status().await;
        let others = own.members.iter().filter(|member| member.raft_id != own.raft_id);
        let asked = join_all(others.map(|member| async {
            let began = Instant::now();
            let answer = self.network().line(Kind::Ask, member.raft_id, &member.addr).send(Request::Status, ANSWER_MAX);
            let Ok(Ok(Answer::Status(status))) = timeout(ANSWER_MAX, answer).await else { return None };
            let half_way_ns = i64::try_from(began.elapsed().as_nanos() / 2).unwrap_or_default();
            // One of an earlier version says nothing of its clock.
            let skew_ns = status.local.as_ref().map(|local| local.clock.plus_ns(half_way_ns).since_ns(rt::clock()));
            Some((member.raft_id, Asked { status: *status, clock_skew_ms: skew_ns.unwrap_or_default() / 1_000_000 }))
        }));
        let mut answers: BTreeMap<u64, Asked> = asked.await.into_iter().flatten().collect();
        let leader = answers.values().map(|asked| &asked.status).filter(|status| status.leads());
        let leader = leader.max_by_key(|status| status.term).filter(|status| status.term >= own.term).cloned();
        answers.insert(own.raft_id, Asked { status: own.clone(), clock_skew_ms: 0 });
        let mut survey = Survey { status: leader.unwrap_or(own), answers };
        // One that led until it was cut off does not know better.
        if !survey.has_majority() {
            survey.status.leader = None;
        }
        survey
    }

    /// How this manager is, with what only it knows.
    pub(crate) async fn own_status(&self) -> Status {
        let disk = self.disk();
        let usage = rt::blocking(move || disk.usage()).await.unwrap_or_default();
        let clock = rt::clock();
        let age_ms = |at: swarm_model::Timestamp| u64::try_from(clock.since_ns(at) / 1_000_000).unwrap_or_default();
        let local = Local {
            clock,
            leader_contact_ms: self.leader_contact().map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            snapshot_bytes: usage.snapshot.map(|(bytes, _)| bytes),
            snapshot_age_ms: usage.snapshot.map(|(_, at)| age_ms(at)),
            disk_free_bytes: usage.room.map(|(free, _)| free),
            disk_bytes: usage.room.map(|(_, all)| all),
            twins: self.runs().words(),
        };
        Status { local: Some(local), ..self.status() }
    }

    /// How long ago this manager last knew that a leader leads: by its word, or by the answers of a majority to this one.
    /// None if it never did since its start.
    pub fn leader_contact(&self) -> Option<Duration> {
        let status = self.status();
        if !status.leads() {
            return self.heard_leader().map(|at| at.elapsed());
        }
        let voters = status.members.iter().filter(|member| member.voter);
        let mut contacts: Vec<Option<u64>> = voters.map(|member| member.last_contact_ms).collect();
        // Who never answered comes last.
        contacts.sort_by_key(|contact| contact.unwrap_or(u64::MAX));
        contacts.get(contacts.len() / 2).copied().flatten().map(Duration::from_millis)
    }
}
