//! Limits and reservations.

use serde_json::Value;
use swarm_model::GenericResource;

use super::{draft::Draft, key_value::parse_pair};
use crate::units::{parse_bytes, parse_cpus};

/// Where the counted resources are.
pub(super) const GENERIC: &str = "TaskTemplate/Resources/Reservations/GenericResources";

/// Flags of the resources.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Resources")]
pub(super) struct ResourceFlags {
    /// CPUs that a task may use, for example 0.5
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    limit_cpu: Option<i64>,
    /// Memory that a task may use, for example 64m
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    limit_memory: Option<i64>,
    /// Processes that a task may have (0: no limit)
    #[arg(long, value_name = "N")]
    limit_pids: Option<u32>,
    /// CPUs set aside for a task
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    reserve_cpu: Option<i64>,
    /// Memory set aside for a task
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    reserve_memory: Option<i64>,
    /// Counted resource set aside for a task, for example gpu=1; can be repeated
    #[arg(long = "generic-resource", value_name = "KIND=N", value_parser = parse_generic)]
    generic_resources: Vec<GenericResource>,
}

impl ResourceFlags {
    /// Writes what is set; a zero takes a limit or a reservation away.
    pub(super) fn apply(&self, draft: &mut Draft) {
        draft.put_some("TaskTemplate/Resources/Limits/NanoCPUs", self.limit_cpu);
        draft.put_some("TaskTemplate/Resources/Limits/MemoryBytes", self.limit_memory);
        draft.put_some("TaskTemplate/Resources/Limits/Pids", self.limit_pids);
        draft.put_some("TaskTemplate/Resources/Reservations/NanoCPUs", self.reserve_cpu);
        draft.put_some("TaskTemplate/Resources/Reservations/MemoryBytes", self.reserve_memory);
        draft.merge(GENERIC, &self.generic_resources, |a, b| generic_kind(a) == generic_kind(b));
    }
}

/// The kind of a generic resource, counted or named.
pub(super) fn generic_kind(resource: &Value) -> Option<&str> {
    let resource = resource.get("DiscreteResourceSpec").or_else(|| resource.get("NamedResourceSpec"));
    resource.and_then(|resource| resource.get("Kind")).and_then(Value::as_str)
}

fn parse_generic(text: &str) -> Result<GenericResource, String> {
    let (kind, value) = parse_pair(text)?;
    match value.parse() {
        Ok(value) if value >= 0 => Ok(GenericResource::Discrete { kind, value }),
        _ => Err(format!("'{value}' in '{text}' is not a number; write for example gpu=1")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec_flags::testing::spec;

    #[test]
    fn limits_and_reservations() {
        let line = ["--limit-cpu", ".5", "--limit-memory", "64m", "--limit-pids", "9", "--reserve-memory", "8MiB"];
        let line = [&line[..], &["--generic-resource", "gpu=2", "x"]].concat();
        assert_eq!(
            serde_json::to_value(spec(&line).unwrap().task_template.resources).unwrap(),
            json!({"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 9},
                "Reservations": {"MemoryBytes": 8_388_608,
                    "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]}})
        );
        assert_eq!(spec(&["x"]).unwrap().task_template.resources, None);
        assert!(spec(&["--generic-resource", "gpu=many", "x"]).is_err_and(|e| e.contains("'many'")));
        assert!(spec(&["--limit-memory", "lots", "x"]).is_err_and(|e| e.contains("'lots'")));
    }
}
