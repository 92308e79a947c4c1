//! Who waits for the managers' word is told soon when most of them cannot be reached, or when this one alone does not reach
//! the leader.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Consensus, ProposeError, Status,
    line::Kind,
    message::{Answer, Request},
    survey::ANSWER_MAX,
};

/// How long somebody waits before it is looked for a majority: longer than an election after the leader was lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// A leader that another manager has heard of so lately is alive: several heartbeats, and less than [`PATIENCE`].
const ALIVE_MS: u64 = 500;

/// What was found when last somebody looked; many that wait look once.
pub(crate) type LastLook = tokio::sync::Mutex<Option<(Instant, Look)>>;

/// How the managers that vote are, as this one sees them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// How many vote.
    voters: usize,
    /// `host:port` of those that do not answer.
    silent: Vec<String>,
    cut_off: Option<CutOff>,
}

/// A leader that others hear and this manager does not reach, or is not reached by.
#[derive(Clone, Debug)]
struct CutOff {
    /// Its `host:port`.
    leader: String,
    /// `host:port` of managers that hear it.
    ask: Vec<String>,
}

impl Look {
    /// Why nothing can come of waiting, if that is so.
    fn failure(self, unknown: bool) -> Option<ProposeError> {
        let Self { voters, silent, cut_off } = self;
        if voters > 0 && voters - silent.len().min(voters) <= voters / 2 {
            return Some(ProposeError::NoMajority { silent, voters, unknown });
        }
        cut_off.map(|CutOff { leader, ask }| ProposeError::CutOff { leader, ask, unknown })
    }
}

/// Whether a write has been handed to somebody, so that it may happen whatever becomes of whoever waits for it. Clones
/// are handles of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandedOver(Arc<AtomicU8>);

/// Nobody has it but who wants it.
const HELD: u8 = 0;
/// It may happen.
const HANDED_OVER: u8 = 1;
/// It must not happen any more.
const WITHDRAWN: u8 = 2;

impl HandedOver {
    /// Hands it over, unless it was withdrawn.
    pub(crate) fn hand_over(&self) -> bool {
        self.0.compare_exchange(HELD, HANDED_OVER, Ordering::AcqRel, Ordering::Acquire) != Err(WITHDRAWN)
    }

    /// It did not happen, and will not.
    pub(crate) fn take_back(&self) {
        self.0.store(HELD, Ordering::Release);
    }

    /// Withdraws it, if that can still be done.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.compare_exchange(HELD, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) != Err(HANDED_OVER)
    }
}

impl Consensus {
    /// Waits for something that takes a majority and its leader, and gives up once there is none, or this manager is cut
    /// off from it.
    pub(crate) async fn with_majority<T>(
        &self,
        handed_over: &HandedOver,
        work: impl Future<Output = Result<T, ProposeError>>,
    ) -> Result<T, ProposeError> {
        tokio::select! {
            biased;
            result = work => result,
            look = self.hopeless() => {
                let unknown = !handed_over.withdraw();
                Err(look.failure(unknown).unwrap_or(ProposeError::NotLeader { leader: None }))
            }
        }
    }

    /// Ends when nothing can come of waiting, with why.
    async fn hopeless(&self) -> Look {
        loop {
            sleep(PATIENCE).await;
            // In a box: hardly anybody comes so far, and everybody who waits would carry the room for it.
            let look = Box::pin(self.look()).await;
            if look.clone().failure(false).is_some() {
                return look;
            }
        }
    }

    /// Asks the managers that vote how they are.
    async fn look(&self) -> Look {
        let mut last = self.last_look().lock().await;
        if let Some((at, look)) = &*last
            && at.elapsed() < PATIENCE
        {
            return look.clone();
        }
        let status = self.status();
        let voters: Vec<_> = status.members.iter().filter(|member| member.voter).collect();
        let others = voters.iter().filter(|member| member.raft_id != status.raft_id);
        let asked = join_all(others.map(|member| async {
            let line = self.network().line(Kind::Ask, member.raft_id, &member.addr);
            let answer = match timeout(ANSWER_MAX, line.send(Request::Status, ANSWER_MAX)).await {
                Ok(Ok(Answer::Status(status))) => Some(*status),
                _ => None,
            };
            (member.addr.clone(), answer)
        }));
        let asked: Vec<(String, Option<Status>)> = asked.await;
        let silent = asked.iter().filter(|(_, answer)| answer.is_none()).map(|(addr, _)| addr.clone()).collect();
        let look = Look { voters: voters.len(), silent, cut_off: self.cut_off(&asked) };
        *last = Some((Instant::now(), look.clone()));
        look
    }

    /// Whether this manager alone and the leader do not reach each other, from the answers of the others.
    fn cut_off(&self, asked: &[(String, Option<Status>)]) -> Option<CutOff> {
        let (leader, addr) = self.leader().filter(|(id, _)| *id != self.raft_id())?;
        let answers = || asked.iter().filter_map(|(addr, answer)| Some((addr, answer.as_ref()?)));
        let hears = |status: &Status| {
            let contact_ms = status.local.as_ref().and_then(|local| local.leader_contact_ms);
            status.leader == Some(leader) && contact_ms.is_some_and(|ms| ms < ALIVE_MS)
        };
        let ask: Vec<String> = answers()
            .filter(|(_, status)| status.raft_id != leader && hears(status))
            .map(|(addr, _)| addr.clone())
            .collect();
        let said = answers().map(|(_, status)| status).find(|status| status.raft_id == leader);
        match said {
            // It may be gone for the others as well: then they elect another one.
            None if !ask.is_empty() => Some(CutOff { leader: addr, ask }),
            // It answers, and its word does not come here: what it writes is never seen here.
            Some(said) if said.leads() && self.heard_leader().is_none_or(|at| at.elapsed() > PATIENCE) => {
                Some(CutOff { leader: addr, ask })
            }
            None | Some(_) => None,
        }
    }
}
