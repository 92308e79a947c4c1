//! swarmctl: Swarm's verbs on a swarmd.
//!
//! A client of the Docker-shaped HTTP API of swarmd and of nothing else. Flags become specs in `spec_flags`, the
//! commands are in `commands`, waiting is in `progress`, and all output goes through `out`.

mod choice;
mod cli;
mod client;
mod clock;
mod commands;
mod context;
mod error;
mod filters;
mod format;
mod inspect;
mod json_text;
mod log_prefix;
mod names;
mod out;
mod ports;
mod pretty;
mod progress;
mod registry;
mod spec_diff;
mod spec_flags;
mod table;
mod tasks;
mod template;
mod units;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::Cli,
    error::{Exit, Reported},
    out::Out,
};

fn main() -> ExitCode {
    let mut out = Out::process();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if error.use_stderr() {
                let text = error.to_string();
                let text = text.trim_end();
                // It begins as our own errors do.
                out.note(&text.strip_prefix("error:").map_or(text.to_owned(), |rest| format!("Error:{rest}")));
                return ExitCode::from(usage_error_code());
            }
            // Help or version; a closed pipe is no reason to complain.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out.note(&format!("Error: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let (mut out, result) = runtime.block_on(cli.run(out));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough, as in `swarmctl service ls | head -1`.
        Err(error) if error::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(Exit(code)) = error.downcast_ref() {
                return ExitCode::from(*code);
            }
            if !error.is::<Reported>() {
                out.note(&format!("Error: {error:#}"));
                if let Some(hint) = error::hint(&error) {
                    out.note(&hint);
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// The exit code for a command line that cannot be read: 2, but for a plan, where 2 says that a task finds no node.
fn usage_error_code() -> u8 {
    let words: Vec<_> = std::env::args_os().collect();
    let is_plan = words.windows(2).any(|pair| pair[0] == "service" && pair[1] == "plan");
    if is_plan { commands::service::NO_PLAN } else { 2 }
}
