//! `service rm`

use super::no_such_service;
use crate::{
    client::{ClientError, Query, segment},
    context::Context,
    error::Reported,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service rm web
  swarmctl service rm $(swarmctl service ls -q --filter label=tier=test)";

/// Remove services; their tasks stop in the background
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rm {
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

impl Rm {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let mut failed = false;
        for reference in &self.services {
            match context.client.delete(&format!("/services/{}", segment(reference)), Query::new()).await {
                Ok(()) => context.out.line(reference)?,
                Err(error @ ClientError::Refused { .. }) => {
                    failed = true;
                    let text =
                        if error.is_not_found() { no_such_service(reference).message } else { error.to_string() };
                    context.out.note(&format!("Error: {text}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if failed { Err(Reported.into()) } else { Ok(()) }
    }
}
