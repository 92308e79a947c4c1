//! Callers: how they are told apart, authorised and written down.

use std::fs;

use serde_json::json;
use swarm_model::Principal;

use super::*;

/// The user that runs the tests, as the socket sees it.
fn own_user() -> Principal {
    let uid = nix::unistd::Uid::effective();
    let name = nix::unistd::User::from_uid(uid).unwrap().map(|user| user.name);
    Principal::user(uid.as_raw(), name.as_deref())
}

fn lines(node: &TestNode) -> Vec<Value> {
    let text = fs::read_to_string(node.folder.path().join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const INIT: &str = r#"{"ListenAddr":"0.0.0.0:2377"}"#;
const WEB: &str =
    r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"hello:1"}},"Mode":{"Replicated":{"Replicas":0}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_authorised_before_anything_else_happens() {
    fn reads_only(author: &Author, method: &Method, path: &str) -> Result<(), ApiError> {
        // The values that a policy would look at.
        assert!(author.principal == own_user() && path.starts_with('/'), "{author} {path}");
        match *method {
            Method::GET => Ok(()),
            _ => Err(ApiError::forbidden(format!("{author} may not {method} {path}"))),
        }
    }
    let mut client = Client::with_policy(TestNode::with_audit_log(), reads_only).await;
    let calls = [
        ("POST", "/swarm/init"),
        ("POST", "/v1.41/swarm/join"),
        ("POST", "/swarm/leave"),
        ("POST", "/swarm/unlock"),
        ("POST", "/swarm/update"),
        ("POST", "/swarmd/restore"),
        ("POST", "/swarmd/backup"),
        ("POST", "/swarmd/transfer"),
        ("POST", "/services/create"),
        ("DELETE", "/services/x"),
        ("POST", "/services/x/update"),
        ("POST", "/nodes/x/update"),
        ("DELETE", "/nodes/x"),
        ("POST", "/secrets/create"),
        ("DELETE", "/configs/x"),
        ("POST", "/networks/create"),
        // The engine's.
        ("POST", "/containers/create"),
        ("PUT", "/containers/x/archive"),
        ("POST", "/%62uild"),
    ];
    for (method, path) in calls {
        let (status, text) = client.error(method, path, "{").await;
        assert!(status == 403 && text.contains("may not"), "{method} {path}: {status} {text}");
    }
    assert_eq!(client.ask("HEAD", "/_ping", "").await.0, 403);
    assert_eq!(client.ask("GET", "/_ping", "").await.0, 200);
    // A call that was refused is written down as well.
    let found = lines(&client.node);
    assert_eq!(found.len(), calls.len());
    assert_eq!((&found[1]["what"], &found[1]["outcome"]["status"]), (&json!("POST /swarm/join"), &json!(403)));
    client.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_who_the_kernel_says_and_not_who_the_caller_says() {
    let mut client = Client::start().await;
    assert_eq!(client.ask("POST", "/swarm/init", INIT).await.0, 200);
    let request = Request::post("/services/create")
        .header(HOST, "docker")
        .header(CONTENT_TYPE, "application/json")
        .header("x-swarmd-caller", r#"{"Kind":"user","Name":"mallory","ID":"666"}"#);
    assert_eq!(client.send(request.body(WEB.to_owned()).unwrap()).await.0, 201);
    let (_, history) = client.get("/swarmd/services/web/history").await;
    let by: Author = serde_json::from_value(history[0]["By"].clone()).unwrap();
    assert_eq!((&by.principal, by.node), (&own_user(), client.node.node.name()));
    client.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_a_line_of_the_audit_log() {
    let mut client = Client::with_policy(TestNode::with_audit_log(), authorise::allow_all).await;
    let secret = r#"{"Name":"key","Data":"c3VwM3JzM2NyM3Q="}"#;
    for (method, path, body, status) in [
        ("POST", "/v1.50/swarm/init", INIT, 200),
        ("GET", "/v1.50/services", "", 200),
        ("POST", "/v1.50/services/create", WEB, 201),
        ("POST", "/services/create", WEB, 409),
        ("POST", "/secrets/create", secret, 201),
        ("POST", "/swarmd/plan", "{", 400),
        ("POST", "/services/create", r#"{"TaskTemplate":{"ContainerSpec":{"Env":"KEY=sup3rs3cr3t"}}}"#, 400),
        ("DELETE", "/services/web?token=sup3rs3cr3t", "", 200),
        ("POST", "/containers/create", "{}", 501),
        ("POST", "/swarm/leave?force=1", "", 200),
    ] {
        assert_eq!(client.ask(method, path, body).await.0, status, "{method} {path}");
    }
    let found = lines(&client.node);
    let shown: Vec<_> = found.iter().map(|line| (&line["what"], &line["object"], &line["outcome"]["status"])).collect();
    let expected = [
        (json!("POST /swarm/init"), Value::Null, json!(200)),
        (json!("POST /services/create"), json!("service web"), json!(201)),
        (json!("POST /services/create"), json!("service web"), json!(409)),
        (json!("POST /secrets/create"), json!("secret key"), json!(201)),
        (json!("POST /services/create"), Value::Null, json!(400)),
        (json!("DELETE /services/web?token=…"), json!("service web"), json!(200)),
        (json!("POST /containers/create"), Value::Null, json!(501)),
        (json!("POST /swarm/leave?force=1"), Value::Null, json!(200)),
    ];
    assert_eq!(shown, expected.each_ref().map(|(what, object, status)| (what, object, status)));

    let by = json!({"kind": "user", "name": own_user().name(), "id": own_user().id()});
    let socket = client.node.folder.path().join("api.sock");
    for line in &found {
        assert_eq!((&line["by"], &line["from"]), (&by, &json!(socket)), "{line}");
        assert!(line["node"]["name"] == "test" && line["node"]["id"].as_str().unwrap().len() == 25, "{line}");
        assert!(line["at"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    assert!(found[1]["revision"].as_u64() < found[3]["revision"].as_u64() && found[1]["revision"].is_u64());
    assert_eq!(found[2].get("revision"), None, "what was refused changed nothing");
    assert!(found[2]["outcome"]["error"].as_str().unwrap().contains("already exists"), "{}", found[2]);
    assert_eq!(found[1]["outcome"].get("error"), None);
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("sup3rs3cr3t") && !text.contains("c3VwM3JzM2NyM3Q"), "{text}");
    client.end().await;
}

/// A client that hangs up does not get past the audit log.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_client_left_is_a_line_as_well() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let client = Client::with_policy(TestNode::with_audit_log(), authorise::allow_all).await;
    let mut stream = UnixStream::connect(client.node.folder.path().join("api.sock")).await.unwrap();
    // The body is not all there, so that the call waits for the rest of it.
    let head = "POST /swarm/init HTTP/1.1\r\nHost: docker\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body once the call has begun.
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 100");
    drop(stream);
    // A server that ends waits for its calls, and the log for its lines.
    let Client { node, stop, server, sender } = client;
    stop.cancel();
    drop(sender);
    server.await.unwrap();
    node.node.audit().flush().await;
    let found = lines(&node);
    assert_eq!((found.len(), &found[0]["what"]), (1, &json!("POST /swarm/init")));
    let error = found[0]["outcome"]["error"].as_str().unwrap();
    assert!(error.contains("the client left") || error.contains("cut off"), "{error}");
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_that_the_audit_log_lacks_changes() {
    let mut client = Client::with_policy(TestNode::with_audit_log(), authorise::allow_all).await;
    assert_eq!(client.ask("GET", "/_ping", "").await.1.get(WARNING_HEADER), None);
    let log = client.node.folder.path().join("audit.log");
    fs::rename(&log, log.with_extension("old")).unwrap();
    fs::create_dir(&log).unwrap();
    let (status, headers, _) = client.ask("POST", "/swarm/init", INIT).await;
    let warning = headers[WARNING_HEADER].to_str().unwrap();
    assert!(status == 200 && warning.contains("a new one cannot be made"), "{status} {warning}");
    let (_, info) = client.get("/info").await;
    assert!(info["Warnings"].to_string().contains("WARNING: the audit log"), "{info}");
    fs::remove_dir(&log).unwrap();
    let (status, headers, _) = client.ask("POST", "/services/create", WEB).await;
    assert_eq!((status, headers.get(WARNING_HEADER)), (201, None));
    assert_eq!(lines(&client.node)[0]["what"], "POST /services/create");
    client.end().await;
}
