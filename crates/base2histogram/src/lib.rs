//! Histograms for openraft's own statistics, in place of the crate of this name (`[patch.crates-io]` in the workspace's
//! Cargo.toml). That one, at version 0.2.3, computes the tables of all sixteen precisions at its first use, 26 MB, of
//! which openraft needs 2 kB; it is used even when openraft's statistics are switched off, as they are here. An idle
//! manager was 47 MB for that reason alone. This has what openraft calls, with one bucket for each power of two.
//!
//! Delete it once the original makes its tables only as they are needed.

use std::{fmt, marker::PhantomData};

/// One for zero and one for each length of a number in bits.
const BUCKETS: usize = u64::BITS as usize + 1;

/// How often values of each length in bits were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    data: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// An empty histogram. Memory is taken by the first value.
    pub fn new() -> Self {
        Self { counts: Vec::new(), data: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts.resize(BUCKETS, 0);
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The least value of the bucket below whose end a share of the values lies; 0 if there are none.
    pub fn percentile(&self, share: f64) -> u64 {
        let wanted = (self.total() as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0_u64;
        let bucket = self.counts.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= wanted
        });
        match bucket {
            None | Some(0) => 0,
            Some(bits) => 1 << (bits - 1),
        }
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

/// Percentiles of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values there are.
    pub samples: u64,
    /// One in a thousand values is at most this.
    pub p0_1: u64,
    /// One in a hundred.
    pub p1: u64,
    /// Five in a hundred.
    pub p5: u64,
    /// One in ten.
    pub p10: u64,
    /// Half of them.
    pub p50: u64,
    /// Nine in ten.
    pub p90: u64,
    /// 99 in a hundred.
    pub p99: u64,
    /// 999 in a thousand.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p10, p50, p90, p99, .. } = self;
        write!(f, "{samples} values, 10 %: {p10}, 50 %: {p50}, 90 %: {p90}, 99 %: {p99}")
    }
}

/// Histograms with their names.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    lines: Vec<String>,
}

impl AsciiChart {
    /// Without histograms.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.lines.push(format!("{}: {}", name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_powers_of_two_below_the_values() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        (1..=1000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p50, stats.p99_9), (1000, 1, 256, 512));
    }

    #[test]
    fn the_ends_of_the_range_count() {
        let mut histogram = Histogram::<()>::new();
        histogram.record(0);
        histogram.record_n(u64::MAX, 3);
        assert_eq!((histogram.total(), histogram.percentile(0.25), histogram.percentile(1.0)), (4, 0, 1 << 63));
    }
}
