//! How new what is read has to be.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use hyper::HeaderMap;
use swarm_docker_api::{LEADER_CONTACT_HEADER, REVISION_HEADER};

use crate::units::human_duration;

/// How new what is read has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Consistency {
    /// Everything that was acknowledged before; needs a majority of the managers
    #[default]
    Linearizable,
    /// What this one manager knows; for reading while there is no majority
    Stale,
}

/// How old what was read may be.
#[derive(Debug, Default)]
pub(crate) struct Staleness(Mutex<Option<Age>>);

#[derive(Clone, Copy, Debug)]
struct Age {
    revision: u64,
    contact_ms: Option<u64>,
}

impl Staleness {
    /// Remembers what an answer says; the oldest one counts.
    pub(super) fn note(&self, headers: &HeaderMap) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.parse().ok();
        let Some(revision) = number(REVISION_HEADER) else { return };
        let age = Age { revision, contact_ms: number(LEADER_CONTACT_HEADER) };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| age.revision <= known.revision) {
            *known = Some(age);
        }
    }

    /// For people; none if nothing stale was read.
    pub(crate) fn text(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|age| age.to_string())
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stale: what this manager knows, revision {}; it last heard of a leader ", self.revision)?;
        match self.contact_ms {
            None => f.write_str("before it started"),
            Some(ms) => {
                write!(f, "{} ago", human_duration(i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)))
            }
        }
    }
}
