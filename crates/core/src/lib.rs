//! The pure core: the state, `apply`, and `decide`.
//!
//! No clock, no randomness, no I/O, no hash maps: time and ids come in with the entry. `apply` runs on every manager
//! and must come out the same everywhere; `decide` runs on the leader and only proposes.

mod addresses;
mod apply;
mod attachments;
mod decide;
mod entry;
mod forecast;
mod ports;
mod propose;
mod state;

pub use addresses::{ADDRESS_REST_NS, AddressNote, overlap};
pub use apply::{Event, apply};
pub use decide::{
    Context, Dirty, Failure, NodeRejection, PIECE_CHANGES_MAX, Plan, Rejection, Restart, TaskWhy, Why, decide,
    is_up_to_date, why_service, why_task, why_waiting,
};
pub use entry::{
    ATTACHMENTS_LEVEL, DRAIN_DEADLINES_LEVEL, ENTRY_TXS_MAX, ENTRY_VERSION, Entry, FEATURE_LEVEL_MIN, Guard, NewTask,
    Op, Outcome, Place, Refusal, Tx,
};
pub use forecast::{Action, Forecast, RolledBack, Step, WAVES_MAX, Wave, forecast};
pub use state::{NODE_LEFT, NodeLoad, Object, State};
