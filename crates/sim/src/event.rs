//! What can happen next.

use std::collections::VecDeque;

use swarm_agent::{Change, Input, Operation};
use swarm_core::Entry;
use swarm_model::{NodeId, TaskId};
use swarm_wire::agent::{ToAgent, ToManager};

use crate::data::DataEvent;

/// Number of a connection between an agent and a manager.
pub(crate) type ConnId = u64;

/// Something that is due at some time.
#[derive(Debug)]
pub(crate) enum Event {
    /// The oldest entry of the log is committed.
    Commit,
    /// A proposer stops waiting for this proposal.
    GiveUp(u64),
    /// An entry is sent to the log a second time.
    Again(Entry),
    /// A manager becomes the leader.
    Elect,
    /// The leader loop wakes up, unless something woke it before.
    Decide { term: u64, token: u64 },
    /// The leader loop goes on after the pause that follows a plan that fell.
    Resume { term: u64, index: u64 },
    /// Reports were gathered for long enough.
    Flush { term: u64 },
    /// The dispatcher looks for silent nodes.
    Tick { term: u64 },
    /// A node's report was not committed; it is tried again.
    Presence { term: u64, conn: ConnId },
    /// An agent is told of the endpoint table.
    Table { term: u64, conn: ConnId },
    /// Stops that wait are looked at again, of one session or of all.
    Stops { term: u64, conn: Option<ConnId> },
    /// Something happens between an agent and its data plane.
    Data(NodeId, Box<DataEvent>),
    /// A data plane breaks.
    BreakData,
    /// An agent's attempt to open a stream arrives.
    Reach { node: NodeId, boot: u64, stream: u64 },
    /// The stream is open.
    Opened { node: NodeId, conn: ConnId },
    /// A message to a manager arrives.
    Up { conn: ConnId, message: Box<ToManager> },
    /// A message to an agent arrives.
    Down { conn: ConnId, message: Box<ToAgent> },
    /// The manager learns that a stream ended.
    ManagerHears { conn: ConnId },
    /// The agent learns that a stream ended, or could not be opened.
    AgentHears { node: NodeId, boot: u64, stream: u64 },
    /// An agent's timer.
    Wake { node: NodeId, boot: u64, token: u64 },
    /// Something else that an agent hears of.
    Hear { node: NodeId, boot: u64, input: Box<Input> },
    /// The oldest unwritten changes of an agent are on its disk.
    Write { node: NodeId, boot: u64 },
    /// An engine carries out a call.
    Call { node: NodeId, boot: u64, task: TaskId, operation: Box<Operation> },
    /// An engine lists its containers.
    List { node: NodeId, boot: u64 },
    /// An engine removes a container that belongs to no task.
    RemoveStray { node: NodeId, boot: u64, container: String },
    /// A container ends by itself or changes its health.
    Container { node: NodeId, container: String, fate: Fate },
    /// An agent starts.
    Start { node: NodeId },
    /// An agent looks whether its engine answers; `anew` if the stream of events broke or the node changed.
    Look { node: NodeId, boot: u64, anew: bool },
    /// An engine answers again.
    EngineBack { node: NodeId },
    /// An operator does something.
    Operate,
    /// Something breaks.
    Break,
    /// Clocks are right again.
    ClockBack { manager: Option<usize>, node: Option<NodeId> },
}

/// What becomes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It ends with this code.
    Exit(i64),
    /// It ends because its work is done.
    Done,
    /// Its health check succeeds.
    Healthy,
    /// Its health check fails too often.
    Unhealthy,
    /// Somebody starts it by hand if it has ended; with true as the second half of a restart.
    StartByHand(bool),
}

/// Changes on their way to an agent's disk.
pub(crate) type Unwritten = VecDeque<Vec<Change>>;
