//! How long one more would wait in a queue.

use std::time::Duration;

use super::books::LedgerState;
use super::{Connections, Limits};
use crate::labels::Phase;
use crate::telemetry::clock::{Nanos, nanos};

/// Who waits for capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) queued: usize,
    /// For how long one who comes now can expect to wait.
    pub(crate) expected_wait: Duration,
}

/// How fast a queue moves: the time between two that leave it with what they waited for, a mean that forgets.
#[derive(Debug, Default)]
pub(super) struct Pace {
    interval: u64,
    last: Nanos,
}

/// A new interval counts for one part in so many.
const WEIGHT: u64 = 4;

/// How long after one was last served nothing is known of the pace any more.
const MEMORY: Duration = Duration::from_secs(10);

impl Pace {
    /// One got what it waited for, out of a queue that has been there since then.
    pub(super) fn served(&mut self, since: Nanos, at: Nanos) {
        let interval = at.since(since.max(self.last));
        self.interval = match self.interval(at) {
            0 => interval,
            mean => mean - mean / WEIGHT + interval / WEIGHT,
        };
        self.last = at;
    }

    /// The mean, as far as it is known; else zero.
    fn interval(&self, now: Nanos) -> u64 {
        if now.since(self.last) > nanos(MEMORY) { 0 } else { self.interval }
    }

    /// One interval for each that is before, and for oneself; and for how long nothing has moved.
    fn expected(&self, queued: usize, since: Nanos, now: Nanos) -> Duration {
        let places = u64::try_from(queued).unwrap_or(u64::MAX).saturating_add(1);
        let stands = now.since(since.max(self.last));
        Duration::from_nanos(self.interval(now).saturating_mul(places).saturating_add(stands))
    }
}

impl LedgerState {
    /// One leaves a phase, with a connection or without; to be told before the queue is counted anew.
    #[inline]
    pub(super) fn note_pace(&mut self, left: Phase, served: bool, at: Nanos) {
        if let (Phase::Queue, true, Some(since)) = (left, served, self.saturated_since) {
            self.pace.served(since, at);
        }
    }

    /// Those in the queue for capacity. Who is in it while there is capacity is about to have it; or does not ask for it
    /// any more, being kept and not polled.
    pub(super) fn backlog(&self, limits: &Limits, now: Nanos) -> Backlog {
        let Some(since) = self.saturated_since else { return Backlog::default() };
        let connections = Connections::of(self.standings());
        if connections.idle > 0 || connections.live() < limits.max() {
            return Backlog::default();
        }
        Backlog { queued: self.queued, expected_wait: self.pace.expected(self.queued, since, now) }
    }
}

/// Those who wait for something else than capacity.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: usize,
    /// Since when there are any.
    since: Nanos,
    pace: Pace,
}

impl Line {
    pub(crate) fn join(&mut self, at: Nanos) {
        if self.waiting == 0 {
            self.since = at;
        }
        self.waiting += 1;
    }

    /// One leaves, with what it waited for or without.
    pub(crate) fn leave(&mut self, served: bool, at: Nanos) {
        self.waiting = self.waiting.saturating_sub(1);
        if served {
            self.pace.served(self.since, at);
        }
    }

    pub(crate) fn backlog(&self, now: Nanos) -> Backlog {
        match self.waiting {
            0 => Backlog::default(),
            queued => Backlog { queued, expected_wait: self.pace.expected(queued, self.since, now) },
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
        assert_eq!(millis(pace.expected(0, at(0), at(20_010))), 20_000);
    }

    #[test]
    fn the_time_without_a_queue_is_none_between_two_that_were_served() {
        let mut pace = Pace::default();
        pace.served(at(0), at(10));
        pace.served(at(60), at(70));
        assert_eq!(millis(pace.expected(0, at(60), at(70))), 10);
        assert_eq!(millis(pace.expected(0, at(900), at(900))), 10, "nothing is known of a new queue but its pace");
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut pace = Pace::default();
        pace.served(at(0), at(5_000));
        assert_eq!(millis(pace.expected(1, at(3_600_000), at(3_600_001))), 1);
        pace.served(at(3_600_000), at(3_600_002));
        assert_eq!(millis(pace.expected(0, at(3_600_000), at(3_600_002))), 2);
    }

    #[test]
    fn the_pace_follows_what_changes() {
        let mut pace = Pace::default();
        let mut now = 0;
        for interval in std::iter::repeat_n(10, 100).chain(std::iter::repeat_n(100, 20)) {
            now += interval;
            pace.served(at(0), at(now));
        }
        let expected = millis(pace.expected(0, at(0), at(now)));
        assert!((95..=100).contains(&expected), "{expected}");
    }

    #[test]
    fn a_line_is_as_long_as_those_who_have_not_left_it() {
        let mut line = Line::default();
        assert_eq!(line.backlog(at(5)), Backlog::default());
        line.join(at(10));
        line.join(at(20));
        line.leave(false, at(30));
        assert_eq!(line.backlog(at(30)), Backlog { queued: 1, expected_wait: Duration::from_millis(20) });
        line.leave(true, at(40));
        assert_eq!(line.backlog(at(50)), Backlog::default());
        line.join(at(60));
        assert_eq!(millis(line.backlog(at(60)).expected_wait), 60, "one before it and itself, at 30 each");
    }
}
