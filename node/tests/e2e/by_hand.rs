//! Containers of tasks that somebody restarts or starts by hand, while the daemon runs and while it is away.

use std::collections::BTreeSet;

use crate::{
    cluster::{Cluster, Task, service},
    engine::{CleanUp, Container, Engine},
    wait::until,
};

/// Tasks of the service.
const REPLICAS: u64 = 3;

#[test]
fn a_service_runs_once_whatever_is_done_to_its_containers() {
    let Some(engine) = Engine::of_this_machine() else { return };
    let mut clean_up = CleanUp::new(&engine);
    let mut cluster = Cluster::start(&engine.address(), 2);
    clean_up.note(&cluster);
    cluster.create(&service("web", REPLICAS));
    let first: Vec<Container> = running(&engine, &cluster);

    // Restarted, all of them: each is a failure, a new task follows, and the old container does not run beside it.
    for container in &first {
        engine.restart(&container.id);
    }
    let second = replaced(&engine, &cluster, &first);
    assert_eq!(failures(&cluster), first.len());

    // Started although their tasks have ended: what runs instead runs on.
    for container in &first {
        engine.start(&container.id);
        stopped(&engine, container);
    }
    assert_eq!(running(&engine, &cluster), second);

    // The same while the daemons are away.
    for daemon in &mut cluster.nodes {
        daemon.kill();
    }
    engine.restart(&second[0].id);
    engine.start(&first[0].id);
    for daemon in &mut cluster.nodes {
        daemon.start();
    }
    cluster.wait_ready();
    let third = replaced(&engine, &cluster, &second[..1]);
    let kept = third.iter().filter(|c| second.contains(c)).count();
    assert_eq!(kept, second.len() - 1, "{second:?} became {third:?}");
    stopped(&engine, &first[0]);
    assert_eq!(failures(&cluster), first.len() + 1, "each restart is one failure, and nothing else is");
}

/// The containers that run once all is settled: one for each task.
fn running(engine: &Engine, cluster: &Cluster) -> Vec<Container> {
    engine.wait_agrees(cluster, &[("web", REPLICAS)]).into_keys().collect()
}

/// Waits until none of these containers runs and others run instead.
fn replaced(engine: &Engine, cluster: &Cluster, old: &[Container]) -> Vec<Container> {
    let old: BTreeSet<_> = old.iter().map(|c| &c.id).collect();
    until("other containers run instead", || {
        let now = running(engine, cluster);
        if now.iter().any(|c| old.contains(&c.id)) { Err(format!("{now:?}")) } else { Ok(now) }
    })
}

fn stopped(engine: &Engine, container: &Container) {
    until("it does not run", || match &engine.inspect(&container.id)["State"]["Running"] {
        running if *running == false => Ok(()),
        state => Err(state.to_string()),
    });
}

fn failures(cluster: &Cluster) -> usize {
    let failed = |t: &Task| t.state == "failed";
    cluster.tasks().expect("tasks").iter().filter(|t| failed(t)).count()
}
