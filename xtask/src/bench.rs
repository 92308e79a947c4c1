//! `cargo xtask bench`: figures of this machine. Benchmarks, never tests: nothing fails because a machine is slow.

mod document;
mod etcd;
mod failover;
mod host;
mod machine;
mod memory;
mod million;
mod program;
mod result;
mod scale;
mod scheduler;
mod starts;
mod swarm;
mod update;
mod writes;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::programs::Programs;
use crate::{interrupt, programs, ui};

use machine::Machine;
use result::Figure;

/// The options of `cargo xtask bench`.
pub(crate) struct Options {
    /// Which benchmarks; none for all.
    pub names: Vec<Name>,
    /// Shorter runs, for a first look.
    pub quick: bool,
    /// Where to write the figures as JSON.
    pub json: Option<PathBuf>,
    /// A document whose sections get the figures.
    pub markdown: Option<PathBuf>,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Name {
    /// Durable writes: label updates over HTTP, beside etcd's, and proposals alone
    Writes,
    /// Leaders of five managers killed under writing clients, until the next acknowledged write
    Failover,
    /// From the creation of a service to running containers, beside the bare engine
    Starts,
    /// Placing tasks, without a log and without a network
    Scheduler,
    /// A million tasks in the core alone, from their creation until all run; the loss of a node
    Million,
    /// Memory of swarmd: idle, and with 10,000 tasks
    Memory,
    /// Processor time of three managers for 10,000 more tasks on 60 nodes, beside 10,000 to 200,000 that run
    Scale,
    /// A rolling update of 50 tasks, ten at a time
    Update,
}

impl Name {
    fn text(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self, bench: &Bench) -> Result<Vec<Figure>> {
        match self {
            Self::Writes => writes::run(bench),
            Self::Failover => failover::run(bench),
            Self::Starts => starts::run(bench),
            Self::Scheduler => scheduler::run(bench),
            Self::Million => million::run(bench),
            Self::Memory => memory::run(bench),
            Self::Scale => scale::run(bench),
            Self::Update => update::run(bench),
        }
    }
}

/// What each benchmark gets.
struct Bench {
    programs: Programs,
    quick: bool,
}

/// The figures of one benchmark.
struct Section {
    name: Name,
    /// Share of the processors that had nothing to do before it began.
    idle: f64,
    figures: Vec<Figure>,
}

/// Runs benchmarks and prints their figures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut names: BTreeSet<Name> = options.names.iter().copied().collect();
    if names.is_empty() {
        names = Name::value_variants().iter().copied().collect();
    }
    if let Some(path) = &options.markdown {
        // Found out now rather than after all the work.
        document::check(path, &names)?;
    }
    let bench = Bench { programs: programs::build()?, quick: options.quick };
    let machine = Machine::look(&host::folder()?)?;
    ui::heading("This machine");
    ui::say(&machine.to_string());
    let (mut sections, mut failure) = (Vec::new(), None);
    for name in names {
        match measure(name, &bench) {
            // One that was left out keeps the figures that the document has.
            Ok(section) if section.figures.is_empty() => {}
            Ok(section) => {
                result::table(&section.figures).iter().for_each(|line| ui::say(line));
                sections.push(section);
            }
            // What was measured before is kept.
            Err(error) if interrupt::check().is_err() => {
                failure = Some(error);
                break;
            }
            Err(error) => {
                let error = error.context(format!("benchmark {}", name.text()));
                ui::warn(&format!("{error:#}"));
                failure.get_or_insert(error);
            }
        }
    }
    if let Some(path) = &options.json {
        let json = result::json(&machine, &sections);
        fs::write(path, format!("{json:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.markdown {
        document::write(path, &machine, &sections, options.quick)?;
    }
    failure.map_or(Ok(()), Err)
}

fn measure(name: Name, bench: &Bench) -> Result<Section> {
    ui::heading(&name.text());
    let idle = machine::idle_share()?;
    ui::say(&format!("{:.0} % of the processors were idle before it began.", idle * 100.0));
    let figures = name.run(bench)?;
    Ok(Section { name, idle, figures })
}
