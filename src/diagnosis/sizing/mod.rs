//! From the recorded load to a recommended size.
//!
//! - [`recording`] keeps the arrivals and use times of the last half hour;
//! - [`held`] finds time for which connections were held without a use that the pool could serve;
//! - [`trace`] makes checkouts of the recording, with the time at which each arrives and how long it uses a connection;
//! - [`replay`] passes them through a queue with n servers, for different n.
//!
//! The same readings yield the same size: random numbers have a constant seed.

mod held;
mod recording;
mod replay;
mod trace;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::held::HeldTimes;
use self::recording::{Load, Recording};
use self::replay::size;
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::sizing::{LoadReading, MIN_CHECKOUTS, MIN_RECORDED};
use crate::telemetry::{Limits, PoolSnapshot, Sizing, Verdict};

/// The time between two replays: a quarter of what was recorded, within these bounds.
const MIN_REPLAY_INTERVAL: Duration = Duration::from_secs(10);
const MAX_REPLAY_INTERVAL: Duration = Duration::from_secs(60);

/// After this time, it is checked again whether enough was recorded.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// A fault begins this long before its conditions hold: most measures cover the last 15 s.
const FAULT_LEAD: Duration = Duration::from_secs(15);

/// The sizing of one pool.
#[derive(Debug, Default)]
pub(super) struct Sizer {
    recording: Mutex<Recording>,
    held: Mutex<HeldTimes>,
    published: Mutex<Option<Arc<Sizing>>>,
    /// When the next replay is due, in nanoseconds.
    due: AtomicU64,
    /// Held while the load is replayed.
    replaying: Mutex<()>,
}

impl Sizer {
    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn published(&self) -> MutexGuard<'_, Option<Arc<Sizing>>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self, reading: &LoadReading) {
        self.recording().push(reading);
    }

    /// Uses a sample, and the verdict as of this sample.
    pub(super) fn observe(&self, now: Nanos, snapshot: &PoolSnapshot, verdict: Option<&Verdict>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = held.observe(now, snapshot);
        drop(held);
        let mut recording = self.recording();
        for (held, left_out) in ended {
            recording.leave_out(held, left_out);
        }
        match verdict.filter(|verdict| verdict.withholds_size()) {
            Some(verdict) => {
                let since = now.since(Nanos::ZERO).saturating_sub(nanos(verdict.lasting + FAULT_LEAD));
                if recording.exclude_since(Nanos::from_nanos(since)) {
                    // The last replay may include the beginning of the fault.
                    self.due.store(0, Relaxed);
                }
            }
            None => recording.include(),
        }
    }

    pub(super) fn is_due(&self, now: Nanos) -> bool {
        now.as_nanos() >= self.due.load(Relaxed)
    }

    /// Replays the recorded load, if that is due and not under way.
    pub(super) fn size(&self, now: Nanos, limits: &Limits) {
        if !self.is_due(now) {
            return;
        }
        let Ok(_replaying) = self.replaying.try_lock() else { return };
        let load = self.recording().load();
        let interval = if is_enough(&load) {
            (load.recorded() / 4).clamp(MIN_REPLAY_INTERVAL, MAX_REPLAY_INTERVAL)
        } else {
            RETRY_INTERVAL
        };
        self.due.store(now.after(interval).as_nanos(), Relaxed);
        let sizing = if is_enough(&load) { size(&load, limits) } else { None };
        *self.published() = sizing.map(Arc::new);
    }

    pub(super) fn sizing(&self) -> Option<Arc<Sizing>> {
        self.published().clone()
    }
}

fn is_enough(load: &Load) -> bool {
    load.checkouts() >= MIN_CHECKOUTS && load.recorded() >= MIN_RECORDED
}
