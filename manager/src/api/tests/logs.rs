//! Logs.

use swarm_docker_api::logs::{FrameReader, LogLine, LogStream};

use super::*;
use crate::api::LogTarget;

/// A service with a task that has written two lines.
async fn with_logs() -> (TestPlane, ServiceId, TaskId) {
    let plane = cluster();
    let service = create(&plane, "web").await;
    let task = add_task(&plane, &service, 1, WORKER, TaskState::Running);
    let line = |stderr, at, data: &str| LogMessage::Line { task, node: WORKER, stderr, at, data: data.into() };
    plane.inner().logs = vec![
        line(false, Timestamp(1_700_000_000_500_000_000), "hello\n"),
        line(true, Timestamp(1_700_000_001_000_000_000), "oh no\n"),
    ];
    (plane, service.parse().expect("id"), task)
}

fn frames(answer: &Answer) -> Vec<(LogStream, Bytes)> {
    let mut reader = FrameReader::default();
    reader.push(&answer.body);
    let frames = std::iter::from_fn(|| reader.next_frame().expect("frames")).collect();
    assert!(!reader.is_cut());
    frames
}

#[tokio::test]
async fn lines_come_as_frames_with_what_was_asked_for() {
    let (plane, service, task) = with_logs().await;
    let path = "/services/web/logs?stdout=1&stderr=True&details=1&timestamps=1&tail=all&since=0";
    let answer = get(&plane, path).await.ok();
    assert_eq!(answer.content_type, "application/vnd.docker.multiplexed-stream");
    let lines = frames(&answer);
    assert_eq!(lines.iter().map(|(stream, _)| *stream).collect::<Vec<_>>(), [LogStream::Stdout, LogStream::Stderr]);
    let line = LogLine::parse(lines[0].1.clone(), true, true).expect("a line");
    assert_eq!(line.timestamp.as_deref(), Some("2023-11-14T22:13:20.500000000Z"));
    assert_eq!(line.task_id(), Some(task.to_string().as_str()));
    assert_eq!(line.service_id(), Some(service.to_string().as_str()));
    assert_eq!(line.node_id(), Some(WORKER.to_string().as_str()));
    assert_eq!(line.text, "hello\n");

    let answer = get(&plane, &format!("/tasks/{task}/logs?stderr=1&follow=1&tail=5&since=3.5")).await.ok();
    assert_eq!(frames(&answer)[1].1, "oh no\n");
    let all = LogSelector {
        target: LogTarget::Service(service),
        stdout: true,
        stderr: true,
        follow: false,
        since: Timestamp::ZERO,
        tail: None,
    };
    let one = LogSelector {
        target: LogTarget::Task(task),
        stdout: false,
        follow: true,
        since: Timestamp(3_500_000_000),
        tail: Some(5),
        ..all.clone()
    };
    assert_eq!(plane.inner().selectors, [all, one]);
}

#[tokio::test]
async fn what_is_missing_is_said_at_the_end() {
    let (plane, _, task) = with_logs().await;
    let gap = LogMessage::Incomplete { task, reason: "its node is down".into() };
    plane.inner().logs.insert(0, gap);
    let frames = frames(&get(&plane, "/services/web/logs?stdout=1").await.ok());
    assert_eq!(frames.len(), 3);
    let (stream, text) = &frames[2];
    assert_eq!(*stream, LogStream::Error);
    let text = String::from_utf8_lossy(text);
    assert!(text.starts_with("warning: incomplete log stream") && text.ends_with("its node is down"), "{text}");
}

#[tokio::test]
async fn old_clients_and_terminals_get_a_raw_stream() {
    let (plane, ..) = with_logs().await;
    let mut request = Request::get("/services/web/logs?stdout=1").body(Body::empty()).expect("a request");
    request.extensions_mut().insert(ApiVersion { major: 1, minor: 41 });
    let answer = send(&plane, request).await.ok();
    assert_eq!(answer.content_type, "application/vnd.docker.raw-stream");
    assert_eq!(frames(&answer).len(), 2, "frames they are all the same");

    let mut spec = plain("tty");
    spec["TaskTemplate"]["ContainerSpec"]["TTY"] = json!(true);
    post(&plane, "/services/create", &spec).await.ok();
    let answer = get(&plane, "/services/tty/logs?stdout=1&details=1").await.ok();
    assert_eq!(answer.content_type, "application/vnd.docker.raw-stream");
    assert_eq!(answer.body, "hello\noh no\n");
}

#[tokio::test]
async fn bad_questions_are_refused() {
    let (plane, ..) = with_logs().await;
    for (path, status, part) in [
        ("/services/web/logs", 500, "you must choose at least one stream"),
        ("/services/web/logs?stdout=0&stderr=no", 500, "you must choose at least one stream"),
        ("/services/web/logs?stdout=1&tail=-1", 500, "negative tail values not supported"),
        ("/services/web/logs?stdout=1&tail=x", 400, "invalid tail 'x'"),
        ("/services/web/logs?stdout=1&since=x", 400, "invalid since 'x'"),
        ("/services/nope/logs?stdout=1", 404, "service nope not found"),
        ("/tasks/nope/logs?stdout=1", 404, "task nope not found"),
    ] {
        let message = get(&plane, path).await.error(status);
        assert!(message.contains(part), "{message}");
    }
    assert!(plane.inner().selectors.is_empty());
}
