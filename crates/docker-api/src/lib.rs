//! Docker's HTTP conventions: filters, versions, views, errors, log frames.
//!
//! What users write is defined in `swarm-model`, in Docker's own JSON shape. Here is everything else that the Docker
//! Engine API 1.50 has an opinion on: what objects look like when they are shown, and how lenient a server must be
//! with what clients send. Nothing in here does I/O.

pub mod view;
