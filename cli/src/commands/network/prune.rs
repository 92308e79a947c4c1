//! `network prune`

use std::io::{self, BufRead, Read};

use anyhow::Context as _;
use swarm_docker_api::view::PruneNetworksResponse;

use super::NETWORKS;
use crate::{
    client::{Query, read},
    context::Context,
    filters::{self, parse_filter},
};

/// Longest answer of a person that is read.
const LINE_BYTES_MAX: u64 = 1024;

/// Removes what nobody uses.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Prune {
    /// Do not ask first
    #[arg(short, long)]
    force: bool,
    /// Remove only what matches, for example until=24h or label=tier=web; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_filter)]
    filter: Vec<(String, String)>,
}

impl Prune {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        if !self.force && !confirm(context)? {
            return Ok(());
        }
        let path = format!("{NETWORKS}/prune");
        let query = Query::new().with_some("filters", filters::to_json(&self.filter));
        let answer = context.client.post(&path, query, &serde_json::json!({}), None).await?;
        let removed: PruneNetworksResponse = read(&path, &answer)?;
        for name in removed.networks_deleted.iter().flatten() {
            context.out.line(name)?;
        }
        Ok(())
    }
}

/// Whether a person says yes.
fn confirm(context: &mut Context) -> anyhow::Result<bool> {
    context.out.prompt(
        "WARNING! This will remove all networks of the swarm that no service uses, and those of this node that no container \
         uses.\nAre you sure you want to continue? [y/N] ",
    );
    let mut line = String::new();
    io::stdin().lock().take(LINE_BYTES_MAX).read_line(&mut line).context("standard input")?;
    Ok(matches!(line.trim(), "y" | "Y"))
}
