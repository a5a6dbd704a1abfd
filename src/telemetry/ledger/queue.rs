//! The lengths of a pool's queues, and for how long the queue for capacity was not empty.

use crate::labels::Phase;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, SeqCstU64};
use crate::telemetry::clock::Nanos;

/// One checkout that waits for a turn; one in the queue for capacity is 1.
const TURN: u64 = 1 << 32;
const QUEUED: u64 = TURN - 1;

/// The queue counters of a pool. Each change is made under the lock of a shard, so a reader that has locked all shards
/// reads values that belong together.
///
/// Aligned so that it shares neither a cache line nor a pair of lines with what every checkout reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Queue {
    /// The checkouts that wait for capacity, and those that wait for a turn: one word, so that a change of both is one.
    waiting: SeqCstU64,
    /// The sum of the times at which the queue became empty, less that of the times at which it was joined first. A sum
    /// does not depend on the order of the threads that add to it.
    saturated: AtomicU64,
    /// When the queue was joined first after it was empty for the last time.
    since: AtomicU64,
}

/// The queue counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueReading {
    /// The number of checkouts that wait for capacity.
    pub(crate) queued: usize,
    /// The number of checkouts that wait for a turn.
    pub(crate) turns: usize,
    /// Since when the queue has not been empty.
    pub(crate) saturated_since: Option<Nanos>,
    /// See [`Self::saturated_nanos`].
    saturated: u64,
}

fn of(phase: Option<Phase>) -> u64 {
    match phase {
        Some(Phase::Queue) => 1,
        Some(phase) if phase.is_wait_for_turn() => TURN,
        _ => 0,
    }
}

fn count(waiting: u64) -> usize {
    usize::try_from(waiting & QUEUED).unwrap_or(usize::MAX)
}

impl Queue {
    /// Records that a checkout has left a phase and entered another, under the lock of a shard. `is_queued` is what others
    /// read without a lock: it changes only with the first and the last one in the queue.
    #[inline]
    pub(crate) fn change(&self, left: Option<Phase>, entered: Option<Phase>, at: Nanos, is_queued: &AtomicBool) {
        let change = of(entered).wrapping_sub(of(left));
        if change == 0 {
            return;
        }
        // Before the change, so that a reader without a lock does not combine it with an earlier time, unless the last one
        // leaves at this moment.
        if entered == Some(Phase::Queue) && self.waiting.load(SeqCst) & QUEUED == 0 {
            self.since.fetch_max(at.as_nanos(), Relaxed);
        }
        let before = self.waiting.fetch_add(change, SeqCst);
        match (before & QUEUED, before.wrapping_add(change) & QUEUED) {
            (0, 1..) => {
                self.saturated.fetch_sub(at.as_nanos(), Relaxed);
                self.since.fetch_max(at.as_nanos(), Relaxed);
            }
            (1.., 0) => {
                self.saturated.fetch_add(at.as_nanos(), Relaxed);
            }
            _ => return,
        }
        // Another thread may change it in between: then the last one to store sees the last change.
        loop {
            let queued = count(self.waiting.load(SeqCst)) > 0;
            is_queued.store(queued, SeqCst);
            if (count(self.waiting.load(SeqCst)) > 0) == queued {
                return;
            }
        }
    }

    /// Returns since when the queue has not been empty, provided that it is not.
    #[inline]
    pub(crate) fn since(&self) -> Nanos {
        Nanos::from_nanos(self.since.load(Relaxed))
    }

    /// Returns how many checkouts wait for capacity or for a turn, without a lock.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = self.waiting.load(SeqCst);
        count(waiting) + count(waiting / TURN)
    }

    /// Reads the counters. They belong together if all shards are locked, and nearly so without a lock.
    pub(crate) fn read(&self) -> QueueReading {
        let waiting = self.waiting.load(SeqCst);
        let (queued, turns) = (count(waiting), count(waiting / TURN));
        let saturated_since = (queued > 0).then(|| self.since());
        QueueReading { queued, turns, saturated_since, saturated: self.saturated.load(Relaxed) }
    }
}

impl QueueReading {
    /// Returns for how long the queue was not empty, in nanoseconds.
    pub(crate) fn saturated_nanos(&self, now: Nanos) -> u64 {
        let until = if self.queued > 0 { self.saturated.wrapping_add(now.as_nanos()) } else { self.saturated };
        // Readings of the clock on two processors may differ slightly.
        u64::try_from(until.cast_signed()).unwrap_or(0)
    }
}
