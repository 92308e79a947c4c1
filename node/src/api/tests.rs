use axum::Router;
use hyper::{HeaderMap, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{socket::ApiSocket, testing::TestNode};

/// A client of the API of a node without Docker, on a real socket.
struct Client {
    node: TestNode,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    sender: http1::SendRequest<String>,
}

impl Client {
    async fn start() -> Self {
        Self::with_policy(TestNode::new(), authorise::allow_all).await
    }

    async fn with_policy(node: TestNode, policy: Policy) -> Self {
        let path = node.folder.path().join("api.sock");
        let socket = ApiSocket::bind(&path).await.unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(socket.serve(Api { policy, ..Api::new(node.node.clone()) }, stop.clone()));
        let stream = UnixStream::connect(&path).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { node, stop, server, sender }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, HeaderMap, String) {
        let request = Request::builder().method(method).uri(path).header(HOST, "docker");
        self.send(request.header(CONTENT_TYPE, "application/json").body(body.to_owned()).unwrap()).await
    }

    async fn send(&mut self, request: Request<String>) -> (u16, HeaderMap, String) {
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(Body::new(body), 1 << 20).await.unwrap();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&mut self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.ask("GET", path, "").await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The error that a request gets; its form is the one that Docker's clients know.
    async fn error(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, headers, body) = self.ask(method, path, body).await;
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        let body: Value = serde_json::from_str(&body).unwrap();
        (status, body["message"].as_str().unwrap().to_owned())
    }

    async fn end(self) {
        self.stop.cancel();
        drop(self.sender);
        self.server.await.unwrap();
        self.node.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_client_finds_what_it_asks_first() {
    let mut client = Client::start().await;
    for (method, body) in [("HEAD", ""), ("GET", "OK")] {
        let (status, headers, found) = client.ask(method, "/_ping", "").await;
        assert_eq!((status, found.as_str()), (200, body));
        for (name, value) in [
            ("api-version", "1.50"),
            ("ostype", "linux"),
            ("docker-experimental", "false"),
            ("swarm", "inactive"),
            ("builder-version", "2"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        assert!(headers["server"].to_str().unwrap().starts_with("Docker/"));
    }
    let (_, version) = client.get("/v1.41//version/").await;
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&"1.50".into(), &"1.24".into()));
    let (_, info) = client.get("/info").await;
    assert_eq!((&info["Name"], &info["Swarm"]["LocalNodeState"]), (&"test".into(), &"inactive".into()));
    let (status, text) = client.error("GET", "/v1.51/info", "").await;
    assert!(status == 400 && text.contains("1.51 is too new"), "{text}");
    let (status, text) = client.error("GET", "/v1.12/info", "").await;
    assert!(status == 400 && text.contains("too old"), "{text}");
    for path in ["/services", "/secrets", "/configs"] {
        assert_eq!(client.error("GET", path, "").await, (503, NO_SWARM.to_owned()));
    }
    assert_eq!(client.error("GET", "/containers/json", "").await.0, 501);
    assert_eq!(client.error("POST", "/swarm/join", "{").await.0, 400);
    let large = format!("{{\"ListenAddr\": \"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(client.error("POST", "/swarm/init", &large).await.0, 413);
    client.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_shows_in_ping_and_info() {
    let mut client = Client::start().await;
    let (status, _, id) =
        client.ask("POST", "/v1.50/swarm/init", r#"{"ListenAddr":"0.0.0.0:2377","Spec":{"Labels":null}}"#).await;
    let id: String = serde_json::from_str(&id).unwrap();
    assert_eq!((status, id.len()), (200, 25));
    assert_eq!(client.ask("HEAD", "/_ping", "").await.1["swarm"], "active/manager");
    let (_, info) = client.get("/v1.50/info").await;
    let swarm = &info["Swarm"];
    assert_eq!((&swarm["NodeID"], &swarm["NodeAddr"]), (&id.as_str().into(), &"127.0.0.1".into()));
    assert_eq!((&swarm["LocalNodeState"], &swarm["ControlAvailable"]), (&"active".into(), &true.into()));
    assert_eq!((&swarm["Nodes"], &swarm["Managers"]), (&1.into(), &1.into()));
    assert_eq!(swarm["RemoteManagers"][0]["NodeID"], id.as_str());
    // `docker node ls` compares the two.
    let (_, nodes) = client.get("/nodes").await;
    assert_eq!(nodes[0]["Description"]["TLSInfo"], swarm["Cluster"]["TLSInfo"]);
    assert_eq!(client.error("GET", "/swarm/nothing", "").await, (404, PAGE_NOT_FOUND.to_owned()));
    for (method, path, body, text) in [
        ("POST", "/v1.50/networks/create", r#"{"Name": "a", "Driver": "macvlan", "Scope": "swarm"}"#, "take overlay"),
        // This node has no engine, and that is where the network would be made.
        ("POST", "/v1.50/networks/create", r#"{"Name": "a", "Driver": "bridge"}"#, "no container engine"),
    ] {
        let (status, found) = client.error(method, path, body).await;
        assert!(status == 501 && found.contains(text), "{method} {path}: {status} {found}");
    }
    assert_eq!(client.get("/v1.41/configs").await, (200, serde_json::json!([])));
    let (status, _, _) = client.ask("POST", "/secrets/create", r#"{"Name": "key", "Data": "czNjcjN0"}"#).await;
    assert_eq!((status, &client.get("/v1.41/secrets").await.1[0]["Spec"]["Name"]), (201, &"key".into()));
    for (method, path, text) in [
        ("GET", "/v1.41/secrets/none-such", "secret none-such not found"),
        ("DELETE", "/v1.41/secrets/none-such", "secret none-such not found"),
        ("GET", "/configs/none-such", "config none-such not found"),
        ("DELETE", "/configs/none-such", "config none-such not found"),
        ("GET", "/configs/b/c", "page not found"),
    ] {
        assert_eq!(client.error(method, path, "").await, (404, text.to_owned()), "{method} {path}");
    }
    let (status, text) = client.error("POST", "/swarm/leave?force=0", "").await;
    assert!(status == 503 && text.contains("`--force`"), "{text}");
    let (status, _, body) = client.ask("POST", "/swarm/leave?force=True", "").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert_eq!(client.ask("HEAD", "/_ping", "").await.1["swarm"], "inactive");
    client.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_overlay_networks_are_made_from_is_kept_and_shown() {
    let mut client = Client::start().await;
    let shown = |cluster: &Value| ["DefaultAddrPool", "SubnetSize", "DataPathPort"].map(|name| cluster[name].clone());
    for (request, expected) in [
        (
            r#"{"ListenAddr": "0.0.0.0:2377", "DefaultAddrPool": ["10.20.0.0/16"], "SubnetSize": 26,
                "DataPathAddr": "127.0.0.1", "DataPathPort": 7777}"#,
            serde_json::json!([["10.20.0.0/16"], 26, 7777]),
        ),
        // docker-py says nothing of pools, the docker CLI sends an empty list: dockerd shows them so.
        (r#"{"DefaultAddrPool": null}"#, serde_json::json!([["10.0.0.0/8"], 24, 4789])),
        (r#"{"DefaultAddrPool": []}"#, serde_json::json!([null, 24, 4789])),
    ] {
        assert_eq!(client.ask("POST", "/v1.50/swarm/init", request).await.0, 200);
        let (_, swarm) = client.get("/swarm").await;
        let (_, info) = client.get("/info").await;
        assert_eq!(Value::from(shown(&swarm).to_vec()), expected);
        assert_eq!(Value::from(shown(&info["Swarm"]["Cluster"]).to_vec()), expected);
        assert_eq!(client.ask("POST", "/v1.50/swarm/leave?force=1", "").await.0, 200);
    }
    client.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_route_leads_past_it() {
    let mut client = Client::start().await;
    // This node has no engine: what passes through is answered with 501.
    for path in [
        "/v1.41/%73warm/init",
        "/v1.41/swarm%2Finit",
        "/v1.41%2fswarm/init",
        "/%76%31%2e41/swarm/init",
        "/v1.41//swarm/init/",
        "//swarm/init",
        "/./swarm/%2e/init",
        "/v1.41/../swarm/init",
        "/v1.41/containers/..%2Fswarm/init",
        "/%73%77%61%72%6d%2f%69%6e%69%74",
    ] {
        let (status, text) = client.error("POST", path, "{").await;
        assert!(status == 400 && text.contains("JSON"), "{path}: {status} {text}");
    }
    for path in ["/services%2Fcreate", "/%6eodes", "/networks/../%73ervices", "/v1.50/%73warmd/plan"] {
        assert_eq!(client.error("GET", path, "").await, (503, NO_SWARM.to_owned()), "{path}");
    }
    let overlay = r#"{"Name": "a.b", "Driver": "overlay"}"#;
    assert_eq!(client.ask("POST", "/swarm/init", r#"{"ListenAddr":"0.0.0.0:2377"}"#).await.0, 200);
    for path in ["/v1.41/networks/creat%65", "/networks%2Fcreate"] {
        let (_, text) = client.error("POST", path, overlay).await;
        assert!(text.contains("DNS name component"), "{path}: {text}");
    }
    // Docker's routes are written in small letters.
    assert_eq!(client.error("POST", "/Swarm/init", "{").await.0, 501);
    for path in ["/%zz", "/v1.41/swarm%2", "/%ff"] {
        let (status, text) = client.error("POST", path, "{").await;
        assert!(status == 400 && text.contains("invalid path"), "{path}: {status} {text}");
    }
    client.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leave_by_force_takes_what_clients_send() {
    let mut client = Client::start().await;
    assert_eq!(client.ask("POST", "/swarm/init", r#"{"ListenAddr":"0.0.0.0:2377"}"#).await.0, 200);
    for query in ["force=zzz", "force=", "force", "force=TRUE", "%66orce=yes", "force=%20true"] {
        let (status, text) = client.error("POST", &format!("/v1.41/swarm/leave?{query}"), "").await;
        assert!(status == 400 && text.contains("invalid value for force"), "{query}: {status} {text}");
    }
    let (status, text) = client.error("POST", "/swarm/leave?force=0&force=1", "").await;
    assert!(status == 400 && text.contains("more than once"), "{status} {text}");
    for query in ["", "?force=False", "?force=0", "?Force=1"] {
        assert_eq!(client.error("POST", &format!("/swarm/leave{query}"), "").await.0, 503, "{query}");
    }
    assert_eq!(client.ask("POST", "/swarm/leave?force=%31", "").await.0, 200);
    client.end().await;
}

#[test]
fn managers_answer_for_the_swarm_and_engines_for_the_rest() {
    for path in ["/swarm", "/nodes/self/update", "/services", "/tasks/x/logs", "/swarmd/plan"] {
        assert!(is_for_manager(path), "{path}");
    }
    for path in ["/", "/containers/swarm", "/servicesx", "/networks", "/events"] {
        assert!(!is_for_manager(path), "{path}");
    }
}

#[tokio::test]
async fn errors_of_the_router_are_json_as_well() {
    let routes = Router::new()
        .route("/get", axum::routing::get(|| async {}))
        .route("/bad", axum::routing::get(|| async { (StatusCode::BAD_REQUEST, "not good") }));
    for (method, path, message) in
        [("GET", "/none", "page not found"), ("POST", "/get", "method not allowed"), ("GET", "/bad", "not good")]
    {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let Ok(response) = routes.clone().oneshot(request).await;
        let status = response.status();
        let response = as_json_error(response).await;
        assert_eq!(
            (response.status(), &response.headers()[CONTENT_TYPE]),
            (status, &CONTENT_TYPE_JSON.parse().unwrap())
        );
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["message"], message);
    }
}

mod callers;
mod networks;
