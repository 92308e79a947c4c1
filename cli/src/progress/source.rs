//! Where the wait looks.

use std::collections::BTreeSet;

use swarm_docker_api::view::{NodeView, ServiceView, TaskView};

use crate::client::{Client, ClientError, Query, segment};

/// A service with its up-to-date tasks, at about one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// The service.
    pub(crate) service: ServiceView,
    /// Tasks of its present spec, ended ones included.
    pub(crate) tasks: Vec<TaskView>,
    /// Ids of nodes that are not down.
    pub(crate) live_nodes: BTreeSet<String>,
}

impl Snapshot {
    /// Whether a task may still change: it has no node yet, or its node is not down.
    pub(super) fn may_move(&self, task: &TaskView) -> bool {
        task.node_id.is_empty() || self.live_nodes.contains(&task.node_id)
    }
}

/// Gives snapshots.
pub(crate) trait Source {
    /// Looks once.
    async fn poll(&mut self) -> Result<Snapshot, ClientError>;
}

/// Looks through the API.
pub(crate) struct ApiSource {
    client: Client,
    service_id: String,
}

impl ApiSource {
    /// Looks at the service with this id.
    pub(crate) fn new(client: Client, service_id: String) -> Self {
        Self { client, service_id }
    }
}

impl Source for ApiSource {
    async fn poll(&mut self) -> Result<Snapshot, ClientError> {
        let path = format!("/services/{}", segment(&self.service_id));
        let service: ServiceView = self.client.get(&path, Query::new().with("insertDefaults", false)).await?;
        let filters = [("_up-to-date", "true"), ("service", &service.id)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let query = Query::new().with_some("filters", crate::filters::to_json(&filters));
        let tasks = self.client.get("/tasks", query).await?;
        let nodes: Vec<NodeView> = self.client.get("/nodes", Query::new()).await?;
        let live_nodes = nodes.into_iter().filter(|n| n.status.state != "down").map(|n| n.id).collect();
        Ok(Snapshot { service, tasks, live_nodes })
    }
}
