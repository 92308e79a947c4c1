//! From one manager to three, to five and back to one, on five hosts, while a service of 60 tasks is updated and a client
//! writes.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::host::{Host, START_LIMIT};
use crate::clients::{Clients, SwarmWriter};
use crate::http;
use crate::wait::{self, Look};
use crate::{interrupt, ui};

const HOSTS: u8 = 5;
const TASKS: usize = 60;
const SERVICE: &str = "grow";
/// Longest time that a client may go without an acknowledged write.
const GAP_MAX: Duration = Duration::from_secs(2);
/// Containers start and stop some six a second on two cores, and the update waits between them.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs it on new hosts.
pub(super) fn run(keep: bool) -> Result<()> {
    super::down()?;
    let result = super::up(HOSTS, 1).and_then(|hosts| grow(&hosts));
    if keep {
        return result;
    }
    interrupt::clear();
    result.and(super::down())
}

fn grow(hosts: &[Host]) -> Result<()> {
    let spec = json!({
        "Name": SERVICE,
        "TaskTemplate": { "ContainerSpec": { "Image": "hello:1", "Init": true } },
        "Mode": { "Replicated": { "Replicas": TASKS } },
        // Slow enough for the managers to change meanwhile.
        "UpdateConfig": { "Parallelism": 2, "Delay": 500_000_000, "Monitor": 500_000_000 },
    });
    post(&hosts[0], "/services/create", &spec)?;
    let writer = SwarmWriter::new(0);
    writer.create(&hosts[0].api())?;
    wait::until(&format!("{TASKS} tasks run"), LIMIT, || {
        let running = tasks(&hosts[0])?.iter().filter(|task| runs(task)).count();
        Ok(if running == TASKS { Look::Done(()) } else { Look::NotYet(format!("{running} run")) })
    })?;
    let clients = Clients::new(hosts.iter().map(Host::api).collect());
    let writer = thread::scope(|scope| {
        let client = scope.spawn(|| clients.run(0, writer));
        let changed = change(hosts);
        clients.stop();
        let Ok(writer) = client.join() else { bail!("the client panicked") };
        changed.and(writer)
    })?;
    writer.check_at(&hosts[0].api())?;
    let gap = clients.longest_gap();
    let said = format!("{} writes acknowledged; the longest gap: {} ms", clients.acknowledged(), gap.as_millis());
    ensure!(gap <= GAP_MAX, "{said}, more than {} ms", GAP_MAX.as_millis());
    ui::seen(&said);
    untouched(&tasks(&hosts[0])?)
}

/// The update, and the managers that come and go meanwhile.
fn change(hosts: &[Host]) -> Result<()> {
    update(&hosts[0])?;
    for managers in [3, 5, 3, 1] {
        for (number, host) in hosts.iter().enumerate() {
            set_role(&hosts[0], host, if number < managers { "manager" } else { "worker" })?;
        }
        wait::until(&format!("there are {managers} managers"), START_LIMIT, || {
            let status: Value = http::get(&hosts[0].api(), "/swarmd/managers")?;
            let members = status["Managers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let voting = members.iter().filter(|m| m["Role"] == "leader" || m["Role"] == "voter").count();
            let done = voting == managers && members.len() == managers;
            Ok(if done { Look::Done(()) } else { Look::NotYet(format!("{voting} of {} vote", members.len())) })
        })?;
        ui::seen(&format!("{managers} managers, update {}", update_state(&hosts[0])?));
        if managers == usize::from(HOSTS) {
            // Those that go have the leader among them.
            let last = hosts.last().context("there are hosts")?;
            http::call(&hosts[0].api(), "POST", &format!("/swarmd/transfer?node={}", last.name()), None)?;
        }
    }
    ensure!(update_state(&hosts[0])? == "updating", "the update was over before the managers had changed");
    wait::until("the update is complete", LIMIT, || {
        let state = update_state(&hosts[0])?;
        Ok(if state == "completed" { Look::Done(()) } else { Look::NotYet(state) })
    })
}

/// Each place had one old task, which was shut down, and has one new one, which runs.
fn untouched(tasks: &[Value]) -> Result<()> {
    let mut places: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for task in tasks {
        places.entry(task["Slot"].as_u64().unwrap_or_default()).or_default().push(task);
    }
    ensure!(places.len() == TASKS, "there are {} places", places.len());
    for (slot, tasks) in &places {
        let image = |task: &&&Value, image: &str| task["Spec"]["ContainerSpec"]["Image"] == image;
        let old: Vec<_> = tasks.iter().filter(|task| image(task, "hello:1")).collect();
        let new: Vec<_> = tasks.iter().filter(|task| image(task, "hello:2")).collect();
        let stopped = |task: &Value| task["Status"]["State"] == "shutdown" && task["DesiredState"] == "shutdown";
        let fine = matches!((&old[..], &new[..]), ([old], [new]) if stopped(old) && runs(new));
        ensure!(fine, "something other than the update touched place {slot}: {tasks:#?}");
    }
    ui::seen(&format!("each of {TASKS} places had its old task, which the update stopped, and has one new one"));
    Ok(())
}

fn tasks(host: &Host) -> Result<Vec<Value>> {
    let filters = http::encode(&json!({ "service": [SERVICE] }).to_string());
    http::get(&host.api(), &format!("/tasks?filters={filters}"))
}

fn runs(task: &Value) -> bool {
    task["Status"]["State"] == "running" && task["DesiredState"] == "running"
}

fn update(host: &Host) -> Result<()> {
    let mut service: Value = http::get(&host.api(), &format!("/services/{SERVICE}"))?;
    service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = "hello:2".into();
    post(host, &format!("/services/{SERVICE}/update?version={}", service["Version"]["Index"]), &service["Spec"])
}

fn update_state(host: &Host) -> Result<String> {
    let service: Value = http::get(&host.api(), &format!("/services/{SERVICE}"))?;
    Ok(service["UpdateStatus"]["State"].as_str().unwrap_or_default().to_owned())
}

/// Sets a role, again when the node changed meanwhile.
fn set_role(at: &Host, host: &Host, role: &str) -> Result<()> {
    wait::until(&format!("{} is to be a {role}", host.name()), START_LIMIT, || {
        let mut node: Value = http::get(&at.api(), &format!("/nodes/{}", host.name()))?;
        if node["Spec"]["Role"] == role {
            return Ok(Look::Done(()));
        }
        node["Spec"]["Role"] = role.into();
        let id = node["ID"].as_str().unwrap_or_default();
        let target = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
        post(at, &target, &node["Spec"]).map(|()| Look::Done(()))
    })
}

fn post(host: &Host, target: &str, body: &Value) -> Result<()> {
    let body = body.to_string();
    http::call(&host.api(), "POST", target, Some(("application/json", body.as_bytes()))).map(drop)
}
