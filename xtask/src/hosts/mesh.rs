//! Three hosts with a service behind a published port, clients that ask it without a pause through all hosts, and everything
//! that changes a cluster in its life. No request may fail.

mod clients;

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use self::clients::{CLIENTS, Clients, Counts};
use super::FOLDER;
use super::host::{Host, START_LIMIT};
use crate::http;
use crate::wait::{self, Look};
use crate::{interrupt, ui};

const HOSTS: u8 = 3;
const SERVICE: &str = "mesh";
const PORT: u16 = 9000;
/// The tasks, and the tasks after the service was scaled down.
const TASKS: u64 = 10;
const TASKS_FEW: u64 = 3;
/// Requests in a round, at least.
const REQUESTS_MIN: u64 = 20_000;
/// Containers start and stop some six a second on two cores.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs rounds on new hosts.
pub(super) fn run(rounds: u32, keep: bool) -> Result<()> {
    // They may be in use.
    ensure!(!Path::new(FOLDER).exists(), "there are hosts already: `cargo xtask hosts down` removes them");
    let result = super::up(HOSTS, HOSTS).and_then(|hosts| mesh(&hosts, rounds));
    if keep {
        return result;
    }
    interrupt::clear();
    result.and(super::down())
}

fn mesh(hosts: &[Host], rounds: u32) -> Result<()> {
    let spec = json!({
        "Name": SERVICE,
        "TaskTemplate": { "ContainerSpec": { "Image": "hello:1", "Init": true } },
        "Mode": { "Replicated": { "Replicas": TASKS } },
        "UpdateConfig": { "Parallelism": 2, "Monitor": 500_000_000 },
        "EndpointSpec": { "Ports": [{ "Protocol": "tcp", "TargetPort": 8080, "PublishedPort": PORT }] },
    });
    http::call(&hosts[0].api(), "POST", "/services/create", Some(("application/json", spec.to_string().as_bytes())))?;
    running(hosts, TASKS)?;
    let clients = Clients::default();
    let addresses: Vec<SocketAddr> = hosts.iter().map(|host| (host.ip(), PORT).into()).collect();
    let failed = thread::scope(|scope| {
        let threads: Vec<_> = (0..2 * CLIENTS)
            .map(|number| {
                let mut addresses = addresses.clone();
                addresses.rotate_left(number % HOSTS as usize);
                let clients = &clients;
                scope.spawn(move || clients.run(&addresses, number < CLIENTS))
            })
            .collect();
        let failed = all_rounds(hosts, &clients, rounds);
        clients.stop();
        for thread in threads {
            let Ok(ended) = thread.join() else { bail!("a client panicked") };
            ended?;
        }
        failed
    })?;
    ensure!(failed == 0, "{failed} requests failed");
    ui::seen("no request failed");
    Ok(())
}

fn all_rounds(hosts: &[Host], clients: &Clients, rounds: u32) -> Result<u64> {
    let mut failed = 0;
    for number in 1..=rounds {
        failed += round(hosts, clients, number, rounds)?;
    }
    Ok(failed)
}

/// A step of a round: its name, and how it is done.
type Step = (&'static str, fn(&[Host]) -> Result<()>);

const STEPS: [Step; 9] = [
    ("update, start-first", |hosts| update(hosts, "start-first")),
    ("update, stop-first", |hosts| update(hosts, "stop-first")),
    ("drain a host, and back", drain),
    ("10 tasks to 3", |hosts| scale(hosts, TASKS_FEW)),
    ("3 tasks to 10", |hosts| scale(hosts, TASKS)),
    ("kill -9 of a swarmd", |hosts| end_swarmd(hosts, Signal::KILL)),
    ("restart of a swarmd", |hosts| end_swarmd(hosts, Signal::TERM)),
    ("reload of all data planes", reload),
    ("kill -9 of the leader", kill_leader),
];

/// Does all steps, shows them, and returns the number of requests that failed.
fn round(hosts: &[Host], clients: &Clients, number: u32, rounds: u32) -> Result<u64> {
    ui::heading(&format!("Round {number} of {rounds}"));
    ui::say(&format!(
        "{:<28}{:>8}{:>10}{:>10}{:>12}{:>8}",
        "step", "time", "answered", "repeated", "slowest", "failed"
    ));
    let line = |name: &str, took: Duration, counts: &Counts| {
        let (s, ms) = (took.as_secs_f64(), counts.slowest.as_millis());
        let Counts { answered, repeated, failed, .. } = counts;
        ui::say(&format!("{name:<28}{s:>6.1} s{answered:>10}{repeated:>10}{ms:>9} ms{failed:>8}"));
        counts.failures.iter().for_each(|failure| ui::warn(failure));
    };
    let (begin, mut sum) = (Instant::now(), Counts::default());
    clients.take();
    for (name, step) in STEPS {
        interrupt::check()?;
        let from = Instant::now();
        step(hosts).with_context(|| name.to_owned())?;
        let counts = clients.take();
        line(name, from.elapsed(), &counts);
        sum.add(&counts);
    }
    let from = Instant::now();
    wait::until("the round has enough requests", LIMIT, || {
        let answered = sum.answered + clients.answered();
        Ok(if answered >= REQUESTS_MIN {
            Look::Done(())
        } else {
            Look::NotYet(format!("{answered} of {REQUESTS_MIN}"))
        })
    })?;
    let counts = clients.take();
    line("no change", from.elapsed(), &counts);
    sum.add(&counts);
    line("the round", begin.elapsed(), &sum);
    Ok(sum.failed)
}

/// A request to the first host whose swarmd answers: one that was killed comes back within some seconds.
fn on_any<T>(hosts: &[Host], what: &str, mut ask: impl FnMut(&Host) -> Result<T>) -> Result<T> {
    wait::until(what, START_LIMIT, || {
        let mut last = None;
        for host in hosts {
            match ask(host) {
                Ok(answer) => return Ok(Look::Done(answer)),
                Err(error) => last = Some(error),
            }
        }
        Ok(Look::NotYet(last.map(|error| format!("{error:#}")).unwrap_or_default()))
    })
}

/// Changes an object by a read and a write, again if somebody else changed it in between.
fn change(hosts: &[Host], path: &str, change: impl Fn(&mut Value)) -> Result<()> {
    on_any(hosts, &format!("{path} is changed"), |host| {
        let mut object: Value = http::get(&host.api(), path)?;
        change(&mut object["Spec"]);
        let target = format!("{path}/update?version={}", object["Version"]["Index"]);
        let body = object["Spec"].to_string();
        http::call(&host.api(), "POST", &target, Some(("application/json", body.as_bytes()))).map(drop)
    })
}

fn update(hosts: &[Host], order: &str) -> Result<()> {
    let path = format!("/services/{SERVICE}");
    change(hosts, &path, |spec| {
        spec["UpdateConfig"]["Order"] = order.into();
        let forced = spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or_default();
        spec["TaskTemplate"]["ForceUpdate"] = (forced + 1).into();
    })?;
    wait::until(&format!("the {order} update is complete"), LIMIT, || {
        let service: Value = on_any(hosts, "a manager answers", |host| http::get(&host.api(), &path))?;
        let state = service["UpdateStatus"]["State"].as_str().unwrap_or("not begun").to_owned();
        if state.contains("paused") || state.contains("rollback") {
            bail!("the update is {state}: {}", service["UpdateStatus"]["Message"]);
        }
        Ok(if state == "completed" { Look::Done(()) } else { Look::NotYet(state) })
    })?;
    running(hosts, TASKS)
}

fn scale(hosts: &[Host], tasks: u64) -> Result<()> {
    change(hosts, &format!("/services/{SERVICE}"), |spec| spec["Mode"]["Replicated"]["Replicas"] = tasks.into())?;
    running(hosts, tasks)
}

/// Drains the last host, and lets it take tasks again.
fn drain(hosts: &[Host]) -> Result<()> {
    let host = hosts.last().context("there are hosts")?;
    let set = |availability: &str| {
        change(hosts, &format!("/nodes/{}", host.name()), |spec| spec["Availability"] = availability.into())
    };
    set("drain")?;
    wait::until(&format!("{} has no task", host.name()), LIMIT, || {
        let filters = json!({ "service": [SERVICE], "node": [host.name()] });
        let tasks = tasks(hosts, &filters)?.into_iter().filter(|task| task["Status"]["State"] == "running").count();
        Ok(if tasks == 0 { Look::Done(()) } else { Look::NotYet(format!("it has {tasks}")) })
    })?;
    running(hosts, TASKS)?;
    set("active")
}

/// Ends a swarmd that does not lead, and waits until it is back.
fn end_swarmd(hosts: &[Host], signal: Signal) -> Result<()> {
    let leader = leader(hosts)?;
    let host = hosts.iter().find(|host| host.name() != leader).context("there is a host beside the leader")?;
    end(host, signal)?;
    settled(hosts)
}

fn kill_leader(hosts: &[Host]) -> Result<()> {
    let leader = leader(hosts)?;
    let host = hosts.iter().find(|host| host.name() == leader).context("the leader is a host")?;
    end(host, Signal::KILL)?;
    settled(hosts)
}

/// Ends the swarmd of a host, and waits for the next one.
fn end(host: &Host, signal: Signal) -> Result<()> {
    let before = host.swarmd()?;
    kill_process(before, signal).with_context(|| format!("cannot end the swarmd of {}", host.name()))?;
    wait::until(&format!("{} has another swarmd, which answers", host.name()), START_LIMIT, || {
        let now = host.swarmd()?;
        if now == before {
            return Ok(Look::NotYet("the one before runs".to_owned()));
        }
        http::call(&host.api(), "GET", "/_ping", None).map(|_| Look::Done(()))
    })
}

/// Lets the data plane of each host be replaced by another process, one host after the other. A data plane that was replaced
/// runs on while its connections are open, and clients that keep theirs never close them.
fn reload(hosts: &[Host]) -> Result<()> {
    for host in hosts {
        let before: Vec<Pid> = host.data_planes()?;
        // The youngest has the highest number, and took over from the others.
        let Some(old) = before.iter().copied().max_by_key(|pid| pid.as_raw_nonzero()) else {
            bail!("{} has no data plane", host.name())
        };
        kill_process(old, Signal::HUP).with_context(|| format!("cannot reload the data plane of {}", host.name()))?;
        wait::until(&format!("{} has another data plane", host.name()), START_LIMIT, || {
            let now = host.data_planes()?;
            let is_there = now.iter().any(|pid| !before.contains(pid));
            Ok(if is_there { Look::Done(()) } else { Look::NotYet("it has not".to_owned()) })
        })?;
    }
    Ok(())
}

/// The name of the host that leads.
fn leader(hosts: &[Host]) -> Result<String> {
    on_any(hosts, "a manager leads", |host| {
        let status: Value = http::get(&host.api(), "/swarmd/managers")?;
        let members = status["Managers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let leader = members.iter().find(|member| member["Role"] == "leader");
        Ok(leader.and_then(|leader| leader["Hostname"].as_str()).context("nobody leads")?.to_owned())
    })
}

/// Waits until all hosts are ready and all tasks run.
fn settled(hosts: &[Host]) -> Result<()> {
    super::wait_ready(hosts)?;
    running(hosts, TASKS)
}

fn tasks(hosts: &[Host], filters: &Value) -> Result<Vec<Value>> {
    let target = format!("/tasks?filters={}", http::encode(&filters.to_string()));
    let found = hosts.iter().find_map(|host| http::get(&host.api(), &target).ok());
    found.context("no manager answers")
}

/// Waits until exactly so many tasks run, and no other one does any more.
fn running(hosts: &[Host], count: u64) -> Result<()> {
    wait::until(&format!("{count} tasks run"), LIMIT, || {
        let tasks = tasks(hosts, &json!({ "service": [SERVICE] }))?;
        let running: Vec<_> = tasks.iter().filter(|task| task["Status"]["State"] == "running").collect();
        let wanted = running.iter().filter(|task| task["DesiredState"] == "running").count();
        let is_done = wanted as u64 == count && running.len() == wanted;
        Ok(if is_done {
            Look::Done(())
        } else {
            Look::NotYet(format!("{} run, {wanted} of them wanted", running.len()))
        })
    })
}
