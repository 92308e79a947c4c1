//! `network rm`

use super::NETWORKS;
use crate::{
    client::{ClientError, Query, segment},
    context::Context,
    error::Reported,
};

/// Removes networks.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Rm {
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// A network that is not there is no error
    #[arg(short, long)]
    force: bool,
}

impl Rm {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let mut failed = false;
        for reference in &self.networks {
            match context.client.delete(&format!("{NETWORKS}/{}", segment(reference)), Query::new()).await {
                Ok(()) => context.out.line(reference)?,
                Err(error) if self.force && error.is_not_found() => {}
                Err(error @ ClientError::Refused { .. }) => {
                    failed = true;
                    let text = match error.is_not_found() {
                        true => format!("no such network: {reference}"),
                        false => error.to_string(),
                    };
                    context.out.note(&format!("Error: {text}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if failed { Err(Reported.into()) } else { Ok(()) }
    }
}
