//! The outcome of bytes that arrive on a link, and of questions to the peer.

use thiserror::Error;

use super::{
    super::{OpenRequest, frame::FrameError},
    CONTROL_FRAMES_MAX, CREDIT_BYTES_MAX,
};

/// Why a peer's bytes end the link.
#[derive(Debug, Error)]
pub(in crate::link) enum Violation {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("it sent {sent} bytes more than it had credit for on stream {stream}")]
    Credit { stream: u32, sent: u32 },
    #[error("it spoke of stream {0}, which was never opened")]
    Unknown(u32),
    #[error("it opened stream {0}, which is not the next one")]
    Order(u32),
    #[error("it sent {what} on stream {stream}, which is not in a state for it")]
    State { what: &'static str, stream: u32 },
    #[error("it gave more than {CREDIT_BYTES_MAX} bytes of credit on stream {0}")]
    CreditGiven(u32),
    #[error("it does not read the answers to what it asks: {CONTROL_FRAMES_MAX} wait")]
    Deaf,
}

/// The outcome of bytes that arrived.
#[derive(Debug, Default)]
pub(in crate::link) struct Arrived {
    /// Streams that the peer wants.
    pub(in crate::link) wanted: Vec<(u32, OpenRequest)>,
    /// Streams refused because there are too many.
    pub(in crate::link) surplus: usize,
    /// Frames of Ethernet, each with the number of its network.
    pub(in crate::link) ethernet: Vec<(u32, Vec<u8>)>,
    /// Why the peer ends the link.
    pub(in crate::link) closed: Option<String>,
}

/// The answer of a peer that was asked for a stream.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::link) enum Answer {
    Accepted,
    Refused(String),
    /// The link ended first.
    Lost(String),
}
