//! `service inspect`

use super::pretty;
use crate::{
    client::Query,
    context::Context,
    inspect::{InspectFlags, Kind, inspect},
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service inspect web
  swarmctl service inspect --pretty web
  swarmctl service inspect --format '{{.Spec.Mode.Replicated.Replicas}}' web";

/// Show services in full
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    flags: InspectFlags,
}

impl Inspect {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let kind = Kind {
            path: "/services",
            name: "service",
            query: Query::new().with("insertDefaults", true),
            pretty: pretty::service,
        };
        inspect(context, kind, &self.services, &self.flags).await
    }
}
