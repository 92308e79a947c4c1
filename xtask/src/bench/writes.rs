//! Durable writes: label updates of distinct services over HTTP, from this process to swarmd's Unix socket, with one
//! manager and with three; beside them three members of etcd, proposals without HTTP, and what the disk alone can do.

use std::fs::File;
use std::io::Write;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::etcd::{self, Etcd};
use super::host::{self, Host, ServiceView};
use super::result::{Figure, Goal};
use super::{Bench, program};
use crate::connection::{Connection, post};
use crate::http::{self, Address};
use crate::{interrupt, ui};

const CLIENTS: [usize; 4] = [1, 16, 64, 256];
/// Managers, and members of etcd, in the race.
const MANAGERS: u8 = 3;
/// Length of the values that are written.
const VALUE_BYTES: usize = 256;
/// Services of the benchmark; each is written once in a round, so that nobody has to read a version in between.
const SERVICES: usize = 2048;
const TIME: Duration = Duration::from_secs(5);
const TIME_QUICK: Duration = Duration::from_secs(1);
/// What 16 clients of one manager are to reach.
const GOAL_PER_SEC: f64 = 1000.0;
/// How many times etcd's writes three managers are to take, by clients.
const GOALS_RATIO: [(usize, f64); 2] = [(1, 1.0), (256, 2.0)];
/// Writes of the disk's own line.
const SYNCS: usize = 1000;
/// What one of them has: a page of SQLite's log.
const SYNC_BYTES: usize = 4096;

/// Runs it.
pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let time = if bench.quick { TIME_QUICK } else { TIME };
    let mut figures = Vec::new();
    {
        let host = Host::start(bench, 1, None)?;
        for (clients, figure) in over_http(&host, 0, time)? {
            let goal = (clients == 16).then_some(Goal::AtLeast(GOAL_PER_SEC));
            figures.push(Figure { goal, ..figure.with("managers", 1) });
        }
    }
    figures.extend(race(bench, time)?);
    let folder = host::temporary()?;
    let path = folder.path().to_str().context("the folder's name is not text")?;
    figures.extend(program::run(bench, "swarm-consensus", "proposals", &[path])?);
    figures.push(disk(folder.path())?);
    Ok(figures)
}

/// Three managers and three members of etcd: all clients speak to the leader, over connections that stay open.
fn race(bench: &Bench, time: Duration) -> Result<Vec<Figure>> {
    let ours = {
        let host = Host::start_managers(bench, MANAGERS)?;
        let leader = host.wait_managers()?;
        over_http(&host, leader, time)?
    };
    let mut figures: Vec<Figure> = ours.iter().map(|(_, figure)| figure.clone().with("managers", MANAGERS)).collect();
    let Some(etcd) = Etcd::start(MANAGERS)? else { return Ok(figures) };
    let leader = etcd.address(etcd.wait_whole()?);
    for (clients, mine) in ours {
        interrupt::check()?;
        let theirs = to_etcd(&leader, clients, time)?;
        let ratio = Figure::new("writes.ratio", mine.value / theirs.value, "").with("clients", clients);
        let goal = GOALS_RATIO.iter().find(|(at, _)| *at == clients).map(|(_, goal)| Goal::AtLeast(*goal));
        figures.push(theirs.with("members", MANAGERS).with("version", etcd.version()));
        figures.push(Figure { goal, ..ratio.with("managers", MANAGERS) });
    }
    Ok(figures)
}

/// Writes with growing numbers of clients to one manager's API.
fn over_http(host: &Host, manager: usize, time: Duration) -> Result<Vec<(usize, Figure)>> {
    let api = host.nodes[manager].api();
    ui::say(&format!("Creating {SERVICES} services without tasks."));
    create(&api)?;
    let figure = |clients| {
        interrupt::check()?;
        Ok((clients, updates(&api, clients, time)?))
    };
    CLIENTS.into_iter().map(figure).collect()
}

fn create(api: &Address) -> Result<()> {
    let requests: Vec<Vec<u8>> = (0..SERVICES)
        .map(|number| {
            let spec = serde_json::json!({
                "Name": format!("bench-{number}"),
                "TaskTemplate": { "ContainerSpec": { "Image": "hello:1" } },
                "Mode": { "Replicated": { "Replicas": 0 } },
            });
            post("/services/create", spec.to_string().as_bytes())
        })
        .collect();
    round(api, 16, &requests, Instant::now() + host::LIMIT).map(drop)
}

fn updates(api: &Address, clients: usize, time: Duration) -> Result<Figure> {
    let figure = in_rounds(clients, time, api, |number| {
        let services: Vec<ServiceView> = http::get(api, "/services")?;
        let request = |mut service: ServiceView| {
            service.spec["Labels"] = serde_json::json!({ "value": value(clients, number) });
            let target = format!("/services/{}/update?version={}", service.id, service.version.index);
            post(&target, service.spec.to_string().as_bytes())
        };
        Ok(services.into_iter().map(request).collect())
    })?;
    Ok(Figure { name: "writes.http".to_owned(), ..figure })
}

fn to_etcd(leader: &Address, clients: usize, time: Duration) -> Result<Figure> {
    let figure = in_rounds(clients, time, leader, |number| {
        let request = |key| etcd::put(&format!("bench-{key}"), value(clients, number).as_bytes());
        Ok((0..SERVICES).map(request).collect())
    })?;
    Ok(Figure { name: "writes.etcd".to_owned(), ..figure })
}

/// A value that was not there before.
fn value(clients: usize, round: usize) -> String {
    format!("{:x<VALUE_BYTES$}", format!("{clients}-{round}-"))
}

/// Rounds of requests until so much time is spent in them; what prepares a round is not counted.
fn in_rounds(
    clients: usize,
    time: Duration,
    address: &Address,
    prepare: impl Fn(usize) -> Result<Vec<Vec<u8>>>,
) -> Result<Figure> {
    let (mut spent, mut latencies_ms) = (Duration::ZERO, Vec::new());
    for number in 0.. {
        let Some(left) = time.checked_sub(spent).filter(|left| !left.is_zero()) else { break };
        let requests = prepare(number)?;
        let (took, latencies) = round(address, clients, &requests, Instant::now() + left)?;
        spent += took;
        latencies_ms.extend(latencies);
    }
    let rate = latencies_ms.len() as f64 / spent.as_secs_f64();
    Ok(Figure::new("writes", rate, "writes/s").with("clients", clients).latencies(latencies_ms))
}

/// Sends requests from so many clients at once, each its share of them, until all are sent or the time is up.
/// Returns how long that took, and how long each took, in milliseconds.
fn round(address: &Address, clients: usize, requests: &[Vec<u8>], end: Instant) -> Result<(Duration, Vec<f64>)> {
    let barrier = Barrier::new(clients);
    let run = |client: usize| -> Result<(Instant, Vec<f64>, Instant)> {
        let connection = Connection::open(address);
        barrier.wait();
        let (mut connection, start) = (connection?, Instant::now());
        let mut latencies_ms = Vec::new();
        for request in requests.iter().skip(client).step_by(clients) {
            let sent = Instant::now();
            if sent >= end {
                break;
            }
            connection.send(request)?;
            latencies_ms.push(sent.elapsed().as_secs_f64() * 1e3);
        }
        Ok((start, latencies_ms, Instant::now()))
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|client| scope.spawn(move || run(client))).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let (mut first, mut last, mut latencies_ms) = (None, None, Vec::new());
    for result in results {
        let Ok(result) = result else { bail!("a client panicked") };
        let (start, latencies, end) = result?;
        first = Some(first.map_or(start, |first: Instant| first.min(start)));
        last = last.max(Some(end));
        latencies_ms.extend(latencies);
    }
    let (first, last) = first.zip(last).context("there was no client")?;
    Ok((last.saturating_duration_since(first), latencies_ms))
}

/// One write after the other to the end of a file, each made durable: the most that a log without group commit can do.
fn disk(folder: &std::path::Path) -> Result<Figure> {
    let path = folder.join("sync");
    let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut latencies_ms = Vec::new();
    for _ in 0..SYNCS {
        let start = Instant::now();
        file.write_all(&[1; SYNC_BYTES])?;
        file.sync_data()?;
        latencies_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let rate = 1e3 * SYNCS as f64 / latencies_ms.iter().sum::<f64>();
    Ok(Figure::new("writes.disk", rate, "fdatasync/s").with("bytes", SYNC_BYTES).latencies(latencies_ms))
}
