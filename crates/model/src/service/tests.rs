use super::*;

fn spec(json: &str) -> ServiceSpec {
    serde_json::from_str(json).expect("test spec")
}

/// What docker-py does: it reads a service with its defaults and sends them back.
#[test]
fn defaults_that_are_written_out_make_no_new_tasks() {
    let short = spec(r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"}}}"#);
    let long = ServiceSpec {
        task_template: short.task_template.with_defaults(),
        endpoint_spec: Some(spec(r#"{"EndpointSpec":{"Mode":"vip"}}"#).endpoint_spec.expect("given")),
        ..short.clone()
    };
    assert_ne!(short, long);
    assert!(short.makes_same_tasks(&long) && long.makes_same_tasks(&short));
    let window = r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"},"RestartPolicy":{"Condition":"any","MaxAttempts":0,"Window":0}}}"#;
    assert!(short.makes_same_tasks(&spec(window)) && spec(window).makes_same_tasks(&long));
    let shown = serde_json::to_value(spec(window)).expect("JSON");
    assert_eq!(shown["TaskTemplate"]["RestartPolicy"]["Window"], 0, "as it was sent");
    let other = spec(r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x","StopGracePeriod":1}}}"#);
    assert!(!short.makes_same_tasks(&other));
}
