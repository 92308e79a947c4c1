//! Rolling updates: their policy, which users write, and their state, which the cluster keeps.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Extra, TaskId, Timestamp};

/// Policy of a rolling update or a rollback (swarm-behaviour §4).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateConfig {
    /// Slots replaced at the same time; 0 is all at once.
    pub parallelism: u64,
    /// Nanoseconds between two slots of one worker.
    #[serde(rename = "Delay", skip_serializing_if = "is_zero")]
    pub delay_ns: i64,
    /// What a failure leads to.
    pub failure_action: FailureAction,
    /// Nanoseconds during which the end of a new task counts as a failure; absent means 5 s.
    #[serde(rename = "Monitor", skip_serializing_if = "Option::is_none")]
    pub monitor_ns: Option<i64>,
    /// Share of failed slots that is tolerated, 0 to 1.
    pub max_failure_ratio: f32,
    /// Whether the old task stops before the new one starts.
    pub order: UpdateOrder,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl UpdateConfig {
    /// How long new tasks are watched when nothing is said: 5 s (swarm-behaviour §1.5).
    pub const MONITOR_DEFAULT_NS: i64 = 5_000_000_000;

    /// The policy when none is given: one slot at a time. A block that leaves the parallelism out means all at once.
    pub fn when_absent() -> Self {
        Self { parallelism: 1, ..Self::default() }
    }

    /// The watch time with its default.
    pub fn monitor_or_default_ns(&self) -> i64 {
        self.monitor_ns.unwrap_or(Self::MONITOR_DEFAULT_NS)
    }
}

/// What too many failures of an update lead to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// Stop where it is.
    #[default]
    #[serde(alias = "")]
    Pause,
    /// Ignore failures.
    Continue,
    /// Go back to the previous spec.
    Rollback,
}

/// Order of stopping and starting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// Stop the old task, then start the new one.
    #[default]
    #[serde(alias = "")]
    StopFirst,
    /// Start the new task, then stop the old one.
    StartFirst,
}

/// How far an update is (swarm-behaviour §4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Under way.
    Updating,
    /// Stopped after too many failures.
    Paused,
    /// Done.
    Completed,
    /// Going back to the previous spec.
    RollbackStarted,
    /// The way back failed too.
    RollbackPaused,
    /// Back at the previous spec.
    RollbackCompleted,
}

impl UpdateState {
    /// The name that Docker's API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackPaused => "rollback_paused",
            Self::RollbackCompleted => "rollback_completed",
        }
    }

    /// Whether it replaces tasks.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Updating | Self::RollbackStarted)
    }

    /// Whether it stopped half-way after too many failures.
    pub const fn is_paused(self) -> bool {
        matches!(self, Self::Paused | Self::RollbackPaused)
    }
}

/// A rolling update or rollback. All that it needs to go on under another leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// How far it is.
    pub state: UpdateState,
    /// When it began; tasks made for it are not older.
    pub started_at: Timestamp,
    /// When it was done.
    pub completed_at: Option<Timestamp>,
    /// For people.
    pub message: Arc<str>,
    /// Slots that were to be replaced when it began: what the failure ratio counts against.
    pub slots: u32,
    /// Tasks made for it that failed while they were watched.
    pub failed: std::collections::BTreeSet<TaskId>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}
