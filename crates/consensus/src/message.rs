//! What managers say to each other over `swarm-raft/1`, and how openraft's own types travel in it.
//!
//! These are types of our own in named MessagePack: managers of different versions talk to each other during an
//! upgrade, so that fields may be added, with a default, and nothing else may change under the same [`RAFT_PROTOCOL`].

use std::fmt;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use swarm_core::Outcome;

use crate::{
    ProposeError, Status,
    records::{self, Ballot, Digest128, Head, Place, RowError, Tail},
    twin::Run,
    types::{LogId, Types, Vote},
};

/// Version of these messages.
pub(crate) const RAFT_PROTOCOL: u16 = 1;

/// Bytes that MessagePack writes as bytes, not as a list of numbers.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Blob(pub Vec<u8>);

/// First message of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`RAFT_PROTOCOL`].
    pub protocol: u16,
    /// Raft id of the manager that it is meant for: another one may have its address by now.
    pub to: u64,
    /// The manager that says this, and its run. A manager of an earlier version does not say it.
    #[serde(default)]
    pub by: Option<Run>,
    /// `host:port` of the manager that says this: one whose log knows no other manager can ask it. Not said by earlier
    /// versions.
    #[serde(default)]
    pub from: Option<String>,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    index: u64,
    row: Blob,
}

/// A candidate, or one that would like to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Candidacy {
    vote: Ballot,
    last: Option<Place>,
    #[serde(default)]
    transfer: bool,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    Hello(Hello),
    Append {
        vote: Ballot,
        prev: Option<Place>,
        commit: Option<Place>,
        rows: Vec<Row>,
    },
    Vote(Candidacy),
    PreVote(Candidacy),
    TakeOver {
        leader: Ballot,
        to: u64,
        last: Option<Place>,
    },
    /// A snapshot follows: parts in any number, then the end, which is answered.
    Snapshot {
        vote: Ballot,
        head: Head,
    },
    SnapshotPart(Blob),
    SnapshotEnd(Tail),
    /// Transactions (`Vec<Tx>`) that the leader is to propose.
    Write(Blob),
    /// How far a manager must have applied to read what was acknowledged before this.
    ReadIndex,
    /// The same, with the entry's term and leader. Only from [`READ_AT_LEVEL`](crate::differ::READ_AT_LEVEL) on.
    ReadAt,
    /// The number of this manager's start. Only asked by who was told one.
    Run,
    /// The history of a manager. One of an earlier version does not understand it.
    History,
    /// The digest that a manager has at this index, or the newest one if that is older. Only asked of managers that know
    /// this feature level.
    Digest {
        level: u16,
        index: u64,
    },
    /// The leader's view.
    Status,
    /// The leader is to hand over to this manager, or to the one that is best placed.
    HandOver {
        to: Option<u64>,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Appended(Appended),
    Voted {
        vote: Ballot,
        last: Option<Place>,
        granted: bool,
    },
    TakenOver(TakenOver),
    Installed {
        vote: Ballot,
    },
    Written {
        index: u64,
        outcomes: Vec<Outcome>,
    },
    ReadIndex(u64),
    ReadAt(Place),
    /// The last entry that was applied, and the first of each leader.
    History {
        last: Option<Place>,
        leaders: Vec<Place>,
    },
    /// The number of this manager's start.
    Run(u64),
    /// Last message of a connection: another run of the manager that opened it answers at this address.
    Twin {
        addr: String,
    },
    /// None if there is none of that level, or it is not kept any more.
    Digest(Option<Mark>),
    Status(Box<Status>),
    HandedOver,
    Failed(ProposeError),
    Refused(String),
}

/// The digest at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub index: u64,
    pub digest: Digest128,
}

/// What became of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Appended {
    All,
    UpTo(Option<Place>),
    Conflict,
    HigherVote(Ballot),
}

/// Whether a manager campaigns as it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TakenOver {
    Yes,
    VoteChanged { expected: Ballot, actual: Ballot },
    Behind { expected: Option<Place>, actual: Option<Place> },
}

fn place(id: Option<LogId>) -> Option<Place> {
    id.map(Place::from)
}

fn log_id(place: Option<Place>) -> Option<LogId> {
    place.map(LogId::from)
}

impl Request {
    /// Entries, or a heartbeat.
    pub(crate) fn append(request: &AppendEntriesRequest<Types>) -> Result<Self, String> {
        let rows = request
            .entries
            .iter()
            .map(|entry| Ok(Row { index: entry.log_id.index, row: Blob(records::encode_row(entry)?) }))
            .collect::<Result<_, String>>()?;
        Ok(Self::Append {
            vote: request.vote.into(),
            prev: place(request.prev_log_id),
            commit: place(request.leader_commit),
            rows,
        })
    }

    /// Whether a manager takes part with this: it votes, leads, follows or writes.
    pub(crate) fn takes_part(&self) -> bool {
        !matches!(self, Self::Status | Self::Run | Self::History | Self::Digest { .. } | Self::ReadIndex | Self::ReadAt)
    }

    /// Who leads, if only a leader says this.
    pub(crate) fn leader(&self) -> Option<u64> {
        match self {
            Self::Append { vote, .. } => Some(Vote::from(*vote).leader_id.node_id),
            _ => None,
        }
    }

    /// What a leader says of its log: its vote, the last entry that it names, and the last that is committed.
    pub(crate) fn committed(&self) -> Option<(Vote, Option<LogId>, Option<LogId>)> {
        let Self::Append { vote, prev, commit, rows } = self else { return None };
        let last = rows.is_empty().then(|| log_id(*prev)).flatten();
        Some((Vote::from(*vote), last, log_id(*commit)))
    }

    /// The leader wants this manager to campaign.
    pub(crate) fn take_over(request: &TransferLeaderRequest<Types>) -> Self {
        Self::TakeOver {
            leader: (*request.from_leader()).into(),
            to: *request.to_node_id(),
            last: place(request.last_log_id().copied()),
        }
    }
}

/// openraft's form of [`Request::Append`].
pub(crate) fn append_request(
    vote: Ballot,
    prev: Option<Place>,
    commit: Option<Place>,
    rows: Vec<Row>,
) -> Result<AppendEntriesRequest<Types>, String> {
    let entries = rows.into_iter().map(|Row { index, row }| {
        records::decode_row(index, &row.0).map_err(|error| match error {
            RowError::Malformed(detail) | RowError::Newer(detail) => format!("entry {index}: {detail}"),
        })
    });
    Ok(AppendEntriesRequest {
        vote: vote.into(),
        prev_log_id: log_id(prev),
        entries: entries.collect::<Result<_, _>>()?,
        leader_commit: log_id(commit),
    })
}

/// openraft's form of [`Request::TakeOver`].
pub(crate) fn take_over_request(leader: Ballot, to: u64, last: Option<Place>) -> TransferLeaderRequest<Types> {
    TransferLeaderRequest::new(leader.into(), to, log_id(last))
}

impl From<&VoteRequest<Types>> for Candidacy {
    fn from(request: &VoteRequest<Types>) -> Self {
        Self { vote: request.vote.into(), last: place(request.last_log_id), transfer: request.leadership_transfer }
    }
}

impl From<Candidacy> for VoteRequest<Types> {
    fn from(candidacy: Candidacy) -> Self {
        let mut request = Self::new(candidacy.vote.into(), log_id(candidacy.last));
        request.leadership_transfer = candidacy.transfer;
        request
    }
}

impl From<VoteResponse<Types>> for Answer {
    fn from(response: VoteResponse<Types>) -> Self {
        Self::Voted { vote: response.vote.into(), last: place(response.last_log_id), granted: response.vote_granted }
    }
}

/// openraft's form of [`Answer::Voted`].
pub(crate) fn vote_response(vote: Ballot, last: Option<Place>, granted: bool) -> VoteResponse<Types> {
    VoteResponse::new(Vote::from(vote), log_id(last), granted)
}

impl From<AppendEntriesResponse<Types>> for Appended {
    fn from(response: AppendEntriesResponse<Types>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::All,
            AppendEntriesResponse::PartialSuccess(last) => Self::UpTo(place(last)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<Appended> for AppendEntriesResponse<Types> {
    fn from(appended: Appended) -> Self {
        match appended {
            Appended::All => Self::Success,
            Appended::UpTo(last) => Self::PartialSuccess(log_id(last)),
            Appended::Conflict => Self::Conflict,
            Appended::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<TransferLeaderResponse<Types>> for TakenOver {
    fn from(response: TransferLeaderResponse<Types>) -> Self {
        match response {
            Ok(()) => Self::Yes,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Self::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Self::Behind { expected: place(expected), actual: place(actual) }
            }
        }
    }
}

impl From<TakenOver> for TransferLeaderResponse<Types> {
    fn from(taken: TakenOver) -> Self {
        match taken {
            TakenOver::Yes => Ok(()),
            TakenOver::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            TakenOver::Behind { expected, actual } => {
                Err(TransferLeaderError::LogNotFlushed { expected: log_id(expected), actual: log_id(actual) })
            }
        }
    }
}

// Entries hold secrets: what is printed is only how much there is.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes: Vec<u8>) {
            let _ = rmp_serde::from_slice::<Request>(&bytes);
            let _ = rmp_serde::from_slice::<Answer>(&bytes);
        }

        #[test]
        fn rows_of_any_bytes_are_read_or_refused(index: u64, bytes: Vec<u8>) {
            let vote = Ballot::from(Vote::new(1, 1));
            let _ = append_request(vote, None, None, vec![Row { index, row: Blob(bytes) }]);
        }
    }
}
