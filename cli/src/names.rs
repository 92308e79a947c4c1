//! Names for ids, as tables show them.

use std::collections::BTreeMap;

use swarm_docker_api::view::{NodeView, ServiceView};

use crate::client::{Client, ClientError, Query};

/// Names by id. What is not known, because it was removed or nobody asked, is shown by its id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// Host names of the nodes.
    pub(crate) async fn of_nodes(client: &Client) -> Result<Self, ClientError> {
        let nodes: Vec<NodeView> = client.get("/nodes", Query::new()).await?;
        Ok(nodes.into_iter().map(|n| (n.id, n.description.description.hostname.clone())).collect())
    }

    /// Names of the services.
    pub(crate) async fn of_services(client: &Client) -> Result<Self, ClientError> {
        let services: Vec<ServiceView> = client.get("/services", Query::new()).await?;
        Ok(services.into_iter().map(|s| (s.id, s.spec.name.clone())).collect())
    }

    /// The name, or the id.
    pub(crate) fn of<'n>(&'n self, id: &'n str) -> &'n str {
        self.0.get(id).filter(|name| !name.is_empty()).map_or(id, String::as_str)
    }
}

impl FromIterator<(String, String)> for Names {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}
