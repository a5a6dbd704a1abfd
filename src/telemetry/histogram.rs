//! Histograms of durations, all with the same bounds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cell::OwnedCounter;

/// Upper bounds in seconds, as they stand in the `le` label.
pub const BOUNDS_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

const BOUNDS_NANOS: [u64; 15] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

const BUCKETS: usize = BOUNDS_NANOS.len() + 1;

/// The bucket for a duration: bounds are inclusive, as `le` says.
#[inline]
fn bucket(nanos: u64) -> usize {
    BOUNDS_NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BUCKETS - 1)
}

/// Counts by bucket (not cumulative; the last one has no upper bound) and the sum of what was observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// Observations by bucket, each counted once.
    pub buckets: [u64; BUCKETS],
    /// The sum of all observations, in nanoseconds.
    pub sum_nanos: u64,
}

impl Histogram {
    pub(crate) fn observe(&mut self, nanos: u64) {
        self.buckets[bucket(nanos)] += 1;
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
    }

    /// Adds `count` observations of zero.
    pub(crate) fn observe_zeros(&mut self, count: u64) {
        self.buckets[0] += count;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }

    /// How many observations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A histogram with one writer at a time.
#[derive(Debug, Default)]
pub(crate) struct OwnedHistogram {
    buckets: [OwnedCounter; BUCKETS],
    sum_nanos: OwnedCounter,
}

impl OwnedHistogram {
    #[inline]
    pub(crate) fn observe(&self, nanos: u64) {
        self.buckets[bucket(nanos)].add(1);
        self.sum_nanos.add(nanos);
    }

    pub(crate) fn read(&self) -> Histogram {
        Histogram { buckets: std::array::from_fn(|i| self.buckets[i].get()), sum_nanos: self.sum_nanos.get() }
    }
}

/// A histogram that anyone may write to.
#[derive(Debug, Default)]
pub(crate) struct SharedHistogram {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

impl SharedHistogram {
    pub(crate) fn observe(&self, nanos: u64) {
        self.sum_nanos.fetch_add(nanos, Relaxed);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|i| self.buckets[i].load(Relaxed)),
            sum_nanos: self.sum_nanos.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_in_nanoseconds_and_in_seconds_are_the_same() {
        for (nanos, seconds) in BOUNDS_NANOS.iter().zip(BOUNDS_SECONDS) {
            assert_eq!(*nanos, (seconds * 1e9).round() as u64);
        }
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_it_closes() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(500_000), 0);
        assert_eq!(bucket(500_001), 1);
        assert_eq!(bucket(30_000_000_000), 14);
        assert_eq!(bucket(30_000_000_001), 15);
        assert_eq!(bucket(u64::MAX), 15);
    }

    #[test]
    fn all_three_kinds_agree() {
        let mut plain = Histogram::default();
        let owned = OwnedHistogram::default();
        let shared = SharedHistogram::default();
        for nanos in [0, 1, 499_999, 500_001, 1_000_000, 7_000_000_000, 31_000_000_000] {
            plain.observe(nanos);
            owned.observe(nanos);
            shared.observe(nanos);
        }
        assert_eq!(plain, owned.read());
        assert_eq!(plain, shared.read());
        assert_eq!(plain.count(), 7);
    }
}
