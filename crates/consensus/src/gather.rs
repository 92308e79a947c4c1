//! Proposals share entries: what waits while others are on their way to the log goes with the next one. A hundred
//! clients so pay once for what an entry costs on disk, on the way to the followers and in every state; who is alone
//! waits for nobody.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use swarm_core::{ENTRY_TXS_MAX, Entry, Outcome, Tx};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    Committed, Consensus, PROPOSE_TIMEOUT,
    majority::HandedOver,
    rt,
    types::{Command, Types, encode_txs},
    words,
};

/// Entries on their way at a time: while one is written and sent, the next is gathered and encoded.
pub(crate) const ENTRIES_UNDER_WAY_MAX: usize = 2;

/// Encoded bytes up to which proposals share an entry: one entry must not keep others waiting for its disk write. A
/// larger proposal has an entry of its own.
const SHARED_BYTES_MAX: usize = 1 << 20;

/// Transactions on their way into an entry.
pub(crate) struct Proposal {
    txs: Vec<Tx>,
    /// The same, encoded one after another.
    encoded: Vec<u8>,
    /// The feature level that they need.
    needed: u16,
    /// Only as the leader of this term, if one is given. One that does not ask for any may go with those that do: it is
    /// tried again if they fall.
    term: Option<u64>,
    handed_over: HandedOver,
    done: Option<oneshot::Sender<Result<Committed, Fallen>>>,
}

/// Why an entry is not known to be committed.
#[derive(Clone, Debug)]
pub(crate) enum Fallen {
    /// It was not taken: this manager does not lead.
    Forward(ForwardToLeader<Types>),
    /// It was in the log; whether it stays there is not known.
    Unknown,
    /// It cannot be encoded, or Raft has ended; why.
    Stopped(Option<String>),
}

impl Proposal {
    /// Encodes transactions.
    pub(crate) fn new(
        txs: Vec<Tx>,
        needed: u16,
        term: Option<u64>,
        handed_over: &HandedOver,
    ) -> Result<Self, rmp_serde::encode::Error> {
        let encoded = encode_txs(&txs)?;
        Ok(Self { txs, encoded, needed, term, handed_over: handed_over.clone(), done: None })
    }

    /// Bytes of its transactions.
    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// The same once more, for another attempt.
    pub(crate) fn again(&self) -> Self {
        let Self { txs, encoded, needed, term, handed_over, done: _ } = self;
        let (txs, encoded, handed_over) = (txs.clone(), encoded.clone(), handed_over.clone());
        Self { txs, encoded, needed: *needed, term: *term, handed_over, done: None }
    }
}

/// Proposals that wait for the next entry.
#[derive(Default)]
pub(crate) struct Gathering(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    proposals: VecDeque<Proposal>,
    under_way: usize,
}

impl Gathering {
    /// Adds a proposal. Whether it is up to the caller to send entries until nothing waits.
    fn add(&self, proposal: Proposal) -> bool {
        let mut waiting = self.lock();
        waiting.proposals.push_back(proposal);
        let is_free = waiting.under_way < ENTRIES_UNDER_WAY_MAX;
        waiting.under_way += usize::from(is_free);
        is_free
    }

    /// Those that share the next entry, from now on in Raft's hands, and the term that any of them asks for; none if
    /// nothing waits: then whoever sent entries is done.
    fn next(&self) -> (Vec<Proposal>, Option<u64>) {
        let mut waiting = self.lock();
        let mut batch: Vec<Proposal> = Vec::new();
        let (mut term, mut txs, mut bytes) = (None, 0, 0);
        while let Some(next) = waiting.proposals.front() {
            let fits = txs + next.txs.len() <= ENTRY_TXS_MAX && bytes + next.encoded.len() <= SHARED_BYTES_MAX;
            let of_one_term = term.is_none() || next.term.is_none() || term == next.term;
            let joins = batch.is_empty() || (fits && of_one_term);
            if !joins {
                break;
            }
            let Some(next) = waiting.proposals.pop_front() else { break };
            // Who gave up meanwhile was told that nothing has happened.
            if next.handed_over.hand_over() {
                term = term.or(next.term);
                (txs, bytes) = (txs + next.txs.len(), bytes + next.encoded.len());
                batch.push(next);
            }
        }
        waiting.under_way -= usize::from(batch.is_empty());
        (batch, term)
    }

    /// How many proposals wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().proposals.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Consensus {
    /// Has a proposal appended with whatever else waits, and waits until it is applied.
    pub(crate) async fn append(&self, mut proposal: Proposal) -> Result<Committed, Fallen> {
        let (done, answer) = oneshot::channel();
        proposal.done = Some(done);
        if self.gathering().add(proposal) {
            // A task of its own: who proposes may give up, and others rely on what goes with it.
            let consensus = self.clone();
            rt::spawn(async move { consensus.send_entries().await });
        }
        answer.await.unwrap_or(Err(Fallen::Stopped(None)))
    }

    async fn send_entries(&self) {
        loop {
            let (batch, term) = self.gathering().next();
            let Some(needed) = batch.iter().map(|proposal| proposal.needed).max() else { return };
            let (mut entry, mut encoded) = (Entry { v: needed, at: rt::now(), txs: Vec::new() }, Vec::new());
            let mut waiting = Vec::with_capacity(batch.len());
            for proposal in batch {
                waiting.push((proposal.txs.len(), proposal.done));
                entry.txs.extend(proposal.txs);
                encoded.extend(proposal.encoded);
            }
            let mut result = self.commit(entry, &encoded, term).await;
            for (txs, done) in waiting {
                let answer = match &mut result {
                    Ok((index, outcomes)) => Ok(Committed { index: *index, outcomes: outcomes.drain(..txs).collect() }),
                    Err(fallen) => Err(fallen.clone()),
                };
                // Whoever has gone does not want to know.
                drop(done.map(|done| done.send(answer)));
            }
        }
    }

    async fn commit(&self, entry: Entry, txs: &[u8], term: Option<u64>) -> Result<(u64, Vec<Outcome>), Fallen> {
        let command = Command::assemble(entry, txs).map_err(|error| Fallen::Stopped(Some(error.to_string())))?;
        let Ok(result) = timeout(PROPOSE_TIMEOUT, self.hand_to_raft(command, term)).await else {
            return Err(Fallen::Unknown);
        };
        match result {
            Ok(response) => Ok((response.log_id.index, response.data)),
            Err(RaftError::Fatal(fatal)) => Err(Fallen::Stopped(Some(self.reason(Some(fatal))))),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Err(Fallen::Forward(forward)),
            // The entry was in the log of a leader that lost its place: another leader may still commit it.
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Err(Fallen::Unknown),
            Err(error) => Err(Fallen::Stopped(Some(words::change(&error, &BTreeMap::new())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(txs: usize, term: Option<u64>, handed_over: &HandedOver) -> Proposal {
        Proposal::new(vec![Tx::default(); txs], 1, term, handed_over).expect("an empty transaction")
    }

    fn next(gathering: &Gathering) -> (Vec<usize>, Option<u64>) {
        let (batch, term) = gathering.next();
        (batch.iter().map(|proposal| proposal.txs.len()).collect(), term)
    }

    #[test]
    fn what_waits_shares_an_entry_of_one_term_up_to_its_limits() {
        let (gathering, held) = (Gathering::default(), HandedOver::default);
        let terms = [
            (1, None),
            (2, Some(7)),
            (3, None),
            (4, Some(8)),
            (ENTRY_TXS_MAX - 4, None),
            (1, None),
            (ENTRY_TXS_MAX, Some(8)),
        ];
        let sent: Vec<bool> = terms.iter().map(|(txs, term)| gathering.add(proposal(*txs, *term, &held()))).collect();
        assert_eq!(sent, [true, true, false, false, false, false, false], "two send what all others wait for");
        assert_eq!(next(&gathering), (vec![1, 2, 3], Some(7)));
        assert_eq!(next(&gathering), (vec![4, ENTRY_TXS_MAX - 4], Some(8)));
        assert_eq!(next(&gathering), (vec![1], None));
        assert_eq!(next(&gathering), (vec![ENTRY_TXS_MAX], Some(8)));
        assert_eq!([next(&gathering), next(&gathering)], [(vec![], None), (vec![], None)]);
        assert!(gathering.add(proposal(1, None, &held())), "who sent has ended");
    }

    #[test]
    fn what_was_withdrawn_is_not_sent_and_what_is_sent_cannot_be_withdrawn() {
        let gathering = Gathering::default();
        let handed: [HandedOver; 3] = Default::default();
        for (n, handed_over) in handed.iter().enumerate() {
            gathering.add(proposal(n + 1, None, handed_over));
        }
        assert!(handed[1].withdraw());
        assert_eq!(next(&gathering).0, [1, 3]);
        assert!(!handed[0].withdraw() && !handed[2].withdraw());
    }
}
