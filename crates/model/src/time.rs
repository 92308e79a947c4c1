//! Points in time.

use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch, UTC. Zero means "never"; Docker prints that as `0001-01-01T00:00:00Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// "Never".
    pub const ZERO: Self = Self(0);
    /// The last one: a time that does not come.
    pub const MAX: Self = Self(i64::MAX);

    /// This many milliseconds since the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// Whole milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This time plus so many nanoseconds; stops at the ends of the range.
    pub const fn plus_ns(self, ns: i64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// Nanoseconds from `earlier` to this time; negative if `earlier` is later.
    pub const fn since_ns(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whether this is "never".
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}
