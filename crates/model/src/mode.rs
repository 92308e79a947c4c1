//! How many tasks a service has.

use serde::{Deserialize, Serialize};

use crate::{Extra, Invalid, ReplicatedJob, known::check_mode};

/// How many tasks a service has. In JSON an object with exactly one key; with none it is one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GivenMode", into = "ModeFields")]
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

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
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

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReplicatedFields {
    replicas: Option<u64>,
}

#[derive(Serialize)]
struct NoFields {}

/// A mode as it was sent, with the fields that nobody knows.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct GivenMode {
    replicated: Option<GivenReplicated>,
    global: Option<Extra>,
    replicated_job: Option<GivenJob>,
    global_job: Option<Extra>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct GivenReplicated {
    replicas: Option<u64>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GivenJob {
    #[serde(flatten)]
    job: ReplicatedJob,
    #[serde(flatten)]
    extra: Extra,
}

impl TryFrom<GivenMode> for ServiceMode {
    type Error = Invalid;
    fn try_from(given: GivenMode) -> Result<Self, Invalid> {
        let GivenMode { replicated, global, replicated_job, global_job, mut extra } = given;
        let inner = [
            ("Replicated", replicated.as_ref().map(|r| &r.extra)),
            ("Global", global.as_ref()),
            ("ReplicatedJob", replicated_job.as_ref().map(|job| &job.extra)),
            ("GlobalJob", global_job.as_ref()),
        ];
        let inner = inner.into_iter().filter_map(|(name, fields)| Some((name.to_owned(), fields?)));
        extra.extend(inner.map(|(name, fields)| (name, fields.clone().into_iter().collect())));
        check_mode(&extra.into_iter().collect()).map_err(|unfit| Invalid(unfit.to_string()))?;
        match (replicated, global, replicated_job, global_job) {
            (None, None, None, None) => Ok(Self::default()),
            (Some(r), None, None, None) => Ok(Self::Replicated { replicas: r.replicas.unwrap_or(1) }),
            (None, Some(_), None, None) => Ok(Self::Global),
            (None, None, Some(given), None) => Ok(Self::ReplicatedJob(given.job)),
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
