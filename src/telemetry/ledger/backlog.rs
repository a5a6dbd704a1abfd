//! The expected wait of a checkout that would join a queue now.

use std::time::Duration;

use super::shards::MAX_SHARDS;
use super::{Connections, Ledger};
use crate::telemetry::clock::{Nanos, nanos, to_f64};

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

    /// Returns the interval in a queue that several threads have served, each of which has recorded its own. A thread that
    /// serves no more counts less and less.
    fn of_all(all: impl Iterator<Item = Self>) -> Self {
        let mut intervals = [Self::default(); MAX_SHARDS];
        intervals.iter_mut().zip(all).for_each(|(copy, interval)| *copy = interval);
        let last = intervals.iter().map(|interval| interval.last).max().unwrap_or_default();
        let means = intervals.iter().map(|interval| match interval.mean(last) {
            0 => 0,
            mean => mean.max(last.since(interval.last)),
        });
        // The rates add up.
        let rate: f64 = means.filter(|mean| *mean > 0).map(|mean| to_f64(mean).recip()).sum();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of nanoseconds")]
        let mean = if rate > 0.0 { rate.recip().round() as u64 } else { 0 };
        Self { mean, last }
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

impl Ledger {
    /// Returns the queue for capacity and the expected wait in it. The queue counts as empty while there is capacity: a
    /// queued checkout is then about to be served, or is no longer polled. Takes no lock if the queue is empty, and
    /// otherwise reads only this, because a pool that is overloaded is asked by each request.
    pub(crate) fn backlog(&self) -> Backlog {
        if !self.hints.is_queued() {
            return Backlog::default();
        }
        let connections = Connections::of(self.state().states());
        if connections.idle > 0 || connections.live() < self.limits().max() {
            return Backlog::default();
        }
        let (queue, service_interval) = {
            let mut shards = self.waiting.all();
            (
                self.contended.queue.read(),
                ServiceInterval::of_all(shards.totals().map(|totals| totals.service_interval)),
            )
        };
        let Some(since) = queue.saturated_since else { return Backlog::default() };
        let expected_wait = service_interval.expected(queue.queued, since, self.clock.now());
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
    fn threads_that_serve_one_queue_add_up() {
        let wait = |intervals: &[ServiceInterval], now| {
            let all = ServiceInterval::of_all(intervals.iter().copied());
            // Rounded: nanoseconds are lost in the averages.
            (all.expected(4, at(0), at(now)).as_micros() + 500) / 1000
        };
        let mut all = [ServiceInterval::default(); 3];
        for served in 0..50 {
            // One every 10 ms, by two threads in turn.
            all[served % 2].served(at(0), at(10 + 10 * served as u64));
        }
        assert_eq!(wait(&all, 500), 50);
        // One of them continues.
        for served in 51..=1000 {
            all[0].served(at(0), at(served * 10));
        }
        assert_eq!(wait(&all, 10_000), 50);
        assert_eq!(wait(&all[..1], 10_000), 50);
        assert_eq!(wait(&[], 10), 10);
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
