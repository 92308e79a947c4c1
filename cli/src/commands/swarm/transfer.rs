//! `swarm transfer`

use crate::{client::Query, context::Context};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm transfer            (to the manager that has most of the log)
  swarmctl swarm transfer node-2";

/// Make another manager the leader
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Transfer {
    /// Host name or id of the manager that is to lead
    #[arg(value_name = "NODE")]
    node: Option<String>,
}

impl Transfer {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let query = Query::new().with_some("node", self.node.as_deref());
        context.client.post_empty("/swarmd/transfer", query).await?;
        let to = self.node.map(|node| format!(" to {node}")).unwrap_or_default();
        Ok(context
            .out
            .line(&format!("The leadership was handed over{to}; `swarmctl swarm status` shows the leader."))?)
    }
}
