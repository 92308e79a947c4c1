//! `swarm restore`

use std::{fs::File, path::PathBuf};

use anyhow::Context as _;

use super::passphrase::PassphraseFlag;
use crate::{client::Query, context::Context};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm restore --advertise-addr 192.0.2.10 /backup/swarm-2026-11-22
  swarmctl swarm restore --passphrase-file /root/backup.pass /backup/swarm";

/// What an operator has to know afterwards.
const NEXT: &str = "
The managers from before must never come back as they were: run 'swarmctl swarm leave --force' on each of them
before it can reach other nodes. Workers reconnect if this manager has an address that they know; otherwise see
'Backup' in docs/operations.md. 'swarmctl swarm join-token manager' prints how to add managers.";

/// Take up the swarm in a backup: this node, which is in no swarm, becomes its only manager
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseFlag,
    /// Address that other nodes reach this one by, best that of a manager from before: IP, IP:PORT or interface
    #[arg(long, value_name = "ADDR", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Address to listen on: IP, IP:PORT or network interface
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:2377")]
    listen_addr: String,
}

impl Restore {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let file = File::open(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let passphrase = self.passphrase.read(false)?;
        let query = Query::new().with("listenAddr", self.listen_addr).with("advertiseAddr", self.advertise_addr);
        let restored = context.client.restore(query, &passphrase, file).await;
        let node = restored.with_context(|| self.file.display().to_string())?;
        context.out.line(&format!("Swarm restored: current node ({node}) is now its only manager."))?;
        Ok(context.out.line(NEXT)?)
    }
}
