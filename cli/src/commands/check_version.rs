//! `--check-version`

use swarm_docker_api::view::{NodeView, ServiceView};

use crate::{client::Query, context::Context, error::Hinted};

/// Makes a change rest on what a plan showed. A plan rests on every service and every node, since all of them compete for
/// the same room, so it is out of date when one of them was changed. Tasks that start and end do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::Args)]
pub(super) struct CheckVersion {
    /// Do nothing if a service or a node changed since `service plan` printed this version
    #[arg(id = "check_version", long = "check-version", value_name = "VERSION")]
    pub(super) version: Option<u64>,
}

impl CheckVersion {
    /// Refuses when something changed since the plan. What changes between this look and the change itself is seen only
    /// where the change names a version of its own, as those of services do.
    ///
    /// # Errors
    /// A service or a node has a later version, the version is none that a plan printed, or swarmd does not answer.
    pub(super) async fn check(self, context: &Context) -> anyhow::Result<()> {
        let Some(expected) = self.version else { return Ok(()) };
        let services: Vec<ServiceView> = context.client.get("/services", Query::new()).await?;
        let nodes: Vec<NodeView> = context.client.get("/nodes", Query::new()).await?;
        let services = services.iter().map(|s| (s.version.index, format!("service {}", s.spec.name)));
        let nodes = nodes.iter().map(|n| (n.version.index, format!("node {}", n.description.description.hostname)));
        let (newest, name) = services.chain(nodes).max().unwrap_or_default();
        let message = match newest.cmp(&expected) {
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Greater => {
                format!("{name} changed since the plan: it is at version {newest}, the plan at {expected}")
            }
            // Also when what had this version was removed.
            std::cmp::Ordering::Less => {
                format!("no service or node is at version {expected} any more, the newest is {name} at {newest}")
            }
        };
        let hint = "Nothing was done. Plan again, then use the version that the plan prints.".to_owned();
        Err(Hinted { message, hint }.into())
    }
}
