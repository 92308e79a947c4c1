//! Secrets in the sessions of agents.

use std::sync::Arc;

use swarm_core::Op;
use swarm_model::{
    DesiredState, NodeId, ObjectContent, ObjectId, ObjectKey, ObjectKind, SecretContent, TaskId, TaskState,
};
use swarm_wire::{
    agent::{AGENT_PROTOCOL_NEWEST, Held, Hello, Item, ItemChange, ItemKey, Resume, ToAgent, ToManager, digest},
    channel,
};

use super::{Agent, Fixture, N1, N2, hello, report_of};
use crate::testing::World;

/// A secret, a service that uses it, and a task of that on the first node.
fn with_secret() -> (World, TaskId, Resume) {
    let mut world = World::new(2);
    let content = SecretContent { data: b"s3cret".to_vec().into(), templating: None };
    let content = Arc::new(ObjectContent::Secret(content));
    let id = ObjectId(7);
    world.apply(Op::CreateObject { id, name: "key".into(), labels: Default::default(), content });
    let list = serde_json::json!([{"SecretID": id.to_string(), "SecretName": "key"}]);
    let service = world.service_with("web", |spec| {
        spec.task_template.container_spec.extra.insert("Secrets".into(), list);
    });
    let task = world.task(service, 1, N1);
    let version = world.state.task(task).unwrap().spec_version;
    let secret = Held::Object(ObjectKey { kind: ObjectKind::Secret, id });
    let tasks = [Held::Task(task, DesiredState::Running)];
    let all = digest(tasks.into_iter().chain([Held::Spec(service, version), secret]));
    let resume = Resume { revision: world.state.revision(), digest: digest(tasks), all: Some(all) };
    (world, task, resume)
}

fn puts_of_objects(message: &ToAgent) -> usize {
    let ToAgent::Changes(changes) = message else { return 0 };
    changes.changes.iter().filter(|change| matches!(change, ItemChange::Put(Item::Object(_)))).count()
}

async fn hello_of_now(fixture: &Fixture, node: NodeId, resume: Option<Resume>) -> Agent {
    let (sender, receiver) = channel(fixture.open(node));
    let mut agent = Agent { sender, receiver };
    let ToManager::Hello(hello) = hello(node, resume) else { panic!("it is a hello") };
    agent.say(ToManager::Hello(Box::new(Hello { newest: Some(AGENT_PROTOCOL_NEWEST), ..*hello }))).await;
    agent
}

#[tokio::test(start_paused = true)]
async fn a_node_is_told_no_secret_of_another_nodes_task_whatever_it_says() {
    let (world, task, resume) = with_secret();
    let fixture = Fixture::new(world).await;
    let mut owner = hello_of_now(&fixture, N1, None).await;
    assert!(matches!(owner.hear().await, ToAgent::Welcome(_)));
    assert_eq!(puts_of_objects(&owner.hear().await), 1);

    // The second node says that it has the items of the first node, or a part of them.
    for resume in [None, Some(resume), Some(Resume { all: None, ..resume }), Some(Resume { all: Some(0), ..resume })] {
        let mut other = hello_of_now(&fixture, N2, resume).await;
        assert!(matches!(other.hear().await, ToAgent::Welcome(_)));
        let ToAgent::Changes(changes) = other.hear().await else { panic!("changes follow the welcome") };
        assert_eq!((changes.changes.len(), changes.complete), (0, true));
        other.say(ToManager::Describe(report_of(N1).into())).await;
        other.say(ToManager::Heartbeat).await;
        assert_eq!(other.hear().await, ToAgent::HeartbeatAck);
        // The second node reports on a task of the first node.
        other.report(1, task, TaskState::Running).await;
        assert!(other.closed().await);
    }
    assert_eq!(fixture.state_of(task), TaskState::Assigned);
    let (sender, receiver) = channel(fixture.open(N2));
    let mut logs = Agent { sender, receiver };
    logs.say(ToManager::Logs { subscription: 1 }).await;
    assert!(logs.closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_secret_leaves_a_node_with_the_report_that_its_last_task_has_ended() {
    let (world, task, _) = with_secret();
    let fixture = Fixture::new(world).await;
    let mut agent = hello_of_now(&fixture, N1, None).await;
    assert!(matches!(agent.hear().await, ToAgent::Welcome(_)));
    assert_eq!(puts_of_objects(&agent.hear().await), 1);
    agent.report(1, task, TaskState::Failed).await;
    let mut removed = Vec::new();
    let mut acknowledged = false;
    while removed.is_empty() || !acknowledged {
        match agent.hear().await {
            ToAgent::StatusAck { batch: 1 } => acknowledged = true,
            ToAgent::Changes(changes) => removed.extend(changes.changes),
            other => panic!("neither of the two: {other:?}"),
        }
    }
    let key = ObjectKey { kind: ObjectKind::Secret, id: ObjectId(7) };
    assert_eq!(removed, [ItemChange::Remove(ItemKey::Object(key))]);
}
