//! `swarmctl swarm …`

mod backup;
mod ca;
mod init;
mod join;
mod join_token;
mod leave;
mod passphrase;
mod restore;
mod settings;
mod status;
mod transfer;
mod unlock;
mod unlock_key;
mod update;

use clap::Subcommand;
use swarm_docker_api::view::NodeView;
use swarm_model::NodeRole;

use crate::{
    client::{Client, ClientError, Query, segment},
    context::Context,
};

/// Manage the swarm.
#[derive(Debug, Subcommand)]
pub(crate) enum SwarmCommand {
    Backup(backup::Backup),
    Ca(ca::Ca),
    Init(init::Init),
    Join(join::Join),
    JoinToken(join_token::JoinToken),
    Leave(leave::Leave),
    Restore(restore::Restore),
    Status(status::Status),
    Transfer(transfer::Transfer),
    Unlock(unlock::Unlock),
    UnlockKey(unlock_key::UnlockKey),
    Update(update::Update),
}

impl SwarmCommand {
    pub(crate) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        match self {
            Self::Backup(command) => command.run(context).await,
            Self::Ca(command) => command.run(context).await,
            Self::Init(command) => command.run(context).await,
            Self::Join(command) => command.run(context).await,
            Self::JoinToken(command) => command.run(context).await,
            Self::Leave(command) => command.run(context).await,
            Self::Restore(command) => command.run(context).await,
            Self::Status(command) => command.run(context).await,
            Self::Transfer(command) => command.run(context).await,
            Self::Unlock(command) => command.run(context).await,
            Self::UnlockKey(command) => command.run(context).await,
            Self::Update(command) => command.run(context).await,
        }
    }
}

/// `host:port` that other nodes reach the manager on a node by; none if it is no manager.
async fn manager_addr(client: &Client, node_id: &str) -> Result<Option<String>, ClientError> {
    let node: NodeView = client.get(&format!("/nodes/{}", segment(node_id)), Query::new()).await?;
    Ok(node.manager_status.map(|manager| manager.addr).filter(|addr| !addr.is_empty()))
}

/// What to run on another node to join it.
fn join_command(role: NodeRole, token: &str, addr: &str) -> String {
    format!(
        "To add a {role} to this swarm, run the following command:\n\n    \
         swarmctl swarm join --token {token} {addr}\n"
    )
}
