//! What any manager can be asked for, wherever the leader is.

use std::time::Duration;

use openraft::{
    RaftMetrics, ReadPolicy,
    async_runtime::watch::WatchReceiver,
    errors::{LinearizableReadError, RaftError},
};
use swarm_core::{State, Tx};
use swarm_model::mutant::mutant;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    Committed, Consensus, Error, Member, PROPOSE_TIMEOUT, ProposeError, Role, SILENT_MS, Status,
    consensus::{Retry, WeakConsensus},
    differ::READ_AT_LEVEL,
    history::Writer,
    line::{Kind, LineError},
    majority::HandedOver,
    message::{Answer, Blob, Request},
    survey::ANSWER_MAX,
    types::{LogId, Types},
};

/// How long the leader may take to answer: its own deadline, and the way.
const ASK_LIMIT: Duration = Duration::from_secs(PROPOSE_TIMEOUT.as_secs() + 2);
/// How long a leader that lost its place may still take to say what became of a write.
const LAST_WORD: Duration = Duration::from_millis(500);
/// How long a new leader may take to be elected after the old one gave way: one round of votes, and the time that an
/// election takes should the first one fail.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// What a manager says of a leader that does not keep to the protocol.
const UNASKED: &str = "the leader answers with something that was not asked for: is it of another version?";

/// Who waits for a read barrier.
pub(crate) type Reader = oneshot::Sender<Result<(), ProposeError>>;

impl Consensus {
    /// As [`Consensus::propose`], by whichever manager leads. Returns when the write is also visible here.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`] when the leader was lost on the way; [`ProposeError::NoMajority`] soon when there is
    /// none, and [`ProposeError::CutOff`] when this manager alone does not reach the leader, with their word on whether the
    /// write may happen; every other error but `Stopped` means that nothing has happened.
    pub async fn write(&self, txs: Vec<Tx>) -> Result<Committed, ProposeError> {
        let handed_over = HandedOver::default();
        self.with_majority(&handed_over, self.write_anywhere(txs, &handed_over)).await
    }

    async fn write_anywhere(&self, txs: Vec<Tx>, handed_over: &HandedOver) -> Result<Committed, ProposeError> {
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        let mut retry = Retry::until(deadline);
        let mut encoded: Option<Vec<u8>> = None;
        loop {
            self.check_running()?;
            handed_over.take_back();
            let answer = match self.leader() {
                None => Answer::Failed(ProposeError::NotLeader { leader: None }),
                Some((id, _)) if id == self.raft_id() => {
                    match self.propose_noting(txs.clone(), None, handed_over).await {
                        Err(error @ ProposeError::NotLeader { .. }) => Answer::Failed(error),
                        other => return other,
                    }
                }
                Some((id, addr)) => {
                    let txs = match &encoded {
                        Some(txs) => txs.clone(),
                        None => {
                            let bytes = rmp_serde::to_vec_named(&txs);
                            let bytes = bytes.map_err(|error| ProposeError::Stopped(error.to_string()))?;
                            if bytes.len() > crate::ENTRY_BYTES_MAX {
                                let limit = crate::ENTRY_BYTES_MAX;
                                return Err(ProposeError::TooLarge { bytes: bytes.len(), limit });
                            }
                            encoded.insert(bytes).clone()
                        }
                    };
                    handed_over.hand_over();
                    match self.ask(id, &addr, Request::Write(Blob(txs))).await {
                        Ok(answer) => answer,
                        Err(LineError::Lost(_)) if !mutant("retry-lost-write") => return Err(ProposeError::Unknown),
                        Err(LineError::Lost(_)) => Answer::Failed(ProposeError::NotLeader { leader: None }),
                        Err(LineError::Unsent(_)) => Answer::Failed(ProposeError::NotLeader { leader: Some(addr) }),
                    }
                }
            };
            match answer {
                Answer::Written { index, outcomes } => {
                    self.applied(index, deadline).await?;
                    return Ok(Committed { index, outcomes });
                }
                Answer::Failed(ProposeError::NotLeader { .. }) => {
                    handed_over.take_back();
                    retry.pause().await?;
                }
                // The other manager stopped: what became of the write there is not known.
                Answer::Failed(ProposeError::Stopped(_)) => return Err(ProposeError::Unknown),
                Answer::Failed(error) => return Err(error),
                Answer::Refused(reason) => return Err(ProposeError::Stopped(reason)),
                _ => return Err(ProposeError::Stopped(UNASKED.to_owned())),
            }
        }
    }

    /// A linearizable read: the returned state has every write that was acknowledged, by any manager, before the call.
    /// Uses ReadIndex, never a clock; reads that wait share one round.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] when there is no leader that a majority of the managers hears;
    /// [`ProposeError::NoMajority`] soon when most managers do not answer, [`ProposeError::CutOff`] when this one alone does
    /// not reach the leader.
    pub async fn read_barrier(&self) -> Result<State, ProposeError> {
        let (reader, passed) = oneshot::channel();
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        let stopped = || self.stopped(None);
        self.readers().send(reader).map_err(|_| stopped())?;
        let passed = async { Ok(timeout_at(deadline, passed).await) };
        match self.with_majority(&HandedOver::default(), passed).await? {
            Ok(result) => result.map_err(|_| stopped())?.map(|()| self.state()),
            Err(_) => Err(ProposeError::NotLeader { leader: self.leader().map(|(_, addr)| addr) }),
        }
    }

    /// One round.
    async fn barrier(&self) -> Result<(), ProposeError> {
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        let mut retry = Retry::until(deadline);
        loop {
            self.check_running()?;
            match self.leader() {
                Some((id, addr)) if id != self.raft_id() => {
                    if let Some((index, wrote)) = self.ask_read(id, &addr).await {
                        if mutant("read-before-applied") {
                            return Ok(());
                        }
                        self.applied(index, deadline).await?;
                        // What is applied has to be what the leader has, not only as much.
                        return self.check_read(index, wrote).map_err(ProposeError::Stopped);
                    }
                }
                Some(_) if mutant("stale-read-of-leader") => return Ok(()),
                _ => match timeout_at(deadline, self.raft().ensure_linearizable(ReadPolicy::ReadIndex)).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(RaftError::Fatal(fatal))) => return Err(self.stopped(Some(fatal))),
                    Ok(Err(RaftError::APIError(
                        LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
                    ))) => {}
                    Err(_) => return Err(ProposeError::NotLeader { leader: None }),
                },
            }
            retry.pause().await?;
        }
    }

    /// How far others have to read, if this manager leads. Only once that is applied here: before, another leader may
    /// overwrite this one's first entry, and who found another one in its place would take that for another history.
    pub(crate) async fn own_read(&self) -> Option<LogId> {
        let (read, _) = self.raft().get_read_log_id(ReadPolicy::ReadIndex).await.ok()?;
        let read = *read.log_id();
        self.applied(read.index, Instant::now() + PROPOSE_TIMEOUT).await.ok()?;
        (!self.history().get().contradicts(read)).then_some(read)
    }

    /// How far to read, by the leader's word: up to an entry that it wrote itself. An earlier version does not say in
    /// which term.
    async fn ask_read(&self, id: u64, addr: &str) -> Option<(u64, Writer)> {
        let says_term = self.current_feature_level() >= READ_AT_LEVEL;
        let request = if says_term { Request::ReadAt } else { Request::ReadIndex };
        match self.ask(id, addr, request).await {
            Ok(Answer::ReadAt(read)) => {
                let LogId { leader_id, index } = read.into();
                Some((index, Writer::Leader(leader_id)))
            }
            Ok(Answer::ReadIndex(index)) => Some((index, Writer::Manager(id))),
            _ => None,
        }
    }

    /// The leader's view of the managers, or this manager's where there is no leader to ask.
    pub async fn cluster_status(&self) -> Status {
        if let Some((id, addr)) = self.leader().filter(|(id, _)| *id != self.raft_id())
            && let Ok(Ok(Answer::Status(status))) = timeout(ANSWER_MAX, self.ask(id, &addr, Request::Status)).await
        {
            return *status;
        }
        self.status()
    }

    /// Waits until all that is in this manager's log now is applied, or another manager leads: then it is certain what
    /// became of proposals whose outcome was [`ProposeError::Unknown`].
    pub async fn settled(&self) {
        let mut metrics = self.raft().metrics();
        let end = metrics.borrow_watched().last_log_index;
        let is_settled = |now: &RaftMetrics<Types>| {
            now.last_applied.map(|applied| applied.index) >= end
                || now.current_leader.is_some_and(|leader| leader != self.raft_id())
        };
        while !is_settled(&metrics.borrow_watched()) && metrics.changed().await.is_ok() {}
    }

    /// Makes another manager the leader: this one, or the one that has most of the log.
    ///
    /// # Errors
    /// [`Error::HandOver`]: why the leader stays.
    pub async fn hand_over(&self, to: Option<u64>) -> Result<(), Error> {
        match self.leader() {
            None => Err(Error::HandOver("there is no leader now; try again in a moment".into())),
            Some((id, _)) if id == self.raft_id() => self.hand_over_here(to).await,
            Some((id, addr)) => match self.ask_to_hand_over(id, &addr, to).await? {
                Ok(Answer::HandedOver) => Ok(()),
                Ok(Answer::Refused(reason)) => Err(Error::HandOver(reason)),
                Ok(_) => Err(Error::HandOver(UNASKED.to_owned())),
                Err(error) => Err(Error::HandOver(format!("the leader at {addr} does not answer ({error})"))),
            },
        }
    }

    async fn ask_to_hand_over(&self, id: u64, addr: &str, to: Option<u64>) -> Result<Result<Answer, LineError>, Error> {
        let asked = async { Ok(self.ask(id, addr, Request::HandOver { to }).await) };
        let answer = self.with_majority(&HandedOver::default(), asked).await;
        answer.map_err(|error| Error::HandOver(error.to_string()))
    }

    /// The same on the leader. Hands over to itself is done already.
    pub(crate) async fn hand_over_here(&self, to: Option<u64>) -> Result<(), Error> {
        let own = self.raft_id();
        if to == Some(own) {
            return Ok(());
        }
        let target = self.successor(to).await.map_err(Error::HandOver)?;
        tracing::info!(to = target.addr, "this manager hands the leadership over");
        let trigger = self.raft().trigger().transfer_leader(target.raft_id).await;
        trigger.map_err(|fatal| Error::Stopped(self.reason(Some(fatal))))?;
        let mut metrics = self.raft().metrics();
        let elected = async {
            loop {
                let leader = metrics.borrow_watched().current_leader;
                if leader.is_some_and(|leader| leader != own) || metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        let elected = timeout_at(Instant::now() + HAND_OVER_TIMEOUT, elected).await;
        elected.map_err(|_| Error::HandOver(format!("the manager at {} did not take over in time", target.addr)))
    }

    /// The voter that takes over. A manager that leads since a moment ago has heard of nobody yet: it waits a little for
    /// those who may answer.
    async fn successor(&self, to: Option<u64>) -> Result<Member, String> {
        let mut metrics = self.raft().metrics();
        let deadline = Instant::now() + Duration::from_millis(SILENT_MS);
        loop {
            let mut voters = self.status().members;
            voters.retain(|member| member.voter && member.raft_id != self.raft_id());
            voters.retain(|member| to.is_none_or(|to| member.raft_id == to));
            if let (Some(_), []) = (to, &*voters) {
                return Err("this node is no voting manager".into());
            }
            let answering = voters.iter().filter(|member| !member.is_silent());
            if let Some(target) = answering.max_by_key(|member| member.matched_index) {
                return Ok(target.clone());
            }
            let may_answer = voters.iter().any(|member| member.last_contact_ms.is_none());
            if !may_answer || !matches!(timeout_at(deadline, metrics.changed()).await, Ok(Ok(()))) {
                return Err(match to.and(voters.first()) {
                    Some(target) => format!("the manager at {} does not answer", target.addr),
                    None => "there is no other manager that votes and answers".into(),
                });
            }
        }
    }

    /// # Errors
    /// [`ProposeError::Stopped`]: what is asked of other managers would go on for a while without this.
    fn check_running(&self) -> Result<(), ProposeError> {
        self.check_history().map_err(ProposeError::Stopped)?;
        match &*self.role().borrow() {
            Role::Stopped { reason } => Err(ProposeError::Stopped(reason.clone())),
            Role::Leader { .. } | Role::Follower { .. } => Ok(()),
        }
    }

    /// Raft id and `host:port` of the leader, as far as this manager knows.
    pub(crate) fn leader(&self) -> Option<(u64, String)> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader?;
        metrics.membership_config.get_node(&id).map(|node| (id, node.addr.clone()))
    }

    /// Asks the leader. Does not wait long for one that lost its place.
    async fn ask(&self, id: u64, addr: &str, request: Request) -> Result<Answer, LineError> {
        let answer = self.network().line(Kind::Ask, id, addr).send(request, ASK_LIMIT);
        let mut metrics = self.raft().metrics();
        let deposed = async {
            while metrics.borrow_watched().current_leader == Some(id) {
                if metrics.changed().await.is_err() {
                    break;
                }
            }
            sleep(LAST_WORD).await;
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = deposed => Err(LineError::Lost("the leader lost its place".into())),
        }
    }

    /// Waits until this manager has applied an entry.
    async fn applied(&self, index: u64, deadline: Instant) -> Result<(), ProposeError> {
        let mut metrics = self.raft().metrics();
        let applied = async {
            loop {
                {
                    let metrics = metrics.borrow_watched();
                    if metrics.last_applied.is_some_and(|applied| applied.index >= index) {
                        return Ok(());
                    }
                }
                if metrics.changed().await.is_err() {
                    return Err(self.stopped(None));
                }
            }
        };
        // The write has happened; that it cannot be seen here yet is not known to whoever asked.
        timeout_at(deadline, applied).await.unwrap_or(Err(ProposeError::Unknown))
    }
}

/// Lets readers pass, all that wait with one round, until Raft ends.
pub(crate) async fn run_barriers(consensus: WeakConsensus, mut readers: mpsc::UnboundedReceiver<Reader>) {
    while let Some(first) = readers.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = readers.try_recv() {
            waiting.push(next);
        }
        let Some(consensus) = consensus.upgrade() else { return };
        let result = consensus.barrier().await;
        for reader in waiting {
            // Who gave up does not want to know.
            let _ = reader.send(result.clone());
        }
    }
}
