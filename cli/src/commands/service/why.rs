//! `service why`

use crate::{commands::why, context::Context, inspect::AnswerFormat};

const EXAMPLES: &str = "\
Examples:
  swarmctl service why web
  swarmctl service why --format '{{.Summary}}' web";

/// Say why a service is as it is, and what would help
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Why {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    format: AnswerFormat,
}

impl Why {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        why::show(context, "services", &self.service, &self.format).await
    }
}
