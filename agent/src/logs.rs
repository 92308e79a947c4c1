//! Logs that somebody wants: a stream of its own to the manager that asked.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde::{Serialize, de::IgnoredAny};
use swarm_model::{NodeId, TaskId};
use swarm_wire::{
    agent::{LogMessage, LogRequest, ToManager},
    channel,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Connector, Purpose},
    executor::{Executor, LogSelection},
};

/// Log streams at the same time: each holds a connection to the manager and one to the engine for each task.
pub(crate) const STREAMS_MAX: usize = 64;
/// Bytes of a line in one message; what is longer comes in pieces, far below the limit of a frame.
const LINE_BYTES_MAX: usize = 1 << 20;

#[derive(Serialize)]
#[serde(untagged)]
enum Frame {
    Open(Box<ToManager>),
    Log(LogMessage),
}

/// Serves a request until its logs end, the manager closes the stream or the agent stops.
/// `containers` are the tasks' containers, as far as there are any.
pub(crate) async fn serve(
    node: NodeId,
    request: LogRequest,
    containers: Vec<(TaskId, Option<String>)>,
    executor: Arc<dyn Executor>,
    connector: Arc<dyn Connector>,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let permit = permits.try_acquire();
    let lines: BoxStream<'_, LogMessage> = match &permit {
        Ok(_) => {
            stream::select_all(containers.into_iter().map(|(task, c)| messages(node, task, c, &request, &*executor)))
                .boxed()
        }
        Err(_) => stream::iter(containers)
            .map(|(task, _)| incomplete(task, format!("the node serves {STREAMS_MAX} log streams already")))
            .boxed(),
    };
    tokio::select! {
        result = send(&*connector, request.subscription, lines) => {
            if let Err(error) = result {
                tracing::debug!(%error, "a stream of logs broke");
            }
        }
        () = stop.cancelled() => {}
    }
}

async fn send(
    connector: &dyn Connector,
    subscription: u64,
    mut lines: BoxStream<'_, LogMessage>,
) -> std::io::Result<()> {
    let (mut sender, mut receiver) = channel::<_, Frame, IgnoredAny>(connector.connect(Purpose::Logs).await?);
    let write = async {
        sender.send(&Frame::Open(Box::new(ToManager::Logs { subscription }))).await?;
        while let Some(line) = lines.next().await {
            sender.send(&Frame::Log(line)).await?;
        }
        sender.close().await
    };
    // The manager says nothing on this stream; that it closes it means that nobody listens any more.
    let closed = async { while let Ok(Some(_)) = receiver.recv().await {} };
    tokio::select! { result = write => result, () = closed => Ok(()) }
}

fn incomplete(task: TaskId, reason: String) -> LogMessage {
    LogMessage::Incomplete { task, reason }
}

fn messages(
    node: NodeId,
    task: TaskId,
    container: Option<String>,
    request: &LogRequest,
    executor: &dyn Executor,
) -> BoxStream<'static, LogMessage> {
    let Some(container) = container else {
        let reason = format!("task {task} has no container on this node");
        return stream::iter([incomplete(task, reason)]).boxed();
    };
    let selection = LogSelection {
        stdout: request.stdout,
        stderr: request.stderr,
        follow: request.follow,
        since: request.since,
        tail: request.tail,
    };
    executor
        .logs(container, selection)
        .flat_map(move |line| {
            stream::iter(match line {
                Ok(line) => line
                    .data
                    .chunks(LINE_BYTES_MAX)
                    .map(|data| LogMessage::Line { task, node, stderr: line.stderr, at: line.at, data: data.to_vec() })
                    .collect::<Vec<_>>(),
                Err(error) => vec![incomplete(task, error.to_string())],
            })
        })
        .boxed()
}
