//! Three hosts under fire: the leader cut off with the minority while clients write, and leaders killed while containers
//! run. Nothing acknowledged may be lost, nothing may be acknowledged by a minority, nothing may run twice or stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::host::{Host, START_LIMIT};
use super::lan;
use crate::clients::{Clients, SwarmWriter, Writer};
use crate::connection::Connection;
use crate::engine::Engine;
use crate::http::{self, Address};
use crate::wait::{self, Look};
use crate::{interrupt, ui};

const HOSTS: u8 = 3;
/// Clients of the majority, and of the whole cluster while leaders are killed.
const CLIENTS: usize = 4;
/// Tasks of the service that runs all the time: a third of them on the leader's host.
const TASKS: usize = 6;
const SERVICE: &str = "trial";
/// Writing before a kill.
const BEFORE_KILL: Duration = Duration::from_millis(300);
/// Between two attempts of the client that stays with the minority.
const PAUSE: Duration = Duration::from_millis(50);
/// The cut-off host notices that it is in the minority, its node is given up, and its tasks start elsewhere; containers
/// start six a second on two cores.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// Runs it on new hosts.
pub(super) fn run(cut_secs: u64, kills: u32, keep: bool) -> Result<()> {
    super::down()?;
    let result = super::up(HOSTS, HOSTS).and_then(|hosts| trial(&hosts, Duration::from_secs(cut_secs), kills));
    if keep {
        return result;
    }
    interrupt::clear();
    result.and(super::down())
}

fn trial(hosts: &[Host], cut: Duration, kills: u32) -> Result<()> {
    let spec = json!({
        "Name": SERVICE,
        "TaskTemplate": { "ContainerSpec": { "Image": "hello:1", "Init": true } },
        "Mode": { "Replicated": { "Replicas": TASKS } },
    });
    let spec = spec.to_string();
    http::call(&hosts[0].api(), "POST", "/services/create", Some(("application/json", spec.as_bytes())))?;
    let mut writers: Vec<SwarmWriter> = (0..=CLIENTS).map(SwarmWriter::new).collect();
    writers.iter().try_for_each(|writer| writer.create(&hosts[0].api()))?;
    settled(hosts)?;
    let mut writers = cut_off(hosts, std::mem::take(&mut writers), cut)?;
    // The client that was with the minority writes no more.
    writers.truncate(CLIENTS);
    kill_leaders(hosts, writers, kills)
}

/// The leader is alone for a while.
fn cut_off(hosts: &[Host], mut writers: Vec<SwarmWriter>, cut: Duration) -> Result<Vec<SwarmWriter>> {
    ui::heading("The leader is cut off");
    let leader = leader(hosts)?;
    let (old, others): (Vec<&Host>, Vec<&Host>) = hosts.iter().partition(|host| host.number() == leader.number());
    let lonely = writers.pop().context("no client for the minority")?;
    let clients = Clients::new(others.iter().map(|host| host.api()).collect());
    let (over, isolated) = (AtomicBool::new(false), AtomicBool::new(false));
    let wrongly = AtomicU64::new(0);
    let mut writers = thread::scope(|scope| {
        let start = |(number, writer)| {
            let clients = &clients;
            scope.spawn(move || clients.run(number, writer))
        };
        let threads: Vec<_> = writers.into_iter().enumerate().map(start).collect();
        let minority =
            scope.spawn(|| write_at(&old[0].api(), lonely, &over, &|| isolated.load(Ordering::SeqCst), &wrongly));
        let during = || -> Result<()> {
            pass(Duration::from_secs(1))?;
            lan::cut(old[0])?;
            isolated.store(true, Ordering::SeqCst);
            let took = clients.next_after(Instant::now())?;
            ui::seen(&format!("{} is cut off; the others acknowledge writes", old[0].name()));
            let before = clients.acknowledged();
            pass(cut.saturating_sub(took.elapsed()))?;
            let acknowledged = clients.acknowledged() - before;
            ensure!(acknowledged > 0, "the majority acknowledged nothing while the leader was cut off");
            ui::seen(&format!("{acknowledged} writes acknowledged by the majority meanwhile"));
            Ok(())
        };
        let result = during();
        isolated.store(false, Ordering::SeqCst);
        let healed = lan::heal(old[0]);
        // The one that was cut off has to hear of everything while the others go on.
        let result = result.and(healed).and_then(|()| settled(hosts));
        over.store(true, Ordering::SeqCst);
        clients.stop();
        let mut writers = Vec::new();
        for thread in threads {
            writers.push(thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        writers.push(minority.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        result.map(|()| writers)
    })?;
    let wrongly = wrongly.load(Ordering::SeqCst);
    ensure!(wrongly == 0, "the minority acknowledged {wrongly} writes that were sent while it was alone");
    ui::seen("the minority acknowledged none");
    same_everywhere(hosts, &mut writers)?;
    Ok(writers)
}

/// A client that stays with one manager. Counts acknowledgements of writes that were sent while `alone`, and still are.
fn write_at(
    api: &Address,
    mut writer: SwarmWriter,
    over: &AtomicBool,
    alone: &dyn Fn() -> bool,
    wrongly: &AtomicU64,
) -> Result<SwarmWriter> {
    let mut connection = None;
    while !over.load(Ordering::SeqCst) {
        let sent_alone = alone();
        let written = match connection.take().map_or_else(|| Connection::open(api), Ok) {
            Ok(mut open) => writer.write(&mut open).map(|_| connection = Some(open)),
            Err(_) => Err(crate::clients::Trouble::Again),
        };
        match written {
            Ok(()) if sent_alone && alone() => drop(wrongly.fetch_add(1, Ordering::SeqCst)),
            Ok(()) | Err(crate::clients::Trouble::Again) => {}
            Err(crate::clients::Trouble::Lost(lost)) => bail!("{lost} (at {api})"),
        }
        thread::park_timeout(PAUSE);
    }
    Ok(writer)
}

/// Leaders are killed; containers stay.
fn kill_leaders(hosts: &[Host], writers: Vec<SwarmWriter>, kills: u32) -> Result<()> {
    ui::heading("Leaders are killed");
    let before = containers(hosts)?;
    let clients = Clients::new(hosts.iter().map(Host::api).collect());
    let (mut writers, mut times_ms) = thread::scope(|scope| {
        let start = |(number, writer)| {
            let clients = &clients;
            scope.spawn(move || clients.run(number, writer))
        };
        let threads: Vec<_> = writers.into_iter().enumerate().map(start).collect();
        let kill = |_| -> Result<f64> {
            let leader = leader(hosts)?;
            pass(BEFORE_KILL)?;
            let killed = Instant::now();
            kill_process(leader.swarmd()?, Signal::KILL).context("cannot kill swarmd")?;
            Ok((clients.next_after(Instant::now())? - killed).as_secs_f64() * 1e3)
        };
        let times_ms = (0..kills).map(kill).collect::<Result<Vec<f64>>>();
        clients.stop();
        let mut writers = Vec::new();
        for thread in threads {
            writers.push(thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        times_ms.map(|times_ms| (writers, times_ms))
    })?;
    times_ms.sort_by(f64::total_cmp);
    let at = |percent: usize| times_ms.get((times_ms.len() * percent / 100).min(times_ms.len().saturating_sub(1)));
    let ms = |percent| at(percent).copied().unwrap_or(f64::NAN);
    ui::seen(&format!(
        "{kills} leaders killed; until the next acknowledged write: p50 {:.0} ms, longest {:.0} ms",
        ms(50),
        ms(100)
    ));
    settled(hosts)?;
    same_everywhere(hosts, &mut writers)?;
    let after = containers(hosts)?;
    ensure!(before == after, "containers were stopped or started:\nbefore {before:?}\nafter {after:?}");
    ui::seen(&format!("the {} containers run on as they did, none was stopped", after.len()));
    Ok(())
}

/// Every manager has what was acknowledged, and all show the same.
fn same_everywhere(hosts: &[Host], writers: &mut [SwarmWriter]) -> Result<()> {
    let mut first = None;
    for host in hosts {
        writers.iter().try_for_each(|writer| writer.check_at(&host.api()))?;
        let shown = http::call(&host.api(), "GET", "/services", None)?;
        if *first.get_or_insert_with(|| shown.clone()) != shown {
            bail!("{} and {} show different services", hosts[0].name(), host.name());
        }
    }
    ui::seen("every manager has every acknowledged write, and all show the same");
    Ok(())
}

/// The leader, once all managers vote and answer.
fn leader(hosts: &[Host]) -> Result<&Host> {
    wait::until("all managers vote and answer", START_LIMIT, || {
        let status = hosts.iter().find_map(|host| http::get::<Value>(&host.api(), "/swarmd/managers").ok());
        let status = status.context("no manager answers")?;
        let members = status["Managers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let answers = |member: &&Value| {
            let votes = member["Role"] == "leader" || member["Role"] == "voter";
            votes && member["Reachability"] == "reachable" && member["LagEntries"].as_u64().is_some_and(|lag| lag < 100)
        };
        let answering = members.iter().filter(answers).count();
        if answering < hosts.len() {
            return Ok(Look::NotYet(format!("{answering} do")));
        }
        let leader = members.iter().find(|member| member["Role"] == "leader");
        let name = leader.and_then(|leader| leader["Hostname"].as_str()).unwrap_or_default();
        let host = hosts.iter().find(|host| host.name() == name);
        Ok(host.map_or_else(|| Look::NotYet("none leads".to_owned()), Look::Done))
    })
}

/// Waits until all nodes are ready, and exactly the tasks that should run do, each in one container.
fn settled(hosts: &[Host]) -> Result<()> {
    // One whose swarmd was killed a moment ago still counts as reachable.
    for host in hosts {
        wait::until(&format!("{} answers", host.name()), START_LIMIT, || {
            http::call(&host.api(), "GET", "/services", None).map(|_| Look::Done(()))
        })?;
    }
    super::wait_ready(hosts)?;
    wait::until("every task runs in one container", SETTLE_LIMIT, || {
        let tasks = hosts.iter().find_map(|host| http::get::<Vec<Value>>(&host.api(), "/tasks").ok());
        let tasks = tasks.context("no manager answers")?;
        let runs = |task: &&Value| task["Status"]["State"] == "running" && task["DesiredState"] == "running";
        let wanted: BTreeSet<String> = tasks
            .iter()
            .filter(runs)
            .filter_map(|task| task["Status"]["ContainerStatus"]["ContainerID"].as_str())
            .map(str::to_owned)
            .collect();
        let running: BTreeSet<String> = containers(hosts)?.into_keys().collect();
        Ok(if running == wanted && running.len() == TASKS {
            Look::Done(())
        } else {
            Look::NotYet(format!("{} containers, {} tasks run", running.len(), wanted.len()))
        })
    })
}

/// Running containers of the service on all engines, and since when each runs.
fn containers(hosts: &[Host]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for host in hosts {
        let engine = Engine::at(&host.engine_socket())?;
        let label = format!("com.docker.swarm.service.name={SERVICE}");
        for container in engine.containers(&label)?.into_iter().filter(|container| container.running) {
            let since = engine.started_at(&container.id)?;
            all.insert(container.id, since);
        }
    }
    Ok(all)
}

/// Lets time pass.
fn pass(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        interrupt::check()?;
        thread::park_timeout(left);
    }
    Ok(())
}
