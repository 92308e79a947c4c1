//! `service rebalance`

use crate::{
    client::{Query, segment},
    context::Context,
    error::Reported,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service rebalance web api

Tasks move from nodes that have at least two of the service more than another one could take, by the update policy of
the service: parallelism, delay, order, and swarmd.max-unavailable. It ends when they are even.
The label swarmd.rebalance=true does the same whenever a node comes or comes back.";

/// Spread the tasks of services anew, once
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rebalance {
    /// Names or ids
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

impl Rebalance {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let mut failed = false;
        for service in &self.services {
            let path = format!("/swarmd/services/{}/rebalance", segment(service));
            match context.client.post_empty(&path, Query::new()).await {
                Ok(()) => context.out.line(service)?,
                Err(error) if error.is_not_found() => {
                    failed = true;
                    context.out.note(&format!("Error: no such service: {service}"));
                }
                // The other services are not to suffer from what is wrong with one.
                Err(error) if !error.is_transient() => {
                    failed = true;
                    context.out.note(&format!("Error: {error}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if failed { Err(Reported.into()) } else { Ok(()) }
    }
}
