//! `swarm ca`

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use swarm_docker_api::view::{NodeView, SwarmView};
use swarm_model::Redacted;
use tokio::time::{Instant, sleep};

use super::{settings::set, update::write_spec};
use crate::{
    client::{ClientError, Query, read},
    context::Context,
    error::Hinted,
    units::parse_duration,
};

/// Time between two looks at the nodes.
const POLL: Duration = Duration::from_millis(500);
/// How long nodes that are down may be the only ones left before the command stops to wait for them: a restart of a
/// machine takes longer.
const DOWN_PATIENCE: Duration = Duration::from_secs(10);

/// How long the managers may fail to answer before the command gives up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm ca > root-ca.pem
  swarmctl swarm ca --rotate             (join tokens change; nodes that are down have to come back or be removed)
  swarmctl swarm ca --rotate --ca-cert root.pem --ca-key root.key     (a root CA of your own)
  swarmctl swarm ca --rotate --cert-expiry 720h --detach";

/// Show the swarm's root CA, or replace it
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ca {
    /// Replace the root CA: every node gets a new certificate
    #[arg(long)]
    rotate: bool,
    /// Certificate of a root CA of your own (PEM), to change to it
    #[arg(long, value_name = "FILE", requires = "rotate", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// Its private key (PEM); managers keep it in the sealed log
    #[arg(long, value_name = "FILE", requires = "rotate", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// How long node certificates are valid from now on
    #[arg(long, value_name = "DURATION", requires = "rotate", value_parser = parse_duration, allow_hyphen_values = true)]
    cert_expiry: Option<i64>,
    /// Do not wait until all nodes have new certificates
    #[arg(short, long, requires = "rotate")]
    detach: bool,
    /// Do not show progress
    #[arg(short, long, requires = "rotate")]
    quiet: bool,
}

impl Ca {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        if self.rotate {
            self.rotate(context).await?;
            if self.detach {
                return Ok(());
            }
            wait(context, self.quiet).await?;
        }
        let swarm: SwarmView = context.client.get("/swarm", Query::new()).await?;
        Ok(context.out.print(&swarm.info.tls_info.trust_root)?)
    }
}

impl Ca {
    async fn rotate(&self, context: &Context) -> anyhow::Result<()> {
        // First: a file that cannot be read changes nothing.
        let own = match (&self.ca_cert, &self.ca_key) {
            (Some(cert), Some(key)) => Some((read_pem(cert)?, Redacted::new(read_pem(key)?))),
            _ => None,
        };
        let bytes = context.client.get_bytes("/swarm", Query::new()).await?;
        let swarm: SwarmView = read("/swarm", &bytes)?;
        let mut object: Value = read("/swarm", &bytes)?;
        let spec = &mut object["Spec"];
        match own {
            Some((cert, key)) => {
                set(spec, "CAConfig", "SigningCACert", cert.into());
                set(spec, "CAConfig", "SigningCAKey", key.expose().into());
            }
            None => {
                let count = swarm.info.spec.ca_config.force_rotate;
                let count = count.checked_add(1).context("the root CA was rotated too often")?;
                set(spec, "CAConfig", "ForceRotate", json!(count));
            }
        }
        if let Some(expiry_ns) = self.cert_expiry {
            set(spec, "CAConfig", "NodeCertExpiry", expiry_ns.into());
        }
        write_spec(&context.client, &swarm, spec).await
    }
}

fn read_pem(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Waits until all nodes have certificates of the new root.
async fn wait(context: &mut Context, quiet: bool) -> anyhow::Result<()> {
    let mut said = String::new();
    let (mut stuck, mut silent): (Option<Instant>, Option<Instant>) = (None, None);
    loop {
        let (swarm, nodes) = match look(context).await {
            Ok(seen) => {
                silent = None;
                seen
            }
            // Managers connect to each other anew when a rotation ends.
            Err(_) if silent.get_or_insert_with(Instant::now).elapsed() < SILENCE_MAX => {
                sleep(POLL).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let left = left(&swarm, &nodes);
        if !swarm.info.root_rotation_in_progress {
            if !quiet {
                context.out.note("The root CA was rotated; the join tokens have changed.");
            }
            return Ok(());
        }
        let text = progress(nodes.len(), &left);
        if !quiet && text != said {
            context.out.note(&text);
            said = text;
        }
        let only_down = !left.is_empty() && left.iter().all(|node| node.status.state != "ready");
        match stuck.filter(|_| only_down) {
            Some(since) if since.elapsed() >= DOWN_PATIENCE => return Err(down(&left).into()),
            since => stuck = since.or_else(|| only_down.then(Instant::now)),
        }
        sleep(POLL).await;
    }
}

async fn look(context: &Context) -> Result<(SwarmView, Vec<NodeView>), ClientError> {
    Ok((context.client.get("/swarm", Query::new()).await?, context.client.get("/nodes", Query::new()).await?))
}

/// The nodes that have no certificate of the new root yet.
fn left<'a>(swarm: &SwarmView, nodes: &'a [NodeView]) -> Vec<&'a NodeView> {
    let wanted = &swarm.info.tls_info.cert_issuer_public_key;
    nodes.iter().filter(|node| node.description.tls_info.cert_issuer_public_key != *wanted).collect()
}

fn progress(total: usize, left: &[&NodeView]) -> String {
    let text = format!("rotated certificates: {} of {total} nodes", total - left.len());
    match left {
        [] => text,
        left => format!("{text}; waiting for {}", names(left)),
    }
}

fn names(nodes: &[&NodeView]) -> String {
    let name = |node: &&NodeView| format!("{} ({})", node.description.description.hostname, node.status.state);
    nodes.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn down(left: &[&NodeView]) -> Hinted {
    let ids: Vec<_> = left.iter().map(|node| node.id.as_str()).collect();
    Hinted {
        message: format!("the rotation waits for nodes that do not answer: {}", names(left)),
        hint: format!(
            "It ends by itself when they are back, or when they are removed: swarmctl node rm --force {} (a manager \
             has to be demoted first). Until then certificates of both root CAs count.",
            ids.join(" ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_who_is_missing() {
        let node = |hostname: &str, state: &str| {
            let mut node = NodeView { id: format!("id-{hostname}"), ..NodeView::default() };
            std::sync::Arc::make_mut(&mut node.description.description).hostname = hostname.to_owned();
            node.status.state = state.to_owned();
            node
        };
        let (a, b) = (node("a", "ready"), node("b", "down"));
        assert_eq!(progress(3, &[&a, &b]), "rotated certificates: 1 of 3 nodes; waiting for a (ready), b (down)");
        assert_eq!(progress(3, &[]), "rotated certificates: 3 of 3 nodes");
        assert!(down(&[&b]).hint.contains("node rm --force id-b "));
    }
}
