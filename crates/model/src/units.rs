//! Amounts as people read them.

/// Writes a size with up to four significant digits: `64MiB`, `1.5GiB`, `100B`.
pub fn format_bytes(bytes: i64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if size.abs() < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    let decimals = match size.abs() {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        s if s < 1000.0 => 1,
        _ => 0,
    };
    let number = format!("{size:.decimals$}");
    let number = if decimals == 0 { &number } else { number.trim_end_matches('0').trim_end_matches('.') };
    format!("{number}{unit}")
}

/// Writes billionths of a CPU as a decimal: `0.5`, `2`.
pub fn format_cpus(nano_cpus: i64) -> String {
    let n = nano_cpus.unsigned_abs();
    let sign = if nano_cpus < 0 { "-" } else { "" };
    let fraction = format!("{:09}", n % 1_000_000_000);
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{}", n / 1_000_000_000),
        digits => format!("{sign}{}.{digits}", n / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn written_with_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (100, "100B"),
            (64 << 20, "64MiB"),
            (3 << 29, "1.5GiB"),
            (25_274_793_984, "23.54GiB"),
            (1_047_552, "1023KiB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn any_size_is_written(bytes: i64) {
            prop_assert!(format_bytes(bytes).ends_with('B'));
        }
    }
}
