//! Times in JSON.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use swarm_model::Timestamp;

/// How Go writes "never". An empty text or null breaks Docker's clients (docker-api §0.11).
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A time as Docker's API writes it: RFC 3339, UTC, with up to nine digits of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl Time {
    /// Reads an RFC 3339 time with any offset. What does not fit the range of [`Timestamp`] becomes its nearest end;
    /// times before 1970, Go's zero time among them, become "never".
    pub fn parse(text: &str) -> Option<Self> {
        let ns = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
        Some(Self(Timestamp(ns.clamp(0, i128::from(i64::MAX)) as i64)))
    }

    /// The time with exactly nine digits of a second, as log lines have it (docker-api §0.2).
    pub fn nine_digits(self) -> String {
        format!("{:.9}", jiff_time(self.0))
    }
}

fn jiff_time(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(at.0)).expect("64 bits of nanoseconds are within the years of jiff")
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { f.write_str(NEVER) } else { write!(f, "{}", jiff_time(self.0)) }
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time like 2026-11-22T11:43:10.5Z")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                if text.is_empty() {
                    return Ok(Time::default());
                }
                Time::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Time, E> {
                Ok(Time::default())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn never_is_written_as_gos_zero_time() {
        assert_eq!(Time::default().to_string(), NEVER);
        assert_eq!(Time::parse(NEVER), Some(Time::default()));
        assert_eq!(serde_json::from_str::<Time>("\"\"").expect("lenient"), Time::default());
        assert_eq!(serde_json::from_str::<Time>("null").expect("lenient"), Time::default());
    }

    #[test]
    fn digits_of_a_second_are_as_in_go() {
        let time = Time(Timestamp(1_795_347_799_919_590_058));
        assert_eq!(time.to_string(), "2026-11-22T11:43:19.919590058Z");
        let round = Time(Timestamp(1_795_347_799_500_000_000));
        assert_eq!(round.to_string(), "2026-11-22T11:43:19.5Z");
        assert_eq!(round.nine_digits(), "2026-11-22T11:43:19.500000000Z");
        assert_eq!(Time(Timestamp(1_000_000_000)).nine_digits(), "1970-01-01T00:00:01.000000000Z");
    }

    proptest! {
        #[test]
        fn times_round_trip(ns in 1..i64::MAX) {
            let time = Time(Timestamp(ns));
            prop_assert_eq!(Time::parse(&time.to_string()), Some(time));
            prop_assert_eq!(Time::parse(&time.nine_digits()), Some(time));
        }

        #[test]
        fn any_text_is_a_time_or_not(text in "\\PC{0,40}") {
            let _ = Time::parse(&text);
        }
    }
}
