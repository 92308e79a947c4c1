//! A manager comes up with an older copy of its state folder while the only other one that has what it lost is off.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    cluster::service,
    daemon::Daemon,
    managers::{Written, create, index, names, start, wait_managers},
    wait::until,
};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let kind = file.file_type().unwrap();
        if kind.is_dir() {
            copy(&file.path(), &to.join(file.file_name()));
        } else if kind.is_file() {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

fn create_surely(at: &Daemon, name: &str) {
    until(&format!("{name} is created"), || match create(at, name) {
        Written::Yes => Ok(()),
        Written::Unknown | Written::No => match at.call("GET", &format!("/services/{name}"), None) {
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        },
    });
}

#[test]
fn a_manager_whose_writes_were_forgotten_stops_and_every_route_says_so() {
    let mut cluster = start(3, 0);
    let all: Vec<String> = cluster.nodes.iter().map(|daemon| daemon.name.clone()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let leader = wait_managers(&cluster, &all);
    let a = index(&cluster, &leader);
    let (b, c) = ((a + 1) % 3, (a + 2) % 3);
    create_surely(&cluster.nodes[a], "before");

    cluster.nodes[b].stop();
    let kept = cluster.nodes[b].state_dir().with_file_name("kept");
    copy(&cluster.nodes[b].state_dir(), &kept);
    cluster.nodes[b].start();
    wait_managers(&cluster, &all);
    cluster.nodes[c].kill();
    let lost: Vec<String> = (0..20).map(|number| format!("lost-{number}")).collect();
    for name in &lost {
        create_surely(&cluster.nodes[a], name);
    }
    until("the second manager has them", || match names(&cluster, b)? {
        found if found.len() == 21 => Ok(()),
        found => Err(format!("{found:?}")),
    });
    cluster.nodes[b].kill();
    cluster.nodes[a].kill();
    fs::remove_dir_all(cluster.nodes[b].state_dir()).unwrap();
    copy(&kept, &cluster.nodes[b].state_dir());
    cluster.nodes[b].start();
    cluster.nodes[c].start();
    create_surely(&cluster.nodes[c], "after");
    let right = names(&cluster, b).unwrap();
    assert_eq!(right.iter().map(String::as_str).collect::<Vec<_>>(), ["after", "before"]);

    cluster.nodes[a].start();
    let addr = cluster.nodes[a].addr();
    let problem = |page: &serde_json::Value| {
        let managers = page["Managers"].as_array().into_iter().flatten();
        managers.filter(|manager| manager["Addr"] == json!(addr)).find_map(|manager| {
            let problem = manager["Problem"].as_str().unwrap_or_default();
            (!problem.is_empty()).then(|| (problem.to_owned(), manager.clone()))
        })
    };
    let (text, shown) = until("the other managers name it", || {
        // What it says until then is right, or it says nothing.
        if let Ok(found) = names(&cluster, a) {
            assert_eq!(found, right, "a wrong read");
        }
        let page = cluster.nodes[b].call("GET", "/swarmd/managers", None)?;
        assert_ne!(page["Leader"], json!(cluster.nodes[a].id()), "it leads");
        problem(&page).filter(|(text, _)| text.contains("has stopped")).ok_or_else(|| page.to_string())
    });
    assert!(text.contains("different histories") && text.contains("are applied"), "{text}");
    assert_eq!((shown["Reachability"].as_str(), &shown["LagEntries"]), (Some("stopped"), &json!(null)), "{shown}");

    let own = &cluster.nodes[a];
    for target in ["/services", "/nodes", "/swarm", "/tasks"] {
        let refused = own.refused(503, "GET", target, None);
        assert!(refused.contains("different histories"), "{target}: {refused}");
    }
    let refused = own.refused(503, "POST", "/services/create", Some(&service("late", 0)));
    assert!(refused.contains("different histories"), "{refused}");
    let (text, _) = problem(&own.get("/swarmd/managers")).expect("it knows of itself");
    assert!(text.contains("different histories"), "{text}");
    let info = own.get("/info");
    assert!(info["Swarm"]["Error"].as_str().unwrap_or_default().contains("different histories"), "{info}");
    // What it has can still be looked at, and is still there after a restart. The last write may stay in the log: the
    // manager was killed before it noted that it is committed.
    cluster.nodes[a].kill();
    cluster.nodes[a].start();
    let stale = until("it has read its log", || match cluster.nodes[a].get("/services?consistency=stale") {
        list if list.as_array().is_some_and(|list| list.len() >= lost.len()) => Ok(list),
        list => Err(list.to_string()),
    });
    assert!(lost[..lost.len() - 1].iter().all(|name| stale.to_string().contains(name.as_str())), "{stale}");
}
