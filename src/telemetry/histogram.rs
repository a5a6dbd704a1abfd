//! Histograms of durations. All have the same bounds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::exemplar::{Exemplar, Exemplars};
use super::owned::{BUCKETS, OwnedHistogram, bucket};
use super::trace_context::TraceContext;

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// The number of observations in each bucket of [`BOUNDS_SECONDS`](super::BOUNDS_SECONDS), not cumulative. The last
    /// bucket has no upper bound.
    pub buckets: [u64; BUCKETS],
    /// The sum of all observations, in nanoseconds.
    pub sum_nanos: u64,
    pub(crate) exemplars: Vec<Exemplar>,
}

impl Histogram {
    /// Returns, for each bucket, the latest observation made in a sampled trace, in ascending order of the buckets.
    /// Empty without the feature `otel`.
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

    /// Adds the observations of `owned`.
    pub(crate) fn add(&mut self, owned: &OwnedHistogram) {
        let (buckets, sum_nanos) = owned.read();
        for (total, count) in self.buckets.iter_mut().zip(buckets) {
            *total += count;
        }
        self.sum_nanos = self.sum_nanos.saturating_add(sum_nanos);
    }

    /// Moves the observations of `other` here. Exemplars stay there.
    pub(crate) fn take_from(&mut self, other: &mut Self) {
        for (total, count) in self.buckets.iter_mut().zip(&mut other.buckets) {
            *total += std::mem::take(count);
        }
        self.sum_nanos = self.sum_nanos.saturating_add(std::mem::take(&mut other.sum_nanos));
    }

    /// Becomes a copy of `other`, reusing the allocated memory.
    pub(crate) fn set(&mut self, other: &Self) {
        (self.buckets, self.sum_nanos) = (other.buckets, other.sum_nanos);
        self.exemplars.clone_from(&other.exemplars);
    }

    /// Removes all observations, keeping the allocated memory.
    pub(crate) fn clear(&mut self) {
        (self.buckets, self.sum_nanos) = ([0; BUCKETS], 0);
        self.exemplars.clear();
    }

    /// Returns the number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// A histogram that any thread may write.
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
            self.exemplars.record(nanos, trace);
        }
    }

    /// Replaces the contents of `histogram` with the observations.
    pub(crate) fn read_into(&self, histogram: &mut Histogram) {
        // Read before the counts, so that every exemplar belongs to a counted observation.
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
    fn all_kinds_of_histograms_agree() {
        let mut plain = Histogram::default();
        let owned = OwnedHistogram::default();
        let shared = SharedHistogram::default();
        for nanos in [0, 1, 499_999, 500_001, 1_000_000, 7_000_000_000, 31_000_000_000] {
            plain.observe(nanos);
            owned.observe(nanos);
            shared.observe(nanos, None);
        }
        let (mut of_owned, mut of_shared) = (Histogram::default(), plain.clone());
        of_owned.add(&owned);
        shared.read_into(&mut of_shared);
        assert_eq!(plain, of_owned);
        assert_eq!(plain, of_shared);
        assert_eq!(plain.count(), 7);
        of_owned.add(&owned);
        assert_eq!((of_owned.count(), of_owned.sum_nanos), (14, 2 * plain.sum_nanos));
    }
}
