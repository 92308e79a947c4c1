//! The leader of five managers is killed again and again while clients write: from the kill to the next acknowledged
//! write, and whether everything acknowledged is still there. Beside it five members of etcd, and three of Docker Swarm.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::Bench;
use super::etcd::{Etcd, KeyWriter};
use super::host::Host;
use super::result::{Figure, Goal};
use super::swarm::Swarm;
use crate::clients::{Clients, SwarmWriter, Writer};
use crate::http::{self, Address};
use crate::node::Node;
use crate::{interrupt, ui};

const MANAGERS: u8 = 5;
/// Writing clients.
const CLIENTS: usize = 8;
const KILLS: u32 = 200;
const KILLS_QUICK: u32 = 10;
/// Of etcd's leaders: each takes some seconds, and etcd is not what is tested.
const ETCD_KILLS: u32 = 20;
const ETCD_KILLS_QUICK: u32 = 3;
/// Managers of Docker Swarm, each with an engine, and kills of their leader: one takes ten seconds and more.
const SWARM_MANAGERS: u8 = 3;
const SWARM_KILLS: u32 = 6;
const SWARM_KILLS_QUICK: u32 = 2;
/// Writing before a kill; a part of it differs from kill to kill, so that kills meet heartbeats at any moment.
const PAUSE_MS: u64 = 100;
const PAUSE_STEPS_MS: (u64, u64) = (37, 300);
/// Width of a bar of the distribution.
const BAR_MS: u64 = 100;
const GOAL_P50_MS: f64 = 1000.0;
const GOAL_P99_MS: f64 = 1500.0;

/// Something whose leader can be killed.
trait Cluster {
    /// Where each member takes requests.
    fn addresses(&self) -> Vec<Address>;
    /// Waits until all members take part. Returns the leader.
    fn whole(&self) -> Result<usize>;
    /// `kill -9`.
    fn kill(&mut self, member: usize) -> Result<()>;
    /// Starts a member that was killed.
    fn restart(&mut self, member: usize) -> Result<()>;
}

impl Cluster for Host {
    fn addresses(&self) -> Vec<Address> {
        self.nodes.iter().map(Node::api).collect()
    }

    fn whole(&self) -> Result<usize> {
        self.wait_managers()
    }

    fn kill(&mut self, member: usize) -> Result<()> {
        self.nodes[member].kill().map(drop)
    }

    fn restart(&mut self, member: usize) -> Result<()> {
        self.nodes[member].start()
    }
}

impl Cluster for Etcd {
    fn addresses(&self) -> Vec<Address> {
        (0..usize::from(MANAGERS)).map(|member| self.address(member)).collect()
    }

    fn whole(&self) -> Result<usize> {
        self.wait_whole()
    }

    fn kill(&mut self, member: usize) -> Result<()> {
        Self::kill(self, member)
    }

    fn restart(&mut self, member: usize) -> Result<()> {
        self.spawn(member)
    }
}

impl Cluster for Swarm {
    fn addresses(&self) -> Vec<Address> {
        (0..self.engines.count()).map(|number| self.engines.api(number)).collect()
    }

    fn whole(&self) -> Result<usize> {
        self.wait_whole()
    }

    fn kill(&mut self, member: usize) -> Result<()> {
        self.engines.kill(member)
    }

    fn restart(&mut self, member: usize) -> Result<()> {
        self.engines.restart(member)
    }
}

/// Runs it.
pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let (kills, etcd_kills) = if bench.quick { (KILLS_QUICK, ETCD_KILLS_QUICK) } else { (KILLS, ETCD_KILLS) };
    let mut figures = ours(bench, kills)?;
    figures.extend(of_peer("etcd", of_etcd(etcd_kills))?);
    figures.extend(of_peer("Swarm", of_swarm(bench))?);
    Ok(figures)
}

/// The figures of another program, or none, with a warning: ours are not given up for what goes wrong there.
fn of_peer(name: &str, figures: Result<Vec<Figure>>) -> Result<Vec<Figure>> {
    figures.or_else(|error| {
        interrupt::check()?;
        ui::warn(&format!("there are no figures of {name}: {error:#}"));
        Ok(Vec::new())
    })
}

fn of_etcd(kills: u32) -> Result<Vec<Figure>> {
    let Some(mut etcd) = Etcd::start(MANAGERS)? else { return Ok(Vec::new()) };
    let writers = (0..CLIENTS).map(KeyWriter::new).collect();
    let (times_ms, _) = kill_leaders(&mut etcd, writers, kills)?;
    let all = summary("failover.etcd", times_ms).into_iter();
    Ok(all.map(|figure| figure.with("version", etcd.version())).collect())
}

fn of_swarm(bench: &Bench) -> Result<Vec<Figure>> {
    let Some(mut swarm) = Swarm::start(bench, SWARM_MANAGERS)? else { return Ok(Vec::new()) };
    let writers: Vec<SwarmWriter> = (0..CLIENTS).map(SwarmWriter::new).collect();
    writers.iter().try_for_each(|writer| writer.create(&swarm.engines.api(0)))?;
    let kills = if bench.quick { SWARM_KILLS_QUICK } else { SWARM_KILLS };
    let version = swarm.version()?;
    let (times_ms, _) = kill_leaders(&mut swarm, writers, kills)?;
    let all = summary("failover.swarm", times_ms).into_iter();
    Ok(all.map(|figure| figure.with("engine", version.clone())).collect())
}

fn ours(bench: &Bench, kills: u32) -> Result<Vec<Figure>> {
    let mut host = Host::start_managers(bench, MANAGERS)?;
    let writers: Vec<SwarmWriter> = (0..CLIENTS).map(SwarmWriter::new).collect();
    writers.iter().try_for_each(|writer| writer.create(&host.api()))?;
    let (times_ms, writers) = kill_leaders(&mut host, writers, kills)?;
    compare(&host, &writers)?;
    let mut figures = summary("failover.swarmd", times_ms);
    for (figure, goal_ms) in figures.iter_mut().zip([GOAL_P50_MS, GOAL_P99_MS]) {
        figure.goal = Some(Goal::AtMost(goal_ms));
    }
    Ok(figures)
}

/// Kills leaders while clients write. Returns how long each time no write was acknowledged, in milliseconds.
fn kill_leaders<W: Writer>(cluster: &mut impl Cluster, writers: Vec<W>, kills: u32) -> Result<(Vec<f64>, Vec<W>)> {
    let clients = Clients::new(cluster.addresses());
    thread::scope(|scope| {
        let start = |(number, writer)| {
            let clients = &clients;
            scope.spawn(move || clients.run(number, writer))
        };
        let threads: Vec<_> = writers.into_iter().enumerate().map(start).collect();
        let killed = (0..kills).map(|kill| kill_one(cluster, &clients, kill)).collect::<Result<Vec<f64>>>();
        // Whatever happened, or the clients would go on.
        clients.stop();
        let mut writers = Vec::new();
        for thread in threads {
            let Ok(writer) = thread.join() else { bail!("a client panicked") };
            writers.push(writer?);
        }
        Ok((killed?, writers))
    })
}

fn kill_one(cluster: &mut impl Cluster, clients: &Clients, kill: u32) -> Result<f64> {
    interrupt::check()?;
    let leader = cluster.whole()?;
    let (step_ms, steps_ms) = PAUSE_STEPS_MS;
    thread::park_timeout(Duration::from_millis(PAUSE_MS + u64::from(kill) * step_ms % steps_ms));
    let killed = Instant::now();
    cluster.kill(leader)?;
    // What was sent before may be acknowledged by a manager that had its answer.
    let acknowledged = clients.next_after(Instant::now())?;
    let gap_ms = (acknowledged - killed).as_secs_f64() * 1e3;
    cluster.restart(leader)?;
    if (kill + 1).is_multiple_of(10) {
        ui::say(&format!("{} leaders killed, {} writes acknowledged.", kill + 1, clients.acknowledged()));
    }
    Ok(gap_ms)
}

/// Every manager has every acknowledged write, and all show the same.
fn compare(host: &Host, writers: &[SwarmWriter]) -> Result<()> {
    host.wait_managers()?;
    let listing = |manager: usize| -> Result<[Vec<u8>; 2]> {
        let get = |target| http::call(&host.nodes[manager].api(), "GET", target, None);
        Ok([get("/services")?, get("/tasks")?])
    };
    let first = listing(0)?;
    for (manager, node) in host.nodes.iter().enumerate() {
        if listing(manager)? != first {
            bail!("{} and {} show different services or tasks after the kills", host.nodes[0].name, node.name);
        }
        for writer in writers {
            writer.check_at(&node.api())?;
        }
    }
    let revision: Value = http::get(&host.api(), "/swarmd/managers")?;
    ui::seen(&format!(
        "all acknowledged writes are there, and {} managers show the same at log index {}",
        host.nodes.len(),
        revision["AppliedIndex"]
    ));
    Ok(())
}

/// The middle one first, then p99, the longest, and how they are spread.
fn summary(name: &str, times_ms: Vec<f64>) -> Vec<Figure> {
    let kills = times_ms.len();
    let mut bars: BTreeMap<u64, u32> = BTreeMap::new();
    for ms in &times_ms {
        *bars.entry(*ms as u64 / BAR_MS * BAR_MS).or_default() += 1;
    }
    let longest = times_ms.iter().copied().fold(0.0, f64::max);
    let figure = |what: &str, ms: f64| Figure::new(&format!("{name}{what}"), ms, "ms").with("kills", kills);
    let mut middle = figure("", f64::NAN).latencies(times_ms);
    middle.value = middle.p50_ms.unwrap_or(f64::NAN);
    let p99 = figure(".p99", middle.p99_ms.unwrap_or(f64::NAN));
    let mut figures = vec![middle, p99, figure(".longest", longest)];
    figures.extend(bars.into_iter().map(|(from_ms, kills)| {
        let bar = Figure::new(&format!("{name}.spread"), kills.into(), "kills");
        bar.with("ms", format!("{from_ms} to {}", from_ms + BAR_MS))
    }));
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_its_middle_its_end_and_its_bars() {
        let figures = summary("failover.x", vec![410.0, 499.0, 730.0]);
        let values: Vec<(&str, f64)> = figures.iter().map(|figure| (figure.name.as_str(), figure.value)).collect();
        assert_eq!(
            values,
            [
                ("failover.x", 499.0),
                ("failover.x.p99", 730.0),
                ("failover.x.longest", 730.0),
                ("failover.x.spread", 2.0),
                ("failover.x.spread", 1.0),
            ]
        );
        assert_eq!(figures[4].params["ms"], "700 to 800");
    }
}
