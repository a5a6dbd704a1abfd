//! The expected wait of a checkout that would join a queue now.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::time::Duration;

use super::Ledger;
use crate::telemetry::clock::{Nanos, nanos};

/// The length of a queue, and the expected wait in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) queued: usize,
    /// The expected wait of a checkout that joins the queue now.
    pub(crate) expected_wait: Duration,
}

/// The mean time between two checkouts that leave a queue served, as an exponential moving average.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServiceInterval {
    mean: u64,
    last: Nanos,
}

/// The reciprocal of a new interval's weight in the average.
const EWMA_DIVISOR: u64 = 4;

/// How long after the last served checkout the average is discarded.
const INTERVAL_TTL: Duration = Duration::from_secs(10);

impl ServiceInterval {
    /// Records that a checkout was served at `at`, in a queue that has not been empty since `since`.
    pub(super) fn served(&mut self, since: Nanos, at: Nanos) {
        let interval = at.since(since.max(self.last));
        self.mean = match self.mean(at) {
            0 => interval,
            mean => mean - mean / EWMA_DIVISOR + interval / EWMA_DIVISOR,
        };
        self.last = at;
    }

    /// Returns the mean in nanoseconds, or zero if it is unknown.
    fn mean(&self, now: Nanos) -> u64 {
        if now.since(self.last) > nanos(INTERVAL_TTL) { 0 } else { self.mean }
    }

    /// Returns one interval for each checkout ahead and one for the new checkout, plus the time since the last one was
    /// served.
    fn expected(&self, queued: usize, since: Nanos, now: Nanos) -> Duration {
        let position = u64::try_from(queued).unwrap_or(u64::MAX).saturating_add(1);
        let stalled = now.since(since.max(self.last));
        Duration::from_nanos(self.mean(now).saturating_mul(position).saturating_add(stalled))
    }
}

/// The service interval of a queue that several threads serve at once, without a lock. An update of the average may be lost
/// to another one at the same time; each interval begins where the one before has ended.
#[derive(Debug, Default)]
pub(super) struct SharedServiceInterval {
    mean: AtomicU64,
    last: AtomicU64,
}

impl SharedServiceInterval {
    /// See [`ServiceInterval::served`].
    #[inline]
    pub(super) fn served(&self, since: Nanos, at: Nanos) {
        // Discarded before others can take it for a recent one.
        if at.since(Nanos::from_nanos(self.last.load(Relaxed))) > nanos(INTERVAL_TTL) {
            self.mean.store(0, Relaxed);
        }
        let last = Nanos::from_nanos(self.last.fetch_max(at.as_nanos(), AcqRel));
        let mut interval = ServiceInterval { mean: self.mean.load(Relaxed), last };
        interval.served(since, at);
        self.mean.store(interval.mean, Relaxed);
    }

    fn get(&self) -> ServiceInterval {
        let last = Nanos::from_nanos(self.last.load(Acquire));
        ServiceInterval { mean: self.mean.load(Relaxed), last }
    }
}

impl Ledger {
    /// Returns the queue for capacity and the expected wait in it. The queue counts as empty while there is capacity: a
    /// queued checkout is then about to be served, or is no longer polled. Takes no lock if the queue is empty, and
    /// otherwise only that of the connections, because a pool that is overloaded is asked by each request.
    pub(crate) fn backlog(&self) -> Backlog {
        if !self.hints.is_queued() {
            return Backlog::default();
        }
        let connections = self.connections();
        if connections.idle > 0 || connections.live() < self.limits().max() {
            return Backlog::default();
        }
        let queue = self.contended.queue.read();
        let Some(since) = queue.saturated_since else { return Backlog::default() };
        let expected_wait = self.contended.service_interval.get().expected(queue.queued, since, self.clock.now());
        Backlog { queued: queue.queued, expected_wait }
    }
}

/// Tracks a queue for something other than the pool's capacity.
#[derive(Debug, Default)]
pub(crate) struct QueueTracker {
    waiting: usize,
    /// Since when the queue has not been empty.
    since: Nanos,
    service_interval: ServiceInterval,
}

impl QueueTracker {
    pub(crate) fn join(&mut self, at: Nanos) {
        if self.waiting == 0 {
            self.since = at;
        }
        self.waiting += 1;
    }

    /// Records that a waiter leaves the queue, served or not.
    pub(crate) fn leave(&mut self, served: bool, at: Nanos) {
        self.waiting = self.waiting.saturating_sub(1);
        if served {
            self.service_interval.served(self.since, at);
        }
    }

    pub(crate) fn backlog(&self, now: Nanos) -> Backlog {
        match self.waiting {
            0 => Backlog::default(),
            queued => Backlog { queued, expected_wait: self.service_interval.expected(queued, self.since, now) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Nanos {
        Nanos::from_nanos(millis * 1_000_000)
    }

    fn millis(wait: Duration) -> u128 {
        wait.as_millis()
    }

    #[test]
    fn expected_wait_grows_with_queue_length() {
        let mut interval = ServiceInterval::default();
        for served in 1..=50 {
            interval.served(at(0), at(served * 10));
        }
        assert_eq!(millis(interval.expected(4, at(0), at(500))), 50);
        assert_eq!(millis(interval.expected(9, at(0), at(500))), 100);
    }

    #[test]
    fn expected_wait_grows_while_queue_is_stalled() {
        let mut interval = ServiceInterval::default();
        assert_eq!(millis(interval.expected(3, at(0), at(700))), 700, "no checkout has been served yet");
        interval.served(at(0), at(10));
        assert_eq!(millis(interval.expected(0, at(0), at(10))), 10);
        assert_eq!(millis(interval.expected(0, at(0), at(2010))), 2010);
        assert_eq!(millis(interval.expected(0, at(0), at(20_010))), 20_000);
    }

    #[test]
    fn time_without_a_queue_is_not_counted() {
        let mut interval = ServiceInterval::default();
        interval.served(at(0), at(10));
        interval.served(at(60), at(70));
        assert_eq!(millis(interval.expected(0, at(60), at(70))), 10);
        assert_eq!(millis(interval.expected(0, at(900), at(900))), 10, "only the interval is known for a new queue");
    }

    #[test]
    fn old_interval_is_discarded() {
        let mut interval = ServiceInterval::default();
        interval.served(at(0), at(5_000));
        assert_eq!(millis(interval.expected(1, at(3_600_000), at(3_600_001))), 1);
        interval.served(at(3_600_000), at(3_600_002));
        assert_eq!(millis(interval.expected(0, at(3_600_000), at(3_600_002))), 2);
    }

    #[test]
    fn average_follows_changes() {
        let mut interval = ServiceInterval::default();
        let mut now = 0;
        for step in std::iter::repeat_n(10, 100).chain(std::iter::repeat_n(100, 20)) {
            now += step;
            interval.served(at(0), at(now));
        }
        let expected = millis(interval.expected(0, at(0), at(now)));
        assert!((95..=100).contains(&expected), "{expected}");
    }

    #[test]
    fn threads_that_serve_one_queue_share_its_interval() {
        const THREADS: u64 = 4;
        const SERVED: u64 = 10_000;
        let interval = SharedServiceInterval::default();
        let next = AtomicU64::new(1);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..SERVED).for_each(|_| interval.served(at(0), at(next.fetch_add(1, Relaxed) * 10))));
            }
        });
        let end = THREADS * SERVED * 10;
        assert_eq!(interval.get().last, at(end));
        // The threads have all served the same queue, once every 10 ms together.
        for _ in 0..50 {
            interval.served(at(0), at(next.fetch_add(1, Relaxed) * 10));
        }
        assert_eq!(millis(interval.get().expected(4, at(0), at(end + 500))), 50);
        // A queue that was empty for longer than the time between two checkouts.
        interval.served(at(end + 1000), at(end + 1010));
        assert_eq!(millis(interval.get().expected(4, at(end + 1000), at(end + 1010))), 50);
    }

    #[test]
    fn queue_tracker_counts_current_waiters() {
        let mut queue = QueueTracker::default();
        assert_eq!(queue.backlog(at(5)), Backlog::default());
        queue.join(at(10));
        queue.join(at(20));
        queue.leave(false, at(30));
        assert_eq!(queue.backlog(at(30)), Backlog { queued: 1, expected_wait: Duration::from_millis(20) });
        queue.leave(true, at(40));
        assert_eq!(queue.backlog(at(50)), Backlog::default());
        queue.join(at(60));
        assert_eq!(millis(queue.backlog(at(60)).expected_wait), 60, "one ahead and itself, at 30 ms each");
    }
}
