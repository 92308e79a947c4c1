//! Which managers take part in Raft: learners first, voters once they have caught up, by joint consensus.
//!
//! Level-triggered as everything that leads: what is wanted comes in, and each call takes the steps that are possible
//! now. Nobody else changes the members, so that no two changes meet; one that a former leader left half-way is
//! finished first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{BasicNode, ChangeMembers, errors::RaftError};
use tokio::time::timeout;

use crate::{Consensus, Error, Member, Status, words};

/// Entries that a learner may lack when it becomes a voter: what a healthy follower is behind under load. More, and
/// commits would wait for it.
const LAG_MAX: u64 = 256;
/// How long one change of the members may take: two entries, committed by a majority.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How far the members are from what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steering {
    /// They are what is wanted.
    Settled,
    /// More steps follow; why the next one has to wait, if it has to.
    Underway(Option<String>),
}

impl Consensus {
    /// Takes the next steps towards these managers (Raft id and `host:port`). Only the leader can; it steps down last,
    /// and never removes the voter without which the others have no majority.
    ///
    /// # Errors
    /// [`Error::Members`]: the step that did not succeed.
    pub async fn steer_members(&self, wanted: &BTreeMap<u64, String>) -> Result<Steering, Error> {
        let (status, own) = (self.status(), self.raft_id());
        let known: BTreeMap<u64, &Member> = status.members.iter().map(|member| (member.raft_id, member)).collect();
        self.network().retain(|id| known.contains_key(&id));
        if status.joint {
            self.change(ChangeMembers::AddVoterIds(BTreeSet::new())).await?;
            return Ok(Steering::Underway(None));
        }
        let moved: BTreeMap<u64, BasicNode> = wanted
            .iter()
            .filter(|(id, addr)| known.get(id).is_some_and(|member| member.addr != **addr))
            .map(|(id, addr)| (*id, BasicNode::new(addr)))
            .collect();
        if !moved.is_empty() {
            self.change(ChangeMembers::SetNodes(moved)).await?;
            return Ok(Steering::Underway(None));
        }
        let added: BTreeMap<u64, BasicNode> = wanted
            .iter()
            .filter(|(id, _)| !known.contains_key(id))
            .map(|(id, addr)| (*id, BasicNode::new(addr)))
            .collect();
        if !added.is_empty() {
            self.change(ChangeMembers::AddNodes(added)).await?;
            return Ok(Steering::Underway(None));
        }
        let gone: BTreeSet<u64> =
            known.values().filter(|m| !m.voter && !wanted.contains_key(&m.raft_id)).map(|m| m.raft_id).collect();
        if !gone.is_empty() {
            self.change(ChangeMembers::RemoveNodes(gone)).await?;
            return Ok(Steering::Underway(None));
        }
        let learners: Vec<&Member> = known.values().copied().filter(|member| !member.voter).collect();
        let ready: BTreeSet<u64> =
            learners.iter().filter(|member| has_caught_up(&status, member)).map(|member| member.raft_id).collect();
        if !ready.is_empty() {
            self.change(ChangeMembers::AddVoterIds(ready)).await?;
            return Ok(Steering::Underway(None));
        }
        let unwanted: Vec<&Member> =
            known.values().copied().filter(|m| m.voter && !wanted.contains_key(&m.raft_id)).collect();
        // The leader goes last: it hands over first, and its successor removes it.
        if let Some(member) = unwanted.iter().find(|member| member.raft_id != own) {
            if let Err(reason) = status.keeps_majority_without(member.raft_id) {
                return Ok(Steering::Underway(Some(reason)));
            }
            self.change(ChangeMembers::RemoveVoters(BTreeSet::from([member.raft_id]))).await?;
            return Ok(Steering::Underway(None));
        }
        if !unwanted.is_empty() {
            status.keeps_majority_without(own).map_err(Error::Members)?;
            self.hand_over_here(None).await?;
            return Ok(Steering::Underway(None));
        }
        Ok(match learners.first() {
            None => Steering::Settled,
            Some(member) => {
                Steering::Underway(Some(format!("the manager at {} has not caught up with the log", member.addr)))
            }
        })
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), Error> {
        tracing::info!(change = step(&change), "the managers change");
        match timeout(STEP_TIMEOUT, self.raft().change_membership(change, false)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::Fatal(fatal))) => Err(Error::Stopped(self.reason(Some(fatal)))),
            Ok(Err(error)) => {
                let addrs = self.status().members.into_iter().map(|member| (member.raft_id, member.addr)).collect();
                Err(Error::Members(words::change(&error, &addrs)))
            }
            Err(_) => Err(Error::Members("most managers did not confirm it in time".into())),
        }
    }
}

/// A change in words, for the log.
fn step(change: &ChangeMembers<u64, BasicNode>) -> &'static str {
    match change {
        ChangeMembers::AddVoterIds(ids) if ids.is_empty() => "a change that a former leader left half-way is finished",
        ChangeMembers::AddVoterIds(_) | ChangeMembers::AddVoters(_) => "managers that have caught up with the log vote",
        ChangeMembers::RemoveVoters(_) | ChangeMembers::ReplaceAllVoters(_) => "a manager votes no more",
        ChangeMembers::AddNodes(_) => "managers begin to learn the log",
        ChangeMembers::SetNodes(_) => "managers have other addresses",
        _ => "managers go",
    }
}

fn has_caught_up(status: &Status, member: &Member) -> bool {
    let end = status.last_log_index.unwrap_or_default();
    !member.is_silent() && member.matched_index.is_some_and(|matched| matched + LAG_MAX >= end)
}
