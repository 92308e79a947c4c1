//! The leader loop: decides what to do about what changed, and proposes it.

mod step;

use std::{collections::BTreeSet, panic::resume_unwind, sync::Arc, time::Duration};

use swarm_core::{State, Tx, decide};
use swarm_model::{NodeId, Timestamp};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub use self::step::{BACKOFF_MAX, DEBOUNCE, Decide, Input, LISTEN_MAX, LeaderStep, Output};
use crate::{feed::Feed, raft::Raft};

/// Longest sleep until a deadline: a clock that was set is noticed after that.
pub const SLEEP_MAX: Duration = Duration::from_secs(10);

/// Runs the loop while this manager leads. The feed must have everything that earlier leaders committed. `unheard` says
/// which nodes this leader has not heard from, and of how many that are not down.
pub(crate) async fn run(
    raft: &dyn Raft,
    feed: &Feed,
    unheard: impl Fn() -> (BTreeSet<NodeId>, usize) + Sync,
    clock: fn() -> Timestamp,
    seed: u64,
    stop: &CancellationToken,
) {
    stop.run_until_cancelled(lead(raft, feed, &unheard, clock, seed)).await;
}

async fn lead(
    raft: &dyn Raft,
    feed: &Feed,
    unheard: &(impl Fn() -> (BTreeSet<NodeId>, usize) + Sync),
    clock: fn() -> Timestamp,
    seed: u64,
) {
    let mut step = LeaderStep::new(decide);
    let mut input = Input::Elected { seed };
    loop {
        let (nodes, expected) = unheard();
        step.hear(nodes, expected);
        let began = Instant::now();
        let output;
        (step, output) = aside(step, input, feed.state(), clock()).await;
        input = match output {
            Output::Wait { until } => {
                let now = clock().max(feed.state().time());
                let nap = until.map_or(Duration::MAX, |until| {
                    Duration::from_nanos(until.since_ns(now).try_into().unwrap_or(0)).min(SLEEP_MAX)
                });
                // Decisions that take long take no more than half of the time.
                let pause = step.pause().max(began.elapsed().min(BACKOFF_MAX));
                tokio::select! {
                    () = feed.dirtied() => sleep(pause).await,
                    () = sleep(nap) => {}
                }
                Input::Changed(feed.take_dirty())
            }
            Output::Propose(entries) => {
                let input = propose(raft, entries).await;
                if matches!(input, Input::Proposed { fallen: true, .. }) {
                    sleep(step.pause()).await;
                }
                if step.is_unfinished() {
                    // The rest of the plan comes behind what else is dirty.
                    step.mark(feed.take_dirty());
                }
                input
            }
        };
    }
}

/// One step, on a thread where it keeps nobody waiting: heartbeats, votes and writes go on while it decides.
async fn aside(mut step: LeaderStep, input: Input, state: Arc<State>, now: Timestamp) -> (LeaderStep, Output) {
    let work = move || {
        let output = step.step(input, &state, now);
        (step, output)
    };
    match spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime ends.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Proposes the entries of a plan in order: later ones rest on earlier ones.
async fn propose(raft: &dyn Raft, entries: Vec<Vec<Tx>>) -> Input {
    let (mut last, mut fallen) = (0, false);
    for txs in entries {
        match raft.propose(txs).await {
            Ok(committed) => {
                last = committed.index;
                for refusal in committed.outcomes.into_iter().filter_map(Result::err) {
                    // Not an error: what the plan rested on changed, and its key is looked at again.
                    tracing::debug!(index = last, %refusal, "a planned change fell");
                    fallen = true;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a plan was not committed");
                // Or not yet: a plan made beside it would begin as much again.
                raft.settled().await;
                return Input::Proposed { index: last, fallen: true };
            }
        }
    }
    Input::Proposed { index: last, fallen }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use swarm_consensus::ProposeError;
    use swarm_core::Op;
    use swarm_model::NodeId;

    use super::*;
    use crate::{
        feed::Topic,
        testing::{FakeRaft, World, service_spec},
    };

    fn clock() -> Timestamp {
        Timestamp(1)
    }

    /// A loop on consensus of one.
    fn start(world: World) -> (Arc<FakeRaft>, Arc<Feed>, CancellationToken, tokio::task::JoinHandle<()>) {
        let feed = Feed::new();
        let raft = FakeRaft::new(world.state, feed.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (raft, feed, stop) = (raft.clone(), feed.clone(), stop.clone());
            async move { run(&*raft, &feed, || (BTreeSet::new(), 3), clock, 1, &stop).await }
        });
        (raft, feed, stop, task)
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_at_once_and_a_settled_cluster_proposes_nothing() {
        let (raft, _, stop, task) = start(World::new(3));
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(raft.entries().len(), 0);
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_gets_its_tasks_once_it_is_certain_what_became_of_a_plan() {
        let (raft, feed, stop, task) = start(World::new(3));
        let watch = feed.watch(Topic::Service(swarm_model::ServiceId(9)));
        raft.fail_next(ProposeError::Unknown);
        raft.set_settled(false);
        let mut spec = service_spec("web");
        spec.mode = swarm_model::ServiceMode::Replicated { replicas: 5 };
        raft.commit(Op::CreateService {
            service: swarm_model::ServiceId(9),
            spec: Arc::new(spec),
            registry_auth: None,
        });
        let proposed = raft.entries().len();
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(raft.entries().len(), proposed, "a plan that may still be committed stands alone");
        raft.set_settled(true);
        while feed.state().tasks_of_service(swarm_model::ServiceId(9)).count() < 5 {
            watch.changed().await;
        }
        let on = |node: u128| feed.state().tasks_of_node(NodeId(node)).count();
        assert_eq!([on(1), on(2), on(3)].iter().sum::<usize>(), 5);
        // Its own change finds nothing more to do.
        let proposed = raft.entries().len();
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(raft.entries().len(), proposed);
        stop.cancel();
        task.await.unwrap();
    }
}
