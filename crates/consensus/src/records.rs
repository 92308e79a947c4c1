//! The stored form of what openraft asks us to keep.
//!
//! These are types of our own in named MessagePack, not openraft's: its layouts may change with its version, ours may
//! not.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, EntryPayload};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    digest::Sum,
    history::Past,
    types::{Command, LeaderId, LogEntry, LogId, Membership, SnapshotMeta, StoredMembership, Vote},
};

/// Who owns a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Raft id of the manager. A store never serves another one: two managers with one id can split a quorum.
    pub raft_id: u64,
    /// Whether this manager founds a cluster with this store (others join one). Kept, because a crash can come between
    /// the creation of the store and its first entry.
    pub founder: bool,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    term: u64,
    leader: u64,
    index: u64,
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ballot {
    term: u64,
    candidate: u64,
    committed: bool,
}

/// A set of managers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    voters: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Address>,
}

/// Where a manager is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    addr: String,
}

/// The head of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    last: Option<Place>,
    members_at: Option<Place>,
    members: Members,
    /// The first entry of each leader, as far as it is known; earlier versions do not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leaders: Vec<Place>,
    /// The digest at its end, since a feature level rose that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<SumRecord>,
}

/// The digest of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SumRecord {
    level: u16,
    digest: Digest128,
}

/// 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digest128 {
    high: u64,
    low: u64,
}

impl From<u128> for Digest128 {
    fn from(value: u128) -> Self {
        Self { high: (value >> 64) as u64, low: value as u64 }
    }
}

impl From<Digest128> for u128 {
    fn from(digest: Digest128) -> Self {
        Self::from(digest.high) << 64 | Self::from(digest.low)
    }
}

/// The end of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tail {
    pub objects: u64,
}

/// Named MessagePack.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(value).map_err(|error| error.to_string())
}

/// Back from [`encode`].
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

impl From<LogId> for Place {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<Place> for LogId {
    fn from(place: Place) -> Self {
        Self { leader_id: LeaderId { term: place.term, node_id: place.leader }, index: place.index }
    }
}

impl From<Vote> for Ballot {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, candidate: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<Ballot> for Vote {
    fn from(ballot: Ballot) -> Self {
        Self { leader_id: LeaderId { term: ballot.term, node_id: ballot.candidate }, committed: ballot.committed }
    }
}

impl From<&Membership> for Members {
    fn from(membership: &Membership) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, node)| (*id, Address { addr: node.addr.clone() })).collect(),
        }
    }
}

impl TryFrom<Members> for Membership {
    type Error = String;

    fn try_from(members: Members) -> Result<Self, String> {
        let nodes: BTreeMap<u64, BasicNode> =
            members.nodes.into_iter().map(|(id, node)| (id, BasicNode { addr: node.addr })).collect();
        Self::new(members.voters, nodes).map_err(|_| "there is no voter, or one without an address".to_owned())
    }
}

impl Head {
    /// The head of a snapshot that covers this.
    pub(crate) fn new(meta: &SnapshotMeta, past: &Past) -> Self {
        Self {
            last: meta.last_log_id.map(Place::from),
            members_at: meta.last_membership.log_id().map(Place::from),
            members: meta.last_membership.membership().into(),
            leaders: past.leaders.iter().copied().map(Place::from).collect(),
            digest: past.sum.map(|sum| SumRecord { level: sum.level, digest: sum.value.into() }),
        }
    }

    /// What a snapshot covers.
    pub(crate) fn into_parts(self) -> Result<(SnapshotMeta, Past), String> {
        let meta = SnapshotMeta {
            last_log_id: self.last.map(LogId::from),
            last_membership: StoredMembership::new(self.members_at.map(LogId::from), self.members.try_into()?),
        };
        let leaders = self.leaders.into_iter().map(LogId::from).collect();
        let sum = self.digest.map(|record| Sum { level: record.level, value: record.digest.into() });
        Ok((meta, Past { leaders, sum }))
    }
}

/// Tags of a row's payload.
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERS: u8 = 2;
/// A row is: tag, term, leader, payload. Its index is its key, and sealed with it.
const ROW_HEAD_BYTES: usize = 17;

/// The row of an entry.
pub(crate) fn encode_row(entry: &LogEntry) -> Result<Vec<u8>, String> {
    let head = |tag: u8, room: usize| {
        let mut row = Vec::with_capacity(ROW_HEAD_BYTES + room);
        row.push(tag);
        row.extend_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
        row.extend_from_slice(&entry.log_id.leader_id.node_id.to_le_bytes());
        row
    };
    Ok(match &entry.payload {
        EntryPayload::Blank => head(BLANK, 0),
        EntryPayload::Normal(command) => {
            let mut row = head(COMMAND, command.bytes().len());
            row.extend_from_slice(command.bytes());
            row
        }
        EntryPayload::Membership(membership) => {
            let members = encode(&Members::from(membership))?;
            let mut row = head(MEMBERS, members.len());
            row.extend_from_slice(&members);
            row
        }
    })
}

/// Why a row is no entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RowError {
    /// It is damaged.
    Malformed(String),
    /// It is from a newer program.
    Newer(String),
}

/// The entry of a row.
pub(crate) fn decode_row(index: u64, row: &[u8]) -> Result<LogEntry, RowError> {
    let malformed = |detail: &str| RowError::Malformed(detail.into());
    let (tag, rest) = row.split_first().ok_or_else(|| malformed("it is empty"))?;
    let (term, rest) = rest.split_first_chunk().ok_or_else(|| malformed("it is too short"))?;
    let (leader, rest) = rest.split_first_chunk().ok_or_else(|| malformed("it is too short"))?;
    let leader_id = LeaderId { term: u64::from_le_bytes(*term), node_id: u64::from_le_bytes(*leader) };
    let payload = match *tag {
        BLANK if rest.is_empty() => EntryPayload::Blank,
        BLANK => return Err(malformed("a blank entry has a payload")),
        COMMAND => EntryPayload::Normal(Command::decode(rest).map_err(|error| match error {
            crate::types::CommandError::Version(_) => RowError::Newer(error.to_string()),
            crate::types::CommandError::Malformed(_) => RowError::Malformed(error.to_string()),
        })?),
        MEMBERS => {
            let members: Members = decode(rest).map_err(RowError::Malformed)?;
            EntryPayload::Membership(members.try_into().map_err(RowError::Malformed)?)
        }
        other => return Err(RowError::Newer(format!("entries of kind {other} are not known to this swarmd"))),
    };
    Ok(LogEntry { log_id: LogId { leader_id, index }, payload })
}
