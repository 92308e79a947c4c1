use std::path::Path;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_util::sync::CancellationToken;

use crate::{api::Api, socket::ApiSocket, testing::TestNode};

const TYPE: &str = "Content-Type: application/json\r\n";

/// A connection whose requests are written by hand.
struct Raw(UnixStream);

impl Raw {
    async fn open(socket: &Path) -> Self {
        Self(UnixStream::connect(socket).await.unwrap())
    }

    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the server takes what it has answered already");
    }

    /// Writes the head of a request. Its body comes later.
    async fn head(&mut self, route: &str, headers: &str) {
        self.write(format!("{route} HTTP/1.1\r\nHost: docker\r\n{headers}\r\n")).await;
    }

    /// Reads one answer: its status and its body.
    async fn answer(&mut self) -> (u16, String) {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
                }
            }
            let byte = self.0.read_u8().await.expect("the answer comes whole");
            read.push(byte);
        }
    }

    /// The connection is as good as new: the next request on it is answered.
    async fn goes_on(&mut self) {
        self.head("GET /_ping", "").await;
        assert_eq!(self.answer().await, (200, "OK".to_owned()));
    }
}

struct Served {
    node: TestNode,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    fn socket(&self) -> std::path::PathBuf {
        self.node.folder.path().join("api.sock")
    }

    async fn start() -> Self {
        let node = TestNode::new();
        let socket = ApiSocket::bind(&node.folder.path().join("api.sock")).await.unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(socket.serve(Api::new(node.node.clone()), stop.clone()));
        Self { node, stop, server }
    }

    async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap();
        self.node.node.shutdown().await;
    }

    /// The answer comes when there is no more than the head of the request, and the body still has a taker.
    async fn answers_first(&self, route: &str, expected: (u16, &str)) {
        for framing in ["Content-Length: 200000\r\n", "Transfer-Encoding: chunked\r\n"] {
            let mut client = Raw::open(&self.socket()).await;
            client.head(route, &format!("{TYPE}{framing}")).await;
            let (status, body) = client.answer().await;
            assert!(status == expected.0 && body.contains(expected.1), "{route}: {status} {body}");
            let body = vec![b' '; 200_000];
            if framing.starts_with("Content") {
                client.write(&body).await;
            } else {
                client.write(format!("{:x}\r\n", body.len())).await;
                client.write(&body).await;
                client.write("\r\n0\r\n\r\n").await;
            }
            client.goes_on().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_leaves_the_body_a_taker() {
    let served = Served::start().await;
    for (route, expected) in [
        ("POST /v1.99/services/create", (400, "too new")),
        ("POST /v1.12/services/create", (400, "too old")),
        ("POST /v1.41/%zz", (400, "invalid path")),
        ("POST /services/create", (503, "not a swarm manager")),
        ("DELETE /nodes/a", (503, "not a swarm manager")),
        ("POST /swarm/leave", (503, "not part of a swarm")),
        ("POST /swarm/leave?force=zzz", (400, "invalid value for force")),
        ("POST /swarmd/restore", (400, "passphrase")),
        ("POST /containers/create", (501, "no container engine")),
        ("POST /nothing", (501, "no container engine")),
        ("GET /_ping", (200, "OK")),
    ] {
        served.answers_first(route, expected).await;
    }

    let mut client = Raw::open(&served.socket()).await;
    let init = r#"{"ListenAddr":"0.0.0.0:2377"}"#;
    client.head("POST /swarm/init", &format!("{TYPE}Content-Length: {}\r\n", init.len())).await;
    client.write(init).await;
    assert_eq!(client.answer().await.0, 200);
    for (route, expected) in [
        ("POST /swarm/nothing", (404, "page not found")),
        ("POST /services/a/b/c", (404, "page not found")),
        ("POST /services", (404, "page not found")),
        ("POST /services/create?consistency=stale", (400, "stale is for reads")),
    ] {
        served.answers_first(route, expected).await;
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_and_the_rest_taken() {
    let served = Served::start().await;
    let mut client = Raw::open(&served.socket()).await;
    let size = 16 << 20;
    client.head("POST /swarm/init", &format!("{TYPE}Content-Length: {size}\r\n")).await;
    let (first, rest) = ((1 << 20) + 1, vec![b' '; size]);
    client.write(&rest[..first]).await;
    let (status, body) = client.answer().await;
    assert!(status == 413 && body.contains("1048576"), "{status} {body}");
    client.write(&rest[first..]).await;
    client.goes_on().await;

    // What is read before it is refused.
    client.head("POST /swarm/init", "Content-Type: text/plain\r\nContent-Length: 2\r\n").await;
    client.write("{}").await;
    assert_eq!(client.answer().await.0, 400);
    client.goes_on().await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_leave_to_send_is_told_at_once() {
    let served = Served::start().await;
    let mut client = Raw::open(&served.socket()).await;
    client.head("POST /services/create", &format!("{TYPE}Content-Length: 9\r\nExpect: 100-continue\r\n")).await;
    assert_eq!(client.answer().await.0, 503, "and not 100, which would ask for the body");
    // It may send its body all the same, or begin the next request: the connection ends, so that none is taken for the
    // other.
    assert_eq!(client.0.read(&mut [0; 64]).await.unwrap(), 0);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_close_after_its_body() {
    let served = Served::start().await;
    let mut client = Raw::open(&served.socket()).await;
    client.head("POST /v1.99/services/create", &format!("{TYPE}Connection: close\r\nContent-Length: 2\r\n")).await;
    assert_eq!(client.answer().await.0, 400);
    client.write("{}").await;
    assert_eq!(client.0.read(&mut [0; 64]).await.unwrap(), 0);
    served.end().await;
}
