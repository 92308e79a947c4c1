//! The passphrase of a backup, in a header: the body is the backup itself, and a query would be logged.

use base64::{Engine, prelude::BASE64_STANDARD};
use swarm_model::Redacted;

use crate::ApiError;

/// The header: base64 of the passphrase in UTF-8.
pub const PASSPHRASE_HEADER: &str = "x-swarmd-passphrase";
/// Content type of a backup.
pub const CONTENT_TYPE_BACKUP: &str = "application/vnd.swarmd.backup";
/// The shortest passphrase that seals a backup, in characters. Each guess costs some tenths of a second; with fewer
/// characters a year of guessing on one machine would do for what people choose.
pub const PASSPHRASE_CHARS_MIN: usize = 12;
/// The longest passphrase, in bytes: a key in hexadecimal has 64, a sentence a few hundred.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

/// The header's value.
pub fn write_passphrase(passphrase: &Redacted) -> String {
    BASE64_STANDARD.encode(passphrase.expose())
}

/// Reads the header.
///
/// # Errors
/// 400, without a word of what the header says.
pub fn read_passphrase(header: Option<&[u8]>) -> Result<Redacted, ApiError> {
    let bad = |why: String| ApiError::bad_request(format!("the passphrase of the backup ({PASSPHRASE_HEADER}): {why}"));
    let header = header.ok_or_else(|| bad("it is missing".into()))?;
    // Four characters of base64 carry three bytes.
    let bytes = match header.len() <= PASSPHRASE_BYTES_MAX / 3 * 4 + 4 {
        true => BASE64_STANDARD.decode(header).map_err(|_| bad("it is not base64".into()))?,
        false => return Err(bad(format!("it is longer than {PASSPHRASE_BYTES_MAX} bytes"))),
    };
    let text = String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8".into()))?;
    if text.is_empty() {
        return Err(bad("it is empty".into()));
    }
    Ok(Redacted::new(text))
}

/// Refuses a passphrase that is too short to seal a backup.
///
/// # Errors
/// 400.
pub fn check_passphrase(passphrase: &Redacted) -> Result<(), ApiError> {
    match passphrase.expose().chars().count() {
        count if count < PASSPHRASE_CHARS_MIN => Err(ApiError::bad_request(format!(
            "the passphrase has {count} characters, at least {PASSPHRASE_CHARS_MIN} are needed: the backup holds the \
             keys of the whole swarm"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_and_missing_ones_are_refused() {
        assert!(read_passphrase(None).expect_err("refused").message.contains("missing"));
        assert!(read_passphrase(Some(b"")).expect_err("refused").message.contains("empty"));
        let long = write_passphrase(&Redacted::new("x".repeat(PASSPHRASE_BYTES_MAX + 9)));
        assert!(read_passphrase(Some(long.as_bytes())).expect_err("refused").message.contains("longer"));
        let error = check_passphrase(&Redacted::new("hunter2hunt")).expect_err("refused");
        assert!(error.status == 400 && error.message.contains("11 characters") && !error.message.contains("hunter"));
        assert_eq!(check_passphrase(&Redacted::new("zwölf Zeichen")), Ok(()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in "\\PC{1,200}") {
            let header = write_passphrase(&Redacted::new(&*text));
            prop_assert_eq!(read_passphrase(Some(header.as_bytes())), Ok(Redacted::new(text)));
        }

        #[test]
        fn any_header_is_read_or_refused(header: Vec<u8>) {
            let _ = read_passphrase(Some(&header));
        }
    }
}
