//! `swarm leave`

use crate::{
    client::{ClientError, Query},
    context::Context,
    error::Hinted,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm leave
  swarmctl swarm leave --force      (the last manager, or one that the others need)";

/// Leave the swarm
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Leave {
    /// Leave although the managers need this one: the last takes the whole state with it
    #[arg(short, long)]
    force: bool,
}

impl Leave {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let query = Query::new().with_some("force", self.force.then_some(1));
        match context.client.post_empty("/swarm/leave", query).await {
            Ok(()) => Ok(context.out.line("Node left the swarm.")?),
            Err(error @ ClientError::Refused { .. }) if !self.force && error.to_string().contains("--force") => {
                let hint = "With --force the node leaves anyway: its copy of the swarm's state goes with it, and nothing can be \
                            changed any more unless most of the other managers answer (`swarmctl swarm status`).";
                Err(Hinted { message: error.to_string(), hint: hint.to_owned() }.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}
