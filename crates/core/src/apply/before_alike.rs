//! What an update changes, for entries that do not say so: those from below feature level 2. Managers of 0.1.0 compare
//! specs in the same way. It stays as it is.

use swarm_model::{Alike, ServiceSpec, TaskSpec};

pub(super) fn compare(old: &ServiceSpec, new: &ServiceSpec) -> Alike {
    let policies = |spec: &ServiceSpec| (spec.update_config.clone(), spec.rollback_config.clone());
    let without_mode = |spec: &ServiceSpec| ServiceSpec { mode: Default::default(), ..spec.clone() };
    Alike {
        all: old == new,
        all_but_replicas: without_mode(old) == without_mode(new),
        tasks: makes_same_tasks(old, new),
        policies: policies(old) == policies(new),
    }
}

fn makes_same_tasks(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    let endpoint = |spec: &ServiceSpec| {
        let mut endpoint = spec.endpoint_spec.clone().unwrap_or_default();
        endpoint.mode.get_or_insert_default();
        endpoint
    };
    // The server writes out no window, and shows the one that it was sent.
    let whole = |task: &TaskSpec| {
        let mut task = task.with_defaults();
        if let Some(policy) = &mut task.restart_policy {
            policy.window_ns.get_or_insert(0);
        }
        task
    };
    whole(&old.task_template) == whole(&new.task_template) && endpoint(old) == endpoint(new)
}
