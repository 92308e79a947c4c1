//! Secrets.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use zeroize::Zeroizing;

use crate::{Invalid, Templating};

/// The data of a secret has fewer bytes than this (500 KiB), as in Swarm: each node that uses it keeps it in memory.
pub const SECRET_BYTES_LIMIT: usize = 500 << 10;

/// The content of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretContent {
    /// The data.
    pub data: SecretBytes,
    /// The language of the placeholders in the data; none if the data has no placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templating: Option<Templating>,
}

impl SecretContent {
    /// Checks the size.
    ///
    /// # Errors
    /// There is no data, or too much of it.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.data.check_size("secret", SECRET_BYTES_LIMIT)
    }
}

/// Bytes that must never be seen: they are not printed, their memory is zeroed when they are dropped, and no text format
/// writes them. In JSON they are base64, and are only read; in the log and on the wire, which are sealed, they are bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Checks how many bytes there are. `kind` is that of the object, for the text of the error.
    ///
    /// # Errors
    /// There are none, or as many as `limit` or more.
    pub(crate) fn check_size(&self, kind: &str, limit: usize) -> Result<(), Invalid> {
        match self.0.len() {
            size if (1..limit).contains(&size) => Ok(()),
            size => {
                Err(Invalid(format!("{kind} data must be larger than 0 and less than {limit} bytes: these are {size}")))
            }
        }
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return Err(ser::Error::custom("the data of a secret is never written as text"));
        }
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Base64)
        } else {
            deserializer.deserialize_byte_buf(Bytes)
        }
    }
}

struct Bytes;

impl de::Visitor<'_> for Bytes {
    type Value = SecretBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<SecretBytes, E> {
        Ok(bytes.to_vec().into())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<SecretBytes, E> {
        Ok(bytes.into())
    }
}

/// Reads base64. No error of it shows what it was given.
struct Base64;

impl Base64 {
    fn refuse<E: de::Error>() -> Result<SecretBytes, E> {
        Err(E::custom("the data is not base64 text"))
    }
}

impl<'de> de::Visitor<'de> for Base64 {
    type Value = SecretBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretBytes, E> {
        BASE64_STANDARD.decode(text).map_or_else(|_| Self::refuse(), |bytes| Ok(bytes.into()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<SecretBytes, E> {
        Ok(SecretBytes::default())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretBytes, E> {
        Self::refuse()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretBytes, E> {
        Self::refuse()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretBytes, E> {
        Self::refuse()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretBytes, E> {
        Self::refuse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const TEXT: &str = "s3cr3t-7d1f";

    #[test]
    fn data_is_not_printed_nor_written_as_text() {
        let content = SecretContent { data: TEXT.as_bytes().to_vec().into(), templating: None };
        assert_eq!(format!("{content:?}"), "SecretContent { data: <hidden>, templating: None }");
        let error = serde_json::to_string(&content).expect_err("no JSON").to_string();
        assert_eq!(error, "the data of a secret is never written as text");
    }

    #[test]
    fn no_error_shows_what_was_given() {
        for value in [
            json!(TEXT),
            json!([TEXT]),
            json!({TEXT: TEXT}),
            json!(48151623),
            json!(-48151623),
            json!(4815.1623),
            json!(true),
        ] {
            let error = serde_json::from_value::<SecretBytes>(value.clone()).expect_err("no base64").to_string();
            assert!(!error.contains(TEXT) && !error.contains("4815") && !error.contains("true"), "{value}: {error}");
        }
        let read = |value: Value| serde_json::from_value::<SecretBytes>(value).expect("readable");
        assert_eq!(read(json!("czNjcjN0")).expose(), b"s3cr3t");
        assert_eq!([read(json!("")), read(json!(null))], [SecretBytes::default(), SecretBytes::default()]);
    }

    #[test]
    fn the_size_has_a_limit() {
        let size = |size: usize| SecretContent { data: vec![0; size].into(), templating: None }.validate();
        assert_eq!([size(1), size(SECRET_BYTES_LIMIT - 1)], [Ok(()), Ok(())]);
        for bytes in [0, SECRET_BYTES_LIMIT] {
            let error = size(bytes).expect_err("refused").to_string();
            assert_eq!(
                error,
                format!("secret data must be larger than 0 and less than 512000 bytes: these are {bytes}")
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_kept(data: Vec<u8>) {
            let secret = SecretBytes::from(data.clone());
            let bytes = rmp_serde::to_vec_named(&secret).expect("it can be written");
            prop_assert_eq!(rmp_serde::from_slice::<SecretBytes>(&bytes).expect("it can be read"), secret.clone());
            let text = format!("\"{}\"", BASE64_STANDARD.encode(&data));
            prop_assert_eq!(serde_json::from_str::<SecretBytes>(&text).expect("base64"), secret);
        }

        #[test]
        fn any_log_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = rmp_serde::from_slice::<SecretContent>(&bytes);
        }
    }
}
