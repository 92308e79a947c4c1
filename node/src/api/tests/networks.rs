//! Networks of the swarm beside those of an engine.

use std::sync::{Arc, Mutex};

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    routing,
};
use serde_json::json;

use super::*;

/// An engine with two networks of its own, and with those that stand for networks of the swarm.
#[derive(Clone)]
struct FakeEngine {
    folder: Arc<tempfile::TempDir>,
    standing: Arc<Mutex<Vec<Value>>>,
    asked: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

impl FakeEngine {
    /// Listens on a socket in its folder until it is stopped.
    fn start() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let listener = tokio::net::UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let engine = Self { folder, standing: Arc::default(), asked: Arc::default(), stop: CancellationToken::new() };
        let router = Router::new()
            .route("/_ping", routing::get(|| async { ([("api-version", "1.50")], "OK") }))
            .route("/{version}/networks", routing::get(list))
            .route("/{version}/networks/{id}", routing::get(inspect).delete(remove))
            .route("/{version}/networks/prune", routing::post(prune))
            .route("/{version}/networks/create", routing::post(|| async { Json(json!({"Id": "made", "Warning": ""})) }))
            .route("/{version}/containers/create", routing::post(|| async { Json(json!({"Id": "c1"})) }))
            .fallback(|| async { StatusCode::SERVICE_UNAVAILABLE })
            .with_state(engine.clone());
        let stop = engine.stop.clone();
        tokio::spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.unwrap();
        });
        engine
    }

    fn networks(&self) -> Vec<Value> {
        let own = ["host", "web"].map(|name| {
            json!({"Id": format!("{name}-of-engine"), "Name": name, "Scope": "local",
            "Driver": "bridge", "Labels": {}, "Containers": {}})
        });
        own.into_iter().chain(self.standing.lock().unwrap().clone()).collect()
    }

    /// Lets a bridge network with a container stand for a network of the swarm.
    fn stand_for(&self, id: &str) {
        let container = json!({"Name": "web.1", "IPv4Address": "10.0.1.3/24"});
        self.standing.lock().unwrap().push(json!({"Id": "e1", "Name": "sw4097", "Scope": "local", "Driver": "bridge",
            "Labels": {"com.docker.swarm.network.id": id}, "Containers": {"c1": container}}));
    }
}

/// Filters by label alone, as much as the node asks for by itself.
async fn list(State(engine): State<FakeEngine>, RawQuery(query): RawQuery) -> Json<Vec<Value>> {
    let query = query.unwrap_or_default();
    let mut networks = engine.networks();
    networks.retain(|network| match network["Labels"]["com.docker.swarm.network.id"].as_str() {
        Some(id) => !query.contains("network.id%3D") || query.contains(id),
        None => !query.contains("network.id"),
    });
    engine.asked.lock().unwrap().push(format!("GET {query}"));
    Json(networks)
}

async fn inspect(State(engine): State<FakeEngine>, Path((_, id)): Path<(String, String)>) -> (StatusCode, Json<Value>) {
    match engine.networks().into_iter().find(|network| network["Id"] == id || network["Name"] == id) {
        Some(network) => (StatusCode::OK, Json(network)),
        None => (StatusCode::NOT_FOUND, Json(json!({"message": format!("network {id} not found")}))),
    }
}

async fn remove(State(engine): State<FakeEngine>, Path((_, id)): Path<(String, String)>) -> StatusCode {
    engine.asked.lock().unwrap().push(format!("DELETE {id}"));
    StatusCode::NO_CONTENT
}

async fn prune(State(engine): State<FakeEngine>, RawQuery(query): RawQuery) -> Json<Value> {
    engine.asked.lock().unwrap().push(format!("prune {}", query.unwrap_or_default()));
    Json(json!({"NetworksDeleted": ["web"]}))
}

impl Client {
    /// A client of a node with such an engine.
    async fn with_engine() -> (Self, FakeEngine) {
        let engine = FakeEngine::start();
        let node = TestNode::with_engine(&engine.folder.path().join("docker.sock"));
        (Self::with_policy(node, authorise::allow_all).await, engine)
    }

    /// Makes a network of the swarm; its id.
    async fn network(&mut self, name: &str) -> String {
        let body = format!(r#"{{"Name": "{name}", "Driver": "overlay", "IPAM": null, "Scope": ""}}"#);
        let (status, _, made) = self.ask("POST", "/v1.50/networks/create", &body).await;
        assert_eq!(status, 201, "{made}");
        serde_json::from_str::<Value>(&made).unwrap()["Id"].as_str().unwrap().to_owned()
    }

    /// The names in a list of networks.
    async fn names(&mut self, query: &str) -> Vec<String> {
        let (status, list) = self.get(&format!("/v1.50/networks{query}")).await;
        assert_eq!(status, 200, "{list}");
        list.as_array().unwrap().iter().map(|network| network["Name"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_of_the_swarm_and_of_the_engine_are_one_list() {
    let (mut client, engine) = Client::with_engine().await;
    assert_eq!(client.names("").await, ["host", "web"]);
    assert_eq!(client.ask("POST", "/swarm/init", r#"{"ListenAddr":"0.0.0.0:2377"}"#).await.0, 200);
    let id = client.network("front").await;
    engine.stand_for(&id);
    assert_eq!(client.names("").await, ["ingress", "front", "host", "web"], "the bridge network is not shown");
    let filters = r#"?filters={"name":{"front":true}}"#.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
    assert_eq!(client.names(&filters).await[0], "front");
    assert!(engine.asked.lock().unwrap().iter().any(|asked| asked.contains("front")), "the engine filters its own");
    let (status, text) = client.error("GET", "/networks?filters=%5B%5D", "").await;
    assert!(status == 400 && text.contains("invalid filters"), "{text}");

    // By all its names it is the network of the swarm, with the containers of this node.
    for term in ["front", "FRONT", &id, &id[..12], "sw4097", "e1"] {
        let (status, shown) = client.get(&format!("/v1.50/networks/{term}")).await;
        assert_eq!((status, &shown["Id"], &shown["Scope"]), (200, &id.as_str().into(), &"swarm".into()), "{term}");
        assert_eq!(shown["Containers"]["c1"]["Name"], "web.1", "{term}");
    }
    let (_, shown) = client.get("/v1.50/networks/web").await;
    assert_eq!((&shown["Id"], &shown["Scope"]), (&"web-of-engine".into(), &"local".into()));
    // Docker's client asks so before it makes a service.
    assert_eq!(client.get("/v1.50/networks/host?scope=swarm").await.1["Id"], "host");
    assert_eq!(client.get("/v1.50/networks/host").await.1["Id"], "host-of-engine");
    assert_eq!(client.error("GET", "/v1.50/networks/nope", "").await, (404, "network nope not found".to_owned()));

    let (status, text) =
        client.error("POST", "/v1.50/networks/create", r#"{"Name": "front", "Driver": "bridge"}"#).await;
    assert_eq!((status, text.as_str()), (409, "network with name front already exists"));
    assert_eq!(client.ask("POST", "/v1.50/networks/create", r#"{"Name": "other", "Driver": "bridge"}"#).await.0, 200);
    client.end().await;
    engine.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_go_where_they_are() {
    let (mut client, engine) = Client::with_engine().await;
    assert_eq!(client.ask("POST", "/swarm/init", r#"{"ListenAddr":"0.0.0.0:2377"}"#).await.0, 200);
    let id = client.network("front").await;
    client.network("back").await;
    engine.stand_for(&id);
    assert_eq!(client.ask("DELETE", "/v1.50/networks/sw4097", "").await.0, 204);
    assert_eq!(client.names("").await, ["ingress", "back", "host", "web"]);
    assert_eq!(client.ask("DELETE", "/v1.50/networks/web", "").await.0, 204);
    let (status, _, pruned) = client.ask("POST", "/v1.50/networks/prune", "").await;
    assert_eq!((status, pruned.trim()), (200, r#"{"NetworksDeleted":["back","web"]}"#));
    let asked = engine.asked.lock().unwrap().clone();
    assert!(asked.contains(&"DELETE web-of-engine".to_owned()), "{asked:?}");
    assert!(!asked.contains(&"DELETE e1".to_owned()), "what stands for a network is the node's to remove");
    let prune = asked.iter().find(|asked| asked.starts_with("prune")).unwrap();
    assert!(prune.contains("label%21") && prune.contains("com.docker.swarm.network.id"), "{prune}");
    assert_eq!(client.error("DELETE", "/networks/ingress", "").await.0, 403);
    client.end().await;
    engine.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_are_no_tasks_join_networks_of_the_engine_and_no_network_that_takes_tasks_only() {
    let (mut client, engine) = Client::with_engine().await;
    assert_eq!(client.ask("POST", "/swarm/init", r#"{"ListenAddr":"0.0.0.0:2377"}"#).await.0, 200);
    let id = client.network("front").await;
    let create = |network: &str| format!(r#"{{"Image": "x", "HostConfig": {{"NetworkMode": "{network}"}}}}"#);
    for (path, body) in [
        ("/containers/create?name=a".to_owned(), create("front")),
        (
            "/containers/create".to_owned(),
            format!(r#"{{"Image": "x", "NetworkingConfig": {{"EndpointsConfig": {{"{id}": {{}}}}}}}}"#),
        ),
    ] {
        let (status, text) = client.error("POST", &format!("/v1.50{path}"), &body).await;
        assert!(matches!(status, 403 | 503) && text.contains("Could not attach to network"), "{path}: {status} {text}");
    }
    for network in ["web", "bridge", "nope"] {
        assert_eq!(client.ask("POST", "/v1.50/containers/create", &create(network)).await.0, 200, "{network}");
    }
    client.end().await;
    engine.stop.cancel();
}
