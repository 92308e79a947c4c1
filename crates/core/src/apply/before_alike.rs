//! What an update changes, for entries that do not say so: those from below feature level 2. Managers of 0.1.0 compare
//! specs in the same way. It stays as it is.

use swarm_model::{Alike, ServiceSpec};

pub(super) fn compare(old: &ServiceSpec, new: &ServiceSpec) -> Alike {
    let (old, new) = (&with_window(old), &with_window(new));
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
    let whole = |spec: &ServiceSpec| {
        with_window(&ServiceSpec { task_template: spec.task_template.with_defaults(), ..spec.clone() })
    };
    whole(old).task_template == whole(new).task_template && endpoint(old) == endpoint(new)
}

/// To 0.1.0 no window and a window of 0 are the same.
fn with_window(spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    if let Some(policy) = &mut spec.task_template.restart_policy {
        policy.window_ns.get_or_insert(0);
    }
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn specs_are_compared_as_0_1_0_does() {
        let spec = |task: serde_json::Value| -> ServiceSpec {
            serde_json::from_value(json!({"TaskTemplate": task})).expect("test spec")
        };
        let plain = spec(json!({"RestartPolicy": {"Condition": "any"}}));
        let same = Alike { all: true, all_but_replicas: true, tasks: true, policies: true };
        assert_eq!(compare(&plain, &spec(json!({"RestartPolicy": {"Condition": "any", "Window": 0}}))), same);
        // It takes a default that is written out for another spec, which makes the same tasks.
        let written = compare(&plain, &spec(json!({"RestartPolicy": {"Condition": "any"}, "Placement": {}})));
        assert_eq!(written, Alike { all: false, all_but_replicas: false, ..same });
        let other = compare(&plain, &spec(json!({"RestartPolicy": {"Condition": "any", "Window": 1}})));
        assert_eq!(other, Alike { policies: true, ..Alike::default() });
    }
}
