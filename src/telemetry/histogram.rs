//! Histograms of durations, all with the same bounds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cell::OwnedCounter;
use super::exemplar::{Exemplar, Exemplars};
use super::trace::TraceContext;

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

pub(super) const BUCKETS: usize = BOUNDS_NANOS.len() + 1;

/// The bucket for a duration: bounds are inclusive, as `le` says.
#[inline]
pub(super) fn bucket(nanos: u64) -> usize {
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
    pub(crate) exemplars: Vec<Exemplar>,
}

impl Histogram {
    /// The latest observation of each bucket that was made in a sampled trace, those of smaller values first. Always
    /// empty without the feature `otel`.
    #[must_use]
    pub fn exemplars(&self) -> &[Exemplar] {
        &self.exemplars
    }

    pub(crate) fn observe(&mut self, nanos: u64) {
        self.buckets[bucket(nanos)] += 1;
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
    }

    /// Adds `count` observations of zero.
    pub(crate) fn observe_zeros(&mut self, count: u64) {
        self.buckets[0] += count;
    }

    /// Counts what `other` has counted, in its place; the memory is kept.
    pub(crate) fn set(&mut self, other: &Self) {
        (self.buckets, self.sum_nanos) = (other.buckets, other.sum_nanos);
        self.exemplars.clone_from(&other.exemplars);
    }

    /// Forgets everything but the memory it had.
    pub(crate) fn clear(&mut self) {
        (self.buckets, self.sum_nanos) = ([0; BUCKETS], 0);
        self.exemplars.clear();
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

    /// Adds what it counted to `total`.
    pub(crate) fn add_to(&self, total: &mut Histogram) {
        for (total, count) in total.buckets.iter_mut().zip(&self.buckets) {
            *total += count.get();
        }
        total.sum_nanos = total.sum_nanos.saturating_add(self.sum_nanos.get());
    }
}

/// A histogram that anyone may write to.
#[derive(Debug, Default)]
pub(crate) struct SharedHistogram {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
    exemplars: Exemplars,
}

impl SharedHistogram {
    pub(crate) fn observe(&self, nanos: u64, trace: Option<TraceContext>) {
        self.sum_nanos.fetch_add(nanos, Relaxed);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        if let Some(trace) = trace {
            self.exemplars.keep(nanos, trace);
        }
    }

    /// Writes to `histogram` what it counted.
    pub(crate) fn read_into(&self, histogram: &mut Histogram) {
        // First: an example is of something that was counted.
        self.exemplars.read_into(&mut histogram.exemplars);
        for (read, count) in histogram.buckets.iter_mut().zip(&self.buckets) {
            *read = count.load(Relaxed);
        }
        histogram.sum_nanos = self.sum_nanos.load(Relaxed);
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
            shared.observe(nanos, None);
        }
        let (mut of_owned, mut of_shared) = (Histogram::default(), plain.clone());
        owned.add_to(&mut of_owned);
        shared.read_into(&mut of_shared);
        assert_eq!(plain, of_owned);
        assert_eq!(plain, of_shared);
        assert_eq!(plain.count(), 7);
        owned.add_to(&mut of_owned);
        assert_eq!((of_owned.count(), of_owned.sum_nanos), (14, 2 * plain.sum_nanos));
    }
}
