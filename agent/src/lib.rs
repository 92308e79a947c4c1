//! The worker: session, task state machines, executor on the Docker Engine, logs.
//!
//! * [`step`] – one task: what to do next. Pure.
//! * [`Worker`] – all tasks of a node, assignments, the session with the managers. Pure.
//! * [`Agent`] – the shell around the worker: streams, engine calls, the store.
//! * [`Executor`] – what is asked of a container engine; [`DockerExecutor`] and [`SimulatedExecutor`] answer.
//!
//! Not here: how a manager is found and authenticated ([`Connector`], from the node), what is to run (the managers).

mod agent;
mod attacher;
mod connection;
mod data;
mod docker;
mod engine;
mod executor;
mod logs;
mod net;
mod network;
mod rng;
mod side;
mod simulated;
mod step;
mod store;
mod template;
#[cfg(test)]
mod testing;
mod worker;

pub use agent::{Agent, AgentError, AgentOptions};
pub use attacher::{Attached, Attacher};
pub use connection::{ByteStream, Connector, Purpose};
pub use data::DataPlane;
pub use docker::{BadEngineAddress, DockerExecutor};
pub use executor::{
    AttachedContainer, AttachedNetwork, ContainerEvent, ContainerRequest, EngineError, EnginePart, EngineReport,
    Executor, Exited, Health, Listed, LogLine, LogSelection, NodeIdentity, Observed, Running,
};
pub use side::Side;
pub use simulated::SimulatedExecutor;
pub use step::{Action, LocalTask, step};
pub use store::StoreError;
pub use worker::{
    AttachmentAsk, AttachmentError, AttachmentGrant, AttachmentInput, AttachmentOutput, Change, DataInput, Input,
    LIST_PERIOD_MS, NetInput, Now, Operation, Output, RETRY_MS, SessionState, Stored, Worker, WorkerOptions,
};
