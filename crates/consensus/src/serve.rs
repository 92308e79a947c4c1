//! The answering end of `swarm-raft/1`.
//!
//! What Raft itself says is answered in the order in which it came, so that entries arrive in order; what followers
//! forward is answered as soon as it is done, many at once.

use std::{io, pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use swarm_core::Tx;
use swarm_model::mutant::mutant;
use swarm_wire::{BoxedStream, Receiver, Sender, channel};
use thiserror::Error;
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Consensus, Error, ProposeError, Role,
    message::{Answer, Appended, Blob, Hello, Mark, RAFT_PROTOCOL, Request, append_request, take_over_request},
    rt, transfer,
    twin::Run,
};

/// Time from the opening of a connection to its first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that one answer may take to be sent: the peer reads all the time, or is gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Forwarded requests of one connection that are being answered; more wait in its own buffers.
const ASKS_MAX: usize = 1024;
/// Requests with entries of one connection that are being taken, as many as the other end sends at once: each holds at
/// most a read of its log.
const TAKEN_MAX: usize = 8;
/// Answers that wait to be sent.
const ANSWERS_MAX: usize = 64;

/// Whether a peer may still take part: asked before each of its requests is answered, so that a manager that was
/// removed is locked out at once, also on a connection that stands.
pub type Admission = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Why a connection of another manager ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The stream.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// The peer was silent from the start.
    #[error("no first message within {} s", HELLO_TIMEOUT.as_secs())]
    Silent,
    /// The peer does not read its answers.
    #[error("the peer takes no answers")]
    Stuck,
    /// Two managers run with the state folder of the peer, and the swarm goes on with the other one.
    #[error("another machine runs with the same state folder, at {addr}")]
    Twin {
        /// `host:port` of the other one.
        addr: String,
    },
    /// The peer is told why, and the connection ends.
    #[error("refused: {0}")]
    Refused(String),
}

type Answers = mpsc::Sender<(u32, Answer)>;

impl Consensus {
    /// Serves one connection of another manager until it ends. Whose it is was checked before; `admission` is asked
    /// again for each request. `from` names the machine that it comes from, for people.
    ///
    /// # Errors
    /// [`ServeError`]: how it ended, unless the peer closed it.
    pub async fn serve(&self, stream: BoxedStream, from: &str, admission: Admission) -> Result<(), ServeError> {
        let (mut sender, mut receiver) = channel::<_, Answer, Request>(stream);
        let first = timeout(HELLO_TIMEOUT, receiver.recv()).await.map_err(|_| ServeError::Silent)??;
        let mut peer_addr = None;
        let greeted = match first {
            Some(Request::Hello(Hello { protocol, .. })) if protocol != RAFT_PROTOCOL => Err(format!(
                "this manager speaks version {RAFT_PROTOCOL} of the managers' protocol, the other one {protocol}"
            )),
            Some(Request::Hello(Hello { to, .. })) if to != self.raft_id() => {
                Err(format!("this is manager {}, not manager {to}", self.raft_id()))
            }
            Some(Request::Hello(Hello { by, from, .. })) => {
                peer_addr = from;
                admission().map(|()| by)
            }
            Some(_) => Err("the first message is no hello".into()),
            None => return Ok(()),
        };
        let served = match greeted {
            Ok(by) => {
                self.converse(&mut sender, receiver, by.map(|by| (by, from)), peer_addr.as_deref(), &admission).await
            }
            Err(reason) => Err(ServeError::Refused(reason)),
        };
        let last = match &served {
            Err(ServeError::Refused(reason)) => Some(Answer::Refused(reason.clone())),
            Err(ServeError::Twin { addr }) => Some(Answer::Twin { addr: addr.clone() }),
            _ => None,
        };
        if let Some(last) = last {
            // Whether it arrives does not matter: the connection ends either way.
            let _ = timeout(ANSWER_TIMEOUT, sender.send(&last)).await;
        }
        served
    }

    async fn converse(
        &self,
        sender: &mut Sender<WriteHalf<BoxedStream>, Answer>,
        mut receiver: Receiver<ReadHalf<BoxedStream>, Request>,
        by: Option<(Run, &str)>,
        peer_addr: Option<&str>,
        admission: &Admission,
    ) -> Result<(), ServeError> {
        let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
        // Who sends entries or heartbeats on this connection leads, or did.
        let mut leader = None;
        let write = async {
            while let Some((correlation, answer)) = answered.recv().await {
                let sent = timeout(ANSWER_TIMEOUT, sender.send_to(correlation, &answer)).await;
                sent.map_err(|_| ServeError::Stuck)??;
            }
            Ok(())
        };
        // Entries are taken in their order, but nobody waits for the disk before the next ones are taken: what comes
        // meanwhile shares an fsync.
        let (raft, mut said) = mpsc::channel::<(u32, Request)>(1);
        let take = async {
            let said = stream::poll_fn(|cx| said.poll_recv(cx));
            let taken = said.map(|(correlation, request)| async move {
                self.answer_raft(request, peer_addr).await.map(|answer| (correlation, answer))
            });
            let mut taken = pin!(taken.buffered(TAKEN_MAX));
            while let Some(answer) = taken.next().await {
                let _ = answers.send(answer?).await;
            }
            Ok(())
        };
        let read = async {
            // Dropped, and with them what they wait for, when the connection ends.
            let mut asks = JoinSet::new();
            let places = Arc::new(Semaphore::new(ASKS_MAX));
            while let Some((correlation, request)) = receiver.recv_from().await? {
                admission().map_err(ServeError::Refused)?;
                if request.takes_part()
                    && let Some((by, from)) = by
                {
                    self.admit_run(by, from).await.map_err(|addr| ServeError::Twin { addr })?;
                }
                while asks.try_join_next().is_some() {}
                match request {
                    Request::Write(_)
                    | Request::ReadIndex
                    | Request::ReadAt
                    | Request::Run
                    | Request::History
                    | Request::Digest { .. }
                    | Request::Status
                    | Request::HandOver { .. } => {
                        // The semaphore is never closed.
                        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
                        let (consensus, answers): (_, Answers) = (self.clone(), answers.clone());
                        asks.spawn(rt::owned(async move {
                            let answer = consensus.answer(request).await;
                            // Who no longer listens does not want to know.
                            let _ = answers.send((correlation, answer)).await;
                            drop(place);
                        }));
                    }
                    Request::Snapshot { vote, head } => {
                        let arrived = transfer::receive(vote, head, self.feature_level(), &mut receiver).await;
                        let arrived = arrived.map_err(ServeError::Refused)?;
                        self.check_snapshot(arrived.vote, &arrived.snapshot).map_err(ServeError::Refused)?;
                        let installed = self.raft().install_full_snapshot(arrived.vote, arrived.snapshot).await;
                        let answer = installed.map_or_else(
                            |fatal| Answer::Refused(self.reason(Some(fatal))),
                            |response| Answer::Installed { vote: response.vote.into() },
                        );
                        let _ = answers.send((arrived.correlation, answer)).await;
                    }
                    request => {
                        leader = request.leader().or(leader);
                        // Both ends are here: it is never closed.
                        let _ = raft.send((correlation, request)).await;
                    }
                }
            }
            Ok(())
        };
        let end = tokio::select! { biased; end = read => end, end = take => end, end = write => end };
        if let Some(leader) = leader {
            self.replace_lost(leader).await;
        }
        end
    }

    /// Answers a message of Raft. `peer_addr` is the address of the manager that sent it, if that manager said it.
    async fn answer_raft(&self, request: Request, peer_addr: Option<&str>) -> Result<Answer, ServeError> {
        let raft = self.raft();
        if let Err(reason) = self.check_leader(&request) {
            return Ok(Answer::Refused(reason));
        }
        let stopped = || {
            let reason = match &*self.role().borrow() {
                Role::Stopped { reason } => reason.clone(),
                Role::Leader { .. } | Role::Follower { .. } => self.reason(None),
            };
            Answer::Refused(format!("this manager stopped: {reason}"))
        };
        Ok(match request {
            Request::Append { vote, prev, commit, rows } => {
                let request = append_request(vote, prev, commit, rows).map_err(ServeError::Refused)?;
                let leader = request.vote.leader_id;
                let appended = raft.append_entries(request).await;
                let mut answer = appended.map_or_else(|_| stopped(), |response| Answer::Appended(response.into()));
                if matches!(answer, Answer::Appended(Appended::Conflict))
                    && !self.may_contradict(leader, peer_addr).await
                {
                    answer = Answer::Refused("this manager may have lost entries that it had acknowledged".into());
                }
                if !matches!(answer, Answer::Appended(Appended::HigherVote(_)) | Answer::Refused(_)) {
                    self.hear_leader();
                }
                answer
            }
            Request::Vote(_) | Request::PreVote(_) if self.log_ends().1.is_none() => {
                Answer::Refused("this manager has no log yet, and does not vote".into())
            }
            Request::Vote(candidacy) => raft.vote(candidacy.into()).await.map_or_else(|_| stopped(), Answer::from),
            Request::PreVote(candidacy) => {
                raft.pre_vote(candidacy.into()).await.map_or_else(|_| stopped(), Answer::from)
            }
            Request::TakeOver { leader, to, last } => raft
                .handle_transfer_leader(take_over_request(leader, to, last))
                .await
                .map_or_else(|_| stopped(), |response| Answer::TakenOver(response.into())),
            other => return Err(ServeError::Refused(format!("{other:?} does not belong here"))),
        })
    }

    /// What a follower forwards.
    async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Write(Blob(txs)) => match rmp_serde::from_slice::<Vec<Tx>>(&txs) {
                Ok(txs) => match self.propose(txs).await {
                    Ok(committed) => Answer::Written { index: committed.index, outcomes: committed.outcomes },
                    Err(error) => Answer::Failed(error),
                },
                Err(error) => Answer::Refused(format!("these are no transactions: {error}")),
            },
            Request::ReadIndex if mutant("stale-read-index") => {
                Answer::ReadIndex(self.status().applied_index.unwrap_or_default())
            }
            // The reason does not matter: it may pass, and the follower asks again, perhaps another manager.
            Request::ReadIndex => match self.own_read().await {
                Some(read) => Answer::ReadIndex(read.index),
                None => Answer::Failed(ProposeError::NotLeader { leader: None }),
            },
            Request::ReadAt if mutant("stale-read-index") => {
                let applied = self.history().get().last();
                applied.map_or(Answer::Failed(ProposeError::NotLeader { leader: None }), |at| Answer::ReadAt(at.into()))
            }
            Request::ReadAt => match self.own_read().await {
                Some(read) => Answer::ReadAt(read.into()),
                None => Answer::Failed(ProposeError::NotLeader { leader: None }),
            },
            Request::Run => Answer::Run(self.own_run()),
            Request::History => self.own_history(),
            Request::Digest { level, index } => {
                let found = self.history().digests().get().answer(level, index);
                Answer::Digest(found.map(|(index, digest)| Mark { index, digest: digest.into() }))
            }
            Request::Status => Answer::Status(Box::new(self.own_status().await)),
            Request::HandOver { to } => match self.hand_over_here(to).await {
                Ok(()) => Answer::HandedOver,
                Err(Error::HandOver(reason)) => Answer::Refused(reason),
                Err(error) => Answer::Refused(error.to_string()),
            },
            other => Answer::Refused(format!("{other:?} does not belong here")),
        }
    }
}
