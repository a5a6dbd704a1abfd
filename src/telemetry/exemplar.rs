//! Examples of what a histogram counted: for each bucket the latest observation that a sampled trace made.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use super::histogram::{BUCKETS, bucket};
use super::trace::TraceContext;

/// An observation of a histogram, and the trace that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exemplar {
    /// What was observed.
    pub value: Duration,
    /// Where.
    pub trace: TraceContext,
    /// When it was counted.
    pub at: SystemTime,
}

impl Exemplar {
    /// The place of its bucket.
    pub(crate) fn bucket(&self) -> usize {
        bucket(super::clock::nanos(self.value))
    }
}

/// The latest exemplar of each bucket. Takes no room before the first one, and then that of as many as there are
/// buckets.
#[derive(Debug, Default)]
pub(crate) struct Exemplars(OnceLock<Box<Mutex<[Option<Exemplar>; BUCKETS]>>>);

impl Exemplars {
    /// Keeps an observation of which the trace is known. Waits for nobody: where another is just being kept, that one
    /// is as good.
    #[cold]
    pub(crate) fn keep(&self, nanos: u64, trace: TraceContext) {
        if let Ok(mut kept) = self.0.get_or_init(Box::default).try_lock() {
            kept[bucket(nanos)] = Some(Exemplar { value: Duration::from_nanos(nanos), trace, at: SystemTime::now() });
        }
    }

    /// Writes them to `exemplars`, those of smaller values first.
    pub(crate) fn read_into(&self, exemplars: &mut Vec<Exemplar>) {
        exemplars.clear();
        if let Some(kept) = self.0.get() {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            exemplars.extend(kept.iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_each_bucket_is_kept() {
        let exemplars = Exemplars::default();
        let mut read = Vec::new();
        exemplars.read_into(&mut read);
        assert!(read.is_empty() && exemplars.0.get().is_none());
        for (trace, nanos) in [(1, 40_000_000_000), (2, 300), (3, 400), (4, 30_000_000_001), (5, 500_001)] {
            exemplars.keep(nanos, TraceContext::new([trace; 16], [trace; 8]));
        }
        exemplars.read_into(&mut read);
        let read: Vec<_> = read.iter().map(|kept| (kept.bucket(), kept.trace.span_id[0], kept.value)).collect();
        let nanos = Duration::from_nanos;
        assert_eq!(read, [(0, 3, nanos(400)), (1, 5, nanos(500_001)), (15, 4, nanos(30_000_000_001))]);
    }
}
