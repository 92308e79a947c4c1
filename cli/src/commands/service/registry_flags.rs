//! The flags of `service create` and `service update` about registries.

use swarm_model::Redacted;

use crate::{context::Context, registry, spec_flags::Draft};

/// Credentials, and the digest of the image.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Image")]
pub(super) struct RegistryFlags {
    /// Send the credentials of `docker login` to the nodes
    #[arg(long)]
    with_registry_auth: bool,
    /// Do not ask the registry which image the tag means now
    #[arg(long)]
    no_resolve_image: bool,
}

impl RegistryFlags {
    /// The credentials to send, if any.
    ///
    /// # Errors
    /// There are none for the registry of the image.
    pub(super) fn credentials(&self, draft: &Draft) -> anyhow::Result<Option<Redacted>> {
        match self.with_registry_auth {
            true => registry::stored_credentials(draft.image(), environment).map(Some),
            false => Ok(None),
        }
    }

    /// Pins the image unless it is not wanted; warns if it is not possible.
    pub(super) async fn pin_image(&self, context: &mut Context, draft: &mut Draft, auth: Option<&Redacted>) {
        if self.no_resolve_image {
            return;
        }
        if let Err(warning) = registry::pin_image(&context.client, draft, auth).await {
            context.out.note(&format!("Warning: {warning}"));
        }
    }
}

/// A variable of this process.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
