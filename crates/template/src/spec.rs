//! Templates in the specs of services: environment, mounts, host name (swarm-behaviour §7.5).

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::{Limits, Missing, Template, TemplateError};

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
    filled.map_err(|TemplateError(problem)| TemplateError(format!("template \"{text}\": {problem}")))
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
