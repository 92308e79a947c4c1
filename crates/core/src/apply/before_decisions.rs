//! The decisions that managers of 0.1.0 make while they apply an entry. An entry from before feature level 2 does not say
//! which parts of a spec it changes, nor which stamp the spec gets. So each manager decides both by itself, and all of them
//! must come to the same result. This code never changes.

use swarm_model::{Alike, Service, ServiceSpec, TaskSpec};

/// The stamp of a service that is new.
pub(super) const STAMP_FIRST: u64 = 1;

/// Step of the stamp when a plan sets the spec, for a failed update. With the step of users, the rest of a plan whose
/// rollback was refused would hold after a user had set the spec. No user sets a spec so often.
const STAMPS_BY_HAND: u64 = 1 << 32;

/// The stamp of a service whose spec is set again, by hand or by a plan.
pub(super) fn next_stamp(service: &Service, by_hand: bool) -> u64 {
    service.stamp.wrapping_add(if by_hand { 1 } else { STAMPS_BY_HAND })
}

pub(super) fn compare(old: &ServiceSpec, new: &ServiceSpec) -> Alike {
    let as_known =
        |spec: &ServiceSpec| ServiceSpec { task_template: with_window(spec.task_template.clone()), ..spec.clone() };
    let (old, new) = (&as_known(old), &as_known(new));
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
    let task = |spec: &ServiceSpec| with_window(spec.task_template.with_defaults());
    task(old) == task(new) && endpoint(old) == endpoint(new)
}

/// To 0.1.0 no window and a window of 0 are the same.
fn with_window(mut task: TaskSpec) -> TaskSpec {
    if let Some(policy) = &mut task.restart_policy {
        policy.window_ns.get_or_insert(0);
    }
    task
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
