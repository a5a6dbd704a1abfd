//! What a ledger passes to the diagnosis of its pool, and what that derives.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::state::LedgerState;
use super::{Ledger, SnapshotBuffer};
use crate::telemetry::clock::Nanos;
use crate::telemetry::sizing::Sizing;
use crate::telemetry::verdict::{Diagnoser, Verdict};

/// After this time without a sample, a scrape is one: nothing samples the pool.
pub(super) const UNSAMPLED_INTERVAL: Duration = Duration::from_secs(2);

impl Ledger {
    /// Sets what derives [`PoolSnapshot::diagnosis`]. A second call has no effect.
    pub(crate) fn set_diagnoser(&self, diagnoser: Box<dyn Diagnoser>) {
        let _ = self.diagnoser.set(diagnoser);
    }

    /// Returns the last verdict about the pool, if it is diagnosed.
    pub(crate) fn verdict(&self) -> Option<Arc<Verdict>> {
        self.diagnoser.get()?.verdict()
    }

    /// Returns the last sizing of the pool, if its load is recorded.
    pub(super) fn sizing(&self) -> Option<Arc<Sizing>> {
        self.diagnoser.get()?.sizing()
    }

    /// Records the load, for the recommended size. Reads less than [`Self::sample`] does under the lock.
    pub(crate) fn record_load(&self) {
        let Some(diagnoser) = self.diagnoser.get() else { return };
        let now = self.clock.now();
        let reading = self.freeze().read_load(now);
        diagnoser.record(&reading);
    }

    /// Returns whether [`Self::size`] would replay the load now.
    pub(crate) fn is_size_due(&self) -> bool {
        self.diagnoser.get().is_some_and(|diagnoser| diagnoser.is_size_due(self.clock.now()))
    }

    /// Replays the recorded load if that is due, which takes some ten milliseconds.
    pub(crate) fn size(&self) {
        if let Some(diagnoser) = self.diagnoser.get() {
            diagnoser.size(self.clock.now(), &self.limits());
        }
    }

    /// Records the load and replays it if that is due, for a pool that no sampler samples. Returns whether it is one.
    pub(super) fn record_unsampled(&self, now: Nanos) -> bool {
        let is_unsampled = self.diagnoser.get().is_some_and(|diagnoser| diagnoser.is_due(now, UNSAMPLED_INTERVAL));
        if is_unsampled {
            self.record_load();
            // The size of a replaced pool is not reported, and its successor reads it under a lock.
            if !self.is_replaced() {
                self.size();
            }
        }
        is_unsampled
    }

    /// As [`Self::sample`], for a pool that no sampler samples. Then this is also what sizes it.
    pub(super) fn sample_unsampled(&self, buffer: &mut SnapshotBuffer) -> bool {
        self.record_unsampled(self.clock.now());
        self.sample(buffer, UNSAMPLED_INTERVAL, Duration::ZERO)
    }

    /// Reads a snapshot into a buffer and diagnoses it, unless the last one that was diagnosed is younger than
    /// `interval`. Returns whether it did. Of the waiters, only those whose task holds a connection are read, which
    /// bounds the time for which the lock is held. `late` is the delay of the caller's timer.
    pub(crate) fn sample(&self, buffer: &mut SnapshotBuffer, interval: Duration, late: Duration) -> bool {
        let now = self.clock.now();
        if !self.diagnoser.get().is_some_and(|diagnoser| diagnoser.is_due(now, interval)) {
            return false;
        }
        let now = self.read_with(buffer, LedgerState::read_sample);
        self.diagnose(now, late, buffer);
        true
    }

    /// Diagnoses a snapshot with holders, unless a sampler does so more often.
    pub(super) fn diagnose_if_due(&self, now: Nanos, buffer: &mut SnapshotBuffer) {
        if self.record_unsampled(now) {
            self.diagnose(now, Duration::ZERO, buffer);
        } else {
            buffer.set_diagnosis(self.verdict(), self.sizing());
        }
    }

    /// Passes a snapshot with holders to the diagnosis, and adds the verdict to it.
    fn diagnose(&self, now: Nanos, late: Duration, buffer: &mut SnapshotBuffer) {
        let Some(diagnoser) = self.diagnoser.get() else { return };
        diagnoser.observe(now, late, buffer.snapshot());
        let verdict = diagnoser.verdict();
        if let Some(verdict) = &verdict {
            self.log().diagnosed(verdict);
        }
        buffer.set_diagnosis(verdict, diagnoser.sizing());
        // The list is not locked while an observer works.
        let observers: Vec<_> = {
            let observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner);
            observers.iter().filter_map(Weak::upgrade).collect()
        };
        for observer in observers {
            observer.observe(now, late, buffer.snapshot());
        }
    }
}
