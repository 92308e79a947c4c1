//! What 10,000 more tasks cost the managers, from their creation until all run, beside many that run already. Three
//! managers, which run none of them, and workers whose engine is the simulated one. Processor time, not seconds on the
//! wall: what else the machine does shows less.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Bench;
use super::host::Host;
use super::result::{Figure, Goal, median};
use crate::{http, interrupt, ui};

const MANAGERS: u8 = 3;
const WORKERS: u8 = 60;
const WORKERS_QUICK: u8 = 10;
/// Tasks that run already.
const THERE: [u64; 3] = [10_000, 100_000, 200_000];
const THERE_QUICK: [u64; 2] = [1_000, 10_000];
/// Tasks of one service, also of the one that is measured.
const MORE: u64 = 10_000;
const MORE_QUICK: u64 = 1_000;
/// Rounds beside so many tasks. How reports are gathered into entries differs from round to round by some 15 % of the cost.
const ROUNDS: usize = 9;
/// Time for what an earlier round left to be done.
const SETTLE: Duration = Duration::from_secs(5);
/// Between two looks, which cost a manager something.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// 200,000 tasks take minutes where 63 programs share two processors.
const LIMIT: Duration = Duration::from_secs(1200);
/// Ticks of a second in /proc: Linux shows programs no other number.
const TICKS: f64 = 100.0;
/// How much more a task may cost beside the most than beside the fewest.
const GOAL_RATIO: f64 = 1.2;

/// Runs it.
pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let (there, more, workers) = match bench.quick {
        true => (&THERE_QUICK[..], MORE_QUICK, WORKERS_QUICK),
        false => (&THERE[..], MORE, WORKERS),
    };
    let host = Host::start_both(bench, MANAGERS, workers)?;
    for manager in host.nodes.iter().take(MANAGERS.into()) {
        host.drain(&manager.name)?;
    }
    let (mut figures, mut costs, mut services) = (Vec::new(), Vec::new(), 0);
    for there in there {
        while services * more < *there {
            services += 1;
            let id = host.create_service(&format!("there-{services}"), "hello:1", more)?;
            wait_running(&host, &id, more)?;
        }
        ui::say(&format!("{} tasks run.", services * more));
        let mut rounds = Vec::new();
        for round in 1..=ROUNDS {
            rounds.push(round_ms(&host, &format!("more-{there}-{round}"), more)? * 1e3 / more as f64);
            ui::say(&format!("Round {round}: {:.1} µs a task.", rounds[round - 1]));
        }
        let cost = median(&rounds);
        costs.push(cost);
        figures.push(
            Figure::new("scale.task", cost, "µs").with("tasks", *there).with("more", more).with("workers", workers),
        );
    }
    let most = costs.iter().copied().fold(f64::NAN, f64::max);
    let least = costs.iter().copied().fold(f64::NAN, f64::min);
    figures.push(Figure::new("scale.ratio", most / least, "").goal(Goal::AtMost(GOAL_RATIO)));
    Ok(figures)
}

/// Processor time of the managers for a service, in milliseconds. The service is gone afterwards.
fn round_ms(host: &Host, name: &str, tasks: u64) -> Result<f64> {
    settle()?;
    let before = managers_ms(host)?;
    let id = host.create_service(name, "hello:1", tasks)?;
    wait_running(host, &id, tasks)?;
    let used = managers_ms(host)? - before;
    host.remove_service(&id)?;
    let target = format!("/tasks?filters={}", filter("name", &format!("{name}.")));
    wait(&format!("the tasks of {name} are gone"), || Ok(http::get::<Vec<Value>>(&host.api(), &target)?.is_empty()))?;
    Ok(used)
}

fn wait_running(host: &Host, id: &str, tasks: u64) -> Result<()> {
    let target = format!("/services?status=true&filters={}", filter("id", id));
    wait(&format!("{tasks} tasks of service {id} run"), || {
        let services: Vec<Value> = http::get(&host.api(), &target)?;
        Ok(services.first().context("the service is gone")?["ServiceStatus"]["RunningTasks"] == tasks)
    })
}

/// A filter by one value, as part of a URL.
fn filter(key: &str, value: &str) -> String {
    format!("%7B%22{key}%22%3A%5B%22{value}%22%5D%7D")
}

fn wait(what: &str, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !look()? {
        interrupt::check()?;
        ensure!(Instant::now() < end, "{what}: this did not happen within {} s", LIMIT.as_secs());
        thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

fn settle() -> Result<()> {
    let end = Instant::now() + SETTLE;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        interrupt::check()?;
        thread::park_timeout(left);
    }
    Ok(())
}

/// Processor time that the managers have used since their start, in milliseconds.
fn managers_ms(host: &Host) -> Result<f64> {
    let mut all = 0.0;
    for node in host.nodes.iter().take(MANAGERS.into()) {
        let pid = node.pid().with_context(|| format!("{} does not run", node.name))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("cannot read a manager's processor time")?;
        all += used_ticks(&stat).context("cannot understand /proc/PID/stat")? as f64 * 1e3 / TICKS;
    }
    Ok(all)
}

/// `utime` and `stime`, the 14th and 15th word; the second, the name in brackets, may have blanks.
fn used_ticks(stat: &str) -> Option<u64> {
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_processor_time_of_a_process() {
        assert_eq!(used_ticks("12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0"), Some(150));
        assert_eq!(used_ticks("12 (a) S 1"), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(used_ticks(&own).is_some());
    }
}
