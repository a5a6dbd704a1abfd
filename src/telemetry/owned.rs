//! Counters and histograms with a single writer at a time, and the bucket bounds that all histograms share.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The upper bounds of the buckets in seconds, as in the `le` label.
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

/// The number of buckets: one for each bound, and one without an upper bound.
pub(crate) const BUCKETS: usize = BOUNDS_NANOS.len() + 1;

/// Returns the index of the bucket for a duration. Bounds are inclusive, as in the `le` label.
#[inline]
pub(super) fn bucket(nanos: u64) -> usize {
    BOUNDS_NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BUCKETS - 1)
}

/// A counter that only one thread at a time may write and any thread may read.
///
/// An increment is a load and a store instead of a locked read-modify-write: 0.5 ns, where `fetch_add` takes 2.3 ns, or
/// 10 ns under contention. Handing the right to write to another thread needs synchronization, such as the pool's lock.
#[derive(Debug, Default)]
pub(crate) struct OwnedCounter(AtomicU64);

impl OwnedCounter {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram of use times that only one thread at a time may write; see [`OwnedCounter`]. It keeps a sum for each
/// bucket, so that the recorded uses can be replayed: one more sum costs an observation nothing.
#[derive(Debug, Default)]
pub(crate) struct OwnedUseTimes {
    buckets: [UseBucket; BUCKETS],
}

#[derive(Debug, Default)]
struct UseBucket {
    count: OwnedCounter,
    nanos: OwnedCounter,
}

impl OwnedUseTimes {
    #[inline]
    pub(crate) fn observe(&self, nanos: u64) {
        let bucket = &self.buckets[bucket(nanos)];
        bucket.count.add(1);
        bucket.nanos.add(nanos);
    }

    /// Adds the observations to `totals`.
    pub(crate) fn add_to(&self, totals: &mut UseTimes) {
        for (index, bucket) in self.buckets.iter().enumerate() {
            totals.counts[index] += bucket.count.get();
            totals.nanos[index] = totals.nanos[index].wrapping_add(bucket.nanos.get());
        }
    }
}

/// Use times, by bucket: how many, and their sum in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UseTimes {
    pub(crate) counts: [u64; BUCKETS],
    pub(crate) nanos: [u64; BUCKETS],
}

impl UseTimes {
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(crate) fn sum_nanos(&self) -> u64 {
        self.nanos.iter().fold(0, |sum, nanos| sum.saturating_add(*nanos))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for index in 0..BUCKETS {
            self.counts[index] = self.counts[index].saturating_add(other.counts[index]);
            self.nanos[index] = self.nanos[index].saturating_add(other.nanos[index]);
        }
    }

    /// Returns what was added since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            counts: std::array::from_fn(|index| self.counts[index].saturating_sub(before.counts[index])),
            nanos: std::array::from_fn(|index| self.nanos[index].saturating_sub(before.nanos[index])),
        }
    }

    /// Adds one use.
    pub(crate) fn observe(&mut self, nanos: u64) {
        let index = bucket(nanos);
        self.counts[index] += 1;
        self.nanos[index] = self.nanos[index].saturating_add(nanos);
    }

    /// Returns the bounds of a bucket in nanoseconds. The last one has none; twice its lower bound is returned.
    pub(crate) fn bounds(index: usize) -> (u64, u64) {
        let lower = if index == 0 { 0 } else { BOUNDS_NANOS[index - 1] };
        (lower, BOUNDS_NANOS.get(index).copied().unwrap_or(2 * lower))
    }
}

/// A histogram that only one thread at a time may write; see [`OwnedCounter`].
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

    /// Returns the count of each bucket, and the sum in nanoseconds.
    pub(super) fn read(&self) -> (impl Iterator<Item = u64>, u64) {
        (self.buckets.iter().map(OwnedCounter::get), self.sum_nanos.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_in_nanoseconds_and_seconds_agree() {
        for (nanos, seconds) in BOUNDS_NANOS.iter().zip(BOUNDS_SECONDS) {
            assert_eq!(*nanos, (seconds * 1e9).round() as u64);
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(500_000), 0);
        assert_eq!(bucket(500_001), 1);
        assert_eq!(bucket(30_000_000_000), 14);
        assert_eq!(bucket(30_000_000_001), 15);
        assert_eq!(bucket(u64::MAX), 15);
    }
}
