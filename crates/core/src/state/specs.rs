//! The versions of services' specs.

use std::sync::{Arc, OnceLock};

use imbl::OrdMap;
use swarm_model::{CanonicalTasks, ServiceId, SpecVersion, Task};

use super::State;

/// All versions, by service and number.
pub(super) type Specs = OrdMap<(ServiceId, u64), Arc<Kept>>;

/// A version of a spec.
#[derive(Debug)]
pub(super) struct Kept {
    version: Arc<SpecVersion>,
    /// The canonical form of the parts that tasks are made from. It is made at the first comparison: an update compares it
    /// once for each of its tasks, and most versions are never compared.
    tasks: OnceLock<CanonicalTasks>,
}

impl State {
    /// A version of a service's spec: the current one, or one that a task still refers to, also after the service
    /// itself was removed.
    pub fn spec(&self, service: ServiceId, version: u64) -> Option<&Arc<SpecVersion>> {
        self.specs.get(&(service, version)).map(|kept| &kept.version)
    }

    /// All versions of all services.
    pub(super) fn all_specs(&self) -> impl Iterator<Item = &Arc<SpecVersion>> {
        self.specs.values().map(|kept| &kept.version)
    }

    /// The canonical form of the parts of a version that tasks are made from.
    pub(crate) fn canonical_tasks(&self, service: ServiceId, version: u64) -> Option<&CanonicalTasks> {
        let kept = self.specs.get(&(service, version))?;
        Some(kept.tasks.get_or_init(|| kept.version.spec.canonical_tasks()))
    }

    /// The version that a task was made from.
    pub(super) fn spec_of(&self, task: &Task) -> Arc<SpecVersion> {
        self.spec(task.service, task.spec_version).expect("a task's spec version is kept").clone()
    }

    /// Stores a version of a spec, or changes its registry credentials.
    pub(crate) fn put_spec(&mut self, version: Arc<SpecVersion>) {
        let key = (version.service, version.version);
        self.specs.insert(key, Arc::new(Kept { version, tasks: OnceLock::new() }));
    }

    /// Deletes a version of a spec if no task refers to it and its service has no use for it: it is neither the current
    /// nor the previous one, nor that of a revision in the history.
    pub(crate) fn forget_spec(&mut self, service: ServiceId, version: u64) {
        let current = self.services.get(&service).is_some_and(|s| {
            s.spec_version == version
                || s.previous.as_ref().is_some_and(|p| p.spec_version == version)
                || s.history.iter().any(|revision| revision.spec_version == version)
        });
        if !current && !self.spec_refs.contains(&(service, version)) {
            self.specs.remove(&(service, version));
        }
    }
}
