//! Records of lookups and loads, which end with them also when they are dropped.

use tokio::time::Instant;

use crate::labels::{CacheResult, Outcome};
use crate::telemetry::caches::CacheStats;

/// A lookup, whose answer is recorded once.
pub(super) struct Lookup<'a> {
    stats: &'a CacheStats,
    is_answered: bool,
}

impl<'a> Lookup<'a> {
    pub(super) fn begin(stats: &'a CacheStats) -> Self {
        stats.begin();
        Self { stats, is_answered: false }
    }

    pub(super) fn answer(&mut self, result: CacheResult) {
        if !std::mem::replace(&mut self.is_answered, true) {
            self.stats.answer(result);
        }
    }
}

impl Drop for Lookup<'_> {
    fn drop(&mut self) {
        self.answer(CacheResult::Cancelled);
    }
}

/// A load, which is recorded when it is dropped.
pub(super) struct RecordedLoad<'a> {
    stats: &'a CacheStats,
    pub(super) began: Instant,
    /// Cancelled until it is known how the load ended.
    pub(super) outcome: Outcome,
}

impl<'a> RecordedLoad<'a> {
    pub(super) fn begin(stats: &'a CacheStats) -> Self {
        stats.begin_load();
        Self { stats, began: Instant::now(), outcome: Outcome::Cancelled }
    }
}

impl Drop for RecordedLoad<'_> {
    fn drop(&mut self) {
        let outcome = if std::thread::panicking() { Outcome::Error } else { self.outcome };
        self.stats.end_load(outcome, self.began.elapsed());
    }
}
