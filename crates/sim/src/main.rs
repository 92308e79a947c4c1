//! `swarm-sim [--plane] --seeds N --from S`: runs seeds, counts what they did, and shows the first that fails.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

use std::{
    io::{IsTerminal, stderr},
    num::NonZero,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use swarm_sim::{Counts, KINDS, Kinds, Options, Report, raft, simulate};

/// The allocator of swarmd.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lines of the trace that are shown of a seed that fails.
const LAST_EVENTS: usize = 60;
/// Characters of such a line.
const LINE_CHARS: usize = 400;
/// From so many seeds on, every kind of fault and of operation has to have occurred.
const SEEDS_FOR_ALL_KINDS: u64 = 10;

#[derive(Parser)]
#[command(about = "Simulates clusters with faults, and checks that nothing goes wrong", disable_help_subcommand = true)]
struct Arguments {
    /// Simulate the whole plane (leader, agents, operators) on a model of the log, instead of Raft on simulated disks
    /// and a simulated network
    #[arg(long)]
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
    /// Nodes at the start, of the plane
    #[arg(long, default_value_t = Options::default().nodes)]
    nodes: u32,
    /// Simulated minutes of faults [default: 60 of the plane, 10 of Raft]
    #[arg(long)]
    minutes: Option<u64>,
    /// Threads; a seed runs on one [default: one for each processor]
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
}

/// What is simulated.
#[derive(Clone, Copy)]
enum World {
    Plane(Options),
    Raft(raft::Options),
}

impl World {
    fn of(arguments: &Arguments) -> Self {
        let trace = arguments.trace;
        if arguments.plane {
            let minutes = arguments.minutes.unwrap_or(Options::default().minutes);
            Self::Plane(Options { nodes: arguments.nodes, minutes, trace })
        } else {
            Self::Raft(raft::Options { minutes: arguments.minutes.unwrap_or(raft::Options::default().minutes), trace })
        }
    }

    fn traced(self) -> Self {
        match self {
            Self::Plane(options) => Self::Plane(Options { trace: true, ..options }),
            Self::Raft(options) => Self::Raft(raft::Options { trace: true, ..options }),
        }
    }

    fn simulate(self, seed: u64) -> Report {
        match self {
            Self::Plane(options) => simulate(seed, options),
            Self::Raft(options) => raft::simulate(seed, options),
        }
    }

    fn kinds(self) -> &'static Kinds {
        match self {
            Self::Plane(_) => &KINDS,
            Self::Raft(_) => &raft::KINDS,
        }
    }

    /// The arguments that make it.
    fn arguments(self) -> String {
        match self {
            Self::Plane(Options { nodes, minutes, .. }) => format!("--plane --nodes {nodes} --minutes {minutes}"),
            Self::Raft(raft::Options { minutes, .. }) => format!("--minutes {minutes}"),
        }
    }

    #[cfg(feature = "mutants")]
    fn mutants(self) -> Vec<&'static str> {
        let all = match self {
            Self::Plane(_) => &swarm_model::mutant::MUTANTS[..],
            Self::Raft(_) => &swarm_model::mutant::RAFT_MUTANTS[..],
        };
        all.iter().map(|(name, _)| *name).collect()
    }
}

struct Summary {
    counts: Counts,
    seeds: u64,
    simulated_ms: u64,
    slowest_ms: u128,
    failed: Vec<(u64, String)>,
}

/// A line on the terminal that says how far the seeds are, once a second; nothing where nobody looks.
struct Progress {
    wanted: u64,
    began: Instant,
    shown: Instant,
    is_shown: bool,
}

impl Progress {
    fn new(wanted: u64) -> Self {
        let began = Instant::now();
        let is_shown = stderr().is_terminal();
        Self { wanted, began, shown: began, is_shown }
    }

    fn show(&mut self, summary: &Summary) {
        let now = Instant::now();
        if self.is_shown && now - self.shown >= Duration::from_secs(1) {
            self.shown = now;
            let (seeds, failed, seconds) = (summary.seeds, summary.failed.len(), (now - self.began).as_secs());
            eprint!("\r\x1b[K{seeds} of {} seeds, {failed} failed, {seconds} s", self.wanted);
        }
    }

    /// Takes the line away, for what is printed next.
    fn clear(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let world = World::of(&arguments);
    let mutant = match arguments.mutant.as_deref().map(|name| find_mutant(world, name)).transpose() {
        Ok(mutant) => mutant,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let began = Instant::now();
    let summary = run_all(&arguments, world, mutant);
    let seconds = began.elapsed().as_secs_f64();
    print_summary(&summary, seconds);
    if let Some((seed, complaint)) = summary.failed.first() {
        println!();
        println!("Seed {seed}: {complaint}");
        if !arguments.trace {
            print_last_events(*seed, world, mutant);
        }
        let mutant = arguments.mutant.as_ref().map(|name| format!(" --mutant {name}")).unwrap_or_default();
        println!();
        println!("Again: cargo xtask sim {} --from {seed} --seeds 1{mutant} --trace", world.arguments());
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
fn find_mutant(world: World, name: &str) -> Result<&'static str, String> {
    let names = world.mutants();
    let unknown = || format!("there is no mutant {name}; there are {}", names.join(", "));
    names.iter().copied().find(|found| *found == name).ok_or_else(unknown)
}

#[cfg(not(feature = "mutants"))]
fn find_mutant(_world: World, name: &str) -> Result<&'static str, String> {
    Err(format!("this program is built without mutants such as {name}; build it with --features mutants"))
}

#[cfg(feature = "mutants")]
fn activate(mutant: Option<&'static str>) {
    swarm_model::mutant::activate(mutant);
}

#[cfg(not(feature = "mutants"))]
fn activate(_mutant: Option<&'static str>) {}

/// Runs the seeds on all threads. With a mutant, or one seed to look at, the first that fails ends it.
fn run_all(arguments: &Arguments, world: World, mutant: Option<&'static str>) -> Summary {
    let counts = Counts::of(world.kinds());
    let summary = Summary { counts, seeds: 0, simulated_ms: 0, slowest_ms: 0, failed: Vec::new() };
    let shared = Mutex::new((summary, Progress::new(arguments.seeds)));
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
                    let report = world.simulate(seed);
                    let took_ms = began.elapsed().as_millis();
                    if mutant.is_some() && report.complaint.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let (summary, progress) = &mut *shared.lock().unwrap_or_else(PoisonError::into_inner);
                    if report.complaint.is_some() || !report.trace.is_empty() {
                        progress.clear();
                    }
                    add(summary, seed, report, took_ms);
                    progress.show(summary);
                }
            });
        }
    });
    let (mut summary, progress) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress.clear();
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

fn print_last_events(seed: u64, world: World, mutant: Option<&'static str>) {
    activate(mutant);
    let report = world.traced().simulate(seed);
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
    for (title, counts, kinds) in [
        ("faults", &summary.counts.faults, summary.counts.kinds.faults),
        ("operations", &summary.counts.operations, summary.counts.kinds.operations),
    ] {
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
