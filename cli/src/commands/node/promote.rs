//! `node promote`, `node demote`

use swarm_model::NodeRole;

use super::{resolve, update::set_role};
use crate::context::Context;

const PROMOTE_EXAMPLES: &str = "\
Examples:
  swarmctl node promote worker1 worker2";

const DEMOTE_EXAMPLES: &str = "\
Examples:
  swarmctl node demote manager3";

/// Make managers of workers
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = PROMOTE_EXAMPLES)]
pub(crate) struct Promote {
    /// Host names or ids, or 'self'
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

/// Make workers of managers
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DEMOTE_EXAMPLES)]
pub(crate) struct Demote {
    /// Host names or ids, or 'self'
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

impl Promote {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        change(context, &self.nodes, NodeRole::Manager).await
    }
}

impl Demote {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        change(context, &self.nodes, NodeRole::Worker).await
    }
}

/// One after another, so that what was done before a failure shows.
async fn change(context: &mut Context, nodes: &[String], role: NodeRole) -> anyhow::Result<()> {
    for node in nodes {
        let id = resolve(&context.client, node).await?;
        let text = match (set_role(context, &id, node, role).await?, role) {
            (true, NodeRole::Manager) => format!("Node {node} promoted to a manager in the swarm."),
            (true, NodeRole::Worker) => format!("Manager {node} demoted in the swarm."),
            (false, NodeRole::Manager) => format!("Node {node} is already a manager."),
            (false, NodeRole::Worker) => format!("Node {node} is already a worker."),
        };
        context.out.line(&text)?;
    }
    Ok(())
}
