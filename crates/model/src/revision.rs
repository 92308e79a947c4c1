//! The history of a service's spec: what a rollback can go back to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Author, Service, ServiceSpec, Timestamp};

/// Revisions kept of a service, the one in force included: a rollback reaches nine releases back (design §4.8).
pub const REVISIONS_MAX: usize = 10;

/// A spec that a service had, or has. Every change of the spec makes one; going back to one makes none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number: 1 for the spec that the service was made with, then counting up.
    pub number: u64,
    /// The revision that was in force when it came; 0 for the first.
    pub base: u64,
    /// When it came (the cluster's clock).
    pub created_at: Timestamp,
    /// The spec.
    pub spec: Arc<ServiceSpec>,
    /// The [`SpecVersion`](crate::SpecVersion) of its tasks.
    pub spec_version: u64,
    /// Whether it changed the number of replicas and nothing else. Kept, for to find out again with each change takes a
    /// look at every spec of the history.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scales: bool,
    /// The author of the revision; none below feature level 2, where authors are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<Author>>,
    /// When it last was gone back to, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// A rollback to a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// When (the cluster's clock).
    pub at: Timestamp,
    /// The author of the rollback: a user, or the policy of the update that failed.
    pub by: Arc<Author>,
}

impl Service {
    /// Adds the spec in force to the history as a new revision, which `by` asked for. `scales` says that the revision changes
    /// the number of replicas and nothing else. When there are more than [`REVISIONS_MAX`], one goes: the oldest that only
    /// scales, since many of those must not push out the releases; or else the oldest. Neither the revision in force nor the
    /// one that a rollback leads to goes.
    pub fn record_revision(&mut self, scales: bool, at: Timestamp, by: Option<Arc<Author>>) {
        let number = self.history.last().map_or(0, |newest| newest.number) + 1;
        let (base, spec, spec_version) = (self.revision, self.spec.clone(), self.spec_version);
        let restored = None;
        self.history.push(Revision { number, base, created_at: at, spec, spec_version, scales, by, restored });
        self.revision = number;
        let previous = self.previous.as_ref().map(|previous| previous.revision);
        let may_go = |revision: &Revision| revision.number != number && Some(revision.number) != previous;
        while self.history.len() > REVISIONS_MAX {
            // The oldest one of all is no other one scaled: that is gone.
            let scales = (1..self.history.len()).find(|i| may_go(&self.history[*i]) && self.history[*i].scales);
            match scales.or_else(|| self.history.iter().position(may_go)) {
                Some(index) => drop(self.history.remove(index)),
                None => return,
            }
        }
    }
}
