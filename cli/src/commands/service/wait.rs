//! Waiting for services that a command has changed.

use crate::{
    context::Context,
    progress::{ApiSource, Before, Deadline, Display, Outcome, Wait},
    units::parse_duration,
};

/// Flags of commands that wait.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Waiting")]
pub(super) struct WaitFlags {
    /// Do not wait until the tasks run
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, hide_default_value = true)]
    pub(super) detach: bool,
    /// Wait without showing progress
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Give up waiting after this time, with exit code 1
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true, conflicts_with = "detach")]
    timeout: Option<i64>,
}

impl WaitFlags {
    /// When to give up, counted from now.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.timeout.map(Deadline::after_ns)
    }

    /// Waits for one service, unless `--detach` is given.
    ///
    /// # Errors
    /// As [`Wait::run`].
    pub(super) async fn wait(
        &self,
        context: &mut Context,
        service_id: &str,
        deadline: Option<Deadline>,
        before: Before,
    ) -> anyhow::Result<Outcome> {
        if self.detach {
            return Ok(Outcome::Converged);
        }
        let mut source = ApiSource::new(context.client.clone(), service_id.to_owned());
        let wait = Wait::new(Display::new(&mut context.out, self.quiet), before);
        let interrupt = async {
            if tokio::signal::ctrl_c().await.is_err() {
                // Without a handler the signal ends the process by itself.
                std::future::pending().await
            }
        };
        let outcome = wait.run(&mut source, deadline, interrupt).await?;
        if outcome == Outcome::Interrupted {
            context.out.line("Operation continuing in background.")?;
            context.out.line(&format!("Use `swarmctl service ps {service_id}` to check progress."))?;
        }
        Ok(outcome)
    }
}
