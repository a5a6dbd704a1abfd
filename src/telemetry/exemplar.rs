//! Exemplars: for each bucket of a histogram, the latest observation made in a sampled trace.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use super::clock::nanos;
use super::owned::{BUCKETS, bucket};
use super::trace_context::TraceContext;

/// An observation of a histogram, and the span in which it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exemplar {
    /// The observed value.
    pub value: Duration,
    /// The span in which it was observed.
    pub trace: TraceContext,
    /// When it was recorded.
    pub at: SystemTime,
}

impl Exemplar {
    /// Returns the index of the bucket that the value belongs to.
    pub(crate) fn bucket(&self) -> usize {
        bucket(nanos(self.value))
    }
}

/// The latest exemplar of each bucket. Allocated when the first one is recorded.
#[derive(Debug, Default)]
pub(crate) struct Exemplars(OnceLock<Box<Mutex<[Option<Exemplar>; BUCKETS]>>>);

impl Exemplars {
    /// Records an observation as the exemplar of its bucket. Does not block: if another thread is recording one, this
    /// one is skipped.
    #[cold]
    pub(crate) fn record(&self, nanos: u64, trace: TraceContext) {
        if let Ok(mut exemplars) = self.0.get_or_init(Box::default).try_lock() {
            let exemplar = Exemplar { value: Duration::from_nanos(nanos), trace, at: SystemTime::now() };
            exemplars[bucket(nanos)] = Some(exemplar);
        }
    }

    /// Replaces the contents of `output` with the exemplars, in ascending order of their buckets.
    pub(crate) fn read_into(&self, output: &mut Vec<Exemplar>) {
        output.clear();
        if let Some(exemplars) = self.0.get() {
            let exemplars = exemplars.lock().unwrap_or_else(PoisonError::into_inner);
            output.extend(exemplars.iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_exemplar_of_each_bucket_is_kept() {
        let exemplars = Exemplars::default();
        let mut read = Vec::new();
        exemplars.read_into(&mut read);
        assert!(read.is_empty() && exemplars.0.get().is_none());
        for (trace, nanos) in [(1, 40_000_000_000), (2, 300), (3, 400), (4, 30_000_000_001), (5, 500_001)] {
            exemplars.record(nanos, TraceContext::new([trace; 16], [trace; 8]));
        }
        exemplars.read_into(&mut read);
        let read: Vec<_> = read.iter().map(|kept| (kept.bucket(), kept.trace.span_id[0], kept.value)).collect();
        let nanos = Duration::from_nanos;
        assert_eq!(read, [(0, 3, nanos(400)), (1, 5, nanos(500_001)), (15, 4, nanos(30_000_000_001))]);
    }
}
