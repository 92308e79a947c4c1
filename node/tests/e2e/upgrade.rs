//! State folders of earlier releases are opened. `cargo xtask fixture` keeps one of the present version in
//! `node/tests/fixtures`; those of versions that were released stay as they are.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{cluster::service, daemon::Daemon, refusals::copy_folder, wait::until};

/// Set by `cargo xtask fixture`.
const WRITE: &str = "SWARM_TEST_WRITE_FIXTURE";
/// What the state folder holds, beside it.
const EXPECTED: &str = "expected.json";
/// Validity of the certificates: nearly that of the root, so that the folder can be opened for as long.
const CERT_EXPIRY_NS: u64 = 19 * 365 * 24 * 3_600_000_000_000;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What has to come out of a folder again.
fn holds(daemon: &Daemon) -> Result<Value, String> {
    let swarm = daemon.call("GET", "/swarm", None)?;
    let list = |target: &str| daemon.call("GET", target, None);
    let services = list("/services")?;
    let services: Vec<_> = services.as_array().into_iter().flatten().map(|s| json!([s["ID"], s["Spec"]])).collect();
    let nodes = list("/nodes")?;
    let nodes: Vec<_> = nodes.as_array().into_iter().flatten().map(|n| json!([n["ID"], n["Spec"]])).collect();
    let history = list("/swarmd/services/web/history")?.as_array().map(Vec::len);
    Ok(json!({
        "Swarm": [swarm["ID"], swarm["JoinTokens"], swarm["Spec"]],
        "Services": services,
        "Nodes": nodes,
        "HistoryOfWeb": history,
    }))
}

/// Whether everything that is expected is there; a later version may know more.
fn has_all(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(key, value)| found.get(key).is_some_and(|found| has_all(found, value)))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| has_all(found, expected))
        }
        _ => found == expected,
    }
}

/// Files are private again, which a repository does not keep.
fn make_private(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => make_private(&path),
            false => fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap(),
        }
    }
}

fn write_fixture(target: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::new(folder.path(), "fixture", "simulated");
    daemon.start();
    let spec = json!({
        "CAConfig": { "NodeCertExpiry": CERT_EXPIRY_NS },
        "Raft": { "SnapshotInterval": 10 },
        "Labels": { "made": "by cargo xtask fixture" },
    });
    daemon.call("POST", "/swarm/init", Some(&json!({ "Spec": spec }))).expect("init");
    for name in ["web", "worker", "cron"] {
        let mut spec = service(name, 2);
        spec["Labels"] = json!({ "tier": name });
        spec["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.role == manager"] });
        daemon.call("POST", "/services/create", Some(&spec)).expect("a service");
    }
    for image in ["hello:2", "hello:3"] {
        until("web is updated", || {
            let mut web = daemon.call("GET", "/services/web", None)?;
            web["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
            let target = format!("/services/web/update?version={}", web["Version"]["Index"]);
            daemon.call("POST", &target, Some(&web["Spec"])).map(drop)
        });
    }
    until("tasks run and there is a snapshot", || {
        let services = daemon.call("GET", "/services?status=true", None)?;
        let running = |s: &Value| s["ServiceStatus"]["RunningTasks"] == json!(2);
        let snapshot = daemon.get("/swarmd/managers")["SnapshotIndex"].as_u64();
        match services.as_array().is_some_and(|all| all.iter().all(running)) && snapshot > Some(0) {
            true => Ok(()),
            false => Err(services.to_string()),
        }
    });
    let expected = holds(&daemon).expect("the swarm");
    assert!(daemon.stop().success());
    drop(fs::remove_dir_all(target));
    fs::create_dir_all(target).unwrap();
    copy_folder(&daemon.state_dir(), &target.join("state"));
    fs::remove_file(target.join("state/lock")).unwrap();
    fs::write(target.join(EXPECTED), serde_json::to_string_pretty(&expected).unwrap() + "\n").unwrap();
}

#[test]
fn state_folders_of_every_release_are_opened() {
    if std::env::var_os(WRITE).is_some() {
        write_fixture(&fixtures().join(env!("CARGO_PKG_VERSION")));
    }
    let mut versions: Vec<PathBuf> =
        fs::read_dir(fixtures()).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    let own = fixtures().join(env!("CARGO_PKG_VERSION"));
    assert!(versions.contains(&own), "{} is missing: run cargo xtask fixture", own.display());
    for fixture in versions {
        let expected: Value = serde_json::from_slice(&fs::read(fixture.join(EXPECTED)).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::new(folder.path(), "upgraded", "simulated");
        let state = daemon.state_dir();
        copy_folder(&fixture.join("state"), &state);
        make_private(&state);
        // Only the addresses belong to the machine.
        let file = state.join("swarm.json");
        let mut membership: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for field in ["listen-addr", "advertise-addr"] {
            membership[field] = json!(daemon.addr());
        }
        membership["managers"] = json!([daemon.addr()]);
        fs::write(&file, membership.to_string()).unwrap();

        daemon.start();
        let found = until("the swarm can be read", || holds(&daemon));
        assert!(has_all(&found, &expected), "{}: {found}, not {expected}", fixture.display());
        daemon.call("POST", "/services/create", Some(&service("later", 1))).expect("it goes on");
        until("its tasks run", || {
            let services = daemon.call("GET", "/services?status=true", None)?;
            let runs = |s: &Value| s["ServiceStatus"]["RunningTasks"] == s["ServiceStatus"]["DesiredTasks"];
            let all = services.as_array().is_some_and(|all| all.len() == 4 && all.iter().all(runs));
            if all { Ok(()) } else { Err(services.to_string()) }
        });
        assert!(daemon.stop().success());
    }
}
