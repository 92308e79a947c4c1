//! When two specs of a service say the same.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ServiceMode, ServiceSpec, UpdateConfig};

/// Fields whose keys and values are the user's: an empty value there is a value.
const USERS_MAPS: [&str; 4] = ["Labels", "Options", "DriverOpts", "Sysctls"];

/// A spec in canonical form: every default is written out, and what is empty or null is left out. Two specs say the same
/// if their canonical forms are equal; nothing else tells.
#[derive(Clone, Debug, PartialEq)]
pub struct CanonicalSpec(Map<String, Value>);

/// The parts of a spec that its tasks are made from, in canonical form: the template and the endpoint (swarm-behaviour
/// §4.1).
#[derive(Clone, Debug, PartialEq)]
pub struct CanonicalTasks {
    /// Without the placement.
    template: Value,
    placement: Option<Value>,
    endpoint: Option<Value>,
}

impl CanonicalTasks {
    /// Whether nothing but the nodes differs that the tasks may run on.
    pub fn differ_only_in_placement(&self, other: &Self) -> bool {
        (&self.template, &self.endpoint) == (&other.template, &other.endpoint)
    }
}

/// The parts of a service's spec that say the same as in the spec before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alike {
    /// All of it.
    pub all: bool,
    /// All but the number of replicas.
    pub all_but_replicas: bool,
    /// The parts that tasks are made from: the template and the endpoint (swarm-behaviour §4.1).
    pub tasks: bool,
    /// The policies of updates and rollbacks.
    pub policies: bool,
}

impl CanonicalSpec {
    fn fields_equal(&self, other: &Self, fields: &[&str]) -> bool {
        fields.iter().all(|field| self.0.get(*field) == other.0.get(*field))
    }

    /// Compares the parts of two specs.
    pub fn compare(&self, other: &Self) -> Alike {
        let but_mode = |spec: &Self| -> Map<String, Value> {
            spec.0.iter().filter(|(field, _)| *field != "Mode").map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        Alike {
            all: self == other,
            all_but_replicas: but_mode(self) == but_mode(other),
            tasks: self.fields_equal(other, &["TaskTemplate", "EndpointSpec"]),
            policies: self.fields_equal(other, &["UpdateConfig", "RollbackConfig"]),
        }
    }
}

impl ServiceSpec {
    /// Brings it into the form in which the cluster keeps it: what the server writes out when a client does not.
    pub fn normalize(&mut self) {
        if let ServiceMode::ReplicatedJob(job) = &mut self.mode {
            // The docker CLI takes both numbers to be there (docker-api §0.14).
            (job.max_concurrent, job.total_completions) = (Some(job.concurrent()), Some(job.total()));
        }
        if let Some(endpoint) = &mut self.endpoint_spec {
            endpoint.mode.get_or_insert_default();
        }
        if self.task_template.runtime.is_empty() {
            self.task_template.runtime = "container".into();
        }
        let isolation = self.task_template.container_spec.extra.entry("Isolation".into()).or_default();
        if isolation.is_null() || *isolation == "" {
            *isolation = Value::from("default");
        }
    }

    /// The same with every default written out, as `GET /services/{id}?insertDefaults=true` shows it.
    #[must_use]
    pub fn with_defaults(&self) -> Self {
        let mut spec = self.clone();
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

    /// Its canonical form.
    pub fn canonical(&self) -> CanonicalSpec {
        let mut spec = self.with_defaults();
        spec.normalize();
        spec.endpoint_spec.get_or_insert_default().mode.get_or_insert_default();
        spec.task_template.restart_policy.get_or_insert_default().window_ns.get_or_insert(0);
        match serde_json::to_value(spec).map(without_empty) {
            Ok(Some(Value::Object(fields))) => CanonicalSpec(fields),
            _ => unreachable!("a spec is written as an object, and has a mode"),
        }
    }

    /// The parts that its tasks are made from.
    pub fn canonical_tasks(&self) -> CanonicalTasks {
        let CanonicalSpec(mut fields) = self.canonical();
        let mut template = fields.remove("TaskTemplate").unwrap_or_default();
        let placement = template.as_object_mut().and_then(|template| template.remove("Placement"));
        CanonicalTasks { template, placement, endpoint: fields.remove("EndpointSpec") }
    }

    /// Whether a task of this spec is as good as one of the other.
    pub fn makes_same_tasks(&self, other: &Self) -> bool {
        self.canonical_tasks() == other.canonical_tasks()
    }
}

/// A value without the fields in it that are empty; none if nothing is left. The items of a list stay: their places count.
fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            let items = items.into_iter().map(|item| match item {
                Value::Object(_) => without_empty(item).unwrap_or_else(|| Value::Object(Map::new())),
                item => item,
            });
            Some(Value::Array(items.collect()))
        }
        Value::Object(fields) => {
            let fields = fields.into_iter().filter_map(|(key, value)| match value {
                Value::Object(map) if USERS_MAPS.contains(&key.as_str()) => {
                    (!map.is_empty()).then_some((key, Value::Object(map)))
                }
                // A mode without numbers is an empty object, and says which one it is.
                mode @ Value::Object(_) if key == "Mode" => Some((key, mode)),
                value => Some((key, without_empty(value)?)),
            });
            let fields: Map<String, Value> = fields.collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        value => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::RestartPolicy;

    fn spec(json: Value) -> ServiceSpec {
        serde_json::from_value(json).expect("test spec")
    }

    fn web(container: Value) -> ServiceSpec {
        spec(json!({"Name": "web", "TaskTemplate": {"ContainerSpec": container}}))
    }

    #[test]
    fn what_is_empty_or_null_or_a_default_says_the_same_as_nothing() {
        let short = web(json!({"Image": "x"}));
        for long in [
            json!({"Name": "web", "Labels": {}, "Networks": null, "TaskTemplate": {"ContainerSpec": {"Image": "x", "Env": [], "Configs": null}}}),
            json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "x", "Secrets": [], "DNSConfig": {}}, "Placement": {}}}),
            json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "x", "Unknown": {"A": [], "B": ""}},
                "Resources": {"Limits": {}, "Reservations": null}, "LogDriver": null, "Networks": []}}),
            json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "x", "StopGracePeriod": 10_000_000_000_u64},
                "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64, "MaxAttempts": 0, "Window": 0}, "Runtime": "container"},
                "Mode": {"Replicated": {"Replicas": 1}}, "EndpointSpec": {"Mode": "vip", "Ports": []},
                "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_u64, "MaxFailureRatio": 0, "Order": "stop-first"}}),
        ] {
            let long = spec(long);
            assert_eq!(short.canonical(), long.canonical());
            let alike = short.canonical().compare(&long.canonical());
            assert!(alike.all && alike.all_but_replicas && alike.tasks && alike.policies);
            assert!(short.makes_same_tasks(&long) && long.makes_same_tasks(&short));
        }
    }

    #[test]
    fn what_means_something_else_is_told_apart() {
        let plain = web(json!({"Image": "x"}));
        for other in [
            json!({"Image": "x", "Init": false}),
            json!({"Image": "x", "Labels": {"a": ""}}),
            json!({"Image": "x", "StopGracePeriod": 0}),
            json!({"Image": "x", "Args": [""]}),
            json!({"Image": "x", "Unknown": {"A": 1}}),
        ] {
            let other = web(other);
            assert!(!plain.canonical().compare(&other.canonical()).tasks, "{other:?}");
        }
        let numbers = |mode: Value| spec(json!({"Mode": mode})).canonical();
        assert_ne!(numbers(json!({"Global": {}})), numbers(json!({"GlobalJob": {}})));
        let (two, none) =
            (numbers(json!({"Replicated": {"Replicas": 2}})), numbers(json!({"Replicated": {"Replicas": 0}})));
        let alike = two.compare(&none);
        assert!(!alike.all && alike.all_but_replicas && alike.tasks && alike.policies);
        let labelled = spec(json!({"Labels": {"a": "b"}})).canonical().compare(&spec(json!({})).canonical());
        assert!(!labelled.all && !labelled.all_but_replicas && labelled.tasks && labelled.policies);
        let updates =
            spec(json!({"UpdateConfig": {"Parallelism": 0}})).canonical().compare(&spec(json!({})).canonical());
        assert!(!updates.all && updates.tasks && !updates.policies);
    }

    #[test]
    fn what_the_server_adds_is_added_once() {
        let mut spec = spec(json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}}));
        spec.normalize();
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
        spec.normalize();
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
            spec.normalize();
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
            spec.normalize();
            let json = serde_json::to_value(spec.with_defaults()).expect("JSON");
            assert_eq!(json["Mode"]["ReplicatedJob"], expected);
            assert_eq!((json.get("UpdateConfig"), json.get("RollbackConfig")), (None, None));
        }
    }

    #[test]
    fn defaults_fill_only_what_is_absent() {
        let spec = spec(json!({
            "TaskTemplate": {
                "ContainerSpec": {"Image": "x"},
                "RestartPolicy": {"Condition": "none"},
                "Resources": {"Limits": {"MemoryBytes": 8388608}}
            },
            "UpdateConfig": {"Parallelism": 0, "Order": "start-first"}
        }))
        .with_defaults();
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

    proptest! {
        /// A client that reads a spec with or without its defaults and sends it back changes nothing.
        #[test]
        fn a_spec_that_is_sent_back_says_the_same(
            image in "[a-z]{0,3}", env in prop::option::of(prop::collection::vec("[A-C]=[a-b]?", 0..3)),
            window in prop::option::of(0..3_i64), replicas in 0..3_u64, init in prop::option::of(any::<bool>()),
        ) {
            let mut given = spec(json!({
                "TaskTemplate": {"ContainerSpec": {"Image": image, "Init": init}},
                "Mode": {"Replicated": {"Replicas": replicas}},
            }));
            given.task_template.container_spec.env = env.unwrap_or_default();
            given.task_template.restart_policy =
                window.map(|window| RestartPolicy { window_ns: Some(window), ..RestartPolicy::default() });
            let mut kept = given.clone();
            kept.normalize();
            let shown = spec(serde_json::to_value(kept.with_defaults()).expect("JSON"));
            for other in [&kept, &shown] {
                prop_assert_eq!(given.canonical(), other.canonical());
            }
        }
    }
}
