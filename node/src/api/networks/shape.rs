//! Queries, and the descriptions of networks and containers, as clients and engines write them.

use std::collections::BTreeSet;

use hyper::Uri;
use serde_json::{Map, Value};
use swarm_docker_api::{ApiError, view::SWARM_SCOPE};
use swarm_model::{NETWORK_ID_LABEL, NETWORK_NAME_LABEL, OVERLAY_DRIVER, PREDEFINED_NETWORKS};

/// The query of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(uri: &Uri) -> Result<Self, ApiError> {
        serde_urlencoded::from_str(uri.query().unwrap_or_default()).map(Self).map_err(|error| invalid(&error))
    }

    /// A list of what has a label.
    pub(super) fn of_label(label: &str) -> Result<Self, ApiError> {
        let filters =
            serde_json::to_string(&serde_json::json!({"label": {label: true}})).map_err(|error| invalid(&error))?;
        Ok(Self(vec![("filters".to_owned(), filters)]))
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The same, for what has not this label either. Filters that cannot be read are the engine's to refuse.
    pub(super) fn without_label(&self, label: &str) -> Result<Self, ApiError> {
        let filters = self.get("filters").filter(|filters| !filters.is_empty()).unwrap_or("{}");
        let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(filters) else { return Ok(self.clone()) };
        let mut labels: Map<String, Value> = match fields.remove("label!") {
            Some(Value::Object(labels)) => labels,
            Some(Value::Array(labels)) => {
                labels.iter().filter_map(Value::as_str).map(|label| (label.to_owned(), true.into())).collect()
            }
            _ => Map::new(),
        };
        labels.insert(label.to_owned(), true.into());
        fields.insert("label!".to_owned(), labels.into());
        let filters = serde_json::to_string(&fields).map_err(|error| invalid(&error))?;
        let others = self.0.iter().filter(|(name, _)| name != "filters").cloned();
        Ok(Self(others.chain([("filters".to_owned(), filters)]).collect()))
    }

    /// As it stands behind a path.
    pub(super) fn text(&self) -> Result<String, ApiError> {
        match &self.0[..] {
            [] => Ok(String::new()),
            pairs => {
                serde_urlencoded::to_string(pairs).map(|query| format!("?{query}")).map_err(|error| invalid(&error))
            }
        }
    }
}

fn invalid(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("invalid query: {error}"))
}

/// Whether a description asks for a network of the swarm. What is no description is the engine's to refuse.
pub(super) fn spans_nodes(body: &[u8]) -> bool {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let says = |name: &str, value: &str| field(&fields, name).is_some_and(|given| given == value);
    says("Driver", OVERLAY_DRIVER) || says("Scope", SWARM_SCOPE)
}

/// The name in a description of a network.
pub(super) fn name_of(body: &[u8]) -> Option<String> {
    let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    field(&fields, "Name")?.as_str().map(str::to_owned)
}

/// A field. Names of fields are read as the engine reads them, in any case.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The networks that a description of a container names, but for those that every engine has.
pub(super) fn joined_networks(body: &[u8]) -> BTreeSet<String> {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let inner = |outer: &str, name: &str| field(field(&fields, outer)?.as_object()?, name);
    let mode = inner("HostConfig", "NetworkMode").and_then(Value::as_str).map(str::to_owned);
    let endpoints = inner("NetworkingConfig", "EndpointsConfig").and_then(Value::as_object);
    let names = mode.into_iter().chain(endpoints.into_iter().flat_map(|endpoints| endpoints.keys().cloned()));
    let is_own = |name: &String| !matches!(name.as_str(), "" | "default") && !name.starts_with("container:");
    names.filter(|name| is_own(name) && !PREDEFINED_NETWORKS.contains(&name.as_str())).collect()
}

/// The id of a network.
pub(super) fn id_of(network: &Value) -> &str {
    network.get("Id").and_then(Value::as_str).unwrap_or_default()
}

/// Whether a text is the whole id or the whole name of a network.
pub(super) fn is_exactly(network: &Value, text: &str) -> bool {
    id_of(network) == text
        || network.get("Name").and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case(text))
}

/// The id of the network of the swarm that a network of the engine stands for; none if it stands for itself.
pub(super) fn label_of(network: &Value) -> Option<&str> {
    network.get("Labels")?.get(NETWORK_ID_LABEL)?.as_str()
}

/// A network of the engine, shown as the network of the swarm that it stands for.
pub(super) fn stands_for(mut network: Value) -> Value {
    let label = |name: &str| network.get("Labels").and_then(|labels| labels.get(name)).cloned();
    let (id, name) = (label(NETWORK_ID_LABEL), label(NETWORK_NAME_LABEL));
    let Some(fields) = network.as_object_mut() else { return network };
    let scope =
        [("Scope", SWARM_SCOPE), ("Driver", OVERLAY_DRIVER)].map(|(field, value)| (field, Some(Value::from(value))));
    for (field, value) in [("Id", id), ("Name", name)].into_iter().chain(scope) {
        if let Some(value) = value {
            fields.insert(field.to_owned(), value);
        }
    }
    if let Some(labels) = fields.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.remove(NETWORK_ID_LABEL);
        labels.remove(NETWORK_NAME_LABEL);
    }
    network
}
