//! What the routes need of a manager.

use std::{collections::BTreeMap, future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use swarm_consensus::{Committed, Status, Survey};
use swarm_core::{State, Tx};
use swarm_docker_api::view::TlsInfo;
use swarm_model::{Node, NodeId, Redacted, RootCa, RootRotation, ServiceId, TaskId, Timestamp};
use swarm_wire::agent::{Answer, LogMessage, Question};
use thiserror::Error;

/// The bytes of a backup.
pub type SealedBackup = BoxStream<'static, io::Result<Bytes>>;

/// A manager, as its API sees it.
pub trait Plane: Clone + Send + Sync + 'static {
    /// Commits transactions in one entry. Says which one, and what became of each transaction, in their order, once they
    /// are applied.
    fn propose(&self, txs: Vec<Tx>) -> impl Future<Output = Result<Committed, PlaneError>> + Send;

    /// On a manager that leads, has applied all that was acknowledged before its term, and believes that it leads still:
    /// that term, and its state.
    fn leading(&self) -> Option<(u64, Arc<State>)>;

    /// As [`Plane::propose`], but only as the leader of this term; [`PlaneError::NotLeader`] when it leads no more.
    fn propose_in_term(&self, term: u64, txs: Vec<Tx>) -> impl Future<Output = Result<Committed, PlaneError>> + Send;

    /// The state with everything in it that was acknowledged before the call.
    fn read(&self) -> impl Future<Output = Result<State, PlaneError>> + Send;

    /// The newest state that this manager has applied, which may lag behind the others'.
    fn state(&self) -> State;

    /// The clock of this manager, for ids.
    fn now(&self) -> Timestamp;

    /// 128 random bits, for ids and names.
    fn random(&self) -> u128;

    /// A join token of the same cluster with a new secret.
    ///
    /// # Errors
    /// The system has no randomness.
    fn rotate_join_token(&self, token: &Redacted) -> Result<Redacted, PlaneError>;

    /// A new key for autolock.
    ///
    /// # Errors
    /// The system has no randomness.
    fn new_unlock_key(&self) -> Result<Redacted, PlaneError>;

    /// A change from this certificate authority to another one; to a new one if none is given.
    ///
    /// # Errors
    /// One of them cannot be used, or the system has no randomness.
    fn begin_root_rotation(&self, old: &RootCa, new: Option<&RootCa>) -> Result<RootRotation, PlaneError>;

    /// How the managers are, as the leader sees it.
    fn managers(&self) -> impl Future<Output = Status> + Send;

    /// How the managers are, each by its own word: slower when one is away.
    fn survey(&self) -> impl Future<Output = Survey> + Send;

    /// Why what this manager says must not be counted on, for people; none if all is well.
    fn problem(&self) -> Option<String>;

    /// How long ago this manager last knew of a leader; none if it never did.
    fn leader_contact(&self) -> Option<Duration>;

    /// Makes another manager the leader; none for the one that has most of the log.
    fn hand_over(&self, to: Option<u64>) -> impl Future<Output = Result<(), PlaneError>> + Send;

    /// A backup sealed with a passphrase, and the revision of the state in it. An error ends the stream.
    fn backup(&self, passphrase: Redacted) -> impl Future<Output = Result<(u64, SealedBackup), PlaneError>> + Send;

    /// The cluster's certificate authority, as clients see it.
    fn tls_info(&self) -> TlsInfo;

    /// The authority that a node's certificate comes from, and the one that it trusts, as clients compare them with the
    /// cluster's. Of what this cluster does not know nothing is said.
    fn node_tls_info(&self, node: &Node) -> TlsInfo;

    /// The logs of tasks. The stream ends when all have been sent, with `follow` never; dropping it ends the
    /// subscription.
    fn logs(
        &self,
        selector: LogSelector,
    ) -> impl Future<Output = Result<BoxStream<'static, LogMessage>, PlaneError>> + Send;

    /// Asks nodes, all at once, and waits some seconds for their answers. Of a node without one it says why, for people.
    fn ask(&self, questions: Vec<(NodeId, Question)>) -> impl Future<Output = Answers> + Send;
}

/// The answers of nodes, or why there is none.
pub type Answers = BTreeMap<NodeId, Result<Answer, String>>;

/// Logs that a user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSelector {
    /// Of what.
    pub target: LogTarget,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on when the end is reached; for a service, also with tasks that come later.
    pub follow: bool,
    /// Not older than this; zero for all.
    pub since: Timestamp,
    /// Only so many lines of each task from the end, counted over both streams.
    pub tail: Option<u64>,
}

/// Whose logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Those of all tasks of a service.
    Service(ServiceId),
    /// Those of one task.
    Task(TaskId),
}

/// Why a manager could not do something.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlaneError {
    /// Another manager leads, or none.
    #[error("this manager does not lead the swarm{}; try again in a moment", at(leader))]
    NotLeader {
        /// `host:port` of the leader, if there is one.
        leader: Option<String>,
    },
    /// Too many managers are silent: nothing can be changed, and nobody knows what is newest.
    #[error(
        "{}{} of the {voters} managers that vote do not answer: {}. Until most of them are back nothing can be changed; \
         containers run on. What this manager knows shows with --consistency stale. One that is locked waits for `swarm \
         unlock` there. Only if they are lost for good: \
         `swarm init --force-new-cluster` here, or `swarm restore` a backup",
        if *unknown { "it is not known whether the change was made: " } else { "" }, silent.len(), silent.join(", ")
    )]
    NoMajority {
        /// `host:port` of those that do not answer.
        silent: Vec<String>,
        /// How many vote.
        voters: usize,
        /// The change was on its way and may yet be made.
        unknown: bool,
    },
    /// This manager and the leader do not reach each other, while other managers hear it.
    #[error(
        "{}this manager and the leader at {leader} do not reach each other{}. Containers run on; what this manager knows \
         shows with --consistency stale",
        if *unknown { "it is not known whether the change was made: " } else { "" },
        if ask.is_empty() { String::new() } else { format!(", while the managers at {} hear it: use one of those", ask.join(", ")) }
    )]
    CutOff {
        /// `host:port` of the leader.
        leader: String,
        /// `host:port` of managers that hear it.
        ask: Vec<String>,
        /// The change was on its way and may yet be made.
        unknown: bool,
    },
    /// The change may have happened, or may happen yet, or not.
    #[error(
        "it is not known whether the change was made: no answer in time from most managers; look before you try again"
    )]
    Unknown,
    /// More than one entry of the log can hold.
    #[error("the change is too large for the log: {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What is possible.
        limit: usize,
    },
    /// What was asked for is not possible now; why.
    #[error("{0}")]
    NotNow(String),
    /// This manager is stopping, or cannot go on; why.
    #[error("this manager cannot answer: {0}")]
    Stopped(String),
}

fn at(leader: &Option<String>) -> String {
    leader.as_ref().map(|addr| format!(", the manager at {addr} does")).unwrap_or_default()
}
