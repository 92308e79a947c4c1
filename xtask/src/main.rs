//! `cargo xtask demo | test | bench | hosts | sim | verify`: what the project does with itself, without a shell script.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod bench;
mod clients;
mod connection;
mod demo;
mod engine;
mod fixture;
mod flags;
mod hosts;
mod http;
mod images;
mod interrupt;
mod node;
mod process;
mod programs;
mod sim;
mod test;
mod ui;
mod verify;
mod wait;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Shows, tests and checks this project", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start a cluster of three nodes on this machine, run real containers on it, and clean up
    ///
    /// Needs the Rust toolchain, and a Docker Engine or root on Debian or Ubuntu to install one. Builds in release
    /// mode. Exits with 1 if anything that it shows did not happen.
    Demo {
        /// Leave the cluster running at the end and print how to talk to it
        #[arg(long)]
        keep: bool,
        /// Run tasks in memory instead of in containers: needs neither Docker nor root
        #[arg(long)]
        simulated: bool,
    },
    /// Check rules, format and lints, then run all tests, those with a real Docker Engine included
    ///
    /// Installs and starts a Docker Engine as the demo does. If that is impossible, the tests that need one are left
    /// out and the summary says so; with CI=true in the environment it is a failure instead.
    Test {
        /// Run only the tests whose names contain one of these, and none of the other checks
        filters: Vec<String>,
    },
    /// Measure this machine, and print figures beside the project's goals
    ///
    /// In release mode, with logs on the disk that the target folder is on. Nothing fails because a machine is slow.
    /// The figures mean something on a quiet machine only: the share of idle processors is printed with them.
    Bench {
        /// Which benchmarks [default: all]
        names: Vec<bench::Name>,
        /// Shorter runs, for a first look
        #[arg(long)]
        quick: bool,
        /// Write the figures as JSON: {"results":[{"name","value","unit","params"}]}
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Put the figures into the sections of a document, docs/benchmarks.md
        #[arg(long, value_name = "FILE")]
        markdown: Option<PathBuf>,
    },
    /// Several hosts on this machine, with a Docker Engine and a swarmd each, that can be cut off and crash
    ///
    /// Namespaces on a LAN of their own, in release mode. Needs root, and installs a Docker Engine as the demo does.
    Hosts {
        #[command(subcommand)]
        task: hosts::Task,
    },
    /// Simulate whole clusters with faults, and check that nothing goes wrong
    ///
    /// One deterministic world a seed: with --plane leader, dispatcher, agents, operators, faults, and an oracle;
    /// otherwise managers with their Raft on simulated disks and a simulated network. Builds in release mode. Exits with 1 if a seed fails, with the command that runs it again.
    Sim {
        /// `[--plane] --seeds N --from S [--mutant NAME] [--trace]`; `--help` shows all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Keep a state folder of the present version, which later versions have to open
    ///
    /// Written to node/tests/fixtures/<version>, with keys and certificates of a swarm that exists nowhere. Run it before
    /// a release, and never for a version that was released.
    Fixture,
    /// Put a table of the flags of Docker's CLI into a document, with what becomes of each: the same, refused, or different
    ///
    /// Compares the help of its commands with that of swarmctl. A flag of which nobody has said what becomes of it is an
    /// error. SWARM_PROGRAMS names a folder with a swarmctl that is built already.
    Flags {
        /// Docker's CLI
        #[arg(long, value_name = "PROGRAM", default_value = "docker")]
        docker: PathBuf,
        /// The document
        #[arg(default_value = "docs/clients.md")]
        document: PathBuf,
    },
    /// Check the rules that the compiler does not: imports between crates, file sizes, nothing unfinished
    Verify,
}

fn main() -> ExitCode {
    let result = interrupt::install().and_then(|()| match Arguments::parse().task {
        Task::Demo { keep, simulated } => demo::run(&demo::Options { keep, simulated }),
        Task::Test { filters } => test::run(&filters),
        Task::Bench { names, quick, json, markdown } => bench::run(&bench::Options { names, quick, json, markdown }),
        Task::Hosts { task } => hosts::run(task),
        Task::Sim { arguments } => sim::run(&arguments),
        Task::Fixture => fixture::run(),
        Task::Flags { docker, document } => flags::run(&docker, &document),
        Task::Verify => verify::run(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", ui::red("error:"));
            ExitCode::FAILURE
        }
    }
}
