use axum::{Router, body::to_bytes, routing};
use http_body_util::BodyExt;
use hyper::{Method, body::Incoming, header::CONTENT_TYPE, service::service_fn};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::UnixListener,
};
use tower::ServiceExt;

use super::*;

/// An engine that speaks API 1.41: it says what was asked of it, echoes bodies, takes over connections.
struct FakeEngine {
    _folder: tempfile::TempDir,
    client: EngineClient,
}

impl FakeEngine {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let router = Router::new()
            .route("/_ping", routing::get(|| async { ([("api-version", "1.41")], "OK") }))
            .route("/v1.41/take-over", routing::post(take_over))
            .fallback(|request: Request<Body>| async move {
                let (parts, body) = request.into_parts();
                let asked = format!("{} {}", parts.method, parts.uri);
                ([("x-asked", asked)], body)
            });
        let engine = client_of(&socket);
        engine.connections.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn({
                    let router = router.clone();
                    move |request: Request<Incoming>| router.clone().oneshot(request.map(Body::new))
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades(),
                );
            }
        });
        Self { _folder: folder, client: engine }
    }
}

fn client_of(socket: &std::path::Path) -> EngineClient {
    EngineClient::new(&Engine::Docker(socket.to_owned()))
}

/// Answers in capitals on the connection itself.
async fn take_over(mut request: Request<Body>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        stream.write_all(&text.to_ascii_uppercase()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .header(CONTENT_TYPE, "application/vnd.docker.raw-stream")
        .body(Body::empty())
        .unwrap()
}

/// A client of a server that passes everything through to the engine.
async fn connect(engine: EngineClient) -> SendRequest<Body> {
    let (a, b) = duplex(64 << 10);
    let service = service_fn(move |request: Request<Incoming>| {
        let engine = engine.clone();
        async move {
            let path = swarm_docker_api::decode_path(request.uri().path()).unwrap();
            let (version, path) = swarm_docker_api::split_version(&path).unwrap();
            let answer = engine.pass(request, version, path).await;
            Ok::<_, std::convert::Infallible>(
                answer.unwrap_or_else(|e| Response::builder().status(e.status).body(Body::from(e.message)).unwrap()),
            )
        }
    });
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(a), service).with_upgrades());
    let (sender, connection) = http1::handshake(TokioIo::new(b)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(to_bytes(Body::new(response.into_body()), 1 << 20).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn requests_pass_with_the_version_lowered_and_bodies_stream() {
    let engine = FakeEngine::start();
    let mut sender = connect(engine.client.clone()).await;
    for (asked, expected) in [
        ("/v1.50/containers/json?all=1", "POST /v1.41/containers/json?all=1"),
        ("/v1.30/containers/json", "POST /v1.30/containers/json"),
        ("/containers/json?x=%20", "POST /containers/json?x=%20"),
        ("/v1.41/images/a%2Fb%20c/json", "POST /v1.41/images/a/b%20c/json"),
    ] {
        let (body_sender, body) = duplex(16);
        let body = Body::from_stream(tokio_util::io::ReaderStream::new(body));
        let request = Request::builder().method(Method::POST).uri(asked).header(HOST, "x").body(body).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.headers()["x-asked"], expected);
        // The first part comes back while the request is still being sent.
        let mut echo = response.into_body();
        let mut body_sender = body_sender;
        for part in ["one", "two"] {
            body_sender.write_all(part.as_bytes()).await.unwrap();
            assert_eq!(echo.frame().await.unwrap().unwrap().into_data().unwrap(), part);
        }
        drop(body_sender);
        assert!(echo.frame().await.is_none());
        sender.ready().await.unwrap();
    }
}

#[tokio::test]
async fn connections_that_the_engine_takes_over_are_carried_on() {
    let engine = FakeEngine::start();
    let mut sender = connect(engine.client.clone()).await;
    let request = Request::post("/v1.50/take-over").header(HOST, "x").header(CONNECTION, "Upgrade");
    let request = request.header(UPGRADE, "tcp").body(Body::empty()).unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/vnd.docker.raw-stream");
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    stream.write_all(b"input").await.unwrap();
    // The end of the input alone must reach the engine; its output goes on.
    stream.shutdown().await.unwrap();
    let mut output = String::new();
    stream.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "INPUT");
}

#[tokio::test]
async fn without_an_engine_the_answer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let mut sender = connect(client_of(&socket)).await;
    let request = |path| Request::get(path).header(HOST, "x").body(Body::empty()).unwrap();
    let response = sender.send_request(request("/containers/json")).await.unwrap();
    assert_eq!(response.status(), 503);
    let message = text(response).await;
    assert!(message.contains("none.sock does not answer"), "{message}");

    let mut sender = connect(EngineClient::new(&Engine::Simulated)).await;
    let response = sender.send_request(request("/containers/json")).await.unwrap();
    assert_eq!(response.status(), 501);
    assert!(text(response).await.contains("no container engine"));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let error = client_of(&socket).ask::<serde_json::Value>("/info").await.unwrap_err();
    assert_eq!(error.status, 503);
    assert!(error.message.contains("no answer in time"), "{error}");
}

proptest! {
    #[test]
    fn versions_are_lowered_and_the_rest_stays(
        path in "(/[a-z0-9%._-]{1,8}){1,4}", query in proptest::option::of("[a-z0-9=&%]{0,20}"),
        asked in proptest::option::of(24_u16..=50), spoken in 24_u16..=60,
    ) {
        let version = |minor| ApiVersion { major: 1, minor };
        let uri = engine_uri(&path, query.as_deref(), asked.map(version), version(spoken)).unwrap();
        let prefix = asked.map(|a| format!("/v1.{}", a.min(spoken))).unwrap_or_default();
        prop_assert_eq!(uri.path(), format!("{prefix}{}", encode_path(&path)));
        prop_assert_eq!(uri.query(), query.as_deref());
    }

    #[test]
    fn any_path_is_passed_or_refused(path in "/\\PC{0,30}", query in "\\PC{0,20}") {
        let spoken = ApiVersion { major: 1, minor: 41 };
        let _ = engine_uri(&path, Some(&query), Some(spoken), spoken);
    }
}
