//! `service rollback`

use super::{change::Current, wait::WaitFlags};
use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  swarmctl service rollback web
  swarmctl service rollback -d web";

/// Go back to what a service was before its last update; a second time, back again
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    wait: WaitFlags,
}

impl Rollback {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let deadline = self.wait.deadline();
        let changed = Current::read(context, &self.service).await?.roll_back(context).await?;
        context.out.line(&self.service)?;
        self.wait.wait(context, &changed.id, deadline, changed.ended_before).await.map(drop)
    }
}
