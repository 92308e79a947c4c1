//! From the creation of a service to running containers, beside the bare engine that gets the same calls from as many
//! clients as an agent has, in turns.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::Bench;
use super::host::{Host, LIMIT, LOOK_EVERY};
use super::result::{Figure, Goal, median};
use crate::engine::Engine;
use crate::{images, interrupt, ui};

const TASKS: u64 = 50;
const TASKS_QUICK: u64 = 20;
const ROUNDS: usize = 3;
const ROUNDS_QUICK: usize = 1;
/// Creations and starts that an agent asks of its engine at the same time (agent/src/docker/mod.rs).
const CLIENTS: usize = 16;
const IMAGE: &str = "hello:1";
/// How much longer than the bare engine it may take.
const GOAL_RATIO: f64 = 1.1;

/// Runs it; without an engine there is nothing to measure.
pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let engine = match Engine::ensure() {
        Ok(engine) => engine,
        Err(error) => {
            ui::warn(&format!("left out: {error:#}"));
            return Ok(Vec::new());
        }
    };
    images::ensure(&engine)?;
    let image = engine.image_id(IMAGE)?.with_context(|| format!("there is no image {IMAGE}"))?;
    let (tasks, rounds) = if bench.quick { (TASKS_QUICK, ROUNDS_QUICK) } else { (TASKS, ROUNDS) };
    let version = format!("docker {}", engine.version());
    let host = Host::start(bench, 1, Some(engine.clone()))?;
    // The first containers find caches cold, whoever starts them.
    bare(&host, &engine, &image, 2)?;
    let (mut bare_all, mut swarm_all) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        interrupt::check()?;
        bare_all.push(bare(&host, &engine, &image, tasks)?);
        swarm_all.push(swarm(&host, &image, tasks)?);
        let last = |all: &[Vec<f64>]| all.last().and_then(|times| times.last()).copied().unwrap_or(f64::NAN) / 1e3;
        ui::say(&format!("Round {}: engine {:.1} s, swarm {:.1} s.", round + 1, last(&bare_all), last(&swarm_all)));
    }
    let whole = |all: &[Vec<f64>]| median(&all.iter().filter_map(|times| times.last()).copied().collect::<Vec<_>>());
    let (bare_ms, swarm_ms) = (whole(&bare_all), whole(&swarm_all));
    let figure = |name: &str, ms: f64, all: Vec<Vec<f64>>| {
        let figure = Figure::new(name, ms / 1e3, "s").latencies(all.into_iter().flatten().collect());
        figure.with("tasks", tasks).with("engine", version.clone())
    };
    Ok(vec![
        figure("starts.engine", bare_ms, bare_all),
        figure("starts.swarm", swarm_ms, swarm_all),
        Figure::new("starts.ratio", swarm_ms / bare_ms, "").with("tasks", tasks).goal(Goal::AtMost(GOAL_RATIO)),
    ])
}

/// When each container ran, in milliseconds from the first call on: what an agent asks for, without an agent.
fn bare(host: &Host, engine: &Engine, image: &str, tasks: u64) -> Result<Vec<f64>> {
    let (key, value) = &host.label;
    let body = json!({
        "Image": image, "Labels": { key.clone(): value }, "Tty": false, "OpenStdin": false,
        "HostConfig": { "ReadonlyRootfs": false, "Init": true },
    });
    let (next, started) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let start = Instant::now();
    let client = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed) as u64;
            if number >= tasks {
                return Ok(());
            }
            engine.image_id(image)?.context("the image went away")?;
            let id = engine.create_container(&format!("{value}.{number}"), &body)?;
            engine.start(&id)?;
            engine.started_at(&id)?;
            let ran_ms = start.elapsed().as_secs_f64() * 1e3;
            if let Ok(mut started) = started.lock() {
                started.push((ran_ms, id));
            }
        }
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    for result in results {
        let Ok(result) = result else { bail!("a client panicked") };
        result?;
    }
    let Ok(started) = started.into_inner() else { bail!("a client panicked") };
    for (_, id) in &started {
        engine.remove_container(id)?;
    }
    Ok(started.into_iter().map(|(ms, _)| ms).collect())
}

/// When each task ran, in milliseconds from the request for the service on.
fn swarm(host: &Host, image: &str, tasks: u64) -> Result<Vec<f64>> {
    let start = Instant::now();
    let service = host.create_service("bench", image, tasks)?;
    let mut times_ms = Vec::new();
    while (times_ms.len() as u64) < tasks {
        interrupt::check()?;
        let running = host.running()?;
        let now_ms = start.elapsed().as_secs_f64() * 1e3;
        times_ms.resize(times_ms.len().max(running as usize), now_ms);
        if start.elapsed() > LIMIT {
            bail!("{running} of {tasks} tasks run after {} s", LIMIT.as_secs());
        }
        thread::park_timeout(LOOK_EVERY);
    }
    host.remove_service(&service)?;
    Ok(times_ms)
}
