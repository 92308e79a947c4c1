//! A swarmd that answers what a test tells it to, on a Unix socket, and remembers what it was asked.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    body: Bytes,
    headers: Vec<(&'static str, &'static str)>,
}

impl Reply {
    pub(crate) fn json(value: &Value) -> Self {
        Self { status: 200, body: value.to_string().into(), headers: Vec::new() }
    }

    pub(crate) fn bytes(body: Vec<u8>) -> Self {
        Self { status: 200, body: body.into(), headers: Vec::new() }
    }

    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self { status, body: json!({"message": message}).to_string().into(), headers: Vec::new() }
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `GET /services/x`, without the version.
    pub(crate) line: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Script {
    replies: BTreeMap<String, VecDeque<Reply>>,
    seen: Vec<Seen>,
}

/// A script, and who waits for requests.
#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    asked: Condvar,
}

/// Longest wait for a request. Only a broken test waits so long.
const REQUEST_WAIT: Duration = Duration::from_secs(60);

/// The fake.
pub(crate) struct Fake {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(folder.path().join("swarmd.sock")).unwrap()
        };
        runtime.spawn(serve(listener, shared.clone()));
        Self { folder, shared, runtime: Some(runtime) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("swarmd.sock")
    }

    /// Answers `GET /path` and the like; of several replies the last one is given again and again.
    pub(crate) fn on(&self, line: &str, replies: impl IntoIterator<Item = Reply>) -> &Self {
        self.shared.script.lock().unwrap().replies.insert(line.to_owned(), replies.into_iter().collect());
        self
    }

    /// Answers with a JSON value.
    pub(crate) fn on_json(&self, line: &str, value: &Value) -> &Self {
        self.on(line, [Reply::json(value)])
    }

    /// The requests of one kind so far.
    pub(crate) fn seen(&self, line: &str) -> Vec<Seen> {
        self.shared.script.lock().unwrap().seen.iter().filter(|s| s.line == line).cloned().collect()
    }

    /// Waits until so many requests of one kind have come.
    pub(crate) fn wait_for(&self, line: &str, count: usize) {
        let too_few = |script: &mut Script| script.seen.iter().filter(|s| s.line == line).count() < count;
        let script = self.shared.script.lock().unwrap();
        let (_script, waited) = self.shared.asked.wait_timeout_while(script, REQUEST_WAIT, too_few).unwrap();
        assert!(!waited.timed_out(), "{line} was asked fewer than {count} times");
    }

    /// A command that talks to this fake.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = swarmctl();
        command.arg("--host").arg(self.socket()).args(args);
        command
    }

    /// Runs swarmctl to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// swarmctl with an environment of its own.
pub(crate) fn swarmctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmctl"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// What a command left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Standard output of a command that went well.
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// Standard error of a command that failed with exit code 1.
    pub(crate) fn failed(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        self.stderr
    }
}

/// The body of a recorded response of dockerd 28.2.2.
pub(crate) fn recorded(name: &str) -> Value {
    let path = format!("{}/tests/recorded/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let exchange: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    exchange["resp_body"].clone()
}

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        let service = service_fn(move |request| answer(request, shared.clone()));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let path = head.uri.path();
    let line = format!("{} {}", head.method, unescaped(path.strip_prefix("/v1.50").unwrap_or(path)));
    let query = head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let seen = Seen {
        line: line.clone(),
        query: query.map(|(key, value)| (unescaped(key), unescaped(value))).collect(),
        headers: head
            .headers
            .iter()
            .map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let reply = {
        let mut script = shared.script.lock().unwrap();
        script.seen.push(seen);
        shared.asked.notify_all();
        match script.replies.get_mut(&line) {
            Some(replies) if replies.len() > 1 => replies.pop_front().unwrap(),
            Some(replies) => replies[0].clone(),
            None => Reply::error(404, &format!("{line} not found")),
        }
    };
    let response = Response::builder().status(reply.status).header("Content-Type", "application/json");
    let response = reply.headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    Ok(response.body(Full::new(reply.body)).unwrap())
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}
