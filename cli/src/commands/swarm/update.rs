//! `swarm update`

use serde_json::Value;
use swarm_docker_api::view::{SwarmView, UnlockKeyView};

use super::{
    settings::{SettingsFlags, set},
    unlock_key,
};
use crate::{
    client::{Client, Query, read},
    context::Context,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm update --task-history-limit 2
  swarmctl swarm update --autolock       (prints the key that managers then need)
  swarmctl swarm update --cert-expiry 720h --dispatcher-heartbeat 3s";

/// Change the settings of the swarm
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Update {
    /// Whether managers ask for a key after a restart
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autolock: Option<bool>,
    #[command(flatten)]
    settings: SettingsFlags,
}

impl Update {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let bytes = context.client.get_bytes("/swarm", Query::new()).await?;
        let swarm: SwarmView = read("/swarm", &bytes)?;
        let mut object: Value = read("/swarm", &bytes)?;
        let spec = &mut object["Spec"];
        self.settings.change(spec);
        if let Some(autolock) = self.autolock {
            set(spec, "EncryptionConfig", "AutoLockManagers", autolock.into());
        }
        write_spec(&context.client, &swarm, spec).await?;
        context.out.line("Swarm updated.")?;
        if self.autolock == Some(true) {
            let view: UnlockKeyView = context.client.get("/swarm/unlockkey", Query::new()).await?;
            unlock_key::show(context, view.unlock_key.expose())?;
        }
        Ok(())
    }
}

/// Writes the swarm's spec, if nobody changed it since it was read, and rotates nothing.
///
/// # Errors
/// swarmd refuses, or does not answer.
pub(super) async fn write_spec(client: &Client, swarm: &SwarmView, spec: &Value) -> anyhow::Result<()> {
    let query = Query::new()
        .with("version", swarm.info.version.index)
        .with("rotateWorkerToken", false)
        .with("rotateManagerToken", false)
        .with("rotateManagerUnlockKey", false);
    client.post("/swarm/update", query, spec, None).await?;
    Ok(())
}
