//! Durations in Go's notation, which Swarm's flags use: `1h2m3.5s`.

/// Units, longest name first where one begins another.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Digits of a fraction that are read; more would be below a nanosecond of the largest unit.
const FRACTION_DIGITS_MAX: usize = 18;

/// Reads a duration that is not negative, in nanoseconds: `1h2m3.5s`, `500ms`, `0`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let bad = || format!("'{text}' is not a duration; write for example 10s, 1m30s, 500ms or 1h");
    if text == "0" {
        return Ok(0);
    }
    if text.starts_with('-') {
        return Err(format!("a duration must not be negative, got '{text}'"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| {
            format!("'{text}' has a number without a unit; write for example {rest}s (units: ns, us, ms, s, m, h)")
        })?;
        let (number, tail) = rest.split_at(number_len);
        if number.is_empty() {
            return Err(bad());
        }
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let (_, unit_ns) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("'{text}' has the unknown unit '{unit}' (units: ns, us, ms, s, m, h)"))?;
        total = total.saturating_add(scaled(number, *unit_ns).ok_or_else(bad)?);
        rest = tail;
    }
    i64::try_from(total).map_err(|_| format!("'{text}' is too long, the limit is 292 years"))
}

/// A decimal number times a unit, cut to whole nanoseconds.
fn scaled(number: &str, unit_ns: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let digits: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = digits * u128::from(unit_ns) / 10_u128.pow(fraction.len() as u32);
    Some(u128::from(whole) * u128::from(unit_ns) + part)
}

/// Writes nanoseconds as Go does: `1h2m3.5s`, `1.5ms`, `0s`.
pub fn format_duration(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    let decimal = |unit: u64| {
        let fraction = format!("{:0width$}", ns % unit, width = unit.ilog10() as usize);
        match fraction.trim_end_matches('0') {
            "" => (ns / unit).to_string(),
            digits => format!("{}.{digits}", ns / unit),
        }
    };
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{ns}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(1_000_000)),
        _ => {
            let (minutes, rest) = (ns / 60_000_000_000, ns % 60_000_000_000);
            let fraction = format!("{:09}", rest % 1_000_000_000);
            let seconds = match fraction.trim_end_matches('0') {
                "" => format!("{}s", rest / 1_000_000_000),
                digits => format!("{}.{digits}s", rest / 1_000_000_000),
            };
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, m) => format!("{sign}{m}m{seconds}"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gos_notation() {
        for (text, ns) in [
            ("0", 0),
            ("10s", 10_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("1.5ms", 1_500_000),
            (".5s", 500_000_000),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("7ns", 7),
            ("+1m", 60_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "is not a duration"),
            ("10", "without a unit"),
            ("10 s", "unknown unit ' s'"),
            ("5d", "unknown unit 'd'"),
            ("-1s", "must not be negative"),
            ("1..2s", "is not a duration"),
            (".s", "is not a duration"),
            ("9999999h", "too long"),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn written_as_go_does() {
        for (ns, text) in [
            (0, "0s"),
            (5_000_000_000, "5s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (1_500_000, "1.5ms"),
            (1_050, "1.05µs"),
            (7, "7ns"),
        ] {
            assert_eq!(format_duration(ns), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(ns in 0..i64::MAX) {
            prop_assert_eq!(parse_duration(&format_duration(ns)), Ok(ns));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}|[0-9.hmsnuµ+-]{0,30}") {
            let _ = parse_duration(&text);
        }
    }
}
