//! How many tasks a service has.

use serde::{Deserialize, Serialize};

use crate::{Invalid, ReplicatedJob};

/// How many tasks a service has. In JSON an object with exactly one key; with none it is one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ModeFields", into = "ModeFields")]
pub enum ServiceMode {
    /// A number of tasks, spread over the nodes.
    Replicated {
        /// Tasks to keep running.
        replicas: u64,
    },
    /// One task on each eligible node.
    Global,
    /// A number of tasks that run to completion.
    ReplicatedJob(ReplicatedJob),
    /// One task on each eligible node, run to completion.
    GlobalJob,
}

impl ServiceMode {
    /// Whether its tasks run to their end.
    pub fn is_job(&self) -> bool {
        matches!(self, Self::ReplicatedJob(_) | Self::GlobalJob)
    }

    /// Whether each eligible node has one task, instead of there being a number of them.
    pub fn is_global(&self) -> bool {
        matches!(self, Self::Global | Self::GlobalJob)
    }
}

impl Default for ServiceMode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, expecting = "an object such as {\"Replicated\": {\"Replicas\": 3}}")]
struct ModeFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    replicated: Option<ReplicatedFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    global: Option<NoFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicated_job: Option<ReplicatedJob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    global_job: Option<NoFields>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, expecting = "an object such as {\"Replicas\": 3}")]
struct ReplicatedFields {
    replicas: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(expecting = "an empty object")]
struct NoFields {}

impl TryFrom<ModeFields> for ServiceMode {
    type Error = Invalid;
    fn try_from(m: ModeFields) -> Result<Self, Invalid> {
        match (m.replicated, m.global, m.replicated_job, m.global_job) {
            (None, None, None, None) => Ok(Self::default()),
            (Some(r), None, None, None) => Ok(Self::Replicated { replicas: r.replicas.unwrap_or(1) }),
            (None, Some(_), None, None) => Ok(Self::Global),
            (None, None, Some(job), None) => Ok(Self::ReplicatedJob(job)),
            (None, None, None, Some(_)) => Ok(Self::GlobalJob),
            _ => Err(Invalid::new("must specify only one service mode")),
        }
    }
}

impl From<ServiceMode> for ModeFields {
    fn from(mode: ServiceMode) -> Self {
        let mut m = Self::default();
        match mode {
            ServiceMode::Replicated { replicas } => {
                m.replicated = Some(ReplicatedFields { replicas: Some(replicas) });
            }
            ServiceMode::Global => m.global = Some(NoFields {}),
            ServiceMode::ReplicatedJob(job) => m.replicated_job = Some(job),
            ServiceMode::GlobalJob => m.global_job = Some(NoFields {}),
        }
        m
    }
}
