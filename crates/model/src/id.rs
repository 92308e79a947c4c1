//! Typed 128-bit ids.
//!
//! Inside, an id is a number whose high 64 bits are the time of its making, so that ids sort by age and what was made
//! together is stored together. At the edges it is 25 base36 characters, like Swarm's ids (swarm-behaviour §1.1), with the low 64
//! bits, which are random, first: the characters that a person sees in a table and types as a prefix differ.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::Timestamp;

/// Characters of a printed id.
const TEXT_LEN: usize = 25;
/// Random bits, below as many of time.
const RANDOM_BITS: u32 = 64;

/// A text that is no id.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("an id has 25 characters of 0-9 and a-z")]
pub struct IdParseError;

/// What all id types share.
pub trait Id: Copy + Ord + fmt::Display + FromStr<Err = IdParseError> {
    /// An id from the time of its making and randomness, of which the low 64 bits are used.
    fn make(at: Timestamp, random: u128) -> Self;

    /// The time of its making.
    fn made_at(self) -> Timestamp;
}

fn compose(at: Timestamp, random: u128) -> u128 {
    ((at.0.max(0) as u128) << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1))
}

fn write_text(id: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rest = id.rotate_left(RANDOM_BITS);
    let mut text = [b'0'; TEXT_LEN];
    for c in text.iter_mut().rev() {
        *c = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
        rest /= 36;
    }
    f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn read_text(text: &str) -> Result<u128, IdParseError> {
    if text.len() != TEXT_LEN {
        return Err(IdParseError);
    }
    let mut value: u128 = 0;
    for c in text.bytes() {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'z' => c - b'a' + 10,
            _ => return Err(IdParseError),
        };
        value = value.checked_mul(36).and_then(|v| v.checked_add(u128::from(digit))).ok_or(IdParseError)?;
    }
    Ok(value.rotate_right(RANDOM_BITS))
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl Id for $name {
            fn make(at: Timestamp, random: u128) -> Self {
                Self(compose(at, random))
            }

            fn made_at(self) -> Timestamp {
                Timestamp(i64::try_from(self.0 >> RANDOM_BITS).unwrap_or(i64::MAX))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_text(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_text(self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdParseError;
            fn from_str(text: &str) -> Result<Self, IdParseError> {
                read_text(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0.to_be_bytes())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> de::Visitor<'de> for Visitor {
                    type Value = u128;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an id")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<u128, E> {
                        read_text(text).map_err(E::custom)
                    }
                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<u128, E> {
                        bytes.try_into().map(u128::from_be_bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
                    }
                }
                let number = if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Visitor)?
                } else {
                    deserializer.deserialize_bytes(Visitor)?
                };
                Ok(Self(number))
            }
        }
    };
}

id_type!(
    /// A cluster; the organisation (O) of every node certificate.
    ClusterId
);
id_type!(
    /// A node; the common name (CN) of its certificate.
    NodeId
);
id_type!(
    /// A named object, such as a secret.
    ObjectId
);
id_type!(
    /// A service.
    ServiceId
);
id_type!(
    /// A task: one attempt to run one container of a service.
    TaskId
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_made_later_sort_later_and_differ_in_their_first_characters() {
        let a = TaskId::make(Timestamp::from_millis(1_000), 0x2222_3333_4444_5555);
        let b = TaskId::make(Timestamp::from_millis(1_001), 0x1122_3333_4444_5555);
        assert!(a < b);
        assert_ne!(a.to_string()[..2], b.to_string()[..2]);
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip(n: u128) {
            let id = NodeId(n);
            prop_assert_eq!(id.to_string().len(), TEXT_LEN);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            let bytes = rmp_serde::to_vec_named(&id).expect("ids can be written");
            prop_assert_eq!(rmp_serde::from_slice::<NodeId>(&bytes).expect("what was written can be read"), id);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}") {
            if let Ok(id) = text.parse::<ServiceId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
