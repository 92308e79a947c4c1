//! `swarm unlock`

use std::io::{self, BufRead, IsTerminal};

use anyhow::Context as _;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use swarm_docker_api::view::{InfoView, UnlockKeyView};
use swarm_model::Redacted;

use crate::{client::Query, context::Context};

/// Longest line that is read as a key: one has 52 characters.
const LINE_BYTES_MAX: u64 = 1 << 10;

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm unlock                  (asks for the key)
  swarmctl swarm unlock < unlock-key";

/// Unlock this manager after a restart, with the key from standard input
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Unlock {}

impl Unlock {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let info: InfoView = context.client.get("/info", Query::new()).await?;
        match info.swarm.local_node_state.as_str() {
            "locked" => {}
            "inactive" => anyhow::bail!("this node is not part of a swarm"),
            _ => anyhow::bail!("swarm is not locked"),
        }
        let unlock_key = read_key(context)?;
        context.client.post("/swarm/unlock", Query::new(), &UnlockKeyView { unlock_key }, None).await?;
        Ok(())
    }
}

/// Reads a line; what is typed is not shown.
fn read_key(context: &mut Context) -> anyhow::Result<Redacted> {
    let stdin = io::stdin();
    let shown = stdin.is_terminal().then(|| tcgetattr(&stdin)).transpose().context("the terminal")?;
    if let Some(shown) = &shown {
        context.out.prompt("Enter unlock key: ");
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden).context("the terminal")?;
    }
    let mut line = String::new();
    let read = io::Read::take(stdin.lock(), LINE_BYTES_MAX).read_line(&mut line);
    if let Some(shown) = &shown {
        tcsetattr(&stdin, OptionalActions::Flush, shown).context("the terminal")?;
        context.out.note("");
    }
    read.context("standard input")?;
    anyhow::ensure!(!line.trim().is_empty(), "there is no key on standard input");
    Ok(Redacted::new(line.trim()))
}
