//! `service rebalance`

use crate::{
    client::{Query, segment},
    context::Context,
    error::Reported,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service rebalance web api

Tasks move to where placement preferences, swarmd.placement.prefer and then an even spread want them, by the update policy
of the service: parallelism, delay, order, and swarmd.max-unavailable. It ends when they are even: a difference of one is.
The label swarmd.rebalance=true does the same whenever a node comes, comes back or has room again.
A service that packs its tasks (swarmd.placement=pack) is refused.";

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
