//! How long one more would wait in the queue.

use std::time::Duration;

use super::books::Books;
use crate::telemetry::clock::Nanos;

/// Who waits for capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) queued: usize,
    /// For how long one who comes now can expect to wait.
    pub(crate) expected_wait: Duration,
}

/// How fast the queue moves: the time between two that leave it with a connection, a mean that forgets.
#[derive(Debug, Default)]
pub(super) struct Pace {
    interval: u64,
    last: Nanos,
}

/// A new interval counts for one part in so many.
const WEIGHT: u64 = 8;

impl Pace {
    /// One got a connection, out of a queue that has been there since then.
    pub(super) fn served(&mut self, since: Nanos, at: Nanos) {
        let interval = at.since(since.max(self.last));
        self.last = at;
        self.interval = match self.interval {
            0 => interval,
            mean => mean - mean / WEIGHT + interval / WEIGHT,
        };
    }

    /// One interval for each that is before, and for oneself; and for how long nothing has moved.
    fn expected(&self, queued: usize, since: Nanos, now: Nanos) -> Duration {
        let places = u64::try_from(queued).unwrap_or(u64::MAX).saturating_add(1);
        let stands = now.since(since.max(self.last));
        Duration::from_nanos(self.interval.saturating_mul(places).saturating_add(stands))
    }
}

impl Books {
    pub(super) fn backlog(&self, now: Nanos) -> Backlog {
        match self.saturated_since {
            Some(since) => Backlog { queued: self.queued, expected_wait: self.pace.expected(self.queued, since, now) },
            None => Backlog::default(),
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
    fn one_more_waits_for_all_who_are_before() {
        let mut pace = Pace::default();
        for served in 1..=50 {
            pace.served(at(0), at(served * 10));
        }
        assert_eq!(millis(pace.expected(4, at(0), at(500))), 50);
        assert_eq!(millis(pace.expected(9, at(0), at(500))), 100);
    }

    #[test]
    fn a_queue_that_does_not_move_promises_more_and_more() {
        let mut pace = Pace::default();
        assert_eq!(millis(pace.expected(3, at(0), at(700))), 700, "nobody was ever served");
        pace.served(at(0), at(10));
        assert_eq!(millis(pace.expected(0, at(0), at(10))), 10);
        assert_eq!(millis(pace.expected(0, at(0), at(2010))), 2010);
    }

    #[test]
    fn the_time_without_a_queue_is_none_between_two_that_were_served() {
        let mut pace = Pace::default();
        pace.served(at(0), at(10));
        pace.served(at(60_000), at(60_010));
        assert_eq!(millis(pace.expected(0, at(60_000), at(60_010))), 10);
        assert_eq!(
            millis(pace.expected(0, at(90_000), at(90_000))),
            10,
            "nothing is known of a new queue but its pace"
        );
    }

    #[test]
    fn the_pace_follows_what_changes() {
        let mut pace = Pace::default();
        let mut now = 0;
        for interval in std::iter::repeat_n(10, 100).chain(std::iter::repeat_n(100, 40)) {
            now += interval;
            pace.served(at(0), at(now));
        }
        let expected = millis(pace.expected(0, at(0), at(now)));
        assert!((95..=100).contains(&expected), "{expected}");
    }
}
