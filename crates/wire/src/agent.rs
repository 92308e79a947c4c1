//! The messages between an agent and the leader's dispatcher, over one framed mTLS stream (ALPN `swarm-agent/1`).
//!
//! The agent opens the stream and says [`ToManager::Hello`]; the dispatcher answers [`ToAgent::Welcome`], or
//! [`ToAgent::Refused`] and closes. From then on assignments come down and statuses go up until either side closes.
//! Whose stream it is follows from the peer's certificate, never from a message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{
    DesiredState, GenericResource, Labels, NodeDescription, NodeId, NodeRole, PortConfig, Redacted, ServiceId, TaskId,
    TaskSpec, TaskStatus, Timestamp,
};

/// Version of these messages, said in [`Hello`]. Fields may be added without a new one.
pub const AGENT_PROTOCOL: u16 = 1;

/// Task reports in one message; more go into the next one.
pub const STATUS_BATCH_MAX: usize = 1024;

/// Tasks in one assignment message; more follow in further messages.
pub const ASSIGNMENT_BATCH_MAX: usize = 1024;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToManager {
    /// The first message of a session.
    Hello(Hello),
    /// "I am alive"; sent every `heartbeat_period_ms`, answered by [`ToAgent::HeartbeatAck`].
    Heartbeat,
    /// The node changed (resources, labels, engine).
    Describe(NodeReport),
    /// How tasks are. Answered by [`ToAgent::StatusAck`] once it is committed; until then the agent keeps it.
    Status {
        /// Number of this batch within the session.
        batch: u64,
        /// Newest status of each task; at most [`STATUS_BATCH_MAX`].
        reports: Vec<TaskReport>,
    },
    /// The node leaves the cluster: it is down from now on.
    Leaving,
    /// First and only message of a stream opened for logs; [`LogMessage`]s follow.
    Logs {
        /// The subscription, from [`ToAgent::StartLogs`].
        subscription: u64,
    },
}

/// First message of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`AGENT_PROTOCOL`].
    pub protocol: u16,
    /// Version of the program, for people.
    pub program: String,
    /// The node.
    pub node: NodeReport,
    /// What the agent already has; none asks for everything.
    pub resume: Option<Resume>,
    /// A random number of the agent's run, which tells it from those of other machines with its node's id. An agent of
    /// version 0.1.0 says none.
    #[serde(default)]
    pub run: Option<u64>,
}

/// What a node is like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Host, resources, engine.
    pub description: NodeDescription,
    /// Whether the container engine answers.
    pub engine_reachable: bool,
}

/// The assignments that an agent holds from an earlier session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Revision of the last complete assignment message.
    pub revision: u64,
    /// [`digest`] of what it holds.
    pub digest: u64,
}

/// Status of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub task: TaskId,
    /// Its status.
    pub status: TaskStatus,
}

/// What a dispatcher says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// The session is open; and again when what it says has changed.
    Welcome(Welcome),
    /// The session is not: why, and whether trying again makes sense.
    Refused {
        /// For the agent's log.
        reason: String,
        /// Where the leader is, if this manager is not it and knows.
        leader: Option<String>,
        /// Whether the node was removed from the cluster, for good.
        removed: bool,
    },
    /// Answer to a heartbeat.
    HeartbeatAck,
    /// What the node is to run.
    Assignments(Assignments),
    /// A batch of statuses is committed.
    StatusAck {
        /// The number that the batch came with.
        batch: u64,
    },
    /// Open a stream for logs ([`ToManager::Logs`]) and send these.
    StartLogs(LogRequest),
}

/// Opens a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Milliseconds between two heartbeats.
    pub heartbeat_period_ms: u64,
    /// `host:port` of all managers, for when this one is gone.
    pub managers: Vec<String>,
    /// The role that the node is to have: with another one than its certificate has, it asks for a new certificate.
    #[serde(default)]
    pub role: Option<NodeRole>,
    /// Whose certificates count.
    #[serde(default)]
    pub authority: Option<Authority>,
}

/// Whose certificates count in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Key identifier of the root CA that the node's certificate is to come from: with one of another it asks for a new
    /// one.
    pub issuer: String,
    /// The root certificates to trust, PEM.
    pub trusted: String,
}

/// A change of what a node is to run. Messages of one session are applied in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assignments {
    /// Whether this starts a full set: what no message up to the next `complete` names is to be removed.
    pub full: bool,
    /// Whether the set or difference ends here; only then does `revision` hold.
    pub complete: bool,
    /// Log index of the state that this comes from.
    pub revision: u64,
    /// Specs that the tasks below are the first to need.
    pub specs: Vec<AssignedSpec>,
    /// Tasks that are new or changed.
    pub tasks: Vec<AssignedTask>,
    /// Tasks that no longer exist.
    pub removed: Vec<TaskId>,
}

/// One version of a service's spec, as agents need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssignedSpec {
    /// The service.
    pub service: ServiceId,
    /// The version.
    pub version: u64,
    /// Name of the service.
    pub service_name: String,
    /// Labels of the service, for templates.
    pub service_labels: Labels,
    /// What to run.
    pub task: TaskSpec,
    /// Published ports; the agent opens those in host mode.
    pub ports: Vec<PortConfig>,
    /// Registry credentials; never written to disk by the agent.
    pub registry_auth: Option<Redacted>,
}

/// One task, as its agent needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTask {
    /// Id.
    pub id: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// Version of the service's spec.
    pub spec_version: u64,
    /// The number of its slot as people see it; none for a task of a global service.
    pub slot: Option<u32>,
    /// What is wanted.
    pub desired: DesiredState,
    /// What it got of the node's generic resources.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub generic_resources: Arc<[GenericResource]>,
}

/// A number that two equal sets of (task, desired state) share, in whatever order they come.
pub fn digest(tasks: impl IntoIterator<Item = (TaskId, DesiredState)>) -> u64 {
    tasks.into_iter().fold(0, |sum: u64, (task, desired)| {
        // FNV-1a over the id and the state; addition makes the order irrelevant.
        let hash = task
            .0
            .to_be_bytes()
            .iter()
            .chain([desired as u8].iter())
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        // The last byte moves only a few bits of FNV: without a mix, changes of two tasks could cancel each other.
        let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        sum.wrapping_add(mixed ^ (mixed >> 31))
    })
}

/// Logs that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Number of the subscription, unique on its manager.
    pub subscription: u64,
    /// Tasks of this node.
    pub tasks: Vec<TaskId>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on when the end is reached.
    pub follow: bool,
    /// Not older than this; zero for all.
    pub since: Timestamp,
    /// Only so many lines of each task from the end.
    pub tail: Option<u64>,
}

/// What an agent sends on a stream opened for logs. When it has nothing more to send it closes the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogMessage {
    /// A line, with its line end if it had one.
    Line {
        /// Whose.
        task: TaskId,
        /// On which node.
        node: NodeId,
        /// Whether it comes from standard error.
        stderr: bool,
        /// When it was written.
        at: Timestamp,
        /// The bytes.
        data: Vec<u8>,
    },
    /// The logs of a task cannot be read, or only in part.
    Incomplete {
        /// Whose.
        task: TaskId,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use swarm_model::TaskState;

    use super::*;

    /// What a later version says: the same, and a field more.
    #[derive(Serialize)]
    struct Later<T> {
        #[serde(flatten)]
        now: T,
        a_field_of_later: Vec<u8>,
    }

    fn later<T>(now: T) -> Later<T> {
        Later { now, a_field_of_later: vec![1, 2, 3] }
    }

    fn hello() -> Hello {
        let node = NodeReport { description: NodeDescription::default(), engine_reachable: true };
        Hello { protocol: AGENT_PROTOCOL, program: "swarmd 9".into(), node, resume: None, run: None }
    }

    fn welcome() -> Welcome {
        Welcome { heartbeat_period_ms: 2000, managers: vec!["10.0.0.1:2377".into()], role: None, authority: None }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        #[derive(Serialize)]
        enum LaterToManager {
            Hello(Box<Later<Hello>>),
            Status { batch: u64, reports: Vec<Later<TaskReport>>, urgency: u8 },
        }
        #[derive(Serialize)]
        enum LaterToAgent {
            Welcome(Later<Welcome>),
            Assignments(Later<Assignments>),
            Refused { reason: String, leader: Option<String>, removed: bool, retry_ms: u64 },
        }
        let report = TaskReport { task: TaskId(1), status: TaskStatus::new(TaskState::Running, Timestamp(5)) };
        let says = [
            (LaterToManager::Hello(Box::new(later(hello()))), ToManager::Hello(hello())),
            (
                LaterToManager::Status { batch: 7, reports: vec![later(report.clone())], urgency: 1 },
                ToManager::Status { batch: 7, reports: vec![report] },
            ),
        ];
        for (later, now) in says {
            assert_eq!(rmp_serde::from_slice::<ToManager>(&rmp_serde::to_vec_named(&later).unwrap()).unwrap(), now);
        }
        let refused = |reason: &str| (reason.to_owned(), None::<String>);
        let (reason, leader) = refused("no");
        let says = [
            (LaterToAgent::Welcome(later(welcome())), ToAgent::Welcome(welcome())),
            (LaterToAgent::Assignments(later(Assignments::default())), ToAgent::Assignments(Assignments::default())),
            (
                LaterToAgent::Refused { reason: reason.clone(), leader: leader.clone(), removed: true, retry_ms: 5 },
                ToAgent::Refused { reason, leader, removed: true },
            ),
        ];
        for (later, now) in says {
            assert_eq!(rmp_serde::from_slice::<ToAgent>(&rmp_serde::to_vec_named(&later).unwrap()).unwrap(), now);
        }
    }

    #[test]
    fn what_an_earlier_version_does_not_say_has_a_default() {
        #[derive(Serialize)]
        struct EarlierWelcome {
            heartbeat_period_ms: u64,
            managers: Vec<String>,
        }
        let earlier = EarlierWelcome { heartbeat_period_ms: 2000, managers: vec!["10.0.0.1:2377".into()] };
        let bytes = rmp_serde::to_vec_named(&earlier).unwrap();
        assert_eq!(rmp_serde::from_slice::<Welcome>(&bytes).unwrap(), welcome());
        #[derive(Serialize)]
        struct EarlierTask {
            id: TaskId,
            service: ServiceId,
            spec_version: u64,
            slot: Option<u32>,
            desired: DesiredState,
        }
        let earlier = EarlierTask {
            id: TaskId(1),
            service: ServiceId(2),
            spec_version: 3,
            slot: None,
            desired: DesiredState::Running,
        };
        let task: AssignedTask = rmp_serde::from_slice(&rmp_serde::to_vec_named(&earlier).unwrap()).unwrap();
        assert!(task.generic_resources.is_empty() && task.spec_version == 3);
    }
}
