//! `swarmctl service …`

mod change;
mod create;
mod endpoints;
mod follow;
mod history;
mod inspect;
mod logs;
mod ls;
mod object_ids;
mod plan;
mod pretty;
mod ps;
mod rebalance;
mod registry_flags;
mod rm;
mod rollback;
mod scale;
mod update;
mod wait;
mod why;

use clap::Subcommand;
use swarm_docker_api::view::ServiceView;

pub(crate) use plan::NO_PLAN;

use crate::{
    client::{Client, Query, segment},
    context::Context,
    error::Hinted,
};

/// Manage services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    Create(Box<create::Create>),
    Diff(history::Diff),
    Endpoints(endpoints::Endpoints),
    History(history::History),
    Inspect(inspect::Inspect),
    Logs(logs::Logs),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    /// Show what a change would lead to, without making it
    #[command(subcommand)]
    Plan(plan::Plan),
    Ps(ps::Ps),
    Rebalance(rebalance::Rebalance),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    Rollback(rollback::Rollback),
    Scale(scale::Scale),
    Update(Box<update::Update>),
    Why(why::Why),
}

impl ServiceCommand {
    pub(crate) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Diff(command) => command.run(context).await,
            Self::Endpoints(command) => command.run(context).await,
            Self::History(command) => command.run(context).await,
            Self::Inspect(command) => command.run(context).await,
            Self::Logs(command) => command.run(context).await,
            Self::Ls(command) => command.run(context).await,
            Self::Plan(command) => command.run(context).await,
            Self::Ps(command) => command.run(context).await,
            Self::Rebalance(command) => command.run(context).await,
            Self::Rm(command) => command.run(context).await,
            Self::Rollback(command) => command.run(context).await,
            Self::Scale(command) => command.run(context).await,
            Self::Update(command) => command.run(context).await,
            Self::Why(command) => command.run(context).await,
        }
    }
}

/// Finds a service by id, name or the start of its id.
async fn find(client: &Client, reference: &str) -> anyhow::Result<ServiceView> {
    let path = format!("/services/{}", segment(reference));
    client
        .get(&path, Query::new().with("insertDefaults", false))
        .await
        .map_err(|error| if error.is_not_found() { no_such_service(reference).into() } else { error.into() })
}

fn no_such_service(reference: &str) -> Hinted {
    Hinted {
        message: format!("no such service: {reference}"),
        hint: "`swarmctl service ls` lists all services.".to_owned(),
    }
}
