//! Templates in a spec, filled in on the node (swarm-behaviour §7.5).

use swarm_template::spec::{self, Sources, Task};

use crate::executor::ContainerRequest;

/// Fills in a text.
///
/// # Errors
/// A placeholder that cannot be filled in, for people.
pub(crate) fn expand(text: &str, request: &ContainerRequest) -> Result<String, String> {
    with_task(request, |task| spec::expand(text, task)).map_err(|error| error.to_string())
}

/// Fills in the data of a secret or of a config.
///
/// # Errors
/// A placeholder that cannot be filled in, for people. The text shows nothing of secrets.
pub(crate) fn expand_payload(text: &str, request: &ContainerRequest, from: &dyn Sources) -> Result<String, String> {
    with_task(request, |task| spec::expand_payload(text, task, from)).map_err(|error| error.to_string())
}

fn with_task<T>(request: &ContainerRequest, work: impl FnOnce(&Task<'_>) -> T) -> T {
    let ContainerRequest { node, task, spec, .. } = request;
    work(&Task {
        service_id: &task.service.to_string(),
        service_name: &spec.service_name,
        service_labels: &spec.service_labels,
        node_id: &node.id.to_string(),
        hostname: &node.hostname,
        os: &node.platform.os,
        architecture: &node.platform.architecture,
        id: &task.id.to_string(),
        name: &request.name(),
        slot: &request.slot(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_model::{DesiredState, NodeId, Platform};

    use super::*;
    use crate::{
        executor::NodeIdentity,
        testing::{assigned_spec, assigned_task},
    };

    fn request() -> ContainerRequest {
        let mut spec = assigned_spec("hello:1");
        spec.service_labels.insert("tier".into(), "front".into());
        spec.service_labels.insert("com.example.team".into(), "blue".into());
        let platform = Platform { os: "linux".into(), architecture: "x86_64".into() };
        let node = NodeIdentity { id: NodeId(3), hostname: "one".into(), platform, bind_addr: None };
        ContainerRequest {
            node: node.into(),
            task: assigned_task(7, DesiredState::Running),
            spec: spec.into(),
            objects: [].into(),
        }
    }

    #[test]
    fn known_keys() {
        let request = request();
        for (text, expected) in [
            ("plain", "plain".to_owned()),
            ("NAME={{.Service.Name}}-{{ .Task.Slot }}", "NAME=web-1".into()),
            ("{{.Task.Name}}", request.name()),
            ("{{.Task.ID}}", request.task.id.to_string()),
            ("{{.Service.ID}}", request.task.service.to_string()),
            ("{{.Node.ID}}@{{.Node.Hostname}}", format!("{}@one", NodeId(3))),
            ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64".into()),
            ("{{.Service.Labels.tier}}", "front".into()),
            ("{{index .Service.Labels \"com.example.team\"}}", "blue".into()),
            ("{{index .Service.Labels `tier`}}!", "front!".into()),
            ("{{if eq .Task.Slot \"1\"}}first{{else}}other{{end}}", "first".into()),
            ("{{join \"-\" .Service.Name .Task.Slot | upper}}", "WEB-1".into()),
            (
                "{{range $key, $value := .Service.Labels}}{{$key}}={{$value}};{{end}}",
                "com.example.team=blue;tier=front;".into(),
            ),
        ] {
            assert_eq!(expand(text, &request).as_deref(), Ok(expected.as_str()), "{text}");
        }
    }

    #[test]
    fn the_slot_of_a_global_task_is_its_node() {
        let mut request = request();
        request.task.slot = None;
        let expected = format!("{0} web.{0}.{1}", request.node.id, request.task.id);
        assert_eq!(expand("{{.Task.Slot}} {{.Task.Name}}", &request), Ok(expected));
    }

    #[test]
    fn what_is_not_known_is_said() {
        for (text, part) in [
            ("{{.Task.Name", "missing"),
            ("{{.Node.Color}}", "unknown field '.Node.Color'; the fields there are: Hostname, ID, Platform"),
            ("{{.Service.Labels.missing}}", "unknown field '.Service.Labels.missing'"),
            ("{{if .Service.Labels.missing}}x{{end}}", "unknown field"),
            ("{{index .Service.Labels \"}}", "quote"),
            ("{{}}", "empty"),
        ] {
            let error = expand(text, &request()).expect_err(text);
            assert!(error.contains(part) && error.contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_filled_in_or_refused(text in "(\\PC|[{}.]|\\{\\{|\\}\\}){0,30}") {
            let _ = expand(&text, &request());
        }
    }
}
