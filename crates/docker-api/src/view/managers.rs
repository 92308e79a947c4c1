//! The managers as Raft has them: a page of this program's own (`/swarmd/managers`).

use serde::{Deserialize, Serialize};

use super::Time;

/// How the managers are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManagersView {
    /// Raft's term: how often a leader was looked for.
    pub term: u64,
    /// Id of the node that leads; empty if none does.
    pub leader: String,
    /// The feature level that the swarm uses: the lowest of its managers, when it was last raised.
    pub feature_level: u16,
    /// Index of the last entry in the log.
    pub last_log_index: u64,
    /// Index of the last entry that is applied.
    pub applied_index: u64,
    /// Index of the last entry in the newest snapshot; zero without one.
    pub snapshot_index: u64,
    /// Size of that snapshot.
    pub snapshot_bytes: Option<u64>,
    /// Milliseconds since it was written.
    pub snapshot_age_ms: Option<u64>,
    /// Each of them.
    pub managers: Vec<ManagerView>,
    /// What is wrong and does not mend itself, for people: `swarm status` ends with 1.
    pub errors: Vec<String>,
    /// What to worry about, for people.
    pub warnings: Vec<String>,
}

/// One manager.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManagerView {
    /// Id of its node.
    #[serde(rename = "ID")]
    pub id: String,
    /// Host name of its node.
    pub hostname: String,
    /// `host:port` that other managers reach it by.
    pub addr: String,
    /// `leader`, `voter`, `learner` (catches up, does not vote yet), `joining` (not in Raft yet).
    pub role: String,
    /// `reachable`, `unreachable`, `unknown`, `stopped` (it answers, and takes no part).
    pub reachability: String,
    /// Why it does not count as one of the managers, or must not, for people; empty if all is well.
    pub problem: String,
    /// The last entry that it is known to have.
    pub matched_index: Option<u64>,
    /// Entries that it lacks.
    pub lag_entries: Option<u64>,
    /// Milliseconds since it last answered the leader.
    pub last_contact_ms: Option<u64>,
    /// The last entry that it has applied.
    pub applied_index: Option<u64>,
    /// The last entry in its snapshot.
    pub snapshot_index: Option<u64>,
    /// Size of its snapshot.
    pub snapshot_bytes: Option<u64>,
    /// Milliseconds since its snapshot was written.
    pub snapshot_age_ms: Option<u64>,
    /// Bytes that its disk still has room for.
    pub disk_free_bytes: Option<u64>,
    /// Bytes of its disk.
    pub disk_bytes: Option<u64>,
    /// The newest feature level that its swarmd knows.
    pub feature_level: Option<u16>,
    /// Milliseconds that its clock is ahead of that of the manager that says this.
    pub clock_skew_ms: Option<i64>,
    /// When its certificate expires.
    pub cert_expires_at: Time,
}
