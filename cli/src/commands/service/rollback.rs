//! `service rollback`

use super::{super::check_version::CheckVersion, change::Current, wait::WaitFlags};
use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  swarmctl service rollback web
  swarmctl service rollback --to 3 web
  swarmctl service rollback -d web

A version is the whole spec, the number of tasks included. `swarmctl service history` lists the versions, `swarmctl service diff` shows what differs.";

/// Go back to what a service was before its last update, or to an earlier version; a second time, back again
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Go back to this version of the service's history
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    #[command(flatten)]
    check: CheckVersion,
    #[command(flatten)]
    wait: WaitFlags,
}

impl Rollback {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let deadline = self.wait.deadline();
        let changed = Current::read_at(context, &self.service, self.check).await?.roll_back(context, self.to).await?;
        context.out.line(&self.service)?;
        self.wait.wait(context, &changed.id, deadline, changed.before).await.map(drop)
    }
}
