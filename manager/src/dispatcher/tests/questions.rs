//! Questions to nodes.

use swarm_model::ServiceId;
use swarm_wire::agent::{Answer, Question, Traffic};

use super::*;

fn question() -> Question {
    Question::Traffic(ServiceId(7))
}

impl Fixture {
    /// The agent of a node, which takes questions, in a session that is told everything.
    async fn answering(&self, node: NodeId) -> Agent {
        let ToManager::Hello(hello) = hello(node, None) else { panic!("it is a hello") };
        let (sender, receiver) = channel(self.open(node));
        let mut agent = Agent { sender, receiver };
        agent.say(ToManager::Hello(Box::new(Hello { takes_questions: true, ..*hello }))).await;
        assert!(matches!(agent.hear().await, ToAgent::Welcome(_)));
        assert!(matches!(agent.hear().await, ToAgent::Assignments(_)));
        agent
    }

    /// Asks a node.
    fn ask(&self, node: NodeId) -> tokio::task::JoinHandle<Result<Answer, String>> {
        let dispatcher = self.dispatcher.clone();
        tokio::spawn(async move { dispatcher.ask(node, question()).await })
    }
}

async fn number_asked(agent: &mut Agent) -> u64 {
    match agent.hear().await {
        ToAgent::Ask { number, question: asked } if asked == question() => number,
        other => panic!("not the question: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_only_from_the_node_that_was_asked() {
    let fixture = Fixture::new(World::new(2)).await;
    let (mut one, mut two) = (fixture.answering(N1).await, fixture.answering(N2).await);
    let asked = fixture.ask(N1);
    let number = number_asked(&mut one).await;
    let forged = Answer::Unable("forged".into());
    two.say(ToManager::Answer { number, answer: forged }).await;
    two.say(ToManager::Heartbeat).await;
    assert_eq!(two.hear().await, ToAgent::HeartbeatAck, "it was read");
    let answer = Answer::Traffic(Traffic::default());
    one.say(ToManager::Answer { number, answer: answer.clone() }).await;
    assert_eq!(asked.await.unwrap(), Ok(answer.clone()));
    // Nobody waits for it any more.
    one.say(ToManager::Answer { number, answer }).await;
    one.say(ToManager::Heartbeat).await;
    assert_eq!(one.hear().await, ToAgent::HeartbeatAck);
}

#[tokio::test(start_paused = true)]
async fn why_a_node_does_not_answer_is_said() {
    let fixture = Fixture::new(World::new(3)).await;
    let reason = async |asked: tokio::task::JoinHandle<Result<Answer, String>>| asked.await.unwrap().unwrap_err();
    assert!(reason(fixture.ask(N1)).await.contains("no session"));
    let (_older, _) = fixture.ready(N2).await;
    assert!(reason(fixture.ask(N2)).await.contains("older"));

    let mut agent = fixture.answering(N1).await;
    let asked = fixture.ask(N1);
    number_asked(&mut agent).await;
    let waited = reason(asked).await;
    assert!(waited.contains("within 5 s"), "{waited}");
    let asked = fixture.ask(N1);
    number_asked(&mut agent).await;
    drop(agent);
    assert!(reason(asked).await.contains("its session ended"));
}
