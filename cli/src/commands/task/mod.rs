//! `swarmctl task …`

use clap::Subcommand;

use super::why;
use crate::{context::Context, inspect::AnswerFormat};

/// Look at tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    Why(Why),
}

impl TaskCommand {
    pub(crate) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        match self {
            Self::Why(command) => why::show(context, "tasks", &command.task, &command.format).await,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  swarmctl task why web.2
  swarmctl task why --format json hyfde9xmq0od";

/// Say why a task is as it is, and what would help
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Why {
    /// Its id, or SERVICE.SLOT for the task that stands for a slot: the newest that is meant to run, else the newest
    #[arg(value_name = "TASK")]
    task: String,
    #[command(flatten)]
    format: AnswerFormat,
}
