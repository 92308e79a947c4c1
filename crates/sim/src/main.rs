//! `swarm-sim --plane --seeds N --from S`: runs seeds, counts what they did, and shows the first that fails.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

use std::{
    num::NonZero,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use clap::Parser;
use swarm_sim::{Counts, FAULTS, OPERATIONS, Options, Report, simulate};

/// Lines of the trace that are shown of a seed that fails.
const LAST_EVENTS: usize = 60;
/// Characters of such a line.
const LINE_CHARS: usize = 400;
/// From so many seeds on, every kind of fault and of operation has to have occurred.
const SEEDS_FOR_ALL_KINDS: u64 = 10;

#[derive(Parser)]
#[command(about = "Simulates clusters with faults, and checks that nothing goes wrong", disable_help_subcommand = true)]
struct Arguments {
    /// Simulate the whole plane: leader, agents, operators
    #[arg(long, required = true)]
    plane: bool,
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Switch on a bug that is in the program on purpose, and stop at the first seed that finds it
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Print every event
    #[arg(long)]
    trace: bool,
    /// Nodes at the start
    #[arg(long, default_value_t = Options::default().nodes)]
    nodes: u32,
    /// Simulated minutes of faults
    #[arg(long, default_value_t = Options::default().minutes)]
    minutes: u64,
    /// Threads; a seed runs on one [default: one for each processor]
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
}

#[derive(Default)]
struct Summary {
    counts: Counts,
    seeds: u64,
    simulated_ms: u64,
    slowest_ms: u128,
    failed: Vec<(u64, String)>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mutant = match arguments.mutant.as_deref().map(find_mutant).transpose() {
        Ok(mutant) => mutant,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let options = Options { nodes: arguments.nodes, minutes: arguments.minutes, trace: arguments.trace };
    let began = Instant::now();
    let summary = run_all(&arguments, options, mutant);
    let seconds = began.elapsed().as_secs_f64();
    print_summary(&summary, seconds);
    if let Some((seed, complaint)) = summary.failed.first() {
        println!();
        println!("Seed {seed}: {complaint}");
        if !arguments.trace {
            print_last_events(*seed, options, mutant);
        }
        let mutant = arguments.mutant.as_ref().map(|name| format!(" --mutant {name}")).unwrap_or_default();
        let (nodes, minutes) = (arguments.nodes, arguments.minutes);
        println!();
        println!(
            "Again: cargo xtask sim --plane --from {seed} --seeds 1 --nodes {nodes} --minutes {minutes}{mutant} --trace"
        );
    }
    if let Some(name) = &arguments.mutant {
        return match summary.failed.first() {
            Some((seed, _)) => {
                println!("Mutant {name} was found by seed {seed}, after {} others.", seed - arguments.from);
                ExitCode::SUCCESS
            }
            None => {
                eprintln!("error: no seed found the mutant {name}");
                ExitCode::FAILURE
            }
        };
    }
    let missing = summary.counts.missing();
    if !missing.is_empty() && summary.seeds >= SEEDS_FOR_ALL_KINDS {
        eprintln!("error: these never occurred, so that nothing is known about them: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(feature = "mutants")]
fn find_mutant(name: &str) -> Result<&'static str, String> {
    let names = swarm_model::mutant::MUTANTS.map(|(name, _)| name);
    let unknown = || format!("there is no mutant {name}; there are {}", names.join(", "));
    names.into_iter().find(|found| *found == name).ok_or_else(unknown)
}

#[cfg(not(feature = "mutants"))]
fn find_mutant(name: &str) -> Result<&'static str, String> {
    Err(format!("this program is built without mutants such as {name}; build it with --features mutants"))
}

#[cfg(feature = "mutants")]
fn activate(mutant: Option<&'static str>) {
    swarm_model::mutant::activate(mutant);
}

#[cfg(not(feature = "mutants"))]
fn activate(_mutant: Option<&'static str>) {}

/// Runs the seeds on all threads. With a mutant, or one seed to look at, the first that fails ends it.
fn run_all(arguments: &Arguments, options: Options, mutant: Option<&'static str>) -> Summary {
    let summary = Mutex::new(Summary::default());
    let next = AtomicU64::new(arguments.from);
    let stop = AtomicBool::new(false);
    let end = arguments.from.saturating_add(arguments.seeds);
    let processors = || thread::available_parallelism().map_or(1, NonZero::get);
    let threads = arguments.jobs.map_or_else(processors, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                activate(mutant);
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let began = Instant::now();
                    let report = simulate(seed, options);
                    let took_ms = began.elapsed().as_millis();
                    if mutant.is_some() && report.complaint.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    add(&mut summary.lock().unwrap_or_else(PoisonError::into_inner), seed, report, took_ms);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failed.sort();
    summary
}

fn add(summary: &mut Summary, seed: u64, report: Report, took_ms: u128) {
    report.trace.iter().for_each(|line| println!("{line}"));
    summary.seeds += 1;
    summary.simulated_ms += report.simulated_ms;
    summary.slowest_ms = summary.slowest_ms.max(took_ms);
    summary.counts.add(&report.counts);
    if let Some(complaint) = report.complaint {
        println!("seed {seed} failed: {}", complaint.lines().next().unwrap_or_default());
        summary.failed.push((seed, complaint));
    }
}

fn print_last_events(seed: u64, options: Options, mutant: Option<&'static str>) {
    activate(mutant);
    let report = simulate(seed, Options { trace: true, ..options });
    println!("The last events:");
    for line in &report.trace[report.trace.len().saturating_sub(LAST_EVENTS)..] {
        let short: String = line.chars().take(LINE_CHARS).collect();
        println!("  {short}");
    }
}

fn print_summary(summary: &Summary, seconds: f64) {
    let hours = summary.simulated_ms as f64 / 3_600_000.0;
    let faults = summary.counts.faults_total();
    let minutes = seconds / 60.0;
    for (title, counts, kinds) in
        [("faults", &summary.counts.faults, &FAULTS[..]), ("operations", &summary.counts.operations, &OPERATIONS[..])]
    {
        println!("{title}");
        for kind in kinds {
            println!("  {kind:<36} {:>10}", counts.get(kind).copied().unwrap_or(0));
        }
    }
    println!("besides");
    for (kind, count) in &summary.counts.others {
        println!("  {kind:<36} {count:>10}");
    }
    println!();
    println!(
        "{} seeds, {} failed; {hours:.1} simulated cluster-hours and {faults} faults in {seconds:.1} s: \
         {:.0} cluster-hours and {:.0} faults a minute; the slowest seed took {} ms",
        summary.seeds,
        summary.failed.len(),
        hours / minutes,
        faults as f64 / minutes,
        summary.slowest_ms
    );
}
