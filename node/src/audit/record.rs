//! The record of a change: a line in the log, and a line in the audit log if there is one.

use std::borrow::Cow;

use axum::{
    body::{Body, HttpBody},
    extract::Query,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde::Serialize;
use swarm_docker_api::view::{ErrorMessage, Time};
use swarm_manager::api::Caller;
use swarm_model::NodeId;
use swarm_wire::clock;

use super::Audit;

/// Longest text of a path with its query, in characters.
const WHAT_LEN_MAX: usize = 512;
/// Longest value of a parameter, in characters: a name, a number, an address.
const VALUE_LEN_MAX: usize = 128;
/// Longest text of an error, in characters.
const ERROR_LEN_MAX: usize = 1024;
/// Longest body of an error that is looked into.
const ERROR_BYTES_MAX: u64 = 64 << 10;
/// Parameters whose values are shown. Others may carry secrets, as build arguments do.
const SHOWN: &[&str] = &[
    "advertiseAddr",
    "drain",
    "drainTimeout",
    "force",
    "fromImage",
    "listenAddr",
    "name",
    "node",
    "registryAuthFrom",
    "rollback",
    "rotateManagerToken",
    "rotateManagerUnlockKey",
    "rotateWorkerToken",
    "signal",
    "tag",
    "to",
    "version",
];

/// Said of a call whose client did not wait for the answer.
const LEFT: &str = "the client left before the answer: whether the change was made is not known";

/// Whether a call changes something. The path is decoded and without a version.
pub(crate) fn is_change(method: &Method, path: &str) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    let pieces: Vec<&str> = path.split('/').skip(1).collect();
    // Questions that Docker's clients, and ours, ask by POST, and what belongs to a terminal.
    !matches!(
        pieces[..],
        ["swarmd", "plan"]
            | ["containers", _, "wait" | "resize"]
            | ["exec", _, "resize"]
            | ["auth" | "session" | "grpc"]
    )
}

/// A change under way. It is written down when it is answered, or when its client leaves.
pub(crate) struct Record {
    audit: Audit,
    caller: Caller,
    node: Node,
    from: String,
    what: String,
    is_open: bool,
}

/// The node whose socket was called.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Node {
    /// None on a node outside any swarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<NodeId>,
    /// Its host name.
    pub(crate) name: String,
}

/// A line of the audit log; docs/operations.md names the fields.
#[derive(Serialize)]
struct Line<'a> {
    at: Time,
    by: By<'a>,
    node: &'a Node,
    from: &'a str,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a str>,
    outcome: Outcome<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

#[derive(Serialize)]
struct By<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
}

#[derive(Clone, Copy, Serialize)]
struct Outcome<'a> {
    /// None if there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl Record {
    /// Begins one for a request with this path, decoded and without a version.
    pub(crate) fn begin(
        audit: Audit,
        caller: Caller,
        node: Node,
        from: &str,
        request: &Request<Body>,
        path: &str,
    ) -> Self {
        let what = describe(request.method(), path, request.uri());
        Self { audit, caller, node, from: from.to_owned(), what, is_open: true }
    }

    /// The same, of which nothing is written unless it is ended: anybody could fill the file with what is refused.
    pub(crate) fn if_ended(mut self) -> Self {
        self.is_open = false;
        self
    }

    /// Writes it down with the answer, which is given back. `id` is the node's id now: it may have come with the change.
    pub(crate) async fn end(mut self, response: Response<Body>, id: Option<NodeId>) -> Response<Body> {
        self.node.id = self.node.id.or(id);
        let (response, error) = error_text(response).await;
        let outcome = Outcome { status: Some(response.status().as_u16()), error: error.as_deref() };
        self.log(outcome);
        self.is_open = false;
        if self.audit.is_on() {
            self.audit.write(&self.line(outcome, &self.caller.author().principal.id())).await;
        }
        response
    }

    fn log(&self, Outcome { status, error }: Outcome<'_>) {
        let Self { caller, what, .. } = self;
        let (object, revision) = (caller.object(), caller.revision());
        tracing::info!(by = %caller.author(), object, status, revision, error, "{what}");
    }

    fn line<'a>(&'a self, outcome: Outcome<'a>, id: &'a str) -> Line<'a> {
        let principal = &self.caller.author().principal;
        Line {
            at: Time(clock::now()),
            by: By { kind: principal.kind(), name: principal.name(), id },
            node: &self.node,
            from: &self.from,
            what: &self.what,
            object: self.caller.object(),
            outcome,
            revision: self.caller.revision(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.is_open {
            let outcome = Outcome { status: None, error: Some(LEFT) };
            self.log(outcome);
            self.audit.put(&self.line(outcome, &self.caller.author().principal.id()));
        }
    }
}

/// A call in a line: method, path, and the parameters that say something.
fn describe(method: &Method, path: &str, uri: &Uri) -> String {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).unwrap_or_default();
    let mut what = format!("{method} {path}");
    for (n, (name, value)) in pairs.iter().enumerate() {
        let value = if SHOWN.contains(&name.as_str()) { cut(value, VALUE_LEN_MAX) } else { "…".to_owned() };
        what += &format!("{}{name}={value}", if n == 0 { '?' } else { '&' });
        if what.len() > WHAT_LEN_MAX {
            break;
        }
    }
    cut(&what, WHAT_LEN_MAX)
}

/// The text on one line, with an end.
fn cut(text: &str, length_max: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut cut: String = plain.take(length_max).collect();
    if text.chars().nth(length_max).is_some() {
        cut.push('…');
    }
    cut
}

/// Reads the text of an answer that is an error. The answer is given back as it was.
async fn error_text(response: Response<Body>) -> (Response<Body>, Option<String>) {
    let is_short = response.body().size_hint().upper().is_some_and(|bytes| bytes <= ERROR_BYTES_MAX);
    if response.status().as_u16() < 400 || !is_short {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return (Response::from_parts(parts, Body::empty()), None);
    };
    let text = match serde_json::from_slice::<ErrorMessage>(&bytes) {
        Ok(error) => error.message,
        Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    let text = text.trim();
    let text = if parts.status == StatusCode::BAD_REQUEST { without_quotes(text) } else { text.into() };
    (Response::from_parts(parts, Body::from(bytes)), Some(cut(&text, ERROR_LEN_MAX)))
}

/// The text of an error about a request, without all that stands between its first and its last quote. An error quotes the
/// values that a client sent; a log must not have them, for one may be an environment variable.
fn without_quotes(text: &str) -> Cow<'_, str> {
    const QUOTES: [char; 3] = ['"', '\'', '`'];
    match (text.find(QUOTES), text.rfind(QUOTES)) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &text[..=first], &text[last..]).into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use swarm_model::{Author, Principal};

    use super::*;

    #[test]
    fn what_is_asked_by_post_is_no_change() {
        for (method, path, expected) in [
            (Method::GET, "/services", false),
            (Method::HEAD, "/_ping", false),
            (Method::POST, "/swarmd/plan", false),
            (Method::POST, "/containers/x/wait", false),
            (Method::POST, "/exec/x/resize", false),
            (Method::POST, "/auth", false),
            (Method::POST, "/swarmd/backup", true),
            (Method::POST, "/swarm/init", true),
            (Method::DELETE, "/services/x", true),
            (Method::POST, "/containers/create", true),
            (Method::POST, "/exec/x/start", true),
            (Method::PUT, "/containers/x/archive", true),
        ] {
            assert_eq!(is_change(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn of_parameters_only_those_are_shown_that_carry_no_secret() {
        let what = |uri: &str| describe(&Method::POST, "/services/web", &uri.parse().unwrap());
        assert_eq!(
            what("/v1.41/services/web?version=7&rollback=previous"),
            "POST /services/web?version=7&rollback=previous"
        );
        assert_eq!(what("/x?buildargs=s3cret&force=1"), "POST /services/web?buildargs=…&force=1");
        assert_eq!(what("/x?to=a%0ab"), "POST /services/web?to=a b");
        let long = what(&format!("/x?to={}&{}", "y".repeat(500), "z=1&".repeat(1000)));
        assert!(long.starts_with(&format!("POST /services/web?to={}…&z=…", "y".repeat(VALUE_LEN_MAX))), "{long}");
        assert!(long.chars().count() <= WHAT_LEN_MAX + 1, "{long}");
    }

    proptest! {
        #[test]
        fn any_query_becomes_a_line_with_an_end(query in "[ -~&&[^#]]{0,600}", path in "/.{0,600}") {
            if let Ok(uri) = format!("/x?{query}").parse::<Uri>() {
                let what = describe(&Method::POST, &path, &uri);
                prop_assert!(!what.chars().any(char::is_control) && what.chars().count() <= WHAT_LEN_MAX + 1);
            }
        }
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_is_written_down_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::open(Some(&path)).unwrap();
        let begin = || {
            let caller = Caller::new(Arc::new(Author::of(Principal::user(7, None))));
            let request = Request::post("/swarm/init").body(Body::empty()).unwrap();
            Record::begin(audit.clone(), caller, Node::default(), "socket", &request, "/swarm/init")
        };
        drop(begin().if_ended());
        audit.flush().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "strangers leave no line");
        drop(begin());
        audit.flush().await;
        let line: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            (&line["what"], &line["outcome"]),
            (&"POST /swarm/init".into(), &serde_json::json!({"error": LEFT}))
        );
        assert_eq!(line["by"], serde_json::json!({"kind": "user", "id": "7"}));
    }

    #[tokio::test]
    async fn the_text_of_an_error_is_read_and_left_where_it_was() {
        let answer =
            |status: u16, body: &str| Response::builder().status(status).body(Body::from(body.to_owned())).unwrap();
        for (status, body, expected) in [
            (200, "{\"ID\":1}", None),
            (404, "{\"message\":\"service x not found\"}\n", Some("service x not found")),
            (400, "not good\n", Some("not good")),
            (
                400,
                r#"{"message":"invalid value in Env: invalid type: string \"KEY=s3\"cret\", expected a sequence"}"#,
                Some(r#"invalid value in Env: invalid type: string "…", expected a sequence"#),
            ),
            (
                400,
                r#"{"message":"Env[0]: template \"KEY={{.x}}s3cret\": unknown field '.x'; the fields there are: ID"}"#,
                Some(r#"Env[0]: template "…'; the fields there are: ID"#),
            ),
            (409, r#"{"message":"secret 'x' is there"}"#, Some("secret 'x' is there")),
            (500, &"x".repeat(70 << 10), None),
        ] {
            let (response, error) = error_text(answer(status, body)).await;
            assert_eq!(error.as_deref(), expected, "{body}");
            assert_eq!(axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap(), body);
        }
        let (_, error) = error_text(answer(400, &"é".repeat(2000))).await;
        assert_eq!(error.unwrap().chars().count(), ERROR_LEN_MAX + 1);
    }
}
