//! Raft in numbers.

use std::time::Duration;

use openraft::{Instant as _, RaftMetrics, async_runtime::watch::WatchReceiver};
use serde::{Deserialize, Serialize};

use swarm_core::FEATURE_LEVEL_MIN;
use swarm_model::Timestamp;

use crate::{Consensus, Role, types::Types};

/// A manager that has not been heard of by the leader for so long counts as silent: several heartbeats, and longer than
/// any pause of a healthy machine.
pub const SILENT_MS: u64 = 2_000;

/// A manager that takes part in Raft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its Raft id.
    pub raft_id: u64,
    /// Its `host:port`.
    pub addr: String,
    /// Whether it votes; otherwise it only learns.
    pub voter: bool,
    /// The last entry that it is known to have; only the leader knows.
    pub matched_index: Option<u64>,
    /// Term and Raft id of the leader that wrote this entry. One of the first version does not say it.
    #[serde(default)]
    pub matched_leader: Option<(u64, u64)>,
    /// Milliseconds since it last answered; only the leader knows.
    pub last_contact_ms: Option<u64>,
}

impl Member {
    /// Whether the leader that says this has not heard of it lately.
    pub fn is_silent(&self) -> bool {
        self.last_contact_ms.is_none_or(|ms| ms > SILENT_MS)
    }
}

/// Raft in numbers, as one manager sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Raft id of the manager that says this.
    pub raft_id: u64,
    /// The current term.
    pub term: u64,
    /// Raft id of the leader, if one is known and was heard of lately.
    pub leader: Option<u64>,
    /// Index of the last entry in the log, durable or not.
    pub last_log_index: Option<u64>,
    /// Index of the last applied entry.
    pub applied_index: Option<u64>,
    /// Index of the last entry that is known to be committed; an earlier version does not say.
    #[serde(default)]
    pub committed_index: Option<u64>,
    /// Index of the last entry in the snapshot.
    pub snapshot_index: Option<u64>,
    /// Index of the last entry that is gone from the log.
    pub purged_index: Option<u64>,
    /// Whether a change of the managers is half-way.
    pub joint: bool,
    /// The managers.
    pub members: Vec<Member>,
    /// The newest feature level that its program knows. One that says nothing is of the first version.
    #[serde(default = "first_level")]
    pub feature_level: u16,
    /// Why it takes no part any more, if it does not.
    #[serde(default)]
    pub stopped: Option<String>,
    /// Why it takes nobody's state for right: managers differ, and no majority agrees.
    #[serde(default)]
    pub undecided: Option<String>,
    /// What only this manager itself knows; where it was asked for.
    #[serde(default)]
    pub local: Option<Local>,
}

fn first_level() -> u16 {
    FEATURE_LEVEL_MIN
}

/// What only a manager itself knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Local {
    /// Its clock.
    pub clock: Timestamp,
    /// Milliseconds since it last knew that a leader leads; none if it never did, and for one of an earlier version.
    pub leader_contact_ms: Option<u64>,
    /// Size of its snapshot.
    pub snapshot_bytes: Option<u64>,
    /// Since when it has this snapshot.
    pub snapshot_age_ms: Option<u64>,
    /// Bytes that its log may still grow by.
    pub disk_free_bytes: Option<u64>,
    /// Bytes of its file system.
    pub disk_bytes: Option<u64>,
    /// Managers of which it has noticed two machines with one state folder, for people.
    pub twins: Vec<String>,
}

impl Status {
    /// Whether the manager that says this leads.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.raft_id)
    }

    /// Whether the voters that answer are still a majority without this one, which must vote to matter. Only the
    /// leader's view tells.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn keeps_majority_without(&self, raft_id: u64) -> Result<(), String> {
        if !self.members.iter().any(|member| member.voter && member.raft_id == raft_id) {
            return Ok(());
        }
        let rest: Vec<&Member> = self.members.iter().filter(|m| m.voter && m.raft_id != raft_id).collect();
        let silent: Vec<&str> = rest.iter().filter(|m| m.is_silent()).map(|m| m.addr.as_str()).collect();
        let majority = rest.len() / 2 + 1;
        if rest.len() - silent.len() >= majority {
            return Ok(());
        }
        Err(match rest.len() {
            0 => "it is the last manager".to_owned(),
            count => format!(
                "of the {count} managers that would be left, {majority} have to answer, and these do not: {}",
                silent.join(", ")
            ),
        })
    }
}

impl Consensus {
    /// Whether no other manager has spoken as the leader lately. Raft itself names the last one until it votes for
    /// another, which without a majority is never.
    fn leader_is_silent(&self) -> bool {
        self.heard_leader().is_none_or(|at| at.elapsed() > Duration::from_millis(SILENT_MS))
    }

    /// Raft in numbers. Only the leader knows how the others are.
    pub fn status(&self) -> Status {
        let metrics: RaftMetrics<Types> = self.raft().metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let stopped = match &*self.role().borrow() {
            Role::Stopped { reason } => Some(reason.clone()),
            Role::Leader { .. } | Role::Follower { .. } => None,
        };
        let leads = metrics.current_leader == Some(metrics.id) && stopped.is_none();
        let member = |id: u64, addr: &str| {
            let own = leads && id == metrics.id;
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
            let contact = metrics.heartbeat.as_ref().and_then(|all| all.get(&id).copied().flatten());
            let contact_ms = contact.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
            Member {
                raft_id: id,
                addr: addr.to_owned(),
                voter: voters.contains(&id),
                matched_index: if own { metrics.last_log_index } else { matched.map(|id| id.index) },
                matched_leader: matched.filter(|_| !own).map(|id| (id.leader_id.term, id.leader_id.node_id)),
                last_contact_ms: if own { Some(0) } else { contact_ms },
            }
        };
        Status {
            raft_id: metrics.id,
            term: metrics.current_term,
            leader: metrics.current_leader.filter(|_| leads || (stopped.is_none() && !self.leader_is_silent())),
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.map(|id| id.index),
            committed_index: metrics.cluster_committed.map(|id| id.index),
            snapshot_index: metrics.snapshot.map(|id| id.index),
            purged_index: metrics.purged.map(|id| id.index),
            joint: membership.get_joint_config().len() > 1,
            members: membership.nodes().map(|(id, node)| member(*id, &node.addr)).collect(),
            feature_level: self.feature_level(),
            stopped,
            undecided: self.undecided_watch().borrow().clone(),
            local: None,
        }
    }
}
