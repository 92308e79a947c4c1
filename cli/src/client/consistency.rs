//! How new what is read has to be.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use hyper::HeaderMap;
use swarm_docker_api::{LEADER_CONTACT_HEADER, REVISION_HEADER, WARNING_HEADER};

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

/// How old what was read may be, and what is wrong with the manager that said it.
#[derive(Debug, Default)]
pub(crate) struct Staleness(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    age: Option<Age>,
    problem: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Age {
    revision: u64,
    contact_ms: Option<u64>,
}

impl Staleness {
    /// Remembers what an answer says; the oldest one counts.
    pub(super) fn note(&self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let number = |name: &str| text(name)?.parse().ok();
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = text(WARNING_HEADER) {
            noted.problem = Some(problem.to_owned());
        }
        let Some(revision) = number(REVISION_HEADER) else { return };
        let age = Age { revision, contact_ms: number(LEADER_CONTACT_HEADER) };
        if noted.age.is_none_or(|known| age.revision <= known.revision) {
            noted.age = Some(age);
        }
    }

    /// Lines for people; none if all that was read is what the managers agree on.
    pub(crate) fn text(&self) -> Option<String> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = noted.problem.as_ref().map(|problem| format!("Warning: {problem}"));
        let lines: Vec<String> = noted.age.map(|age| age.to_string()).into_iter().chain(problem).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
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
