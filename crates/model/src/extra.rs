//! Fields of specs that this program does not know.

use std::collections::BTreeMap;

use serde_json::Value;

/// Fields of a user's spec that this program does not know, kept as they came.
pub type Extra = BTreeMap<String, Value>;

/// Whether a value says no more than a missing field.
pub fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(says_nothing),
        Value::Object(fields) => fields.values().all(says_nothing),
    }
}
