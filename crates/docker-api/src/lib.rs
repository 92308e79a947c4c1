//! Docker's HTTP conventions: filters, versions, views, errors, log frames.
//!
//! What users write is defined in `swarm-model`, in Docker's own JSON shape. Here is everything else that the Docker
//! Engine API 1.50 has an opinion on: what objects look like when they are shown, and how lenient a server must be
//! with what clients send. Nothing in here does I/O.

mod auth;
mod bools;
mod error;
mod filters;
mod lenient;
pub mod logs;
mod passphrase;
mod path;
mod version;
pub mod view;

pub use auth::{REGISTRY_AUTH_BYTES_MAX, read_registry_auth};
pub use bools::{is_truthy, parse_bool, parse_force};
pub use error::{ApiError, CONTENT_TYPE_JSON, LOCKED, NO_SWARM, NOT_A_MANAGER, PAGE_NOT_FOUND};
pub use filters::Filters;
pub use lenient::{read_body, read_json, read_value};
pub use passphrase::{
    CONTENT_TYPE_BACKUP, PASSPHRASE_BYTES_MAX, PASSPHRASE_CHARS_MIN, PASSPHRASE_HEADER, check_passphrase,
    read_passphrase, write_passphrase,
};
pub use path::{decode_path, encode_path};
pub use version::{
    API_VERSION_MAX, API_VERSION_MIN, ApiVersion, LEADER_CONTACT_HEADER, REVISION_HEADER, WARNING_HEADER, split_version,
};
