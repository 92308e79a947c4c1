//! `secret rm` and the like

use super::Kind;
use crate::{
    client::{ClientError, Query, segment},
    context::Context,
    error::Reported,
};

/// Removes objects.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Rm {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, context: &mut Context, kind: Kind) -> anyhow::Result<()> {
        let mut failed = false;
        for reference in &self.names {
            match context.client.delete(&format!("{}/{}", kind.path, segment(reference)), Query::new()).await {
                Ok(()) => context.out.line(reference)?,
                Err(error @ ClientError::Refused { .. }) => {
                    failed = true;
                    let text = match error.is_not_found() {
                        true => format!("no such {}: {reference}", kind.name),
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
