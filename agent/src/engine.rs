//! Watches the container engine: whether it answers, what it is like, which containers change.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use swarm_model::NodeId;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::Event,
    executor::{ContainerEvent, Executor},
    worker::Input,
};

/// How often the engine is asked whether it is there. With the call's own deadline of 5 s this notices a hung engine
/// in 7 s at most; a dead one breaks the stream of events and is noticed at once.
const PING_PERIOD: Duration = Duration::from_secs(2);
/// How often it is asked what it is like (swarm-behaviour §7.1).
const DESCRIBE_PERIOD: Duration = Duration::from_secs(20);
/// Pause before an engine that did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Events from so long before a subscription are asked for again: seeing one twice is harmless.
const EVENTS_OVERLAP_NS: i64 = 1_000_000_000;

/// Runs until `stop` or the main loop ends. `check` asks for an early look.
pub(crate) async fn watch(
    executor: Arc<dyn Executor>,
    node: NodeId,
    check: Arc<Notify>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let mut was_up = false;
    let watch = async {
        loop {
            let since = swarm_wire::clock::now().plus_ns(-EVENTS_OVERLAP_NS);
            match executor.describe().await {
                Ok(report) => {
                    events.send(Event::Input(Input::EngineUp(report))).await?;
                    // What follows is seen by this stream, what was before by the listing.
                    let changes = executor.events(node, since);
                    if was_up {
                        events.send(Event::Input(Input::EventsLost)).await?;
                    }
                    was_up = true;
                    if let Err(reason) = follow(&*executor, changes, &check, &events).await? {
                        was_up = false;
                        events.send(Event::Input(Input::EngineDown(reason))).await?;
                    }
                }
                Err(error) => {
                    was_up = false;
                    events.send(Event::Input(Input::EngineDown(error.to_string()))).await?;
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    };
    tokio::select! {
        // An error means that the main loop is gone.
        result = watch => { let _: Result<(), mpsc::error::SendError<Event>> = result; }
        () = stop.cancelled() => {}
    }
}

/// Passes changes on until the stream of events ends (`Ok`) or the engine does not answer (`Err`).
async fn follow(
    executor: &dyn Executor,
    mut changes: futures_util::stream::BoxStream<'static, ContainerEvent>,
    check: &Notify,
    events: &mpsc::Sender<Event>,
) -> Result<Result<(), String>, mpsc::error::SendError<Event>> {
    let mut ping = interval(PING_PERIOD);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    let mut describe_at = Instant::now() + DESCRIBE_PERIOD;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(event) => { events.send(Event::Input(Input::Container(event))).await?; continue; }
                None => return Ok(Ok(())),
            },
            _ = ping.tick() => {}
            () = check.notified() => {}
        }
        let answer = if Instant::now() >= describe_at {
            describe_at = Instant::now() + DESCRIBE_PERIOD;
            match executor.describe().await {
                Ok(report) => {
                    events.send(Event::Input(Input::EngineUp(report))).await?;
                    Ok(())
                }
                Err(error) => Err(error),
            }
        } else {
            executor.ping().await
        };
        if let Err(error) = answer {
            return Ok(Err(error.to_string()));
        }
    }
}
