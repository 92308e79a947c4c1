//! `swarm unlock-key`

use serde_json::Value;
use swarm_docker_api::view::{SwarmView, UnlockKeyView};

use crate::{
    client::{Query, read},
    context::Context,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm unlock-key
  swarmctl swarm unlock-key -q > unlock-key
  swarmctl swarm unlock-key --rotate     (a manager that is down still needs the old key)";

/// Show or rotate the key that unlocks managers after a restart
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UnlockKey {
    /// Replace the key
    #[arg(long)]
    rotate: bool,
    /// Print the key only
    #[arg(short, long)]
    quiet: bool,
}

impl UnlockKey {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        if self.rotate {
            rotate(context).await?;
            if !self.quiet {
                context.out.line("Successfully rotated manager unlock key.\n")?;
            }
        }
        let view: UnlockKeyView = context.client.get("/swarm/unlockkey", Query::new()).await?;
        let key = view.unlock_key.expose();
        anyhow::ensure!(!key.is_empty(), "no unlock key is set: `swarmctl swarm update --autolock` makes one");
        if self.quiet {
            return Ok(context.out.line(key)?);
        }
        show(context, key)
    }
}

/// Says what the key is for.
pub(super) fn show(context: &mut Context, key: &str) -> anyhow::Result<()> {
    Ok(context.out.line(&format!(
        "To unlock a swarm manager after it restarts, run `swarmctl swarm unlock` on it and give it this key:\n\n    \
         {key}\n\nKeep it in a safe place, outside of the swarm: without it a manager that restarted cannot be \
         started again."
    ))?)
}

async fn rotate(context: &Context) -> anyhow::Result<()> {
    let bytes = context.client.get_bytes("/swarm", Query::new()).await?;
    let swarm: SwarmView = read("/swarm", &bytes)?;
    anyhow::ensure!(
        swarm.info.spec.encryption_config.auto_lock_managers,
        "cannot rotate because autolock is not turned on: `swarmctl swarm update --autolock` turns it on"
    );
    let object: Value = read("/swarm", &bytes)?;
    let query = Query::new()
        .with("version", swarm.info.version.index)
        .with("rotateWorkerToken", false)
        .with("rotateManagerToken", false)
        .with("rotateManagerUnlockKey", true);
    context.client.post("/swarm/update", query, &object["Spec"], None).await?;
    Ok(())
}
