//! What differs between two specs of a service, field by field.

use std::collections::BTreeSet;

use serde_json::Value;
use swarm_model::ServiceSpec;

use crate::{
    spec_flags::notation,
    units::{ellipsis, format_bytes, format_cpus, format_duration, one_line},
};

/// Fields that hold nanoseconds.
const DURATIONS: &[&str] =
    &["Delay", "Interval", "MaxAge", "Monitor", "StartInterval", "StartPeriod", "StopGracePeriod", "Timeout", "Window"];
/// Parts of a path that say nothing where a line must be short.
const OBVIOUS: &[&str] = &["TaskTemplate", "ContainerSpec", "Mode", "Replicated", "ReplicatedJob", "EndpointSpec"];
/// Characters of a value where a line must be short.
const SHORT_VALUE_LEN_MAX: usize = 30;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Where, outermost field first.
    path: Vec<String>,
    /// What was there; none if it came.
    old: Option<String>,
    /// What is there; none if it went.
    new: Option<String>,
}

impl Difference {
    /// In full: `~ Mode.Replicated.Replicas: 2 -> 3`.
    pub(crate) fn line(&self) -> String {
        let path = self.path.join(".");
        let text = match (&self.old, &self.new) {
            (Some(old), Some(new)) => format!("~ {path}: {old} -> {new}"),
            (None, Some(new)) => format!("+ {path}: {new}"),
            (Some(old), None) => format!("- {path}: {old}"),
            (None, None) => path,
        };
        one_line(&text)
    }

    /// For a table: `Replicas 2 -> 3`.
    pub(crate) fn short(&self) -> String {
        let telling: Vec<&str> = self.path.iter().map(String::as_str).filter(|part| !OBVIOUS.contains(part)).collect();
        let cut = |value: &str| ellipsis(&one_line(value), SHORT_VALUE_LEN_MAX);
        let change = match (&self.old, &self.new) {
            (Some(old), Some(new)) => format!("{} -> {}", cut(old), cut(new)),
            (None, Some(new)) => format!("+ {}", cut(new)),
            (Some(old), None) => format!("- {}", cut(old)),
            (None, None) => String::new(),
        };
        format!("{} {change}", telling.join("."))
    }
}

/// What makes `new` differ from `old`. What means the same because it is a default is no difference.
pub(crate) fn differences(old: &ServiceSpec, new: &ServiceSpec) -> Vec<Difference> {
    let json = |spec: &ServiceSpec| {
        serde_json::to_value(spec.with_defaults()).expect("a spec has text for keys, it came as JSON")
    };
    let mut found = Vec::new();
    compare(&mut Vec::new(), &json(old), &json(new), &mut found);
    found
}

fn compare(path: &mut Vec<String>, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    if old == new || is_nothing(old) && is_nothing(new) {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                path.push(key.clone());
                compare(path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
                path.pop();
            }
        }
        (Value::Object(_), Value::Null) => compare(path, old, &Value::Object(Default::default()), found),
        (Value::Null, Value::Object(_)) => compare(path, &Value::Object(Default::default()), new, found),
        (Value::Array(_), Value::Array(_) | Value::Null) | (Value::Null, Value::Array(_)) => {
            let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
            let (gone, come) = (without(items(old), items(new)), without(items(new), items(old)));
            let texts = |items: &[Value]| items.iter().map(|item| show(path, item)).collect::<Vec<_>>();
            let (gone_texts, come_texts) = (texts(&gone), texts(&come));
            let lost = told_apart(&gone, &gone_texts, &come_texts).into_iter();
            let gained = told_apart(&come, &come_texts, &gone_texts).into_iter();
            found.extend(lost.map(|text| Difference { path: path.clone(), old: Some(text), new: None }));
            found.extend(gained.map(|text| Difference { path: path.clone(), old: None, new: Some(text) }));
            if gone.is_empty() && come.is_empty() {
                // The same items in another order, which matters to arguments and DNS servers.
                let (old, new) = (Some(show(path, old)), Some(show(path, new)));
                found.push(Difference { path: path.clone(), old, new });
            }
        }
        _ => {
            let shown = |value: &Value| (!value.is_null()).then(|| show(path, value));
            found.push(Difference { path: path.clone(), old: shown(old), new: shown(new) });
        }
    }
}

/// The texts of items, in full where others have the same text: an object that was made anew under its name has another id.
fn told_apart(items: &[Value], texts: &[String], others: &[String]) -> Vec<String> {
    let others: BTreeSet<&String> = others.iter().collect();
    let pairs = items.iter().zip(texts);
    pairs.map(|(item, text)| if others.contains(text) { item.to_string() } else { text.clone() }).collect()
}

/// The items of a list that are not in another one, each as often as it is missing there.
fn without(mut items: Vec<Value>, others: Vec<Value>) -> Vec<Value> {
    for other in others {
        if let Some(index) = items.iter().position(|item| *item == other) {
            items.remove(index);
        }
    }
    items
}

/// Whether a value is as good as absent, as Go writes it.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}

/// A value in the units that people use.
fn show(path: &[String], value: &Value) -> String {
    let field = path.last().map_or("", String::as_str);
    match (field, value.as_i64(), value) {
        (field, Some(ns), _) if DURATIONS.contains(&field) => format_duration(ns),
        ("NanoCPUs", Some(nano_cpus), _) => format_cpus(nano_cpus),
        ("MemoryBytes" | "SizeBytes", Some(bytes), _) => format_bytes(bytes),
        (_, _, Value::String(text)) if !text.is_empty() => text.clone(),
        (field, _, other) => notation(field, other).unwrap_or_else(|| other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn lines(old: Value, new: Value) -> Vec<String> {
        let read = |value| serde_json::from_value::<ServiceSpec>(value).unwrap();
        differences(&read(old), &read(new)).iter().map(Difference::line).collect()
    }

    #[test]
    fn differences_in_the_units_of_people() {
        let old = json!({"Name": "web", "Labels": {"a": "1", "b": "2"}, "Mode": {"Replicated": {"Replicas": 2}},
            "UpdateConfig": {"Parallelism": 1, "Delay": 5_000_000_000_u64},
            "TaskTemplate": {"ContainerSpec": {"Image": "hello:1", "Env": ["A=1", "B=2"], "Args": ["x", "y"]},
                "Resources": {"Limits": {"MemoryBytes": 1 << 30}}, "Future": {"x": 1}}});
        let new = json!({"Name": "web", "Labels": {"a": "1", "c": "3"}, "Mode": {"Replicated": {"Replicas": 0}},
            "UpdateConfig": {"Parallelism": 1, "Delay": 90_000_000_000_u64, "Monitor": 5_000_000_000_u64},
            "TaskTemplate": {"ContainerSpec": {"Image": "hello:2", "Env": ["A=1", "B=3"], "Args": ["y", "x"]},
                "Resources": {"Limits": {"MemoryBytes": 3 << 29, "NanoCPUs": 500_000_000}}, "Future": {"x": 2}}});
        assert_eq!(
            lines(old.clone(), new),
            [
                "- Labels.b: 2",
                "+ Labels.c: 3",
                "~ Mode.Replicated.Replicas: 2 -> 0",
                "~ TaskTemplate.ContainerSpec.Args: [\"x\",\"y\"] -> [\"y\",\"x\"]",
                "- TaskTemplate.ContainerSpec.Env: B=2",
                "+ TaskTemplate.ContainerSpec.Env: B=3",
                "~ TaskTemplate.ContainerSpec.Image: hello:1 -> hello:2",
                "~ TaskTemplate.Future.x: 1 -> 2",
                "~ TaskTemplate.Resources.Limits.MemoryBytes: 1GiB -> 1.5GiB",
                "+ TaskTemplate.Resources.Limits.NanoCPUs: 0.5",
                "~ UpdateConfig.Delay: 5s -> 1m30s",
            ]
        );
        assert!(lines(old.clone(), old).is_empty());
    }

    #[test]
    fn files_of_objects_read_as_their_flags() {
        let spec = |secrets: Value| json!({"TaskTemplate": {"ContainerSpec": {"Secrets": secrets}}});
        let secret = |id: &str, name: &str, target: &str, mode: u32| {
            json!({"SecretID": id, "SecretName": name,
            "File": {"Name": target, "UID": "0", "GID": "0", "Mode": mode}})
        };
        let (a, b) = (secret("1", "a", "a", 0o444), secret("2", "b", "/etc/b", 0o400));
        const PATH: &str = "TaskTemplate.ContainerSpec.Secrets";
        assert_eq!(
            lines(spec(json!([a])), spec(json!([b]))),
            [format!("- {PATH}: a"), format!("+ {PATH}: source=b,target=/etc/b,mode=0400")]
        );
        assert_eq!(
            lines(spec(json!([a, b])), spec(json!([b, a]))),
            [format!("~ {PATH}: [a; source=b,target=/etc/b,mode=0400] -> [source=b,target=/etc/b,mode=0400; a]")]
        );
        // Only the id tells them apart.
        let anew = lines(spec(json!([a, b])), spec(json!([secret("3", "a", "a", 0o444), b])));
        assert_eq!(anew, [format!("- {PATH}: {a}"), format!("+ {PATH}: {}", secret("3", "a", "a", 0o444))]);
    }

    #[test]
    fn short_lines_name_what_tells() {
        let difference = |path: &[&str], old: Option<&str>, new: Option<&str>| Difference {
            path: path.iter().map(ToString::to_string).collect(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let image = difference(&["TaskTemplate", "ContainerSpec", "Image"], Some("a:1"), Some("a:2"));
        assert_eq!(image.short(), "Image a:1 -> a:2");
        assert_eq!(difference(&["Labels", "tier"], None, Some("x\ny")).short(), "Labels.tier + x y");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let fields = prop::collection::btree_map("Delay|MemoryBytes|[a-z]{1,3}", inner.clone(), 0..4);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_two_values_compare(old in any_json(), new in any_json()) {
            let mut found = Vec::new();
            compare(&mut Vec::new(), &old, &new, &mut found);
            prop_assert!(found.iter().all(|difference| difference.line().lines().count() <= 1));
            prop_assert!(old != new || found.is_empty());
        }
    }
}
