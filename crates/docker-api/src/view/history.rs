//! The history of a service (`GET /swarmd/services/{id}/history`), which Docker's API has no word for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{Author, Revision, Service, ServiceSpec};

use super::{Time, is_default};

/// A spec that a service had, or has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RevisionView {
    /// Its number: what a rollback names.
    pub number: u64,
    /// The revision that was in force when it came; absent for the first.
    #[serde(skip_serializing_if = "is_default")]
    pub base: u64,
    /// When it came.
    pub created_at: Time,
    /// Whether it is in force.
    #[serde(skip_serializing_if = "is_default")]
    pub current: bool,
    /// Whether a rollback that names none goes back to it.
    #[serde(skip_serializing_if = "is_default")]
    pub previous: bool,
    /// The author of the revision; absent if the managers did not keep authors then.
    #[serde(skip_serializing_if = "is_default")]
    pub by: Option<Arc<Author>>,
    /// When it was last gone back to; absent if it never was.
    #[serde(skip_serializing_if = "is_default")]
    pub restored_at: Option<Time>,
    /// The author of that rollback: a user, or the policy of the update that failed.
    #[serde(skip_serializing_if = "is_default")]
    pub restored_by: Option<Arc<Author>>,
    /// The spec.
    pub spec: Arc<ServiceSpec>,
}

impl RevisionView {
    /// Shows a revision of a service.
    pub fn new(service: &Service, revision: &Revision) -> Self {
        Self {
            number: revision.number,
            base: revision.base,
            created_at: revision.created_at.into(),
            current: revision.number == service.revision,
            previous: service.previous.as_ref().is_some_and(|previous| previous.revision == revision.number),
            by: revision.by.clone(),
            restored_at: revision.restored.as_ref().map(|restored| restored.at.into()),
            restored_by: revision.restored.as_ref().map(|restored| restored.by.clone()),
            spec: revision.spec.clone(),
        }
    }
}
