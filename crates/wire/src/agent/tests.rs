use swarm_model::{DesiredState, NodeWarning, PortProtocol, ServiceId, TaskState, WarnedPort, WarningCause};

use super::*;

/// The message of a later version, with one more field.
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
    Hello {
        protocol: AGENT_PROTOCOL,
        program: "swarmd 9".into(),
        node,
        resume: None,
        run: None,
        newest: None,
        table: None,
        takes_networks: false,
        takes_questions: false,
    }
}

fn welcome() -> Welcome {
    Welcome {
        heartbeat_period_ms: 2000,
        managers: vec!["10.0.0.1:2377".into()],
        role: None,
        authority: None,
        takes_attachments: false,
    }
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
        (LaterToManager::Hello(Box::new(later(hello()))), ToManager::Hello(hello().into())),
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
fn each_cause_of_a_warning_arrives() {
    let port = WarnedPort { protocol: PortProtocol::Udp, published: 53 };
    let causes = [
        WarningCause::PortTaken(port),
        WarningCause::PortRight(port),
        WarningCause::PortFailed(port),
        WarningCause::DataPort,
        WarningCause::Peer(NodeId(u128::MAX)),
    ];
    let warnings = causes.map(|cause| NodeWarning { cause, text: "x".into() });
    let description = NodeDescription { warnings: warnings.into(), ..NodeDescription::default() };
    let bytes = rmp_serde::to_vec_named(&description).unwrap();
    assert_eq!(rmp_serde::from_slice::<NodeDescription>(&bytes).unwrap(), description);
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
    struct EarlierHello {
        protocol: u16,
        program: String,
        node: NodeReport,
        resume: Option<EarlierResume>,
    }
    #[derive(Serialize)]
    struct EarlierResume {
        revision: u64,
        digest: u64,
    }
    let Hello { protocol, program, node, .. } = hello();
    let earlier = EarlierHello { protocol, program, node, resume: Some(EarlierResume { revision: 7, digest: 8 }) };
    let found: Hello = rmp_serde::from_slice(&rmp_serde::to_vec_named(&earlier).unwrap()).unwrap();
    assert_eq!(found, Hello { resume: Some(Resume { revision: 7, digest: 8, all: None }), ..hello() });
    assert!(!found.takes_changes());
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
    assert!(task.generic_resources.is_empty() && task.needs.is_empty() && task.spec_version == 3);
}
