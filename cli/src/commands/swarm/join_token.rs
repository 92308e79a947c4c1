//! `swarm join-token`

use serde_json::Value;
use swarm_docker_api::view::{InfoView, SwarmView};
use swarm_model::NodeRole;

use super::{join_command, manager_addr};
use crate::{
    choice::{ROLES, choice},
    client::{Query, read},
    context::Context,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm join-token worker
  swarmctl swarm join-token -q worker > token
  swarmctl swarm join-token --rotate worker      (the old token stops working)";

/// Show or rotate the token that lets nodes join
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct JoinToken {
    /// Which token
    #[arg(value_name = "ROLE", value_parser = choice::<NodeRole>(ROLES))]
    role: NodeRole,
    /// Replace the token
    #[arg(long)]
    rotate: bool,
    /// Print the token only
    #[arg(short, long)]
    quiet: bool,
}

impl JoinToken {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        if self.rotate {
            rotate(context, self.role).await?;
            if !self.quiet {
                context.out.line(&format!("Successfully rotated {} join token.\n", self.role))?;
            }
        }
        let swarm: SwarmView = context.client.get("/swarm", Query::new()).await?;
        let token = match self.role {
            NodeRole::Worker => swarm.join_tokens.worker,
            NodeRole::Manager => swarm.join_tokens.manager,
        };
        if self.quiet {
            return Ok(context.out.line(token.expose())?);
        }
        let info: InfoView = context.client.get("/info", Query::new()).await?;
        let addr = manager_addr(&context.client, &info.swarm.node_id).await?.unwrap_or_else(|| "HOST:2377".to_owned());
        Ok(context.out.line(&join_command(self.role, token.expose(), &addr))?)
    }
}

async fn rotate(context: &Context, role: NodeRole) -> anyhow::Result<()> {
    let bytes = context.client.get_bytes("/swarm", Query::new()).await?;
    let swarm: SwarmView = read("/swarm", &bytes)?;
    let object: Value = read("/swarm", &bytes)?;
    let query = Query::new()
        .with("version", swarm.info.version.index)
        .with("rotateWorkerToken", role == NodeRole::Worker)
        .with("rotateManagerToken", role == NodeRole::Manager)
        .with("rotateManagerUnlockKey", false);
    context.client.post("/swarm/update", query, &object["Spec"], None).await?;
    Ok(())
}
