//! Numbers and texts as people write and read them.

mod age;
mod bytes;
mod cpus;
mod text;

pub(crate) use age::human_duration;
pub(crate) use bytes::parse_bytes;
pub(crate) use cpus::parse_cpus;
pub(crate) use swarm_model::{format_bytes, format_cpus, format_duration, parse_duration};
pub(crate) use text::{capitalise, ellipsis, natural_cmp, one_line, short_id};
