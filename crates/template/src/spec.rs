//! Templates in the specs of services (environment, mounts, host name), and in the data of secrets and configs
//! (swarm-behaviour §7.5).

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::{Limits, Missing, Template, TemplateError, eval::Run, functions::Language, parse};

/// What a template in a spec can name.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// `.Service.ID`
    pub service_id: &'a str,
    /// `.Service.Name`
    pub service_name: &'a str,
    /// `.Service.Labels`
    pub service_labels: &'a BTreeMap<String, String>,
    /// `.Node.ID`
    pub node_id: &'a str,
    /// `.Node.Hostname`
    pub hostname: &'a str,
    /// `.Node.Platform.OS`
    pub os: &'a str,
    /// `.Node.Platform.Architecture`
    pub architecture: &'a str,
    /// `.Task.ID`
    pub id: &'a str,
    /// `.Task.Name`
    pub name: &'a str,
    /// `.Task.Slot`: of a global service it is the node.
    pub slot: &'a str,
}

impl Task<'_> {
    fn json(&self) -> Json {
        json!({
            "Service": {"ID": self.service_id, "Name": self.service_name, "Labels": self.service_labels},
            "Node": {
                "ID": self.node_id,
                "Hostname": self.hostname,
                "Platform": {"OS": self.os, "Architecture": self.architecture},
            },
            "Task": {"ID": self.id, "Name": self.name, "Slot": self.slot},
        })
    }
}

/// Fills in a text of a spec.
///
/// # Errors
/// The text is no template, names what is not there, or asks for too much.
pub fn expand(text: &str, task: &Task<'_>) -> Result<String, TemplateError> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let filled =
        Template::parse(text).and_then(|template| template.render(&task.json(), Missing::Refused, Limits::SPEC));
    filled.map_err(|error| TemplateError { text: format!("template \"{text}\": {error}"), ..error })
}

/// Whether a text of a spec can be filled in for a task of a service with this name and these labels.
///
/// # Errors
/// As [`expand`].
pub fn check(text: &str, service_name: &str, service_labels: &BTreeMap<String, String>) -> Result<(), TemplateError> {
    let task = Task {
        service_id: "s",
        service_name,
        service_labels,
        node_id: "n",
        hostname: "node",
        os: "linux",
        architecture: "x86_64",
        id: "t",
        name: "name.1.t",
        slot: "1",
    };
    expand(text, &task).map(drop)
}

/// The secrets, configs and variables that a template in a secret or config may read: those of the service of its task.
/// The text that a source gives is not a template again. People see the reason of a refusal: no data may be in it.
pub trait Sources {
    /// The data of the secret that the service has under a target, for `{{secret "TARGET"}}`.
    ///
    /// # Errors
    /// Why there is none.
    fn secret(&self, target: &str) -> Result<String, String>;

    /// The data of the config that the service has under a target, for `{{config "TARGET"}}`.
    ///
    /// # Errors
    /// Why there is none.
    fn config(&self, target: &str) -> Result<String, String>;

    /// A variable of the task's environment, for `{{env "NAME"}}`.
    ///
    /// # Errors
    /// Why there is none.
    fn env(&self, name: &str) -> Result<String, String>;
}

/// Fills in the data of a secret or of a config. An error has the line and the kind of mistake. Nothing of the data is in
/// it, except for a name that the data spells out as the argument of a function.
///
/// # Errors
/// The data is no template, names what is not there, or asks for too much.
pub fn expand_payload(text: &str, task: &Task<'_>, sources: &dyn Sources) -> Result<String, TemplateError> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let tree = parse::parse(text, Language::Payload).map_err(TemplateError::hiding)?;
    let run = Run::new(&tree, Missing::Refused, Limits::PAYLOAD).with_sources(sources);
    run.render(&task.json()).map_err(TemplateError::hiding)
}

/// Checks that the data of a secret or of a config is a template. No error shows any of the data.
///
/// # Errors
/// The data is no template; the text names the line and the mistake.
pub fn check_payload(text: &str) -> Result<(), TemplateError> {
    parse::parse(text, Language::Payload).map(drop).map_err(TemplateError::hiding)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "hunter2";

    struct Fake;

    impl Sources for Fake {
        fn secret(&self, target: &str) -> Result<String, String> {
            match target {
                "key" => Ok(SECRET.to_owned()),
                "nested" => Ok("{{.Service.Name}}".to_owned()),
                "big" => Ok("x".repeat(500_000)),
                "nope" | SECRET => Err(format!("the service has no secret with the target {target}")),
                _ => Err("there is none".to_owned()),
            }
        }

        fn config(&self, target: &str) -> Result<String, String> {
            if target == "site" { Ok("listen 80;".to_owned()) } else { Err("there is none".to_owned()) }
        }

        fn env(&self, name: &str) -> Result<String, String> {
            if name == "LEVEL" { Ok("debug".to_owned()) } else { Err("there is none".to_owned()) }
        }
    }

    fn payload(text: &str) -> Result<String, String> {
        let labels = BTreeMap::from([("tier".to_owned(), "front".to_owned())]);
        let task = Task {
            service_id: "s1",
            service_name: "web",
            service_labels: &labels,
            node_id: "n1",
            hostname: "one",
            os: "linux",
            architecture: "x86_64",
            id: "t1",
            name: "web.1.t1",
            slot: "1",
        };
        expand_payload(text, &task, &Fake).map_err(|error| error.to_string())
    }

    #[test]
    fn data_is_filled_in() {
        for (text, expected) in [
            ("plain", "plain"),
            (r#"password={{secret "key"}}"#, "password=hunter2"),
            (r#"{{config "site"}} {{env "LEVEL" | upper}}"#, "listen 80; DEBUG"),
            (r#"{{"key" | secret}} {{$t := "key"}}{{len (secret $t)}}"#, "hunter2 7"),
            (r#"{{if eq (env "LEVEL") "debug"}}{{.Service.Labels.tier}}{{end}}"#, "front"),
            ("{{.Service.ID}} {{.Node.Hostname}} {{.Task.Name}} {{.Task.Slot}}", "s1 one web.1.t1 1"),
            // No template in a template.
            (r#"{{secret "nested"}}"#, "{{.Service.Name}}"),
        ] {
            assert_eq!(payload(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn only_the_data_of_objects_asks_for_others() {
        for function in ["secret", "config", "env"] {
            let text = format!("{{{{{function} \"key\"}}}}");
            let error = check(&text, "web", &BTreeMap::new()).expect_err("a spec").to_string();
            assert!(error.contains(&format!("unknown function '{function}'; there are and, or")), "{error}");
            assert!(!error.ends_with(", env"), "{error}");
            assert!(Template::parse(&text).is_err());
            assert_eq!(check_payload(&text), Ok(()));
        }
        let error = payload("{{frob}}").expect_err("there is none");
        assert!(error.starts_with("line 1: unknown function; there are and, or") && error.ends_with(", config, env"));
    }

    #[test]
    fn mistakes_have_their_line() {
        for (text, expected) in [
            ("{{", "line 1: '}}' is missing"),
            (
                "a\nb {{.Service.Name}}\n{{.Service.Nmae}}",
                "line 3: unknown field; the fields there are: ID, Labels, Name",
            ),
            ("\n{{if .Task}}\n\n{{.Task.ID}}\n", "line 2: '{{end}}' is missing"),
            ("{{if .Task}}{{else}}\n{{.Task.ID}}\n", "line 1: '{{end}}' is missing"),
            ("\n{{define \"a\"}}\n", "line 2: '{{end}}' is missing"),
            ("{{/* a\nb */}}\n{{end}}", "line 3: '{{end}}' without"),
            ("\n\n{{/* a", "line 3: a comment is not closed"),
            ("{{define \"a\"}}\n{{.Nope}}{{end}}\n\n{{template \"a\" .}}", "line 2: unknown field"),
            ("\n{{template \"a\"}}", "line 2: there is no template of this name"),
            ("\n{{range 2}}\n{{$x := 1}}{{end}}\n{{$x}}", "line 4: there is no variable of this name"),
            ("\n{{secret \"nope\"}}", "line 2: secret: the service has no secret with the target nope"),
            ("{{config \"nope\"}}", "line 1: config: there is none"),
            ("{{env \"NOPE\"}}", "line 1: env: there is none"),
            ("{{secret}}", "line 1: secret needs one text, and nothing else"),
            ("{{secret 5}}", "line 1: secret needs one text, and nothing else"),
            ("{{env \"a\" \"b\"}}", "line 1: env needs one text, and nothing else"),
        ] {
            let error = payload(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn no_mistake_shows_data() {
        for text in [
            r"{{hunter2}}",
            r#"{{"hunter2"#,
            r"{{'hunter2'}}",
            r"{{5hunter2}}",
            r"{{.hunter2}}",
            r"{{.Service.hunter2}}",
            r"{{.Service.Name.hunter2}}",
            r"{{.hunter2..a}}",
            r"{{$hunter2}}",
            r"{{$hunter2 = 1}}",
            r#"{{template "hunter2"}}"#,
            r"{{.ID : hunter2}}",
            r"{{/* hunter2",
            r#"{{"\hunter2"}}"#,
            r#"{{(secret "key").Name}}"#,
            r#"{{range secret "key"}}{{end}}"#,
            r#"{{index .Service.Labels (secret "key") 1 2}}"#,
            r#"{{index (secret "key") (secret "key")}}"#,
            r#"{{index (split (secret "key") "") (len (secret "big"))}}"#,
            r#"{{slice (secret "key") 99}}"#,
            r#"{{slice (secret "key") (secret "key")}}"#,
            r#"{{pad "a" (secret "key") 1}}"#,
            r#"{{truncate "a" 500000}}"#,
            r#"{{upper (secret "key") 1}}"#,
            r#"{{lt 1 (secret "key")}}"#,
            // The name that is asked for comes from a secret.
            r#"{{secret (secret "key")}}"#,
            r#"{{secret "key" | secret}}"#,
            r#"{{$x := secret "key"}}{{secret $x}}"#,
            r#"{{config (secret "key")}}{{env (secret "key")}}"#,
        ] {
            let error = payload(text).expect_err(text);
            assert!(
                !error.contains("hunter2") && !error.contains("500000") && !error.contains("99"),
                "{text}: {error}"
            );
            assert!(error.starts_with("line 1: "), "{text}: {error}");
        }
    }

    #[test]
    fn data_has_limits() {
        let bytes = Limits::PAYLOAD.bytes_max;
        let of_size = |size: usize| format!(r#"{}{{{{""}}}}"#, "x".repeat(size));
        assert_eq!(payload(&of_size(bytes)).map(|text| text.len()), Ok(bytes));
        assert_eq!(payload(&of_size(bytes + 1)), Err(format!("line 1: it makes a text of more than {bytes} bytes")));
        assert_eq!(payload(r#"{{secret "big"}}{{secret "big"}}"#).map(|text| text.len()), Ok(1_000_000));
        assert!(payload(r#"{{range 3}}{{secret "big"}}{{end}}"#).is_err_and(|e| e.contains("bytes")));
        let copies = r#"{{$x := secret "big"}}{{range 1000}}{{$y := print $x "a"}}{{end}}"#;
        assert_eq!(payload(copies), Err("line 1: it takes more than 1000000 steps".into()));
        let questions = r#"{{range 100000}}{{$x := secret "key"}}{{end}}"#;
        assert_eq!(payload(questions), Err("line 1: it takes more than 1000000 steps".into()));
    }

    proptest! {
        #[test]
        fn any_data_is_filled_in_or_refused_without_being_shown(
            text in "\\PC{0,30}|(\\{\\{|\\}\\}|-| |\n|\\.Task|\\.|if|else|end|range|with|define|template|break|index|slice|split|printf|secret|config|env|secret \"key\"|\\(secret \"key\"\\)|hunter2|\"hunter2\"|\"key\"|:=|=|,|\\$|\\$x|\"|'|`|%|\\\\|\\(|\\)|\\||[0-9]|/\\*|\\*/){0,16}"
        ) {
            if let Err(error) = payload(&text) {
                // The first of them is a target that stands in the template, and the source repeats it.
                let told = error.contains("the service has no secret with the target hunter2");
                prop_assert!(error.starts_with("line ") && (told || !error.contains(SECRET)), "{}", error);
            }
            let _ = check_payload(&text);
        }
    }
}
