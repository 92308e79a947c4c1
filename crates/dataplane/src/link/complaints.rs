//! Says what peers do wrong: counted always, in the log once in a while.

use std::{
    fmt::Display,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Time between two log lines of one kind: a flood must not fill the disk.
const PERIOD: Duration = Duration::from_secs(10);

/// A breach of the rules by a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offence {
    /// The peer spoke no TLS, or did not finish its handshake.
    Handshake,
    /// Its certificate does not count here, or is missing.
    Certificate,
    /// The peer is a node that may have no link, or has too many.
    Node,
    /// More handshakes were open than are kept open.
    Flood,
    /// The peer opened more streams than a link carries.
    Streams,
    /// The peer broke the rules of the link.
    Rules,
    /// The peer sent a frame of Ethernet that it may not send.
    Ethernet,
}

/// How often peers did something wrong, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Connections that spoke no TLS or did not finish their handshake.
    pub handshakes: u64,
    /// Connections with a certificate that does not count here, or without one.
    pub certificates: u64,
    /// Connections of nodes that may have no link, or that had too many.
    pub nodes: u64,
    /// Handshakes given up because too many were open.
    pub floods: u64,
    /// Streams refused because a link had too many.
    pub streams: u64,
    /// Links cut because the peer broke their rules.
    pub rules: u64,
    /// Frames of Ethernet that the peer may not send.
    pub ethernet: u64,
}

#[derive(Default)]
struct Kind {
    count: AtomicU64,
    /// When it was last said, and how often it happened since.
    said: Mutex<(Option<Instant>, u64)>,
}

/// Counts and says.
#[derive(Default)]
pub(super) struct Complaints {
    kinds: [Kind; 7],
}

impl Complaints {
    /// A peer did something.
    pub(super) fn add(&self, offence: Offence, peer: &dyn Display, problem: &dyn Display) {
        let kind = &self.kinds[offence as usize];
        kind.count.fetch_add(1, Ordering::Relaxed);
        let others = {
            let mut said = kind.said.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if said.0.is_some_and(|last| now.duration_since(last) < PERIOD) {
                said.1 += 1;
                return;
            }
            said.0 = Some(now);
            std::mem::take(&mut said.1)
        };
        tracing::warn!(%peer, others, "refused on the data port: {problem}");
    }

    /// How often, so far.
    pub(super) fn counters(&self) -> LinkCounters {
        let count = |offence: Offence| self.kinds[offence as usize].count.load(Ordering::Relaxed);
        LinkCounters {
            handshakes: count(Offence::Handshake),
            certificates: count(Offence::Certificate),
            nodes: count(Offence::Node),
            floods: count(Offence::Flood),
            streams: count(Offence::Streams),
            rules: count(Offence::Rules),
            ethernet: count(Offence::Ethernet),
        }
    }
}
