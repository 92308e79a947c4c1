//! Most managers are gone: what is refused names them and the ways out, and what is known can still be read.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    cluster::service,
    managers::{start, wait_managers},
    wait::until,
};

/// Two refusals one after the other: each waits a second, and at most as long again and a half for answers.
const REFUSED_WITHIN: Duration = Duration::from_secs(8);

#[test]
fn without_a_majority_the_refusal_names_who_is_missing_and_stale_reads_go_on() {
    let mut cluster = start(3, 1);
    let names: Vec<String> = cluster.nodes[..3].iter().map(|daemon| daemon.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    wait_managers(&cluster, &names);
    cluster.create(&service("web", 2));
    cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 2)]));
    for page in [cluster.nodes[0].get("/swarmd/managers"), cluster.nodes[1].get("/swarmd/managers")] {
        for manager in page["Managers"].as_array().unwrap() {
            for field in ["AppliedIndex", "DiskFreeBytes", "ClockSkewMs"] {
                assert!(manager[field].is_i64(), "{field}: {page}");
            }
        }
    }

    let leads = |node: usize| cluster.nodes[0].get("/swarmd/managers")["Leader"] == cluster.nodes[node].id();
    cluster.nodes[0].call("POST", &format!("/swarmd/transfer?node={}", names[1]), None).unwrap();
    until("the second manager leads", || if leads(1) { Ok(()) } else { Err("another does".to_owned()) });

    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let left = &cluster.nodes[0];
    let missing = [cluster.nodes[1].addr(), cluster.nodes[2].addr()];
    let began = Instant::now();
    let read = left.refused(503, "GET", "/services", None);
    let answer = left.send("POST", "/services/create", Some(&service("late", 0))).expect("an answer");
    assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
    // A leader that has not noticed yet takes the change into its log.
    assert!([500, 503].contains(&answer.status), "{}", answer.status);
    let write = answer.message();
    assert_eq!(write.contains("not known whether the change was made"), answer.status == 500, "{write}");
    for message in [&read, &write] {
        for part in [&missing[0], &missing[1], "2 of the 3 managers", "--consistency stale", "--force-new-cluster"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let stale = left.get("/services?consistency=stale");
    assert_eq!(stale[0]["Spec"]["Name"], "web");
    assert_eq!(left.get("/nodes?consistency=stale").as_array().map(Vec::len), Some(4));
    let refused = left.refused(400, "POST", "/services/create?consistency=stale", Some(&service("late", 0)));
    assert!(refused.contains("for reads"), "{refused}");
    let page = until("the page says who is silent", || match left.get("/swarmd/managers") {
        page if missing.iter().all(|addr| page["Warnings"].to_string().contains(addr.as_str())) => Ok(page),
        page => Err(page.to_string()),
    });
    // Also the leader is one of those that are gone.
    assert_eq!(page["Leader"], json!(""), "{page}");
    assert!(page["Warnings"].to_string().contains("no manager leads"), "{page}");
    let shown = left.get("/nodes?consistency=stale");
    let leaders = shown.as_array().unwrap().iter().filter(|node| node["ManagerStatus"]["Leader"] == json!(true));
    assert_eq!(leaders.count(), 0, "{shown}");
    let managers = page["Managers"].as_array().unwrap();
    let unreachable = managers.iter().filter(|manager| manager["Reachability"] == json!("unreachable")).count();
    assert_eq!(unreachable, 2, "{page}");

    // One is back: a majority.
    cluster.nodes[2].start();
    until("changes are possible again", || {
        cluster.nodes[0].call("POST", "/services/create", Some(&service("late", 0))).map(drop)
    });
}
