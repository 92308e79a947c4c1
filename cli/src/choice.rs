//! Flags that take one of a few words.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads one of `names` into the enum that has these names in JSON.
pub(crate) fn choice<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    names: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(|name| serde_json::from_value::<T>(Value::String(name)))
}

/// Names of [`swarm_model::Availability`].
pub(crate) const AVAILABILITIES: &[&str] = &["active", "pause", "drain"];
/// Names of [`swarm_model::NodeRole`].
pub(crate) const ROLES: &[&str] = &["worker", "manager"];
