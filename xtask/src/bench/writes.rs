//! Durable writes: label updates of distinct services over HTTP, from this process to swarmd's Unix socket, with one
//! manager and with three, in turns with three members of etcd; beside them proposals without HTTP, and what the disk
//! alone can do.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::retry_on_intr;

use super::etcd::{self, Etcd};
use super::host::{self, Host, ServiceView};
use super::result::{Figure, Goal};
use super::{Bench, program};
use crate::connection::{Connection, SILENCE_MAX, post};
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
/// How long one side is written to before it is the other one's turn.
const TURN_MAX: Duration = Duration::from_millis(500);
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
        let services = [services(host.nodes[0].api())?];
        for clients in CLIENTS {
            let goal = (clients == 16).then_some(Goal::AtLeast(GOAL_PER_SEC));
            for figure in in_turns(clients, time, &services)? {
                figures.push(Figure { goal, ..figure.with("managers", 1) });
            }
        }
    }
    figures.extend(race(bench, time)?);
    let folder = host::temporary()?;
    let path = folder.path().to_str().context("the folder's name is not text")?;
    figures.extend(program::run(bench, "swarm-consensus", "proposals", &[path])?);
    figures.push(disk(folder.path())?);
    Ok(figures)
}

/// Three managers and three members of etcd: all clients speak to the leader. They take turns, so that a machine which is
/// slower for a while is slower for both.
fn race(bench: &Bench, time: Duration) -> Result<Vec<Figure>> {
    let host = Host::start_managers(bench, MANAGERS)?;
    let mut sides = vec![services(host.nodes[host.wait_managers()?].api())?];
    let etcd = Etcd::start(MANAGERS)?;
    if let Some(etcd) = &etcd {
        sides.push(Side { name: "writes.etcd", address: etcd.address(etcd.wait_whole()?), requests: puts });
    }
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    for clients in CLIENTS {
        let mut figures = in_turns(clients, time, &sides)?.into_iter();
        let own = figures.next().context("nothing was measured")?;
        if let (Some(etcd), Some(figure)) = (&etcd, figures.next()) {
            let ratio = Figure::new("writes.ratio", own.value / figure.value, "").with("clients", clients);
            let goal = GOALS_RATIO.iter().find(|(at, _)| *at == clients).map(|(_, goal)| Goal::AtLeast(*goal));
            others.push(figure.with("members", MANAGERS).with("version", etcd.version()));
            others.push(Figure { goal, ..ratio.with("managers", MANAGERS) });
        }
        mine.push(own.with("managers", MANAGERS));
    }
    mine.extend(others);
    Ok(mine)
}

/// What takes writes.
struct Side {
    /// The name of its figures.
    name: &'static str,
    /// Where the clients connect.
    address: Address,
    /// The requests of a round, from that address and the value to write.
    requests: fn(&Address, &str) -> Result<Vec<Vec<u8>>>,
}

/// A manager with services without tasks.
fn services(api: Address) -> Result<Side> {
    ui::say(&format!("Creating {SERVICES} services without tasks."));
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
    round(&mut connect(&api, 16)?, &requests, Instant::now() + host::LIMIT)?;
    Ok(Side { name: "writes.http", address: api, requests: updates })
}

fn updates(api: &Address, value: &str) -> Result<Vec<Vec<u8>>> {
    let services: Vec<ServiceView> = http::get(api, "/services")?;
    let request = |mut service: ServiceView| {
        service.spec["Labels"] = serde_json::json!({ "value": value });
        let target = format!("/services/{}/update?version={}", service.id, service.version.index);
        post(&target, service.spec.to_string().as_bytes())
    };
    Ok(services.into_iter().map(request).collect())
}

/// As many keys of etcd.
fn puts(_: &Address, value: &str) -> Result<Vec<Vec<u8>>> {
    Ok((0..SERVICES).map(|key| etcd::put(&format!("bench-{key}"), value.as_bytes())).collect())
}

/// A value that was not there before.
fn value(clients: usize, round: usize) -> String {
    format!("{:x<VALUE_BYTES$}", format!("{clients}-{round}-"))
}

/// Rounds of requests to one side after the other, until each had so much time; what prepares a round is not counted.
fn in_turns(clients: usize, time: Duration, sides: &[Side]) -> Result<Vec<Figure>> {
    struct Turns<'a> {
        side: &'a Side,
        connections: Vec<Connection>,
        spent: Duration,
        latencies_ms: Vec<f64>,
    }
    let mut turns = Vec::with_capacity(sides.len());
    for side in sides {
        let connections = connect(&side.address, clients)?;
        turns.push(Turns { side, connections, spent: Duration::ZERO, latencies_ms: Vec::new() });
    }
    for number in 0.. {
        let mut is_over = true;
        for turn in &mut turns {
            interrupt::check()?;
            let Some(left) = time.checked_sub(turn.spent).filter(|left| !left.is_zero()) else { continue };
            is_over = false;
            let requests = (turn.side.requests)(&turn.side.address, &value(clients, number))?;
            let (took, latencies) = round(&mut turn.connections, &requests, Instant::now() + left.min(TURN_MAX))?;
            turn.spent += took;
            turn.latencies_ms.extend(latencies);
        }
        if is_over {
            break;
        }
    }
    let figure = |turn: Turns<'_>| {
        let rate = turn.latencies_ms.len() as f64 / turn.spent.as_secs_f64();
        Figure::new(turn.side.name, rate, "writes/s").with("clients", clients).latencies(turn.latencies_ms)
    };
    Ok(turns.into_iter().map(figure).collect())
}

fn connect(address: &Address, clients: usize) -> Result<Vec<Connection>> {
    (0..clients).map(|_| Connection::open(address)).collect()
}

/// Sends requests over all connections at once, each its share of them, until all are sent or the time is up.
/// Returns how long that took, and how long each took, in milliseconds.
///
/// One thread does it: what clients take of the processors is missing for what is measured.
fn round(connections: &mut [Connection], requests: &[Vec<u8>], end: Instant) -> Result<(Duration, Vec<f64>)> {
    let clients = connections.len();
    let answered = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (client, connection) in connections.iter().enumerate() {
        epoll::add(&answered, connection, epoll::EventData::new_u64(client as u64), epoll::EventFlags::IN)?;
    }
    let mut shares: Vec<_> = (0..clients).map(|client| requests.iter().skip(client).step_by(clients)).collect();
    let start = Instant::now();
    let (mut sent, mut under_way, mut latencies_ms) = (vec![start; clients], 0, Vec::new());
    let mut ask = |client: usize, connection: &mut Connection, sent: &mut Instant| -> Result<bool> {
        *sent = Instant::now();
        let Some(request) = shares[client].next().filter(|_| *sent < end) else { return Ok(false) };
        connection.ask(request).map(|()| true)
    };
    for (client, connection) in connections.iter_mut().enumerate() {
        under_way += usize::from(ask(client, connection, &mut sent[client])?);
    }
    let silence_max = Timespec::try_from(SILENCE_MAX)?;
    let mut events = Vec::with_capacity(clients);
    while under_way > 0 {
        events.clear();
        retry_on_intr(|| epoll::wait(&answered, spare_capacity(&mut events), Some(&silence_max)))?;
        ensure!(!events.is_empty(), "no answer for {} s", SILENCE_MAX.as_secs());
        for event in &events {
            let client = event.data.u64() as usize;
            let connection = &mut connections[client];
            connection.answer()?;
            latencies_ms.push(sent[client].elapsed().as_secs_f64() * 1e3);
            under_way -= usize::from(!ask(client, connection, &mut sent[client])?);
        }
    }
    Ok((start.elapsed(), latencies_ms))
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
