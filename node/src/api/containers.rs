//! `GET /containers/json`: the engine's containers, of which it does not know that some are tasks.
//!
//! An engine calls a container a task when its own swarm made it. Ours are told by their label, so that the filter
//! `is-task` becomes one for that label.

use axum::{body::Body, extract::Query};
use hyper::{Request, Response, Uri, header::CONTENT_LENGTH};
use serde_json::{Map, Value};
use swarm_docker_api::{ApiError, ApiVersion, logs::TASK_KEY};

use crate::node::Node;

/// Longest list that is looked through. An engine with ten thousand containers has about 20 MB.
const LIST_BYTES_MAX: usize = 256 << 20;

/// The query that the engine gets in the place of the client's.
#[derive(Debug, PartialEq)]
struct Asked {
    query: String,
    /// Tasks are to be left out of the answer, and so many containers of the rest be shown; 0 is all.
    others: Option<usize>,
}

/// Lists containers.
pub(super) async fn list(
    node: &Node,
    mut request: Request<Body>,
    version: Option<ApiVersion>,
    path: &str,
) -> Result<Response<Body>, ApiError> {
    let Some(asked) = translate(request.uri()) else { return node.engine().pass(request, version, path).await };
    *request.uri_mut() =
        format!("/?{}", asked.query).parse().map_err(|e| ApiError::bad_request(format!("invalid query: {e}")))?;
    let response = node.engine().pass(request, version, path).await?;
    let Some(limit) = asked.others.filter(|_| response.status().is_success()) else { return Ok(response) };
    let (mut parts, body) = response.into_parts();
    let unreadable = |problem: String| ApiError::internal(format!("the engine's list of containers: {problem}"));
    let body = axum::body::to_bytes(body, LIST_BYTES_MAX).await.map_err(|e| unreadable(e.to_string()))?;
    let list = without_tasks(&body, limit).map_err(|e| unreadable(e.to_string()))?;
    parts.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(list)))
}

/// What to ask the engine for; none where the query does not name tasks, or names them in a way that the engine is to
/// refuse.
fn translate(uri: &Uri) -> Option<Asked> {
    let Query(mut pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let (_, filters) = pairs.iter_mut().find(|(name, _)| name == "filters")?;
    let mut fields: Map<String, Value> = serde_json::from_str(filters).ok()?;
    let wants_tasks = match &values(&fields.remove("is-task")?)[..] {
        [one] => match one.as_str() {
            "1" | "true" => true,
            "0" | "false" => false,
            _ => return None,
        },
        _ => return None,
    };
    let mut others = None;
    if wants_tasks {
        let mut labels: Map<String, Value> =
            fields.get("label").map(values).unwrap_or_default().into_iter().map(|v| (v, Value::Bool(true))).collect();
        labels.insert(TASK_KEY.to_owned(), Value::Bool(true));
        fields.insert("label".to_owned(), labels.into());
    }
    *filters = Value::from(fields).to_string();
    if !wants_tasks {
        let limit =
            pairs.iter().find(|(name, _)| name == "limit").and_then(|(_, limit)| limit.parse().ok()).unwrap_or(0);
        if limit > 0 {
            // So many of all containers, running or not.
            pairs.retain(|(name, _)| name != "limit" && name != "all");
            pairs.push(("all".to_owned(), "1".to_owned()));
        }
        others = Some(limit);
    }
    Some(Asked { query: serde_urlencoded::to_string(&pairs).ok()?, others })
}

/// The values of a filter, in either of the two forms that clients send.
fn values(filter: &Value) -> Vec<String> {
    match filter {
        Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Object(values) => {
            values.iter().filter(|(_, on)| **on == Value::Bool(true)).map(|(v, _)| v.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// The list without the containers of tasks.
fn without_tasks(list: &[u8], limit: usize) -> serde_json::Result<Vec<u8>> {
    let mut list: Vec<Value> = serde_json::from_slice(list)?;
    list.retain(|container| container["Labels"].get(TASK_KEY).is_none());
    if limit > 0 {
        list.truncate(limit);
    }
    let mut list = serde_json::to_vec(&list)?;
    list.push(b'\n');
    Ok(list)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Option<Asked> {
        translate(&uri(&serde_urlencoded::to_string(pairs).expect("texts")))
    }

    fn uri(query: &str) -> Uri {
        format!("/containers/json?{query}").parse().expect("an encoded query")
    }

    fn decoded(asked: &Asked) -> Vec<(String, String)> {
        Query::try_from_uri(&uri(&asked.query)).expect("pairs").0
    }

    #[test]
    fn tasks_are_told_by_their_label() {
        for filters in [
            json!({"is-task": {"true": true}, "label": {"a=b&c": true}, "name": {"web": true}}),
            json!({"is-task": ["1"], "label": ["a=b&c"], "name": {"web": true}}),
        ] {
            let asked = asked(&[("all", "1"), ("filters", &filters.to_string()), ("limit", "3")]).unwrap();
            assert_eq!(asked.others, None);
            let pairs = decoded(&asked);
            assert_eq!((&pairs[0].0[..], &pairs[2].1[..]), ("all", "3"));
            let filters: Value = serde_json::from_str(&pairs[1].1).unwrap();
            assert_eq!(filters, json!({"label": {"a=b&c": true, TASK_KEY: true}, "name": {"web": true}}));
        }
    }

    #[test]
    fn the_rest_is_what_has_no_such_label() {
        let filters = json!({"is-task": {"false": true}}).to_string();
        let asked = asked(&[("filters", &filters), ("limit", "1")]).unwrap();
        assert_eq!(asked.others, Some(1));
        assert_eq!(decoded(&asked), [("filters".into(), "{}".into()), ("all".into(), "1".into())]);
        let list =
            json!([{"Id": "t", "Labels": {TASK_KEY: "x"}}, {"Id": "a", "Labels": {}}, {"Id": "b", "Labels": null}]);
        let shown = |limit| -> Vec<Value> {
            serde_json::from_slice(&without_tasks(list.to_string().as_bytes(), limit).unwrap()).unwrap()
        };
        assert_eq!(shown(0).len(), 2);
        assert_eq!(shown(1), [json!({"Id": "a", "Labels": {}})]);
    }

    #[test]
    fn what_is_no_such_filter_is_the_engines() {
        for filters in
            [r#"{"name": {"is-task": true}}"#, r#"{"is-task": {"maybe": true}}"#, r#"{"is-task": 1}"#, "{", ""]
        {
            assert_eq!(asked(&[("filters", filters)]), None, "{filters}");
        }
        assert_eq!(asked(&[("all", "1")]), None);
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_passed(query in "[!-~]{0,40}", filters in "\\PC{0,40}", list in "\\PC{0,40}") {
            translate(&uri(&serde_urlencoded::to_string([(&query, "1"), (&"filters".to_owned(), &filters)]).expect("texts")));
            let _ = without_tasks(list.as_bytes(), 0);
        }
    }
}
