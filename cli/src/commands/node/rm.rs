//! `node rm`

use super::resolve_all;
use crate::{
    client::{ClientError, Query, segment},
    context::Context,
    error::Reported,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl node rm worker3
  swarmctl node rm --force worker3      (even if it is not down)";

/// Remove nodes from the swarm; they are locked out at once
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rm {
    /// Host names or ids
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// Remove a node that is not down
    #[arg(short, long)]
    force: bool,
}

impl Rm {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let mut failed = false;
        for (reference, id) in self.nodes.iter().zip(resolve_all(&context.client, &self.nodes).await?) {
            let query = Query::new().with_some("force", self.force.then_some(1));
            match context.client.delete(&format!("/nodes/{}", segment(&id)), query).await {
                Ok(()) => context.out.line(reference)?,
                Err(error @ ClientError::Refused { .. }) => {
                    failed = true;
                    let text = match error.is_not_found() {
                        true => format!("no such node: {reference}"),
                        false => error.to_string().replace(&id, reference),
                    };
                    context.out.note(&format!("Error: {text}"));
                    if let Some(hint) = error.hint() {
                        context.out.note(&hint);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        if failed { Err(Reported.into()) } else { Ok(()) }
    }
}
