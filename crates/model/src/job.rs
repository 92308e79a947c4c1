//! Jobs: services whose tasks run to their end (swarm-behaviour §3.4).

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The numbers of a replicated job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ReplicatedJob {
    /// Tasks at the same time; absent means 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u64>,
    /// Tasks in all; absent means `max_concurrent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_completions: Option<u64>,
}

impl ReplicatedJob {
    /// Tasks at the same time, the default filled in.
    pub fn concurrent(&self) -> u64 {
        self.max_concurrent.unwrap_or(1)
    }

    /// Tasks in all, the default filled in.
    pub fn total(&self) -> u64 {
        self.total_completions.unwrap_or_else(|| self.concurrent())
    }
}

/// How often a job ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The present execution, from 0. Only its tasks count.
    pub iteration: u64,
    /// When it began.
    pub last_execution: Timestamp,
}
