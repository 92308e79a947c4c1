//! Who waits for the managers' word is told soon when most of them cannot be reached.

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
    Consensus, ProposeError,
    line::Kind,
    message::{Answer, Request},
    survey::ANSWER_MAX,
};

/// How long somebody waits before it is looked for a majority: longer than an election after the leader was lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was found when last somebody looked; many that wait look once.
pub(crate) type LastLook = tokio::sync::Mutex<Option<(Instant, Vec<String>)>>;

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
    /// Waits for something that takes a majority, and gives up once there is none.
    pub(crate) async fn with_majority<T>(
        &self,
        handed_over: &HandedOver,
        work: impl Future<Output = Result<T, ProposeError>>,
    ) -> Result<T, ProposeError> {
        tokio::select! {
            biased;
            result = work => result,
            (silent, voters) = self.majority_lost() => {
                let unknown = !handed_over.withdraw();
                Err(ProposeError::NoMajority { silent, voters, unknown })
            }
        }
    }

    /// Ends when most of the managers that vote do not answer: with the addresses of those, and how many vote.
    async fn majority_lost(&self) -> (Vec<String>, usize) {
        loop {
            sleep(PATIENCE).await;
            let voters = self.status().members.iter().filter(|member| member.voter).count();
            // In a box: hardly anybody comes so far, and everybody who waits would carry the room for it.
            let silent = Box::pin(self.silent_voters()).await;
            if voters > 0 && voters - silent.len().min(voters) <= voters / 2 {
                return (silent, voters);
            }
        }
    }

    /// Addresses of the managers that vote and do not answer.
    async fn silent_voters(&self) -> Vec<String> {
        let mut last = self.last_look().lock().await;
        if let Some((at, silent)) = &*last
            && at.elapsed() < PATIENCE
        {
            return silent.clone();
        }
        let status = self.status();
        let others = status.members.iter().filter(|member| member.voter && member.raft_id != status.raft_id);
        let asked = join_all(others.map(|member| async {
            let line = self.network().line(Kind::Ask, member.raft_id, &member.addr);
            let answer = timeout(ANSWER_MAX, line.send(Request::Status, ANSWER_MAX)).await;
            (!matches!(answer, Ok(Ok(Answer::Status(_))))).then(|| member.addr.clone())
        }));
        let silent: Vec<String> = asked.await.into_iter().flatten().collect();
        *last = Some((Instant::now(), silent.clone()));
        silent
    }
}
