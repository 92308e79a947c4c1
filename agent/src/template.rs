//! Templates in a spec, filled in on the node (swarm-behaviour §7.5).
//!
//! The part of Go's template language that services use: `{{.Service.Name}}`, `{{.Service.ID}}`,
//! `{{.Service.Labels.KEY}}`, `{{index .Service.Labels "KEY"}}`, `{{.Node.ID}}`, `{{.Node.Hostname}}`, `{{.Task.ID}}`,
//! `{{.Task.Name}}`, `{{.Task.Slot}}`. Anything else is an error, and so is a label that the service does not have.

use crate::executor::ContainerRequest;

/// Fills in a text.
///
/// # Errors
/// What cannot be filled in, for people.
pub(crate) fn expand(text: &str, request: &ContainerRequest) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) =
            after.split_once("}}").ok_or_else(|| format!("template \"{text}\": \"{{{{\" without \"}}}}\""))?;
        result.push_str(before);
        result.push_str(&value(action.trim(), request).map_err(|e| format!("template \"{text}\": {e}"))?);
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

fn value(action: &str, request: &ContainerRequest) -> Result<String, String> {
    Ok(match action {
        ".Service.ID" => request.task.service.to_string(),
        ".Service.Name" => request.spec.service_name.clone(),
        ".Node.ID" => request.node.id.to_string(),
        ".Node.Hostname" => request.node.hostname.clone(),
        ".Task.ID" => request.task.id.to_string(),
        ".Task.Name" => request.name(),
        ".Task.Slot" => request.slot(),
        other => {
            let key = label_key(other).ok_or_else(|| {
                format!(
                    "\"{{{{{other}}}}}\" is not known; known are .Service.ID, .Service.Name, .Service.Labels, .Node.ID, \
                     .Node.Hostname, .Task.ID, .Task.Name and .Task.Slot"
                )
            })?;
            let label = request.spec.service_labels.get(key);
            label.ok_or_else(|| format!("the service has no label \"{key}\""))?.clone()
        }
    })
}

/// The key in `.Service.Labels.KEY` or `index .Service.Labels "KEY"`.
fn label_key(action: &str) -> Option<&str> {
    if let Some(key) = action.strip_prefix(".Service.Labels.") {
        let is_word = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_');
        return is_word.then_some(key);
    }
    let quoted = action.strip_prefix("index")?.trim_start().strip_prefix(".Service.Labels")?.trim();
    ['"', '`'].into_iter().find_map(|q| quoted.strip_prefix(q)?.strip_suffix(q))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_model::{DesiredState, NodeId};

    use super::*;
    use crate::{
        executor::NodeIdentity,
        testing::{assigned_spec, assigned_task},
    };

    fn request() -> ContainerRequest {
        let mut spec = assigned_spec("hello:1");
        spec.service_labels.insert("tier".into(), "front".into());
        spec.service_labels.insert("com.example.team".into(), "blue".into());
        let node = NodeIdentity { id: NodeId(3), hostname: "one".into(), bind_addr: None };
        ContainerRequest { node: node.into(), task: assigned_task(7, DesiredState::Running), spec: spec.into() }
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
            ("{{.Service.Labels.tier}}", "front".into()),
            ("{{index .Service.Labels \"com.example.team\"}}", "blue".into()),
            ("{{index .Service.Labels `tier`}}!", "front!".into()),
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
            ("{{.Task.Name", "without"),
            ("{{.Node.Color}}", "\"{{.Node.Color}}\" is not known"),
            ("{{if .Task.ID}}x{{end}}", "is not known"),
            ("{{.Service.Labels.missing}}", "no label \"missing\""),
            ("{{index .Service.Labels \"\"}}", "no label \"\""),
            ("{{index .Service.Labels \"}}", "is not known"),
            ("{{}}", "is not known"),
        ] {
            let error = expand(text, &request()).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_filled_in_or_refused(text in "(\\PC|[{}.]|\\{\\{|\\}\\}){0,30}") {
            let _ = expand(&text, &request());
        }
    }
}
