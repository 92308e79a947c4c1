//! Registry credentials in the header `X-Registry-Auth`.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};
use swarm_model::Redacted;

use crate::ApiError;

/// Longest header that is taken. Tokens of cloud registries are a few thousand bytes; it is stored with the service.
pub const REGISTRY_AUTH_BYTES_MAX: usize = 32 << 10;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE_LENIENT: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
const STANDARD_LENIENT: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

/// Reads the header: base64url of a JSON object. An absent header and an empty object mean no credentials.
/// The text is kept as it came, for the engine that pulls.
///
/// # Errors
/// 400, without a word of what the header says.
pub fn read_registry_auth(header: Option<&[u8]>) -> Result<Option<Redacted>, ApiError> {
    let bad = |why: &str| ApiError::bad_request(format!("invalid X-Registry-Auth header: {why}"));
    let header = header.unwrap_or_default().trim_ascii();
    if header.is_empty() {
        return Ok(None);
    }
    if header.len() > REGISTRY_AUTH_BYTES_MAX {
        return Err(bad(&format!("{} bytes are too many, the limit is {REGISTRY_AUTH_BYTES_MAX}", header.len())));
    }
    let text = std::str::from_utf8(header).map_err(|_| bad("it is not base64"))?;
    let json = URL_SAFE_LENIENT
        .decode(text)
        .or_else(|_| STANDARD_LENIENT.decode(text))
        .map_err(|_| bad("it is not base64"))?;
    let object: Map<String, Value> =
        serde_json::from_slice(&json).map_err(|_| bad("it is not a JSON object in base64"))?;
    Ok((!object.is_empty()).then(|| Redacted::new(text)))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_are_kept_as_they_came() {
        let json = br#"{"username":"u","password":"p?>~"}"#;
        for text in [
            general_purpose::URL_SAFE.encode(json),
            general_purpose::URL_SAFE_NO_PAD.encode(json),
            general_purpose::STANDARD.encode(json),
        ] {
            assert_eq!(read_registry_auth(Some(text.as_bytes())), Ok(Some(Redacted::new(text))));
        }
        for none in [None, Some(&b""[..]), Some(b"e30="), Some(b"e30")] {
            assert_eq!(read_registry_auth(none), Ok(None));
        }
    }

    #[test]
    fn errors_do_not_quote_it() {
        let long = vec![b'a'; REGISTRY_AUTH_BYTES_MAX + 1];
        for bad in [&b"hunter2!"[..], b"aHVudGVyMg", b"\xff\xfe", &long] {
            let error = read_registry_auth(Some(bad)).expect_err("refused");
            assert!(error.status == 400 && !error.message.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(header: Vec<u8>) {
            let _ = read_registry_auth(Some(&header));
        }
    }
}
