//! From one manager to three, to five and back to one, while a rolling update goes on and a client writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    cluster::{Task, service},
    managers::{Written, create, set_role, start, wait_managers},
    wait::{pass, until},
};

const TASKS: u64 = 60;
/// Pause of the client between two writes.
const WRITE_PAUSE: Duration = Duration::from_millis(50);

#[test]
fn managers_grow_and_shrink_under_a_rolling_update() {
    let cluster = start(1, 4);
    let names: Vec<String> = cluster.nodes.iter().map(|daemon| daemon.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.create(&service("web", TASKS));
    let old = cluster.wait_settled(&BTreeMap::from([("web".to_owned(), TASKS)]));
    cluster.update("web", |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("hello:2");
        // Long enough for all that follows to happen meanwhile.
        spec["UpdateConfig"] = json!({ "Parallelism": 1, "Delay": 300_000_000, "Monitor": 100_000_000 });
    });

    let over = AtomicBool::new(false);
    // Names, and when the last one was acknowledged.
    let acknowledged = Mutex::new((BTreeSet::new(), Instant::now()));
    let longest_gap = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut at, mut longest) = (0, Duration::ZERO);
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    return longest;
                }
                let name = format!("client-{number}");
                match create(&cluster.nodes[at], &name) {
                    Written::Yes => {
                        let mut acknowledged = acknowledged.lock().unwrap();
                        longest = longest.max(acknowledged.1.elapsed());
                        acknowledged.1 = Instant::now();
                        acknowledged.0.insert(name);
                    }
                    // A worker, or a manager that is about to be one, sends the client on.
                    Written::Unknown | Written::No => {
                        at = (at + 1) % names.len();
                        continue;
                    }
                }
                pass(WRITE_PAUSE);
            }
            longest
        });
        for (count, new) in [(3, 1..3), (5, 3..5)] {
            for node in new {
                set_role(&cluster, 0, names[node], "manager");
            }
            wait_managers(&cluster, &names[..count]);
        }
        // What shrinks has the leader in it.
        cluster.nodes[0].call("POST", &format!("/swarmd/transfer?node={}", names[4]), None).expect("handed over");
        for (count, gone) in [(3, 3..5), (1, 1..3)] {
            for node in gone.rev() {
                set_role(&cluster, 0, names[node], "worker");
            }
            wait_managers(&cluster, &names[..count]);
        }
        let state = cluster.service("web").expect("the service")["UpdateStatus"]["State"].clone();
        assert_eq!(state, "updating", "the update was over before the managers had changed");
        until("the update is complete", || match &cluster.service("web")?["UpdateStatus"]["State"] {
            state if state == "completed" => Ok(()),
            state => Err(state.to_string()),
        });
        over.store(true, Ordering::Relaxed);
        client.join().expect("the client")
    });
    eprintln!("longest time between two acknowledged writes: {} ms", longest_gap.as_millis());

    let there = cluster.nodes[0].get("/services");
    let there: BTreeSet<&str> = there.as_array().unwrap().iter().filter_map(|s| s["Spec"]["Name"].as_str()).collect();
    let (acknowledged, _) = acknowledged.into_inner().unwrap();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(name.as_str())).collect();
    assert!(lost.is_empty(), "{} acknowledged writes are gone: {lost:?}", lost.len());

    // Each place had its old task, which the update stopped, and has its new one: nothing else was stopped or started.
    let mut places: BTreeMap<u64, Vec<Task>> = BTreeMap::new();
    for task in cluster.tasks().expect("the tasks") {
        places.entry(task.slot).or_default().push(task);
    }
    assert_eq!(places.len() as u64, TASKS);
    for (slot, tasks) in places {
        let (new, before): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.image == "hello:2");
        assert!(matches!(&new[..], [task] if task.runs()), "{slot}: {new:?}");
        let [before] = &before[..] else { panic!("{slot}: {before:?}") };
        assert!(old.iter().any(|task| task.id == before.id && task.container == before.container), "{before:?}");
        assert_eq!((before.state.as_str(), before.desired.as_str()), ("shutdown", "shutdown"), "{before:?}");
    }
}
