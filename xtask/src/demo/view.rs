//! The cluster as its API shows it: the few fields that the demo looks at.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::http::{self, Address};

/// A node of the cluster.
#[derive(Clone, Debug)]
pub(super) struct NodeView {
    pub id: String,
    pub hostname: String,
    pub state: String,
}

/// A task that should run, and what its node says of it.
#[derive(Clone, Debug)]
pub(super) struct TaskView {
    pub id: String,
    pub slot: u64,
    pub node_id: String,
    pub state: String,
    pub desired: String,
    pub error: String,
    pub container: String,
    pub image: String,
}

impl TaskView {
    /// Whether it should run and does.
    pub(super) fn running(&self) -> bool {
        self.state == "running" && self.desired == "running"
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiNode {
    #[serde(rename = "ID")]
    id: String,
    description: ApiDescription,
    status: ApiNodeStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiDescription {
    #[serde(default)]
    hostname: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiNodeStatus {
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiTask {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    slot: u64,
    #[serde(default, rename = "NodeID")]
    node_id: String,
    status: ApiTaskStatus,
    desired_state: String,
    spec: ApiTaskSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiTaskSpec {
    container_spec: ApiContainerSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiContainerSpec {
    image: String,
}

/// The state of a service's last update or rollback.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct UpdateView {
    pub state: String,
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiService {
    update_status: Option<UpdateView>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApiTaskStatus {
    state: String,
    #[serde(default)]
    err: String,
    container_status: Option<ApiContainer>,
}

#[derive(Deserialize)]
struct ApiContainer {
    #[serde(default, rename = "ContainerID")]
    id: String,
}

/// All nodes, in the order of their names.
pub(super) fn nodes(api: &Address) -> Result<Vec<NodeView>> {
    let nodes: Vec<ApiNode> = http::get(api, "/nodes")?;
    let mut nodes: Vec<NodeView> = nodes
        .into_iter()
        .map(|node| NodeView { id: node.id, hostname: node.description.hostname, state: node.status.state })
        .collect();
    nodes.sort_by(|a, b| a.hostname.cmp(&b.hostname));
    Ok(nodes)
}

/// How far the update of a service is; empty if it was never updated.
pub(super) fn update(api: &Address, service: &str) -> Result<UpdateView> {
    let service: ApiService = http::get(api, &format!("/services/{service}"))?;
    Ok(service.update_status.unwrap_or_default())
}

/// All tasks of a service, those of the past included, in the order of their slots.
pub(super) fn tasks(api: &Address, service: &str) -> Result<Vec<TaskView>> {
    let filters = serde_json::json!({ "service": [service] }).to_string();
    let tasks: Vec<ApiTask> = http::get(api, &format!("/tasks?filters={}", http::encode(&filters)))?;
    let mut tasks: Vec<TaskView> = tasks
        .into_iter()
        .map(|task| TaskView {
            id: task.id,
            slot: task.slot,
            node_id: task.node_id,
            state: task.status.state,
            desired: task.desired_state,
            image: task.spec.container_spec.image,
            error: task.status.err,
            container: task.status.container_status.map(|container| container.id).unwrap_or_default(),
        })
        .collect();
    tasks.sort_by_key(|task| task.slot);
    Ok(tasks)
}

/// What a task's web service answers to `GET /`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub task: String,
    pub node: String,
    pub version: String,
    pub line: String,
}

/// Asks a task's web service.
pub(super) fn greet(address: &Address) -> Result<Greeting> {
    let body = http::call(address, "GET", "/", None)?;
    parse_greeting(&body).with_context(|| format!("{address} answers something else than hello"))
}

fn parse_greeting(body: &[u8]) -> Result<Greeting> {
    let line = String::from_utf8_lossy(body).trim().to_owned();
    let parts = line
        .strip_prefix("hello ")
        .and_then(|rest| rest.split_once(" from task "))
        .and_then(|(version, rest)| Some((version, rest.split_once(" on node ")?)));
    let Some((version, (task, node))) = parts else { bail!("{line:?}") };
    let (version, task, node) = (version.to_owned(), task.to_owned(), node.to_owned());
    Ok(Greeting { task, node, version, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_greeting() {
        let greeting = parse_greeting(b"hello 1 from task web.1.abc on node node-2\n").unwrap();
        let Greeting { task, node, version, .. } = greeting;
        assert_eq!((version.as_str(), task.as_str(), node.as_str()), ("1", "web.1.abc", "node-2"));
        assert!(parse_greeting(b"<html>").is_err());
        assert!(parse_greeting(b"").is_err());
    }
}
