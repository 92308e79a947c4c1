//! A rolling update of 50 tasks, ten at a time, on three nodes: until the last new task runs, and until the update is
//! complete, which is a monitor window later.

use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Bench;
use super::host::{Host, LIMIT, LOOK_EVERY};
use super::result::Figure;
use crate::engine::Engine;
use crate::{http, images, interrupt, ui};

const TASKS: u64 = 50;
const TASKS_QUICK: u64 = 20;
const NODES: u8 = 3;

/// Runs it, on an engine if there is one.
pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let engine = Engine::ensure();
    if let Err(error) = &engine {
        ui::warn(&format!("tasks run in memory: {error:#}"));
    }
    let engine = engine.ok();
    let (mut old, mut new, mut version) = ("hello:1".to_owned(), "hello:2".to_owned(), "simulated".to_owned());
    if let Some(engine) = &engine {
        images::ensure(engine)?;
        for image in [&mut old, &mut new] {
            *image = engine.image_id(image)?.with_context(|| format!("there is no image {image}"))?;
        }
        version = format!("docker {}", engine.version());
    }
    let tasks = if bench.quick { TASKS_QUICK } else { TASKS };
    let host = Host::start(bench, NODES, engine)?;
    let id = host.create_service("bench", &old, tasks)?;
    host.wait(&format!("{tasks} tasks run"), || Ok((host.running()? == tasks).then_some(())))?;

    let service = host.service(&id)?;
    let mut spec = service.spec.clone();
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = new.clone().into();
    let start = Instant::now();
    host.update_service(&service, &spec)?;
    let (mut all_new, mut completed) = (None, None);
    while completed.is_none() {
        interrupt::check()?;
        if all_new.is_none() && running(&host, &new)? == tasks {
            all_new = Some(start.elapsed());
        }
        if all_new.is_some() {
            match host.service(&id)?.update_status.map(|update| update.state).as_deref() {
                Some("completed") => completed = Some(start.elapsed()),
                Some("updating") => {}
                other => bail!("the update is {}", other.unwrap_or("gone")),
            }
        }
        if start.elapsed() > LIMIT {
            bail!("the update did not end within {} s", LIMIT.as_secs());
        }
        thread::park_timeout(LOOK_EVERY);
    }
    host.remove_service(&id)?;
    let figure = |name: &str, took: Option<std::time::Duration>| {
        let figure = Figure::new(name, took.unwrap_or_default().as_secs_f64(), "s");
        figure.with("tasks", tasks).with("parallelism", 10).with("engine", version.clone())
    };
    Ok(vec![figure("update.new_running", all_new), figure("update.completed", completed)])
}

/// Tasks of an image that should run and do.
fn running(host: &Host, image: &str) -> Result<u64> {
    let filters = http::encode(r#"{"desired-state":["running"]}"#);
    let tasks: Vec<Value> = http::get(&host.api(), &format!("/tasks?filters={filters}"))?;
    let runs = |task: &&Value| {
        task["Status"]["State"] == "running" && task["Spec"]["ContainerSpec"]["Image"].as_str() == Some(image)
    };
    Ok(tasks.iter().filter(runs).count() as u64)
}
