//! `KEY=VALUE` flags.

/// The largest permission bits.
pub(super) const MODE_MAX: u32 = 0o7777;

/// Reads permission bits in octal digits.
pub(super) fn parse_octal(digits: &str) -> Option<u32> {
    // `from_str_radix` takes a sign as well.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(digits, 8).ok().filter(|mode| is_number && *mode <= MODE_MAX)
}

/// A key with its value; a label may have none.
pub(super) type Pair = (String, String);

/// Reads `KEY=VALUE` or `KEY`.
///
/// # Errors
/// Without a key.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err(format!("'{text}' has no name; write KEY=VALUE"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// Without a key or without a value.
pub(super) fn parse_pair(text: &str) -> Result<Pair, String> {
    if !text.contains('=') {
        return Err(format!("'{text}' has no value; write KEY=VALUE"));
    }
    parse_label(text)
}
