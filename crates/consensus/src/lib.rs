//! Raft: openraft on SQLite, behind one small API.
//!
//! [`Consensus`] is all that the rest of the program sees: propose transactions, read linearizably, watch the role.
//! No openraft type leaves this crate, so that another Raft could take its place.
//!
//! The path of a write: `propose` encodes an entry once → openraft puts it in its log → the `store` shows it to
//! readers at once and hands it to the `writer` thread, which seals it and writes it with whatever else waits in one
//! transaction → openraft commits it → the `machine` applies it to the state and publishes the new state.
//!
//! Other managers: `line` connects to them, `network` is openraft's way to it, `serve` answers, `transfer` carries
//! snapshots, `remote` asks the leader on behalf of a follower, `members` says who takes part, `campaign` replaces a
//! leader whose process died, `recover` is the way out when the majority is lost, `backup` when all managers are, `vouch`
//! notices a log that lost what this manager had acknowledged.
//!
//! Files of the folder: `log.db` (SQLite: log, vote; the newest in `log.db-wal`), `snapshot` (the last one), `witness` (how
//! far the log had come, see `witness`), `lock` (held while open). Every row and the snapshot are sealed, see `seal`.

mod backup;
mod campaign;
mod compact;
mod compare;
mod consensus;
mod differ;
mod digest;
mod disk;
mod error;
mod gather;
mod history;
mod index;
mod key;
mod level;
mod line;
mod load;
mod machine;
mod majority;
mod members;
mod message;
mod network;
mod options;
mod records;
mod recover;
mod remote;
mod role;
mod rt;
mod seal;
mod serve;
#[cfg(feature = "sim")]
pub mod sim;
mod snapshot;
mod status;
mod store;
mod survey;
mod transfer;
mod twin;
mod types;
mod vouch;
mod witness;
mod words;
mod writer;

#[cfg(test)]
mod tests;

pub use backup::{Backup, BackupError, REVISION_GAP};
pub use consensus::{Committed, Consensus, ENTRY_BYTES_MAX, IN_FLIGHT_BYTES_MAX, Observer, PROPOSE_TIMEOUT};
pub use error::{Error, ProposeError};
pub use key::{KeyFile, SealKey, WrappedKey};
pub use line::{Dialer, Unconnected};
pub use members::Steering;
pub use options::{LOG_KEEP_ENTRIES, Options, Timers};
pub use role::Role;
pub use serve::{Admission, ServeError};
pub use status::{Local, Member, SILENT_MS, Status};
pub use survey::{Asked, Survey};
