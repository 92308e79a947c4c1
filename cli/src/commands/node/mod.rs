//! `swarmctl node …`

mod drain;
mod inspect;
mod ls;
mod promote;
mod ps;
mod rm;
mod update;

use clap::Subcommand;
use swarm_docker_api::view::InfoView;

use crate::{
    client::{Client, Query},
    context::Context,
    error::Hinted,
};

/// Manage nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    Demote(promote::Demote),
    Drain(drain::Drain),
    Inspect(inspect::Inspect),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Promote(promote::Promote),
    Ps(ps::Ps),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    Update(update::Update),
}

impl NodeCommand {
    pub(crate) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        match self {
            Self::Demote(command) => command.run(context).await,
            Self::Drain(command) => command.run(context).await,
            Self::Promote(command) => command.run(context).await,
            Self::Inspect(command) => command.run(context).await,
            Self::Ls(command) => command.run(context).await,
            Self::Ps(command) => command.run(context).await,
            Self::Rm(command) => command.run(context).await,
            Self::Update(command) => command.run(context).await,
        }
    }
}

/// The reference to send: `self` is the node that this command talks to.
pub(super) async fn resolve(client: &Client, reference: &str) -> anyhow::Result<String> {
    if reference != "self" {
        return Ok(reference.to_owned());
    }
    let info: InfoView = client.get("/info", Query::new()).await?;
    if info.swarm.node_id.is_empty() {
        return Err(Hinted {
            message: "this node is in no swarm, so there is no node 'self'".to_owned(),
            hint: "Make a swarm with `swarmctl swarm init`, or join one with `swarmctl swarm join`.".to_owned(),
        }
        .into());
    }
    Ok(info.swarm.node_id)
}

/// As [`resolve`], for each.
async fn resolve_all(client: &Client, references: &[String]) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::with_capacity(references.len());
    for reference in references {
        ids.push(resolve(client, reference).await?);
    }
    Ok(ids)
}
