//! Two machines with one state folder, as after a virtual machine was cloned.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{
    cluster::{Cluster, service},
    managers::{Written, create, index, start, wait_managers},
    wait::{pass, until},
};

/// Long enough for machines that take each other's place to do so many times: each came back within a tenth of a second.
const WHILE: Duration = Duration::from_secs(3);

fn errors(cluster: &Cluster) -> Result<Vec<String>, String> {
    let page = cluster.manager().call("GET", "/swarmd/managers", None)?;
    let errors = page["Errors"].as_array().ok_or("no errors")?;
    Ok(errors.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[test]
fn a_cloned_worker_is_named_disturbs_nothing_and_can_join_anew() {
    let mut cluster = Cluster::start("simulated", 3);
    cluster.create(&service("web", 6));
    let web = BTreeMap::from([("web".to_owned(), 6)]);
    cluster.wait_settled(&web);
    let id = cluster.nodes[2].id();
    assert!(cluster.nodes[2].stop().success());
    let mut clone = cluster.clone_machine(&cluster.nodes[2]);
    cluster.nodes[2].start();
    clone.start();
    assert_eq!((clone.id(), cluster.nodes[2].id()), (id.clone(), id.clone()));

    let errors_of_both = until("both machines are named", || {
        let errors = errors(&cluster)?;
        let both = [&clone, &cluster.nodes[2]].map(|daemon| format!("{} ({})", daemon.ip, daemon.name));
        let is_named = |error: &&String| both.iter().all(|machine| error.contains(machine));
        errors.iter().find(is_named).cloned().ok_or(format!("{errors:?}"))
    });
    assert!(errors_of_both.contains("swarm leave --force"), "{errors_of_both}");
    cluster.wait_settled(&web);
    let entries = || cluster.manager().get("/swarmd/managers")["LastLogIndex"].as_u64();
    let before = until("the log comes to rest", || {
        let before = entries();
        pass(WHILE);
        if entries() == before { Ok(before) } else { Err(format!("{before:?}, then {:?}", entries())) }
    });
    pass(WHILE);
    assert_eq!(entries(), before, "machines that come and go write nothing");
    let log = cluster.manager().log();
    let warnings = log.lines().filter(|line| line.contains("machines have this node's id"));
    assert_eq!(warnings.count(), 1, "it is said once:\n{}", cluster.manager().log_tail());

    // The cure.
    clone.call("POST", "/swarm/leave?force=true", None).expect("it leaves");
    clone.call("POST", "/swarm/join", Some(&cluster.join_request(&cluster.token("Worker")))).expect("it joins");
    cluster.wait_state(&clone, "ready");
    assert_ne!(clone.id(), id);
    cluster.wait_state(&cluster.nodes[2], "ready");
    cluster.wait_settled(&web);
    until("nothing is wrong any more", || match errors(&cluster)? {
        errors if errors.is_empty() => Ok(()),
        errors => Err(format!("{errors:?}")),
    });
}

#[test]
fn a_cloned_manager_takes_no_part_is_named_and_can_join_anew() {
    let mut cluster = start(3, 0);
    let names: Vec<String> = cluster.nodes.iter().map(|daemon| daemon.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let leader = wait_managers(&cluster, &names);
    let at = index(&cluster, &leader);
    let cloned = (at + 1) % 3;
    assert!(cluster.nodes[cloned].stop().success());
    let mut clone = cluster.clone_machine(&cluster.nodes[cloned]);
    cluster.nodes[cloned].start();
    wait_managers(&cluster, &names);
    let term = cluster.nodes[at].get("/swarmd/managers")["Term"].clone();

    clone.start();
    let (addr, ip) = (cluster.nodes[cloned].addr(), clone.ip.to_string());
    let stopped = until("the clone stops", || {
        let info = clone.get("/info");
        let error = info["Swarm"]["Error"].as_str().unwrap_or_default().to_owned();
        if error.contains("cloned") { Ok(error) } else { Err(info["Swarm"].to_string()) }
    });
    assert!(stopped.contains(&addr) && stopped.contains("swarm leave --force"), "{stopped}");
    let named = until("both machines are named", || {
        let page = cluster.nodes[at].call("GET", "/swarmd/managers", None)?;
        let errors = page["Errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut of_managers = errors.filter(|error| error.contains("state folder of the manager"));
        of_managers.next().map(str::to_owned).ok_or(page.to_string())
    });
    assert!(named.contains(&addr) && named.contains(&format!("one at {ip}")), "{named}");
    for number in 0..5 {
        assert!(matches!(create(&cluster.nodes[cloned], &format!("s{number}")), Written::Yes));
    }
    assert_eq!(cluster.nodes[at].get("/swarmd/managers")["Term"], term, "it disturbs nobody");

    // The cure.
    clone.call("POST", "/swarm/leave?force=true", None).expect("it leaves");
    let token = cluster.nodes[at].get("/swarm")["JoinTokens"]["Worker"].as_str().expect("a token").to_owned();
    clone.call("POST", "/swarm/join", Some(&cluster.join_request(&token))).expect("it joins");
    cluster.wait_state(&clone, "ready");
    wait_managers(&cluster, &names);
}
