//! Commands that read, against recorded responses of dockerd.

mod support;

use serde_json::{Value, json};
use support::{Fake, Reply, recorded, swarmctl};

fn service() -> Value {
    let mut service = recorded("service_inspect");
    service["ServiceStatus"] = json!({"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 0});
    service["Endpoint"]["Ports"] =
        json!([{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]);
    service
}

#[test]
fn node_ls() {
    let fake = Fake::start();
    fake.on_json("GET /nodes", &recorded("node_list")).on_json("GET /info", &recorded("info_active"));
    assert_eq!(
        fake.run(&["node", "ls"]).ok(),
        "\
ID                            HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
va7xb8g07gyik6k261534mhsc *   vm         Ready     Active         Leader           28.2.2
"
    );
    assert_eq!(fake.run(&["node", "ls", "-q"]).ok(), "va7xb8g07gyik6k261534mhsc\n");
    assert_eq!(fake.run(&["node", "ls", "--format", "{{.Self}} {{.TLSStatus}}"]).ok(), "true Ready\n");
}

#[test]
fn service_ls() {
    let fake = Fake::start();
    fake.on_json("GET /services", &json!([service()]));
    assert_eq!(
        fake.run(&["service", "ls", "--filter", "name=sm", "--filter", "label=tier=web"]).ok(),
        "\
ID             NAME         MODE         REPLICAS   IMAGE          PORTS
hyfde9xmq0od   sm23027web   replicated   1/2        busybox:1.35   *:8080->80/tcp
"
    );
    let query = &fake.seen("GET /services")[0].query;
    assert_eq!(query["status"], "true");
    assert_eq!(query["filters"], r#"{"label":{"tier=web":true},"name":{"sm":true}}"#);
    assert_eq!(fake.run(&["service", "ls", "--format", "json"]).ok().lines().count(), 1);
    assert_eq!(fake.run(&["service", "ls", "-q"]).ok(), "hyfde9xmq0od\n");

    let error = fake.run(&["service", "ls", "--format", "{{.Nmae}}"]).failed();
    assert_eq!(
        error,
        "Error: --format: unknown field '.Nmae'; the fields there are: ID, Image, Mode, Name, Ports, Replicas\n"
    );
}

#[test]
fn service_ps() {
    let fake = Fake::start();
    let mut tasks = recorded("task_list").as_array().unwrap().clone();
    tasks.push(recorded("task_failed"));
    for task in &mut tasks {
        task["NodeID"] = "va7xb8g07gyik6k261534mhsc".into();
    }
    fake.on_json("GET /services/web", &recorded("service_inspect"))
        .on_json("GET /tasks", &Value::Array(tasks))
        .on_json("GET /nodes", &recorded("node_list"));
    let format = r"table {{.ID}}\t{{.Name}}\t{{.Node}}\t{{.DesiredState}}\t{{.Error}}";
    assert_eq!(
        fake.run(&["service", "ps", "--format", format, "web"]).ok(),
        "\
ID             NAME               NODE      DESIRED STATE   ERROR
70iq7w9lwldt   sm23027web.1       vm        Shutdown        \"task: non-zero exit (7)\"
6oracss3v9w3    \\_ sm23027web.1   vm        Running
e4lm1rkhepxc   sm23027web.2       vm        Running
"
    );
    let query = &fake.seen("GET /tasks")[0].query;
    assert_eq!(query["filters"], r#"{"service":{"hyfde9xmq0odkdfurduigpmms":true}}"#);

    let table = fake.run(&["service", "ps", "web"]).ok();
    assert!(table.lines().nth(1).is_some_and(|l| l.contains("Failed ") && l.contains(" ago ")), "{table}");
    let ids = fake.run(&["service", "ps", "--no-resolve", "web"]).ok();
    assert!(ids.contains("hyfde9xmq0odkdfurduigpmms.1") && ids.contains("va7xb8g07gyik6k261534mhsc"), "{ids}");

    let ran = fake.run(&["service", "ps", "-q", "nope", "web"]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(1), 3));
    assert_eq!(ran.stderr, "Error: no such service: nope\n");
}

#[test]
fn warnings_about_the_ports_of_a_service_stand_below_its_tasks() {
    let fake = Fake::start();
    let mut service = recorded("service_inspect");
    let id = service["ID"].as_str().unwrap().to_owned();
    service["Endpoint"] = json!({"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 22}]});
    let cause = json!({"port-taken": {"Protocol": "tcp", "Published": 22}});
    let warning = json!({"NodeID": "n1", "Node": "vm", "Cause": cause, "Text": "port 22/tcp is in use: sshd"});
    let why = json!({"Service": "web", "Summary": "1 of 1 tasks run", "Warnings": [warning], "MoreWarnings": 4});
    fake.on_json("GET /services/web", &service)
        .on_json("GET /tasks", &json!([]))
        .on_json("GET /nodes", &recorded("node_list"))
        .on_json(&format!("GET /swarmd/services/{id}/why"), &why)
        .on_json("GET /swarmd/services/web/why", &why);
    let lines = ["vm: port 22/tcp is in use: sshd", "and 4 more warnings"];
    assert_eq!(fake.run(&["service", "ps", "web"]).stderr, lines.map(|line| format!("Warning: {line}\n")).concat());
    assert_eq!(fake.run(&["service", "ps", "--quiet", "web"]).ok(), "");
    let page = fake.run(&["service", "why", "web"]).ok();
    assert!(page.ends_with(&format!("\nWarnings of nodes\n  {}\n  {}\n", lines[0], lines[1])), "{page}");
}

#[test]
fn node_ps_is_of_this_node_by_default() {
    let fake = Fake::start();
    fake.on_json("GET /info", &recorded("info_active"))
        .on_json("GET /nodes/va7xb8g07gyik6k261534mhsc", &recorded("node_list")[0])
        .on_json("GET /nodes", &recorded("node_list"))
        .on_json("GET /services", &json!([recorded("service_inspect")]))
        .on_json("GET /tasks", &json!([recorded("task_failed")]));
    let format = "{{.Name}} {{.Node}} {{.Image}}";
    assert_eq!(fake.run(&["node", "ps", "--format", format]).ok(), "sm23027web.1 vm busybox:1.35\n");
    assert_eq!(fake.seen("GET /tasks")[0].query["filters"], r#"{"node":{"va7xb8g07gyik6k261534mhsc":true}}"#);
}

#[test]
fn inspect_shows_objects_as_they_came() {
    let fake = Fake::start();
    let text = r#"{"ID":"hyf","Version":{"Index":26},"Spec":{"Name":"web","Labels":{},"New":{"b":1,"a":[]}}}"#;
    fake.on("GET /services/web", [Reply::bytes(text.into())]);
    let ran = fake.run(&["service", "inspect", "web", "nope"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "Error: no such service: nope\n"));
    assert_eq!(
        ran.stdout,
        r#"[
    {
        "ID": "hyf",
        "Version": {
            "Index": 26
        },
        "Spec": {
            "Name": "web",
            "Labels": {},
            "New": {
                "b": 1,
                "a": []
            }
        }
    }
]
"#
    );
    let ran = fake.run(&["service", "inspect", "--format", "{{.Version.Index}} {{json .Spec.New}}", "web"]);
    assert_eq!(ran.ok(), "26 {\"a\":[],\"b\":1}\n");
    let error = fake.run(&["service", "inspect", "--format", "{{.Spec.Nope}}", "web"]).failed();
    assert!(error.contains("'.Spec.Nope'; the fields there are: Labels, Name, New"), "{error}");
    assert!(fake.run(&["service", "inspect", "--pretty", "web"]).ok().starts_with("ID:             hyf\nName:"));
}

#[test]
fn recorded_objects_are_shown_for_people() {
    let fake = Fake::start();
    fake.on_json("GET /services/web", &recorded("service_inspect"))
        .on_json("GET /info", &recorded("info_active"))
        .on_json("GET /version", &recorded("version"))
        .on_json("GET /nodes/va7xb8g07gyik6k261534mhsc", &recorded("node_list")[0]);
    let service = fake.run(&["service", "inspect", "--pretty", "web"]).ok();
    assert!(service.contains("\n Replicas:      2\n") && service.contains("\n  Memory:       64MiB\n"), "{service}");
    let node = fake.run(&["node", "inspect", "--pretty", "self"]).ok();
    assert!(node.contains("\n Raft Status:   Reachable\n"), "{node}");
    let info = fake.run(&["info"]).ok();
    assert!(info.contains("Swarm:          active\n") && info.contains("\n Role:          manager\n"), "{info}");
    assert_eq!(fake.run(&["info", "--format", "{{.Swarm.Nodes}}"]).ok(), "1\n");
    let version = fake.run(&["version"]).ok();
    assert!(version.contains("\nServer:\n Version:       28.2.2\n"), "{version}");
}

/// The recording has one character for each byte.
fn log_bytes(name: &str) -> Vec<u8> {
    recorded(name).as_str().expect("log recordings are text").chars().map(|c| c as u8).collect()
}

#[test]
fn service_logs() {
    let fake = Fake::start();
    let task = |id: &str, slot: u64| json!({"ID": id, "Slot": slot, "ServiceID": "hyfde9xmq0odkdfurduigpmms", "NodeID": "va7xb8g07gyik6k261534mhsc"});
    let logs = "GET /services/hyfde9xmq0odkdfurduigpmms/logs";
    fake.on_json("GET /services/web", &recorded("service_inspect"))
        .on_json("GET /nodes", &recorded("node_list"))
        .on_json("GET /tasks/6oracss3v9w3hjx677ihgiivw", &task("6oracss3v9w3hjx677ihgiivw", 1))
        .on(logs, [Reply::bytes(log_bytes("logs_timestamps"))]);
    let ran = fake.run(&["service", "logs", "--tail", "1", "-t", "web"]);
    // The second task is gone: its line is not lost.
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (
            Some(0),
            "2026-11-22T11:43:21.643095247Z sm23027web.1.6oracss3v9w3@vm    | cfgdata-sm23027\n",
            "2026-11-22T11:43:21.825315639Z sm23027web.?.e4lm1rkhepxc@vm    | err-line\n"
        )
    );
    let query = &fake.seen(logs)[0].query;
    for (key, value) in [("stdout", "1"), ("stderr", "1"), ("details", "1"), ("timestamps", "1"), ("tail", "1")] {
        assert_eq!(query[key], value, "{key}");
    }
    assert!(!query.contains_key("follow") && !query.contains_key("since"));

    fake.on(logs, [Reply::bytes(log_bytes("logs"))]);
    let ran = fake.run(&["service", "logs", "--no-task-ids", "web"]);
    assert_eq!(ran.stdout.lines().filter(|l| l.starts_with("sm23027web.1@vm    | ")).count(), 3, "{}", ran.stdout);
}

#[test]
fn a_followed_log_goes_on_where_it_broke() {
    let fake = Fake::start();
    let mut service = recorded("service_inspect");
    service["Spec"]["TaskTemplate"]["ContainerSpec"].as_object_mut().expect("a container").remove("TTY");
    let frame = |kind: u8, text: &str| {
        [&[kind, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat()
    };
    let line = |second: u32, text: &str| frame(1, &format!("2026-11-30T04:00:{second:02}.000000000Z {text}\n"));
    let logs = "GET /services/hyfde9xmq0odkdfurduigpmms/logs";
    fake.on_json("GET /services/web", &service).on(
        logs,
        [
            Reply::bytes([line(1, "one"), line(9, "two"), frame(3, "the leader went")].concat()),
            Reply::error(503, "no leader"),
            Reply::bytes([line(9, "two"), line(9, "three")].concat()),
        ],
    );
    let ran = fake.run(&["service", "logs", "-f", "--raw", "--tail", "7", "web"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "one\ntwo\nthree\n"), "{ran:?}");
    assert!(ran.stderr.contains("are asked for again: swarmd ended the logs: the leader went"), "{ran:?}");
    let queries: Vec<_> = fake.seen(logs).into_iter().map(|seen| seen.query).collect();
    assert_eq!((queries[0].get("since"), queries[0]["tail"].as_str()), (None, "7"));
    // Lines of several nodes come a little out of order.
    assert_eq!((queries[2]["since"].as_str(), queries[2]["tail"].as_str()), ("1796011204.000000000", "all"));
}

#[test]
fn logs_of_terminals_errors_and_cut_streams() {
    let fake = Fake::start();
    let mut tty = recorded("service_inspect");
    tty["Spec"]["TaskTemplate"]["ContainerSpec"]["TTY"] = true.into();
    let logs = "GET /services/hyfde9xmq0odkdfurduigpmms/logs";
    fake.on_json("GET /services/web", &tty).on(logs, [Reply::bytes(b"raw \x1b[1mbytes".to_vec())]);
    assert!(fake.run(&["service", "logs", "web"]).failed().contains("Add --raw"));
    assert_eq!(fake.run(&["service", "logs", "--raw", "web"]).ok(), "raw \x1b[1mbytes");
    assert!(!fake.seen(logs)[0].query.contains_key("details"));

    fake.on_json("GET /services/web", &recorded("service_inspect")).on_json("GET /nodes", &json!([]));
    fake.on(logs, [Reply::bytes(b"\x03\0\0\0\0\0\0\x08node away".to_vec())]);
    assert!(fake.run(&["service", "logs", "web"]).failed().contains("swarmd ended the logs: node awa"));
    fake.on(logs, [Reply::bytes(b"\x01\0\0\0\0\0\0\x08nod".to_vec())]);
    assert!(fake.run(&["service", "logs", "web"]).failed().contains("in the middle of a line"));
    let waiting = json!([{"ID": "t1", "Slot": 1, "Status": {"State": "pending"}}]);
    fake.on_json("GET /services/web", &recorded("service_inspect")).on_json("GET /tasks", &waiting);
    fake.on(logs, [Reply::bytes(Vec::new())]);
    let ran = fake.run(&["service", "logs", "web"]);
    assert!(
        ran.code == Some(0) && ran.stderr.contains("has a node yet") && ran.stderr.contains("service why"),
        "{ran:?}"
    );
    assert!(fake.run(&["service", "logs", "nope"]).failed().contains("no such service or task: nope"));
}

#[test]
fn a_socket_nobody_listens_on() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let output = swarmctl().env("SWARM_HOST", &socket).args(["service", "ls"]).output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stderr).unwrap()),
        (
            Some(1),
            format!(
                "Error: cannot reach swarmd at unix://{}: connection refused\n\
                 Is swarmd running there? (systemctl status swarmd, or pass --host)\n",
                socket.display()
            )
        )
    );
}

#[test]
fn refusals_are_shown_in_our_own_names() {
    let fake = Fake::start();
    let message = recorded("no_swarm")["message"].as_str().unwrap().to_owned();
    fake.on("GET /services", [Reply::error(503, &message)]);
    let error = fake.run(&["service", "ls"]).failed();
    assert!(error.starts_with("Error: This node is not a swarm manager. Use \"swarmctl swarm init\""), "{error}");
}

#[test]
fn garbage_is_refused() {
    let fake = Fake::start();
    fake.on("GET /services", [Reply::bytes(b"<html>".to_vec())]);
    let error = fake.run(&["service", "ls"]).failed();
    assert!(error.starts_with("Error: the answer of swarmd to /services is not understood: "), "{error}");
    fake.on("GET /services", [Reply::bytes(b"[{\"ID\":7}]".to_vec())]);
    assert!(fake.run(&["service", "ls"]).failed().contains("not understood"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = swarmctl().args(["completion", "bash"]).stdout(writer).stderr(std::process::Stdio::piped()).spawn();
    let output = child.unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn usage_errors_have_exit_code_2() {
    for (args, part) in [
        (&["service", "create", "--update-delay", "soon", "nginx"][..], "'soon' is not a duration"),
        (&["service", "create"], "IMAGE"),
        (&["service", "scale", "web"], "SERVICE=REPLICAS"),
        (&["--host", "tcp://1.2.3.4:1", "node", "ls"], "tcp:// is not available"),
        (&["node", "update", "x"], "--availability"),
        (&["swarm", "join-token", "boss"], "worker"),
        (&["frob"], "frob"),
    ] {
        let output = swarmctl().args(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.starts_with("Error: ") && error.contains(part), "{args:?}: {error}");
    }
    let help = swarmctl().args(["service", "create", "--help"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("Examples:"));
}

#[test]
fn endpoints_say_which_tasks_get_connections() {
    let fake = Fake::start();
    let endpoint = |name: &str, state: &str, reason: &str| json!({"Name": name, "TaskID": "t", "NodeID": "n", "Node": "alpha", "State": state, "Reason": reason});
    let all = [endpoint("web.1", "in", ""), endpoint("web.2", "out", "the node is down")];
    fake.on_json("GET /swarmd/services/web/endpoints", &json!({"Endpoints": all}));
    assert_eq!(
        fake.run(&["service", "endpoints", "web"]).ok(),
        "NAME      NODE      STATE     SOURCE    REASON\n\
         web.1     alpha     in\n\
         web.2     alpha     out                 the node is down\n"
    );
    assert_eq!(
        fake.run(&["service", "endpoints", "--format", "{{.Name}} {{.State}}", "web"]).ok(),
        "web.1 in\nweb.2 out\n"
    );
    let mut counted = endpoint("web.1", "in", "");
    counted["Source"] = json!("client");
    counted["Stats"] = json!({"Connections": 2, "ConnectionsTotal": 70, "BytesIn": 2048, "BytesOut": 5, "Errors": 1});
    let mut silent = endpoint("web.2", "in", "");
    (silent["NodeID"], silent["Node"]) = (json!("m"), json!("beta"));
    fake.on_json(
        "GET /swarmd/services/web/endpoints",
        &json!({
            "Endpoints": [counted, silent], "Refused": {"OverRate": 3},
            "Silent": [{"NodeID": "m", "Node": "beta", "Reason": "its session ended"}],
        }),
    );
    let run = fake.run(&["service", "endpoints", "--stats", "web"]);
    assert_eq!(
        run.stdout,
        "NAME      NODE      STATE     SOURCE    OPEN      TOTAL     IN        OUT       ERRORS    REASON\n\
         web.1     alpha     in        client    2         70        2KiB      5B        1\n\
         web.2     beta      in        unknown   0         0         0B        0B        0\n"
    );
    assert_eq!(
        run.stderr,
        "3 connections were refused by swarmd.ingress.rate-max\n\
         Warning: node beta did not answer, and its counters are in no sum: its session ended\n"
    );
    let seen = fake.seen("GET /swarmd/services/web/endpoints");
    assert!(!seen[0].query.contains_key("stats") && seen.last().unwrap().query["stats"] == "1");
    assert!(fake.run(&["service", "endpoints", "nope"]).failed().starts_with("Error: no such service: nope\n"));
}

#[test]
fn history_and_diff_tell_what_changed() {
    let fake = Fake::start();
    let spec = |image: &str, replicas: u64| {
        json!({"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": {"ContainerSpec": {"Image": image}}})
    };
    let at = "2020-01-01T00:00:00Z";
    fake.on_json(
        "GET /swarmd/services/web/history",
        &json!([
            {"Number": 2, "Base": 1, "CreatedAt": at, "Previous": true, "Spec": spec("hello:2", 2)},
            {"Number": 3, "Base": 2, "CreatedAt": at, "Spec": spec("hello:3", 2),
                "By": {"Kind": "user", "Name": "alice", "ID": "1000", "Node": {"ID": swarm_model::NodeId(7).to_string(), "Name": "m1"}},
                "RestoredAt": at, "RestoredBy": {"Kind": "policy", "Name": "update"}},
            {"Number": 4, "Base": 2, "CreatedAt": at, "Current": true, "Spec": spec("hello:2", 5)},
        ]),
    );
    let format = "{{.Version}}|{{.Mark}}|{{.Changes}}";
    assert_eq!(
        fake.run(&["service", "history", "--format", format, "web"]).ok(),
        format!(
            "4|current|from 2: Replicas 2 -> 5\n\
             3||Image hello:2 -> hello:3; restored {} ago by the update policy\n\
             2|previous|hello:2 (version 1, which it changed, is no longer kept)\n",
            human_years(at)
        )
    );
    let table = fake.run(&["service", "history", "web"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("VERSION   CREATED       BY                        MARK"), "{table}");
    assert!(lines[2].contains("   user alice (1000) on m1   "), "{table}");
    let by = fake.run(&["service", "history", "--format", "{{.By}}|{{.RestoredBy}}", "web"]).ok();
    assert_eq!(by, "|\nuser alice (1000) on m1|the update policy\n|\n");
    let diff = |args: &[&str]| fake.run(&[&["service", "diff", "web"], args].concat());
    assert_eq!(diff(&[]).ok(), "web: version 2 -> 4\n~ Mode.Replicated.Replicas: 2 -> 5\n");
    assert_eq!(
        diff(&["3"]).ok(),
        "web: version 3 -> 4\n~ Mode.Replicated.Replicas: 2 -> 5\n~ TaskTemplate.ContainerSpec.Image: hello:3 -> hello:2\n"
    );
    assert_eq!(diff(&["3", "3"]).ok(), "web: version 3 -> 3\nno difference\n");
    let error = diff(&["7"]).failed();
    assert!(error.starts_with("Error: service web has no version 7\n`swarmctl service history web`"), "{error}");
    assert!(fake.run(&["service", "history", "nope"]).failed().starts_with("Error: no such service: nope\n"));
}

#[test]
fn why_is_told_on_a_page() {
    let fake = Fake::start();
    let at = "2020-01-01T00:00:00Z";
    let why = json!({
        "Service": "web", "ServiceID": "s1", "Summary": "0 of 1 tasks run; waits for a node",
        "Tasks": [{"ID": "t1", "Name": "web.1", "DesiredState": "running", "State": "pending", "Since": at,
            "Summary": "waits for a node", "Restart": {"Restarts": 1, "MaxAttempts": 3, "Wait": 3_200_000_000_u64},
            "Failures": [{"Node": "n1", "State": "failed", "At": at, "ExitCode": 7, "Reason": "bad\u{1b}[2Jnews"}]}],
        "MoreTasks": 2,
        "Rejections": [{"Filter": "resources", "Asked": "2GiB of memory",
            "Nodes": [{"Node": "n1", "Found": "1.2GiB free of 4GiB"}], "MoreNodes": 4}],
        "Fixes": ["free 0.8GiB of memory on n1"],
    });
    fake.on_json("GET /swarmd/services/web/why", &why).on_json("GET /swarmd/tasks/web.1/why", &why);
    let page = fake.run(&["service", "why", "web"]).ok();
    let years = human_years(at);
    assert_eq!(
        page,
        format!(
            "\
web: 0 of 1 tasks run; waits for a node

web.1: pending for {years}, wanted is running
  waits for a node
  restarts: 1 of 3
  next start: in 3.2s
  {years} ago   failed on n1   exit code 7   bad [2Jnews

and 2 more tasks

Nodes that cannot take it
  resources: 2GiB of memory
    n1    1.2GiB free of 4GiB
    and 4 more nodes

What would help
  - free 0.8GiB of memory on n1
"
        )
    );
    assert!(fake.run(&["task", "why", "web.1"]).ok().starts_with("web.1: 0 of 1"));
    assert_eq!(fake.run(&["service", "why", "--format", "{{.MoreTasks}}", "web"]).ok(), "2\n");
    let json: Value = serde_json::from_str(&fake.run(&["task", "why", "--format", "json", "web.1"]).ok()).unwrap();
    assert_eq!(json, why);
    assert_eq!(fake.run(&["task", "why", "x"]).failed(), "Error: no such task: x\n");
    // What runs as it should needs no second line that says so.
    let well = json!({"Service": "web", "ServiceID": "s1", "Summary": "runs on n1 for 5s", "Tasks": [{"ID": "t2",
        "Name": "web.2", "DesiredState": "running", "State": "running", "Since": at, "Node": "n1",
        "Summary": "runs on n1 for 5s", "Restart": {"Wait": 20_000_000}}]});
    fake.on_json("GET /swarmd/tasks/web.2/why", &well);
    let page = fake.run(&["task", "why", "web.2"]).ok();
    assert_eq!(page, "web.2: runs on n1 for 5s\n\n  next start: now\n");
}

/// `6 years` since then.
fn human_years(at: &str) -> String {
    let then: jiff::Timestamp = at.parse().expect("a time");
    let days = jiff::Timestamp::now().duration_since(then).as_secs() / 86_400;
    format!("{} years", days / 365)
}

#[test]
fn the_managers_page_ends_with_1_when_nobody_leads() {
    let fake = Fake::start();
    let manager = |role: &str| json!({"ID": "n1", "Hostname": "host-1", "Addr": "10.0.0.1:2377", "Role": role});
    let page = |role: &str| json!({"Managers": [manager(role)], "Warnings": ["it rains"]});
    fake.on_json("GET /swarmd/managers", &page("leader"));
    assert_eq!(fake.run(&["swarm", "status"]).code, Some(0));
    let fake = Fake::start();
    fake.on_json("GET /swarmd/managers", &page("voter"));
    let ran = fake.run(&["swarm", "status"]);
    assert_eq!((ran.code, &*ran.stderr), (Some(1), ""));
    assert!(ran.stdout.contains("Leader:    none") && ran.stdout.contains("Warning: it rains"), "{}", ran.stdout);
    let ran = fake.run(&["swarm", "status", "--format", "{{.Hostname}}"]);
    assert_eq!((ran.code, &*ran.stdout), (Some(1), "host-1\n"));
}

#[test]
fn the_managers_page_ends_with_1_when_something_is_wrong() {
    let fake = Fake::start();
    let manager = json!({"ID": "n1", "Hostname": "host-1", "Addr": "10.0.0.1:2377", "Role": "leader"});
    let errors = ["2 machines have this node's id: 10.0.0.5 (one), 10.0.0.6 (other)"];
    fake.on_json("GET /swarmd/managers", &json!({"Managers": [manager], "Errors": errors}));
    let ran = fake.run(&["swarm", "status"]);
    assert_eq!((ran.code, &*ran.stderr), (Some(1), ""));
    assert!(ran.stdout.contains(&format!("Error: {}\n", errors[0])), "{}", ran.stdout);
}

#[test]
fn an_empty_name_is_refused_before_anything_is_asked() {
    let fake = Fake::start();
    fake.on_json("GET /services/", &json!([])).on_json("GET /nodes/", &json!([]));
    for line in [
        &["service", "inspect"][..],
        &["service", "ps"],
        &["service", "logs"],
        &["service", "rollback"],
        &["service", "update", "--force"],
        &["service", "rm"],
        &["service", "why"],
        &["service", "history"],
        &["service", "endpoints"],
        &["node", "inspect"],
        &["node", "ps"],
        &["node", "rm"],
        &["node", "drain"],
        &["node", "promote"],
        &["node", "update", "--availability", "active"],
        &["task", "why"],
    ] {
        for name in ["", "  "] {
            let error = fake.run(&[line, &[name]].concat()).failed();
            assert_eq!(error, "Error: a name or id is empty\n", "{line:?}");
        }
    }
    for line in ["GET /services/", "GET /nodes/"] {
        assert!(fake.seen(line).is_empty(), "{line}");
    }
    let error = fake.run(&["service", "inspect", "a/b"]).failed();
    assert!(error.contains("no such service: a/b"), "{error}");
}
