//! CPUs as decimals, kept as billionths.

/// Decimal places: the API counts billionths.
const PLACES: usize = 9;

/// Reads a number of CPUs, in billionths: `0.5`, `2`, `1.25`.
///
/// # Errors
/// Says what is wrong with the text.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("'{text}' is not a number of CPUs; write for example 0.5 or 2");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(bad());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > PLACES {
        return Err(format!("'{text}' is too precise, a CPU has {PLACES} decimal places"));
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let part: i64 = format!("{fraction:0<PLACES$}").parse().map_err(|_| bad())?;
    whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(part)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_model::format_cpus;

    use super::*;

    #[test]
    fn decimals_become_billionths() {
        for (text, nano) in [("0.5", 500_000_000), ("2", 2_000_000_000), ("1.25", 1_250_000_000), (".001", 1_000_000)] {
            assert_eq!(parse_cpus(text), Ok(nano), "{text}");
        }
        for text in ["", ".", "-1", "x", "1e3", "1.2.3", "99999999999999999999"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
        assert!(parse_cpus("0.0000000001").is_err_and(|e| e.contains("too precise")));
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(nano in 0..i64::MAX) {
            prop_assert_eq!(parse_cpus(&format_cpus(nano)), Ok(nano));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}") {
            let _ = parse_cpus(&text);
        }
    }
}
