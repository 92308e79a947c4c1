//! What a server adds to the specs that it is sent, and what `insertDefaults` adds when they are shown.

use serde_json::Value;
use swarm_model::{ServiceMode, ServiceSpec, UpdateConfig};

/// Adds to a new spec what Docker's server adds (docker-api §5): the runtime, the isolation, the mode of an endpoint and the
/// numbers of a job. Done when a spec comes in, so that what is kept, what is shown and what a client sends back are equal.
pub fn normalize_service_spec(spec: &mut ServiceSpec) {
    if let ServiceMode::ReplicatedJob(job) = &mut spec.mode {
        // The docker CLI takes both numbers to be there (docker-api §0.14).
        (job.max_concurrent, job.total_completions) = (Some(job.concurrent()), Some(job.total()));
    }
    if let Some(endpoint) = &mut spec.endpoint_spec {
        endpoint.mode.get_or_insert_default();
    }
    if spec.task_template.runtime.is_empty() {
        spec.task_template.runtime = "container".into();
    }
    let isolation = spec.task_template.container_spec.extra.entry("Isolation".into()).or_default();
    if isolation.is_null() || *isolation == "" {
        *isolation = Value::from("default");
    }
}

/// The spec with every default written out, as `GET /services/{id}?insertDefaults=true` shows it.
pub fn with_service_defaults(spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    spec.task_template = spec.task_template.with_defaults();
    if spec.mode.is_job() {
        return spec; // A job with these policies would be refused when it comes back.
    }
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        let config = config.get_or_insert_with(UpdateConfig::when_absent);
        config.monitor_ns.get_or_insert(UpdateConfig::MONITOR_DEFAULT_NS);
    }
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(json: Value) -> ServiceSpec {
        serde_json::from_value(json).expect("test spec")
    }

    #[test]
    fn what_the_server_adds_is_added_once() {
        let mut spec = spec(json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}}));
        normalize_service_spec(&mut spec);
        assert_eq!(
            serde_json::to_value(&spec).expect("JSON"),
            json!({
                "Name": "web",
                "Labels": {},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "x", "Isolation": "default"},
                    "ForceUpdate": 0,
                    "Runtime": "container"
                },
                "Mode": {"Replicated": {"Replicas": 1}}
            })
        );
        let again = spec.clone();
        normalize_service_spec(&mut spec);
        assert_eq!(spec, again);
    }

    #[test]
    fn an_endpoint_has_a_mode() {
        let port = json!({"TargetPort": 80, "PublishMode": "host", "Protocol": "tcp"});
        for (given, expected) in [
            (json!({"Ports": [port]}), json!({"Mode": "vip", "Ports": [port]})),
            (json!({}), json!({"Mode": "vip"})),
            (json!({"Mode": "dnsrr"}), json!({"Mode": "dnsrr"})),
        ] {
            let mut spec = spec(json!({"EndpointSpec": given}));
            normalize_service_spec(&mut spec);
            assert_eq!(serde_json::to_value(spec.endpoint_spec).expect("JSON"), expected);
        }
    }

    #[test]
    fn a_job_has_both_numbers_and_no_update_policies() {
        for (given, expected) in [
            (json!({}), json!({"MaxConcurrent": 1, "TotalCompletions": 1})),
            (json!({"MaxConcurrent": 3}), json!({"MaxConcurrent": 3, "TotalCompletions": 3})),
            (json!({"TotalCompletions": 5}), json!({"MaxConcurrent": 1, "TotalCompletions": 5})),
        ] {
            let mut spec = spec(json!({"Mode": {"ReplicatedJob": given}}));
            normalize_service_spec(&mut spec);
            let json = serde_json::to_value(with_service_defaults(&spec)).expect("JSON");
            assert_eq!(json["Mode"]["ReplicatedJob"], expected);
            assert_eq!((json.get("UpdateConfig"), json.get("RollbackConfig")), (None, None));
        }
    }

    #[test]
    fn defaults_fill_only_what_is_absent() {
        let spec = with_service_defaults(&spec(json!({
            "TaskTemplate": {
                "ContainerSpec": {"Image": "x"},
                "RestartPolicy": {"Condition": "none"},
                "Resources": {"Limits": {"MemoryBytes": 8388608}}
            },
            "UpdateConfig": {"Parallelism": 0, "Order": "start-first"}
        })));
        let json = serde_json::to_value(&spec).expect("JSON");
        let task = &json["TaskTemplate"];
        assert_eq!(task["ContainerSpec"]["StopGracePeriod"], 10_000_000_000_i64);
        assert_eq!(task["RestartPolicy"], json!({"Condition": "none", "Delay": 5_000_000_000_i64, "MaxAttempts": 0}));
        assert_eq!(task["Resources"], json!({"Limits": {"MemoryBytes": 8388608}, "Reservations": {}}));
        assert_eq!(task["Placement"], json!({}));
        assert_eq!(
            (&json["UpdateConfig"]["Parallelism"], &json["RollbackConfig"]["Parallelism"]),
            (&json!(0), &json!(1))
        );
        assert_eq!(json["UpdateConfig"]["Order"], "start-first");
        assert_eq!(json["RollbackConfig"]["Monitor"], 5_000_000_000_i64);
    }
}
