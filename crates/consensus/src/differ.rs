//! A manager that has another history than the leader stops: nobody can tell here which of the two is right.

use openraft::{BasicNode, async_runtime::watch::WatchReceiver, storage::Snapshot};
use tokio::time::timeout;

use crate::{
    Consensus, Member,
    history::{Past, Writer},
    line::Kind,
    message::{Answer, Request},
    rt,
    snapshot::Content,
    survey::ANSWER_MAX,
    types::{LeaderId, LogId, Vote},
};

/// The feature level from which on all managers know [`Request::ReadAt`].
pub(crate) const READ_AT_LEVEL: u16 = 2;

/// The text that a manager gives until it has composed the reason why it stopped.
const DIFFERS: &str = "this manager and the leader have different histories, and it stops";

impl Consensus {
    /// Whether this manager stopped because it has something else than the others, or is the second one with its state
    /// folder: a person has to choose, and to start it again changes nothing.
    pub fn differs(&self) -> bool {
        self.fault().differs()
    }

    /// Why what this manager says must not be counted on; none if all is well.
    pub fn problem(&self) -> Option<String> {
        self.fault().get().filter(|_| self.differs()).or_else(|| self.undecided_watch().borrow().clone())
    }

    /// What the leader has committed must be what is applied here. Nothing else is asked of a leader that was deposed:
    /// Raft refuses it.
    ///
    /// # Errors
    /// It is something else: this manager stops.
    pub(crate) fn check_leader(&self, request: &Request) -> Result<(), String> {
        let differs = match request.committed() {
            Some((vote, last, committed)) if self.counts(vote) => {
                self.hear(vote.leader_id, last.max(committed));
                committed.is_some_and(|committed| self.history().get().contradicts(committed))
            }
            _ => false,
        };
        self.stop_if(differs)
    }

    /// The same for a snapshot of the leader.
    ///
    /// # Errors
    /// It has other entries than this manager: that stops.
    pub(crate) fn check_snapshot(
        &self,
        vote: Vote,
        snapshot: &Snapshot<LeaderId, u64, BasicNode, Content>,
    ) -> Result<(), String> {
        let Some(last) = snapshot.meta.last_log_id.filter(|_| self.counts(vote)) else { return self.check_history() };
        self.hear(vote.leader_id, Some(last));
        let differs = self.history().get().contradicts_snapshot(last, &snapshot.snapshot.past);
        self.stop_if(differs)
    }

    /// What a read rests on must be what is applied here.
    ///
    /// # Errors
    /// It is something else: this manager stops.
    pub(crate) fn check_read(&self, index: u64, wrote: Writer) -> Result<(), String> {
        let differs = !self.history().get().may_be_of(index, wrote);
        self.stop_if(differs)
    }

    /// # Errors
    /// This manager has another history than the leader, and stops.
    pub(crate) fn check_history(&self) -> Result<(), String> {
        self.stop_if(false)
    }

    /// # Errors
    /// This manager has found out that it has another history, now or before.
    fn stop_if(&self, differs: bool) -> Result<(), String> {
        let news = {
            let mut applied = self.history().get();
            if !differs && !applied.differs() {
                return Ok(());
            }
            applied.set_differs()
        };
        if news {
            let consensus = self.clone();
            rt::spawn(async move { consensus.stop_differing().await });
        }
        Err(self.fault().get().unwrap_or_else(|| DIFFERS.to_owned()))
    }

    /// Asks the leader what it has, and stops with both histories in the reason.
    async fn stop_differing(&self) {
        let leader = self.history().get().heard();
        let asked = match leader {
            Some((id, addr)) => {
                let answer = self.network().line(Kind::Ask, id, &addr).send(Request::History, ANSWER_MAX);
                timeout(ANSWER_MAX, answer).await.ok().and_then(Result::ok)
            }
            None => None,
        };
        let theirs = match asked {
            Some(Answer::History { last: Some(last), leaders }) => {
                Some((Past { leaders: leaders.into_iter().map(LogId::from).collect(), sum: None }, LogId::from(last)))
            }
            _ => None,
        };
        let end = self.log_ends().1;
        let reason = self.history().get().explain(theirs.as_ref().map(|(past, last)| (past, *last)), None, end);
        self.stop_different(reason).await;
    }

    /// Stops because a majority of these has something else. Where that is because their log has other entries, it says
    /// so: that tells more than a digest.
    pub(crate) async fn stop_outvoted(&self, reason: String, members: &[Member]) {
        for member in members.iter().filter(|member| member.voter && member.raft_id != self.raft_id()) {
            let line = self.network().line(Kind::Ask, member.raft_id, &member.addr);
            let asked = timeout(ANSWER_MAX, line.send(Request::History, ANSWER_MAX)).await;
            let Ok(Ok(Answer::History { last: Some(last), leaders })) = asked else { continue };
            let past = Past { leaders: leaders.into_iter().map(LogId::from).collect(), sum: None };
            let last = LogId::from(last);
            if self.history().get().contradicts_snapshot(last, &past) {
                self.hear(last.leader_id, Some(last));
                self.history().get().set_differs();
                return self.stop_differing().await;
            }
        }
        self.stop_different(reason).await;
    }

    /// Takes no part any more, until a person has chosen: see [`Consensus::differs`].
    pub(crate) async fn stop_different(&self, reason: String) {
        self.fault().set_differs(reason);
        // It only fails when Raft has ended by itself.
        drop(self.raft().shutdown().await);
    }

    /// What this manager has applied.
    pub(crate) fn own_history(&self) -> Answer {
        let applied = self.history().get();
        let leaders = applied.leaders().into_iter().map(Into::into).collect();
        Answer::History { last: applied.last().map(Into::into), leaders }
    }

    /// Whether no later leader is known than the one with this vote.
    fn counts(&self, vote: Vote) -> bool {
        self.log_ends().0.is_none_or(|own| vote >= own)
    }

    fn hear(&self, leader: LeaderId, last: Option<LogId>) {
        let addr = || {
            let metrics = self.raft().metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.get_node(&leader.node_id).map_or_else(String::new, |node| node.addr.clone())
        };
        self.history().get().hear(leader, last, addr);
    }
}
