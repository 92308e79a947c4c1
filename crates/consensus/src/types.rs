//! openraft's types, filled in.

use std::{fmt, sync::Arc};

use openraft::{BasicNode, EntryPayload};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use swarm_core::{ENTRY_VERSION, Entry, Outcome, Tx};
use thiserror::Error;

openraft::declare_raft_types!(
    /// The types of this Raft. The leader id is openraft's "advanced" one: several leaders of one term are legal on
    /// different managers, so compare leader ids, never terms alone.
    pub(crate) Types:
        D = Command,
        R = Vec<Outcome>,
        AsyncRuntime = crate::rt::Runtime,
);

pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = EntryPayload<Command, u64, BasicNode>;
pub(crate) type LogEntry = openraft::Entry<LeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, BasicNode>;

/// An entry of ours with its encoding. It is encoded once, by the task that proposes it; log and network take the
/// bytes as they are.
#[derive(Clone)]
pub(crate) struct Command {
    entry: Arc<Entry>,
    bytes: Arc<[u8]>,
}

/// Bytes that are no entry that this program can apply.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    /// It cannot be decoded.
    #[error("it is not a log entry: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// It comes from another version. Applying it by guess would make managers differ, so this one must stop.
    #[error("the entry has version {0}, this swarmd knows versions up to {ENTRY_VERSION}; upgrade it")]
    Version(u16),
}

/// The part of an entry that every version has.
#[derive(Deserialize)]
struct Head {
    v: u16,
}

impl Command {
    /// Encodes an entry as named MessagePack.
    #[cfg(test)]
    pub(crate) fn encode(entry: Entry) -> Result<Self, rmp_serde::encode::Error> {
        let txs = encode_txs(&entry.txs)?;
        Self::assemble(entry, &txs)
    }

    /// An entry whose transactions are encoded already, by [`encode_txs`].
    pub(crate) fn assemble(mut entry: Entry, encoded: &[u8]) -> Result<Self, rmp_serde::encode::Error> {
        let txs = std::mem::take(&mut entry.txs);
        let mut bytes = Vec::with_capacity(encoded.len() + 64);
        entry.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map())?;
        // The empty list is the last field, and one byte.
        bytes.pop();
        rmp::encode::write_array_len(&mut bytes, txs.len() as u32)?;
        bytes.extend_from_slice(encoded);
        entry.txs = txs;
        Ok(Self { entry: Arc::new(entry), bytes: bytes.into() })
    }

    /// Decodes an entry. What cannot be understood may be of a newer version, of which nothing else is known for sure.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        match rmp_serde::from_slice::<Entry>(bytes) {
            Ok(entry) => {
                check_version(entry.v)?;
                Ok(Self { entry: Arc::new(entry), bytes: bytes.into() })
            }
            Err(error) => {
                let Head { v } = rmp_serde::from_slice(bytes)?;
                check_version(v)?;
                Err(error.into())
            }
        }
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Encodes transactions, one after another.
pub(crate) fn encode_txs(txs: &[Tx]) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut bytes = Vec::with_capacity(1024);
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    txs.iter().try_for_each(|tx| tx.serialize(&mut serializer))?;
    Ok(bytes)
}

/// Whether this program can apply entries of this version.
pub(crate) fn check_version(v: u16) -> Result<(), CommandError> {
    if (1..=ENTRY_VERSION).contains(&v) { Ok(()) } else { Err(CommandError::Version(v)) }
}

/// Bytes of an entry's payload, about; for limits.
pub(crate) fn weight(entry: &LogEntry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.bytes().len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 64,
    }
}

// Entries hold secrets and can be large: what is printed is only how much there is.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} transactions in {} bytes", self.entry.txs.len(), self.bytes.len())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({self})")
    }
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Command;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a log entry")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Command, E> {
                Command::decode(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}
