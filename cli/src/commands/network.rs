//! `swarmctl network …`

mod create;
mod inspect;
mod ls;
mod prune;
mod rm;

use clap::Subcommand;

use crate::context::Context;

/// The path of the list.
const NETWORKS: &str = "/networks";

const CREATE: &str = "\
Examples:
  swarmctl network create front
  swarmctl network create --subnet 10.20.0.0/24 --gateway 10.20.0.1 --internal back
  swarmctl network create --ipv6 --subnet 10.21.0.0/24 --subnet fd00:21::/64 both
  swarmctl network create --attachable --opt com.docker.network.driver.mtu=1400 tools
  swarmctl network create --driver bridge here

A network of the driver overlay spans the nodes of the swarm. One of another driver belongs to this node's engine. Without a \
subnet a network gets the next one of the swarm's address pools (swarm init --default-addr-pool).";
const INSPECT: &str = "\
Examples:
  swarmctl network inspect front
  swarmctl network inspect --pretty --verbose front
  swarmctl network inspect --format '{{json .IPAM.Config}}' front";
const LS: &str = "\
Examples:
  swarmctl network ls
  swarmctl network ls --filter scope=swarm --filter label=tier=web
  swarmctl network ls --filter dangling=true --format '{{.Name}} {{.Subnets}}'

Filters: id, name (regular expressions), driver, scope (swarm, local), type (custom, builtin), label, dangling";
const PRUNE: &str = "\
Examples:
  swarmctl network prune
  swarmctl network prune --force --filter until=24h --filter label!=keep

Filters: until (a time, or how long ago), label, label!";
const RM: &str = "\
Examples:
  swarmctl network rm front back

A network that a service names stays: take it from the service first. A network can go while tasks of removed services are \
being stopped.";

/// Manage networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    #[command(about = "Make a network across the nodes, or on this node", after_help = CREATE)]
    Create(Box<create::Create>),
    #[command(about = "Show networks in full", after_help = INSPECT)]
    Inspect(inspect::Inspect),
    #[command(about = "List networks, those of the swarm and those of this node", visible_alias = "list", after_help = LS)]
    Ls(ls::Ls),
    #[command(about = "Remove all networks that nobody uses", after_help = PRUNE)]
    Prune(prune::Prune),
    #[command(about = "Remove networks that no service uses", visible_alias = "remove", after_help = RM)]
    Rm(rm::Rm),
}

impl NetworkCommand {
    pub(crate) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Inspect(command) => command.run(context).await,
            Self::Ls(command) => command.run(context).await,
            Self::Prune(command) => command.run(context).await,
            Self::Rm(command) => command.run(context).await,
        }
    }
}
