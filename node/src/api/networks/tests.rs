use proptest::prelude::*;
use serde_json::json;
use swarm_model::NETWORK_NAME_LABEL;

use super::*;

#[test]
fn networks_of_the_swarm_are_known() {
    for (body, expected) in [
        (r#"{"Name": "a", "Driver": "overlay"}"#, true),
        (r#"{"Name": "a", "driver": "overlay", "Scope": ""}"#, true),
        (r#"{"Name": "a", "Scope": "swarm"}"#, true),
        (r#"{"Name": "overlay", "Driver": "bridge", "Scope": "local"}"#, false),
        (r#"{"Name": "a", "Labels": {"Driver": "overlay"}}"#, false),
        (r#"{"Driver": 7}"#, false),
        (r#"{"Driver": "overlay""#, false),
        ("[]", false),
    ] {
        assert_eq!(spans_nodes(body.as_bytes()), expected, "{body}");
    }
}

#[test]
fn the_networks_of_a_container_are_found() {
    let joined = |body: Value| {
        let fields = body.as_object().cloned().unwrap_or_default();
        shape::joined_networks(&fields).into_iter().collect::<Vec<_>>()
    };
    let body =
        json!({"hostconfig": {"NetworkMode": "a"}, "NetworkingConfig": {"endpointsConfig": {"b": {}, "a": null}}});
    assert_eq!(joined(body), ["a", "b"]);
    for own in ["", "default", "bridge", "host", "none", "container:x"] {
        assert_eq!(joined(json!({"HostConfig": {"NetworkMode": own}})), [""; 0], "{own}");
    }
    assert_eq!(joined(json!({"NetworkMode": "a"})), [""; 0]);
}

#[test]
fn a_network_that_stands_for_another_one_is_shown_as_that_one() {
    let bridge = json!({"Id": "e1", "Name": "sw4097", "Driver": "bridge", "Scope": "local", "Containers": {"c": {}},
        "Labels": {NETWORK_ID_LABEL: "n1", NETWORK_NAME_LABEL: "front", "a": "b"}});
    assert_eq!(label_of(&bridge), Some("n1"));
    assert_eq!(
        stands_for(bridge),
        json!({"Id": "n1", "Name": "front", "Driver": "overlay", "Scope": "swarm", "Containers": {"c": {}},
            "Labels": {"a": "b"}})
    );
    assert_eq!(label_of(&json!({"Labels": null})), None);
}

#[test]
fn filters_keep_what_they_said() {
    let with = |filters: &str| {
        let uri = format!("/?{}", serde_urlencoded::to_string([("filters", filters)]).unwrap()).parse().unwrap();
        let query = Query::read(&uri).unwrap().without_label("x").unwrap();
        serde_json::from_str::<Value>(query.get("filters").unwrap()).unwrap_or_default()
    };
    assert_eq!(with(""), json!({"label!": {"x": true}}));
    assert_eq!(
        with(r#"{"until": ["1h"], "label!": ["a"]}"#),
        json!({"until": ["1h"], "label!": {"a": true, "x": true}})
    );
    assert_eq!(with(r#"{"label!": {"a": true}}"#), json!({"label!": {"a": true, "x": true}}));
    assert_eq!(with("{"), Value::Null);
}

proptest! {
    #[test]
    fn any_body_is_looked_at(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        spans_nodes(&body);
        shape::name_of(&body);
    }

    #[test]
    fn any_network_is_shown(id in "\\PC{0,4}", labels in prop_oneof![Just(json!(null)), Just(json!([1])), Just(json!({"a": 1}))]) {
        let shown = stands_for(json!({"Id": id, "Labels": labels}));
        prop_assert_eq!(id_of(&shown), id);
    }

    #[test]
    fn any_query_is_read_or_refused(query in "[!-~]{0,40}") {
        if let Ok(uri) = format!("/networks?{query}").parse()
            && let Ok(query) = Query::read(&uri)
        {
            let again = format!("/{}", query.text().unwrap()).parse().unwrap();
            prop_assert_eq!(Query::read(&again).unwrap(), query);
        }
    }
}
