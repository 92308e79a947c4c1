//! Questions to nodes, over the sessions of their agents. The asker waits for the answer; nothing is kept.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use swarm_model::NodeId;
use swarm_wire::agent::{Answer, Question, ToAgent};
use tokio::{sync::oneshot, time::timeout};

use super::{Dispatcher, Term};
use crate::feed::lock;

/// Longest wait for an answer: a person waits for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions that wait for an answer at once, over all nodes: some askers of a large cluster.
const WAITING_MAX: usize = 16_384;

/// The questions that wait for an answer, by number.
#[derive(Default)]
pub(super) struct Questions {
    asked: u64,
    waiting: BTreeMap<u64, (NodeId, oneshot::Sender<Answer>)>,
}

impl Questions {
    /// The session of a node ended: it answers no more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.waiting.retain(|_, (asked, _)| *asked != node);
    }
}

/// A question that somebody waits for.
struct Asked {
    term: Arc<Term>,
    number: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        lock(&self.term.questions).waiting.remove(&self.number);
    }
}

impl Dispatcher {
    /// Asks a node, and waits for its answer.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(crate) async fn ask(&self, node: NodeId, question: Question) -> Result<Answer, String> {
        let term = self.current().ok_or("this manager does not lead the swarm, and only the leader can ask nodes")?;
        let (asked, answer) = {
            let table = lock(&term.table);
            let session = table.sessions.get(&node).ok_or("it has no session with the leader")?;
            if !session.takes_questions {
                return Err("swarmd there is older than this question".to_owned());
            }
            let (number, answer) = term.expect_answer(node)?;
            let asked = Asked { term: term.clone(), number };
            let order = ToAgent::Ask { number, question };
            session.orders.try_send(order).map_err(|_| "it does not take what it is sent")?;
            (asked, answer)
        };
        let answered = timeout(ANSWER_TIMEOUT, answer).await;
        drop(asked);
        let late = || format!("it did not answer within {} s", ANSWER_TIMEOUT.as_secs());
        answered.map_err(|_| late())?.map_err(|_| "its session ended".to_owned())
    }
}

impl Term {
    fn expect_answer(&self, node: NodeId) -> Result<(u64, oneshot::Receiver<Answer>), String> {
        let mut questions = lock(&self.questions);
        if questions.waiting.len() >= WAITING_MAX {
            return Err(format!("{WAITING_MAX} questions wait for an answer already; try again later"));
        }
        questions.asked += 1;
        let number = questions.asked;
        let (hand, answer) = oneshot::channel();
        questions.waiting.insert(number, (node, hand));
        Ok((number, answer))
    }

    /// A node answered. An answer that nobody waits for, or to a question of another node, counts for nothing.
    pub(super) fn answered(&self, node: NodeId, number: u64, answer: Answer) {
        let mut questions = lock(&self.questions);
        match questions.waiting.remove(&number) {
            // The asker may have given up.
            Some((asked, hand)) if asked == node => drop(hand.send(answer)),
            Some(other) => {
                tracing::warn!(%node, number, "a node answered a question that another one was asked");
                questions.waiting.insert(number, other);
            }
            None => tracing::debug!(%node, number, "an answer came too late"),
        }
    }
}
