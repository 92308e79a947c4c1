//! Sizes in bytes: `64m`, `4MiB`, `1.5g`. All suffixes are powers of 1024, as in Docker.

const SUFFIXES: &str = "kmgtp";

/// Reads a size in bytes.
///
/// # Errors
/// Says what is wrong with the text.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let bad = || format!("'{text}' is not a size; write for example 64m, 512k or 1.5g");
    let lower = text.trim().to_ascii_lowercase();
    let number_len = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, suffix) = lower.split_at(number_len);
    let suffix = suffix.trim_start();
    let letter = suffix.trim_end_matches('b').trim_end_matches('i');
    if !matches!(suffix.strip_prefix(letter), Some("" | "b" | "ib")) || (letter.is_empty() && suffix == "ib") {
        return Err(bad());
    }
    let power = match letter {
        "" => 0,
        one if one.len() == 1 => SUFFIXES.find(one).ok_or_else(bad)? as u32 + 1,
        _ => return Err(bad()),
    };
    let unit = 1024_u128.pow(power);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 18 {
        return Err(bad());
    }
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let digits: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| bad())? };
    let total = u128::from(whole) * unit + digits * unit / 10_u128.pow(fraction.len() as u32);
    i64::try_from(total).map_err(|_| format!("'{text}' is too large, the limit is 8 EiB"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn suffixes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("4MiB", 4 << 20),
            ("4 mb", 4 << 20),
            ("1.5g", 3 << 29),
            ("2k", 2048),
            ("1tib", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "m", "-1", "1x", "1.2.3m", "1mm", "1ib", "1kbb", "4 parsecs", ".5g"] {
            assert!(parse_bytes(text).is_err_and(|e| e.contains(text)), "{text}");
        }
        assert!(parse_bytes("99999999p").is_err_and(|e| e.contains("too large")));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}|[0-9]{0,6}[.]?[0-9]{0,4}[kmgtpKMGTP]?i?b?") {
            let _ = parse_bytes(&text);
        }
    }
}
