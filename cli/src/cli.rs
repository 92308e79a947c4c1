//! The command line.

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    client::{Client, Consistency, Host},
    commands::{
        config::ConfigCommand, network::NetworkCommand, node::NodeCommand, secret::SecretCommand,
        service::ServiceCommand, swarm::SwarmCommand, system, task::TaskCommand,
    },
    context::Context,
    out::Out,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm init
  swarmctl service create --name web --replicas 3 --publish target=80,mode=host nginx:1
  swarmctl service ps web
  swarmctl --host unix:///tmp/n1/swarmd.sock node ls

Environment:
  SWARM_HOST   socket of swarmd, as --host
  NO_COLOR     if set, no colours";

/// Runs containers on many machines: the command line of swarmd
#[derive(Debug, Parser)]
#[command(name = "swarmctl", version, after_help = EXAMPLES, propagate_version = false)]
pub(crate) struct Cli {
    /// Socket of swarmd, unix://PATH or PATH [default: unix:///run/swarmd/swarmd.sock]
    #[arg(short = 'H', long, value_name = "HOST", env = "SWARM_HOST", hide_env = true)]
    host: Option<Host>,
    /// linearizable [default], or stale: what this one manager knows, without a majority, and how old that may be
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "HOW",
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true,
        help_heading = "Reading"
    )]
    consistency: Consistency,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, join, leave and set up a swarm
    #[command(subcommand)]
    Swarm(SwarmCommand),
    /// See and change nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Run services
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Look at tasks
    #[command(subcommand)]
    Task(TaskCommand),
    /// Keep data that only the tasks that use it may see
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Keep files that tasks get
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Let containers of many nodes reach each other
    #[command(subcommand)]
    Network(NetworkCommand),
    Info(system::Info),
    Version(system::Version),
    Completion(system::Completion),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub(crate) async fn run(self, out: Out) -> (Out, anyhow::Result<()>) {
        let mut context = Context { client: Client::new(self.host.unwrap_or_default(), self.consistency), out };
        let result = match self.command {
            Command::Swarm(command) => command.run(&mut context).await,
            Command::Node(command) => command.run(&mut context).await,
            Command::Service(command) => command.run(&mut context).await,
            Command::Task(command) => command.run(&mut context).await,
            Command::Secret(command) => command.run(&mut context).await,
            Command::Config(command) => command.run(&mut context).await,
            Command::Network(command) => command.run(&mut context).await,
            Command::Info(command) => command.run(&mut context).await,
            Command::Version(command) => command.run(&mut context).await,
            Command::Completion(command) => completions(&mut context.out, command.shell),
        };
        if let Some(text) = context.client.staleness().text() {
            context.out.note(&text);
        }
        (context.out, result)
    }
}

fn completions(out: &mut Out, shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "swarmctl", &mut script);
    out.bytes(&script)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &Command, path: &str) {
            let is_leaf = command.get_subcommands().next().is_none();
            if is_leaf {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Examples:"), "{path} has no examples");
                assert!(command.get_about().is_some(), "{path} does not say what it is for");
            }
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "swarmctl");
    }
}
