//! What this crate asks of the machine it runs on: tasks, threads for work that blocks, the time.
//!
//! A simulated manager (feature `sim`) is answered otherwise: one thread, simulated time and disks, nothing that differs
//! from run to run.

use std::future::Future;

use swarm_model::Timestamp;
use tokio::task::{JoinError, JoinHandle};

#[cfg(feature = "sim")]
use crate::sim;

/// openraft's runtime.
#[cfg(not(feature = "sim"))]
pub(crate) type Runtime = openraft::impls::TokioRuntime;
#[cfg(feature = "sim")]
pub(crate) type Runtime = sim::Runtime;

/// Starts a task.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    #[cfg(feature = "sim")]
    if let Some(life) = sim::life() {
        return life.spawn(future);
    }
    tokio::spawn(future)
}

/// A task that is started elsewhere, by a set of tasks for instance, belongs to the manager that this is called by.
pub(crate) fn owned<F: Future>(future: F) -> impl Future<Output = F::Output> {
    #[cfg(feature = "sim")]
    let future = sim::owned(future);
    future
}

/// Does work that blocks on a thread for such work.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    #[cfg(feature = "sim")]
    if let Some(life) = sim::life() {
        // A snapshot that was written is lost in a crash until the simulated disk has it. One that it cannot write fails
        // at once, so that there is no error here.
        let (result, unsynced) = life.write(work);
        let _ = unsynced.sync().await;
        return Ok(result);
    }
    tokio::task::spawn_blocking(work).await
}

/// The time for the log.
pub(crate) fn now() -> Timestamp {
    #[cfg(feature = "sim")]
    if let Some(life) = sim::life() {
        return life.now();
    }
    swarm_wire::clock::steady()
}

/// The machine's clock, right or wrong.
pub(crate) fn clock() -> Timestamp {
    #[cfg(feature = "sim")]
    if let Some(life) = sim::life() {
        return life.now();
    }
    swarm_wire::clock::now()
}
