//! What can go wrong, for the person who reads it.

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What to do about a log that cannot be used.
const WAY_OUT: &str = "Nothing was changed. Put back what belongs there, or give this manager up: move its state folder \
                       away and start swarmd, which is in no swarm then; on another manager `node demote` and `node rm \
                       --force` it, and join again, or, if there is no other manager, `swarm restore` a backup";

/// A log that cannot be created, opened or snapshotted.
#[derive(Debug, Error)]
pub enum Error {
    /// A new log would overwrite an old one.
    #[error("{file} exists already: this folder holds a Raft log; open it, or give the new cluster an empty folder")]
    Exists {
        /// The file that is there.
        file: String,
    },
    /// A file that must be there is not.
    #[error("{file} is missing: {detail}. {}", WAY_OUT)]
    Missing {
        /// The file.
        file: String,
        /// What it is needed for, and what to do.
        detail: String,
    },
    /// Another process has the folder open.
    #[error("{file} is locked: another swarmd uses this folder; stop it first, or use another folder")]
    InUse {
        /// The lock file.
        file: String,
    },
    /// The file was sealed with another key.
    #[error("{file} was sealed with another key. {}", WAY_OUT)]
    WrongKey {
        /// The file.
        file: String,
    },
    /// The file is not ours, or belongs to another log.
    #[error("{file} does not belong here: {detail}. {}", WAY_OUT)]
    Foreign {
        /// The file.
        file: String,
        /// Why.
        detail: String,
    },
    /// The file was damaged or tampered with.
    #[error("{file} is damaged: {detail}. {}", WAY_OUT)]
    Corrupt {
        /// The file.
        file: String,
        /// Where, and how it shows.
        detail: String,
    },
    /// The file was written by a newer program.
    #[error("{file} needs a newer swarmd: {detail}. Nothing was changed: install the version that wrote it")]
    Newer {
        /// The file.
        file: String,
        /// What is too new.
        detail: String,
    },
    /// The key file cannot be used.
    #[error("key file {file}: {detail}")]
    Key {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// The operating system or SQLite failed.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What failed.
        source: io::Error,
    },
    /// The options make no sense.
    #[error("Raft options: {0}")]
    Options(String),
    /// Raft has stopped.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
    /// The leadership stays where it is.
    #[error("the leadership was not handed over: {0}")]
    HandOver(String),
    /// The managers that take part stay as they are.
    #[error("the managers were not changed: {0}")]
    Members(String),
}

impl Error {
    /// What the disk says; invalid data is damage.
    pub(crate) fn io(file: impl Into<String>, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::InvalidData {
            return Self::corrupt(file, source.to_string());
        }
        Self::Io { file: file.into(), source }
    }

    /// What to do when a full disk has stopped a manager; nothing to add otherwise.
    pub(crate) fn way_out(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "; make room and start swarmd again: it goes on with everything that was acknowledged"
            }
            _ => "",
        }
    }

    pub(crate) fn path(file: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { file: file.into().display().to_string(), source }
    }

    pub(crate) fn corrupt(file: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt { file: file.into(), detail: detail.into() }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// A proposal or a linearizable read that did not succeed.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProposeError {
    /// This manager does not lead; nothing has happened.
    #[error("this manager is not the leader{}", leader.as_ref().map(|l| format!("; the leader is {l}")).unwrap_or_else(|| "; no leader is known".into()))]
    NotLeader {
        /// `host:port` of the leader, if it is known.
        leader: Option<String>,
    },
    /// The write was handed to the log but not confirmed in time: it may or may not happen.
    #[error("the write was not confirmed in time: it may or may not have happened")]
    Unknown,
    /// Most of the managers that vote do not answer.
    #[error(
        "{} of the {voters} managers that vote do not answer: {}{}", silent.len(), silent.join(", "),
        if *unknown { "; the write may or may not happen once they are back" } else { "" }
    )]
    NoMajority {
        /// `host:port` of those that do not answer.
        silent: Vec<String>,
        /// How many vote.
        voters: usize,
        /// The write was handed to the log: it may or may not happen. Otherwise nothing has happened.
        unknown: bool,
    },
    /// This manager and the leader do not reach each other, while other managers hear it.
    #[error(
        "this manager and the leader at {leader} do not reach each other{}{}",
        if ask.is_empty() { String::new() } else { format!(", while the managers at {} hear it: ask one of them", ask.join(", ")) },
        if *unknown { "; the write may or may not have happened" } else { "" }
    )]
    CutOff {
        /// `host:port` of the leader.
        leader: String,
        /// `host:port` of managers that hear the leader.
        ask: Vec<String>,
        /// The write was handed to the leader: it may or may not happen. Otherwise nothing has happened.
        unknown: bool,
    },
    /// The change needs a feature level that the swarm does not have yet; nothing has happened.
    #[error(
        "this needs feature level {needed}, and the swarm is at {level}: first upgrade swarmd on, or bring back, {}",
        if behind.is_empty() { "no manager: try again in a few seconds".into() } else { behind.join(", ") }
    )]
    FeatureLevel {
        /// The level that it needs.
        needed: u16,
        /// The level of the swarm.
        level: u16,
        /// `host:port` of the managers that know less, or do not answer.
        behind: Vec<String>,
    },
    /// The entry is too large; nothing has happened.
    #[error("the change is too large: {bytes} bytes, at most {limit} are possible; split it")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
        /// The limit, [`ENTRY_BYTES_MAX`](crate::ENTRY_BYTES_MAX).
        limit: usize,
    },
    /// There are too many transactions in one entry; nothing has happened.
    #[error("{txs} transactions are too many for one entry, at most {limit} are possible; split them")]
    TooMany {
        /// How many there are.
        txs: usize,
        /// The limit, [`ENTRY_TXS_MAX`](swarm_core::ENTRY_TXS_MAX).
        limit: usize,
    },
    /// Raft has stopped, for this reason. A write that was under way may or may not have happened.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}
