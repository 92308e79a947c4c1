//! Questions of the leader. They are answered by the data plane of the node; each belongs to the session that it came in.

use std::collections::BTreeSet;

use swarm_dataplane::protocol::{Stats, ToData};
use swarm_model::{NodeId, ServiceId};
use swarm_wire::agent::{Answer, Question, REACH_NODES_MAX, ToManager, Traffic};

use super::{Output, Worker};

/// Questions that wait for the data plane at once. More people than that hardly ask.
const WAITING_MAX: usize = 64;

/// The questions that wait for the data plane.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// The numbers of the questions for counters, each with its service.
    traffic: Vec<(u64, ServiceId)>,
    /// Whether the data plane was asked for its counters and has not answered.
    is_asked: bool,
    /// The numbers of the questions about the data ports of other nodes.
    reach: BTreeSet<u64>,
}

impl Questions {
    /// The session is over: nobody waits for an answer.
    pub(super) fn session_over(&mut self) {
        self.traffic.clear();
        self.reach.clear();
    }
}

impl Worker {
    /// The leader asks.
    pub(super) fn asked(&mut self, number: u64, question: Question, out: &mut Vec<Output>) {
        if !self.data.is_up() {
            let is_needed = self.data.is_needed();
            let word = match question {
                // Without a data plane no connection ever came.
                Question::Traffic(_) if !is_needed => Answer::Traffic(Traffic::default()),
                Question::Traffic(_) | Question::Reach(_) => no_data_plane(),
            };
            return answer(number, word, out);
        }
        if self.questions.traffic.len() + self.questions.reach.len() >= WAITING_MAX {
            let reason = format!("{WAITING_MAX} questions wait there already; try again later");
            return answer(number, Answer::Unable(reason), out);
        }
        match question {
            Question::Traffic(service) => {
                self.questions.traffic.push((number, service));
                if !std::mem::replace(&mut self.questions.is_asked, true) {
                    out.push(Output::Data(ToData::Stats));
                }
            }
            Question::Reach(nodes) if nodes.len() > REACH_NODES_MAX => {
                let reason = format!("{} nodes are too many to probe, {REACH_NODES_MAX} are possible", nodes.len());
                answer(number, Answer::Unable(reason), out);
            }
            Question::Reach(nodes) => {
                self.questions.reach.insert(number);
                out.push(Output::Data(ToData::Probe { number, nodes }));
            }
        }
    }

    /// The data plane says which nodes do not answer.
    pub(super) fn probed(&mut self, number: u64, failed: Vec<(NodeId, String)>, out: &mut Vec<Output>) {
        if self.questions.reach.remove(&number) {
            answer(number, Answer::Unreached(failed), out);
        }
    }

    /// The data plane says its counters.
    pub(super) fn counted(&mut self, stats: &Stats, out: &mut Vec<Output>) {
        self.questions.is_asked = false;
        for (number, service) in std::mem::take(&mut self.questions.traffic) {
            let table = self.data.table();
            let is_of = |task| table.endpoint(task).is_some_and(|endpoint| endpoint.service == service);
            let traffic = Traffic {
                endpoints: stats.endpoints.iter().filter(|endpoint| is_of(endpoint.task)).copied().collect(),
                service: stats.services.iter().find(|stats| stats.service == service).copied(),
            };
            answer(number, Answer::Traffic(traffic), out);
        }
    }

    /// The connection to the data plane is lost, or new: an answer does not come any more.
    pub(super) fn data_answers_no_more(&mut self, out: &mut Vec<Output>) {
        self.questions.is_asked = false;
        let traffic = std::mem::take(&mut self.questions.traffic).into_iter().map(|(number, _)| number);
        for number in traffic.chain(std::mem::take(&mut self.questions.reach)) {
            answer(number, no_data_plane(), out);
        }
    }
}

fn answer(number: u64, answer: Answer, out: &mut Vec<Output>) {
    out.push(Output::Send(ToManager::Answer { number, answer }));
}

fn no_data_plane() -> Answer {
    Answer::Unable("swarmd there has no connection to its data plane".to_owned())
}
